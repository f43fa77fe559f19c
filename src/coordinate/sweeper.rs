//! Letting go of old data: each kind has its own time, counted from the end of the batch.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::model::id::BatchId;
use crate::model::time::Timestamp;
use crate::ports::journal::Stream;
use crate::ports::retention::Kind;
use crate::ports::{StoreError, Stores, World};
use crate::runtime::job::Job;

/// How long each kind of data is kept after its batch has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Numbers and texts.
    pub texts: Duration,
    /// What happened to each recipient.
    pub history: Duration,
    /// The batch itself.
    pub batch: Duration,
    /// Message ids, from the day they were written: longer than any receipt is waited for.
    pub index: Duration,
    /// Messages of people, from the day they came in.
    pub inbox: Duration,
    /// Openings of short links, from the day they came in.
    pub clicks: Duration,
}

/// How often old data is looked for.
const EVERY: Duration = Duration::from_secs(60);

/// How often old entries of journals are looked for: every scope of them is looked at.
const JOURNALS_EVERY: Duration = Duration::from_secs(3_600);

/// The job that sweeps.
pub struct Sweeper {
    stores: Stores,
    world: World,
    keep: Keep,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: Option<Timestamp>,
    journals: Option<Timestamp>,
    dropped: BTreeSet<(BatchId, Kind)>,
}

impl Sweeper {
    /// Sweeps by these times.
    pub fn new(stores: Stores, world: World, keep: Keep) -> Sweeper {
        Sweeper { stores, world, keep, state: Mutex::default() }
    }

    async fn sweep(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut behind = None;
        loop {
            let (batches, next) = self.stores.batch_index.list(behind, 100).await?;
            for listed in batches {
                let ended = listed.row.step().ended.filter(|_| listed.row.is_over());
                let Some(ended) = ended else { continue };
                let age = now.since(ended);
                for (kind, keep) in
                    [(Kind::Texts, self.keep.texts), (Kind::History, self.keep.history), (Kind::Batch, self.keep.batch)]
                {
                    let known = |state: &State| state.dropped.contains(&(listed.batch, kind));
                    if age < keep || known(&self.state.lock().unwrap_or_else(PoisonError::into_inner)) {
                        continue;
                    }
                    self.stores.retention.drop_batch(listed.batch, kind).await?;
                    tracing::info!(batch = %listed.batch, ?kind, "old data was let go");
                    self.state.lock().unwrap_or_else(PoisonError::into_inner).dropped.insert((listed.batch, kind));
                }
            }
            match next {
                Some(next) => behind = Some(next),
                None => break,
            }
        }
        self.stores.retention.drop_index_before(now.minus(self.keep.index)).await?;
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.journals.is_some_and(|last| now.since(last) < JOURNALS_EVERY) {
                return Ok(());
            }
            state.journals = Some(now);
        }
        for (stream, keep) in [(Stream::Inbox, self.keep.inbox), (Stream::Click, self.keep.clicks)] {
            self.stores.journal.drop_before(stream, now.minus(keep)).await?;
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Job for Sweeper {
    fn name(&self) -> &'static str {
        "sweeper"
    }

    async fn run_once(&self) -> Result<bool, StoreError> {
        let now = self.world.clock.now();
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.last.is_some_and(|last| now.since(last) < EVERY) {
                return Ok(false);
            }
            state.last = Some(now);
        }
        self.sweep(now).await?;
        Ok(false)
    }
}
