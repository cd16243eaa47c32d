//! `claviger key reveal`: prints the bytes of a key, for a move to a server that takes one raw key.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use serde_json::json;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use crate::cli::migrate::place;
use crate::cli::out::{self, printable};
use crate::cli::prompt;
use crate::clock;
use crate::crypto::{Algorithm, Key, base64};
use crate::keystore::Waits;
use crate::name::KeyName;

/// Whom the key is for, and so how it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// NAME:BASE64, for MINIO_KMS_SECRET_KEY and a 'static' key store
    Static,
    /// BASE64, for RUSTFS_SSE_S3_MASTER_KEY
    Rustfs,
}

#[derive(Debug, clap::Args)]
pub(super) struct Reveal {
    /// The name of the key
    name: String,
    /// A config file whose 'keystore' section says where the key is; 'kms' in it names an enclave
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Whom the key is for
    #[arg(long = "as", value_name = "KIND")]
    kind: Kind,
    /// Which version of a key in an enclave [default: the latest]
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    version: u32,
    /// Do not ask; needed where there is no terminal
    #[arg(short, long)]
    yes: bool,
}

pub(super) async fn run(args: Reveal) -> anyhow::Result<()> {
    let name = KeyName::parse(&args.name)?;
    if !args.yes {
        confirm(&name)?;
    }
    let source = place::source(&args.config, &Waits::default()).await?;
    let failed = || format!("failed to read key \"{name}\"");
    let read = source.read(std::slice::from_ref(&name)).await.pop().context("the key store does not answer")?;
    let (key, others) = read
        .with_context(failed)?
        .version(args.version)
        .with_context(failed)?
        .with_context(|| format!("key \"{name}\" has no version {}", args.version))?;
    warn(&key, &others);
    // Before the key is shown, so that a key that was seen is one that is noted.
    let event = json!({
        "time": clock::now().format(&Rfc3339)?,
        "command": "key reveal",
        "key": name.as_str(),
        "version": args.version,
        "store": printable(&source.to_string()),
        "uid": rustix::process::getuid().as_raw(),
    });
    out::note(&event);
    let encoded = base64::encode(key.expose());
    let mut line = Zeroizing::new(String::with_capacity(name.as_str().len() + encoded.len() + 2));
    if args.kind == Kind::Static {
        line.push_str(name.as_str());
        line.push(':');
    }
    line.push_str(&encoded);
    line.push('\n');
    // Not through a buffer: it would keep the key.
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?).write_all(line.as_bytes())?)
}

/// Has the name of the key typed.
fn confirm(name: &KeyName) -> anyhow::Result<()> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        bail!("a key is revealed on a terminal, after a confirmation; where there is none, say '--yes'");
    }
    out::note(format_args!(
        "This prints the key \"{name}\" itself. Whoever sees it can decrypt everything that it has encrypted and will \
         encrypt, for ever; nothing can take that back, not even deleting the key here. Clear the screen afterwards, and \
         keep the key nowhere else than where it is needed."
    ));
    prompt::typed("Type the name of the key to see it: ", name.as_str())
}

/// Says what the receiver of the key will not be able to do.
fn warn(key: &Key, others: &[u32]) {
    if !others.is_empty() {
        let others: Vec<_> = others.iter().map(ToString::to_string).collect();
        out::note(format_args!(
            "Warning: the key has other versions ({}). What they encrypted cannot be decrypted with this one.",
            others.join(", ")
        ));
    }
    if key.has_hmac() {
        out::note(
            "Warning: the key's HMAC key stays here; HMACs, and what is derived from them, change with the move.",
        );
    }
    if key.algorithm() == Some(Algorithm::ChaCha20) {
        out::note("Warning: the key encrypts with ChaCha20-Poly1305, which not every object store can decrypt.");
    }
}
