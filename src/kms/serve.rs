//! `/v1/kms/…` and `/v1/db`: commands, backup and restore, another root key.

use hyper::StatusCode;
use zeroize::Zeroizing;

use super::command::{Query, Request};
use super::draft::{Author, Right};
use super::read::Reader;
use super::snapshot::Snapshot;
use super::turn::Turn;
use super::wire::{Encoding, append};
use super::writer::Order;
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
    let (snapshot, encoding) = (call.state().writer.snapshot(), Encoding::of(call.accept()));
    let cluster = |snapshot: &Snapshot| super::status::cluster(call.state(), snapshot);
    let has_kes = call.state().has_kes(call.name());
    let reader = Reader { snapshot: &snapshot, caller, enclave: call.name(), encoding, has_kes, cluster: &cluster };
    let (mut replies, mut len, mut turn) = (Vec::with_capacity(queries.len()), 0, Turn::new());
    for (action, query) in queries {
        let reply = reader.answer(*action, query, &mut turn).await;
        let reply = reply.map_err(|error| error.of(*action, query.name()))?;
        len += 6 + reply.len();
        call.hold(6 + reply.len())?;
        if len > REPLIES {
            return Err(server::Error::new(StatusCode::PAYLOAD_TOO_LARGE, "the replies are too large: ask for fewer"));
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
