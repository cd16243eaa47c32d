//! The command line: one file a command.

mod bench;
mod completions;
mod config;
mod connection;
mod daemon;
mod doctor;
mod environment;
mod examples;
mod explain;
mod identity;
mod init;
mod input;
mod key;
mod kms;
mod list;
mod log;
mod ls;
mod metric;
mod migrate;
mod old;
mod out;
mod policy;
mod prompt;
mod published;
mod report;
mod reseal;
mod secrets;
mod server;
mod status;
mod units;
mod verify;
mod words;

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use self::out::{Color, Out};
use self::words::Wish;

/// The name of the archived program, under which this one may be called.
const KES: &str = "kes";

/// The name under which this one is a key manager and its client, and nothing else.
const MINKMS: &str = "minkms";

/// The commands by what one wants to do, for whoever gives none.
const TEMPLATE: &str = "\
{about}

{usage-heading} {usage}

Run a server
  init         Make the directory of a server: config, certificate, identities, a first key, a unit
  server       Start a key server
  config       Check a config file
  doctor       Find what is wrong with a server's config, files and key store
  explain      Say which rule of a config allows or denies a request

Work with keys
  key          Create, import, list and delete keys, encrypt and decrypt with them
  ls           List keys, policies or identities

Say who may do what
  identity     Make identities, and look at them
  policy       Look at policies

Look after a server
  status       Show how a server is
  metric       Watch the figures of a server
  log          Follow a log of a server
  bench        Measure what a server carries

Keep keys in enclaves
  kms          Run a key manager, and work with one

Move keys between key stores
  migrate      Copy keys from one key store to another
  verify       Check that keys are on another key store, and the same
  reseal       Seal the keys of a key store anew, where they are

Set up this command
  completions  Write a completion script for a shell
  man          Write manual pages

{options}

'<COMMAND> --help' says more, 'help <COMMAND>' the same.
";

/// Where an option stands in a help that is of little use to most.
const LAST: usize = 10_000;

/// The widest line of a help; narrower terminals have shorter ones.
const WIDTH: usize = 100;

/// An open key server for object stores: a drop-in KES.
#[derive(Debug, Parser)]
#[command(
    version,
    disable_version_flag = true,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    help_template = TEMPLATE
)]
struct Args {
    /// Print the version
    #[arg(short = 'v', short_alias = 'V', long, action = clap::ArgAction::SetTrue)]
    version: bool,
    /// When to write in colours
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t, display_order = LAST)]
    color: Color,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Args),
    /// Start a key server
    Server(server::Args),
    /// Check a config file
    Config(config::Args),
    Doctor(doctor::Args),
    Explain(explain::Args),
    Key(key::Args),
    #[command(alias = "list")]
    Ls(ls::Args),
    Identity(identity::Args),
    Policy(policy::Args),
    Status(status::Args),
    Metric(metric::Args),
    Log(log::Args),
    Bench(bench::Args),
    Completions(completions::Completions),
    Man(completions::Man),
    Migrate(migrate::Args),
    Verify(verify::Args),
    Reseal(reseal::Args),
    Kms(kms::Args),
}

/// A key manager, and its client.
#[derive(Debug, Parser)]
#[command(disable_help_subcommand = true, arg_required_else_help = true)]
struct MinKms {
    /// When to write in colours
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t, display_order = LAST)]
    color: Color,
    #[command(flatten)]
    kms: kms::Args,
}

/// The name that the program was called by: a fact of the whole process.
static CALLED: OnceLock<&str> = OnceLock::new();

/// The name that the program was called by.
fn called() -> &'static str {
    CALLED.get().copied().unwrap_or(env!("CARGO_PKG_NAME"))
}

/// Runs the command that `args` (program name first) asks for.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<_> = args.collect();
    let program = *CALLED.get_or_init(|| program(args.first()));
    if let Some((line, point)) = environment::completion() {
        return completions::complete(program, &line, point);
    }
    if let Some(wish) = words::wish(program, &command(program), &args) {
        return fulfil(wish, program, args.first());
    }
    let parsed = if program == MINKMS { MinKms::parse_args(&args) } else { Args::parse_args(program, &args) };
    let args = match parsed {
        Ok(args) => args,
        Err(error) => return refuse(program, &args, error),
    };
    let color = args.color;
    let mut out = Out::new(program, color);
    let result = run(args, &mut out).and_then(|()| Ok(out.flush()?));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What was written before the failure is no less true.
            let _ = out.flush();
            if !report::is_closed_pipe(&error) {
                report::print(&error, program, color);
            }
            exit_code(&error)
        }
    }
}

/// Answers words that are no commands, and say what is wanted all the same.
fn fulfil(wish: Wish, program: &'static str, called: Option<&OsString>) -> ExitCode {
    let line = match wish {
        Wish::Help(path) => path.into_iter().chain(["--help".to_owned()]).collect(),
        Wish::Version => vec!["--version".to_owned()],
        Wish::Other(advice) => {
            report::print(&anyhow::anyhow!("there is no such command: {advice}"), program, Color::Auto);
            return ExitCode::from(2);
        }
    };
    main(called.cloned().into_iter().chain(line.into_iter().map(OsString::from)))
}

/// Says what is wrong with the arguments, or shows the help that they ask for.
fn refuse(program: &str, args: &[OsString], error: clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    match old::answer(program, args) {
        Some(advice) => report::print(&anyhow::anyhow!(advice), program, Color::Auto),
        None => {
            let text = words::without_destruction(error).render();
            let is_colored = Color::Auto.applies(std::io::stderr().is_terminal());
            let text = if is_colored { text.ansi().to_string() } else { text.to_string() };
            out::note(text.trim_end());
        }
    }
    ExitCode::from(2)
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    match error {
        error if error.is::<migrate::Usage>() => ExitCode::from(2),
        error if error.is::<migrate::Incomplete>() => ExitCode::from(3),
        _ => ExitCode::FAILURE,
    }
}

impl Args {
    fn parse_args(program: &'static str, args: &[OsString]) -> Result<Self, clap::Error> {
        let mut command = command(program);
        let mut matches = command.try_get_matches_from_mut(args)?;
        secrets::refuse_misplaced(&mut command, &matches)?;
        Self::from_arg_matches_mut(&mut matches)
    }
}

impl MinKms {
    fn parse_args(args: &[OsString]) -> Result<Args, clap::Error> {
        let mut command = command(MINKMS);
        let mut matches = command.try_get_matches_from_mut(args)?;
        secrets::refuse_misplaced(&mut command, &matches)?;
        let Self { color, kms } = Self::from_arg_matches_mut(&mut matches)?;
        Ok(Args { version: false, color, command: Some(Command::Kms(kms)) })
    }
}

/// The command line of the program that is called by this name.
fn command(program: &'static str) -> clap::Command {
    let show = |command: clap::Command| command.hide(false);
    // Who adds an option to the fixed command line of a server means the last one.
    let last_counts = |command: clap::Command| command.args_override_self(true);
    let command = match program {
        MINKMS => MinKms::command().mut_subcommand("completions", show).mut_subcommand("man", show),
        _ => Args::command().mut_subcommand("kms", |kms| kms.mut_subcommand("server", last_counts)),
    };
    let command = command.mut_subcommand("server", last_counts);
    let command = examples::add(command.name(program).bin_name(program), program);
    command.max_term_width(WIDTH)
}

/// The name that the program was called by, if it is one of ours.
fn program(first: Option<&OsString>) -> &'static str {
    match first.and_then(|path| Path::new(path).file_stem()) {
        Some(name) if name == KES => KES,
        Some(name) if name == MINKMS => MINKMS,
        _ => env!("CARGO_PKG_NAME"),
    }
}

/// What to type to ask a key manager, for whoever called the program by this name.
fn kms_name(program: &str) -> &'static str {
    match program {
        MINKMS => MINKMS,
        KES => "kes kms",
        _ => "claviger kms",
    }
}

/// What to type to ask a KES server.
fn kes_name(program: &str) -> &'static str {
    if program == KES { KES } else { env!("CARGO_PKG_NAME") }
}

fn run(args: Args, out: &mut Out) -> anyhow::Result<()> {
    match args.command {
        None => version(out),
        Some(Command::Init(args)) => init::run(&args, out),
        Some(Command::Server(args)) => server::run(args),
        Some(Command::Config(args)) => config::run(&args, out),
        Some(Command::Explain(args)) => explain::run(&args, out),
        Some(Command::Migrate(args)) => migrate::run(args, out),
        Some(Command::Verify(args)) => verify::run(args, out),
        Some(Command::Reseal(args)) => reseal::run(args, out),
        Some(Command::Kms(args)) => kms::run(args, out),
        Some(Command::Completions(args)) => completions::completions(&args, out),
        Some(Command::Man(args)) => completions::man(&args, out),
        Some(command) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(ask(command, out))
        }
    }
}

/// Runs a command that waits for answers.
async fn ask(command: Command, out: &mut Out) -> anyhow::Result<()> {
    match command {
        Command::Doctor(args) => doctor::run(args, out).await,
        Command::Key(args) => key::run(args, out).await,
        Command::Ls(args) => ls::run(args, out).await,
        Command::Identity(args) => identity::run(args, out).await,
        Command::Policy(args) => policy::run(args, out).await,
        Command::Status(args) => status::run(args, out).await,
        Command::Metric(args) => metric::run(args, out).await,
        Command::Log(args) => log::run(args, out).await,
        Command::Bench(args) => bench::run(args, out).await,
        _ => unreachable!("`run` has run these"),
    }
}

fn version(out: &mut Out) -> anyhow::Result<()> {
    let commit = out.paint(out::LABEL, format!("commit={}", crate::api::COMMIT));
    writeln!(out, "Version    {:<22} {commit}", env!("CARGO_PKG_VERSION"))?;
    Ok(writeln!(out, "License    {}", env!("CARGO_PKG_LICENSE"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
        MinKms::command().debug_assert();
    }

    #[test]
    fn whoever_gives_no_command_is_told_of_each() {
        for command in Args::command().get_subcommands() {
            let line = format!("\n  {:<12} ", command.get_name());
            assert!(TEMPLATE.contains(&line), "the template lacks '{}'", command.get_name());
        }
    }

    #[test]
    fn the_name_of_the_program_is_the_one_it_is_called_by() {
        let called = |path: &str| program(Some(&path.into()));
        assert_eq!((called("/usr/bin/kes"), called("claviger"), called("x")), ("kes", "claviger", "claviger"));
        assert_eq!(called("./minkms"), "minkms");
    }
}
