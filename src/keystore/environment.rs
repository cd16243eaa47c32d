//! What clouds give their programs to log in with: environment variables, and files that those name. No other file of
//! `keystore` reads variables.

use std::path::PathBuf;

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::Error;

/// The value of a variable, unless it is unset or empty. Tests bring variables of their own.
pub type Variables<'a> = &'a (dyn Fn(&str) -> Option<String> + Sync);

/// A variable of this process.
#[expect(clippy::disallowed_methods, reason = "this is the keeper of what clouds put into the environment")]
pub fn of_process(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The variables that name the region of AWS, in the order in which its own programs look.
const REGION: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];

/// The region of AWS: the one in the config file, or that of the environment.
pub(super) fn region(written: Option<String>, variables: Variables<'_>) -> Result<String, &'static str> {
    let written = written.filter(|region| !region.is_empty());
    let region = written.or_else(|| REGION.into_iter().find_map(variables));
    region.ok_or("has no region; write 'region', or set the environment variable AWS_REGION")
}

/// The text of a file that holds credentials. It is read at every login, because its owner renews it.
pub(super) async fn read(path: PathBuf) -> Result<SecretString, Error> {
    let read = tokio::task::spawn_blocking(move || {
        let text = std::fs::read_to_string(&path).map(Zeroizing::new);
        text.map(|text| SecretString::from(text.trim()))
            .map_err(|error| Error::Failed(format!("failed to read '{}': {error}", path.display()).into()))
    });
    read.await.unwrap_or_else(|error| Err(Error::Failed(error.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_of_the_config_comes_before_those_of_the_environment() {
        let both = |name: &str| REGION.contains(&name).then(|| name.to_lowercase());
        let older = |name: &str| both(name).filter(|_| name == REGION[1]);
        let written = || Some("eu-central-1".to_owned());
        assert_eq!(region(written(), &both).as_deref(), Ok("eu-central-1"));
        assert_eq!(region(None, &both).as_deref(), Ok("aws_region"));
        assert_eq!(region(Some(String::new()), &older).as_deref(), Ok("aws_default_region"));
        assert!(region(None, &|_| None).expect_err("no region").contains("AWS_REGION"));
    }
}
