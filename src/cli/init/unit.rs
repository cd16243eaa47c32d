//! Units for systemd: those of the packages, for a directory of one's own.

use anyhow::Context as _;

use super::directory::Directory;

const SERVER: &str = include_str!("../../../systemd/claviger.service");
const KEY_MANAGER: &str = include_str!("../../../systemd/claviger-kms.service");

/// What is left out: what only the packages have.
const LEFT_OUT: [&str; 7] = [
    "EnvironmentFile",
    "LoadCredential",
    "SetCredential",
    "StateDirectory",
    "StateDirectoryMode",
    "LogsDirectory",
    "LogsDirectoryMode",
];

pub(super) fn server(directory: &Directory) -> anyhow::Result<String> {
    let start = format!("{} server --config {}", program()?, directory.at("config.yml"));
    Ok(adapt(SERVER, directory, "config.yml", &start))
}

pub(super) fn key_manager(directory: &Directory, arguments: &str) -> anyhow::Result<String> {
    let (data, config) = (directory.at("data"), directory.at("kms.yml"));
    let start = format!("{} kms server {data} --config {config} {arguments}", program()?);
    Ok(adapt(KEY_MANAGER, directory, "kms.yml", &start))
}

/// The path of this program.
fn program() -> anyhow::Result<String> {
    let path = std::env::current_exe().context("the path of this program is not known")?;
    Ok(path.display().to_string())
}

fn adapt(unit: &str, directory: &Directory, config: &str, start: &str) -> String {
    let path = directory.shown();
    let changed = [
        ("ConditionPathExists", directory.at(config)),
        ("ExecStart", start.to_owned()),
        ("User", rustix::process::geteuid().as_raw().to_string()),
        ("Group", rustix::process::getegid().as_raw().to_string()),
        ("WorkingDirectory", path.clone()),
        // The directory may be in the home of somebody.
        ("ProtectHome", format!("read-only\nReadWritePaths={path}")),
    ];
    let mut adapted = String::new();
    // A comment belongs to what follows it.
    let mut comments = String::new();
    for line in unit.lines() {
        let key = line.split('=').next().unwrap_or_default();
        if line.starts_with('#') {
            comments.push_str(line);
            comments.push('\n');
            continue;
        }
        let comments = std::mem::take(&mut comments);
        if LEFT_OUT.contains(&key) {
            continue;
        }
        adapted.push_str(&comments);
        match changed.iter().find(|(changed, _)| *changed == key) {
            Some((key, value)) => adapted.push_str(&format!("{key}={value}\n")),
            None => adapted.push_str(&format!("{line}\n")),
        }
    }
    adapted
}
