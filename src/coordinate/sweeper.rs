//! Letting go of old data: each kind has its own time, counted from the end of the batch, or for what belongs to none from the
//! moment it was written.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::model::id::BatchId;
use crate::model::let_go::{Going, LetGo};
use crate::model::time::Timestamp;
use crate::ports::batches::Listed;
use crate::ports::documents::Shelf;
use crate::ports::journal::Stream;
use crate::ports::retention::Kind;
use crate::ports::{StoreError, Stores, World};
use crate::runtime::control::change;
use crate::runtime::job::{Job, Unreadable};

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
    /// Who did what.
    pub audit: Duration,
    /// Messages from people.
    pub inbox: Duration,
    /// Openings of short links.
    pub clicks: Duration,
    /// Events of webhooks that were given up, and those that never could be told.
    pub dead: Duration,
    /// Answers to commands that may be asked for again.
    pub answers: Duration,
    /// Lists that were handed in, from the last time they were.
    pub uploads: Duration,
}

impl Keep {
    /// The same time for everything.
    pub fn all(time: Duration) -> Keep {
        Keep {
            texts: time,
            history: time,
            batch: time,
            index: time,
            audit: time,
            inbox: time,
            clicks: time,
            dead: time,
            answers: time,
            uploads: time,
        }
    }
}

/// How often old data is looked for.
const EVERY: Duration = Duration::from_secs(60);
/// How often journals, documents and what is kept to match receipts are looked through: that reads past what is kept.
const JOURNALS_EVERY: Duration = Duration::from_secs(3_600);
/// Documents read at once.
const DOCUMENTS_AT_ONCE: usize = 1_000;

/// The job that sweeps.
pub struct Sweeper {
    stores: Stores,
    world: World,
    keep: Keep,
    state: Mutex<State>,
    unreadable: Unreadable,
}

/// Which documents are let go.
#[derive(Clone, Copy)]
enum Old {
    /// Those stored before an instant, in milliseconds.
    StoredBefore(i64),
    /// Those of batches that are gone.
    Orphan,
}

/// When a document was stored, in milliseconds: what such documents carry.
#[derive(serde::Deserialize)]
struct Stored {
    stored: i64,
}

#[derive(Default)]
struct State {
    last: Option<Timestamp>,
    journals: Option<Timestamp>,
}

impl Sweeper {
    /// Sweeps by these times.
    pub fn new(stores: Stores, world: World, keep: Keep) -> Sweeper {
        Sweeper { stores, world, keep, state: Mutex::default(), unreadable: Unreadable::default() }
    }

    /// Lets go of journals and documents by their own time, each of them whatever becomes of the others.
    async fn sweep_journals(&self, now: Timestamp) -> Result<(), StoreError> {
        let keep = &self.keep;
        let journals = [
            (Stream::Audit, keep.audit),
            (Stream::Inbox, keep.inbox),
            (Stream::Click, keep.clicks),
            (Stream::Outbox, keep.dead),
            (Stream::Dead, keep.dead),
        ];
        let mut done = Ok(());
        for (stream, keep) in journals {
            done = done.and(self.stores.journal.drop_before(stream, now.minus(keep)).await);
        }
        let documents = [
            (Shelf::Answer, "", Old::StoredBefore(now.minus(keep.answers).0)),
            // What is kept about a batch beside it goes with it.
            (Shelf::Erased, "", Old::Orphan),
            (Shelf::WebhookStream, "told/", Old::Orphan),
        ];
        for (shelf, prefix, old) in documents {
            done = done.and(self.sweep_documents(shelf, prefix, old).await);
        }
        done
    }

    async fn sweep_documents(&self, shelf: Shelf, prefix: &str, old: Old) -> Result<(), StoreError> {
        let mut behind: Option<String> = None;
        loop {
            let page = self.stores.documents.list(shelf, prefix, behind.as_deref(), DOCUMENTS_AT_ONCE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            behind = Some(last.name.clone());
            for document in page {
                let is_old = match old {
                    Old::StoredBefore(before) => {
                        let stored = serde_json::from_str::<Stored>(&document.body).map(|document| document.stored);
                        stored.is_ok_and(|stored| stored < before)
                    }
                    Old::Orphan => {
                        let batch = document.name.strip_prefix(prefix).and_then(|name| name.split('-').next());
                        match batch.and_then(|batch| batch.parse::<BatchId>().ok()) {
                            // A row that cannot be read is there.
                            Some(batch) => {
                                let read = self.stores.batches.load(batch).await;
                                self.unreadable.pass_over(self.name(), batch, read)?.is_some_and(|row| row.is_none())
                            }
                            None => false,
                        }
                    }
                };
                if is_old {
                    self.stores.documents.delete(shelf, &document.name).await?;
                }
            }
        }
    }

    async fn sweep(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut behind = None;
        loop {
            let (batches, next) = self.stores.batch_index.list(behind, 100).await?;
            for listed in batches {
                let batch = listed.batch;
                let swept = self.sweep_batch(listed, now).await;
                self.unreadable.pass_over(self.name(), batch, swept)?;
            }
            match next {
                Some(next) => behind = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Lets go of what a batch that is over is not kept for any more. Its row says so before anything is deleted: the row that
    /// was listed may be minutes old, and the batch retried meanwhile.
    pub(super) async fn sweep_batch(&self, listed: Listed, now: Timestamp) -> Result<(), StoreError> {
        let Listed { batch, row } = listed;
        let Some(ended) = row.step().ended.filter(|_| row.is_over()) else { return Ok(()) };
        let age = now.since(ended);
        // The row names what there is to delete: nothing else of the batch stays behind it.
        let row_goes = age >= self.keep.batch;
        let (texts, history) = (row_goes || age >= self.keep.texts, row_goes || age >= self.keep.history);
        let due = |due: bool, going: Going| due && going != Going::Gone;
        let (texts, history) = (due(texts, row.let_go.texts), due(history, row.let_go.history));
        if texts || history {
            let reached = |going| {
                let of = |due| if due { going } else { Going::Kept };
                LetGo { texts: of(texts), history: of(history) }
            };
            if !self.mark(batch, ended, reached(Going::Begun)).await? {
                return Ok(());
            }
            for (due, kind) in [(texts, Kind::Texts), (history, Kind::History)] {
                if due {
                    self.drop(batch, kind).await?;
                }
            }
            if !row_goes {
                self.mark(batch, ended, reached(Going::Gone)).await?;
            }
        }
        if row_goes { self.drop(batch, Kind::Batch).await } else { Ok(()) }
    }

    /// Writes into the row of a batch how far it is let go of, never less than stands there; `false` when it is not over any more,
    /// or not since then.
    async fn mark(&self, batch: BatchId, ended: Timestamp, reached: LetGo) -> Result<bool, StoreError> {
        let marked = change(&*self.stores.batches, batch, &*self.world.chance, |current| {
            let mut next = current.row.clone();
            if !next.is_over() || next.step().ended != Some(ended) || next.orders.pending.is_some() {
                return Err(());
            }
            let stands = next.let_go;
            next.let_go = LetGo { texts: stands.texts.max(reached.texts), history: stands.history.max(reached.history) };
            Ok(next)
        });
        match marked.await {
            Ok(marked) => Ok(marked.is_ok()),
            // Somebody else changed it behind mine, if mine was stored: the next round reads how it stands.
            Err(StoreError::Unknown(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn drop(&self, batch: BatchId, kind: Kind) -> Result<(), StoreError> {
        self.stores.retention.drop_batch(batch, kind).await?;
        tracing::info!(%batch, ?kind, "old data was let go");
        Ok(())
    }
}

#[async_trait::async_trait]
impl Job for Sweeper {
    fn name(&self) -> &'static str {
        "sweeper"
    }

    fn new_term(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // A sweep that was dropped with an earlier term counted as done.
        (state.last, state.journals) = (None, None);
    }

    async fn run_once(&self) -> Result<bool, StoreError> {
        let now = self.world.clock.now();
        let journals = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.last.is_some_and(|last| now.since(last) < EVERY) {
                return Ok(false);
            }
            state.last = Some(now);
            let journals = state.journals.is_none_or(|last| now.since(last) >= JOURNALS_EVERY);
            if journals {
                state.journals = Some(now);
            }
            journals
        };
        // Whatever is wrong with one kind of data keeps no other from being let go.
        let mut done = self.sweep(now).await;
        if journals {
            done = done.and(self.stores.retention.drop_index_before(now.minus(self.keep.index)).await);
            done = done.and(self.sweep_journals(now).await);
        }
        done.map(|()| false)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::adapters::memory::clock::SimClock;
    use crate::adapters::memory::store::MemoryStore;
    use crate::adapters::system::SeededChance;
    use crate::model::id::{LaneKey, Msisdn, RecipientKey};
    use crate::ports::journal::{Direction, Entry, Place, STREAMS};
    use crate::ports::receipts::{PartKey, UncertainEntry};

    const DAY: Duration = Duration::from_secs(86_400);

    #[tokio::test(start_paused = true)]
    async fn each_kind_is_let_go_after_its_own_time() {
        let chance = Arc::new(SeededChance::from_seed(1));
        let start = Timestamp(1_700_000_000_000);
        let world = World { clock: Arc::new(SimClock::new(start)), chance: chance.clone() };
        let stores = MemoryStore::new(chance).stores();
        for stream in STREAMS {
            for id in 0..3 {
                let place = Place { scope: format!("s{id}/"), at: start, id };
                stores.journal.append(stream, vec![Entry { place, body: "{}".into() }]).await.expect("it is stored");
            }
        }
        let answer = format!("{{\"stored\":{}}}", start.0);
        stores.documents.put(Shelf::Answer, "t/old", &answer).await.expect("it is stored");
        stores.documents.put(Shelf::Answer, "t/none", "{}").await.expect("it is stored");
        let erased = format!("{:032x}-0-1", 5);
        stores.documents.put(Shelf::Erased, &erased, "{}").await.expect("it is stored");
        stores.documents.put(Shelf::WebhookStream, &format!("told/{:032x}", 5), "{}").await.expect("it is stored");
        stores.documents.put(Shelf::WebhookStream, "wh_1/x", "{}").await.expect("it is stored");
        // In doubt, and found by the number.
        let lane = LaneKey { batch: BatchId(5), lane: 0 };
        let part = PartKey { recipient: RecipientKey { lane, seq: 0 }, part: 0 };
        let doubted = UncertainEntry { account: "main".into(), number: Msisdn(1), part, declared_at: start };
        stores.receipt_index.put_uncertain(vec![doubted]).await.expect("it is stored");
        let own = Keep { audit: 5 * DAY, inbox: 4 * DAY, clicks: 3 * DAY, dead: 2 * DAY, answers: DAY, ..Keep::all(90 * DAY) };
        let keep = Keep { index: 6 * DAY, ..own };
        let sweeper = Sweeper::new(stores.clone(), world, keep);
        let left = async || {
            sweeper.run_once().await.expect("it sweeps");
            let mut left = vec![];
            for stream in STREAMS {
                left.push(stores.journal.list(stream, "", None, 9, Direction::Forward).await.expect("it is read").len());
            }
            left
        };
        let documents = async |shelf| stores.documents.list(shelf, "", None, 9).await.expect("they are read").len();
        // In the order of the streams: audit, inbox, click, outbox, dead.
        assert_eq!(left().await, [3, 3, 3, 3, 3]);
        assert_eq!((documents(Shelf::Answer).await, documents(Shelf::Erased).await), (2, 0), "their batch is gone");
        assert_eq!(documents(Shelf::WebhookStream).await, 1);
        tokio::time::sleep(DAY + EVERY).await;
        assert_eq!(left().await, [3, 3, 3, 3, 3]);
        assert_eq!(documents(Shelf::Answer).await, 1, "what does not say when it was stored is kept");
        for expected in [[3, 3, 3, 0, 0], [3, 3, 0, 0, 0], [3, 0, 0, 0, 0], [0, 0, 0, 0, 0]] {
            tokio::time::sleep(DAY).await;
            assert_eq!(left().await, expected);
        }
        let in_doubt = async || stores.receipt_index.uncertain("main", Msisdn(1)).await.expect("they are read").len();
        assert_eq!(in_doubt().await, 1);
        tokio::time::sleep(DAY).await;
        left().await;
        assert_eq!(in_doubt().await, 0);
    }
}
