//! Selects keys by globs over their names.

use globset::{GlobBuilder, GlobMatcher};

/// Why a text is no glob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed pattern: {0}")]
pub struct Malformed(String);

/// A glob over names: `*`, `?`, `[a-c]`, `[^x]`, `{a,b}`, `\` takes the next character literally. Case matters.
/// A text without any of these is a plain name.
#[derive(Debug, Clone)]
pub struct Glob {
    text: String,
    matcher: GlobMatcher,
}

impl Glob {
    /// Parses a glob.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let pattern = translate(text).map_err(Malformed)?;
        let glob = GlobBuilder::new(&pattern).backslash_escape(true).build();
        let glob = glob.map_err(|error| Malformed(error.kind().to_string()))?;
        Ok(Self { text: text.into(), matcher: glob.compile_matcher() })
    }

    /// Whether it matches the whole name.
    pub fn matches(&self, name: &str) -> bool {
        self.matcher.is_match(name)
    }

    /// The name, if it is one and nothing more.
    pub fn plain(&self) -> Option<&str> {
        (!self.text.contains(['*', '?', '[', '{', '\\'])).then_some(&self.text)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Translates a pattern for globset so that it never matches more than its author meant: `**` means `*`, and only `^`
/// negates a class.
fn translate(text: &str) -> Result<String, String> {
    let mut pattern = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' => while chars.next_if_eq(&'*').is_some() {},
            '[' => {
                pattern.push_str(&class(&mut chars)?);
                continue;
            }
            _ => {}
        }
        pattern.push(c);
        if c == '\\' {
            pattern.push(chars.next().ok_or("'\\' at the end escapes nothing")?);
        }
    }
    Ok(pattern)
}

/// Parses a class after its `[`. Names hold letters, digits, `-` and `_`. Anything that could mean something else in a
/// shell is refused.
fn class(chars: &mut impl Iterator<Item = char>) -> Result<String, String> {
    let mut class = String::from("[");
    for c in chars {
        match c {
            ']' if class == "[" || class == "[!" => return Err("a class '[…]' must not be empty".into()),
            ']' => return Ok(class + "]"),
            '^' if class == "[" => class.push('!'),
            '!' | '^' | '[' | '\\' => return Err(format!("'{c}' cannot stand in a class; '[^…]' negates one")),
            _ => class.push(c),
        }
    }
    Err("'[' without ']'".into())
}

/// Which keys a run is about.
#[derive(Debug, Default)]
pub struct Selection {
    /// The keys to take; none: all keys.
    pub pattern: Option<Glob>,
    /// The keys to leave out.
    pub exclude: Vec<Glob>,
}

/// What a selection says about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// The key belongs to the run.
    Selected,
    /// The pattern matches, and so does an exclusion.
    Excluded,
    /// The pattern does not match.
    Ignored,
}

impl Selection {
    pub(super) fn choose(&self, name: &str) -> Choice {
        if self.pattern.as_ref().is_some_and(|pattern| !pattern.matches(name)) {
            Choice::Ignored
        } else if self.exclude.iter().any(|glob| glob.matches(name)) {
            Choice::Excluded
        } else {
            Choice::Selected
        }
    }

    /// Whether it takes this name.
    pub fn takes(&self, name: &str) -> bool {
        self.choose(name) == Choice::Selected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matching<'a>(glob: &str, names: &[&'a str]) -> Vec<&'a str> {
        let glob = Glob::parse(glob).expect(glob);
        names.iter().copied().filter(|name| glob.matches(name)).collect()
    }

    #[test]
    fn globs_match_names() {
        let names = ["alpha", "beta", "my-key", "my-key2", "zeta", "a", "b", "-", "a*b"];
        assert_eq!(matching("my*", &names), ["my-key", "my-key2"]);
        assert_eq!(matching("?eta", &names), ["beta", "zeta"]);
        assert_eq!(matching("my-key?", &names), ["my-key2"]);
        assert_eq!(matching("[a-b]", &names), ["a", "b"]);
        assert_eq!(matching("[^a-b]", &names), ["-"]);
        assert_eq!(matching("[b-]", &names), ["b", "-"]);
        assert_eq!(matching("{beta,zeta}", &names), ["beta", "zeta"]);
        assert_eq!(matching("a\\*b", &names), ["a*b"]);
        assert_eq!(matching("my\\-key", &names), ["my-key"]);
        assert_eq!(matching("ALPHA", &names), [""; 0]);
        assert_eq!(matching("alph", &names), [""; 0]);
    }

    #[test]
    fn many_stars_are_one() {
        let names = ["alpha", "a", "team/key"];
        for glob in ["*", "**", "***", "**/**"] {
            let expected = if glob.contains('/') { &names[2..] } else { &names[..] };
            assert_eq!(matching(glob, &names), expected, "{glob}");
        }
        assert_eq!(matching("a**a", &names), ["alpha"]);
    }

    #[test]
    fn malformed_globs_are_refused() {
        for bad in ["[", "[]", "[]a]", "[^]", "[a", "[!a]", "[a^]", "[a\\]", "[[a]]", "[c-a]", "{a", "a}", "\\", "a\\"]
        {
            assert!(Glob::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_plain_name_is_no_glob() {
        assert_eq!(Glob::parse("my-key").expect("a name").plain(), Some("my-key"));
        for glob in ["my*", "k?", "[a]", "{a,b}", "my\\-key"] {
            assert_eq!(Glob::parse(glob).expect(glob).plain(), None, "{glob}");
        }
    }

    #[test]
    fn an_exclusion_beats_the_pattern() {
        let glob = |text| Glob::parse(text).expect("valid");
        let selection = Selection { pattern: Some(glob("my*")), exclude: vec![glob("*2"), glob("my-x")] };
        let choices = ["my-key", "my-key2", "my-x", "other"].map(|name| selection.choose(name));
        assert_eq!(choices, [Choice::Selected, Choice::Excluded, Choice::Excluded, Choice::Ignored]);
        assert!(Selection::default().takes("anything"));
    }
}
