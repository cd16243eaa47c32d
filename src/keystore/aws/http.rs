//! The requests of the SDK, sent by the client of all key stores: it knows whom to trust.

use std::time::Duration;

use aws_sdk_secretsmanager::config::SharedHttpClient;
use aws_sdk_secretsmanager::config::http::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::result::ConnectorError;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response};
use zeroize::Zeroizing;

use crate::http::{self, Limit};
use crate::keystore::Error;
use crate::setting::ServerTls;

/// The time limit of one attempt. A request to a store may take 10 seconds, so there is time for a second one.
pub(super) const ATTEMPT: Duration = Duration::from_secs(4);

/// More than any answer has: a page of a listing is the largest.
const LIMIT: Limit = Limit { time: ATTEMPT, bytes: 16 << 20 };

#[derive(Debug, Clone)]
struct Connector {
    client: http::Client,
    limit: Limit,
}

/// A client of servers that are verified like this; `setting` is where that is set.
pub(in crate::keystore) fn client(tls: &ServerTls, setting: &'static str) -> Result<SharedHttpClient, Error> {
    let tls = http::Tls { ca: tls.ca.clone(), setting, ..http::Tls::default() };
    let client = http::Client::new(tls).map_err(|error| Error::Failed(error.into()))?;
    Ok(http_client_fn(move |settings, _| {
        // The services on the machine itself are given less time: most machines have none.
        let read = settings.read_timeout().unwrap_or(ATTEMPT);
        let limit = Limit { time: read.min(ATTEMPT), ..LIMIT };
        SharedHttpConnector::new(Connector { client: client.clone(), limit })
    }))
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Self { client, limit } = self.clone();
        HttpConnectorFuture::new(async move {
            let answer = client.send(prepare(request)?, limit).await.map_err(failed)?;
            let mut response = Response::new(answer.body.to_vec().into());
            (*response.status_mut(), *response.headers_mut()) = (answer.status, answer.headers);
            HttpResponse::try_from(response).map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// The same request with a body that is wiped once it is sent.
fn prepare(request: HttpRequest) -> Result<Request<Full<Bytes>>, ConnectorError> {
    let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
    let (parts, body) = request.into_parts();
    let body = body.bytes().ok_or_else(|| ConnectorError::user("a body of unknown length".into()))?;
    Ok(Request::from_parts(parts, Full::new(Bytes::from_owner(Zeroizing::new(body.to_vec())))))
}

fn failed(error: http::Error) -> ConnectorError {
    match error {
        http::Error::Timeout(..) => ConnectorError::timeout(error.into()),
        error => ConnectorError::io(error.into()),
    }
}
