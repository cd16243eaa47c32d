//! HTTP/2 by hand: frames that no library would send.

/// A frame (RFC 9113, section 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Takes the first frame off, if it is whole: its kind, stream and content.
pub fn next_frame(bytes: &mut Vec<u8>) -> Option<(u8, u32, Vec<u8>)> {
    let [a, b, c, kind, _, s0, s1, s2, s3, tail @ ..] = &bytes[..] else { return None };
    let len = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).expect("it fits");
    let frame = (*kind, u32::from_be_bytes([*s0, *s1, *s2, *s3]), tail.get(..len)?.to_vec());
    bytes.drain(..9 + len);
    Some(frame)
}

/// What a client says first.
pub fn preface() -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat()
}

/// The head of a request in HPACK, without its table of recent fields.
pub fn head(method: &str, path: &str) -> Vec<u8> {
    let mut block = vec![0x87]; // :scheme https
    for (index, value) in [(2, method), (4, path), (1, "localhost")] {
        block.push(index); // a literal with an indexed name
        block.extend(text(value));
    }
    block
}

/// The same, with a path that the server keeps in its table of recent fields.
pub fn head_to_keep(method: &str, path: &str) -> Vec<u8> {
    let mut block = head(method, path);
    let at = block.iter().position(|byte| *byte == 4).expect("the path");
    block[at] = 0x44; // a literal with an indexed name, to be kept
    block
}

/// The head of a request for the path that was kept last: five bytes, however long it is.
pub fn head_as_kept(method: &str) -> Vec<u8> {
    let mut block = vec![0x87, 0xbe];
    for (index, value) in [(2, method), (1, "localhost")] {
        block.push(index);
        block.extend(text(value));
    }
    block
}

/// A text without Huffman's code: its length (RFC 7541, section 5.1) and its bytes.
fn text(value: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    match value.len().checked_sub(127) {
        None => bytes.push(u8::try_from(value.len()).expect("less than 127")),
        Some(mut rest) => {
            bytes.push(127);
            while rest >= 128 {
                bytes.push(u8::try_from(rest % 128).expect("less than 128") | 128);
                rest /= 128;
            }
            bytes.push(u8::try_from(rest).expect("less than 128"));
        }
    }
    bytes.extend_from_slice(value.as_bytes());
    bytes
}
