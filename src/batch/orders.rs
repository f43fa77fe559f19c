//! Carrying orders out: in every lane once, whoever begins, repeats or finishes it.
//!
//! The batch's row carries the order while it is pending, and a pending batch is not dispatched. Each lane's ledger says whether
//! the order was carried out there, by the same compare-and-set that does it. So a command may die at any point: the leader
//! finishes what is pending, and two who do it at once do it once.

use std::collections::BTreeMap;
use std::time::Duration;

use super::service::SmsBatchService;
use crate::model::batch::BatchRow;
use crate::model::id::{BatchId, LaneKey};
use crate::model::lane::lane_of;
use crate::model::ledger::{LedgerRefusal, Leg};
use crate::model::order::{Order, RetryWhat, Work};
use crate::model::window::{RetryEntry, RetryPack};
use crate::ports::StoreError;
use crate::runtime::control::{change, load_row};
use crate::runtime::fence::fence;
use crate::runtime::job::{Job, Unreadable};
use crate::runtime::mutation::{self, Bug};
use crate::runtime::retry::{Schedule, store};

/// How long a pending order is left to the command that gave it.
const LEFT_ALONE: Duration = Duration::from_secs(10);

/// How often a write is tried before the order is left to the leader's next round.
const TRIES: u32 = 6;

/// What an order came to in a lane.
enum InLane {
    /// It is carried out there, now or before.
    Done,
    /// The batch was ended since.
    Ended,
    /// The lane changed while its recipients were named: name them again.
    Again,
}

impl SmsBatchService {
    /// Carries the batch's pending order out to its end; nothing when there is none.
    pub(super) async fn carry_out(&self, batch: BatchId) -> Result<(), StoreError> {
        let Some(row) = load_row(&*self.stores.batches, batch, &*self.world.chance).await? else { return Ok(()) };
        let Some(order) = row.row.orders.pending.clone() else { return Ok(()) };
        let recipients = match &order.work {
            Work::ChangeProvider { .. } if mutation::is_on(Bug::NoFenceOnProvider) => None,
            Work::ChangeProvider { .. } => {
                let lanes = self.stores.ledgers.list(batch).await?;
                let (ledgers, chance) = (&*self.stores.ledgers, &*self.world.chance);
                fence(ledgers, chance, lanes, |read| read.row.fence_provider(order.task_number, read.version)).await?;
                None
            }
            Work::Retry { what, round, .. } => Some(self.append(&row.row, &order, what, *round).await?),
        };
        loop {
            let carried = change(&*self.stores.batches, batch, &*self.world.chance, |current| {
                current.row.order_carried(&order.id, recipients).ok_or(())
            });
            match carried.await {
                // Overtaken while unanswered: look again whether it is pending still.
                Err(StoreError::Unknown(_)) => {}
                Err(error) => return Err(error),
                Ok(_) => break,
            }
        }
        self.wake.notify_one();
        Ok(())
    }

    /// Appends an order's recipients to each lane that may have some. Returns how many they are over all lanes.
    async fn append(&self, row: &BatchRow, order: &Order, what: &RetryWhat, round: u8) -> Result<u64, StoreError> {
        let mut recipients = 0;
        for key in lanes_of(row, what) {
            loop {
                match self.append_in(row, order, what, round, key).await? {
                    InLane::Again => {}
                    InLane::Ended => return Ok(recipients),
                    InLane::Done => break,
                }
            }
            let ledger = load_row(&*self.stores.ledgers, key, &*self.world.chance).await?;
            let mine = ledger.filter(|ledger| ledger.row.order == u32::from(round));
            recipients += mine.map_or(0, |ledger| u64::from(ledger.row.ordered));
        }
        Ok(recipients)
    }

    async fn append_in(
        &self,
        row: &BatchRow,
        order: &Order,
        what: &RetryWhat,
        round: u8,
        key: LaneKey,
    ) -> Result<InLane, StoreError> {
        let Some(read) = load_row(&*self.stores.ledgers, key, &*self.world.chance).await? else { return Ok(InLane::Done) };
        let now = self.world.clock.now();
        match read.row.append(u32::from(round), order.task_number, &[]) {
            Err(LedgerRefusal::OutOfDate) => return Ok(InLane::Ended),
            Err(_) => return Ok(InLane::Done),
            Ok(_) => {}
        }
        // Rests of messages are apart, by the account that took the other parts.
        let mut packs: BTreeMap<Option<String>, Vec<RetryEntry>> = BTreeMap::new();
        for named in self.select.select(row, key, what, round).await? {
            packs.entry(named.account).or_default().push(named.entry);
        }
        let mut legs = Vec::with_capacity(packs.len());
        for (account, entries) in packs {
            let (name, pack) = (self.world.chance.next().max(1), RetryPack { entries });
            let patiently =
                Schedule::new(Duration::from_millis(20), Duration::from_secs(1), self.world.chance.next()).up_to(TRIES);
            store(patiently, || self.stores.windows.put_retry(key, name, &pack)).await?;
            legs.push(Leg { account, ..Leg::new(name, pack.entries.len() as u32, now) });
        }
        let appended = change(&*self.stores.ledgers, key, &*self.world.chance, |current| {
            // Who is named was read of this version, and of no other.
            if current.version != read.version {
                return Err(InLane::Again);
            }
            let mut row = current.row.append(u32::from(round), order.task_number, &legs).map_err(|_| InLane::Again)?;
            if mutation::is_on(Bug::DropOrderedLeg) {
                row.legs.retain(|leg| legs.iter().all(|new| new.id != leg.id));
            }
            Ok(row)
        });
        match appended.await {
            Ok(Ok(_)) => Ok(InLane::Done),
            Ok(Err(again)) => Ok(again),
            Err(StoreError::Unknown(_)) => Ok(InLane::Again),
            Err(error) => Err(error),
        }
    }
}

/// The lanes that may have recipients an order names.
pub(super) fn lanes_of(row: &BatchRow, what: &RetryWhat) -> Vec<LaneKey> {
    let mut lanes: Vec<u8> = match what.numbers() {
        Some(numbers) if row.lanes.is_power_of_two() => numbers.iter().map(|number| lane_of(*number, row.lanes)).collect(),
        _ => (0..row.lanes).map(|lane| lane as u8).collect(),
    };
    lanes.sort_unstable();
    lanes.dedup();
    lanes.into_iter().map(|lane| LaneKey { batch: row.batch.batch_id, lane }).collect()
}

/// The leader's job that finishes orders whose command died.
pub struct OrderCompletion {
    service: SmsBatchService,
    unreadable: Unreadable,
}

impl OrderCompletion {
    /// Finishes what `service` could have begun.
    pub fn new(service: SmsBatchService) -> OrderCompletion {
        OrderCompletion { service, unreadable: Unreadable::default() }
    }
}

#[async_trait::async_trait]
impl Job for OrderCompletion {
    fn name(&self) -> &'static str {
        "order_completion"
    }

    async fn run_once(&self) -> Result<bool, StoreError> {
        let (stores, now) = (&self.service.stores, self.service.world.clock.now());
        let mut changed = false;
        for batch in stores.batch_index.active().await? {
            let Some(row) = self.unreadable.row(self.name(), stores, batch).await? else { continue };
            if row.orders.pending.as_ref().is_some_and(|order| now.since(order.at) >= LEFT_ALONE) {
                tracing::warn!(%batch, "an order was left unfinished; it is finished now");
                let carried = self.service.carry_out(batch).await;
                changed |= self.unreadable.pass_over(self.name(), batch, carried)?.is_some();
            }
        }
        Ok(changed)
    }
}
