//! The examples at the end of each command's help.

use clap::Command;

use super::MINKMS;

/// Commands, and arguments that they may have. Those below `kms` are commands of `minkms`, too.
const EXAMPLES: &[(&str, &[&str])] = &[
    ("init", &["/srv/claviger", "/srv/claviger --host keys.example.com,10.1.2.3", "/srv/kms --kms --yes"]),
    ("server", &["--config config.yml", "--config config.yml --addr 10.1.2.3:7373", "--dev"]),
    ("config check", &["config.yml", "config.yml --json", "config.yml --for-kes"]),
    (
        "doctor",
        &["--config config.yml", "--config config.yml --require-keys my-key,other-key --decrypts ciphertext.json"],
    ),
    ("explain", &["client.crt PUT /v1/key/create/my-key --config config.yml"]),
    ("key create", &["my-key", "my-key other-key"]),
    ("key import", &["my-key --key-file my-key.base64", "my-key -"]),
    ("key info", &["my-key", "my-key --json"]),
    ("key ls", &["", "'my-*'", "--json"]),
    ("key rm", &["my-key"]),
    ("key encrypt", &["my-key 'a message'"]),
    ("key decrypt", &["my-key eyJ2ZXJzaW9uIjoxfQ=="]),
    ("key dek", &["my-key", "my-key Y29udGV4dA=="]),
    ("key reveal", &["my-key --config config.yml --as static", "my-key --config enclave.yml --as rustfs --version 1"]),
    ("ls", &["", "--identity", "--policy 'my-*'"]),
    (
        "identity new",
        &[
            "",
            "--key client.key --cert client.crt my-app",
            "--key server.key --cert server.crt --ip 10.1.2.3 --expiry 1y",
        ],
    ),
    ("identity of", &["client.crt", "client.key", "-"]),
    ("identity info", &["", "--json"]),
    ("identity ls", &["", "--json"]),
    ("policy info", &["my-policy"]),
    ("policy ls", &["", "'my-*'"]),
    ("policy show", &["my-policy --json"]),
    ("status", &["", "--server keys.example.com:7373 --json", "--ready"]),
    ("metric", &["", "--rate 5s"]),
    ("log", &["", "--error", "--audit --json"]),
    ("bench", &["--duration 30s", "--mix generate,decrypt=9 --connections 8 --streams 16"]),
    ("bench compare", &["before.json after.json"]),
    ("completions", &["bash"]),
    ("man", &["man1"]),
    ("migrate", &["--from old.yml --to new.yml --dry-run", "--from old.yml --to new.yml"]),
    ("verify", &["--from old.yml --to new.yml"]),
    ("reseal", &["--config old.yml --target new.yml"]),
    (
        "kms server",
        &[
            "/var/lib/claviger-kms --host kms.example.com:7373",
            "/var/lib/claviger-kms --config kms.yml --kes kes.yml",
            "--dev",
        ],
    ),
    ("kms env", &["", "my-key --enclave my-enclave"]),
    ("kms identity", &["", "client.crt", "--config kms.yml"]),
    ("kms add-enclave", &["my-enclave"]),
    ("kms ls-enclave", &["", "my-"]),
    ("kms stat-enclave", &["my-enclave"]),
    ("kms rm-enclave", &["my-enclave"]),
    ("kms add-key", &["my-key --enclave my-enclave", "my-key --version"]),
    ("kms ls-key", &["", "my- --versions"]),
    ("kms stat-key", &["my-key --enclave my-enclave"]),
    ("kms export-key", &["my-key --as vault --enclave my-enclave"]),
    ("kms rm-key", &["my-key --version 1 --enclave my-enclave"]),
    ("kms keygen", &["my-key --enclave my-enclave"]),
    ("kms encrypt", &["my-key 'a message'"]),
    ("kms decrypt", &["my-key eyJ2ZXJzaW9uIjoxfQ=="]),
    ("kms mac", &["my-key 'a message'"]),
    ("kms add-policy", &["my-policy policy.json"]),
    ("kms ls-policy", &["", "my-"]),
    ("kms get-policy", &["my-policy"]),
    ("kms assign-policy", &["my-policy h1:UFR0dwnS-qNxGFdx3TAK2Fv3shqeAy8g_MsCfzvFW9I"]),
    ("kms rm-policy", &["my-policy"]),
    ("kms policies", &["--from kes.yml --enclave my-enclave", "--from kes.yml --apply"]),
    ("kms add-identity", &["--admin --enclave my-enclave", "h1:UFR0dwnS-qNxGFdx3TAK2Fv3shqeAy8g_MsCfzvFW9I"]),
    ("kms ls-identity", &["", "--json"]),
    ("kms get-identity", &["h1:UFR0dwnS-qNxGFdx3TAK2Fv3shqeAy8g_MsCfzvFW9I"]),
    ("kms rm-identity", &["h1:UFR0dwnS-qNxGFdx3TAK2Fv3shqeAy8g_MsCfzvFW9I"]),
    ("kms ls", &["", "--json"]),
    ("kms stat", &["", "--json"]),
    ("kms add", &["kms2.example.com:7373"]),
    ("kms rm", &["kms2.example.com:7373"]),
    ("kms edit", &["kms.example.com:7373 --rm 3"]),
    ("kms add-hsm", &["my-hsm"]),
    ("kms rm-hsm", &["my-hsm"]),
    ("kms rotate-root", &[""]),
    ("kms join", &[""]),
    ("kms leave", &[""]),
    ("kms backup", &["backup.kms"]),
    ("kms restore", &["backup.kms"]),
    ("kms logs", &["", "--level WARN --json"]),
    ("kms completions", &["bash"]),
    ("kms man", &["man1"]),
];

/// Adds them to the command line of the program that is called by this name.
pub(super) fn add(mut command: Command, program: &str) -> Command {
    for (path, arguments) in EXAMPLES {
        let Some(words) = words(path, program) else { continue };
        let lines = arguments.iter().map(|arguments| format!("\n  {program} {} {arguments}", words.join(" ")));
        let text: String = lines.map(|line| line.trim_end().to_owned()).collect();
        let heading = if arguments.len() == 1 { "Example" } else { "Examples" };
        command = at(command, &words, &format!("{heading}:{text}"));
    }
    command
}

/// The words of a command behind this program's name; none: the program does not have it.
fn words(path: &'static str, program: &str) -> Option<Vec<&'static str>> {
    let words: Vec<_> = path.split(' ').collect();
    match (program == MINKMS, &*words) {
        (true, ["kms", rest @ ..]) => Some(rest.to_vec()),
        (true, _) => None,
        (false, _) => Some(words),
    }
}

fn at(command: Command, words: &[&str], text: &str) -> Command {
    match words {
        [] => command.after_help(text.to_owned()),
        [word, rest @ ..] if command.find_subcommand(word).is_some() => {
            command.mut_subcommand(word, |command| at(command, rest, text))
        }
        _ => command,
    }
}

#[cfg(test)]
mod tests {
    use super::super::KES;
    use super::*;

    /// Every command that has none below it, as the words that call it.
    fn leaves(command: &Command, path: &str, found: &mut Vec<String>) {
        let visible: Vec<_> = command.get_subcommands().filter(|command| !command.is_hide_set()).collect();
        if visible.is_empty() {
            found.push(path.to_owned());
        }
        for command in visible {
            leaves(command, format!("{path} {}", command.get_name()).trim(), found);
        }
    }

    #[test]
    fn every_command_has_one() {
        let mut found = Vec::new();
        leaves(&super::super::command(KES), "", &mut found);
        for path in found.iter().filter(|path| !["help", "version"].contains(&path.as_str())) {
            assert!(EXAMPLES.iter().any(|(known, _)| known == path), "'{path}' has no example in `EXAMPLES`");
        }
        assert!(found.len() > 50, "{}", found.len());
    }

    #[test]
    fn every_one_is_understood() {
        for program in [KES, MINKMS] {
            for (path, arguments) in EXAMPLES {
                let Some(words) = words(path, program) else { continue };
                for arguments in *arguments {
                    // As a shell does it.
                    let parts = arguments.split('\'').enumerate();
                    let parts = parts.flat_map(|(nth, part)| match nth % 2 {
                        0 => part.split_whitespace().collect(),
                        _ => vec![part],
                    });
                    let line = [program].into_iter().chain(words.iter().copied()).chain(parts);
                    let parsed = super::super::command(program).try_get_matches_from(line);
                    if let Err(error) = parsed {
                        panic!("{program} {path} {arguments}: {error}");
                    }
                }
            }
        }
    }

    #[test]
    fn they_stand_in_the_help() {
        let mut command = super::super::command(MINKMS);
        let help = command.find_subcommand_mut("add-key").expect("a command").render_long_help().to_string();
        assert!(help.contains("\n  minkms add-key my-key --enclave my-enclave\n"), "{help}");
    }
}
