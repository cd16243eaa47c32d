//! Where the data of a key manager is, and whether other servers share it.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use tokio::runtime::Handle;

use crate::cli::prompt::Consent;
use crate::config::kms::Config;
use crate::kms::etcd::{Cluster, Etcd};
use crate::kms::seal::Providers;
use crate::kms::store::{Lazy, Mem, Note, Redb, Store};
use crate::kms::{Admin, Joining, Keeper, PrepareToJoin};

/// Where the data is, and where clients reach the server.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// None: in memory.
    pub(super) directory: Option<PathBuf>,
    /// As `host:port`.
    pub(super) host: String,
}

impl Place {
    /// Opens the data. There may be much of it, and those who seal may be slow, so a thread of its own does it.
    pub(super) async fn open(&self, config: &Config, providers: Providers, admin: Admin) -> anyhow::Result<Keeper> {
        let joining = match &config.cluster {
            Some(cluster) => Some(self.joining(cluster).await.with_context(|| config.cluster_place().to_string())?),
            None => None,
        };
        let directory = self.directory.clone();
        let open = move || -> anyhow::Result<Keeper> {
            let store: Box<dyn Store> = match &directory {
                Some(directory) => Box::new(Redb::open(directory)?),
                None => Box::new(Mem::default()),
            };
            Ok(match joining {
                Some(joining) => Keeper::join(Box::new(Lazy::new(store)), joining, providers, admin)?,
                None => Keeper::open(store, providers, admin)?,
            })
        };
        tokio::task::spawn_blocking(open).await?
    }

    /// Opens the data of a node as that of a single server.
    pub(super) async fn open_alone(
        &self,
        consent: &Consent,
        config: &Config,
        providers: Providers,
        admin: Admin,
    ) -> anyhow::Result<Keeper> {
        if config.cluster.is_some() {
            bail!("'--alone' makes a single server of a node: remove the 'cluster' section from the config first");
        }
        let Some(directory) = self.directory.clone() else { bail!("'--alone' needs a data directory") };
        consent.insist(&format!(
            "Make a single server of '{}'? Do this on one server only, and only if the cluster is lost for ever: what the others \
             have changed since this one has heard of them is lost.",
            directory.display()
        ))?;
        let open = move || Ok(Keeper::open_alone(Box::new(Redb::open(&directory)?), providers, admin)?);
        tokio::task::spawn_blocking(open).await?
    }

    /// Reads the config again, to move everything into the cluster that it names.
    pub(super) fn moving(&self, file: PathBuf) -> PrepareToJoin {
        let place = self.clone();
        Box::new(move || {
            let (place, file) = (place.clone(), file.clone());
            Box::pin(async move {
                let (config, _) = Config::load(&file).map_err(|error| error.to_string())?;
                let Some(cluster) = &config.cluster else {
                    return Err(format!("'{}' has no 'cluster' section: add it first", file.display()));
                };
                let joining = place.joining(cluster).await;
                joining.map_err(|error| format!("{}: {error:#}", config.cluster_place()))
            })
        })
    }

    /// Connects to the cluster. When it does not answer, a server that has a copy of the data starts all the same.
    async fn joining(&self, cluster: &Cluster) -> anyhow::Result<Joining> {
        let Some(directory) = &self.directory else { bail!("a node of a cluster needs a data directory") };
        let journal = Etcd::new(&cluster.etcd)?;
        match journal.check().await {
            Ok(warnings) => warnings.iter().for_each(|warning| tracing::warn!("{warning}")),
            Err(crate::kms::etcd::Refusal::Unreachable(why)) => {
                tracing::warn!(cause = why, "the cluster does not answer yet");
            }
            Err(wrong) => return Err(wrong.into()),
        }
        let notes = Box::new(Note::new(directory));
        Ok(Joining::by_etcd(journal, notes, self.host.clone(), cluster.stale_reads, Handle::current()))
    }
}
