//! `claviger explain`: whether a server with a config would answer a request, and which rule decides.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use hyper::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::identity::identity_of;
use super::out::{self, BAD, GOOD, Out, printable};
use crate::api;
use crate::auth::api_key::{self, ApiKey};
use crate::auth::policy::Decision;
use crate::auth::{Access, Identity, Requirement};
use crate::config::Config;
use crate::server::path::Path;
use crate::server::route::Router;

/// Show which rule of a config allows or denies a request
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Who asks: an identity, an API key, or a file with a certificate or a private key
    #[arg(value_name = "IDENTITY|KEY|FILE")]
    who: SecretString,
    /// The method, such as GET or PUT
    method: String,
    /// The path, such as /v1/key/create/my-key
    path: String,
    /// The config file of the server
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// What a server would do, and why.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Explanation {
    allowed: bool,
    /// The path as policies see it.
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    reason: &'static str,
}

/// Runs the command.
pub(super) fn run(args: &Args, out: &mut Out) -> anyhow::Result<()> {
    let (config, warnings) = Config::load(&args.config)?;
    for warning in warnings {
        out::note(format_args!("Warning: {warning}"));
    }
    let identity = identity(args.who.expose_secret())?;
    let method = args.method.to_ascii_uppercase().parse().context("this is no HTTP method")?;
    let explanation = explain(&config, &identity, &method, &args.path)?;
    if args.json {
        return Ok(out.json(&explanation)?);
    }
    let verdict = match explanation.allowed {
        true => out.paint(GOOD, "allowed"),
        false => out.paint(BAD, "denied"),
    };
    writeln!(out, "{verdict}: {method} {}", printable(&explanation.path))?;
    let mut fields: Vec<(&str, &dyn std::fmt::Display)> = vec![("Identity", &identity)];
    if let Some(policy) = &explanation.policy {
        fields.push(("Policy", policy));
    }
    if let Some(rule) = &explanation.rule {
        fields.push(("Rule", rule));
    }
    fields.push(("Reason", &explanation.reason));
    Ok(out.fields(9, &fields)?)
}

/// Whoever is named by an identity, by an API key, or by a file. It may be a secret, and is not repeated.
fn identity(who: &str) -> anyhow::Result<Identity> {
    let is_file = || who == "-" || std::path::Path::new(who).is_file();
    match Identity::parse(who) {
        Ok(identity) if identity.is_hash() || !is_file() && ApiKey::parse(who).is_err() => Ok(identity),
        _ if is_file() || ApiKey::parse(who).is_ok() => identity_of(who),
        _ if who.starts_with(api_key::HEADER) => identity_of(who),
        _ => bail!("the first argument is no identity, no API key, and no file with a certificate or a private key"),
    }
}

fn explain(config: &Config, identity: &Identity, method: &Method, path: &str) -> anyhow::Result<Explanation> {
    let router = Router::new(api::routes(), &config.api);
    let parsed = Path::parse(path).ok().filter(|_| path.starts_with('/'));
    let parsed = parsed.context("this is no path of a request; write one like '/v1/key/create/my-key'")?;
    let Some((route, path, _)) = router.find(method, parsed) else {
        bail!("the API has no such path, so every server answers 404; 'status --api' lists what there is");
    };
    if !route.accepts(method) {
        bail!("servers take {} for this path and nothing else (405)", route.method());
    }
    let access = super::server::access(config);
    let (allowed, policy, rule, reason) = decide(&access, route.requirement(), identity, &path);
    Ok(Explanation { allowed, path: path.to_string(), policy, rule, reason })
}

type Verdict = (bool, Option<String>, Option<String>, &'static str);

fn decide(access: &Access, requirement: Requirement, identity: &Identity, path: &str) -> Verdict {
    match requirement {
        Requirement::None => return (true, None, None, "everybody may ask this, without a certificate too"),
        Requirement::Certificate => return (true, None, None, "every client with a certificate may ask this"),
        Requirement::Policy if access.is_admin(identity) => {
            return (true, None, None, "the admin may do everything");
        }
        Requirement::Policy => {}
    }
    let Some(policy) = access.policy_of(identity) else {
        return (false, None, None, "the identity is neither the admin nor in any policy");
    };
    let name = Some(policy.name().to_string());
    match policy.decide(path) {
        Decision::Allowed(rule) => {
            (true, name, Some(format!("allow {rule}")), "the rule allows it, and none denies it")
        }
        Decision::Denied(rule) => {
            (false, name, Some(format!("deny {rule}")), "the rule denies it, whatever other rules allow")
        }
        Decision::NoRule => (false, name, None, "no rule of the policy allows it"),
    }
}
