//! `claviger completions` and `claviger man`: prints shell completions and manual pages.

use std::io::Write as _;
use std::path::PathBuf;

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

/// Write manual pages: the main one, or one a command into a directory
#[derive(Debug, clap::Args)]
pub(super) struct Man {
    /// Write one file a command into this directory
    directory: Option<PathBuf>,
}

/// Writes a completion script.
pub(super) fn completions(args: &Completions, out: &mut Out) -> anyhow::Result<()> {
    let program = out.program();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(program), program, &mut script);
    Ok(out.write_all(&script)?)
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
