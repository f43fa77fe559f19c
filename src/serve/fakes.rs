//! A surface for tests: over any stores, with lists in a folder of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::fleet::{Limits, Lists, Surface};
use crate::access::keys::Keys;
use crate::adapters::memory::store::MemoryStore;
use crate::adapters::source::FolderUploads;
use crate::adapters::system::{SeededChance, SystemClock};
use crate::adapters::webhook::{HttpCaller, WebhookConfig};
use crate::batch::SmsBatchService;
use crate::model::account::Account;
use crate::model::code::Fault;
use crate::ports::uploads::Uploads;
use crate::ports::{Stores, World};
use crate::privacy::Eraser;
use crate::roles::selection::Selection;
use crate::webhooks::Webhooks;

/// Every address may be named; uploads are kept below the system's folder for such things.
struct AnyList(PathBuf);

#[async_trait::async_trait]
impl Lists for AnyList {
    fn uploads(&self) -> Arc<dyn Uploads> {
        Arc::new(FolderUploads::new(self.0.clone(), 1 << 20))
    }

    fn check(&self, table_name: &str, _: bool) -> Result<String, Fault> {
        Ok(table_name.to_owned())
    }

    async fn in_use(&self) -> Result<BTreeSet<String>, Fault> {
        Ok(BTreeSet::new())
    }
}

/// A store in memory.
pub(crate) fn memory() -> Stores {
    MemoryStore::new(Arc::new(SeededChance::from_seed(1))).stores()
}

/// A surface without a fleet. `folder` takes the uploads.
pub(crate) fn surface(stores: Stores, accounts: BTreeMap<String, Account>, limits: Limits, folder: PathBuf) -> Surface {
    let world = World { clock: Arc::new(SystemClock), chance: Arc::new(SeededChance::from_seed(2)) };
    let eraser = Arc::new(Eraser::new(stores.clone(), world.clone(), vec![], Arc::new(accounts.clone())));
    Surface {
        service: SmsBatchService::new(
            stores.clone(),
            world.clone(),
            Arc::default(),
            Selection::new(stores.clone(), accounts.clone()),
        ),
        accounts: Arc::new(accounts),
        keys: Arc::new(Keys::new(stores.clone(), world.clone())),
        defaults: Arc::default(),
        lists: Arc::new(AnyList(folder)),
        webhooks: Webhooks::new(
            stores.clone(),
            world.clone(),
            Arc::new(HttpCaller::new(WebhookConfig::default()).expect("TLS is there")),
        ),
        eraser,
        limits,
        live: None,
        exporter: None,
        watched: Arc::default(),
        stores,
        world,
    }
}
