//! Keys that somebody gives where they do not belong: they are neither sent nor repeated.

use std::any::TypeId;

use clap::error::ErrorKind;
use clap::{ArgMatches, Command};
use secrecy::SecretString;

use crate::auth::{api_key, enclave};
use crate::kms::seal;

/// What every key begins with that a user may have at hand.
const HEADERS: [&str; 4] = [api_key::HEADER, enclave::ED25519, enclave::ECDSA, seal::HSM_KEY];

/// Keys are longer than this after their beginning.
const SHORT: usize = 32;

/// The text with an ellipsis in the place of the secret part of each key.
pub(super) fn concealed(text: &str) -> String {
    let (mut shown, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((at, header)) = HEADERS.iter().filter_map(|header| Some((rest.find(header)?, *header))).min() {
        let (before, secret) = rest.split_at(at + header.len());
        shown.push_str(before);
        rest = secret.trim_start_matches(is_secret);
        let secret = &secret[..secret.len() - rest.len()];
        shown.push_str(if secret.len() > SHORT { "…" } else { secret });
    }
    shown + rest
}

/// Refuses a key in the place of a name, a file or the like: a server would get it, and write it to its logs.
///
/// # Errors
/// When there is one.
pub(super) fn refuse_misplaced(command: &mut Command, matches: &ArgMatches) -> Result<(), clap::Error> {
    let is_misplaced = |arg: &clap::Arg| {
        let takes_secrets = arg.get_value_parser().type_id() == TypeId::of::<SecretString>();
        let values = matches.try_get_raw(arg.get_id().as_str()).ok().flatten();
        !takes_secrets && values.into_iter().flatten().any(|value| value.to_str().is_some_and(is_key))
    };
    let misplaced = command.get_arguments().find(|arg| is_misplaced(arg)).map(ToString::to_string);
    if let Some(arg) = misplaced {
        let message =
            format!("{arg} is a key, which is a secret, and stands in the wrong place; nothing was done with it");
        return Err(command.error(ErrorKind::ValueValidation, message));
    }
    match matches.subcommand() {
        Some((name, matches)) => {
            command.find_subcommand_mut(name).map_or(Ok(()), |command| refuse_misplaced(command, matches))
        }
        None => Ok(()),
    }
}

fn is_key(text: &str) -> bool {
    let secret = HEADERS.iter().find_map(|header| text.strip_prefix(header));
    secret.is_some_and(|secret| secret.len() > SHORT && secret.chars().all(is_secret))
}

/// Whether the character belongs to base64, in either alphabet.
fn is_secret(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '+' | '/' | '-' | '_' | '=')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_not_repeated() {
        let secret = "AbC-_+/=".repeat(5);
        let text = format!("policy 'kes:v1:{secret}', k1:{secret}: not hsm:aes256:{secret} or kes:v1:short");
        assert_eq!(concealed(&text), "policy 'kes:v1:…', k1:…: not hsm:aes256:… or kes:v1:short");
        assert_eq!(concealed("no key at all: é"), "no key at all: é");
    }

    #[test]
    fn a_key_is_refused_where_no_secret_is_wanted() {
        let refused = |line: &[&str]| {
            let mut command = crate::cli::command(crate::cli::KES);
            let matches = command.try_get_matches_from_mut(line).expect("a command line");
            refuse_misplaced(&mut command, &matches).err().map(|error| error.to_string())
        };
        let key = format!("kes:v1:{}", "A".repeat(44));
        let hsm = format!("hsm:aes256:{}", "A".repeat(44));
        for line in [
            ["kes", "policy", "show", &key],
            ["kes", "identity", "info", &key],
            ["kes", "kms", "get-identity", &hsm],
            ["kes", "server", "--config", &key],
        ] {
            let said = refused(&line).unwrap_or_else(|| panic!("{line:?} is taken"));
            assert!(said.contains("is a key, which is a secret") && !said.contains("AAAA"), "{said}");
        }
        for line in [
            &["kes", "identity", "of", &key][..],
            &["kes", "explain", &key, "GET", "/version", "--config", "config.yml"],
            &["kes", "key", "encrypt", "my-key", &key],
            &["kes", "ls", "--api-key", &key],
            &["kes", "kms", "encrypt", "my-key", &hsm],
        ] {
            assert_eq!(refused(line), None, "{line:?}");
        }
    }
}
