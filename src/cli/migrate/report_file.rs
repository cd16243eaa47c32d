//! The file that `--report` names.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use serde::Serialize;

use crate::crypto::random;
use crate::keystore;

/// A report that appears under its name when it is complete. The file is made before the run, so that a path that
/// cannot be written is an error before the first key is written.
pub(in crate::cli) struct ReportFile {
    path: PathBuf,
    partial: Partial,
    file: File,
}

/// The temporary name of the file. It is removed unless the file is renamed.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl ReportFile {
    /// Creates the file. It must not lie in a directory of keys: `stores` are the identities of all stores of the run.
    pub(in crate::cli) async fn create(path: PathBuf, stores: &[Option<&str>]) -> anyhow::Result<Self> {
        let name = path.file_name().with_context(|| format!("the report '{}' is no file", path.display()))?;
        let mut mark = [0; 4];
        random::fill(&mut mark)?;
        let mut partial = name.to_owned();
        partial.push(format!(".{:08x}.partial", u32::from_le_bytes(mark)));
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(".".as_ref());
        let cannot = || format!("the report '{}' cannot be written", path.display());
        let place = keystore::Config::Fs(keystore::fs::Config { path: directory.into() });
        let place = place.open().await.with_context(cannot)?;
        let place = place.with_context(|| format!("there is no directory for the report '{}'", path.display()))?;
        if stores.contains(&Some(place.about().identity.await?.as_str())) {
            bail!("the report '{}' would lie among the keys; choose another directory", path.display());
        }
        let partial = directory.join(partial);
        // `create_new`: never write to something that somebody else has put there, such as a link.
        let file = File::create_new(&partial).with_context(cannot)?;
        Ok(Self { path, partial: Partial(partial), file })
    }

    /// Writes the report and gives it its name. A link of that name is replaced, not followed.
    pub(in crate::cli) fn write(self, report: &impl Serialize) -> anyhow::Result<()> {
        let mut out = BufWriter::new(self.file);
        serde_json::to_writer_pretty(&mut out, report)?;
        out.write_all(b"\n")?;
        out.into_inner()?.sync_all()?;
        std::fs::rename(&self.partial.0, &self.path)?;
        Ok(())
    }
}
