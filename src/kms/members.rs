//! The members of a cluster: the nodes that must have heard of every deletion.

use std::sync::Arc;

use prost::Message;

use super::command::Change;
use super::draft::Draft;
use super::node::Node;
use super::record::{Member, Place, Record};
use super::wire::{EditClusterRequest, ServerStatus};
use super::writer::{Order, Writer};
use super::{Action, Error};

/// What a live member says of itself, sealed, every few seconds.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Live {
    /// The epoch of its state.
    #[prost(uint64, tag = "1")]
    pub(super) epoch: u64,
    /// No request that it serves uses a state before this commit.
    #[prost(uint64, tag = "2")]
    pub(super) commit: u64,
    /// The newest format of records that it understands.
    #[prost(uint64, tag = "3")]
    pub(super) format: u64,
    /// Its administrator. All have the same one.
    #[prost(string, tag = "5")]
    pub(super) admin: String,
    /// What it tells of itself.
    #[prost(message, optional, tag = "4")]
    pub(super) status: Option<ServerStatus>,
}

/// A member that is to leave. It must not run any more: it is not removed by a commit that finds it live.
#[derive(Debug)]
pub struct Leave {
    /// Its number.
    pub(super) number: u32,
    /// Where it was reached.
    pub(super) host: String,
}

impl Leave {
    /// Where it was reached.
    pub(super) fn name(&self) -> &str {
        &self.host
    }
}

impl Writer {
    /// Looks at the other members before an order about them is written. Returns what is left to write.
    ///
    /// # Errors
    /// When it must not be done now.
    pub(super) async fn ask_members(&self, node: &Node, mut order: Order) -> Result<Option<Order>, Error> {
        let is_about_members = |(_, change): &(Action, Change)| {
            matches!(
                change,
                Change::ClusterAddNode(_)
                    | Change::ClusterRemoveNode(_)
                    | Change::ClusterEdit(_)
                    | Change::ClusterRemoveHsm(_)
            )
        };
        if !order.commands.iter().any(is_about_members) {
            return Ok(Some(order));
        }
        node.confirm().await?;
        let snapshot = self.snapshot();
        if !order.author.is_sysadmin(&snapshot) {
            return Err(Error::Denied);
        }
        let live = node.live().await.map_err(|_| Error::Uncertain("the cluster does not answer".into()))?;
        let mut commands = Vec::with_capacity(order.commands.len());
        for (action, change) in order.commands {
            let members = &snapshot.members;
            let of_host = |host: &str| -> Vec<u32> {
                members.iter().filter(|member| member.host == host).map(|member| member.number).collect()
            };
            let leaving: Vec<u32> = match change {
                Change::ClusterAddNode(request) => {
                    if !of_host(&request.name).iter().any(|number| live.contains_key(number)) {
                        return Err(Error::Conflict(
                            "no such server has joined: start it with the same 'cluster' section".into(),
                        ));
                    }
                    continue;
                }
                Change::ClusterRemoveNode(request) => of_host(&request.name),
                Change::ClusterEdit(EditClusterRequest { remove, .. }) => remove,
                Change::ClusterRemoveHsm(request) => {
                    let left: Vec<_> = snapshot.seals.iter().filter(|seal| **seal != request.name).collect();
                    let opens = |status: &ServerStatus| status.configured_hsms.iter().any(|hsm| left.contains(&hsm));
                    let locked = live.values().filter_map(|live| live.status.as_ref()).find(|status| !opens(status));
                    if let Some(locked) = locked {
                        let host = &locked.host;
                        let why = format!("without it '{host}' could not open the data at its next start");
                        return Err(Error::Conflict(why.into()));
                    }
                    commands.push((action, Change::ClusterRemoveHsm(request)));
                    continue;
                }
                change => {
                    commands.push((action, change));
                    continue;
                }
            };
            if leaving.is_empty() {
                return Err(Error::invalid("there is no such server in the cluster"));
            }
            for number in leaving {
                let member =
                    members.get(number).ok_or_else(|| Error::invalid("there is no such server in the cluster"))?;
                if live.contains_key(&number) {
                    return Err(Error::Conflict(format!("'{}' runs: stop it first", member.host).into()));
                }
                commands.push((action, Change::Leave(Leave { number, host: member.host.clone() })));
            }
        }
        order.commands = commands;
        Ok(if order.commands.is_empty() { None } else { Some(order) })
    }
}

impl Draft<'_> {
    /// Adds a member.
    pub(super) fn add_member(&mut self, member: &Member) -> Result<(), Error> {
        if member.number != self.snapshot.members.next() {
            return Err(Error::Conflict("another server has this number in the cluster".into()));
        }
        self.put_member(member.clone());
        Ok(())
    }

    /// Removes a member.
    pub(super) fn remove_member(&mut self, leave: &Leave) -> Result<(), Error> {
        let found = self.snapshot.members.get(leave.number).filter(|member| member.host == leave.host);
        let member = found.ok_or_else(|| Error::invalid("there is no such server in the cluster"))?;
        let member = Member { is_gone: true, ..Member::clone(member) };
        self.put_member(member);
        Ok(())
    }

    fn put_member(&mut self, member: Member) {
        let member = Arc::new(member);
        self.changed.insert(Place::member(member.number), Some(Record::Member(member.clone())));
        self.snapshot.members.put(member);
    }
}
