//! Command lines of older versions of KES that this program does not accept. Each is answered in one line that says what
//! to write instead.

use std::ffi::OsString;

use super::MINKMS;

/// Commands that have another name now.
const RENAMED: [(&str, &str); 10] = [
    ("tool identity of", "identity of KEY|FILE"),
    ("tool identity new", "identity new --key FILE --cert FILE --expiry TIME"),
    ("tool migrate", "migrate"),
    ("log trace", "log --audit"),
    ("log audit", "log --audit"),
    ("log error", "log --error"),
    ("audit", "log --audit"),
    ("key delete", "key rm NAME"),
    ("key derive", "key dek NAME"),
    ("policy list", "policy ls"),
];

const UPDATE: &str = "update by the package or image that you installed";
const SERVER: &str = "start a server with 'server --config FILE'";
const POLICIES: &str = "policies are written in the server's config file, under 'policy'";
const ENCLAVES: &str = "enclaves are kept by a key manager now; 'kms --help' lists its commands";

/// Commands that are gone, and what takes their place.
const GONE: [(&str, &str); 12] = [
    ("tool", "use 'identity of', 'identity new' or 'migrate'"),
    ("policy add", POLICIES),
    ("policy create", POLICIES),
    ("policy assign", POLICIES),
    ("policy delete", POLICIES),
    ("policy rm", POLICIES),
    ("enclave", ENCLAVES),
    ("secret", ENCLAVES),
    ("update", UPDATE),
    ("gateway", SERVER),
    ("edge", SERVER),
    ("kes", "this is the program's own name; write a command, such as 'server --config FILE'"),
];

/// Options that are gone: behind which command, the option, and what takes its place.
const OPTIONS: [(&str, &str, &str); 12] = [
    ("", "--auto-completion", "'completions SHELL' writes a completion script"),
    ("", "--update", UPDATE),
    ("", "-u", UPDATE),
    ("server", "--root", "name the admin in the config file, under admin.identity"),
    ("server", "--mtls-auth", "set tls.auth in the config file to 'on' or 'off'"),
    ("server", "--tls-key", "name the private key in the config file, under tls.key"),
    ("server", "--tls-cert", "name the certificate in the config file, under tls.cert"),
    ("server", "--port", "use '--addr IP:PORT', or address in the config file"),
    ("init", "--config", "'init DIR' makes a config file; start with 'server --config FILE'"),
    ("log", "--type=audit", "use 'log --audit'"),
    ("log", "--type=error", "use 'log --error'"),
    ("log", "--type", "use 'log --audit' or 'log --error'"),
];

/// Options of `server` that older versions also took with a single dash.
const SINGLE_DASH: [&str; 7] = ["config", "addr", "auth", "key", "cert", "mlock", "quiet"];

/// What to say about arguments (program name first) that could not be parsed, if an older version knew them.
pub(super) fn answer(program: &str, args: &[OsString]) -> Option<String> {
    if program == MINKMS {
        return None;
    }
    let words: Vec<_> = args.iter().skip(1).map(|word| word.to_str().unwrap_or_default()).collect();
    let begins = |command: &str| {
        let command: Vec<_> = command.split_whitespace().collect();
        words.starts_with(&command)
    };
    if begins("server") {
        let name = |word: &&str| {
            let name = word.strip_prefix('-')?.split('=').next()?;
            SINGLE_DASH.iter().find(|known| **known == name)
        };
        if let Some(name) = words.iter().find_map(name) {
            return Some(format!("'-{name}' needs two dashes; write '--{name}'"));
        }
    }
    let is_given = |option: &str| words.iter().any(|word| *word == option || word.starts_with(&format!("{option}=")));
    if let Some((_, option, advice)) = OPTIONS.iter().find(|(command, option, _)| begins(command) && is_given(option)) {
        return Some(format!("'{option}' is gone; {advice}"));
    }
    if let Some((old, new)) = RENAMED.iter().find(|(old, _)| begins(old)) {
        return Some(format!("'{old}' has another name; use '{program} {new}'"));
    }
    GONE.iter().find(|(old, _)| begins(old)).map(|(old, advice)| format!("'{old}' is no command any more; {advice}"))
}
