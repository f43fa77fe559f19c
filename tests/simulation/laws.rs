//! What holds for every single change of a control row, whoever makes it: watched below all troubles, at the write itself.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use smsfleet::model::batch::BatchRow;
use smsfleet::model::id::{BatchId, LaneKey, RangeKey};
use smsfleet::model::ledger::Ledger;
use smsfleet::model::limits::{LANE_WINDOWS_MAX, WINDOW_RECIPIENTS_MAX};
use smsfleet::model::record::{RangeRow, RangeState};
use smsfleet::model::state::{EVENTS, StepState, decide};
use smsfleet::model::step::CurrentStep;
use smsfleet::ports::control::{Cas, ControlRows, Versioned};
use smsfleet::ports::{StoreError, Stores};

use super::again::WitnessedWindows;
use super::network::Network;

/// A store whose changes of control rows are held against the laws; what breaks one is told to the network's witness.
pub fn watched(stores: &Stores, network: &Arc<Network>) -> Stores {
    let batches: Arc<dyn ControlRows<BatchId, BatchRow>> = stores.batches.clone();
    let ranges: Arc<dyn ControlRows<RangeKey, RangeRow>> = stores.ranges.clone();
    let ledgers: Arc<dyn ControlRows<LaneKey, Ledger>> = stores.ledgers.clone();
    Stores {
        batches: Arc::new(Watched { inner: batches, network: network.clone(), seen: Mutex::default() }),
        ranges: Arc::new(Watched { inner: ranges, network: network.clone(), seen: Mutex::default() }),
        ledgers: Arc::new(Watched { inner: ledgers, network: network.clone(), seen: Mutex::default() }),
        windows: Arc::new(WitnessedWindows { inner: stores.windows.clone(), network: network.clone() }),
        ..stores.clone()
    }
}

/// A row that only changes in some ways.
trait Lawful {
    /// What is wrong with this row behind that one.
    fn breaks(&self, before: &Self) -> Option<&'static str>;

    /// The provider type that this row says all lanes know, and that one did not.
    fn changed_to(&self, _before: &Self) -> Option<(BatchId, String)> {
        None
    }
}

/// The first of the laws that does not hold.
fn first_broken(laws: &[(bool, &'static str)]) -> Option<&'static str> {
    laws.iter().find(|(holds, _)| !holds).map(|(_, law)| *law)
}

fn one_event(before: StepState, after: StepState) -> bool {
    before == after || EVENTS.iter().any(|event| decide(before, *event).is_ok_and(|done| done.to == after))
}

impl Lawful for BatchRow {
    fn breaks(&self, before: &BatchRow) -> Option<&'static str> {
        let planned = |row: &BatchRow| (row.fingerprint.clone(), row.records, row.ranges, row.lanes);
        let sealed = |row: &BatchRow| row.sealed.as_ref().map(|sealed| sealed.totals.recipients);
        first_broken(&[
            (self.batch.batch_id == before.batch.batch_id && self.batch.table_name == before.batch.table_name, "another batch"),
            (self.task_number >= before.task_number, "the number of the dispatch went back"),
            (one_event(before.preparation.state, self.preparation.state), "no event takes preparation there"),
            (one_event(before.delivery.state, self.delivery.state), "no event takes delivery there"),
            (self.current_step >= before.current_step, "it went back to preparation"),
            (self.current_step == CurrentStep::Preparation || self.sealed.is_some(), "it is delivered and was not sealed"),
            (before.fingerprint.is_none() || planned(self) == planned(before), "it was planned twice"),
            (before.sealed.is_none() || sealed(self) == sealed(before), "it was sealed twice"),
        ])
    }

    fn changed_to(&self, before: &BatchRow) -> Option<(BatchId, String)> {
        let was_carried = |id: &str| before.orders.carried.iter().any(|carried| carried.id == id);
        // An order that names no recipients is a change of provider.
        let mut changes = self.orders.carried.iter().filter(|carried| carried.recipients.is_none());
        let is_new = changes.any(|carried| !was_carried(&carried.id));
        is_new.then(|| (self.batch.batch_id, self.batch.provider_type.clone()))
    }
}

impl Lawful for RangeRow {
    fn breaks(&self, before: &RangeRow) -> Option<&'static str> {
        let is_done = matches!(before.state, RangeState::Done(_) | RangeState::Failed(_));
        first_broken(&[
            (self.plan == before.plan, "the range was planned twice"),
            (self.attempt >= before.attempt, "the attempt went back"),
            (!is_done || self.state == before.state, "what was decided of the range was decided again"),
        ])
    }
}

impl Lawful for Ledger {
    fn breaks(&self, before: &Ledger) -> Option<&'static str> {
        let numbers = |ledger: &Ledger| {
            let fences = [u64::from(ledger.fences), u64::from(ledger.order)];
            [fences, [ledger.task_number, ledger.foreign_until], [ledger.provider_number, ledger.closed_number]].concat()
        };
        let grown = numbers(self).iter().zip(numbers(before)).all(|(now, then)| *now >= then);
        let mine = self.open.iter().filter(|open| open.declarer == self.owner).count();
        let apart = self.open.iter().enumerate().all(|(at, one)| {
            self.open[at + 1..].iter().all(|other| one.leg != other.leg || one.to <= other.from || other.to <= one.from)
        });
        // Whoever is declared, closed or put off is counted once, but where an order takes people in again. (Places that the seal
        // struck out are in no total: the oracle's sum at the end shows that nobody falls out.)
        let is_same_order = self.order == before.order && self.closed == before.closed && self.fences == before.fences;
        let people = |ledger: &Ledger| ledger.in_flight() + ledger.undeclared() + ledger.totals.settled();
        first_broken(&[
            (self.len == before.len, "the lane has another length"),
            (grown, "a number of the ledger went back"),
            (mine <= LANE_WINDOWS_MAX, "too many windows are open"),
            (self.open.iter().all(|open| open.len() <= WINDOW_RECIPIENTS_MAX), "a window is too large"),
            (apart, "two open windows hold the same people"),
            (!is_same_order || people(self) <= people(before), "people of the lane came from nowhere"),
        ])
    }
}

struct Watched<K, T> {
    inner: Arc<dyn ControlRows<K, T>>,
    network: Arc<Network>,
    /// Each row as it was written last.
    seen: Mutex<BTreeMap<K, Versioned<T>>>,
}

impl<K: Ord + Copy + Debug, T: Lawful + Clone + Debug> Watched<K, T> {
    /// A change was applied: the row has this version now.
    fn applied(&self, key: K, version: u64, row: &T, nonce: u64) {
        let mut seen = self.seen.lock().expect("not poisoned");
        if let Some(before) = seen.get(&key) {
            let broken = if version > before.version { row.breaks(&before.row) } else { Some("the version went back") };
            if let Some(law) = broken {
                let wrong = format!("{law}: {key:?} version {version}\n  from {before:?}\n  to {row:?}");
                self.network.known().wrong.push(wrong);
            }
            if let Some((batch, to)) = row.changed_to(&before.row) {
                let now = self.network.now();
                self.network.known().operators.carried(batch, to, now);
            }
        }
        seen.insert(key, Versioned { version, nonce, row: row.clone() });
    }
}

#[async_trait::async_trait]
impl<K, T> ControlRows<K, T> for Watched<K, T>
where
    K: Ord + Send + Sync + Copy + Debug + 'static,
    T: Lawful + Send + Sync + Clone + Debug + 'static,
{
    async fn load(&self, key: K) -> Result<Option<Versioned<T>>, StoreError> {
        let loaded = self.inner.load(key).await?;
        // After a restore it is seen for the first time.
        if let Some(row) = &loaded {
            self.seen.lock().expect("not poisoned").entry(key).or_insert_with(|| row.clone());
        }
        Ok(loaded)
    }

    async fn insert(&self, key: K, row: &T, nonce: u64) -> Result<Cas, StoreError> {
        let answer = self.inner.insert(key, row, nonce).await?;
        if answer == Cas::Applied {
            self.applied(key, 1, row, nonce);
        }
        Ok(answer)
    }

    async fn replace(&self, key: K, expected: u64, row: &T, nonce: u64) -> Result<Cas, StoreError> {
        let answer = self.inner.replace(key, expected, row, nonce).await?;
        if answer == Cas::Applied {
            self.applied(key, expected + 1, row, nonce);
        }
        Ok(answer)
    }

    async fn list(&self, batch: BatchId) -> Result<Vec<(K, Versioned<T>)>, StoreError> {
        self.inner.list(batch).await
    }
}
