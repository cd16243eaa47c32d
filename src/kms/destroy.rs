//! Deletion in a cluster: nothing is ever encrypted under a key whose deletion was acknowledged.
//!
//! First the versions are *retired*: they decrypt, and encrypt nothing more. When every member of the cluster has said that
//! no request uses an older state, they are removed. Only then the caller gets its answer. An enclave is emptied after that,
//! in transactions that fit.

use std::borrow::Cow;
use std::sync::Arc;

use super::command::Change;
use super::draft::{Author, Draft, Inside};
use super::node::Node;
use super::record::{Place, Record};
use super::ring::Ring;
use super::snapshot::{Enclave, Retired, Snapshot};
use super::transit::{self, What};
use super::wire::DeleteKeyRequest;
use super::writer::{Order, Writer};
use super::{Action, Error};
use crate::name::EnclaveName;

/// One step of a deletion.
#[derive(Debug)]
pub enum Step {
    /// Versions of a key encrypt nothing more.
    RetireKey(RetireKey),
    /// They are removed.
    RemoveKey(RemoveKey),
    /// A transit key encrypts nothing more.
    RetireTransit(RetireTransit),
    /// It is removed.
    RemoveTransit(RemoveTransit),
    /// Versions of a transit key before one are removed.
    Trim(Trim),
    /// An enclave is used no more.
    RetireEnclave(RetireEnclave),
    /// Some of the records of an enclave that nobody enters are removed, at last its own.
    Empty(Empty),
}

/// See [`Step::RetireKey`].
#[derive(Debug)]
pub struct RetireKey {
    name: String,
    /// None: all.
    number: Option<u32>,
}

/// See [`Step::RemoveKey`].
#[derive(Debug)]
pub struct RemoveKey {
    /// The key as it was when the versions were retired. A later one of this name is another.
    ring: Arc<Ring>,
    numbers: Vec<u32>,
    asked: Vec<u32>,
}

/// See [`Step::RetireTransit`].
#[derive(Debug)]
pub struct RetireTransit {
    name: String,
    /// Whether the client is one whose deletions the key must allow.
    needs_permission: bool,
}

/// See [`Step::RemoveTransit`].
#[derive(Debug)]
pub struct RemoveTransit {
    key: Arc<transit::Key>,
    asked: Vec<u32>,
}

/// See [`Step::Trim`]. There is no step before it: versions that encrypt nothing more were retired by the setting that says
/// which ones may encrypt.
#[derive(Debug)]
pub struct Trim {
    /// The key as everybody knows it.
    pub(super) key: Arc<transit::Key>,
    /// The first version that stays.
    pub(super) first: i64,
    /// The members that know it.
    pub(super) asked: Vec<u32>,
}

/// See [`Step::RetireEnclave`].
#[derive(Debug)]
pub struct RetireEnclave {
    name: String,
    to: Retired,
    /// The enclave that was asked about, and who was asked.
    of: Option<([u8; 16], Vec<u32>)>,
}

/// See [`Step::Empty`].
#[derive(Debug)]
pub struct Empty {
    name: EnclaveName,
    id: [u8; 16],
    most: usize,
}

impl Step {
    /// The name of what is deleted.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::RetireKey(RetireKey { name, .. })
            | Self::RetireTransit(RetireTransit { name, .. })
            | Self::RetireEnclave(RetireEnclave { name, .. }) => name,
            Self::RemoveKey(RemoveKey { ring, .. }) => ring.name.as_str(),
            Self::RemoveTransit(RemoveTransit { key, .. }) | Self::Trim(Trim { key, .. }) => key.name().as_str(),
            Self::Empty(Empty { name, .. }) => name.as_str(),
        }
    }

    /// Details for the log.
    pub(super) fn detail(&self) -> Cow<'static, str> {
        let list = |numbers: &[u32]| numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        match self {
            Self::RetireKey(RetireKey { number: Some(number), .. }) => format!("version {number} is retired").into(),
            Self::RetireKey(_) => "all versions are retired".into(),
            Self::RemoveKey(remove) => format!("removed versions {}", list(&remove.numbers)).into(),
            Self::RetireTransit(_) => "all versions are retired".into(),
            Self::RemoveTransit(_) => "all versions".into(),
            Self::Trim(Trim { first, .. }) => What::Trim(*first).detail(),
            Self::RetireEnclave(RetireEnclave { to: Retired::Gone, .. }) => "all of it".into(),
            Self::RetireEnclave(_) => "it is retired".into(),
            Self::Empty(_) => "records are removed".into(),
        }
    }
}

impl Draft<'_> {
    /// Takes a step of a deletion.
    pub(super) fn destroy(&mut self, enclave: &str, action: Action, step: &Step) -> Result<(), Error> {
        match step {
            Step::RetireEnclave(retire) => self.as_sysadmin()?.retire_enclave(retire),
            Step::Empty(empty) => self.as_sysadmin()?.empty(empty),
            Step::RetireKey(retire) => self.inside(enclave, action, |inside| inside.retire_key(retire)),
            Step::RemoveKey(remove) => self.inside(enclave, action, |inside| inside.remove_key(remove)),
            Step::RetireTransit(retire) => self.inside(enclave, action, |inside| inside.retire_transit(retire)),
            Step::RemoveTransit(remove) => self.inside(enclave, action, |inside| inside.remove_transit_key(remove)),
            Step::Trim(trim) => self.inside(enclave, action, |inside| inside.trim(trim)),
        }
    }

    /// Checks that every member was asked.
    fn were_asked(&self, asked: &[u32]) -> Result<(), Error> {
        if self.snapshot.members.iter().all(|member| asked.contains(&member.number)) {
            Ok(())
        } else {
            Err(Error::Overtaken)
        }
    }

    fn retire_enclave(&mut self, RetireEnclave { name, to, of }: &RetireEnclave) -> Result<(), Error> {
        let enclave = self.snapshot.enclave(name).ok_or(Error::NoEnclave)?;
        if let Some((id, asked)) = of {
            if *id != enclave.id || enclave.retired == Retired::No {
                return Err(Error::NoEnclave);
            }
            self.were_asked(asked)?;
        }
        let enclave = Arc::new(Enclave { retired: *to, ..Enclave::clone(enclave) });
        if *to == Retired::Gone {
            // From here on nobody has any rights by it.
            enclave.identities.values().for_each(|account| self.snapshot.known.remove(account));
        }
        self.changed.insert(Place::enclave(&enclave.name), Some(Record::Enclave(enclave.clone())));
        self.snapshot.enclaves.insert(enclave.name.clone(), enclave);
        Ok(())
    }

    fn empty(&mut self, Empty { name, id, most }: &Empty) -> Result<(), Error> {
        let found = self.snapshot.enclaves.get(name.as_str());
        let found = found.filter(|enclave| enclave.id == *id && enclave.retired == Retired::Gone);
        let mut enclave = Enclave::clone(found.ok_or(Error::NoEnclave)?);
        let places = places(&mut enclave, *most);
        let is_empty = places.len() < *most;
        self.steps += places.len();
        self.changed.extend(places.into_iter().map(|place| (place, None)));
        if is_empty {
            self.changed.insert(Place::enclave(name), None);
            self.snapshot.enclaves.remove(name.as_str());
        } else {
            self.snapshot.enclaves.insert(name.clone(), Arc::new(enclave));
        }
        Ok(())
    }
}

/// Takes at most so many records out of an enclave; returns their places.
fn places(enclave: &mut Enclave, most: usize) -> Vec<Place> {
    let mut places = Vec::new();
    macro_rules! take {
        ($map:ident, $place:ident) => {
            let names: Vec<_> = enclave.$map.keys().take(most - places.len()).cloned().collect();
            for name in names {
                places.push(Place::$place(enclave, &name));
                enclave.$map.remove(&name);
            }
        };
    }
    take!(keys, key);
    take!(transit, transit);
    let paths: Vec<_> = enclave.secrets.paths().take(most - places.len()).cloned().collect();
    for path in paths {
        places.push(Place::secret(enclave, &path));
        enclave.secrets.remove(&path);
    }
    take!(revoked, revoked);
    take!(policies, policy);
    take!(identities, identity);
    places
}

impl Inside<'_, '_> {
    fn retire_key(&mut self, RetireKey { name, number }: &RetireKey) -> Result<(), Error> {
        self.authorize(name)?;
        let ring = self.enclave.key(name)?;
        let mut numbers = ring.retired().to_vec();
        match number {
            Some(number) => {
                ring.version(*number)?;
                numbers.push(*number);
            }
            None => numbers = ring.versions_from(0).map(|(number, _)| number).collect(),
        }
        numbers.sort_unstable();
        numbers.dedup();
        let ring = ring.same_retiring(&numbers);
        self.put_key(ring);
        Ok(())
    }

    fn remove_key(&mut self, RemoveKey { ring, numbers, asked }: &RemoveKey) -> Result<(), Error> {
        self.authorize(ring.name.as_str())?;
        self.draft.were_asked(asked)?;
        let (mut left, mut is_any_gone) = (Some(self.enclave.key(ring.name.as_str())?.same()), false);
        for number in numbers {
            // Somebody else may have deleted it meanwhile, and made another one with this name and number.
            let is_it = |key: &Ring| -> Result<bool, Error> {
                let (Ok((_, version)), (_, retired)) = (key.version(*number), ring.version(*number)?) else {
                    return Ok(false);
                };
                Ok(key.retired().contains(number) && version.key.is_same(&retired.key))
            };
            if let Some(key) = &left
                && is_it(key)?
            {
                is_any_gone = true;
                left = key.without(*number)?;
            }
        }
        if !is_any_gone {
            return Err(Error::NoKey);
        }
        match left {
            Some(ring) => self.put_key(ring),
            None => self.remove_whole_key(&ring.name),
        }
        Ok(())
    }

    fn retire_transit(&mut self, RetireTransit { name, needs_permission }: &RetireTransit) -> Result<(), Error> {
        self.authorize(name)?;
        let key = self.enclave.transit(name)?;
        if *needs_permission && !key.settings().deletion_allowed {
            return Err(Error::invalid("deletion is not allowed for this key"));
        }
        let key = transit::Key::clone(key).retiring();
        self.put_transit(key);
        Ok(())
    }

    fn remove_transit_key(&mut self, RemoveTransit { key, asked }: &RemoveTransit) -> Result<(), Error> {
        let name = key.name().as_str();
        self.authorize(name)?;
        self.draft.were_asked(asked)?;
        let found = self.enclave.transit(name)?;
        if !found.is_retired() || found.to_message() != key.to_message() {
            return Err(Error::NoKey);
        }
        self.remove_transit(name);
        Ok(())
    }

    fn trim(&mut self, Trim { key, first, asked }: &Trim) -> Result<(), Error> {
        let name = key.name().as_str();
        self.authorize(name)?;
        self.draft.were_asked(asked)?;
        let found = self.enclave.transit(name)?;
        // Whoever was asked knows the settings of that key.
        if found.to_message() != key.to_message() {
            return Err(Error::Overtaken);
        }
        let trimmed = found.trimmed(*first)?;
        self.put_transit(trimmed);
        Ok(())
    }
}

impl Writer {
    /// Makes a change that destroys something, in steps. Returns the order if it is no such change.
    ///
    /// # Errors
    /// When it is refused, or a member of the cluster has not confirmed it in time. Then it can be asked for again.
    pub(super) async fn destroy(&self, node: &Node, mut order: Order) -> Result<Option<Order>, Error> {
        let destroys = |(_, change): &(Action, Change)| match change {
            Change::KeyDelete(_) | Change::EnclaveDelete(_) => true,
            Change::Transit(change) => matches!(change.what, What::Delete | What::Trim(_)),
            _ => false,
        };
        if order.commands.len() != 1 || !order.commands.iter().any(destroys) {
            return Ok(Some(order));
        }
        let Some((action, change)) = order.commands.pop() else { return Ok(Some(order)) };
        let part = Part { writer: self, node, author: order.author, enclave: &order.enclave, action };
        match change {
            Change::EnclaveDelete(request) => part.delete_enclave(request.name).await?,
            Change::KeyDelete(request) => part.delete_key(request).await?,
            Change::Transit(transit::Change { name, what: What::Delete }) => part.delete_transit(name, true).await?,
            Change::Transit(transit::Change { name, what: What::Trim(first) }) => part.trim(name, first).await?,
            change => {
                order.commands.push((action, change));
                return Ok(Some(order));
            }
        }
        Ok(None)
    }
}

/// What all steps of one deletion share.
struct Part<'a> {
    writer: &'a Writer,
    node: &'a Node,
    author: Author,
    enclave: &'a str,
    action: Action,
}

impl Part<'_> {
    async fn step(&self, step: Step) -> Result<Arc<Snapshot>, Error> {
        let commands = vec![(self.action, Change::Destroy(step))];
        self.writer.write(Order { author: self.author, enclave: self.enclave.to_owned(), commands, size: 64 }).await?;
        Ok(self.writer.snapshot())
    }

    /// Waits until no member uses a state before this one any more. Returns who was asked.
    async fn asked(&self, snapshot: &Snapshot) -> Result<Vec<u32>, Error> {
        self.node.everybody_is_at(snapshot.commit).await
    }

    async fn delete_key(&self, request: DeleteKeyRequest) -> Result<(), Error> {
        let DeleteKeyRequest { name, version, all_versions } = request;
        if all_versions && version != 0 {
            return Err(Error::invalid("either all versions are deleted, or one"));
        }
        self.node.confirm().await?;
        let key = self.found(&name).map_err(|error| error.of(self.action, &name))?;
        let ring = match key {
            Found::Ring(ring) => ring,
            // The rules of another listener are not about keys of this kind.
            Found::Transit if self.author.right == super::draft::Right::Listener => return Err(Error::NoKey),
            Found::Transit if !all_versions => {
                return Err(Error::invalid(
                    "a transit key is deleted with all its versions; trim it to remove old ones",
                ));
            }
            Found::Transit => return self.delete_transit(name, false).await,
        };
        // Also of the only version: another one may be made before it is retired.
        let number = (!all_versions).then(|| if version == 0 { ring.latest().0 } else { version });
        let mut snapshot = self.step(Step::RetireKey(RetireKey { name: name.clone(), number })).await?;
        loop {
            let ring = self.author.enter(&snapshot, self.enclave)?.0.key(&name)?.clone();
            let numbers = number.map_or_else(|| ring.retired().to_vec(), |number| vec![number]);
            let asked = self.asked(&snapshot).await.map_err(|error| undone(error, &name))?;
            match self.step(Step::RemoveKey(RemoveKey { ring, numbers, asked })).await {
                Err(Error::Overtaken) => snapshot = self.writer.snapshot(),
                done => return done.map(drop),
            }
        }
    }

    fn found(&self, name: &str) -> Result<Found, Error> {
        let snapshot = self.writer.snapshot();
        let (enclave, standing) = self.author.enter(&snapshot, self.enclave)?;
        standing.authorize(self.action, name)?;
        match enclave.transit(name) {
            Ok(_) => Ok(Found::Transit),
            Err(_) => Ok(Found::Ring(enclave.key(name)?.clone())),
        }
    }

    async fn delete_transit(&self, name: String, needs_permission: bool) -> Result<(), Error> {
        let retire = RetireTransit { name: name.clone(), needs_permission };
        let mut snapshot = self.step(Step::RetireTransit(retire)).await?;
        loop {
            let key = self.author.enter(&snapshot, self.enclave)?.0.transit(&name)?.clone();
            let asked = self.asked(&snapshot).await.map_err(|error| undone(error, &name))?;
            match self.step(Step::RemoveTransit(RemoveTransit { key, asked })).await {
                Err(Error::Overtaken) => snapshot = self.writer.snapshot(),
                done => return done.map(drop),
            }
        }
    }

    /// Removes versions before the first one that may encrypt. A node that is behind may not know yet which one that is.
    async fn trim(&self, name: String, first: i64) -> Result<(), Error> {
        loop {
            self.node.confirm().await?;
            let snapshot = self.writer.snapshot();
            let (enclave, standing) = self.author.enter(&snapshot, self.enclave)?;
            standing.authorize(self.action, &name)?;
            let key = enclave.transit(&name).map_err(|error| error.of(self.action, &name))?.clone();
            key.trimmed(first)?;
            let asked = self.asked(&snapshot).await?;
            match self.step(Step::Trim(Trim { key, first, asked })).await {
                Err(Error::Overtaken) => {}
                done => return done.map(drop),
            }
        }
    }

    async fn delete_enclave(&self, name: String) -> Result<(), Error> {
        let retire = |to, of| Step::RetireEnclave(RetireEnclave { name: name.clone(), to, of });
        let mut snapshot = self.step(retire(Retired::Idle, None)).await?;
        loop {
            let id = snapshot.enclave(&name).ok_or(Error::NoEnclave)?.id;
            let asked = self.asked(&snapshot).await.map_err(|error| undone(error, &name))?;
            match self.step(retire(Retired::Gone, Some((id, asked)))).await {
                Err(Error::Overtaken) => snapshot = self.writer.snapshot(),
                Err(error) => return Err(error),
                // Its records go in the background.
                Ok(_) => {
                    self.node.empty_enclaves();
                    return Ok(());
                }
            }
        }
    }
}

enum Found {
    Ring(Arc<Ring>),
    Transit,
}

/// What the caller hears when the second step was not made.
fn undone(error: Error, name: &str) -> Error {
    match error {
        Error::Uncertain(why) => Error::Uncertain(
            format!("'{name}' is retired, not deleted: {why}. It encrypts nothing more; delete it again later").into(),
        ),
        error => error,
    }
}

/// The next step towards emptying an enclave that nobody enters any more; none: there is no such enclave.
pub(super) fn next_to_empty(snapshot: &Snapshot, most: usize) -> Option<Change> {
    let gone = snapshot.enclaves.values().find(|enclave| enclave.retired == Retired::Gone)?;
    Some(Change::Destroy(Step::Empty(Empty { name: gone.name.clone(), id: gone.id, most })))
}
