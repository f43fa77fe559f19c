//! From a code to where it leads.
//!
//! Almost nothing is read from the store for it: blocks never change and are remembered, batches are remembered for some
//! seconds, and a code that cannot be (its number lies above everything handed out so far) is answered from memory alone. Of
//! 2.2 × 10^14 codes a guess meets one that was handed out as rarely as there are few of them, so a flood of guesses costs
//! nothing but its answers.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::OnceCell;

use super::clicks::{ClickLog, Opening, source_of};
use super::target::target;
use crate::model::click::{Click, Kind, RequestFacts, judge};
use crate::model::id::BatchId;
use crate::model::time::Timestamp;
use crate::ports::links::LinkBlock;
use crate::ports::{StoreError, Stores, World};
use crate::runtime::metrics;
use crate::runtime::short_code::{CODE_LEN, Permutation};

/// Blocks remembered at most.
const BLOCKS_MAX: usize = 8_192;
/// Batches remembered at most.
const BATCHES_MAX: usize = 1_024;
/// A batch is read again after this long.
const BATCH_FRESH: Duration = Duration::from_secs(5);
/// The end of the numbers handed out is read again after this long, when a number above it is asked for.
const END_FRESH: Duration = Duration::from_secs(1);

/// Where links lead, beside what their batches say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// How long after its batch's creation a link leads to its page.
    pub expire: Duration,
    /// Where unknown and expired links lead.
    pub fallback: Option<String>,
    /// Parameters of all batches.
    pub parameters: Vec<(String, String)>,
    /// The header in which a proxy says the visitor's address.
    pub address_header: Option<String>,
}

/// Who opens a link.
#[derive(Clone, Copy, Debug, Default)]
pub struct Visit<'a> {
    /// What the request says of itself.
    pub facts: RequestFacts<'a>,
    /// The visitor's address; empty when it is not known. Used for a digest and for nothing else.
    pub address: &'a str,
}

/// Where an opened link leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// To its page.
    Redirect {
        /// The long link with its parameters.
        to: Arc<str>,
    },
    /// Nowhere of its own, but there is a page for that.
    Fallback {
        /// That page.
        to: Arc<str>,
    },
    /// There is no such link.
    Unknown,
    /// There was one.
    Expired,
}

struct Page {
    to: Option<Arc<str>>,
    expires: Timestamp,
}

/// A batch as it was read, and when.
type Remembered = (Duration, Option<Arc<Page>>);

/// A reading of the end: one that fails, or whose visitor hangs up meanwhile, was none.
struct Reading<'a> {
    of: &'a Mutex<Option<Duration>>,
    done: bool,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if !self.done {
            *self.of.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

/// Finds where codes lead.
pub struct Redirector {
    stores: Stores,
    world: World,
    settings: Settings,
    fallback: Option<Arc<str>>,
    clicks: ClickLog,
    key: OnceCell<([u8; 16], Permutation)>,
    end: AtomicU64,
    /// There once `end` was read.
    end_known: OnceCell<()>,
    end_read: Mutex<Option<Duration>>,
    blocks: RwLock<BTreeMap<u64, LinkBlock>>,
    batches: RwLock<HashMap<BatchId, Remembered>>,
}

impl Redirector {
    /// Reads nothing yet. Openings go to `clicks`.
    pub fn new(stores: Stores, world: World, settings: Settings, clicks: ClickLog) -> Redirector {
        Redirector {
            fallback: settings.fallback.as_deref().map(Arc::from),
            stores,
            world,
            settings,
            clicks,
            key: OnceCell::new(),
            end: AtomicU64::new(0),
            end_known: OnceCell::new(),
            end_read: Mutex::default(),
            blocks: RwLock::default(),
            batches: RwLock::default(),
        }
    }

    /// The header in which a proxy says the visitor's address.
    pub fn address_header(&self) -> Option<&str> {
        self.settings.address_header.as_deref()
    }

    /// Whether a text has the form of a code.
    pub fn is_code(text: &str) -> bool {
        text.len() == CODE_LEN && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
    }

    /// Where a code leads. An opening that leads to its page is handed to be kept; nobody waits for that.
    pub async fn resolve(&self, code: &str, visit: &Visit<'_>) -> Result<Opened, StoreError> {
        let found = self.find(code).await;
        let (opened, result) = match found {
            Ok(Some((link, batch, page))) => match &page.to {
                Some(to) if self.world.clock.now() < page.expires => {
                    self.keep(link, batch, visit);
                    (Ok(Opened::Redirect { to: to.clone() }), "redirect")
                }
                Some(_) => (Ok(self.instead_of(Opened::Expired)), "expired"),
                None => (Ok(self.instead_of(Opened::Unknown)), "unknown"),
            },
            Ok(None) => (Ok(self.instead_of(Opened::Unknown)), "unknown"),
            Err(error) => (Err(error), "unavailable"),
        };
        metrics::count(&metrics::LINKS_REQUESTS, &[result], 1);
        opened
    }

    fn instead_of(&self, nothing: Opened) -> Opened {
        self.fallback.clone().map_or(nothing, |to| Opened::Fallback { to })
    }

    async fn find(&self, code: &str) -> Result<Option<(u64, BatchId, Arc<Page>)>, StoreError> {
        if !Redirector::is_code(code) {
            return Ok(None);
        }
        let (_, permutation) = self.key().await?;
        let Some(link) = permutation.number_of(code) else { return Ok(None) };
        if !self.was_handed_out(link).await? {
            return Ok(None);
        }
        let Some(batch) = self.batch_of(link).await? else { return Ok(None) };
        Ok(self.page(batch).await?.map(|page| (link, batch, page)))
    }

    async fn key(&self) -> Result<&([u8; 16], Permutation), StoreError> {
        let read = || async {
            let key = self.stores.links.key().await?;
            Ok((key, Permutation::new(&key)))
        };
        self.key.get_or_try_init(read).await
    }

    /// Whether a number lies below the end of what was handed out, which is read at most once a second.
    async fn was_handed_out(&self, link: u64) -> Result<bool, StoreError> {
        // Before it was read once nobody knows of any link, also of those that handsets have had for weeks: all wait for it.
        self.end_known.get_or_try_init(|| self.read_end()).await?;
        if link < self.end.load(Ordering::Acquire) {
            return Ok(true);
        }
        let now = self.world.clock.boot();
        {
            let mut read = self.end_read.lock().unwrap_or_else(PoisonError::into_inner);
            if read.is_some_and(|read| now.saturating_sub(read) < END_FRESH) {
                return Ok(false);
            }
            // Whoever comes while it is read again is answered by what was known: a new code is seconds away from a handset.
            *read = Some(now);
        }
        self.read_end().await?;
        Ok(link < self.end.load(Ordering::Acquire))
    }

    async fn read_end(&self) -> Result<(), StoreError> {
        *self.end_read.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.world.clock.boot());
        let mut reading = Reading { of: &self.end_read, done: false };
        self.end.fetch_max(self.stores.links.end().await?, Ordering::AcqRel);
        reading.done = true;
        Ok(())
    }

    async fn batch_of(&self, link: u64) -> Result<Option<BatchId>, StoreError> {
        {
            let blocks = self.blocks.read().unwrap_or_else(PoisonError::into_inner);
            let block = blocks.range(..=link).next_back().map(|(_, block)| block);
            if let Some(block) = block.filter(|block| link - block.first < block.len) {
                return Ok(Some(block.batch));
            }
        }
        let Some(block) = self.stores.links.block_of(link).await? else { return Ok(None) };
        let batch = block.batch;
        let mut blocks = self.blocks.write().unwrap_or_else(PoisonError::into_inner);
        if blocks.len() >= BLOCKS_MAX {
            // Everything at once: it comes back with one read each, and this is rare.
            blocks.clear();
        }
        blocks.insert(block.first, block);
        Ok(Some(batch))
    }

    async fn page(&self, batch: BatchId) -> Result<Option<Arc<Page>>, StoreError> {
        let now = self.world.clock.boot();
        {
            let batches = self.batches.read().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, page)) = batches.get(&batch).filter(|(read, _)| now.saturating_sub(*read) < BATCH_FRESH) {
                return Ok(page.clone());
            }
        }
        // Asked once: a visitor is told to come again rather than kept waiting.
        let row = self.stores.batches.load(batch).await?;
        let page = row.map(|stored| {
            let row = stored.row;
            let to = if row.batch.contains_url() { target(&row.batch, &self.settings.parameters) } else { None };
            Arc::new(Page { to: to.map(Arc::from), expires: row.created.plus(self.settings.expire) })
        });
        let mut batches = self.batches.write().unwrap_or_else(PoisonError::into_inner);
        if batches.len() >= BATCHES_MAX && !batches.contains_key(&batch) {
            batches.clear();
        }
        batches.insert(batch, (now, page.clone()));
        Ok(page)
    }

    fn keep(&self, link: u64, batch: BatchId, visit: &Visit<'_>) {
        let at = self.world.clock.now();
        let (why, agent) = judge(&visit.facts);
        let key = self.key.get().map(|(key, _)| *key).unwrap_or_default();
        let source = source_of(&key, at, visit);
        let kind = if why.is_some() { Kind::Machine } else { Kind::Person };
        self.clicks.keep(Opening { batch, link, at, click: Click { kind, why, agent, source } });
    }
}
