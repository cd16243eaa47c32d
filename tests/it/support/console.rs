//! Transcripts of a shell: `$ ` and a command, which may go on behind a `\`, and below it what it prints to standard
//! output and standard error. In a Markdown file they stand in blocks of the language `console`.
//!
//! Files that the commands need stand there as blocks that begin with a comment, their name.
//!
//! `…` in an expected line stands for any text; a line of nothing else for any number of lines.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

/// What stands between the outputs of two commands.
const MARK: &str = "--- the next command ---";

/// One command and what is expected of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    pub command: String,
    pub output: String,
}

/// The steps of a transcript.
pub fn parse(transcript: &str) -> Vec<Step> {
    let mut steps = Vec::<Step>::new();
    let mut goes_on = false;
    for line in transcript.lines() {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push(Step { command: command.to_owned(), output: String::new() }),
            (None, Some(step)) if goes_on => step.command.push_str(&format!("\n{line}")),
            (None, Some(step)) => step.output.push_str(&format!("{line}\n")),
            (None, None) => panic!("a transcript begins with a command, not with {line:?}"),
        }
        goes_on = line.ends_with('\\');
    }
    steps
}

/// The files of a Markdown text: blocks of another language, whose first line is a comment with a name.
pub fn files(text: &str) -> Vec<(&str, &str)> {
    let blocks = text.split("```").skip(1).step_by(2);
    blocks
        .filter_map(|block| {
            let (_, content) = block.split_once('\n')?;
            let name = content.lines().next()?.strip_prefix("# ")?;
            name.contains('.').then_some((name, content))
        })
        .collect()
}

/// The steps of all `console` blocks of a Markdown text.
pub fn of_markdown(text: &str) -> Vec<Step> {
    text.split("```console\n").skip(1).flat_map(|rest| parse(rest.split("```").next().unwrap_or_default())).collect()
}

/// Runs all commands in one shell, in this directory and with these variables; `claviger`, `kes` and `minkms` are the
/// program.
/// Returns what each printed.
pub fn run(steps: &[Step], directory: &Path, env: &[(String, String)]) -> Vec<String> {
    let bin = tempfile::tempdir().expect("a directory for the program");
    for name in ["claviger", "kes", "minkms"] {
        symlink(env!("CARGO_BIN_EXE_claviger"), bin.path().join(name)).expect("a link to the program");
    }
    let script: String = steps.iter().map(|step| format!("{}\nprintf '\\n{MARK}\\n'\n", step.command)).collect();
    let script = format!("exec 2>&1 </dev/null\n{script}");
    let given = env.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.clone());
    let path = given.unwrap_or_else(|| std::env::var("PATH").expect("there is a PATH"));
    let output = Command::new("timeout")
        .args(["300", "sh", "-c", &script])
        .env_clear()
        .env("CLAVIGER_ALLOW_PUBLISHED_ADMIN", "1")
        .envs(env.iter().map(|(name, value)| (name, value)))
        .env("PATH", format!("{}:{path}", bin.path().display()))
        .env("HOME", directory)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .expect("a shell");
    let text = String::from_utf8(output.stdout).expect("text");
    let mark = format!("\n{MARK}\n");
    let outputs: Vec<_> = text.split(&mark).map(ended).collect();
    assert_eq!(outputs.len(), steps.len() + 1, "the shell did not come to its end:\n{text}");
    outputs[..steps.len()].to_vec()
}

/// With a line feed at the end of the last line, if there is any.
fn ended(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}

/// Whether an output is as expected.
pub fn matches(expected: &str, output: &str) -> bool {
    let (expected, output): (Vec<_>, Vec<_>) =
        (expected.trim_end().lines().collect(), output.trim_end().lines().collect());
    lines_match(&expected, &output)
}

fn lines_match(expected: &[&str], output: &[&str]) -> bool {
    match expected.split_first() {
        None => output.is_empty(),
        Some((line, rest)) if line.trim() == "…" => (0..=output.len()).any(|skip| lines_match(rest, &output[skip..])),
        Some((line, rest)) => output.split_first().is_some_and(|(first, others)| {
            line_matches(line.trim_end(), first.trim_end()) && lines_match(rest, others)
        }),
    }
}

fn line_matches(expected: &str, line: &str) -> bool {
    let mut parts = expected.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[test]
fn an_ellipsis_stands_for_anything() {
    assert!(matches("a … c\n…\nz\n", "a b c\nx\ny\nz\n"));
    assert!(matches("a\n", "a\n") && !matches("a\n", "ab\n") && !matches("", "a\n"));
    assert!(!matches("a…c\n", "ab\n"));
    assert_eq!(of_markdown("x\n```console\n$ a \\\n  b\nc\n$ d\n```\n").len(), 2);
}
