//! Lending bind slots: the leader's part of [`crate::model::slot`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::members;
use crate::model::id::WorkerId;
use crate::model::slot::Slots;
use crate::ports::control::Cas;
use crate::ports::documents::Shelf;
use crate::ports::{StoreError, Stores, World};
use crate::runtime::document;
use crate::runtime::job::{Every, Job};
use crate::runtime::metrics;

/// How often slots are lent.
const EVERY: Duration = Duration::from_secs(1);

/// The slots of an account, and the text they were read as.
///
/// # Errors
/// What the store says, or [`StoreError::Corrupt`].
pub async fn read(stores: &Stores, account: &str) -> Result<(Slots, Option<String>), StoreError> {
    let Some(text) = stores.documents.get(Shelf::Slots, account).await? else { return Ok((Slots::default(), None)) };
    let slots = document::read("slots of an account", &text)?;
    Ok((slots, Some(text)))
}

/// The job that lends slots of the accounts that allow only a few.
pub struct BindSlots {
    stores: Stores,
    world: World,
    /// How many workers may hold sessions, by account.
    limits: BTreeMap<String, u32>,
    lends: Every,
}

impl BindSlots {
    /// Lends the slots of these accounts.
    pub fn new(stores: Stores, world: World, limits: BTreeMap<String, u32>) -> BindSlots {
        BindSlots { stores, world, limits, lends: Every::new(EVERY) }
    }

    async fn lend(&self, account: &str, limit: u32, wanting: &BTreeSet<WorkerId>) -> Result<(), StoreError> {
        let (slots, was) = read(&self.stores, account).await?;
        let next = slots.next(limit as usize, wanting, self.world.clock.now());
        metrics::set(&metrics::PROVIDER_BIND_SLOTS, &[account, "allowed"], f64::from(limit));
        metrics::set(&metrics::PROVIDER_BIND_SLOTS, &[account, "lent"], next.lent.len() as f64);
        if next == slots {
            return Ok(());
        }
        let body = serde_json::to_string(&next).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let documents = &self.stores.documents;
        let changed = match was {
            Some(was) => documents.replace(Shelf::Slots, account, &was, &body).await,
            None => documents.insert(Shelf::Slots, account, &body).await,
        };
        match changed {
            // Refused: another leader lends as well. Unknown: the next round reads what came of it.
            Ok(Cas::Applied | Cas::Refused) | Err(StoreError::Unknown(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[async_trait::async_trait]
impl Job for BindSlots {
    fn name(&self) -> &'static str {
        "bind_slots"
    }

    async fn run_once(&self) -> Result<bool, StoreError> {
        if self.limits.is_empty() || !self.lends.is_due(&*self.world.clock) {
            return Ok(false);
        }
        let now = self.world.clock.now();
        let sheets = members::all(&self.stores).await?;
        for (account, limit) in &self.limits {
            let wants = |sheet: &&crate::model::fleet::Sheet| sheet.is_alive(now) && sheet.wanted.contains(account);
            let wanting = sheets.iter().filter(wants).map(|sheet| sheet.worker).collect();
            self.lend(account, *limit, &wanting).await?;
        }
        Ok(false)
    }
}
