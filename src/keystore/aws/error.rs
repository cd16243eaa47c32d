//! What an answer of the service means. The service's own error code decides, because services that imitate it use
//! other HTTP statuses.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_secretsmanager::config::http::HttpResponse;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};

use super::policy::Rights;
use crate::foreign::is_deceptive;
use crate::keystore::Error;

/// Why a secret that is scheduled for deletion is not a key.
pub(super) const SCHEDULED: &str =
    "scheduled for deletion; get it back with 'aws secretsmanager restore-secret --secret-id …'";

/// How much of the service's message is shown, in characters.
const MAX_MESSAGE: usize = 600;

/// A call to the service.
pub(super) struct Call<'a> {
    /// Such as "GetSecretValue".
    pub(super) action: &'static str,
    /// The name of the secret.
    pub(super) id: &'a str,
    pub(super) rights: Rights<'a>,
}

/// A failure that the service itself has explained.
#[derive(Debug, thiserror::Error)]
#[error("{action} of '{id}': {code}: {message}{advice}")]
struct Refusal {
    action: &'static str,
    id: String,
    code: String,
    message: String,
    advice: String,
}

/// A call that got no answer, or an invalid one.
#[derive(Debug, thiserror::Error)]
#[error("{action} of '{id}'{advice}")]
struct Silence {
    action: &'static str,
    id: String,
    advice: &'static str,
    source: Box<dyn StdError + Send + Sync>,
}

/// What an error code means for the caller.
enum Meaning {
    Exists,
    NotFound,
    /// It may pass.
    Passing,
    /// It will not pass by itself; the text says what to do.
    Lasting(String),
}

impl Call<'_> {
    /// What a failed call means.
    pub(super) fn failed<E>(&self, error: SdkError<E, HttpResponse>) -> Error
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        let answer = answer(&error);
        if answer.code.is_empty() {
            return self.unexplained(error, answer.status);
        }
        let refusal = |advice| Refusal {
            action: self.action,
            id: self.id.to_owned(),
            code: printable(&answer.code),
            message: printable(&answer.message),
            advice,
        };
        match self.meaning(&answer) {
            Meaning::Exists => Error::Exists,
            Meaning::NotFound => Error::NotFound,
            Meaning::Passing => Error::Unreachable(refusal(String::new()).into()),
            Meaning::Lasting(advice) => Error::Failed(refusal(advice).into()),
        }
    }

    fn meaning(&self, answer: &Answer) -> Meaning {
        let says = |text: &str| answer.message.contains(text);
        match answer.code.as_str() {
            "ResourceExistsException" if self.action == "CreateSecret" => Meaning::Exists,
            "ResourceNotFoundException" if says("secret value") => Meaning::Lasting(
                "; the secret is there and has no value: somebody else made it, or is making it".into(),
            ),
            // About a KMS key, say.
            "ResourceNotFoundException" if matches!(self.action, "CreateSecret" | "ListSecrets") => {
                Meaning::Lasting(String::new())
            }
            "ResourceNotFoundException" => Meaning::NotFound,
            "InvalidRequestException" if says("delet") => Meaning::Lasting(format!("; it is {SCHEDULED}")),
            "InvalidParameterException" if self.action == "UpdateSecretVersionStage" => {
                Meaning::Lasting("; somebody else has replaced the key just now".into())
            }
            code if is_denied(code) => Meaning::Lasting(self.rights.missing(self.action, says("KMS") || says("kms:"))),
            code if is_throttling(code) || is_passing(code) => Meaning::Passing,
            code if is_about_credentials(code) => {
                Meaning::Lasting("; the credentials are not good (any more), or this machine's clock is wrong".into())
            }
            _ if answer.status >= 500 => Meaning::Passing,
            _ => Meaning::Lasting(String::new()),
        }
    }

    /// No answer, or an answer that does not come from the service.
    fn unexplained<E>(&self, error: SdkError<E, HttpResponse>, status: u16) -> Error
    where
        E: StdError + Send + Sync + 'static,
    {
        let is_passing = match &error {
            SdkError::TimeoutError(_) => true,
            SdkError::DispatchFailure(_) => !lacks_credentials(&error),
            SdkError::ServiceError(_) | SdkError::ResponseError(_) => status >= 500 || matches!(status, 408 | 429),
            _ => false,
        };
        let advice = match lacks_credentials(&error) {
            true => {
                "; no credentials: give them in the config file, in the environment, in the shared files of AWS, or \
                 this machine or container a role"
            }
            false => "",
        };
        let silence = Silence { action: self.action, id: self.id.to_owned(), advice, source: Box::new(error) };
        if is_passing { Error::Unreachable(silence.into()) } else { Error::Failed(silence.into()) }
    }
}

/// The service's error; an empty code: the answer is not the service's own.
pub(in crate::keystore) struct Answer {
    pub(in crate::keystore) code: String,
    pub(in crate::keystore) message: String,
    pub(in crate::keystore) status: u16,
}

pub(in crate::keystore) fn answer<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Answer {
    let (code, message) = match error {
        SdkError::ServiceError(error) => (error.err().code(), error.err().message()),
        _ => (None, None),
    };
    let raw = error.raw_response();
    let body = raw.and_then(|raw| raw.body().bytes()).unwrap_or_default();
    let body = std::str::from_utf8(body).unwrap_or_default();
    // Other services of AWS, and some look-alikes of this one, answer in XML.
    let code = code.or_else(|| between(body, "<Code>", "</Code>"));
    let message = message.or_else(|| between(body, "<Message>", "</Message>"));
    Answer {
        code: code.unwrap_or_default().to_owned(),
        message: message.unwrap_or_default().to_owned(),
        status: raw.map_or(0, |raw| raw.status().as_u16()),
    }
}

fn between<'t>(text: &'t str, start: &str, end: &str) -> Option<&'t str> {
    Some(text.split_once(start)?.1.split_once(end)?.0)
}

/// Whether the credentials are valid but do not allow the call.
pub(super) fn is_denial<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    is_denied(&answer(error).code)
}

/// Whether the service throttles us.
pub(super) fn is_too_often<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    is_throttling(&answer(error).code)
}

pub(in crate::keystore) fn is_denied(code: &str) -> bool {
    matches!(code, "AccessDenied" | "AccessDeniedException")
}

pub(in crate::keystore) fn is_throttling(code: &str) -> bool {
    matches!(
        code,
        "Throttling"
            | "ThrottlingException"
            | "ThrottledException"
            | "RequestThrottled"
            | "RequestThrottledException"
            | "RequestLimitExceeded"
            | "SlowDown"
            | "TooManyRequestsException"
    )
}

pub(in crate::keystore) fn is_passing(code: &str) -> bool {
    matches!(
        code,
        "InternalError"
            | "InternalFailure"
            | "InternalServiceError"
            | "DependencyTimeoutException"
            | "KMSInternalException"
            | "KeyUnavailableException"
            | "RequestTimeout"
            | "RequestTimeoutException"
            | "ServiceUnavailable"
            | "ServiceUnavailableException"
    )
}

pub(in crate::keystore) fn is_about_credentials(code: &str) -> bool {
    matches!(
        code,
        "ExpiredToken"
            | "ExpiredTokenException"
            | "IncompleteSignature"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "RequestExpired"
            | "SignatureDoesNotMatch"
            | "UnrecognizedClientException"
    )
}

pub(in crate::keystore) fn lacks_credentials(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<CredentialsError>() {
            return matches!(
                error,
                CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_)
            );
        }
        cause = error.source();
    }
    false
}

/// A text of the service for the log: short, and on one line.
pub(in crate::keystore) fn printable(text: &str) -> String {
    text.chars().take(MAX_MESSAGE).map(|char| if is_deceptive(char) { ' ' } else { char }).collect()
}
