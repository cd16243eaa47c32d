//! The program as people and scripts call it, with an environment of nothing but what they set.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The program under one of its names, in a directory of its own.
pub struct Program {
    path: PathBuf,
    _bin: tempfile::TempDir,
    directory: PathBuf,
    env: Vec<(String, String)>,
}

/// How a call ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub stdout: String,
    pub stderr: String,
    /// None: it was killed by a signal.
    pub exit: Option<i32>,
}

impl Outcome {
    pub fn ok(self) -> String {
        assert_eq!(self.exit, Some(0), "{self:?}");
        self.stdout
    }
}

impl Program {
    /// The program, called `name`, in this directory.
    pub fn named(name: &str, directory: &Path) -> Self {
        let bin = tempfile::tempdir().expect("a temporary directory");
        let path = bin.path().join(name);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_claviger"), &path).expect("a link to the program");
        Self { path, _bin: bin, directory: directory.to_owned(), env: Vec::new() }
    }

    /// Sets a variable for all calls.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// The path by which it is called.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A call that has not begun.
    pub fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(&self.path);
        command.args(args);
        self.prepare(&mut command);
        command
    }

    /// Gives a command the directory and the environment of the program.
    pub fn prepare(&self, command: &mut Command) {
        // Before theirs, which may take it away: servers of tests have administrators with published keys.
        command.env_clear().env("CLAVIGER_ALLOW_PUBLISHED_ADMIN", "1");
        command.envs(self.env.iter().map(|(name, value)| (name, value))).current_dir(&self.directory);
    }

    /// Calls it, with nothing on standard input.
    pub fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Outcome {
        self.run_with_input(args, b"")
    }

    /// Calls it, with this on standard input.
    pub fn run_with_input<S: AsRef<OsStr>>(&self, args: &[S], input: &[u8]) -> Outcome {
        let mut command = self.command(args);
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().expect("the program starts");
        // It need not read what it is given.
        let _ = child.stdin.take().expect("piped").write_all(input);
        let output = child.wait_with_output().expect("it ends");
        Outcome {
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
            exit: output.status.code(),
        }
    }
}
