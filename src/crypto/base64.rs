//! Standard base64 as the archived server reads it: it skips line breaks anywhere, requires padding, and ignores the
//! unused bits before the padding.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// Decodes `text`; `None` when it is no base64.
pub(crate) fn decode(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    decode_one_line(text).or_else(|| {
        let mut line = Zeroizing::new(Vec::with_capacity(text.len()));
        line.extend(text.iter().filter(|b| !matches!(b, b'\n' | b'\r')));
        (line.len() < text.len()).then(|| decode_one_line(&line)).flatten()
    })
}

/// Encodes `bytes` with padding and without line breaks, into a buffer that never grows.
pub(crate) fn encode(bytes: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(encoded_len(bytes)));
    ENGINE.encode_string(bytes, &mut text);
    text
}

/// How long the text of `bytes` is.
pub(crate) fn encoded_len(bytes: &[u8]) -> usize {
    ::base64::encoded_len(bytes.len(), true).expect("the text of bytes in memory has less than 2^64 characters")
}

/// Adds the text of `bytes` to `buffer`, which must have room for it if they are secret.
pub(crate) fn append(bytes: &[u8], buffer: &mut Vec<u8>) {
    let at = buffer.len();
    buffer.resize(at + encoded_len(bytes), 0);
    ENGINE.encode_slice(bytes, &mut buffer[at..]).expect("there is as much room as the text is long");
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
        let mut buffer = b"<".to_vec();
        append(&[0xfb, 0xff], &mut buffer);
        append(b"", &mut buffer);
        assert_eq!(buffer, b"<+/8=");
    }
}
