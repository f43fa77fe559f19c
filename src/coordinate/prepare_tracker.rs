//! Following preparation: keeps a few range tasks queued, takes ranges back from the dead, seals, and closes the step.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::model::batch::{BatchRow, SealedPlan};
use crate::model::code::Code;
use crate::model::id::{BatchId, LaneKey, RangeKey};
use crate::model::limits::{SAMPLES_MAX, SEAL_RECIPIENTS_MAX};
use crate::model::record::{RangeRow, RangeState, RangeTotals, Sample};
use crate::model::state::{StepEvent, StepState};
use crate::model::step::CurrentStep;
use crate::model::task::PrepareTask;
use crate::model::time::Timestamp;
use crate::ports::control::Versioned;
use crate::ports::queue::TaskSender;
use crate::ports::{StoreError, Stores, World};
use crate::runtime::control::change;
use crate::runtime::digest::{digest, hex};
use crate::runtime::job::{Job, Unreadable};
use crate::runtime::metrics;
use crate::runtime::trace;

/// A claimed range without a sign of life for so long is given to somebody else.
pub const HEART_BEAT_DEAD: Duration = Duration::from_secs(15);
/// A queued task that nobody took up for so long is sent again.
const SENT_AGAIN: Duration = Duration::from_secs(30);

/// What was queued in this term: an estimate that keeps the queue short. Losing it only sends tasks again.
#[derive(Default)]
struct Queued {
    ranges: BTreeMap<RangeKey, Timestamp>,
    seals: BTreeMap<(BatchId, u8), Timestamp>,
}

/// The job that follows preparations. Safe to run twice at once.
#[doc(alias = "status_tracking")]
pub struct PrepareStatusTracker {
    stores: Stores,
    world: World,
    sender: Arc<dyn TaskSender>,
    /// Range tasks queued at once, over all batches.
    at_once: usize,
    queued: Mutex<Queued>,
    unreadable: Unreadable,
}

impl PrepareStatusTracker {
    /// A tracker that keeps `at_once` range tasks queued.
    pub fn new(stores: Stores, world: World, sender: Arc<dyn TaskSender>, at_once: usize) -> PrepareStatusTracker {
        PrepareStatusTracker { stores, world, sender, at_once, queued: Mutex::default(), unreadable: Unreadable::default() }
    }

    /// Follows one batch: sends what is due, and closes the step when all is done. Returns the ranges it still wants queued, and
    /// adds the records of ranges that are not done to `unread`.
    async fn track(&self, row: &BatchRow, unread: &mut u64) -> Result<(Vec<RangeKey>, bool), StoreError> {
        let batch = row.batch.batch_id;
        let ranges = self.stores.ranges.list(batch).await?;
        let open = ranges.iter().filter(|(_, range)| matches!(range.row.state, RangeState::Waiting | RangeState::Claimed));
        *unread = open.fold(*unread, |sum, (_, range)| sum.saturating_add(range.row.plan.records));
        let now = self.world.clock.now();
        if let Some(fault) = ranges.iter().find_map(|(_, range)| match &range.row.state {
            RangeState::Failed(fault) => Some(fault.clone()),
            _ => None,
        }) {
            let reason = Some((fault.code, fault.detail));
            let failed = change(&*self.stores.batches, batch, &*self.world.chance, |row| {
                row.row.after_preparing(StepEvent::Fail, reason.clone(), now)
            });
            let _ = failed.await?;
            return Ok((vec![], true));
        }
        let wanted = self.unqueued(&ranges, now);
        let all_done =
            ranges.len() == row.ranges as usize && ranges.iter().all(|(_, range)| matches!(range.row.state, RangeState::Done(_)));
        if !all_done {
            return Ok((wanted, false));
        }
        Ok((vec![], self.seal(row, ranges.into_iter().map(|(_, range)| range.row).collect()).await?))
    }

    /// The ranges of a batch that should be sent (again).
    fn unqueued(&self, ranges: &[(RangeKey, Versioned<RangeRow>)], now: Timestamp) -> Vec<RangeKey> {
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wanted = Vec::new();
        for (key, range) in ranges {
            if let RangeState::Done(_) = range.row.state {
                queued.ranges.remove(key);
            } else if self.wants(&range.row, queued.ranges.get(key).copied(), now) {
                queued.ranges.remove(key);
                wanted.push(*key);
            }
        }
        wanted
    }

    /// Whether a range that is not done should be sent (again).
    fn wants(&self, range: &RangeRow, sent: Option<Timestamp>, now: Timestamp) -> bool {
        match (&range.state, sent) {
            (RangeState::Claimed, _) => {
                now.since(range.heart_beat) >= HEART_BEAT_DEAD && sent.is_none_or(|at| now.since(at) >= SENT_AGAIN)
            }
            (_, None) => true,
            (_, Some(at)) => now.since(at) >= SENT_AGAIN,
        }
    }

    /// Sends seal tasks for lanes without a ledger; when every lane has one, closes the step. Returns whether it did.
    async fn seal(&self, row: &BatchRow, ranges: Vec<RangeRow>) -> Result<bool, StoreError> {
        let batch = row.batch.batch_id;
        let sealed: std::collections::BTreeSet<u8> =
            self.stores.ledgers.list(batch).await?.into_iter().map(|(key, _)| key.lane).collect();
        if sealed.len() < usize::from(row.lanes) {
            let messages: u64 = ranges.iter().map(|range| totals(range).map_or(0, |totals| totals.messages)).sum();
            return self.send_seals(row, messages, &sealed).await;
        }
        let now = self.world.clock.now();
        let plan = self.sealed_plan(row, &ranges).await?;
        let closed =
            change(&*self.stores.batches, batch, &*self.world.chance, |row| row.row.after_seal(plan.clone(), now)).await?;
        self.queued.lock().unwrap_or_else(PoisonError::into_inner).seals.retain(|(other, _), _| *other != batch);
        Ok(closed.is_ok())
    }

    async fn send_seals(
        &self,
        row: &BatchRow,
        messages: u64,
        sealed: &std::collections::BTreeSet<u8>,
    ) -> Result<bool, StoreError> {
        let per_lane = (messages / u64::from(row.lanes.max(1))).max(1);
        let tasks = self.unqueued_seals(row, per_lane, sealed);
        self.send(tasks).await;
        Ok(false)
    }

    fn unqueued_seals(&self, row: &BatchRow, per_lane: u64, sealed: &std::collections::BTreeSet<u8>) -> Vec<PrepareTask> {
        let batch = row.batch.batch_id;
        let group = (SEAL_RECIPIENTS_MAX / per_lane).clamp(1, 16) as u16;
        let now = self.world.clock.now();
        let mut tasks = Vec::new();
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        for from in (0..row.lanes).step_by(usize::from(group)) {
            let to = (from + group - 1).min(row.lanes - 1);
            let open = (from..=to).any(|lane| !sealed.contains(&(lane as u8)));
            let sent = queued.seals.get(&(batch, from as u8)).copied();
            if open && sent.is_none_or(|at| now.since(at) >= SENT_AGAIN) {
                queued.seals.insert((batch, from as u8), now);
                tasks.push(PrepareTask::Seal { task_code: row.task_code(), from: from as u8, to: to as u8 });
            }
        }
        tasks
    }

    async fn sealed_plan(&self, row: &BatchRow, ranges: &[RangeRow]) -> Result<SealedPlan, StoreError> {
        let mut plan = SealedPlan::default();
        let mut rejected: BTreeMap<Code, u64> = BTreeMap::new();
        for totals in ranges.iter().filter_map(totals) {
            plan.records += totals.records;
            plan.suppressed += totals.suppressed;
            for (code, records) in &totals.rejected {
                *rejected.entry(*code).or_default() += records;
            }
            plan.samples.extend(totals.samples.iter().cloned());
        }
        plan.rejected = rejected.into_iter().collect();
        plan.samples = best_samples(plan.samples);
        let mut hashes = Vec::new();
        for lane in 0..row.lanes {
            let key = LaneKey { batch: row.batch.batch_id, lane: lane as u8 };
            let manifest = self.stores.manifests.get(key).await?;
            let manifest = manifest.ok_or_else(|| StoreError::Corrupt(format!("lane {lane} has a ledger but no manifest")))?;
            plan.totals.add(&manifest.totals);
            hashes.extend(manifest.hash.to_be_bytes());
        }
        for range in ranges.iter().filter_map(totals) {
            hashes.extend(range.hash.to_be_bytes());
        }
        // What is asked for decides what is sent as much as the records do.
        let request = serde_json::to_vec(&row.batch).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        plan.plan_hash = hex(&digest([hashes.as_slice(), &request])[..8]);
        Ok(plan)
    }

    async fn send(&self, tasks: Vec<PrepareTask>) {
        if tasks.is_empty() {
            return;
        }
        metrics::count(&metrics::DISPATCH_TOKENS, &["prepare"], tasks.len() as u64);
        for (place, tasks) in trace::grouped(tasks, |task| task.task_code().batch) {
            if let Err(error) = self.sender.send_prepare(tasks, place).await {
                // Whether they arrived or not: what nobody takes up is sent again.
                tracing::warn!(%error, "tasks of preparation could not be sent; they are sent again");
            }
        }
    }
}

fn totals(range: &RangeRow) -> Option<&RangeTotals> {
    match &range.state {
        RangeState::Done(totals) => Some(totals),
        _ => None,
    }
}

/// Of all ranges' samples the weightiest of each kind.
fn best_samples(mut samples: Vec<Sample>) -> Vec<Sample> {
    samples.sort_by_key(|sample| (std::cmp::Reverse(sample.weight), sample.line));
    let mut kept: Vec<Sample> = Vec::new();
    for sample in samples {
        if kept.iter().filter(|other| other.why == sample.why).count() < SAMPLES_MAX / 2 {
            kept.push(sample);
        }
    }
    kept
}

#[async_trait::async_trait]
impl Job for PrepareStatusTracker {
    fn name(&self) -> &'static str {
        "prepare_status_tracking"
    }

    async fn run_once(&self) -> Result<bool, StoreError> {
        let mut wanted: BTreeMap<BatchId, (BatchRow, Vec<RangeKey>)> = BTreeMap::new();
        let (mut changed, mut unread) = (false, 0);
        for batch in self.stores.batch_index.active().await? {
            let Some(row) = self.unreadable.row(self.name(), &self.stores, batch).await? else { continue };
            if row.current_step == CurrentStep::Preparation && row.preparation.state == StepState::Running {
                let tracked = self.track(&row, &mut unread).await;
                let Some((ranges, closed)) = self.unreadable.pass_over(self.name(), batch, tracked)? else { continue };
                changed |= closed;
                wanted.insert(batch, (row, ranges));
            }
        }
        let now = self.world.clock.now();
        let tasks = {
            let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
            queued.ranges.retain(|key, _| wanted.contains_key(&key.batch));
            let mut outstanding: BTreeMap<BatchId, usize> = BTreeMap::new();
            for key in queued.ranges.keys() {
                *outstanding.entry(key.batch).or_default() += 1;
            }
            let tasks = share(self.at_once.saturating_sub(queued.ranges.len()), &mut wanted, outstanding);
            for (key, _) in &tasks {
                queued.ranges.insert(*key, now);
            }
            tasks
        };
        metrics::set(&metrics::QUEUE_LAG_RECIPIENTS, &["prepare"], unread as f64);
        self.send(tasks.into_iter().map(|(_, task)| task).collect()).await;
        Ok(changed)
    }

    fn new_term(&self) {
        *self.queued.lock().unwrap_or_else(PoisonError::into_inner) = Queued::default();
    }
}

/// The next range tasks, one at a time to the batch with the fewest queued: a small batch does not wait behind a large one.
fn share(
    free: usize,
    wanted: &mut BTreeMap<BatchId, (BatchRow, Vec<RangeKey>)>,
    mut outstanding: BTreeMap<BatchId, usize>,
) -> Vec<(RangeKey, PrepareTask)> {
    let mut tasks = Vec::new();
    for (_, ranges) in wanted.values_mut() {
        ranges.reverse();
    }
    while tasks.len() < free {
        let next = wanted
            .iter()
            .filter(|(_, (_, ranges))| !ranges.is_empty())
            .min_by_key(|(batch, (row, _))| {
                (outstanding.get(*batch).copied().unwrap_or(0), std::cmp::Reverse(row.batch.priority), **batch)
            })
            .map(|(batch, _)| *batch);
        let Some(batch) = next else { break };
        let Some((row, ranges)) = wanted.get_mut(&batch) else { break };
        let Some(key) = ranges.pop() else { break };
        *outstanding.entry(batch).or_default() += 1;
        tasks.push((key, PrepareTask::Range { task_code: row.task_code(), range: key.range }));
    }
    tasks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::batch::tests::batch;

    #[test]
    fn a_small_batch_does_not_wait_behind_a_large_one() {
        let mut wanted = BTreeMap::new();
        for (id, ranges) in [(1u128, 800u32), (2, 1)] {
            let row = BatchRow::created(batch(), String::new(), Timestamp(0));
            let keys = (0..ranges).map(|range| RangeKey { batch: BatchId(id), range }).collect();
            wanted.insert(BatchId(id), (row, keys));
        }
        let tasks = share(4, &mut wanted, BTreeMap::from([(BatchId(1), 2)]));
        assert_eq!(tasks[0].0, RangeKey { batch: BatchId(2), range: 0 });
        assert_eq!(tasks.iter().filter(|(key, _)| key.batch == BatchId(1)).count(), 3);
        assert_eq!(tasks[1].0.range, 0, "ranges go in order");
    }

    fn tracker() -> PrepareStatusTracker {
        let chance = std::sync::Arc::new(crate::adapters::system::SeededChance::from_seed(1));
        let stores = crate::adapters::memory::store::MemoryStore::new(chance.clone()).stores();
        let world = World { clock: std::sync::Arc::new(crate::adapters::system::SystemClock), chance };
        PrepareStatusTracker::new(stores, world, crate::adapters::memory::queue::MemoryBroker::new().sender(), 4)
    }

    #[test]
    fn a_range_is_given_away_by_its_own_sign_of_life_and_by_nothing_else() {
        let at = |seconds: u64| Timestamp(1_000_000).plus(Duration::from_secs(seconds));
        let tracker = tracker();
        let waiting = RangeRow::planned(Default::default());
        let claimed = waiting.claim(crate::model::id::WorkerId(1), at(0), 15_000).expect("claimed");
        // A leader that has just begun, or whose Redis was emptied, remembers nothing: what lives in the store is left alone.
        assert!(!tracker.wants(&claimed, None, at(14)));
        assert!(tracker.wants(&claimed, None, at(15)));
        let alive = claimed.beat(1, 10, at(14)).expect("it beats");
        assert!(!tracker.wants(&alive, None, at(28)) && tracker.wants(&alive, None, at(29)));
        assert!(tracker.wants(&waiting, None, at(0)));
        assert!(!tracker.wants(&waiting, Some(at(0)), at(29)) && tracker.wants(&waiting, Some(at(0)), at(30)));
    }

    #[test]
    fn a_small_batch_is_sealed_by_few_tasks_and_a_large_one_by_many() {
        let tasks = |lanes: u16, per_lane: u64| {
            let mut row = BatchRow::created(batch(), String::new(), Timestamp(0));
            row.lanes = lanes;
            let tasks = tracker().unqueued_seals(&row, per_lane, &Default::default());
            let lanes = tasks.iter().map(|task| match task {
                PrepareTask::Seal { from, to, .. } => u16::from(to - from) + 1,
                PrepareTask::Range { .. } => 0,
            });
            (tasks.len(), lanes.sum::<u16>())
        };
        assert_eq!(tasks(1, 100), (1, 1));
        assert_eq!(tasks(128, 10), (8, 128));
        assert_eq!(tasks(128, 781_250), (128, 128), "about a million people at once, whose numbers are in memory");
    }
}
