//! YAML as a tree of texts, with positions: fills the gaps of the YAML library.
//!
//! The library reads duplicate keys silently, does not know merge keys, turns scalars into numbers before anybody
//! asked, and tells the place of a value only in errors. So a file is walked several times, always in the same
//! order, and every key and value has the number of its turn. The first walk finds scalars that the library would
//! convert, the second reads them as text, and to learn the place of a value one more walk fails at its turn.

use std::cell::RefCell;
use std::collections::HashSet;
use std::convert::Infallible;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

use super::path::{Path, Step};

/// The most keys and values of a file, those that aliases repeat included.
const MAX_TURNS: usize = 1_000_000;

/// What is said of a file without a value in it.
pub(super) const EMPTY: &str = "the file has no content; 'kes-config.example.yml' shows every setting";

/// A line and a column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Position {
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
    pub(super) position: Option<Position>,
    pub(super) message: &'static str,
}

/// The turn of a key or value in a walk over the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Turn(usize);

/// A value.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) turn: Turn,
    pub(super) value: Value,
}

#[derive(Debug)]
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
pub(super) struct Entry {
    pub(super) turn: Turn,
    pub(super) key: String,
    /// Whether a colon is seen behind the key. `{ hunter2 }` is a key without one, and hardly meant as a key.
    pub(super) has_colon: bool,
    pub(super) value: Node,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Entry").field(&self.turn).field(&self.value).finish()
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

    /// The value of the entry whose key has this turn.
    pub(super) fn value_of(&mut self, turn: Turn) -> Option<&mut Self> {
        let Value::Map(entries) = &mut self.value else { return None };
        entries.iter_mut().find(|entry| entry.turn == turn).map(|entry| &mut entry.value)
    }

    /// Puts an entry back that [`Node::take`] took out.
    pub(super) fn put(&mut self, entry: Entry) {
        if let Value::Map(entries) = &mut self.value {
            entries.push(entry);
        }
    }

    /// The turns of the key and of the value at `path`, or of as much of the path as there is.
    pub(super) fn turns(&self, path: &Path) -> (Turn, Turn) {
        let (mut key, mut node) = (self.turn, self);
        for step in path.steps() {
            match (step, &node.value) {
                (Step::Key(name), Value::Map(_)) => {
                    let Some(entry) = node.entry(name) else { break };
                    (key, node) = (entry.turn, &entry.value);
                }
                (Step::Index(index), Value::List(nodes)) => {
                    let Some(next) = nodes.get(*index) else { break };
                    (key, node) = (next.turn, next);
                }
                _ => break,
            }
        }
        (key, node.turn)
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

/// The first document of `text`, and whether more follow.
pub(super) fn parse(text: &str) -> Result<(Node, bool), Malformed> {
    // The library calls such a file malformed.
    let is_nothing = |line: &str| ["", "---", "..."].contains(&line) || line.starts_with('#');
    let mut documents = serde_yaml::Deserializer::from_str(text);
    let Some(first) = documents.next().filter(|_| !text.lines().map(str::trim).all(is_nothing)) else {
        return Err(Malformed { position: Some(Position { line: 1, column: 1 }), message: EMPTY });
    };
    let walk = Walk::new(text, HashSet::new(), None);
    Seed(&walk).deserialize(first).map_err(|error| walk.malformed(&error))?;
    let walk = Walk::new(text, walk.converted.into_inner(), None);
    let again = serde_yaml::Deserializer::from_str(text).next().expect("it was there the first time");
    let node = Seed(&walk).deserialize(again).map_err(|error| walk.malformed(&error))?;
    Ok((node, documents.next().is_some()))
}

/// Where in `text` the key or value with this turn stands.
pub(super) fn locate(text: &str, turn: Turn) -> Option<Position> {
    let walk = Walk::new(text, HashSet::new(), Some(turn));
    let document = serde_yaml::Deserializer::from_str(text).next()?;
    Seed(&walk).deserialize(document).err().as_ref().and_then(position)
}

fn position(error: &serde_yaml::Error) -> Option<Position> {
    error.location().map(|location| Position { line: location.line(), column: location.column() })
}

/// One walk over the first document of a text.
struct Walk<'t> {
    text: &'t str,
    turn: RefCell<usize>,
    /// Scalars that the library converted.
    converted: RefCell<HashSet<Turn>>,
    /// Scalars to read as text, since an earlier walk saw them converted.
    as_text: HashSet<Turn>,
    stop: Option<Turn>,
}

impl<'t> Walk<'t> {
    fn new(text: &'t str, as_text: HashSet<Turn>, stop: Option<Turn>) -> Self {
        Self { text, turn: RefCell::default(), converted: RefCell::default(), as_text, stop }
    }

    fn next<E: serde::de::Error>(&self) -> Result<Turn, E> {
        let turn = self.turn.replace_with(|turn| *turn + 1);
        if turn < MAX_TURNS { Ok(Turn(turn)) } else { Err(E::custom("too many")) }
    }

    /// What the library's error is for the operator. Its own text may quote the file.
    fn malformed(&self, error: &serde_yaml::Error) -> Malformed {
        let text = error.to_string();
        let message = if text.starts_with("EOF") {
            EMPTY
        } else if *self.turn.borrow() > MAX_TURNS || text.starts_with("repetition limit") {
            "the file repeats itself too often; use fewer aliases"
        } else if text.starts_with("recursion limit") {
            "sections are nested too deeply"
        } else if text.starts_with("unknown anchor") {
            "no anchor with this alias's name stands before it; write '&name' at the value to repeat"
        } else {
            "not valid YAML; look at the indentation (blanks, never tabs), quotes, brackets and colons around here"
        };
        Malformed { position: position(error), message }
    }

    /// Where in the file a text begins that is a part of it.
    fn offset(&self, part: &str) -> Option<usize> {
        (part.as_ptr() as usize).checked_sub(self.text.as_ptr() as usize)
    }

    /// Whether a text that is a part of the file stands there without quotes.
    fn is_plain(&self, part: &str) -> bool {
        let before = self.offset(part).and_then(|offset| self.text.get(..offset));
        before.is_some_and(|before| !before.ends_with(['"', '\'']))
    }

    /// Whether a colon follows a text that is a part of the file.
    fn has_colon_behind(&self, part: &str) -> bool {
        let behind = self.offset(part).and_then(|offset| self.text.get(offset + part.len()..));
        behind.is_some_and(|behind| behind.trim_start_matches(['"', '\'', ' ', '\t']).starts_with(':'))
    }
}

/// Reads a value.
struct Seed<'w, 't>(&'w Walk<'t>);

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        let turn = self.0.next()?;
        if self.0.stop == Some(turn) {
            match deserializer.deserialize_any(Stop)? {}
        }
        let reader = Reader { walk: self.0, turn };
        let value = match self.0.as_text.contains(&turn) {
            true => deserializer.deserialize_str(reader),
            false => deserializer.deserialize_any(reader),
        };
        Ok(Node { turn, value: value? })
    }
}

/// Reads a key.
struct KeySeed<'w, 't>(&'w Walk<'t>);

impl<'de> DeserializeSeed<'de> for KeySeed<'_, '_> {
    type Value = (Turn, Key);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let turn = self.0.next()?;
        if self.0.stop == Some(turn) {
            match deserializer.deserialize_any(Stop)? {}
        }
        Ok((turn, deserializer.deserialize_str(KeyReader(self.0))?))
    }
}

/// A key, and whether a colon is seen behind it.
struct Key {
    text: String,
    has_colon: bool,
}

struct KeyReader<'w, 't>(&'w Walk<'t>);

impl<'de> Visitor<'de> for KeyReader<'_, '_> {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key, E> {
        Ok(Key { text: text.to_owned(), has_colon: self.0.has_colon_behind(text) })
    }

    fn visit_str<E>(self, text: &str) -> Result<Key, E> {
        Ok(Key { text: text.to_owned(), has_colon: false })
    }
}

/// Fails at whatever there is, so that the library tells the place.
struct Stop;

impl Visitor<'_> for Stop {
    type Value = Infallible;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a stop")
    }
}

struct Reader<'w, 't> {
    walk: &'w Walk<'t>,
    turn: Turn,
}

impl Reader<'_, '_> {
    fn converted<E>(self) -> Result<Value, E> {
        self.walk.converted.borrow_mut().insert(self.turn);
        Ok(Value::Null)
    }
}

impl<'de> Visitor<'de> for Reader<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value, E> {
        let is_plain = self.walk.is_plain(text);
        Ok(Value::Scalar(Scalar { text: Zeroizing::new(text.to_owned()), is_plain }))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Scalar(Scalar { text: Zeroizing::new(text.to_owned()), is_plain: false }))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        self.converted()
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        self.converted()
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        self.converted()
    }

    fn visit_i128<E>(self, _: i128) -> Result<Value, E> {
        self.converted()
    }

    fn visit_u128<E>(self, _: u128) -> Result<Value, E> {
        self.converted()
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        self.converted()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = seq.next_element_seed(Seed(self.walk))? {
            nodes.push(node);
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((turn, Key { text, has_colon })) = map.next_key_seed(KeySeed(self.walk))? {
            entries.push(Entry { turn, key: text, has_colon, value: map.next_value_seed(Seed(self.walk))? });
        }
        Ok(Value::Map(entries))
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
    fn every_turn_has_a_place() {
        let text = "a:\n  b: [ 1,\n    two ]\n  \"c\": ~\n";
        let (root, more) = parse(text).expect("valid");
        assert!(!more);
        let place = |path: Path| locate(text, root.turns(&path).1).map(|place| (place.line, place.column));
        assert_eq!(place(Path::of("a")), Some((2, 3)));
        assert_eq!(place(Path::of("a.b").index(0)), Some((2, 8)));
        assert_eq!(place(Path::of("a.b").index(1)), Some((3, 5)));
        assert_eq!(place(Path::of("a.c")), Some((4, 8)));
        assert_eq!(place(Path::of("a.nope.deeper")), Some((2, 3)));
        assert_eq!(locate(text, root.turns(&Path::of("a.c")).0), Some(Position { line: 4, column: 3 }));
    }

    #[test]
    fn the_place_of_a_repeated_value_is_where_it_is_written() {
        let text = "a: &x\n  k: v\nb: *x\n";
        let root = parse(text).expect("valid").0;
        assert_eq!(locate(text, root.turns(&Path::of("b.k")).1), Some(Position { line: 2, column: 6 }));
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
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!(error.position.map(|position| position.line), Some(line), "{text:?}: {error:?}");
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
}
