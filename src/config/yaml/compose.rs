//! Makes the tree of the events, in one walk: aliases are resolved, and their cost is bounded.

use std::collections::HashMap;

use zeroize::Zeroizing;

use super::events::{Event, Events, Kind, Properties};
use super::{EMPTY, Entry, Malformed, Node, Position, Scalar, Value};

/// The most sections that may lie in each other.
const MAX_DEPTH: usize = 128;

/// The largest tree, in bytes, with everything that aliases repeat.
const MAX_TREE: usize = 32 << 20;

/// What a key or a value counts for, besides its text.
const NODE: usize = 32;

const INVALID: &str =
    "not valid YAML; look at the indentation (blanks, never tabs), quotes, brackets and colons around here";
const TOO_DEEP: &str = "sections are nested too deeply";
const TOO_LARGE: &str = "the file repeats itself too often; use fewer aliases";
const NO_ANCHOR: &str = "no anchor with this alias's name stands before it; write '&name' at the value to repeat";

/// How the tags of YAML itself begin.
const TAG: &str = "tag:yaml.org,2002:";

/// The first document of `text`, and whether more follow.
pub(in super::super) fn parse(text: &str) -> Result<(Node, bool), Malformed> {
    // The parser takes some of these for malformed.
    let is_nothing = |line: &str| ["", "---", "..."].contains(&line) || line.starts_with('#');
    let empty = Malformed { position: Position::START, message: EMPTY };
    if text.lines().map(str::trim).all(is_nothing) {
        return Err(empty);
    }
    let mut composer = Composer { text, events: Events::new(text), anchors: HashMap::new(), left: MAX_TREE };
    let root = composer.document()?;
    if root.is_null() {
        return Err(empty);
    }
    let is_last = matches!(composer.next(), Ok(Event { kind: Kind::StreamEnd, .. }));
    Ok((root, !is_last))
}

struct Composer<'t> {
    text: &'t str,
    events: Events<'t>,
    /// The values that aliases repeat.
    anchors: HashMap<String, Anchored>,
    /// How much larger the tree may get.
    left: usize,
}

/// A value with a name.
struct Anchored {
    node: Node,
    size: usize,
    /// How many sections lie in each other in it.
    height: usize,
}

impl Composer<'_> {
    fn next(&mut self) -> Result<Event, Malformed> {
        self.events.next().map_err(|position| Malformed { position, message: INVALID })
    }

    fn document(&mut self) -> Result<Node, Malformed> {
        while !matches!(self.next()?.kind, Kind::DocumentStart | Kind::StreamEnd) {}
        let first = self.next()?;
        let root = self.node(first, 0)?;
        self.next()?;
        Ok(root)
    }

    /// The value that begins with an event, and that lies in `depth` sections.
    fn node(&mut self, Event { kind, position, .. }: Event, depth: usize) -> Result<Node, Malformed> {
        let malformed = |message| Malformed { position, message };
        let (value, anchor) = match kind {
            Kind::Alias(name) => return self.repeat(&name, position, depth),
            Kind::Scalar { text, is_plain, properties } => {
                self.spend(NODE + text.len(), position)?;
                (scalar(text, is_plain, properties.tag.as_deref()).ok_or(malformed(INVALID))?, properties.anchor)
            }
            Kind::ListStart(properties) | Kind::MapStart(properties) if is_foreign(&properties) => {
                return Err(malformed(INVALID));
            }
            Kind::ListStart(_) | Kind::MapStart(_) if depth >= MAX_DEPTH => return Err(malformed(TOO_DEEP)),
            Kind::ListStart(properties) => {
                self.spend(NODE, position)?;
                (Value::List(self.list(depth + 1)?), properties.anchor)
            }
            Kind::MapStart(properties) => {
                self.spend(NODE, position)?;
                (Value::Map(self.map(depth + 1)?), properties.anchor)
            }
            _ => return Err(malformed(INVALID)),
        };
        let node = Node { position, value };
        if let Some(name) = anchor {
            let (size, height) = measure(&node);
            self.spend(size, position)?;
            self.anchors.insert(name, Anchored { node: node.clone(), size, height });
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Malformed> {
        let mut nodes = Vec::new();
        loop {
            match self.next()? {
                Event { kind: Kind::ListEnd, .. } => return Ok(nodes),
                event => nodes.push(self.node(event, depth)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<Entry>, Malformed> {
        let mut entries = Vec::new();
        loop {
            let event = self.next()?;
            if matches!(event.kind, Kind::MapEnd) {
                return Ok(entries);
            }
            let (has_colon, position) = (self.has_colon_at(event.end), event.position);
            let key = self.key(event)?;
            self.spend(NODE + key.len(), position)?;
            let value = self.next()?;
            entries.push(Entry { position, key, has_colon, value: self.node(value, depth)? });
        }
    }

    fn key(&self, Event { kind, position, .. }: Event) -> Result<String, Malformed> {
        match kind {
            Kind::Scalar { text, .. } => Ok(String::clone(&text)),
            Kind::Alias(name) => {
                let anchored = self.anchors.get(&name).ok_or(Malformed { position, message: NO_ANCHOR })?;
                anchored.node.text().map(str::to_owned).ok_or(Malformed { position, message: INVALID })
            }
            _ => Err(Malformed { position, message: INVALID }),
        }
    }

    /// Whether a colon stands behind a key that ends there.
    fn has_colon_at(&self, end: usize) -> bool {
        self.text.get(end..).is_some_and(|behind| behind.trim_start_matches([' ', '\t']).starts_with(':'))
    }

    /// The value that an alias repeats.
    fn repeat(&mut self, name: &str, position: Position, depth: usize) -> Result<Node, Malformed> {
        let malformed = |message| Malformed { position, message };
        let Anchored { size, height, .. } = *self.anchors.get(name).ok_or(malformed(NO_ANCHOR))?;
        if depth + height > MAX_DEPTH {
            return Err(malformed(TOO_DEEP));
        }
        self.spend(size, position)?;
        Ok(self.anchors[name].node.clone())
    }

    /// Takes what something costs from what is left.
    fn spend(&mut self, size: usize, position: Position) -> Result<(), Malformed> {
        self.left = self.left.checked_sub(size).ok_or(Malformed { position, message: TOO_LARGE })?;
        Ok(())
    }
}

/// The size of a value, and how many sections lie in each other in it.
fn measure(node: &Node) -> (usize, usize) {
    let inner = |(size, height), (more, other): (usize, usize)| (size + more, other.max(height));
    match &node.value {
        Value::Null | Value::Struck => (NODE, 0),
        Value::Scalar(scalar) => (NODE + scalar.text.len(), 0),
        Value::List(nodes) => {
            let (size, height) = nodes.iter().map(measure).fold((NODE, 0), inner);
            (size, height + 1)
        }
        Value::Map(entries) => {
            let entry = |entry: &Entry| {
                let (size, height) = measure(&entry.value);
                (NODE + entry.key.len() + size, height)
            };
            let (size, height) = entries.iter().map(entry).fold((NODE, 0), inner);
            (size, height + 1)
        }
    }
}

/// Whether a value has a tag that is none of YAML's own.
fn is_foreign(properties: &Properties) -> bool {
    properties.tag.as_ref().is_some_and(|tag| tag.starts_with('!'))
}

/// A scalar as a value; `None` when its tag is none of YAML's own, or does not fit it.
fn scalar(text: Zeroizing<String>, is_plain: bool, tag: Option<&str>) -> Option<Value> {
    let is_null = matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL");
    match tag {
        None if is_plain && is_null => return Some(Value::Null),
        None => {}
        Some(tag) => match tag.strip_prefix(TAG) {
            Some("null") => return is_null.then_some(Value::Null),
            Some("bool") if !matches!(text.to_ascii_lowercase().as_str(), "true" | "false") => return None,
            Some("int") if !is_int(&text) => return None,
            Some("float") if !is_float(&text) => return None,
            None if tag.starts_with('!') => return None,
            _ => {}
        },
    }
    // What is tagged as a text is one, as if it stood in quotes.
    let is_plain = is_plain && tag.is_none_or(|tag| tag.strip_prefix(TAG) != Some("str"));
    Some(Value::Scalar(Scalar { text, is_plain }))
}

fn is_int(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (digits, radix) = match digits.get(..2) {
        Some("0x") => (&digits[2..], 16),
        Some("0o") => (&digits[2..], 8),
        Some("0b") => (&digits[2..], 2),
        _ => (digits, 10),
    };
    !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix))
}

fn is_float(text: &str) -> bool {
    let number = text.strip_prefix(['+', '-']).unwrap_or(text);
    matches!(number.to_ascii_lowercase().as_str(), ".inf" | ".nan") || number.parse::<f64>().is_ok()
}
