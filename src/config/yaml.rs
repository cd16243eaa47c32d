//! YAML as a tree of texts, each with its place in the file.
//!
//! Begin with `compose`: it makes the tree of the events of the parser, in one walk. Scalars stay as they are written;
//! whoever reads a value says what type it has.

mod compose;
mod events;

use std::fmt;

use zeroize::Zeroizing;

use super::path::{Path, Step};

pub(super) use self::compose::parse;

/// What is said of a file without a value in it.
pub(super) const EMPTY: &str = "the file has no content; 'kes-config.example.yml' shows every setting";

/// A line and a column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Position {
    /// The beginning of a file.
    pub(super) const START: Self = Self { line: 1, column: 1 };

    /// The place after `text`.
    pub(super) fn after(text: &[u8]) -> Self {
        let line = 1 + text.iter().filter(|byte| **byte == b'\n').count();
        let last = text.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        Self { line, column: 1 + String::from_utf8_lossy(last).chars().count() }
    }
}

/// The text is no YAML.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    pub(super) position: Position,
    pub(super) message: &'static str,
}

/// A value.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Where it is written: for a value that an alias repeats, where the value itself stands.
    pub(super) position: Position,
    pub(super) value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Nothing any more: what stood here is wrong, which was said. To whoever reads on it is as if not there.
    Struck,
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A text. It may be a secret.
#[derive(Clone)]
pub(super) struct Scalar {
    pub(super) text: Zeroizing<String>,
    /// Whether it stands there without quotes, so that it may be meant as a number or a truth value.
    pub(super) is_plain: bool,
}

/// Shows nothing of the text.
impl fmt::Debug for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scalar(redacted)")
    }
}

/// A key and its value.
#[derive(Clone)]
pub(super) struct Entry {
    /// Where the key is written.
    pub(super) position: Position,
    pub(super) key: String,
    /// Whether a colon is seen behind the key. `{ hunter2 }` is a key without one, and hardly meant as a key.
    pub(super) has_colon: bool,
    pub(super) value: Node,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Entry").field(&self.position).field(&self.value).finish()
    }
}

impl Node {
    /// Whether there is a value at all.
    pub(super) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// The entries of a map; none of anything else.
    pub(super) fn entries(&self) -> &[Entry] {
        if let Value::Map(entries) = &self.value { entries } else { &[] }
    }

    /// Whether it was struck out.
    pub(super) fn is_struck(&self) -> bool {
        matches!(self.value, Value::Struck)
    }

    /// Strikes it out. Its place stays known.
    pub(super) fn strike(&mut self) {
        self.value = Value::Struck;
    }

    /// Takes the value of another tree. Everything in it gets the place of what it stands in for.
    pub(super) fn stand_in(&mut self, other: Self) {
        let position = self.position;
        self.value = other.value;
        self.each(&Path::default(), &mut |node, _| {
            node.position = position;
            if let Value::Map(entries) = &mut node.value {
                entries.iter_mut().for_each(|entry| entry.position = position);
            }
        });
    }

    /// The value of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        if let Value::Scalar(scalar) = &self.value { Some(&scalar.text) } else { None }
    }

    /// The values of a list; none of anything else.
    pub(super) fn items(&self) -> &[Self] {
        if let Value::List(nodes) = &self.value { nodes } else { &[] }
    }

    /// The entry under `key`.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    fn entry_mut(&mut self, key: &str) -> Option<&mut Entry> {
        let Value::Map(entries) = &mut self.value else { return None };
        entries.iter_mut().find(|entry| entry.key == key)
    }

    /// The value at `path`, to change it.
    pub(super) fn find_mut(&mut self, path: &Path) -> Option<&mut Self> {
        path.steps().iter().try_fold(self, |node, step| match step {
            Step::Key(key) => node.entry_mut(key).map(|entry| &mut entry.value),
            Step::Index(index) => match &mut node.value {
                Value::List(nodes) => nodes.get_mut(*index),
                _ => None,
            },
        })
    }

    /// Takes the entry under `key` out.
    pub(super) fn take(&mut self, key: &str) -> Option<Entry> {
        let Value::Map(entries) = &mut self.value else { return None };
        let place = entries.iter().position(|entry| entry.key == key)?;
        Some(entries.remove(place))
    }

    /// The value of the entry whose key is written there.
    pub(super) fn value_at(&mut self, position: Position) -> Option<&mut Self> {
        let Value::Map(entries) = &mut self.value else { return None };
        entries.iter_mut().find(|entry| entry.position == position).map(|entry| &mut entry.value)
    }

    /// Puts an entry back that [`Node::take`] took out.
    pub(super) fn put(&mut self, entry: Entry) {
        if let Value::Map(entries) = &mut self.value {
            entries.push(entry);
        }
    }

    /// Where the value at `path` is written, or the key before it; for a path that leads nowhere, the last thing on it.
    pub(super) fn locate(&self, path: &Path, is_key: bool) -> Position {
        let (mut key, mut node) = (self.position, self);
        for step in path.steps() {
            match (step, &node.value) {
                (Step::Key(name), Value::Map(_)) => {
                    let Some(entry) = node.entry(name) else { break };
                    (key, node) = (entry.position, &entry.value);
                }
                (Step::Index(index), Value::List(nodes)) => {
                    let Some(next) = nodes.get(*index) else { break };
                    (key, node) = (next.position, next);
                }
                _ => break,
            }
        }
        if is_key { key } else { node.position }
    }

    /// Calls `change` with this and everything below it, from the top down.
    pub(super) fn each(&mut self, path: &Path, change: &mut impl FnMut(&mut Self, &Path)) {
        change(self, path);
        match &mut self.value {
            Value::Null | Value::Struck | Value::Scalar(_) => {}
            Value::List(nodes) => {
                nodes.iter_mut().enumerate().for_each(|(index, node)| node.each(&path.clone().index(index), change));
            }
            Value::Map(entries) => {
                entries.iter_mut().for_each(|entry| entry.value.each(&path.clone().key(&*entry.key), change));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree as text: scalars in `'` when quoted.
    fn show(node: &Node) -> String {
        match &node.value {
            Value::Null | Value::Struck => "null".into(),
            Value::Scalar(scalar) if scalar.is_plain => String::clone(&scalar.text),
            Value::Scalar(scalar) => format!("'{}'", *scalar.text),
            Value::List(nodes) => format!("[{}]", nodes.iter().map(show).collect::<Vec<_>>().join(", ")),
            Value::Map(entries) => {
                let entries = entries.iter().map(|entry| format!("{}: {}", entry.key, show(&entry.value)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
            }
        }
    }

    fn tree(text: &str) -> String {
        show(&parse(text).expect("valid").0)
    }

    #[test]
    fn scalars_keep_their_text() {
        assert_eq!(
            tree("{ a: 0123, b: 0x1F, c: 1e3, d: on, e: true, f: 1_000, g: -8, h: .5, i: +5m, j: 1.0 }"),
            "{a: 0123, b: 0x1F, c: 1e3, d: on, e: true, f: 1_000, g: -8, h: .5, i: +5m, j: 1.0}"
        );
        let huge = "9".repeat(60);
        assert_eq!(tree(&format!("a: {huge}")), format!("{{a: {huge}}}"));
        assert_eq!(tree("{ 1: a, true: b }"), "{1: a, true: b}");
    }

    #[test]
    fn quotes_make_a_text() {
        assert_eq!(
            tree(r#"{ a: "5", b: 'true', c: "~", d: "", e: "x\ty" }"#),
            "{a: '5', b: 'true', c: '~', d: '', e: 'x\ty'}"
        );
        assert_eq!(tree("a: |\n  true\nb: ${X}\nc: \"${X}\""), "{a: 'true\n', b: ${X}, c: '${X}'}");
        assert_eq!(tree(r#"{"ä":"ö","ü":5,"x":"5"}"#), "{ä: 'ö', ü: 5, x: '5'}");
    }

    #[test]
    fn nothing_is_null() {
        assert_eq!(tree("{ a: , b: ~, c: null, d: [ ~ ], e: {} }"), "{a: null, b: null, c: null, d: [null], e: {}}");
    }

    #[test]
    fn aliases_repeat_values() {
        let text = "a: &x { k: 07 }\nb: *x\nc: [ *x, &y 08, *y ]";
        assert_eq!(tree(text), "{a: {k: 07}, b: {k: 07}, c: [{k: 07}, 08, 08]}");
    }

    #[test]
    fn line_ends_of_windows_are_line_ends() {
        assert_eq!(tree("a:\r\n  b: 1\r\nc: d\r\n"), "{a: {b: 1}, c: d}");
    }

    #[test]
    fn every_key_and_value_has_a_place() {
        let text = "a:\n  b: [ 1,\n    two ]\n  \"c\": ~\n";
        let (root, more) = parse(text).expect("valid");
        assert!(!more);
        let place = |path: Path, is_key| {
            let Position { line, column } = root.locate(&path, is_key);
            (line, column)
        };
        assert_eq!(place(Path::of("a"), false), (2, 3));
        assert_eq!(place(Path::of("a.b").index(0), false), (2, 8));
        assert_eq!(place(Path::of("a.b").index(1), false), (3, 5));
        assert_eq!(place(Path::of("a.c"), false), (4, 8));
        assert_eq!(place(Path::of("a.nope.deeper"), false), (2, 3));
        assert_eq!(place(Path::of("a.c"), true), (4, 3));
    }

    #[test]
    fn the_place_of_a_scalar_is_where_its_text_stands() {
        let text = include_str!("../../kes-config.example.yml");
        let mut root = parse(text).expect("valid").0;
        let lines: Vec<&str> = text.lines().collect();
        let at = |Position { line, column }: Position| -> String { lines[line - 1].chars().skip(column - 1).collect() };
        let mut seen = 0;
        root.each(&Path::default(), &mut |node, path| {
            for entry in node.entries() {
                let key = at(entry.position);
                assert!(key.trim_start_matches(['"', '\'']).starts_with(&entry.key), "{path}: {key}");
            }
            if let Value::Scalar(scalar) = &node.value {
                let value = at(node.position);
                assert!(value.trim_start_matches(['"', '\'']).starts_with(scalar.text.as_str()), "{path}: {value}");
                seen += 1;
            }
        });
        assert!(seen > 15, "{seen}");
    }

    #[test]
    fn the_place_of_a_repeated_value_is_where_it_is_written() {
        let text = "a: &x\n  k: v\nb: *x\n";
        let root = parse(text).expect("valid").0;
        assert_eq!(root.locate(&Path::of("b.k"), false), Position { line: 2, column: 6 });
    }

    #[test]
    fn tags_of_yaml_are_known_and_must_fit() {
        assert_eq!(
            tree("{ a: !!int 7, b: !!str 7, c: !!null ~, d: !!bool true, e: !!float 1.5, f: !!map {}, g: !!str }"),
            "{a: 7, b: '7', c: null, d: true, e: 1.5, f: {}, g: ''}"
        );
        for text in ["!!int x", "!!int 0xg", "!!float x", "!!bool 1", "!!null x", "!t {}", "! x"] {
            assert_eq!(parse(&format!("a: {text}")).expect_err(text).position, Position { line: 1, column: 4 });
        }
    }

    /// Parsers of YAML 1.2 refuse these.
    #[test]
    fn files_that_the_archived_server_reads_are_read() {
        assert_eq!(tree("{\n\t\"a\": {\n\t\t\"b\": [\n\t\t\t1\n\t\t]\n\t}\n}\n"), "{a: {b: [1]}}");
        assert_eq!(tree("a: {\n\tb: c\n}\nd:\te\nf: [ g ]#h\n"), "{a: {b: c}, d: e, f: [g]}");
    }

    #[test]
    fn further_documents_are_noticed() {
        assert!(parse("a: b\n---\nc: d\n").expect("valid").1);
        assert!(!parse("---\na: b\n...\n").expect("valid").1);
    }

    #[test]
    fn what_is_no_yaml_has_a_place() {
        for (text, line) in [
            ("a: [", 2),
            ("a: b\n\tc: d\n", 2),
            ("a: *x", 1),
            ("a: b: c", 1),
            ("a: !!int x", 1),
            ("a: !t x", 1),
            ("? [ a ]\n: b", 1),
            ("a: b\nc: ö\u{1}", 2),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!(error.position.line, line, "{text:?}: {error:?}");
        }
        assert!(parse("a: *x").expect_err("no anchor").message.contains("anchor"));
        let deep = "[".repeat(200);
        assert!(parse(&format!("{deep}{}", "]".repeat(200))).expect_err("deep").message.contains("nested"));
    }

    #[test]
    fn a_file_that_explodes_is_refused() {
        let mut text = String::from("a0: &a0 [ x, x, x, x, x, x, x, x, x, x ]\n");
        for n in 1..9 {
            let before = n - 1;
            text.push_str(&format!("a{n}: &a{n} [ {} ]\n", vec![format!("*a{before}"); 10].join(", ")));
        }
        assert!(parse(&text).expect_err("a bomb").message.contains("repeats itself"));
    }

    #[test]
    fn a_long_text_that_aliases_repeat_counts_with_its_length() {
        let text = format!("a: &a {}\nb: [ {} ]\n", "x".repeat(1 << 20), vec!["*a"; 100].join(", "));
        let error = parse(&text).expect_err("100 MiB");
        assert!(error.message.contains("repeats itself"), "{error:?}");
        assert_eq!(error.position.line, 2);
    }

    #[test]
    fn aliases_do_not_nest_deeper_than_brackets() {
        let mut text = String::from("a0: &a0 [ x ]\n");
        for n in 1..200 {
            text.push_str(&format!("a{n}: &a{n} [ *a{} ]\n", n - 1));
        }
        let error = parse(&text).expect_err("deep");
        assert_eq!((error.message, error.position.line), ("sections are nested too deeply", 128));
        assert!(parse("a: &a [ *a ]").expect_err("it is in itself").message.contains("anchor"));
    }
}
