//! `claviger completions` and `claviger man`: prints shell completions and manual pages.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Command;

use super::identity::files::{self, OnConflict};
use super::out::Out;

/// Write a completion script for a shell
#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

/// Write manual pages: the main page, or a page for each command
#[derive(Debug, clap::Args)]
pub(super) struct Man {
    /// Write a page for each command into this directory
    directory: Option<PathBuf>,
}

/// Writes a completion script.
pub(super) fn completions(args: &Completions, out: &mut Out) -> anyhow::Result<()> {
    let program = out.program();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(program), program, &mut script);
    Ok(out.write_all(&script)?)
}

/// Answers a shell that calls the program itself to complete `line`: one candidate a line, and never an error.
pub(super) fn complete(program: &'static str, line: &str, point: usize) -> ExitCode {
    let text: String = candidates(program, line, point).iter().map(|word| format!("{word}\n")).collect();
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// The commands and options that may stand where the cursor is.
fn candidates(program: &'static str, line: &str, point: usize) -> Vec<String> {
    let line = line.get(..point).unwrap_or(line);
    let mut words: Vec<_> = line.split_whitespace().skip(1).collect();
    let begun = if line.ends_with(char::is_whitespace) { "" } else { words.pop().unwrap_or_default() };
    let mut root = super::command(program);
    root.build();
    let command = words.iter().fold(&root, |command, word| command.find_subcommand(word).unwrap_or(command));
    let commands = command.get_subcommands().filter(|command| !command.is_hide_set());
    let commands = commands.map(|command| command.get_name().to_owned());
    let options = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let options = options.filter_map(|argument| Some(format!("--{}", argument.get_long()?)));
    // Options crowd out the commands, unless somebody has begun one.
    let all = commands.chain(options.filter(|_| begun.starts_with('-')));
    all.filter(|word| word.starts_with(begun)).collect()
}

/// Writes manual pages.
pub(super) fn man(args: &Man, out: &mut Out) -> anyhow::Result<()> {
    let mut command = super::command(out.program());
    command.build();
    match &args.directory {
        None => Ok(out.write_all(&page(command)?)?),
        Some(directory) => {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("failed to create '{}'", directory.display()))?;
            write_pages(&command, directory)
        }
    }
}

fn write_pages(command: &Command, directory: &std::path::Path) -> anyhow::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let path = directory.join(format!("{name}.1"));
    files::write(&path, 0o644, &page(command.clone())?, OnConflict::Replace)?;
    let visible = command.get_subcommands().filter(|command| !command.is_hide_set());
    visible.into_iter().try_for_each(|command| write_pages(command, directory))
}

fn page(command: Command) -> std::io::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_completed_where_the_cursor_is() {
        for (line, point, words) in [
            ("kes ser", 7, &["server"][..]),
            ("kes key cr --now", 10, &["create"]),
            ("kes server --conf", 17, &["--config"]),
            ("kes server --au", 15, &[]),
            ("kes nope", 8, &[]),
            ("kes log --a", 900, &["--audit", "--api-key-file"]),
        ] {
            assert_eq!(candidates("kes", line, point), words, "{line}");
        }
        assert!(candidates("kes", "kes ", 4).contains(&"migrate".to_owned()));
        assert!(candidates("minkms", "minkms add-", 11).contains(&"add-key".to_owned()));
    }
}
