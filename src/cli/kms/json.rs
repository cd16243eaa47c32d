//! `--json` for commands that always write JSON.

/// So that a script can add the option to every command that has a result.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Always {
    /// Write JSON, which is the default
    #[arg(long = "json")]
    _json: bool,
}
