//! What an answer of DynamoDB means, by the service's own error code.

use std::error::Error as StdError;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::ConsumedCapacity;

use super::place::Place;
use crate::keystore::Error;
use crate::keystore::aws::error::{
    answer, is_about_credentials, is_denied, is_passing, is_throttling, lacks_credentials, printable,
};
use crate::telemetry::log::causes;

/// The code of a write whose condition does not hold.
const CONDITION: &str = "ConditionalCheckFailedException";

/// Why a call has no usable answer.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The condition of the write does not hold.
    Condition,
    /// The credentials do not allow the call.
    Denied(Error),
    /// DynamoDB throttles.
    Throttled(Error),
    /// Anything else.
    Other(Error),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Condition => {
                Self::Failed("DynamoDB says that a condition failed, and the request has none".into())
            }
            Refusal::Denied(error) | Refusal::Throttled(error) | Refusal::Other(error) => error,
        }
    }
}

/// What a failed call means.
pub(super) fn judge<E>(place: &Place, action: &str, error: SdkError<E, HttpResponse>) -> Refusal
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    let said = answer(&error);
    let code = said.code.as_str();
    if code == CONDITION {
        return Refusal::Condition;
    }
    let (table, partition) = (place.table.as_str(), place.partition.as_str());
    let text = match code {
        "" => causes(&error),
        code => format!("{}: {}", printable(code), printable(&said.message)),
    };
    let text = |advice: &str| format!("{action} in the table '{table}', partition '{partition}': {text}{advice}");
    let is_throttled = is_throttling(code) || code == "ProvisionedThroughputExceededException";
    match code {
        _ if is_denied(code) => {
            Refusal::Denied(Error::Failed(text(&format!("; {}", place.missing())).into()))
        }
        _ if is_throttled => Refusal::Throttled(Error::Unreachable(text("").into())),
        "ResourceNotFoundException" => {
            let advice = format!("; there is no such table; make it: {}", place.command());
            Refusal::Other(Error::Failed(text(&advice).into()))
        }
        _ if lacks_credentials(&error) => Refusal::Other(Error::Failed(
            text(
                "; no credentials: give them in the config file, in the environment, in the shared files of AWS, or this \
                 machine or container a role",
            )
            .into(),
        )),
        _ if is_about_credentials(code) => Refusal::Other(Error::Failed(
            text("; the credentials are not good (any more), or this machine's clock is wrong").into(),
        )),
        "" if is_silence(&error, said.status) => Refusal::Other(Error::Unreachable(text("").into())),
        _ if code == "InternalServerError" || is_passing(code) || said.status >= 500 => Refusal::Other(Error::Unreachable(text("").into())),
        _ => Refusal::Other(Error::Failed(text("").into())),
    }
}

/// Whether a call got no answer, or one of a gateway that got none itself.
fn is_silence<E>(error: &SdkError<E, HttpResponse>, status: u16) -> bool {
    match error {
        SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) => true,
        SdkError::ServiceError(_) | SdkError::ResponseError(_) => status >= 500 || matches!(status, 408 | 429),
        _ => false,
    }
}

/// Checks that a success comes from DynamoDB: it says what the call has cost, and in which table. An empty JSON object of
/// somebody else would mean that there is no such key.
pub(super) fn is_about(place: &Place, action: &str, cost: Option<&ConsumedCapacity>) -> Result<(), Error> {
    match cost.and_then(ConsumedCapacity::table_name) {
        // Some name the table by its ARN.
        Some(name) if name.rsplit('/').next() == Some(place.table.as_str()) => Ok(()),
        _ => Err(no_answer(action)),
    }
}

pub(super) fn no_answer(action: &str) -> Error {
    Error::Failed(format!("{action}: the answer is not one of DynamoDB").into())
}
