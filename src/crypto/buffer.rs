//! Bytes that may be secret, while they are being put together.

use std::io;
use std::ops::Deref;

use serde::Serialize;
use zeroize::Zeroizing;

/// A buffer that is wiped when it is dropped. A vector that grows by itself leaves copies of its content behind; this one
/// wipes the place that it leaves.
#[derive(Default)]
pub struct Buffer(Zeroizing<Vec<u8>>);

impl Buffer {
    /// An empty buffer with room for so many bytes. It need not be exact.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(capacity)))
    }

    /// Adds a byte.
    pub fn push(&mut self, byte: u8) {
        self.make_room_for(1);
        self.0.push(byte);
    }

    /// Adds bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.make_room_for(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// Takes the bytes out.
    pub fn into_inner(self) -> Zeroizing<Vec<u8>> {
        self.0
    }

    fn make_room_for(&mut self, more: usize) {
        let needed = self.0.len() + more;
        if needed > self.0.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(2 * self.0.capacity())));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
    }
}

impl From<Zeroizing<Vec<u8>>> for Buffer {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `value` as JSON. `capacity` is about how long it is, in bytes.
///
/// # Panics
/// When `value` cannot be JSON: a map whose keys are no texts, or one whose own code fails.
pub fn to_json(value: &impl Serialize, capacity: usize) -> Zeroizing<Vec<u8>> {
    let mut json = Buffer::with_capacity(capacity);
    serde_json::to_writer(&mut json, value).expect("our types are JSON, and writing to memory does not fail");
    json.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_in_order_while_the_buffer_grows() {
        let mut buffer = Buffer::with_capacity(3);
        for byte in 0..200 {
            buffer.push(byte);
            buffer.extend(&[byte; 3]);
        }
        let expected: Vec<_> = (0..200).flat_map(|byte| [byte; 4]).collect();
        assert_eq!(*buffer, expected[..]);
        assert_eq!(*to_json(&"text", 0), *br#""text""#);
    }
}
