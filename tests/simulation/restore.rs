//! A backup of the store, and the day it is needed: whoever may have got a message since is in doubt, and nobody gets it twice.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use smsfleet::adapters::embedded::engine::memory::Snapshot;
use smsfleet::coordinate::recover::{Recovered, recover};
use smsfleet::model::code::Code;
use smsfleet::model::id::BatchId;
use smsfleet::model::order::RetryWhat;
use smsfleet::model::time::Timestamp;
use smsfleet::ports::clock::Chance;
use smsfleet::roles::opened::check_mark;

use super::faults::Trouble;
use super::known::Said;
use super::operators::PATIENCE;
use super::process::{accounts, offers};
use super::run::{Run, services};

/// What a restore brings back, and what the witness knew then.
pub struct Backup {
    rows: Snapshot,
    /// How often the mark had been raised.
    raised: u64,
    taken: Timestamp,
    acknowledged: Said,
    canceled: BTreeMap<BatchId, Duration>,
}

/// Draws an order to send again by plan, without haste, whoever was refused.
const FAILED_IN_PEACE: u64 = 2 | 3 << 4;

impl Run {
    /// Takes a backup; or brings back the one that was taken, once. Where the provider refused somebody, and else half of the time,
    /// the operator sends them again, the store is lost a little later, and the operator, who sees them refused still, does it
    /// once more.
    pub(super) async fn backup_or_restore(&mut self, which: usize, draw: u64) -> Result<(), String> {
        if self.shared.network.known().restored.is_some() {
            return Ok(());
        }
        let Some(backup) = self.backup.take() else {
            self.back_up();
            let refused = self.whose_people_were_refused().await;
            if (refused.is_some() || draw.is_multiple_of(2)) && self.canceled.is_empty() {
                self.start_process();
                self.start_missing();
                self.lose_a_retry(refused.unwrap_or(which), (draw >> 1) % 15_000).await?;
            }
            return Ok(());
        };
        self.restore(backup).await
    }

    /// Takes a backup of a batch that has ended where somebody was refused, and loses the store when they were sent again. Whether it
    /// was so.
    pub(super) async fn back_up_and_lose_a_retry(&mut self, which: usize) -> Result<bool, String> {
        let plan = self.service.plan_retry(self.batches[which].0, &RetryWhat::Failed, &offers()).await;
        let is_lost = self.shared.network.known().restored.is_some();
        if is_lost || !self.canceled.is_empty() || plan.map_or(0, |plan| plan.recipients) == 0 {
            return Ok(false);
        }
        self.back_up();
        self.lose_a_retry(which, 0).await?;
        Ok(true)
    }

    fn back_up(&mut self) {
        let acknowledged = self.shared.network.known().acknowledged.clone();
        let (taken, canceled) = (self.shared.clock.now(), self.canceled.clone());
        let raised = self.shared.raised.load(Ordering::Relaxed);
        self.backup = Some(Backup { rows: self.store.snapshot(), raised, taken, acknowledged, canceled });
        self.tell("a backup".into());
    }

    /// The operator sends again whoever was refused, the store is lost a little later, and he does it once more.
    async fn lose_a_retry(&mut self, which: usize, longer_ms: u64) -> Result<(), String> {
        self.retry(which, FAILED_IN_PEACE).await?;
        tokio::time::sleep(Duration::from_millis(5_000 + longer_ms)).await;
        if let Some(backup) = self.backup.take() {
            self.restore(backup).await?;
            self.retry(which, FAILED_IN_PEACE).await?;
        }
        Ok(())
    }

    /// A batch that has ended and of which somebody can be sent again.
    async fn whose_people_were_refused(&self) -> Option<usize> {
        for (which, (id, _)) in self.batches.iter().enumerate() {
            let plan = self.service.plan_retry(*id, &RetryWhat::Failed, &offers()).await;
            if plan.is_ok_and(|plan| plan.recipients > 0) {
                return Some(which);
            }
        }
        None
    }

    /// Rule 9: whoever starts over a restored store before it is recovered is told so, and starts nothing. The mark beside the store
    /// tells, if it was raised since the backup.
    async fn refuses_to_start(&self, raised: u64) -> Result<(), String> {
        let since = self.shared.raised.load(Ordering::Relaxed) - raised;
        match check_mark(&self.shared.stores).await {
            Err(fault) if fault.code == Code::StoreStale => {
                self.fire("restored store refused");
                Ok(())
            }
            Ok(()) if since == 0 => Ok(()),
            other => Err(format!("the mark was raised {since} times since the backup, and a start says {other:?}")),
        }
    }

    /// Recovers the restored store; half of the time over a store with troubles first, and the operator may go away in the middle.
    /// Then it is done again, and what was accepted before has nothing left to do.
    async fn recover(&self, taken: Timestamp) -> Result<Recovered, String> {
        let types: Vec<(String, String)> =
            accounts().into_values().map(|account| (account.name, account.provider_type)).collect();
        let draw = self.chance.next();
        let was_refused = check_mark(&self.shared.stores).await.is_err();
        if draw.is_multiple_of(2) {
            let stores = Trouble::new(draw, &self.shared).stores(&self.shared.stores, &self.shared.raised);
            let most = Duration::from_millis(PATIENCE[(draw >> 1) as usize % 4]);
            let first = tokio::time::timeout(most, recover(&stores, &self.world, &types, taken)).await;
            if !matches!(first, Ok(Ok(_))) {
                self.fire("recovery interrupted");
            }
        }
        let is_accepted = check_mark(&self.shared.stores).await.is_ok();
        let again = recover(&self.shared.stores, &self.world, &types, taken).await;
        let again = again.map_err(|fault| format!("it cannot be recovered: {fault}"))?;
        if was_refused && is_accepted && (again.ended, again.uncertain) != (0, 0) {
            return Err(format!("it was accepted before it was recovered: {again:?}"));
        }
        Ok(again)
    }

    async fn restore(&mut self, backup: Backup) -> Result<(), String> {
        // The machine is gone, and all processes with it.
        for process in self.processes.drain(..).chain(self.frozen.drain(..).map(|(_, process)| process)) {
            process.crash(&self.shared);
        }
        // Nothing that is still on its way to the old store reaches the new one.
        tokio::time::sleep(Duration::from_secs(10)).await;
        self.store = self.store.restore(backup.rows).map_err(|error| error.to_string())?;
        self.shared.reopen(&self.store.stores());
        self.refuses_to_start(backup.raised).await?;
        let recovered = self.recover(backup.taken).await?;
        let seed = self.chance.next();
        [self.service, self.shaky] = services(&self.shared, &self.world, seed);
        {
            let mut known = self.shared.network.known();
            let now = self.shared.clock.now();
            known.restored = Some((backup.taken, now));
            known.acknowledged = backup.acknowledged;
            // What operators did since is lost with the rest: they are told to do it again.
            known.suppressed.clear();
            known.operators.forget(now);
            known.again.forget(backup.taken);
        }
        self.canceled = backup.canceled;
        self.fire("restore");
        self.tell(format!("restored: {recovered:?}"));
        self.start_missing();
        Ok(())
    }
}
