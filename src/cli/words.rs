//! Commands of other programs that this one does not have, and what to use instead.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue};

use super::{KES, MINKMS, kes_name, kms_name};

/// What the user of such a word probably wants.
#[derive(Debug)]
pub(super) enum Wish {
    /// To read about the command that these words name.
    Help(Vec<String>),
    /// To know the version.
    Version,
    /// Something that another command does: this says which.
    Other(String),
}

/// The wish for the first word of a command line that is not a command; `None` when all words are commands, or the word
/// is unknown.
pub(super) fn wish(program: &str, root: &clap::Command, args: &[OsString]) -> Option<Wish> {
    let mut args = args.iter().skip(1).map(|arg| arg.to_string_lossy());
    let mut path: Vec<String> = if program == MINKMS { vec!["kms".to_owned()] } else { Vec::new() };
    let mut command = root;
    while let Some(arg) = args.next() {
        if arg == "--color" {
            args.next();
            continue;
        }
        if arg.starts_with('-') {
            continue;
        }
        if let Some(next) = command.find_subcommand(&*arg) {
            path.push(next.get_name().to_owned());
            command = next;
            continue;
        }
        let path: Vec<_> = path.iter().map(String::as_str).collect();
        return match (&path[..], &*arg) {
            ([] | ["kms"], "version") => Some(Wish::Version),
            (path, "help") if command.has_subcommands() => {
                let of_program = usize::from(program == MINKMS);
                let before = path.iter().skip(of_program).map(|word| (*word).to_owned());
                let after = args.filter(|arg| !arg.starts_with('-')).map(|arg| arg.into_owned());
                Some(Wish::Help(before.chain(after).collect()))
            }
            (path, word) => advice(program, path, word).map(Wish::Other),
        };
    }
    None
}

/// The command to use instead of `word` after the commands of `path`.
fn advice(program: &str, path: &[&str], word: &str) -> Option<String> {
    let (kes, kms) = (kes_name(program), kms_name(program));
    Some(match (path, word) {
        ([], "create" | "new" | "add" | "import") => format!("'{kes} key {}' does that", key_command(word)),
        ([], "delete" | "remove" | "rm" | "del") => format!("'{kes} key rm NAME' deletes keys"),
        ([], "encrypt" | "decrypt" | "dek" | "info") => format!("'{kes} key {word}' does that"),
        ([], "generate") => format!("'{kes} key dek NAME' makes data keys"),
        ([] | ["key"], "rotate") => format!(
            "keys of a KES server have one version; those of a key manager have several: '{kms} add-key NAME --version'"
        ),
        ([], "start" | "run" | "serve") => format!("'{kes} server --config FILE' starts a server"),
        (["key"], "delete" | "remove" | "del") => format!("'{kes} key rm NAME' deletes keys"),
        (["key"], "generate" | "gen") => format!("'{kes} key dek NAME' makes data keys"),
        // Without these, the word would be taken for the name of a file.
        (["identity"], "list") => format!("'{kes} identity ls' lists identities"),
        (["identity"], "assign" | "forget" | "delete" | "rm") => {
            "identities are written in the server's config file, under 'policy.<name>.identities'".to_owned()
        }
        (["kms"], word) => of_key_manager(kms, word)?,
        _ => return None,
    })
}

fn key_command(word: &str) -> &'static str {
    if word == "import" { "import NAME KEY" } else { "create NAME" }
}

/// The same for the commands of the key manager.
fn of_key_manager(kms: &str, word: &str) -> Option<String> {
    const THINGS: [&str; 4] = ["enclave", "key", "policy", "identity"];
    let all = |verb: &str| {
        let all = THINGS.map(|thing| format!("'{kms} {verb}-{thing}'"));
        format!("say of what: {}", all.join(", "))
    };
    if let Some((verb, thing)) = word.split_once('-') {
        let thing = match thing {
            "policies" => "policy",
            "identities" => "identity",
            thing => thing.strip_suffix('s').unwrap_or(thing),
        };
        return match verb {
            "delete" | "remove" | "del" | "destroy" | "rm" if THINGS.contains(&thing) => {
                Some(format!("'{kms} rm-{thing}' does that"))
            }
            "rotate" if thing == "key" => Some(format!("'{kms} add-key NAME --version' adds a version to a key")),
            "import" if thing == "key" => Some(format!("'{kms} add-key NAME --import -' reads a key and imports it")),
            _ => None,
        };
    }
    Some(match word {
        "create" | "new" => all("add"),
        "delete" | "remove" | "del" => all("rm"),
        "list" => all("ls"),
        "rotate" => format!("'{kms} add-key NAME --version' adds a version to a key"),
        "import" => format!("'{kms} add-key NAME --import -' reads a key and imports it"),
        "generate" | "dek" => format!("'{kms} keygen NAME' makes data keys"),
        "assign" => format!("'{kms} assign-policy POLICY IDENTITY' does that"),
        "key" | "enclave" => format!("its commands are '{kms} add-{word}', 'ls-{word}', 'stat-{word}' and 'rm-{word}'"),
        "policy" => {
            format!("its commands are '{kms} add-policy', 'ls-policy', 'get-policy', 'assign-policy' and 'rm-policy'")
        }
        "log" => format!("'{kms} logs' follows the log"),
        "status" | "info" => format!("'{kms} stat' shows how the servers are"),
        _ => return None,
    })
}

/// Removes commands that destroy something from the tips of an error: a mistyped word must not lead to them.
pub(super) fn without_destruction(mut error: clap::Error) -> clap::Error {
    let destroys = |name: &String| name.starts_with("rm") || name == "restore";
    let kept = match error.get(ContextKind::SuggestedSubcommand) {
        Some(ContextValue::String(name)) if destroys(name) => None,
        Some(ContextValue::Strings(names)) => {
            let kept: Vec<_> = names.iter().filter(|name| !destroys(name)).cloned().collect();
            (!kept.is_empty()).then_some(ContextValue::Strings(kept))
        }
        _ => return error,
    };
    error.remove(ContextKind::SuggestedSubcommand);
    if let Some(kept) = kept {
        error.insert(ContextKind::SuggestedSubcommand, kept);
    }
    error
}

/// What the program is called where it does not know by which name it was: in the texts of its other parts.
pub(super) fn by_name(program: &str, text: String) -> String {
    match program {
        KES | MINKMS => {
            text.replace("claviger kms", kms_name(program)).replace("'claviger ", &format!("'{} ", kes_name(program)))
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::command;

    fn wish_of(line: &str) -> Option<Wish> {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let program = crate::cli::program(args.first());
        wish(program, &command(program), &args)
    }

    #[test]
    fn words_of_others_lead_to_the_command_that_does_it() {
        for (line, leads_to) in [
            ("kes create my-key", "'kes key create NAME'"),
            ("claviger delete my-key", "'claviger key rm NAME'"),
            ("claviger --color never key delete my-key", "'claviger key rm NAME'"),
            ("kes key rotate my-key", "'kes kms add-key NAME --version'"),
            ("minkms delete-key k", "'minkms rm-key'"),
            ("minkms rm-policies p", "'minkms rm-policy'"),
            ("minkms rotate-key k", "'minkms add-key NAME --version'"),
            ("minkms list", "'minkms ls-enclave', 'minkms ls-key'"),
            ("minkms key ls", "'minkms add-key'"),
            ("claviger kms create", "'claviger kms add-enclave'"),
            ("kes kms delete-enclave t", "'kes kms rm-enclave'"),
        ] {
            let Some(Wish::Other(text)) = wish_of(line) else { panic!("{line}: no advice") };
            assert!(text.contains(leads_to), "{line}: {text}");
        }
    }

    #[test]
    fn help_and_version_are_understood_under_every_name() {
        for (line, of) in [
            ("claviger help", ""),
            ("kes help key create", "key create"),
            ("kes key help", "key"),
            ("kes key help rm", "key rm"),
            ("minkms help", ""),
            ("minkms help add-key", "add-key"),
            ("claviger kms help add-key", "kms add-key"),
        ] {
            let Some(Wish::Help(path)) = wish_of(line) else { panic!("{line}: no help") };
            assert_eq!(path.join(" "), of, "{line}");
        }
        for line in ["claviger version", "kes version", "minkms version", "claviger kms version"] {
            assert!(matches!(wish_of(line), Some(Wish::Version)), "{line}");
        }
    }

    #[test]
    fn names_of_keys_are_no_wishes() {
        for line in [
            "kes key create delete",
            "kes key rm help",
            "minkms add-key new",
            "minkms rm-key version",
            "kes identity kes:v1:AAAA",
            "kes ls list",
            "kes server --config x",
            "kes",
            "kes nonsense",
        ] {
            assert!(wish_of(line).is_none(), "{line}");
        }
    }

    #[test]
    fn no_tip_names_a_command_that_destroys_something() {
        for (program, lines) in [
            (MINKMS, &["minkms rm-kee k", "minkms r-key k", "minkms m-enclave", "minkms restor x", "minkms mr"][..]),
            (KES, &["kes key r k", "kes key rn k"]),
        ] {
            for line in lines {
                let error = command(program).try_get_matches_from(line.split(' ')).expect_err(line);
                let text = without_destruction(error).to_string();
                let tips = text.lines().filter(|line| line.contains("tip:")).collect::<String>();
                assert!(!tips.contains("'rm") && !tips.contains("restore'"), "{line}: {text}");
            }
        }
        let error = command(MINKMS).try_get_matches_from(["minkms", "add-kye"]).expect_err("no command");
        assert!(without_destruction(error).to_string().contains("'add-key'"), "others are suggested");
    }
}
