//! Options of `server` that older versions of KES had. Unit files, compose files and the MinIO operator still give
//! them, so each is accepted with one warning.

use clap::ArgAction;

/// What is accepted for compatibility.
#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    #[arg(long, hide = true, value_name = "on|off")]
    auth: Option<String>,
    #[arg(long, hide = true, value_name = "FILE")]
    key: Option<String>,
    #[arg(long, hide = true, value_name = "FILE")]
    cert: Option<String>,
    #[arg(long, hide = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", value_name = "BOOL")]
    mlock: bool,
    /// Leaves out the start message.
    #[arg(short, long, hide = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", value_name = "BOOL")]
    pub(super) quiet: bool,
}

impl Flags {
    /// Logs one warning for each option that was given.
    pub(super) fn warn(&self) {
        for warning in self.warnings() {
            tracing::warn!("{warning}");
        }
    }

    fn warnings(&self) -> Vec<&'static str> {
        let auth = self.auth.as_deref().map(|value| value.trim_start_matches('='));
        let auth = match auth {
            // Who passes a variable that is empty asks for nothing.
            None | Some("") => None,
            Some(value) if value.eq_ignore_ascii_case("on") => Some(
                "'--auth' is ignored: client certificates are not verified unless the config file says 'tls.auth: on'",
            ),
            Some(_) => Some("'--auth' is ignored: tls.auth in the config file decides"),
        };
        let given = [
            auth,
            self.key.as_ref().map(|_| "'--key' is ignored: tls.key in the config file names the private key"),
            self.cert.as_ref().map(|_| "'--cert' is ignored: tls.cert in the config file names the certificate"),
            self.mlock.then_some("'--mlock' has no effect: memory is always locked where that is allowed"),
            self.quiet.then_some("'--quiet' is an option of older versions: it leaves out the start message"),
        ];
        given.into_iter().flatten().collect()
    }
}
