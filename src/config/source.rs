//! A config file on its way from text to a config: what is wrong is noted, and the rest is read all the same.

use std::path::Path as FilePath;

use serde::Deserialize as _;
use zeroize::Zeroizing;

use super::document::{self, Document, Lookup};
use super::finding::{Finding, Place};
use super::path::{Path, Step};
use super::read::{self, Problem};
use super::yaml::{self, Entry, Node, Position, Scalar, Value};
use super::{ENCLAVE, ENCRYPT, TRANSIT, old, read_file};
use crate::keystore::seal;

/// The most errors that are looked for.
const MAX_ERRORS: usize = 100;

/// What stands in for a section that cannot be read, so that the rest of the file can be.
const STAND_INS: [(&str, &str); 3] =
    [("admin", "{ identity: disabled }"), ("tls", "{ key: x, cert: x }"), ("keystore", "{ fs: { path: x } }")];

/// Sections that once had another name: that name, and today's.
const FORMER: [(&str, &str); 2] = [("root", "admin"), ("keys", "keystore")];

/// A file, and the tree that it was parsed into.
pub(super) struct Source<'f> {
    file: &'f FilePath,
    pub(super) document: Document,
    errors: Vec<Finding>,
    /// Which errors these are.
    pub(super) noted: Vec<Noted>,
    /// Sections that something else stands in for, or nothing.
    replaced: Vec<String>,
}

/// An error that was noted.
pub(super) struct Noted {
    pub(super) path: Path,
    /// Whether a key is unknown, that may have been meant for another.
    is_unknown: bool,
}

impl<'f> Source<'f> {
    /// Reads a file, and parses it.
    pub(super) fn open(file: &'f FilePath) -> Result<Self, Finding> {
        Self::parse(file, &read_file(file)?)
    }

    /// Parses the text of a file.
    pub(super) fn parse(file: &'f FilePath, text: &str) -> Result<Self, Finding> {
        let document = Document::parse(text).map_err(|malformed| {
            let place = Place { file: file.into(), position: Some(malformed.position), key: String::new() };
            Finding::new(place, malformed.message)
        })?;
        let mut source = Self { file, document, errors: Vec::new(), noted: Vec::new(), replaced: Vec::new() };
        source.document.merge().into_iter().for_each(|problem| source.note(problem));
        Ok(source)
    }

    /// Whether an enclave of a key manager stands where a key store could, and no key store does.
    pub(super) fn names_enclave(&self) -> bool {
        self.names_only(ENCLAVE)
    }

    /// Whether `keystore:` names a transit engine of a Vault, and nothing else.
    pub(super) fn names_transit(&self) -> bool {
        self.names_only(TRANSIT)
    }

    fn names_only(&self, what: &str) -> bool {
        let section = self.document.root.entry("keystore").map_or(&[][..], |section| section.value.entries());
        let mut named = section.iter().filter(|entry| !entry.value.is_null() && entry.key != ENCRYPT);
        named.next().is_some_and(|entry| entry.key == what) && named.next().is_none()
    }

    /// Refuses an enclave of a key manager as key store.
    pub(super) fn refuse_enclave(&mut self) {
        let message = "a key manager is no key store of a server; only 'migrate' and 'verify' read this section, and \
                       there no key store stands beside it";
        self.refuse(Path::of("keystore").key(ENCLAVE), message);
        let message = "a transit engine is no key store of a server; only 'migrate' reads this section, and there no key \
                       store stands beside it";
        self.refuse(Path::of("keystore").key(TRANSIT), message);
    }

    /// Refuses the seal of a key store.
    pub(super) fn refuse_encrypt(&mut self) {
        let message = "is for key stores, and a key manager seals its keys itself; remove it";
        self.refuse(Path::of("keystore").key(ENCRYPT), message);
        self.take_encrypt();
    }

    fn refuse(&mut self, path: Path, message: &str) {
        if self.document.root.find_mut(&path).is_some_and(|node| !node.is_null()) {
            self.note_and_strike(Problem::at_key(path, message));
        }
    }

    fn note_and_strike(&mut self, problem: Problem) {
        let path = problem.path.clone();
        self.note(problem);
        self.document.root.find_mut(&path).into_iter().for_each(Node::strike);
    }

    /// Refuses what older versions meant otherwise.
    pub(super) fn refuse_old(&mut self) {
        for problem in old::refuse(&self.document.root) {
            let path = problem.path.clone();
            self.note_and_strike(problem);
            // What stands there under its old name is not missing, too.
            let meant = FORMER.iter().find(|(old, _)| Path::of(old) == path).map(|(_, new)| Path::of(new));
            self.noted.extend(meant.map(|path| Noted { path, is_unknown: false }));
        }
    }

    /// Replaces every `${NAME}` at and below `path`.
    pub(super) fn expand(&mut self, path: &Path, lookup: Lookup<'_>) {
        let Some(node) = self.document.root.find_mut(path) else { return };
        document::expand(node, path, lookup).into_iter().for_each(|problem| self.note(problem));
    }

    /// Leaves out what only older versions knew; returns a warning for each, and one for further documents.
    pub(super) fn drop_ignored(&mut self) -> Vec<Finding> {
        let mut warnings = Vec::new();
        if self.document.has_more {
            let message = "only the first document is read; whatever follows the line '---' is ignored";
            let place = Place::of(self.file);
            warnings.push(Finding::new(place, message));
        }
        for (path, why) in old::ignored(&self.document.root) {
            warnings.push(self.finding(Problem::at_key(path.clone(), why)));
            old::remove(&mut self.document.root, &path);
        }
        warnings
    }

    /// Takes the section `keystore.encrypt` out: it stands beside the key store, of which there is exactly one.
    pub(super) fn take_encrypt(&mut self) -> Option<Entry> {
        self.document.root.find_mut(&Path::of("keystore"))?.take(ENCRYPT)
    }

    /// Puts the section back, and reads it where it stands.
    pub(super) fn read_encrypt(&mut self, entry: Option<Entry>) -> Option<seal::Config> {
        self.document.root.find_mut(&Path::of("keystore"))?.put(entry?);
        let read = |root: &Node| {
            let section = root.entry("keystore").and_then(|keystore| keystore.value.entry(ENCRYPT));
            let read = section.map_or(Ok(None), |section| Option::<seal::Config>::deserialize(&section.value));
            read.map_err(|problem| problem.inside(Step::Key(ENCRYPT.into())).inside(Step::Key("keystore".into())))
        };
        self.read(read).flatten()
    }

    /// Reads the tree. What is wrong is noted and struck out, until the rest can be read.
    pub(super) fn read<T>(&mut self, read: impl Fn(&Node) -> Result<T, Problem>) -> Option<T> {
        for _ in 0..MAX_ERRORS {
            let problem = match read(&self.document.root) {
                Ok(value) => return Some(value),
                Err(problem) => advise(problem),
            };
            let (path, is_known) = (problem.path.clone(), self.is_known(&problem));
            let is_struck = !is_known && {
                // Before the tree changes: its place is found by the tree.
                let (is_missing, position) = (problem.is_missing(), problem.position);
                self.note(problem);
                if is_missing { self.fill(&path) } else { self.strike(&path, position) }
            };
            if !is_struck && !self.strike_around(&path) && !self.replace_section(&path) {
                return None;
            }
        }
        None
    }

    /// Notes an error, unless it follows from one that was noted.
    pub(super) fn note(&mut self, problem: Problem) {
        if self.is_known(&problem) {
            return;
        }
        self.noted.push(Noted { path: problem.path.clone(), is_unknown: problem.is_unknown() });
        let finding = self.finding(problem);
        self.errors.push(finding);
    }

    /// Whether an error follows from one that was noted: it is about the same value, or a key is missing in a section
    /// where another is unknown.
    fn is_known(&self, problem: &Problem) -> bool {
        let section = |path: &Path| path.parent().map(|(section, _)| section);
        self.noted.iter().any(|noted| {
            let is_misspelt = || noted.is_unknown && section(&noted.path) == section(&problem.path);
            noted.path.overlaps(&problem.path) || problem.is_missing() && is_misspelt()
        })
    }

    /// Strikes out what is wrong: the entry whose key is written at `position`, else the value at `path`.
    fn strike(&mut self, path: &Path, position: Option<Position>) -> bool {
        let root = &mut self.document.root;
        let node = match position.zip(path.parent()) {
            Some((position, (section, _))) => root.find_mut(&section).and_then(|section| section.value_at(position)),
            None if path.steps().is_empty() => None,
            None => root.find_mut(path),
        };
        let node = node.filter(|node| !node.is_struck());
        node.map(Node::strike).is_some()
    }

    /// Puts a text where something is missing.
    fn fill(&mut self, path: &Path) -> bool {
        let Some((section, key)) = path.parent() else { return false };
        let Some(section) = self.document.root.find_mut(&section) else { return false };
        let position = section.position;
        let value = Value::Scalar(Scalar { text: Zeroizing::new("x".into()), is_plain: false });
        let Value::Map(entries) = &mut section.value else { return false };
        entries.retain(|entry| entry.key != key);
        entries.push(Entry { position, key: key.into(), has_colon: true, value: Node { position, value } });
        true
    }

    /// Strikes out the smallest part of a section that `path` leads through, and that is not struck out yet.
    fn strike_around(&mut self, path: &Path) -> bool {
        (2..=path.steps().len()).rev().any(|len| self.strike(&path.beginning(len), None))
    }

    /// Puts something that can be read in the place of a whole section; false when that was done before.
    fn replace_section(&mut self, path: &Path) -> bool {
        let Some(Step::Key(section)) = path.steps().first() else { return false };
        if self.replaced.contains(section) {
            return false;
        }
        self.replaced.push(section.clone());
        let stand_in = STAND_INS.iter().find(|(name, _)| name == section);
        let path = Path::default().key(section);
        if self.document.root.entry(section).is_none() {
            self.fill(&path);
        }
        let Some(node) = self.document.root.find_mut(&path) else { return false };
        match stand_in {
            Some((_, text)) => node.stand_in(yaml::parse(text).expect("it is YAML").0),
            None => node.strike(),
        }
        true
    }

    /// Where a problem is.
    pub(super) fn place(&self, problem: &Problem) -> Place {
        let position = Some(self.document.position(problem));
        Place { file: self.file.into(), position, key: problem.path.to_string() }
    }

    /// The problem and its place.
    pub(super) fn finding(&self, problem: Problem) -> Finding {
        Finding { place: self.place(&problem), weight: problem.weight, message: problem.message }
    }

    /// What is wrong, in the order of the file.
    pub(super) fn into_errors(mut self) -> Vec<Finding> {
        self.errors.sort_by_key(|error| error.place.position.map(|position| (position.line, position.column)));
        self.errors
    }
}

/// Adds what to write where something important is missing.
fn advise(problem: Problem) -> Problem {
    let advice = match problem.path.to_string().as_str() {
        _ if problem.message != read::MISSING => return problem,
        "admin" | "admin.identity" => {
            "; write 'admin: { identity: … }' with the identity of an API key, or 'disabled' for nobody"
        }
        "tls" | "tls.key" | "tls.cert" => {
            "; write 'tls: { key: server.key, cert: server.crt }'; 'claviger identity new' makes such files"
        }
        "keystore" => "; write 'keystore: { fs: { path: … } }', or the section of another key store",
        _ => return problem,
    };
    Problem { message: format!("{}{advice}", problem.message), ..problem }
}
