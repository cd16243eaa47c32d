//! Paths to values in the config file, such as `policy.my-app.allow[0]`.

use std::fmt;

/// The longest key that is shown.
const MAX_SHOWN: usize = 64;

/// One step from a value to a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// To the value under a key.
    Key(String),
    /// To the nth value of a list, from 0.
    Index(usize),
}

/// The way from the top of the file to a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Path(Vec<Step>);

impl Path {
    /// A path of keys, written with dots between them.
    pub(super) fn of(keys: &str) -> Self {
        Self(keys.split('.').map(|key| Step::Key(key.into())).collect())
    }

    /// The path to the value under `key`.
    #[must_use]
    pub(super) fn key(mut self, key: impl Into<String>) -> Self {
        self.0.push(Step::Key(key.into()));
        self
    }

    /// The path to a value of the list.
    #[must_use]
    pub(super) fn index(mut self, index: usize) -> Self {
        self.0.push(Step::Index(index));
        self
    }

    /// The same from one level further up.
    #[must_use]
    pub(super) fn inside(mut self, step: Step) -> Self {
        self.0.insert(0, step);
        self
    }

    /// The path to the section that has the last key, and that key.
    pub(super) fn parent(&self) -> Option<(Self, &str)> {
        match self.0.split_last() {
            Some((Step::Key(key), parent)) => Some((Self(parent.to_vec()), key)),
            _ => None,
        }
    }

    /// Whether one of the two leads to the other's value, or to a part of it.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(one, other)| one == other)
    }

    /// Its first steps, so many of them.
    pub(super) fn beginning(&self, steps: usize) -> Self {
        Self(self.0.iter().take(steps).cloned().collect())
    }

    /// Whether it leads through a list.
    pub(super) fn is_in_list(&self) -> bool {
        self.0.iter().any(|step| matches!(step, Step::Index(_)))
    }

    /// From the top down.
    pub(super) fn steps(&self) -> &[Step] {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if nth == 0 => f.write_str(shown(key))?,
                Step::Key(key) => write!(f, ".{}", shown(key))?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// The key itself, or `?` when it does not look like one: it may be a value that got into a key's place.
fn shown(key: &str) -> &str {
    let is_key = |c: char| c.is_ascii_alphanumeric() || "-_/<".contains(c);
    if (1..=MAX_SHOWN).contains(&key.len()) && key.chars().all(is_key) { key } else { "?" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_written_with_dots_and_brackets() {
        let path = Path::of("policy").key("my-app").key("allow").index(2);
        assert_eq!(path.to_string(), "policy.my-app.allow[2]");
        assert_eq!(Path::default().to_string(), "");
        assert_eq!(Path::of("api").key("/v1/ready").to_string(), "api./v1/ready");
    }

    #[test]
    fn what_does_not_look_like_a_key_is_not_shown() {
        for odd in ["password:hunter2", "a b", "", "ä", "k=v", &"x".repeat(65)] {
            assert_eq!(Path::of("tls").key(odd).to_string(), "tls.?", "{odd}");
        }
    }
}
