//! A pseudo terminal of 40 lines and 120 columns for a child's input and output.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Starts a command on a terminal of its own; what it shows comes out of the file.
pub fn spawn(mut command: Command) -> (Child, File) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
    grantpt(&terminal).and_then(|()| unlockpt(&terminal)).expect("a terminal for us");
    let size = Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&terminal, size).expect("a size");
    let name = ptsname(&terminal, Vec::new()).expect("a name").into_string().expect("UTF-8");
    let end = || -> OwnedFd {
        File::options().read(true).write(true).open(&name).unwrap_or_else(|error| panic!("{name}: {error}")).into()
    };
    let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("the program starts");
    (child, File::from(terminal))
}

/// Runs a command on a terminal of its own until it ends: what the terminal was sent, and the exit code.
pub fn run(command: Command) -> (String, Option<i32>) {
    let (mut child, mut terminal) = spawn(command);
    let mut output = Vec::new();
    let mut buffer = [0; 4_096];
    // The last one to close the other end makes reading fail.
    while let Ok(count @ 1..) = terminal.read(&mut buffer) {
        output.extend_from_slice(&buffer[..count]);
    }
    let status = child.wait().expect("our child");
    (String::from_utf8_lossy(&output).replace("\r\n", "\n"), status.code())
}
