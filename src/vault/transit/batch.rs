//! Batches: many texts in one request, each with an answer of its own.

use hyper::StatusCode;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{Answer, Asked, Item, key, of_item};
use crate::kms::{Entry, Turn};
use crate::server::{Error, Reply};
use crate::vault::body::{Batch, ITEMS, Number};
use crate::vault::reply::{self, bad};
use crate::vault::target::Use;

/// What became of an item.
pub(super) enum Outcome {
    Done(Answer),
    Failed(String),
}

/// What is answered for an item.
#[derive(Serialize)]
struct Entered<'i> {
    #[serde(flatten)]
    answer: Answer,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    reference: &'i str,
}

#[derive(Serialize)]
struct Results<'i> {
    batch_results: Vec<Entered<'i>>,
}

/// Answers a batch.
pub(super) async fn answer(
    entry: &Entry,
    what: Use,
    name: &str,
    batch: &Batch<Item<'_>>,
    partial_failure: Option<Number>,
) -> Result<Reply, Error> {
    let items = match batch {
        Batch::Items(items) if items.is_empty() => return Err(bad("missing batch input to process")),
        Batch::Items(items) => items,
        Batch::TooMany => return Err(bad(format!("a batch has at most {ITEMS} items; send several"))),
    };
    let with_context = items.iter().filter(|item| item.context.as_ref().is_some_and(|text| !text.is_empty())).count();
    if matches!(what, Use::Encrypt | Use::Decrypt | Use::Rewrap)
        && !matches!(with_context, 0)
        && with_context < items.len()
    {
        return Err(bad("context should be set either in all the request blocks or in none"));
    }
    let key = key(entry, name)?;
    let (mut results, mut turn, mut failed, mut size) = (Vec::with_capacity(items.len()), Turn::new(), 0, 64);
    for item in items {
        let outcome = match Asked::of(what, item).map_err(bad).and_then(|asked| asked.of_key(key)) {
            Ok(answer) => Outcome::Done(answer),
            Err(error) => of_item(&error),
        };
        let (answer, error) = match outcome {
            Outcome::Done(answer) => (answer, None),
            Outcome::Failed(error) => {
                // As Vault has it.
                let plaintext = (what == Use::Decrypt).then(Zeroizing::default);
                (Answer { plaintext, ..Answer::default() }, Some(error))
            }
        };
        failed += usize::from(error.is_some());
        let reference = item.reference.as_deref().unwrap_or_default();
        size += answer.size() + reference.len() + error.as_ref().map_or(0, String::len);
        results.push(Entered { answer, error, reference });
        turn.pass().await;
    }
    let status = status(what, failed, items.len(), partial_failure);
    Ok(reply::data(Results { batch_results: results }, size).with_status(status))
}

/// 400 where an item failed, unless the client wants another status when not all did.
fn status(what: Use, failed: usize, all: usize, partial_failure: Option<Number>) -> StatusCode {
    if failed == 0 || !matches!(what, Use::Encrypt | Use::Decrypt) {
        return StatusCode::OK;
    }
    let wanted = partial_failure.filter(|_| failed < all).and_then(|code| u16::try_from(code.0).ok());
    let wanted = wanted.and_then(|code| StatusCode::from_u16(code).ok()).filter(|code| code.as_u16() >= 200);
    wanted.unwrap_or(StatusCode::BAD_REQUEST)
}
