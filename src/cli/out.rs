//! Standard output: plain text or JSON for scripts, formatted text on a terminal.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal as _, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::{environment, secrets, words};
pub(super) use crate::foreign::printable;
use crate::foreign::{Lines, printable_json};

/// A heading.
pub(super) const HEADING: Style = Style::new().underline();
/// The label of a value.
pub(super) const LABEL: Style = Style::new().dimmed();
/// The most important text.
pub(super) const STRONG: Style = Style::new().bold();
/// All is well.
pub(super) const GOOD: Style = AnsiColor::Green.on_default().bold();
/// Something needs attention.
pub(super) const WARNING: Style = AnsiColor::Yellow.on_default();
/// Something is wrong.
pub(super) const BAD: Style = AnsiColor::Red.on_default();

/// When to write in colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// Whether to colour what goes to a terminal, or not to one.
    pub(super) fn applies(self, is_terminal: bool) -> bool {
        match self {
            Self::Auto => is_terminal && !environment::forbids_color(),
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// Standard output.
pub(super) struct Out {
    stream: BufWriter<io::Stdout>,
    is_terminal: bool,
    color: bool,
    program: &'static str,
}

impl Out {
    /// Standard output of `program`, the name it was called by.
    pub(super) fn new(program: &'static str, color: Color) -> Self {
        let stream = io::stdout();
        let is_terminal = stream.is_terminal();
        Self { stream: BufWriter::new(stream), is_terminal, color: color.applies(is_terminal), program }
    }

    /// Whether standard output is a terminal.
    pub(super) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// The name the program was called by.
    pub(super) fn program(&self) -> &'static str {
        self.program
    }

    /// The text in a style, where colours are wanted.
    pub(super) fn paint<T: fmt::Display>(&self, style: Style, text: T) -> Painted<T> {
        Painted::new(if self.color { style } else { Style::new() }, text)
    }

    /// Prints one JSON value: on one line, or, for an object on a terminal, indented.
    pub(super) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let value = serde_json::to_value(value)?;
        let is_spread_out = self.is_terminal && value.is_object();
        let json = if is_spread_out { serde_json::to_vec_pretty(&value)? } else { serde_json::to_vec(&value)? };
        self.stream.write_all(&printable_json(json))?;
        self.stream.write_all(b"\n")
    }

    /// On a terminal, says what a command without other output has done. Scripts use the exit code.
    pub(super) fn done(&mut self, what: impl fmt::Display) -> io::Result<()> {
        if self.is_terminal { writeln!(self, "{what}") } else { Ok(()) }
    }

    /// Prints names: one JSON array, or a heading and one name on each line. When there are none, it prints nothing for
    /// scripts, and on a terminal that no such `things` were found.
    pub(super) fn names(&mut self, heading: &str, things: &str, names: &[String], json: bool) -> io::Result<()> {
        if json {
            return self.json(&names);
        }
        if names.is_empty() {
            return self.done(format_args!("No {things} found."));
        }
        let heading = self.paint(HEADING, heading);
        writeln!(self, "{heading}")?;
        names.iter().try_for_each(|name| writeln!(self, "{}", printable(name)))
    }

    /// Prints labels of this width and their values, one on each line.
    pub(super) fn fields(&mut self, width: usize, fields: &[(&str, &dyn fmt::Display)]) -> io::Result<()> {
        for (label, value) in fields {
            let label = self.paint(LABEL, format!("{label:<width$}"));
            writeln!(self, "{label} {value}")?;
        }
        Ok(())
    }
}

/// Bytes are written as they are; text, as everything makes it that comes here by `write!`, without what a terminal obeys.
impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
        let mut plain = String::new();
        // Only a `Display` of ours could fail, and none does.
        fmt::Write::write_fmt(&mut Lines(&mut plain), text).map_err(io::Error::other)?;
        self.stream.write_all(plain.as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Writes a line to standard error: without what a terminal obeys, without keys that somebody gave in the wrong place, and
/// with the name that the program was called by. Standard error may be closed: then nobody wants to know.
pub(super) fn note(text: impl fmt::Display) {
    let mut plain = String::new();
    let _ = fmt::Write::write_fmt(&mut Lines(&mut plain), format_args!("{text}"));
    let plain = words::by_name(super::called(), plain);
    let _ = writeln!(io::stderr(), "{}", secrets::concealed(&plain));
}

/// Text in a style.
pub(super) struct Painted<T> {
    style: Style,
    text: T,
}

impl<T> Painted<T> {
    /// The text in this style.
    pub(super) fn new(style: Style, text: T) -> Self {
        Self { style, text }
    }
}

impl<T: fmt::Display> fmt::Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:#}", self.style, self.text, self.style)
    }
}

/// A moment in UTC, to the second.
pub(super) fn moment(time: time::OffsetDateTime) -> String {
    // A server may send any time. One that is out of range in UTC is shown with its own offset.
    let time = time.checked_to_offset(time::UtcOffset::UTC).unwrap_or(time);
    let (date, clock) = (time.date(), time.time());
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second()
    )
}
