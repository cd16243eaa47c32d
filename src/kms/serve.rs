//! `/v1/kms/…` and `/v1/db`: commands, backup and restore, another root key.

use hyper::StatusCode;
use zeroize::Zeroizing;

use super::command::{Query, Request};
use super::draft::{Author, Right};
use super::read::Reader;
use super::snapshot::Snapshot;
use super::turn::Turn;
use super::wire::{Encoding, append};
use super::writer::{Order, Writer};
use super::{Action, Error, State};
use crate::auth::enclave::Identity;
use crate::clock;
use crate::server::{self, Call, Reply, Whole};

/// The largest size of all replies to one request, in bytes.
const REPLIES: usize = 32 * 1024 * 1024;

/// Carries out the commands of a request. The path names the enclave.
pub(super) async fn execute(call: Call<State, String>, body: Whole) -> Result<Reply, server::Error> {
    let caller = call.caller().identity().and_then(Identity::of).ok_or(Error::Denied)?;
    let request = Request::parse(body.as_ref())?;
    call.asks(request.tell(call.name()));
    match request {
        Request::Read(reads) => read(&call, caller, &reads).await,
        Request::Write(commands) => {
            let author = Author { caller, now: clock::now(), right: Right::Account };
            let size = body.as_ref().len();
            let order = Order { author, enclave: call.name().clone(), commands, size };
            call.state().writer.apply(order).await?;
            Ok(Reply::empty())
        }
    }
}

async fn read(
    call: &Call<State, String>,
    caller: Identity,
    queries: &[(Action, Query)],
) -> Result<Reply, server::Error> {
    let is_negative = |refused: &Refused| matches!(refused, Refused::By(error) if error.is_negative());
    Ok(fresh(&call.state().writer, queries, || answer(call, caller, queries), is_negative).await?)
}

/// Answers reads. In a cluster a positive answer about the use of a key may be as old as the last commit that this server
/// has heard of; every other answer is as new as the question.
pub(super) async fn fresh<T, E: From<Error>, F: Future<Output = Result<T, E>>>(
    writer: &Writer,
    queries: &[(Action, Query)],
    answer: impl Fn() -> F,
    is_negative: impl Fn(&E) -> bool,
) -> Result<T, E> {
    if writer.node().is_none() || queries.iter().all(|(_, query)| query.is_about_this_server()) {
        return answer().await;
    }
    if queries.iter().all(|(_, query)| query.uses_a_key()) {
        if !queries.iter().all(|(_, query)| matches!(query, Query::KeyDecrypt(_))) {
            writer.may_encrypt().await?;
        }
        match answer().await {
            Err(refused) if is_negative(&refused) => {}
            answered => return answered,
        }
    }
    writer.confirm().await?;
    answer().await
}

/// Why a request was not answered.
enum Refused {
    /// A command was refused.
    By(Error),
    /// The server has no room for the answers.
    NoRoom(server::Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::By(error)
    }
}

impl From<Refused> for server::Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::By(error) => error.into(),
            Refused::NoRoom(error) => error,
        }
    }
}

async fn answer(call: &Call<State, String>, caller: Identity, queries: &[(Action, Query)]) -> Result<Reply, Refused> {
    let others = match queries.iter().any(|(_, query)| query.is_about_this_server()) {
        true => super::status::others(call.state()).await,
        false => super::status::Others::default(),
    };
    let (snapshot, encoding) = (call.state().writer.snapshot(), Encoding::of(call.accept()));
    let cluster = |snapshot: &Snapshot| super::status::cluster(call.state(), snapshot, &others);
    let has_kes = call.state().has_kes(call.name());
    let reader = Reader { snapshot: &snapshot, caller, enclave: call.name(), encoding, has_kes, cluster: &cluster };
    let (mut replies, mut len, mut turn) = (Vec::with_capacity(queries.len()), 0, Turn::new());
    for (action, query) in queries {
        let reply = reader.answer(*action, query, &mut turn).await;
        let reply = reply.map_err(|error| Refused::By(error.of(*action, query.name())))?;
        len += 6 + reply.len();
        call.hold(6 + reply.len()).map_err(Refused::NoRoom)?;
        if len > REPLIES {
            let large = "the replies are too large: ask for fewer";
            return Err(Refused::NoRoom(server::Error::new(StatusCode::PAYLOAD_TOO_LARGE, large)));
        }
        replies.push((action.number(), reply));
        turn.pass().await;
    }
    // The full size at once: a buffer that grew would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(len));
    replies.iter().for_each(|(command, reply)| append(*command, reply, &mut bytes));
    Ok(Reply::bytes(encoding.content_type(), bytes))
}

/// All data, encrypted as it is on disk.
pub(super) async fn backup(call: Call<State>) -> Result<Reply, Error> {
    let backup = call.state().writer.backup().await?;
    Ok(Reply::bytes(Encoding::Protobuf.content_type(), Zeroizing::new(backup)))
}

/// Replaces all data by a backup.
pub(super) async fn restore(call: Call<State>, backup: Whole) -> Result<(), Error> {
    call.state().writer.restore(backup.as_ref().to_vec()).await
}

/// Puts another root key in the place of the one that everything is encrypted under.
pub(super) async fn rotate_root(call: Call<State>) -> Result<(), Error> {
    call.state().writer.rotate_root().await
}

/// Moves all data into the cluster that the config names.
pub(super) async fn move_in(call: Call<State>) -> Result<(), Error> {
    let state = call.state();
    let Some(prepare) = state.cluster.get() else { return Err(Error::Conflict(NO_CLUSTER.into())) };
    let joining = prepare().await.map_err(|error| Error::Conflict(error.into()))?;
    state.writer.move_in(joining).await?;
    state.take_part();
    state.appear().await.map_err(|ended| Error::Conflict(ended.to_string().into()))
}

/// Moves all data out of the cluster.
pub(super) async fn move_out(call: Call<State>) -> Result<(), Error> {
    call.state().writer.move_out().await
}

/// What a server without a config file says.
const NO_CLUSTER: &str = "the server has no config file that could name a cluster; start it with '--config'";
