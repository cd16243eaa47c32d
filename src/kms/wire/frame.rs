//! Frames: `u16 command ‖ u32 length ‖ message`, big-endian, one after the other.

/// The bytes before a message.
const HEAD: usize = 6;

/// One command, or the reply to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The number of the command.
    pub command: u16,
    /// Its message, not decoded yet.
    pub message: &'a [u8],
}

/// The bytes end within a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request ends within a command")]
pub struct Truncated;

/// Splits bytes into frames.
pub fn frames(mut bytes: &[u8]) -> impl Iterator<Item = Result<Frame<'_>, Truncated>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let frame = split(bytes);
        // After a broken frame the rest is ignored.
        bytes = frame.map_or(&[], |(_, rest)| rest);
        Some(frame.map(|(frame, _)| frame).ok_or(Truncated))
    })
}

fn split(bytes: &[u8]) -> Option<(Frame<'_>, &[u8])> {
    let (command, rest) = bytes.split_first_chunk()?;
    let (len, rest) = rest.split_first_chunk()?;
    let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
    let (message, rest) = rest.split_at_checked(len)?;
    Some((Frame { command: u16::from_be_bytes(*command), message }, rest))
}

/// Adds a frame to `bytes`.
pub fn append(command: u16, message: &[u8], bytes: &mut Vec<u8>) {
    bytes.reserve(HEAD + message.len());
    bytes.extend(command.to_be_bytes());
    bytes.extend(u32::try_from(message.len()).expect("messages are shorter than 4 GiB").to_be_bytes());
    bytes.extend_from_slice(message);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_is_laid_out_as_the_protocol_says() {
        let mut bytes = Vec::new();
        append(0x0102, b"xy", &mut bytes);
        assert_eq!(bytes, b"\x01\x02\x00\x00\x00\x02xy");
    }

    proptest! {
        #[test]
        fn frames_come_back(commands: Vec<(u16, Vec<u8>)>) {
            let mut bytes = Vec::new();
            for (command, message) in &commands {
                append(*command, message, &mut bytes);
            }
            let parsed: Result<Vec<_>, _> = frames(&bytes).collect();
            let parsed: Vec<_> = parsed.expect("whole").iter().map(|f| (f.command, f.message.to_vec())).collect();
            prop_assert_eq!(parsed, commands);
        }

        #[test]
        fn other_bytes_are_an_error_at_most(bytes: Vec<u8>) {
            for frame in frames(&bytes) {
                prop_assert!(frame.is_err() || !bytes.is_empty());
            }
        }
    }

    #[test]
    fn a_frame_cut_short_is_an_error_and_the_end() {
        let mut bytes = Vec::new();
        append(1, b"first", &mut bytes);
        append(2, b"second", &mut bytes);
        for cut in 12..bytes.len() {
            let parsed: Vec<_> = frames(&bytes[..cut]).collect();
            assert_eq!(parsed[1..], [Err(Truncated)], "{cut}");
        }
    }
}
