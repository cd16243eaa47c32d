//! A terminal: a program whose three streams are one pseudo terminal of 40 lines and 120 columns.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::program::Program;
use super::pty;

/// A program on a terminal.
pub struct Terminal {
    master: File,
    child: Child,
    output: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Terminal {
    /// Starts the program on a terminal that is its controlling one, so that it can ask for passwords.
    pub fn start(program: &Program, args: &[String]) -> Self {
        let mut command = Command::new(setsid());
        command.arg("--ctty").arg("--wait").arg(program.path()).args(args);
        program.prepare(&mut command);
        let (child, master) = pty::spawn(command);
        let output = Arc::<Mutex<Vec<u8>>>::default();
        let mut stream = master.try_clone().expect("a descriptor");
        let copy = output.clone();
        let reader = std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            // The end is an error: EIO, when the last program has closed the terminal.
            while let Ok(len @ 1..) = stream.read(&mut chunk) {
                copy.lock().expect("no reader panicked").extend_from_slice(&chunk[..len]);
            }
        });
        Self { master, child, output, reader }
    }

    /// What has been written so far, escape sequences and all.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().expect("no reader panicked")).into_owned()
    }

    /// Types on the keyboard.
    pub fn type_keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// Waits until it ends; returns what it wrote and its exit code.
    pub fn wait(mut self) -> (String, Option<i32>) {
        let mut status = None;
        super::eventually("the program on the terminal ends", || {
            status = self.child.try_wait().expect("our child");
            status.is_some()
        });
        self.reader.join().expect("the reader ends with the program");
        let output = String::from_utf8_lossy(&self.output.lock().expect("no reader panicked")).into_owned();
        (output, status.and_then(|status| status.code()))
    }
}

fn setsid() -> PathBuf {
    super::peer::program("setsid", "util-linux")
}

/// The text without escape sequences, and with plain line ends.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\x1b') {
        plain.push_str(before);
        let end = after.find(|c: char| c.is_ascii_alphabetic()).map_or(after.len(), |end| end + 1);
        rest = &after[end..];
    }
    plain.push_str(rest);
    plain.replace("\r\n", "\n")
}
