//! Who is in the fleet: each process writes a sheet about itself into the store every few seconds, and takes it away when it
//! ends in order. Liveness comes from here and from the ledgers, never from the lock.

use std::time::Duration;

use crate::model::fleet::{FORGOTTEN_AFTER, Sheet};
use crate::model::id::WorkerId;
use crate::ports::documents::Shelf;
use crate::ports::{StoreError, Stores, World};
use crate::runtime::job::{Every, Job};

/// Sheets read at once.
const PAGE: usize = 500;
/// How often sheets of processes that are long gone are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(300);

/// Writes a process's sheet.
///
/// # Errors
/// What the store says.
pub async fn write(stores: &Stores, sheet: &Sheet) -> Result<(), StoreError> {
    let body = serde_json::to_string(sheet).map_err(|error| StoreError::Corrupt(format!("sheet: {error}")))?;
    stores.documents.put(Shelf::Worker, &sheet.worker.to_string(), &body).await
}

/// Takes a process's sheet away: it ends.
///
/// # Errors
/// What the store says.
pub async fn leave(stores: &Stores, worker: WorkerId) -> Result<(), StoreError> {
    stores.documents.delete(Shelf::Worker, &worker.to_string()).await
}

/// All sheets, those of silent processes too, by role and then by worker.
///
/// # Errors
/// What the store says. A sheet that cannot be read is passed over: a newer version may have written it.
pub async fn all(stores: &Stores) -> Result<Vec<Sheet>, StoreError> {
    let (mut sheets, mut behind) = (Vec::new(), None::<String>);
    loop {
        let page = stores.documents.list(Shelf::Worker, "", behind.as_deref(), PAGE).await?;
        let full = page.len() == PAGE;
        behind = page.last().map(|document| document.name.clone());
        sheets.extend(page.iter().filter_map(|document| serde_json::from_str::<Sheet>(&document.body).ok()));
        if !full {
            sheets.sort_by_key(|sheet: &Sheet| (sheet.role, sheet.started, sheet.worker));
            return Ok(sheets);
        }
    }
}

/// The job that takes away sheets of processes that are long gone.
pub struct Members {
    stores: Stores,
    world: World,
    forgets: Every,
}

impl Members {
    /// Over this store.
    pub fn new(stores: Stores, world: World) -> Members {
        Members { stores, world, forgets: Every::new(FORGET_EVERY) }
    }
}

#[async_trait::async_trait]
impl Job for Members {
    fn name(&self) -> &'static str {
        "members"
    }

    async fn run_once(&self) -> Result<bool, StoreError> {
        if !self.forgets.is_due(&*self.world.clock) {
            return Ok(false);
        }
        let now = self.world.clock.now();
        for sheet in all(&self.stores).await?.iter().filter(|sheet| now.since(sheet.at) > FORGOTTEN_AFTER) {
            leave(&self.stores, sheet.worker).await?;
        }
        Ok(false)
    }
}
