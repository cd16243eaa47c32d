//! What people see: columns, colours, passwords, and figures that are drawn again.

use super::fixture::Fixture;
use crate::support::eventually;
use crate::support::program::Program;
use crate::support::terminal::{Terminal, plain};
use crate::support::testdata;

fn args(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

fn on_terminal(program: &Program, line: &[&str]) -> String {
    Terminal::start(program, &args(line)).wait().0
}

#[test]
fn colours_have_a_meaning_and_can_be_switched_off() {
    let fixture = Fixture::start();
    let program = || fixture.kes().env("TERM", "xterm-256color");
    assert!(on_terminal(&program(), &["key", "ls", "-k"]).contains("\x1b[4mKey\x1b[0m"));
    assert!(on_terminal(&program(), &["key", "info", "-k", "nope"]).starts_with("\x1b[31mError: \x1b[0m"));
    for quiet in [program().env("NO_COLOR", "1"), fixture.kes().env("TERM", "dumb")] {
        assert!(!on_terminal(&quiet, &["status", "-k"]).contains('\x1b'));
    }
    assert!(!on_terminal(&program(), &["status", "-k", "--color", "never"]).contains('\x1b'));
    let piped = program().run(&["key", "ls", "-k", "--color", "always"]);
    assert!(piped.ok().starts_with("\x1b[4mKey"));
    assert!(!program().run(&["key", "ls", "-k"]).ok().contains('\x1b'));
}

#[test]
fn columns_are_aligned() {
    let fixture = Fixture::start();
    let table = plain(&on_terminal(&fixture.kes(), &["status", "-k", "-s", "--api"]));
    let lines: Vec<_> = table.lines().skip(2).collect();
    assert!(lines.len() > 20, "{table}");
    let column = lines[0].find("Timeout").expect("a heading");
    for line in &lines[1..] {
        assert_eq!(line[2..].find("/v"), lines[0][2..].find("API"), "{line}");
        assert!(line[..column].ends_with(' ') && !line[column..].starts_with(' '), "{line}");
    }
}

#[test]
fn a_key_is_not_deleted_on_a_terminal_before_somebody_agrees() {
    let fixture = Fixture::start();
    let kes = fixture.kes();
    kes.run(&["key", "create", "-k", "goes-1", "goes-2"]).ok();
    let keys = || kes.run(&["key", "ls", "-k", "goes", "--json"]).ok();
    for (answer, exit, left) in [("n", 1, "[\"goes-1\",\"goes-2\"]\n"), ("y", 0, "[]\n")] {
        let mut terminal = Terminal::start(&kes, &args(&["key", "rm", "-k", "goes-1", "goes-2"]));
        eventually("it asks", || terminal.output().contains("Delete keys \"goes-1\", \"goes-2\"?"));
        terminal.type_keys(&format!("{answer}\n"));
        let (output, code) = terminal.wait();
        assert!(code == Some(exit) && output.contains("can never be decrypted again"), "{output}");
        assert_eq!(keys(), left);
    }
    kes.run(&["key", "create", "-k", "goes-3", "goes-4"]).ok();
    let said = on_terminal(&kes, &["key", "rm", "-k", "goes-3", "--yes"]);
    assert_eq!(plain(&said), "Deleted key \"goes-3\".\n");
    assert_eq!(kes.run(&["key", "rm", "-k", "goes-4"]).ok(), "", "scripts are not asked, and read nothing");
    assert_eq!(keys(), "[]\n");
}

#[test]
fn figures_are_drawn_over_and_over_in_one_place() {
    let fixture = Fixture::start();
    let program = fixture.kes().env("TERM", "xterm-256color");
    let mut terminal = Terminal::start(&program, &args(&["metric", "-k", "--rate", "100ms"]));
    eventually("the figures are drawn three times", || terminal.output().matches("\x1b[J").count() >= 2);
    terminal.type_keys("\x03");
    let (output, exit) = terminal.wait();
    assert_eq!(exit, Some(0), "Ctrl-C is how one ends it");
    let drawn: Vec<_> = output.split("\x1b[J").collect();
    let lines = drawn[0].matches('\n').count();
    for figures in &drawn[..drawn.len() - 1] {
        assert!(figures.ends_with(&format!("\x1b[{lines}A")), "the cursor goes back to the first line: {figures:?}");
        assert!(plain(figures).contains("Requests"), "{figures}");
    }
}

/// Asks the server as the owner of a certificate whose key needs a password.
fn with_encrypted_key(fixture: &Fixture, key: &str, certificate: &str) -> Program {
    let file = |name: &str| testdata(format!("identities/{name}")).display().to_string();
    Program::named("kes", fixture.directory())
        .env("MINIO_KES_SERVER", fixture.server().address().to_string())
        .env("MINIO_KES_KEY_FILE", file(key))
        .env("MINIO_KES_CERT_FILE", file(certificate))
}

#[test]
fn the_password_of_an_encrypted_key_is_asked_for() {
    #[derive(serde::Deserialize)]
    struct Cases {
        cases: Vec<Case>,
    }
    #[derive(serde::Deserialize)]
    struct Case {
        name: String,
        key: String,
        certificate: String,
        password: String,
    }
    let text = std::fs::read(testdata("identities/encrypted-keys.json")).expect("the keys");
    let Cases { cases } = serde_json::from_slice(&text).expect("the keys");
    let fixture = Fixture::start();
    for case in cases.iter().filter(|case| !case.name.starts_with("plain-") && case.name != "pkcs8-pbes1") {
        let program = with_encrypted_key(&fixture, &case.key, &case.certificate);
        for (password, answer) in
            [(case.password.as_str(), "not authorized"), ("my guess", "the password of the private key is wrong")]
        {
            let mut terminal = Terminal::start(&program, &args(&["status", "-k", "-s"]));
            eventually("it asks", || terminal.output().contains("Password of '"));
            terminal.type_keys(&format!("{password}\n"));
            let (output, exit) = terminal.wait();
            // It is nobody's certificate on this server; that the server says so shows that it was used.
            assert!(exit == Some(1) && output.contains(answer), "{}: {output}", case.name);
            assert!(!output.contains(&format!("{password}\r\n")), "{}: the password is shown: {output}", case.name);
        }
        let answer = program.env("CLAVIGER_KEY_PASSWORD", &case.password).run(&["status", "-k", "-s"]);
        assert!(answer.stderr.contains("not authorized"), "{}: {answer:?}", case.name);
    }
}
