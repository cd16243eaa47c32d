//! A config file as a tree: duplicate keys refused, merge keys resolved, `${NAME}` replaced.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::env;
use super::path::Path;
use super::read::Problem;
use super::yaml::{self, Entry, Malformed, Node, Position, Scalar, Value};

/// Where values come from in the environment.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Result<Zeroizing<String>, env::Error>;

/// A config file.
pub(super) struct Document {
    pub(super) root: Node,
    /// Whether further documents follow, which nobody reads.
    pub(super) has_more: bool,
}

impl Document {
    /// Parses the first document of `text`.
    pub(super) fn parse(text: &str) -> Result<Self, Malformed> {
        let (root, has_more) = yaml::parse(text)?;
        Ok(Self { root, has_more })
    }

    /// Lets merge keys (`<<: *alias`) add what is not there. Strikes out keys that stand in a section a second time.
    pub(super) fn merge(&mut self) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.root.each(&Path::default(), &mut |node, path| {
            strike_duplicates(node, path, &mut problems);
            while let Some(entry) = node.take("<<") {
                problems.extend(merge(node, entry, path).err());
            }
        });
        problems
    }

    /// Where a problem is.
    pub(super) fn position(&self, problem: &Problem) -> Position {
        problem.position.unwrap_or_else(|| self.root.locate(&problem.path, problem.is_key))
    }
}

/// Replaces every value in `node` that is `${NAME}`, once. Strikes out those that have none.
pub(super) fn expand(node: &mut Node, path: &Path, lookup: Lookup<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    node.each(path, &mut |node, path| {
        let Value::Scalar(scalar) = &mut node.value else { return };
        let Some(name) = env::reference(&scalar.text) else { return };
        let value = match name {
            "" => Err("'${}' names no environment variable; write '${NAME}'".into()),
            name => lookup(name).map_err(|error| no_value(name, error)),
        };
        match value {
            // In flow style a reference needs quotes, which say nothing of its value.
            Ok(value) => *scalar = Scalar { text: value, is_plain: true },
            Err(message) => {
                problems.push(Problem::at(path.clone(), message));
                node.strike();
            }
        }
    });
    problems
}

/// Why a variable has no value. Its name stands in the file: what does not look like a name is not shown.
fn no_value(name: &str, error: env::Error) -> String {
    let is_name = name.len() <= 128 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let shown = if is_name { format!("'{name}'") } else { "named here".into() };
    match error {
        env::Error::Unset => format!("the environment variable {shown} is not set; set it, or write the value itself"),
        env::Error::NotUtf8 => format!("the environment variable {shown} is not valid UTF-8"),
    }
}

/// Tells one section from another: the same for sections with the same keys and values, however they are written.
/// It is made of secrets, so it shows itself to nobody.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SectionId([u8; 32]);

impl SectionId {
    pub(super) fn of(node: &Node) -> Self {
        let mut hash = Sha256::new();
        feed(&mut hash, node);
        Self(hash.finalize().into())
    }
}

impl std::fmt::Debug for SectionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SectionId(redacted)")
    }
}

fn feed(hash: &mut Sha256, node: &Node) {
    match &node.value {
        Value::Null | Value::Struck => hash.update(b"n"),
        Value::Scalar(scalar) => feed_text(hash, b's', &scalar.text),
        Value::List(nodes) => {
            hash.update(b"[");
            nodes.iter().for_each(|node| feed(hash, node));
            hash.update(b"]");
        }
        Value::Map(entries) => {
            let mut entries: Vec<_> = entries.iter().filter(|entry| !entry.value.is_null()).collect();
            entries.sort_by(|a, b| a.key.cmp(&b.key));
            hash.update(b"{");
            for entry in entries {
                feed_text(hash, b'k', &entry.key);
                feed(hash, &entry.value);
            }
            hash.update(b"}");
        }
    }
}

fn feed_text(hash: &mut Sha256, kind: u8, text: &str) {
    hash.update([kind]);
    hash.update((text.len() as u64).to_be_bytes());
    hash.update(text);
}

fn strike_duplicates(node: &mut Node, path: &Path, problems: &mut Vec<Problem>) {
    let Value::Map(entries) = &mut node.value else { return };
    let mut seen = HashMap::new();
    for Entry { position, key, value, .. } in entries {
        if let Some(Position { line, .. }) = seen.get(key.as_str()) {
            let message = format!("stands here twice, first in line {line}; remove one");
            let path = path.clone().key(&**key);
            problems.push(Problem { position: Some(*position), ..Problem::at_key(path, message) });
            value.strike();
        } else {
            seen.insert(key.as_str(), *position);
        }
    }
}

/// Adds the keys of a merged section, or of a list of such, that `node` does not have.
fn merge(node: &mut Node, merged: Entry, path: &Path) -> Result<(), Problem> {
    let sections = match merged.value.value {
        Value::List(nodes) => nodes,
        _ => vec![merged.value],
    };
    for section in sections {
        let Value::Map(more) = section.value else {
            let message = "a merge key takes a section, or a list of sections: write '<<: *name'";
            return Err(Problem { position: Some(section.position), ..Problem::at(path.clone().key("<<"), message) });
        };
        let Value::Map(entries) = &mut node.value else { return Ok(()) };
        for entry in more {
            if !entries.iter().any(|known| known.key == entry.key) {
                entries.push(entry);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Result<Zeroizing<String>, env::Error> {
        match name {
            "A" => Ok(Zeroizing::new("value".into())),
            "EMPTY" => Ok(Zeroizing::default()),
            "NESTED" => Ok(Zeroizing::new("${A}".into())),
            "ODD" => Err(env::Error::NotUtf8),
            _ => Err(env::Error::Unset),
        }
    }

    fn document(text: &str) -> Result<Document, (Problem, Position)> {
        let mut document = Document::parse(text).expect("YAML");
        let mut problems = document.merge();
        problems.extend(expand(&mut document.root, &Path::default(), &environment));
        match problems.into_iter().next() {
            None => Ok(document),
            Some(problem) => {
                let position = document.position(&problem);
                Err((problem, position))
            }
        }
    }

    fn value(text: &str, path: &str) -> String {
        let document = document(text).unwrap_or_else(|(problem, _)| panic!("{problem}"));
        let mut node = &document.root;
        for key in path.split('.') {
            node = &node.entry(key).unwrap_or_else(|| panic!("no '{key}'")).value;
        }
        let Value::Scalar(scalar) = &node.value else { panic!("no scalar") };
        String::clone(&scalar.text)
    }

    fn error(text: &str) -> (String, usize, usize) {
        let (problem, position) = document(text).err().unwrap_or_else(|| panic!("no error: {text}"));
        (problem.to_string(), position.line, position.column)
    }

    #[test]
    fn a_whole_value_is_replaced_once() {
        for text in ["k: ${A}", "k: \"${A}\"", "k: '${ A }'", "k: \"${\tA }\""] {
            assert_eq!(value(text, "k"), "value", "{text}");
        }
        for (text, same) in [("k: $A", "$A"), ("k: ${A}/b", "${A}/b"), ("k: x${A}", "x${A}"), ("k: ${A", "${A")] {
            assert_eq!(value(text, "k"), same, "{text}");
        }
        assert_eq!(value("k: ${NESTED}", "k"), "${A}");
        assert_eq!(value("k: ${EMPTY}", "k"), "");
        assert_eq!(value("a: { b: &x \"${A}\" }\nc: { d: *x }", "c.d"), "value");
    }

    #[test]
    fn keys_are_not_replaced() {
        assert_eq!(value("${A}: x", "${A}"), "x");
    }

    #[test]
    fn what_is_not_set_is_named_with_its_place() {
        let (message, line, column) = error("a:\n  - x\n  - ${NOPE}\n");
        assert_eq!((line, column), (3, 5));
        assert!(message.starts_with("a[1]: the environment variable 'NOPE' is not set"), "{message}");
        assert!(error("k: ${}").0.contains("names no environment variable"));
        assert!(error("k: ${ODD}").0.contains("not valid UTF-8"));
        assert!(!error("k: ${hunter2!}").0.contains("hunter2"));
    }

    #[test]
    fn a_key_stands_once_at_every_level() {
        let (message, line, column) = error("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n");
        assert_eq!((message.as_str(), line, column), ("b.c: stands here twice, first in line 3; remove one", 5, 3));
        assert_eq!(error("l: [ { k: 1, k: 2 } ]").0, "l[0].k: stands here twice, first in line 1; remove one");
        assert_eq!(error("{ \"a\": 1, 'a': 2 }").0, "a: stands here twice, first in line 1; remove one");
        assert!(error("x: { <<: { a: 1 }, <<: { b: 2 } }").0.starts_with("x.<<: stands here twice"));
    }

    #[test]
    fn merge_keys_add_what_is_not_there() {
        let text = "base: &b { k: base, l: base }\nmore: &m { l: more, m: more }\nfirst: { <<: *b, k: own }\n\
                    last: { k: own, <<: *b }\nlist: { <<: [ *b, *m ] }\nnested: &n { <<: *m }\ndeep: { <<: *n }\n";
        for (path, expected) in [
            ("first.k", "own"),
            ("first.l", "base"),
            ("last.k", "own"),
            ("list.l", "base"),
            ("list.m", "more"),
            ("deep.m", "more"),
        ] {
            assert_eq!(value(text, path), expected, "{path}");
        }
        let (message, line, column) = error("a:\n  <<: text\n");
        assert_eq!((line, column), (2, 7));
        assert!(message.starts_with("a.<<: a merge key takes a section"), "{message}");
    }

    #[test]
    fn a_problem_with_a_merged_value_is_where_that_is_written() {
        let (message, line, _) = error("base: &b\n  k: x\n  l: ${A}\nuse:\n  <<: *b\n  m: ${NOPE}\n");
        assert_eq!((line, message.starts_with("use.m: ")), (6, true), "{message}");
        let (message, line, _) = error("base: &b\n  k: { x: 1, x: 2 }\nuse:\n  <<: *b\n");
        assert_eq!((line, message.starts_with("base.k.x: ")), (2, true), "{message}");
    }

    #[test]
    fn sections_with_the_same_values_are_the_same() {
        let id = |text: &str| {
            document(text).map(|document| SectionId::of(&document.root)).map_err(|(problem, _)| problem.to_string())
        };
        let same = id("{ fs: { path: value, x: [ 1 ] } }");
        assert_eq!(id("fs:\n  x:\n    - '1'\n  y:\n  path: ${A}\n"), same);
        for other in
            ["{ fs: { path: values, x: [ 1 ] } }", "{ fs: { path: value, x: [ 2 ] } }", "{ fs: { path: value } }"]
        {
            assert_ne!(id(other), same, "{other}");
        }
        assert_ne!(id("{ a: [ b, c ] }"), id("{ a: [ bc ] }"));
        assert_eq!(format!("{:?}", same.expect("valid")), "SectionId(redacted)");
    }
}
