//! A store that is open, whether or not a fleet runs over it: a folder, or a cluster.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::cluster::mark::LateMark;
use super::config::Config;
use super::sources::Lists;
use crate::adapters::embedded::{EmbeddedStore, StoreOptions};
use crate::adapters::scylla::{CqlOptions, CqlStore};
use crate::adapters::source::{SpoolCopies, UploadCopies};
use crate::adapters::system::{SeededChance, SystemClock};
use crate::adapters::webhook::HttpCaller;
use crate::coordinate::members;
use crate::model::account::Account;
use crate::model::code::{Code, Fault};
use crate::ports::meta::Outside;
use crate::ports::{Stores, World};
use crate::privacy::Eraser;
use crate::webhooks::Webhooks;

/// A store that is open.
pub struct Opened {
    /// Its ports.
    pub stores: Stores,
    /// Time and chance.
    pub world: World,
    spool: PathBuf,
    folder: Option<Arc<EmbeddedStore>>,
}

/// Time and chance of this machine.
pub fn world() -> World {
    World { clock: Arc::new(SystemClock), chance: Arc::new(SeededChance::from_system()) }
}

/// Where a process of a cluster keeps copies of lists while it reads them.
pub fn spool(config: &Config) -> PathBuf {
    config.data_dir.join("spool")
}

impl Opened {
    /// Opens what the configuration names: the cluster where `scylla.nodes` is set, else the folder.
    ///
    /// # Errors
    /// As for [`Opened::folder`], or what a server of the cluster says.
    pub async fn open(config: &Config) -> Result<Opened, Fault> {
        if config.is_cluster() {
            return Opened::cluster(config).await;
        }
        Opened::folder(config).await.map(|(opened, _)| opened)
    }

    /// Opens the folder of a configuration, creating it if there is none.
    ///
    /// # Errors
    /// [`Code::FolderInUse`], [`Code::StoreFormat`], or what the disk says.
    pub async fn folder(config: &Config) -> Result<(Opened, Arc<EmbeddedStore>), Fault> {
        let world = world();
        let options = StoreOptions {
            cache_bytes: (config.limits.store_cache_mb as usize) << 20,
            chance: world.chance.clone(),
            ..StoreOptions::default()
        };
        let store = Arc::new(EmbeddedStore::open(&config.data_dir, options).await?);
        let opened = Opened { stores: store.stores(), world, spool: store.spool(), folder: Some(store.clone()) };
        Ok((opened, store))
    }

    /// Connects to the store of a cluster. The mark beside it is looked for only when it is needed.
    ///
    /// # Errors
    /// What the server says.
    async fn cluster(config: &Config) -> Result<Opened, Fault> {
        let world = world();
        let outside = Arc::new(LateMark::new(&config.kafka, &config.scylla.keyspace));
        let store = store(config, &world, outside).await?;
        Ok(Opened { stores: store.stores(), world, spool: spool(config), folder: None })
    }

    /// Where copies of lists are kept.
    pub fn spool(&self) -> PathBuf {
        self.spool.clone()
    }

    /// The webhooks of the store.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn webhooks(&self, config: &Config) -> Result<Arc<Webhooks>, Fault> {
        let caller = Arc::new(HttpCaller::new(config.webhooks.clone())?);
        Ok(Webhooks::new(self.stores.clone(), self.world.clone(), caller))
    }

    /// What erases numbers from the store, and from the lists that were handed in.
    pub fn eraser(&self, lists: &Lists, accounts: BTreeMap<String, Account>) -> Eraser {
        eraser(&self.stores, &self.world, self.spool(), lists, accounts).in_fleet(self.is_cluster())
    }

    /// Refuses a store that is older than what this fleet has already done (rule 9).
    ///
    /// # Errors
    /// [`Code::StoreStale`].
    pub async fn check_mark(&self) -> Result<(), Fault> {
        check_mark(&self.stores).await
    }

    /// Refuses while processes of a fleet run over this store. A folder's lock has seen to that already.
    ///
    /// # Errors
    /// [`Code::FolderInUse`], naming them.
    pub async fn check_idle(&self) -> Result<(), Fault> {
        let now = self.world.clock.now();
        let alive = members::all(&self.stores).await?.into_iter().filter(|sheet| sheet.is_alive(now));
        let names: Vec<String> = alive.map(|sheet| format!("{} on {} (process {})", sheet.role, sheet.host, sheet.pid)).collect();
        if names.is_empty() {
            return Ok(());
        }
        Err(Fault::new(Code::FolderInUse, format!("a fleet runs over this store: end {} first", names.join(", "))))
    }

    /// Whether it is a cluster's.
    pub fn is_cluster(&self) -> bool {
        self.folder.is_none()
    }

    /// Closes it.
    pub fn close(&self) {
        if let Some(store) = &self.folder {
            store.close();
        }
    }
}

/// What erases numbers from a store, and from copies of lists.
pub fn eraser(stores: &Stores, world: &World, spool: PathBuf, lists: &Lists, accounts: BTreeMap<String, Account>) -> Eraser {
    let uploads = Arc::new(UploadCopies::new(lists.uploads.clone(), world.clock.clone()));
    Eraser::new(stores.clone(), world.clone(), vec![Arc::new(SpoolCopies::new(spool)), uploads], Arc::new(accounts))
}

/// Refuses a store that is older than the mark beside it.
///
/// # Errors
/// [`Code::StoreStale`], or what the store says.
pub async fn check_mark(stores: &Stores) -> Result<(), Fault> {
    match stores.meta.check_mark().await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(differs)) => Err(Fault::new(Code::StoreStale, differs)),
        Err(error) => Err(error.into()),
    }
}

/// Connects to the store of a cluster, once.
///
/// # Errors
/// What the server says.
pub async fn store(config: &Config, world: &World, outside: Arc<dyn Outside>) -> Result<Arc<CqlStore>, Fault> {
    let keep = Duration::from_secs(u64::from(config.retention.index_days) * 86_400);
    CqlStore::connect(&config.scylla, CqlOptions::new(keep, world.chance.clone(), outside)).await
}

/// Whether there is anything to open: reading commands do not create a folder.
pub fn exists(config: &Config) -> bool {
    config.is_cluster() || folder_exists(&config.data_dir)
}

fn folder_exists(folder: &Path) -> bool {
    folder.join("smsfleet.redb").exists()
}
