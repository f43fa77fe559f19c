//! Changes of batches: copied from their rows into the outbox, each once, in order, by the leader.
//!
//! Followed are all active batches, all that were created lately, and all that were followed before and have not ended: a
//! batch that ends between two rounds, or while nobody leads, is told to its end. How far a batch was told is a document of
//! its own: `live/BATCH` while it is followed, `told/BATCH` once it is over, for the case that it goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::outbox::{Telling, Webhooks};
use crate::model::batch::BatchRow;
use crate::model::id::BatchId;
use crate::model::step::CurrentStep;
use crate::model::time::Timestamp;
use crate::model::webhook::EventKind;
use crate::ports::StoreError;
use crate::ports::documents::Shelf;
use crate::runtime::document;
use crate::runtime::job::{Job, Unreadable};

/// How often rows are looked at.
const EVERY: Duration = Duration::from_millis(250);
/// How often batches are looked for that nobody saw while they were active.
const SEARCH_EVERY: Duration = Duration::from_secs(5);
/// Clocks differ, and a row may take long to be written: so far back is searched again.
const SLACK: Duration = Duration::from_secs(600);
/// The document that says how far creations were searched.
const SEARCHED: &str = "searched";

/// How far a batch was told.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Told {
    /// When, and where its last change stands among its events.
    stored: Timestamp,
    number: u64,
}

impl Told {
    /// Where its next change stands: now, and behind its last one, also when the clock of who led before was ahead. Nothing is
    /// put further ahead than clocks differ: what others write down would stand before it.
    fn next(self, now: Timestamp) -> Timestamp {
        if self.stored <= now.plus(SLACK) { now.max(self.stored) } else { now }
    }
}

/// The job that follows batches for the webhooks.
pub struct Changes {
    webhooks: Arc<Webhooks>,
    state: Mutex<State>,
    unreadable: Unreadable,
}

#[derive(Default)]
struct State {
    last: Option<Duration>,
    searched: Option<Duration>,
    /// Followed batches and what was told of them.
    live: BTreeMap<BatchId, Told>,
    /// Batches that were over when they were last looked at.
    over: BTreeSet<BatchId>,
    loaded: bool,
}

impl Changes {
    /// Follows batches for these webhooks.
    pub fn new(webhooks: Arc<Webhooks>) -> Changes {
        Changes { webhooks, state: Mutex::default(), unreadable: Unreadable::default() }
    }

    async fn round(&self, search: bool) -> Result<bool, StoreError> {
        let stores = &self.webhooks.stores;
        if !self.lock().loaded {
            let mut behind: Option<String> = None;
            loop {
                let page = stores.documents.list(Shelf::WebhookStream, "live/", behind.as_deref(), 1_000).await?;
                let Some(last) = page.last() else { break };
                behind = Some(last.name.clone());
                let mut state = self.lock();
                for document in &page {
                    let batch = document.name.strip_prefix("live/").and_then(|batch| batch.parse().ok());
                    state.live.extend(batch.map(|batch| (batch, read(&document.body))));
                }
            }
            self.lock().loaded = true;
        }
        let mut batches: BTreeSet<BatchId> = self.lock().live.keys().copied().collect();
        batches.extend(stores.batch_index.active().await?);
        if search {
            self.search().await?;
        }
        let mut changed = false;
        for batch in batches {
            changed |= self.unreadable.pass_over(self.name(), batch, self.follow(batch).await)?.unwrap_or(false);
        }
        Ok(changed)
    }

    /// Follows batches created since the last search that were not followed to their end.
    async fn search(&self) -> Result<(), StoreError> {
        let stores = &self.webhooks.stores;
        let now = self.webhooks.world.clock.now();
        let since = match stores.documents.get(Shelf::WebhookStream, SEARCHED).await? {
            // A search that lies ahead would find nothing until then.
            Some(body) => read(&body).stored.min(now).minus(SLACK),
            // Before there was a webhook, nothing was to be told.
            None => self.webhooks.current().await?.iter().map(|webhook| webhook.created).min().unwrap_or(now).minus(SLACK),
        };
        let (mut found, mut behind) = (Vec::new(), None);
        'pages: loop {
            let (page, next) = stores.batch_index.list(behind, 100).await?;
            for listed in page {
                if listed.row.created < since {
                    break 'pages;
                }
                if !self.lock().over.contains(&listed.batch) {
                    found.push(listed.batch);
                }
            }
            match next {
                Some(next) => behind = Some(next),
                None => break,
            }
        }
        for batch in &found {
            self.unreadable.pass_over(self.name(), *batch, self.follow(*batch).await)?;
        }
        put(stores, SEARCHED, Told { stored: now, number: 0 }).await
    }

    /// Tells what is new of a batch. Answers whether anything was.
    async fn follow(&self, batch: BatchId) -> Result<bool, StoreError> {
        let stores = &self.webhooks.stores;
        let (live, told) = (format!("live/{batch}"), format!("told/{batch}"));
        let Some(row) = stores.batches.load(batch).await?.map(|stored| stored.row) else {
            stores.documents.delete(Shelf::WebhookStream, &live).await?;
            stores.documents.delete(Shelf::WebhookStream, &told).await?;
            self.lock().live.remove(&batch);
            return Ok(false);
        };
        let known = self.lock().live.get(&batch).copied();
        let before = match known {
            Some(before) => before,
            None => stores.documents.get(Shelf::WebhookStream, &told).await?.map_or_else(Told::default, |body| read(&body)),
        };
        let newest = row.changes.last().map_or(0, |change| change.number);
        // What lies ahead of the row was never told: as good as a place that cannot be read.
        let number = if before.number > newest { 0 } else { before.number };
        let placed = before.next(self.webhooks.world.clock.now());
        if newest > number {
            if row.changes.first().is_some_and(|first| first.number > number + 1) && number > 0 {
                tracing::error!(%batch, "changes of a batch were not told in time: some are lost to the webhooks");
            }
            self.webhooks.tell(&tellings(&row, number, placed)).await?;
        }
        let now = Told { stored: placed, number: newest };
        if row.is_over() {
            if newest > number || known.is_some() {
                // Written down as told before it is no longer followed.
                put(stores, &told, now).await?;
                stores.documents.delete(Shelf::WebhookStream, &live).await?;
            }
            let mut state = self.lock();
            state.live.remove(&batch);
            state.over.insert(batch);
        } else {
            if newest > number || known.is_none() {
                put(stores, &live, now).await?;
            }
            let mut state = self.lock();
            state.live.insert(batch, now);
            state.over.remove(&batch);
        }
        Ok(newest > number)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The changes behind a number. An instant never goes back, so that clocks cannot change their order.
fn tellings(row: &BatchRow, behind: u64, placed: Timestamp) -> Vec<Telling> {
    let mut at = Timestamp(i64::MIN);
    let changes = row.changes.iter().map(|change| {
        at = at.max(change.at);
        let step = match change.step {
            CurrentStep::Preparation => "PREPARATION",
            CurrentStep::Delivery => "DELIVERY",
        };
        let batch = row.batch.batch_id;
        Telling {
            tenant: row.batch.tenant.clone(),
            batch: Some(batch),
            kind: EventKind::Batch,
            at,
            placed,
            facts: vec![batch.0.to_be_bytes().to_vec(), change.number.to_be_bytes().to_vec()],
            order: Some(change.number),
            event: json!({
                "batch_id": batch,
                "number": change.number,
                "step": step,
                "state": change.state.name(),
                "code": change.reason.as_ref().map(|(code, _)| code.as_str()),
                "reason": change.reason.as_ref().map(|(_, text)| text),
            }),
        }
    });
    let all: Vec<(u64, Telling)> = row.changes.iter().map(|change| change.number).zip(changes).collect();
    all.into_iter().filter(|(number, _)| *number > behind).map(|(_, telling)| telling).collect()
}

/// How far was told. A damaged document lets all that a batch's row remembers be told again, or all batches be searched: twice
/// is better than never, and whoever is told knows an event again by its id.
fn read(body: &str) -> Told {
    document::read("how far was told", body).unwrap_or_else(|error| {
        tracing::warn!(code = %error.code(), "it is not known how far the webhooks were told: they are told again");
        Told::default()
    })
}

async fn put(stores: &crate::ports::Stores, name: &str, told: Told) -> Result<(), StoreError> {
    let body = serde_json::to_string(&told).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    stores.documents.put(Shelf::WebhookStream, name, &body).await
}

#[async_trait::async_trait]
impl Job for Changes {
    fn name(&self) -> &'static str {
        "webhook changes"
    }

    async fn run_once(&self) -> Result<bool, StoreError> {
        let now = self.webhooks.world.clock.boot();
        let search = {
            let mut state = self.lock();
            if state.last.is_some_and(|last| now.saturating_sub(last) < EVERY) {
                return Ok(false);
            }
            state.last = Some(now);
            let search = state.searched.is_none_or(|last| now.saturating_sub(last) >= SEARCH_EVERY);
            if search {
                state.searched = Some(now);
            }
            search
        };
        if !self.webhooks.wanted(EventKind::Batch).await? {
            return Ok(false);
        }
        self.round(search).await?;
        // The leader's next round may come in its own time: nothing of its own changed.
        Ok(false)
    }

    fn new_term(&self) {
        *self.lock() = State::default();
    }
}
