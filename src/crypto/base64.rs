//! Standard base64 as the archived server reads it: line breaks anywhere are skipped, padding is
//! needed, the unused bits before it are not looked at.

use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine as _, encoded_len};
use zeroize::Zeroizing;

const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// Decodes `text`; `None` when it is no base64.
pub(crate) fn decode(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if !text.iter().any(|b| is_line_break(*b)) {
        return decode_one_line(text);
    }
    let mut line = Zeroizing::new(Vec::with_capacity(text.len()));
    line.extend(text.iter().filter(|b| !is_line_break(**b)));
    decode_one_line(&line)
}

/// Encodes `bytes` with padding and without line breaks, into a buffer that never grows.
pub(crate) fn encode(bytes: &[u8]) -> Zeroizing<String> {
    let len = encoded_len(bytes.len(), true).expect("the text of bytes in memory has less than 2^64 characters");
    let mut text = Zeroizing::new(String::with_capacity(len));
    ENGINE.encode_string(bytes, &mut text);
    text
}

fn is_line_break(b: u8) -> bool {
    b == b'\n' || b == b'\r'
}

fn decode_one_line(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    // Its full size at once: a vector that grows leaves copies of the secret behind.
    let mut bytes = Zeroizing::new(vec![0; text.len().div_ceil(4) * 3]);
    let len = ENGINE.decode_slice(text, &mut bytes).ok()?;
    bytes.truncate(len);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_archived_server_reads() {
        for good in ["c2VjcmV0IQ==", "c2Vj\r\ncmV0\nIQ=\n=\r\n", "c2VjcmV0IR=="] {
            assert_eq!(decode(good.as_bytes()).expect(good).as_slice(), b"secret!", "{good:?}");
        }
        assert_eq!(decode(b"").expect("empty").as_slice(), b"");
        for bad in ["c2VjcmV0IQ", "c2VjcmV0IQ=", " c2VjcmV0IQ==", "c2VjcmV0IQ== ", "c2VjcmV0IQ==c2Vj", "_-__", "c2V"] {
            assert!(decode(bad.as_bytes()).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn writes_padded_text() {
        assert_eq!(*encode(b"secret!"), "c2VjcmV0IQ==");
        assert_eq!(*encode(&[0xfb, 0xff]), "+/8=");
    }
}
