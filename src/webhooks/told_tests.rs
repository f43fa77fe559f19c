//! Streams that were told much, over a journal that passes over what was removed only so far, as a store on servers does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Changes;
use super::dead::Replay;
use super::outbox::{Webhooks, scope_of};
use super::sender::Sender;
use super::tests::Place as Ground;
use super::told::LOOK_BACK;
use crate::model::batch::tests::batch;
use crate::model::batch::{BatchRow, Command, SmsBatch};
use crate::model::id::BatchId;
use crate::model::webhook::EventKind;
use crate::ports::journal::{Direction, Entry, Journal, Place, Stream};
use crate::ports::{StoreError, Stores};
use crate::runtime::job::Job;

/// Removed entries that a read passes over.
const PASSED_OVER_MAX: usize = 2_000;

/// The journal.
struct Worn {
    inner: Arc<dyn Journal>,
    /// By scope: what was removed, in order.
    removed: Mutex<BTreeMap<String, Vec<Place>>>,
    /// Reads of one scope that began before something that was removed.
    again: Mutex<Vec<Option<Place>>>,
    /// Whether a read that passes over too much fails.
    is_worn: AtomicBool,
    /// Webhooks whose streams cannot be looked for.
    broken: Mutex<Option<String>>,
}

impl Worn {
    fn over(inner: Arc<dyn Journal>) -> Arc<Worn> {
        let (removed, again, broken) = (Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Worn { inner, removed, again, is_worn: AtomicBool::new(true), broken })
    }

    /// How much a read of a stream from a place on passes over; it fails when that is too much.
    fn passes_over(&self, scope: &str, behind: Option<&Place>) -> Result<usize, StoreError> {
        let removed = self.removed.lock().expect("not poisoned");
        let of_stream = removed.get(scope).into_iter().flatten();
        let passed = of_stream.filter(|place| behind.is_none_or(|behind| behind < *place)).count();
        if passed > PASSED_OVER_MAX && self.is_worn.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable(format!("{passed} removed entries")));
        }
        Ok(passed)
    }
}

#[async_trait::async_trait]
impl Journal for Worn {
    async fn append(&self, stream: Stream, entries: Vec<Entry>) -> Result<Vec<bool>, StoreError> {
        self.inner.append(stream, entries).await
    }

    async fn list(
        &self,
        stream: Stream,
        within: &str,
        behind: Option<&Place>,
        limit: usize,
        direction: Direction,
    ) -> Result<Vec<Entry>, StoreError> {
        if stream == Stream::Outbox {
            let passed = self.passes_over(within, behind);
            if passed != Ok(0) {
                self.again.lock().expect("not poisoned").push(behind.cloned());
            }
            passed?;
        }
        self.inner.list(stream, within, behind, limit, direction).await
    }

    async fn waiting(
        &self,
        stream: Stream,
        within: &str,
        told: &BTreeMap<String, Place>,
        limit: usize,
    ) -> Result<Vec<Place>, StoreError> {
        if self.broken.lock().expect("not poisoned").as_ref().is_some_and(|webhook| within.starts_with(webhook)) {
            return Err(StoreError::Unavailable("on purpose".into()));
        }
        let mut found = vec![];
        let scopes: Vec<String> = self.removed.lock().expect("not poisoned").keys().cloned().collect();
        for scope in scopes.iter().filter(|scope| scope.starts_with(within)) {
            self.passes_over(scope, told.get(scope))?;
        }
        for place in self.inner.waiting(stream, within, &BTreeMap::new(), limit).await? {
            match told.get(&place.scope) {
                None => found.push(place),
                Some(last) => {
                    let next = self.inner.list(stream, &place.scope, Some(last), 1, Direction::Forward).await?;
                    found.extend(next.into_iter().map(|entry| entry.place));
                }
            }
        }
        Ok(found)
    }

    async fn remove(&self, stream: Stream, places: Vec<Place>) -> Result<(), StoreError> {
        self.inner.remove(stream, places.clone()).await?;
        if stream == Stream::Outbox {
            let mut removed = self.removed.lock().expect("not poisoned");
            places.into_iter().for_each(|place| removed.entry(place.scope.clone()).or_default().push(place));
        }
        Ok(())
    }

    async fn drop_before(&self, stream: Stream, before: crate::model::time::Timestamp) -> Result<(), StoreError> {
        self.inner.drop_before(stream, before).await
    }
}

/// A term of sending over a worn journal.
fn send(ground: &Ground) -> (Arc<Worn>, CancellationToken, tokio::task::JoinHandle<()>) {
    let stores = ground.store.stores();
    let worn = Worn::over(stores.journal.clone());
    let stores = Stores { journal: worn.clone(), ..stores };
    let term = CancellationToken::new();
    let webhooks = Webhooks::new(stores, ground.world.clone(), ground.targets.clone());
    (worn, term.clone(), tokio::spawn(Sender::new(webhooks).term(term)))
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_never_read_over_what_it_told_and_goes_on_however_much_that_is() {
    let ground = Ground::new();
    ground.hook("a", &[EventKind::Receipt]).await;
    let (worn, term, sending) = send(&ground);
    for thousand in 0..4 {
        ground.tell(1, thousand * 1_000..(thousand + 1) * 1_000).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(ground.targets.told("a").len() as u64, (thousand + 1) * 1_000);
    }
    assert_eq!(*worn.again.lock().expect("not poisoned"), [] as [Option<Place>; 0]);
    // Looking back fails, and nothing new waits for it.
    tokio::time::sleep(LOOK_BACK).await;
    ground.tell(1, 100_000..100_010).await;
    ground.tell(2, 0..10).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(!worn.again.lock().expect("not poisoned").is_empty(), "it was looked back");
    assert_eq!(ground.targets.told("a").len(), 4_020);
    term.cancel();
    sending.await.expect("it ends");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_came_late_is_told_once_it_is_looked_for_from_the_beginning() {
    let ground = Ground::new();
    ground.hook("a", &[EventKind::Receipt]).await;
    let (worn, term, sending) = send(&ground);
    ground.tell(1, 100_000..103_000).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(ground.targets.told("a").len(), 3_000);
    // An hour later the store passes over what was removed no more.
    worn.is_worn.store(false, Ordering::Relaxed);
    ground.tell(1, 0..250).await;
    tokio::time::sleep(LOOK_BACK + Duration::from_secs(20)).await;
    assert_eq!(ground.targets.told("a").len(), 3_250);
    term.cancel();
    sending.await.expect("it ends");
}

#[tokio::test(start_paused = true)]
async fn a_change_and_a_replay_are_told_at_once_in_a_stream_that_has_told_much_since_they_happened() {
    let ground = Ground::new();
    let hook = ground.hook("a", &[EventKind::Receipt, EventKind::Batch]).await;
    let (_, term, sending) = send(&ground);
    let now = ground.world.clock.now();
    let row = BatchRow::created(SmsBatch { batch_id: BatchId(1), ..batch() }, String::new(), now);
    let row = row.command(Command::EntryProcess, now).expect("ready");
    let stores = ground.store.stores();
    stores.batches.insert(BatchId(1), &row, 1).await.expect("it is stored");
    let place = Place { scope: scope_of(&hook, Some(BatchId(1))), at: now, id: 1 };
    let dead = r#"{"event":{"n":"dead"},"reason":"HTTP 500","died":0}"#;
    stores.journal.append(Stream::Dead, vec![Entry { place, body: dead.into() }]).await.expect("it is stored");
    ground.tell(1, 0..1_500).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(ground.targets.told("a").len(), 1_500);
    Changes::new(ground.webhooks.clone()).run_once().await.expect("a round");
    assert_eq!(ground.webhooks.replay(None, &hook, &Replay::All).await, Ok(1));
    for second in 0..5 {
        ground.tell(1, 10_000 + 10 * second..10_010 + 10 * second).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let told = ground.targets.told("a");
    assert_eq!(told.iter().filter(|event| event["state"] == "READY").count(), 1);
    assert_eq!(told.iter().filter(|event| event["n"] == "dead").count(), 1);
    term.cancel();
    sending.await.expect("it ends");
}

#[tokio::test(start_paused = true)]
async fn a_webhook_whose_streams_cannot_be_looked_for_keeps_no_other_from_being_told() {
    let ground = Ground::new();
    let hooks = [ground.hook("a", &[EventKind::Receipt]).await, ground.hook("b", &[EventKind::Receipt]).await];
    ground.tell(1, 0..10).await;
    let first = if hooks[0] < hooks[1] { 0 } else { 1 };
    let (worn, term, sending) = send(&ground);
    *worn.broken.lock().expect("not poisoned") = Some(hooks[first].clone());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let told = ["a", "b"].map(|host| ground.targets.told(host).len());
    assert_eq!((told[first], told[1 - first]), (0, 10));
    term.cancel();
    sending.await.expect("it ends");
}
