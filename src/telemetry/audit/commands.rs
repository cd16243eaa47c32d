//! The commands in one request to the key manager, in order, each with its target: its path does not name them.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

/// How much of a name is shown, in characters. Names that exist are shorter.
const LONGEST_NAME: usize = 128;

/// About how many bytes of commands an event or a line of the log holds. A request with more makes several.
const PART: usize = 3_000;

/// What a command takes beside its texts, in an event.
const OVERHEAD: usize = 64;

/// The commands of a request, in their order.
#[derive(Debug, Default)]
pub struct Commands {
    /// The enclave that they are for; empty: none.
    pub(super) enclave: String,
    commands: Vec<Command>,
}

/// One command, or the same one several times in a row.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Command {
    action: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: Cow<'static, str>,
    #[serde(skip_serializing_if = "is_one")]
    times: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference over")]
fn is_one(times: &u32) -> bool {
    *times == 1
}

impl Commands {
    /// No commands yet, for this enclave.
    pub fn of(enclave: &str) -> Self {
        Self { enclave: shown(enclave), commands: Vec::new() }
    }

    /// Adds a command: the action, the name of what it is about, and what else there is to say of it.
    pub fn add(&mut self, action: &'static str, name: &str, detail: impl Into<Cow<'static, str>>) {
        let command = Command { action, name: shown(name), detail: detail.into(), times: 1 };
        if let Some(last) = self.commands.last_mut() {
            let times = std::mem::replace(&mut last.times, 1);
            let is_same = *last == command;
            last.times = times;
            if is_same {
                last.times += 1;
                return;
            }
        }
        self.commands.push(command);
    }

    /// The enclave.
    pub fn enclave(&self) -> &str {
        &self.enclave
    }

    /// The commands in parts that are about the same size: at least one part, of no command if there are none.
    pub(super) fn parts(&self) -> Vec<&[Command]> {
        let mut parts = Vec::with_capacity(1);
        let (mut begin, mut size) = (0, 0);
        for (at, command) in self.commands.iter().enumerate() {
            let more = OVERHEAD + command.action.len() + command.name.len() + command.detail.len();
            if size + more > PART && at > begin {
                parts.push(&self.commands[begin..at]);
                (begin, size) = (at, 0);
            }
            size += more;
        }
        parts.push(&self.commands[begin..]);
        parts
    }

    /// The commands as text, in as many lines as they need.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let line = |part: &[Command]| part.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        self.parts().into_iter().map(line)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { action, name, detail, times } = self;
        f.write_str(action)?;
        if !name.is_empty() {
            write!(f, " {name}")?;
        }
        if !detail.is_empty() {
            write!(f, " ({detail})")?;
        }
        if *times > 1 { write!(f, " {times} times") } else { Ok(()) }
    }
}

/// A name as events and the log show it: names that exist are short and of ASCII, but whoever is denied can send any
/// text.
pub fn shown(name: &str) -> String {
    let visible = |c: char| if c.is_ascii_graphic() { c } else { char::REPLACEMENT_CHARACTER };
    let mut shown: String = name.chars().take(LONGEST_NAME).map(visible).collect();
    if name.chars().nth(LONGEST_NAME).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(commands: &Commands) -> Vec<String> {
        commands.lines().collect()
    }

    #[test]
    fn equal_commands_in_a_row_are_counted() {
        let mut commands = Commands::of("tenant");
        for (action, name, detail) in [
            ("KEY:DECRYPT", "a", ""),
            ("KEY:DECRYPT", "a", ""),
            ("KEY:DECRYPT", "b", ""),
            ("KEY:DECRYPT", "a", ""),
            ("KEY:DELETE", "a", "version 3"),
            ("CLUSTER:STATUS", "", ""),
        ] {
            commands.add(action, name, detail);
        }
        let line = "KEY:DECRYPT a 2 times, KEY:DECRYPT b, KEY:DECRYPT a, KEY:DELETE a (version 3), CLUSTER:STATUS";
        assert_eq!(text(&commands), [line]);
    }

    #[test]
    fn a_part_is_of_bounded_size_and_no_command_is_missing() {
        let mut commands = Commands::of("tenant");
        for n in 0..5_000 {
            commands.add("KEY:CREATE", &format!("k-{n}"), "");
        }
        let lines = text(&commands);
        assert!(lines.len() > 10 && lines.iter().all(|line| line.len() <= PART));
        let all = lines.join(", ");
        let wanted: Vec<_> = (0..5_000).map(|n| format!("KEY:CREATE k-{n}")).collect();
        assert!(all.split(", ").eq(&wanted));
    }

    #[test]
    fn names_are_cut_and_show_nothing_that_moves_a_cursor() {
        let mut commands = Commands::of("");
        commands.add("KEY:DELETE", &"x".repeat(10_000), "");
        commands.add("KEY:DELETE", "a\u{9b}2J\u{202e}\n\" b", "");
        let line = format!("KEY:DELETE {}…, KEY:DELETE a\u{fffd}2J\u{fffd}\u{fffd}\"\u{fffd}b", "x".repeat(128));
        assert_eq!(text(&commands), [line]);
    }
}
