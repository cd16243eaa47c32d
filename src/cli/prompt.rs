//! Questions on the terminal: hidden passwords, and a confirmation before something is destroyed.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Write as _};

use anyhow::{Context as _, bail, ensure};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::out::printable;

/// The longest answer, in bytes: as long as a terminal's line can be.
const MAX: usize = 4096;

/// Asks on the terminal of this process, wherever its standard streams go.
///
/// # Errors
/// When there is no terminal, or the answer is no text.
pub(super) fn password(prompt: &str) -> io::Result<SecretString> {
    let mut terminal = File::options().read(true).write(true).open("/dev/tty")?;
    // Turn the echo off before the question, so that early input is not shown either.
    let silent = Silent::begin(terminal.try_clone()?)?;
    terminal.write_all(prompt.as_bytes())?;
    let answer = read_line(&mut terminal);
    drop(silent);
    terminal.write_all(b"\n")?;
    answer.map(|line| SecretString::from(line.expose_secret().trim_end_matches(['\r', '\n'])))
}

/// Whether a command that destroys something may do so.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Consent {
    /// Do not ask for confirmation; without a terminal it never asks
    #[arg(short, long)]
    yes: bool,
}

impl Consent {
    /// Whether there is a terminal to ask on, and `--yes` was not given.
    pub(super) fn must_be_asked_for(&self) -> bool {
        !self.yes && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Asks on a terminal. Where there is none, '--yes' must have been given.
    ///
    /// # Errors
    /// When nobody has agreed.
    pub(super) fn insist(&self, question: &str) -> anyhow::Result<()> {
        if !self.yes && !self.must_be_asked_for() {
            bail!("there is no terminal to ask on; say '--yes' to agree");
        }
        self.ask(question)
    }

    /// Asks for this very text on a terminal. Where there is none, '--yes' must have been given.
    ///
    /// # Errors
    /// When nobody has agreed.
    pub(super) fn insist_on(&self, question: &str, text: &str) -> anyhow::Result<()> {
        if self.must_be_asked_for() {
            return typed(question, text);
        }
        ensure!(self.yes, "{question}\nthere is no terminal to ask on; say '--yes' to agree");
        Ok(())
    }

    /// Asks on a terminal, unless '--yes' was given.
    ///
    /// # Errors
    /// When the answer is not yes.
    pub(super) fn ask(&self, question: &str) -> anyhow::Result<()> {
        if !self.must_be_asked_for() {
            return Ok(());
        }
        let mut terminal = File::options()
            .read(true)
            .write(true)
            .open("/dev/tty")
            .context("no terminal to ask on: use '--yes' to do it without a question")?;
        terminal.write_all(format!("{question} [y/N] ").as_bytes())?;
        let answer = read_line(&mut terminal)?;
        match answer.expose_secret().trim() {
            "y" | "Y" | "yes" | "Yes" => Ok(()),
            _ => bail!("not confirmed: nothing was done"),
        }
    }
}

/// Asks for what was not given, where there is a terminal; elsewhere the defaults are meant.
pub(super) struct Questions(Option<File>);

impl Questions {
    /// Nothing is asked when `yes` was said beforehand.
    pub(super) fn unless(yes: bool) -> Self {
        let is_terminal = !yes && io::stdin().is_terminal() && io::stderr().is_terminal();
        Self(is_terminal.then(|| File::options().read(true).write(true).open("/dev/tty").ok()).flatten())
    }

    /// Asks until the answer can be parsed. An empty one means the default.
    ///
    /// # Errors
    /// When the terminal is gone, or the default cannot be parsed.
    pub(super) fn ask<T>(
        &self,
        question: &str,
        default: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> anyhow::Result<T> {
        let Some(terminal) = &self.0 else { return parse(default).map_err(anyhow::Error::msg) };
        let mut terminal = terminal.try_clone()?;
        loop {
            terminal.write_all(format!("{question} [{default}]: ").as_bytes())?;
            let answer = read_line(&mut terminal)?;
            // The end of the input: nobody is there.
            ensure!(answer.expose_secret().ends_with('\n'), "no answer: nothing was made");
            let answer = answer.expose_secret().trim();
            match parse(if answer.is_empty() { default } else { answer }) {
                Ok(value) => return Ok(value),
                Err(error) => terminal.write_all(format!("{}\n", printable(&error)).as_bytes())?,
            }
        }
    }
}

/// Asks on the terminal for this very text.
///
/// # Errors
/// When there is no terminal, or the answer is another one.
pub(super) fn typed(question: &str, text: &str) -> anyhow::Result<()> {
    let mut terminal = File::options().read(true).write(true).open("/dev/tty").context("nobody can be asked")?;
    terminal.write_all(question.as_bytes())?;
    let answer = read_line(&mut terminal)?;
    if answer.expose_secret().trim() == text { Ok(()) } else { bail!("not confirmed: nothing was done") }
}

fn read_line(terminal: &mut File) -> io::Result<SecretString> {
    // Its full size at once: a buffer that grows leaves copies behind.
    let mut line = Zeroizing::new([0; MAX]);
    let mut len = 0;
    while len < MAX && !line[..len].ends_with(b"\n") {
        match terminal.read(&mut line[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let text = std::str::from_utf8(&line[..len]).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(SecretString::from(text))
}

/// A terminal with its echo off. Dropping it restores the settings.
struct Silent {
    terminal: File,
    before: Termios,
}

impl Silent {
    fn begin(terminal: File) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        // Input from before the question is not an answer to it.
        tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}
