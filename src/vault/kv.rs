//! The key/value engine, version 2: documents with versions, check-and-set, deletion in steps, and their metadata.

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::State;
use super::body::{self, Batch, Number};
use super::reply::{self, bad, refused};
use super::target::{SecretUse, page, query_value};
use crate::clock;
use crate::kms::Entry;
use crate::kms::secret::{self, Change, DOCUMENT, Document, Secret, Version, What};
use crate::name::SecretPath;
use crate::server::{Error, Reply};

/// The error where versions must be named.
const NO_VERSION: &str = "No version number provided";

/// What is said of a version where its document is.
#[derive(Serialize)]
struct Metadata {
    created_time: String,
    custom_metadata: Option<()>,
    deletion_time: String,
    destroyed: bool,
    version: u32,
}

impl Metadata {
    fn of(number: u32, version: &Version) -> Self {
        Self {
            created_time: time(version.created_at()),
            custom_metadata: None,
            deletion_time: version.deleted_at().map(time).unwrap_or_default(),
            destroyed: version.is_destroyed(),
            version: number,
        }
    }
}

fn time(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}

/// Answers a request about one entry.
pub(super) async fn answer(
    state: &State,
    entry: &Entry,
    what: SecretUse,
    path: &SecretPath,
    (query, body): (&str, &[u8]),
) -> Result<Reply, Error> {
    let change = match what {
        SecretUse::Read => return read(entry, path, query),
        SecretUse::Metadata => return describe(entry, path),
        SecretUse::Write => return write(state, entry, path, body).await,
        SecretUse::Delete => What::Delete(None),
        SecretUse::DeleteVersions => What::Delete(Some(versions(body, NO_VERSION)?)),
        SecretUse::Undelete => What::Undelete(versions(body, NO_VERSION)?),
        SecretUse::Destroy => What::Destroy(versions(body, "no version number provided")?),
        SecretUse::Remove => What::Remove,
    };
    let change = Change { path: path.clone(), what: change };
    state.kms.change_secret(entry, what.action(), change, clock::now()).await.map_err(refused)?;
    Ok(reply::nothing())
}

/// Shows a version. Of one that was deleted only the metadata are left.
fn read(entry: &Entry, path: &SecretPath, query: &str) -> Result<Reply, Error> {
    #[derive(Serialize)]
    struct Shown<'s> {
        data: Option<&'s RawValue>,
        metadata: Metadata,
    }
    let number = match query_value(query, "version") {
        None | Some("") => 0,
        Some(number) => number.parse().map_err(|_| bad("the version is not a number"))?,
    };
    let secret = entry.secret(path).ok_or_else(reply::not_there)?;
    let (number, version) = secret.version(number).ok_or_else(reply::not_there)?;
    let json = version.document().map(Document::expose);
    // It was JSON when it came.
    let data = json.and_then(|json| serde_json::from_str(json).ok());
    let shown = Shown { data, metadata: Metadata::of(number, version) };
    let reply = reply::data(shown, 256 + json.map_or(0, str::len));
    Ok(if json.is_some() { reply } else { reply.with_status(StatusCode::NOT_FOUND) })
}

/// Adds a version.
async fn write(state: &State, entry: &Entry, path: &SecretPath, body: &[u8]) -> Result<Reply, Error> {
    #[derive(Deserialize)]
    struct Written<'b> {
        #[serde(borrow)]
        data: Option<&'b RawValue>,
        options: Option<Options>,
    }
    #[derive(Deserialize)]
    struct Options {
        cas: Option<Number>,
    }
    let Written { data, options } = body::parse(body)?;
    let json = data.ok_or_else(|| bad("no data provided"))?.get();
    if !json.starts_with('{') {
        return Err(bad("the data is not a JSON object"));
    }
    if json.len() > DOCUMENT {
        return Err(bad(format!("the data is longer than {DOCUMENT} bytes")));
    }
    let expected = options.and_then(|options| options.cas).map(|cas| cas.0);
    let (number, now) = (secret::Number::default(), clock::now());
    let what = What::Write { document: Document::new(json), expected, number: number.clone() };
    let change = Change { path: path.clone(), what };
    state.kms.change_secret(entry, SecretUse::Write.action(), change, now).await.map_err(refused)?;
    let metadata = Metadata {
        created_time: time(now),
        custom_metadata: None,
        deletion_time: String::new(),
        destroyed: false,
        version: number.get(),
    };
    Ok(reply::data(metadata, 256))
}

/// The numbers of versions in a body.
fn versions(body: &[u8], missing: &'static str) -> Result<Vec<i64>, Error> {
    #[derive(Deserialize)]
    struct Versions {
        versions: Option<Batch<Number>>,
    }
    match body::parse::<Versions>(body)?.versions {
        Some(Batch::Items(numbers)) if !numbers.is_empty() => Ok(numbers.into_iter().map(|number| number.0).collect()),
        Some(Batch::TooMany) => Err(bad("too many versions; send several requests")),
        _ => Err(bad(missing)),
    }
}

/// Shows what is said of an entry and all its versions.
fn describe(entry: &Entry, path: &SecretPath) -> Result<Reply, Error> {
    #[derive(Serialize)]
    struct One {
        created_time: String,
        deletion_time: String,
        destroyed: bool,
    }
    #[derive(Serialize)]
    struct Shown {
        cas_required: bool,
        created_time: String,
        current_metadata_version: u32,
        current_version: u32,
        custom_metadata: Option<()>,
        delete_version_after: &'static str,
        max_versions: u32,
        metadata_cas_required: bool,
        oldest_version: u32,
        updated_time: String,
        versions: BTreeMap<u32, One>,
    }
    let secret: &Secret = entry.secret(path).ok_or_else(reply::not_there)?;
    let one = |(number, version): (u32, &Version)| {
        let Metadata { created_time, deletion_time, destroyed, .. } = Metadata::of(number, version);
        (number, One { created_time, deletion_time, destroyed })
    };
    let shown = Shown {
        cas_required: false,
        created_time: time(secret.created_at()),
        current_metadata_version: 0,
        current_version: secret.latest(),
        custom_metadata: None,
        delete_version_after: "0s",
        max_versions: 0,
        metadata_cas_required: false,
        oldest_version: secret.oldest(),
        updated_time: time(secret.updated_at()),
        versions: secret.versions().map(one).collect(),
    };
    Ok(reply::data(shown, 2_048))
}

/// Lists what is right below a folder.
pub(super) async fn list(entry: &Entry, folder: &str, query: &str) -> Result<Reply, Error> {
    let (after, limit) = page(query);
    reply::names(&entry.below(folder, &after, limit).await)
}
