//! Request paths: split, checked and decoded once, so that routes, policies and handlers all see the same string.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// A decoded request path.
#[derive(Debug, PartialEq, Eq)]
pub struct Path<'a> {
    text: Cow<'a, str>,
    /// The length of the part of `text`, from its start, that has no encoded slashes. Only this part may match a route.
    plain: usize,
}

/// The path is not well-formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid path")]
pub struct Invalid;

impl<'a> Path<'a> {
    /// Parses the path of a request target, without its query.
    ///
    /// # Errors
    /// When it does not begin with a slash (though it may be empty), has empty segments before the last,
    /// `.` or `..` segments (judged before decoding, so that `%2e%2e` is a name), or does not decode to
    /// UTF-8.
    pub fn parse(raw: &'a str) -> Result<Self, Invalid> {
        if !raw.is_empty() && !raw.starts_with('/') {
            return Err(Invalid);
        }
        // Splitting bytes is faster than splitting characters.
        let mut segments = raw.as_bytes().split(|byte| *byte == b'/').skip(1).peekable();
        while let Some(segment) = segments.next() {
            if matches!(segment, b"." | b"..") || (segment.is_empty() && segments.peek().is_some()) {
                return Err(Invalid);
            }
        }
        let is_encoded = raw.as_bytes().contains(&b'%');
        if is_encoded { Self::decode(raw) } else { Ok(Self { text: Cow::Borrowed(raw), plain: raw.len() }) }
    }

    fn decode(raw: &str) -> Result<Self, Invalid> {
        let mut text = String::with_capacity(raw.len());
        let mut plain = None;
        for (at, segment) in raw.split('/').enumerate() {
            if at > 0 {
                text.push('/');
            }
            let decoded = decode_segment(segment)?;
            if decoded.contains('/') {
                plain.get_or_insert(text.len());
            }
            text.push_str(&decoded);
        }
        let plain = plain.unwrap_or(text.len());
        Ok(Self { text: Cow::Owned(text), plain })
    }

    /// The decoded path.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether this is `path` and nothing else.
    pub fn is(&self, path: &str) -> bool {
        self.plain == self.text.len() && self.text == path
    }

    /// The decoded path, as an owned value where that is needed.
    pub fn into_text(self) -> Cow<'a, str> {
        self.text
    }

    /// What follows `prefix`, which must end with a slash.
    pub fn after(&self, prefix: &str) -> Option<&str> {
        // Fast path: for most prefixes, the path has no slash where the prefix ends.
        let may_be = self.text.as_bytes().get(prefix.len().checked_sub(1)?) == Some(&b'/');
        if may_be { self.text.strip_prefix(prefix).filter(|_| prefix.len() <= self.plain) } else { None }
    }
}

/// Decodes `%xx`. Unlike the library's decoder it refuses a `%` without two hexadecimal digits.
fn decode_segment(segment: &str) -> Result<Cow<'_, str>, Invalid> {
    let mut rest = segment.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        match &rest[at + 1..] {
            [a, b, tail @ ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => rest = tail,
            _ => return Err(Invalid),
        }
    }
    percent_decode_str(segment).decode_utf8().map_err(|_| Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESCRIBE: &str = "/v1/key/describe/";

    fn name(raw: &str) -> Option<String> {
        Path::parse(raw).expect(raw).after(DESCRIBE).map(str::to_owned)
    }

    #[test]
    fn segments_are_decoded_once() {
        assert_eq!(name("/v1/key/describe/my-key").as_deref(), Some("my-key"));
        assert_eq!(name("/v1/key/%64escribe/%6Dy-key").as_deref(), Some("my-key"));
        assert_eq!(name("/v1/key/describe/a%2520").as_deref(), Some("a%20"));
        assert_eq!(name("/v1/key/describe/%2e%2e").as_deref(), Some(".."));
        assert_eq!(name("/v1/key/describe/").as_deref(), Some(""));
        assert_eq!(name("/v1/key/describe/a/b").as_deref(), Some("a/b"));
    }

    #[test]
    fn an_encoded_slash_is_part_of_a_name_and_of_no_route() {
        assert_eq!(name("/v1/key/describe/a%2fb").as_deref(), Some("a/b"));
        assert_eq!(name("/v1/key%2fdescribe/my-key"), None);
        assert_eq!(name("/v1%2Fkey%2Fdescribe%2Fmy-key"), None);
        assert!(!Path::parse("/v1%2fready").expect("well-formed").is("/v1/ready"));
        assert!(Path::parse("/v1/read%79").expect("well-formed").is("/v1/ready"));
    }

    #[test]
    fn malformed_paths_are_refused() {
        for raw in [
            "//", "//v1", "/v1//key", "/.", "/..", "/a/./b", "/a/..", "/%", "/%g1", "/a%2", "/%ff", "/a//", "*",
            "version",
        ] {
            assert_eq!(Path::parse(raw), Err(Invalid), "{raw}");
        }
        for raw in ["/", "/a/", "", "/...", "/a%00"] {
            assert!(Path::parse(raw).is_ok(), "{raw}");
        }
    }
}
