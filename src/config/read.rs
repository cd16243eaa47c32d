//! Reads values of the tree into the `Config` of a part: a `serde` deserializer.
//!
//! A key without a value counts as absent, and an empty text in an `Option` is `None`. Errors name the path to the
//! value and never quote the value.

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Expected, MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::finding::Weight;
use super::path::{Path, Step};
use super::yaml::{Entry, Node, Position, Scalar, Value};

/// What is said of a key that must be there.
pub(super) const MISSING: &str = "is missing, or has no value";

/// What is said first of a key that nobody knows.
const UNKNOWN: &str = "unknown key";

/// Something that the file must not say.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {message}")]
pub(super) struct Problem {
    pub(super) path: Path,
    /// Whether the key is wrong, and not the value.
    pub(super) is_key: bool,
    /// Where it is, when the path does not say it.
    pub(super) position: Option<Position>,
    /// What is wrong, and what to write instead.
    pub(super) message: String,
    /// How bad it is.
    pub(super) weight: Weight,
}

impl Problem {
    /// A problem with the value at `path`.
    pub(super) fn at(path: Path, message: impl Into<String>) -> Self {
        Self { path, is_key: false, position: None, message: message.into(), weight: Weight::Plain }
    }

    /// A problem with the key at the end of `path`.
    pub(super) fn at_key(path: Path, message: impl Into<String>) -> Self {
        Self { is_key: true, ..Self::at(path, message) }
    }

    fn new(message: impl Into<String>) -> Self {
        Self::at(Path::default(), message)
    }

    /// Whether it is that something is missing.
    pub(super) fn is_missing(&self) -> bool {
        self.message.starts_with(MISSING)
    }

    /// Whether it is that a key is unknown.
    pub(super) fn is_unknown(&self) -> bool {
        self.message.starts_with(UNKNOWN)
    }

    /// The same from one level further up.
    pub(super) fn inside(self, step: Step) -> Self {
        Self { path: self.path.inside(step), ..self }
    }
}

/// The messages of parts pass through; those that would show a value do not.
impl serde::de::Error for Problem {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        match found {
            Unexpected::UnitVariant => Self::new("must be a section of its own, with keys and values"),
            _ => Self::new(format!("expected {expected}")),
        }
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {expected}"))
    }

    fn invalid_length(_: usize, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {expected}"))
    }

    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        Self::new(format!("must be one of: {}", known.join(", ")))
    }

    fn unknown_field(_: &str, known: &'static [&'static str]) -> Self {
        Self::new(format!("{UNKNOWN}; known here: {}", known.join(", ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::at(Path::default().key(field), MISSING)
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(format!("'{field}' stands here twice, under two of its names; remove one"))
    }
}

/// Why an entry's key is none of the known ones, and which may have been meant.
fn unknown(entry: &Entry, known: &[&str]) -> Problem {
    let (key, advice) = match suggestion(&entry.key, known) {
        Some(known) => (entry.key.as_str(), format!("did you mean '{known}'?")),
        // `{ hunter2 }` is a key without a colon, and hardly meant as one.
        None if entry.value.is_null() && !entry.has_colon => ("?", format!("known here: {}", known.join(", "))),
        None => (entry.key.as_str(), format!("known here: {}", known.join(", "))),
    };
    Problem {
        position: Some(entry.position),
        ..Problem::at_key(Path::default().key(key), format!("{UNKNOWN}; {advice}"))
    }
}

/// The known word that is closest to `word`, if one is close.
pub(super) fn suggestion<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word = word.to_lowercase();
    let distance = |known: &str| strsim::damerau_levenshtein(&word, &known.to_lowercase());
    let (distance, known) = known.iter().map(|known| (distance(known), *known)).min()?;
    (distance <= 2 && distance * 2 < known.len()).then_some(known)
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Problem;

    /// A plain scalar is a number or a truth value where it looks like one.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.value {
            Value::Null | Value::Struck => visitor.visit_unit(),
            Value::List(nodes) => visitor.visit_seq(List { nodes: nodes.iter(), next: 0 }),
            Value::Map(_) => visitor.visit_map(Map::of(self.visible().collect())),
            Value::Scalar(Scalar { text, is_plain }) => match text.as_str() {
                "true" if *is_plain => visitor.visit_bool(true),
                "false" if *is_plain => visitor.visit_bool(false),
                text => match text.parse() {
                    Ok(number) if *is_plain => visitor.visit_i64(number),
                    _ => visitor.visit_str(text),
                },
            },
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        let Value::Scalar(Scalar { text, is_plain: true }) = &self.value else {
            return Err(Problem::new("must be true or false, without quotes"));
        };
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => visitor.visit_bool(true),
            "false" | "no" | "off" | "n" => visitor.visit_bool(false),
            _ => Err(Problem::new("must be true or false")),
        }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.value {
            Value::Scalar(scalar) => match scalar.text.parse() {
                Ok(number) => visitor.visit_u64(number),
                Err(_) => Err(Problem::new("must be a whole number")),
            },
            _ => Err(Problem::new("must be a whole number")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.value {
            Value::Scalar(scalar) => visitor.visit_str(&scalar.text),
            Value::Null | Value::Struck => visitor.visit_str(""),
            Value::List(_) | Value::Map(_) => Err(Problem::new("must be a single value, not a list or a section")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.value {
            Value::Null | Value::Struck => visitor.visit_none(),
            Value::Scalar(scalar) if scalar.text.is_empty() => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.value {
            Value::Null | Value::Struck | Value::List(_) => self.as_list(visitor),
            _ => Err(Problem::new("must be a list, such as [ one, two ]")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.value {
            Value::Null | Value::Struck | Value::Map(_) => visitor.visit_map(Map::of(self.visible().collect())),
            _ => Err(Problem::new("must be a section with keys and values")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        if !matches!(self.value, Value::Null | Value::Struck | Value::Map(_)) {
            return Err(Problem::new(format!("must be a section with these keys: {}", known.join(", "))));
        }
        match self.visible().find(|entry| !known.contains(&entry.key.as_str())) {
            Some(entry) => Err(unknown(entry, known)),
            None => visitor.visit_map(Map::of(self.with_value().collect())),
        }
    }

    /// A section with exactly one key, or a word.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        match &self.value {
            Value::Scalar(scalar) => visitor.visit_enum(StrDeserializer::new(&scalar.text)),
            Value::List(_) => Err(Problem::new(format!("must be one of: {}", known.join(", ")))),
            Value::Null | Value::Struck | Value::Map(_) => {
                if let Some(entry) = self.visible().find(|entry| !known.contains(&entry.key.as_str())) {
                    return Err(unknown(entry, known));
                }
                let mut entries = self.with_value();
                match (entries.next(), entries.next()) {
                    (Some(entry), None) => visitor.visit_enum(Variant(entry)),
                    (None, _) => Err(Problem::new(format!("needs a section: one of {}", known.join(", ")))),
                    (Some(_), Some(second)) => {
                        let path = Path::default().key(&*second.key);
                        Err(Problem::at_key(path, "more than one stands here; keep one"))
                    }
                }
            }
        }
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_str(visitor)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct ignored_any
    }
}

impl Node {
    /// The entries that were not struck out.
    fn visible(&self) -> impl Iterator<Item = &Entry> {
        self.entries().iter().filter(|entry| !entry.value.is_struck())
    }

    fn with_value(&self) -> impl Iterator<Item = &Entry> {
        self.visible().filter(|entry| !entry.value.is_null())
    }

    fn as_list<'de, V: Visitor<'de>>(&'de self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_seq(List { nodes: self.items().iter(), next: 0 })
    }
}

struct List<'de> {
    nodes: std::slice::Iter<'de, Node>,
    next: usize,
}

impl<'de> SeqAccess<'de> for List<'de> {
    type Error = Problem;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Problem> {
        let (index, node) = loop {
            let Some(node) = self.nodes.next() else { return Ok(None) };
            self.next += 1;
            if !node.is_struck() {
                break (self.next - 1, node);
            }
        };
        seed.deserialize(node).map(Some).map_err(|problem| problem.inside(Step::Index(index)))
    }
}

struct Map<'de> {
    entries: std::vec::IntoIter<&'de Entry>,
    current: Option<&'de Entry>,
}

impl<'de> Map<'de> {
    fn of(entries: Vec<&'de Entry>) -> Self {
        Self { entries: entries.into_iter(), current: None }
    }
}

impl<'de> MapAccess<'de> for Map<'de> {
    type Error = Problem;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Problem> {
        self.current = self.entries.next();
        let Some(entry) = self.current else { return Ok(None) };
        let key = seed.deserialize(StrDeserializer::<Problem>::new(&entry.key));
        key.map(Some).map_err(|problem| Problem::at_key(Path::default().key(&*entry.key), problem.message))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Problem> {
        let entry = self.current.expect("serde asks for a key first");
        seed.deserialize(&entry.value).map_err(|problem| problem.inside(Step::Key(entry.key.clone())))
    }
}

/// An entry as a variant with one field.
struct Variant<'de>(&'de Entry);

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Problem;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Problem> {
        Ok((seed.deserialize(StrDeserializer::<Problem>::new(&self.0.key))?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Problem;

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Problem> {
        seed.deserialize(&self.0.value).map_err(|problem| problem.inside(Step::Key(self.0.key.clone())))
    }

    fn unit_variant(self) -> Result<(), Problem> {
        Err(Problem::new("must be a single word"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Problem> {
        self.0.value.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, known: &'static [&'static str], visitor: V) -> Result<V::Value, Problem> {
        self.0.value.deserialize_struct("", known, visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::config::yaml;

    fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
        let (root, _) = yaml::parse(text).expect("YAML");
        T::deserialize(&root).map_err(|problem| problem.to_string())
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Section {
        allow: Option<Vec<String>>,
        deny: Option<String>,
        #[serde(default)]
        flag: bool,
        #[serde(default)]
        count: u16,
        kind: Option<Kind>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Plain,
        Fs(BTreeMap<String, String>),
        Vault(Vec<u64>),
    }

    fn section(text: &str) -> Result<Section, String> {
        read(text)
    }

    #[test]
    fn a_key_without_a_value_is_not_there() {
        let empty = Section { allow: None, deny: None, flag: false, count: 0, kind: None };
        assert_eq!(section("{ allow: , deny: ~, flag: , count: null, kind: }"), Ok(empty));
        assert_eq!(section("deny: ''").map(|section| section.deny), Ok(None));
        assert_eq!(section("nope:"), Err("nope: unknown key; known here: allow, deny, flag, count, kind".into()));
        assert_eq!(section("{ nope }"), Err("?: unknown key; known here: allow, deny, flag, count, kind".into()));
        // In a map of free keys the key itself says something.
        assert_eq!(read::<BTreeMap<String, Section>>("p:").map(|map| map.len()), Ok(1));
    }

    #[test]
    fn truth_values_are_those_of_old_yaml_and_never_quoted() {
        for text in ["true", "yes", "on", "On", "YES", "y"] {
            assert_eq!(section(&format!("flag: {text}")).map(|section| section.flag), Ok(true), "{text}");
        }
        for text in ["false", "no", "off"] {
            assert_eq!(section(&format!("flag: {text}")).map(|section| section.flag), Ok(false), "{text}");
        }
        for text in ["maybe", "1", "'true'", "[ true ]"] {
            assert!(section(&format!("flag: {text}")).is_err_and(|error| error.starts_with("flag: must be")), "{text}");
        }
    }

    #[test]
    fn numbers_fit_their_type() {
        for text in ["7", "'7'", "007"] {
            assert_eq!(section(&format!("count: {text}")).map(|section| section.count), Ok(7), "{text}");
        }
        for text in ["-1", "70000", "1.5", "seven", "{}"] {
            assert!(section(&format!("count: {text}")).is_err(), "{text}");
        }
    }

    #[test]
    fn an_enum_is_a_section_with_one_key_or_a_word() {
        assert_eq!(section("kind: plain").map(|section| section.kind), Ok(Some(Kind::Plain)));
        let fs = Kind::Fs(BTreeMap::from([("path".into(), "x".into())]));
        assert_eq!(section("kind: { fs: { path: x }, vault: }").map(|section| section.kind), Ok(Some(fs)));
        for (text, error) in [
            ("kind: { fs: {}, vault: [ 1 ] }", "kind.vault: more than one stands here; keep one"),
            ("kind: {}", "kind: needs a section: one of plain, fs, vault"),
            ("kind: { fss: {} }", "kind.fss: unknown key; known here: plain, fs, vault"),
            ("kind: { valt: {} }", "kind.valt: unknown key; did you mean 'vault'?"),
            ("kind: { FS: {} }", "kind.FS: unknown key; did you mean 'fs'?"),
            ("kind: fs", "kind: must be a section of its own, with keys and values"),
            ("kind: [ fs ]", "kind: must be one of: plain, fs, vault"),
            ("kind: other", "kind: must be one of: plain, fs, vault"),
            ("kind: { vault: [ 1, x ] }", "kind.vault[1]: must be a whole number"),
        ] {
            assert_eq!(section(text), Err(error.into()), "{text}");
        }
    }

    #[test]
    fn the_path_leads_to_the_value() {
        for (text, error) in [
            ("allow: x", "allow: must be a list, such as [ one, two ]"),
            ("allow: [ x, [ y ] ]", "allow[1]: must be a single value, not a list or a section"),
            ("[ x ]", ": must be a section with these keys: allow, deny, flag, count, kind"),
            ("dney: x", "dney: unknown key; did you mean 'deny'?"),
        ] {
            assert_eq!(section(text), Err(error.into()), "{text}");
        }
    }

    #[test]
    fn only_close_words_are_suggested() {
        let known = ["skip_auth", "timeout", "tls", "fs"];
        for (word, meant) in [("skipauth", Some("skip_auth")), ("Timeout", Some("timeout")), ("FS", Some("fs"))] {
            assert_eq!(suggestion(word, &known), meant, "{word}");
        }
        for word in ["colour", "s3", "xyz", "", "hunter2"] {
            assert_eq!(suggestion(word, &known), None, "{word}");
        }
    }
}
