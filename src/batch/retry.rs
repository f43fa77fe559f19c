//! Sending some recipients again: first whom, and what it would come to, then exactly these.

use serde::{Deserialize, Serialize};

use super::estimate::{Estimate, Offer, Places, add, bills, estimate, rate};
use super::orders::lanes_of;
use super::service::{Answer, SmsBatchService, not_allowed, order_id, refused};
use crate::model::batch::{BatchRow, Command};
use crate::model::code::{Code, Fault};
use crate::model::id::{BatchId, LaneKey};
use crate::model::limits::ORDER_NUMBERS_MAX;
use crate::model::order::{OrderRefusal, RetryWhat};
use crate::model::schedule::LateStart;
use crate::model::time::Timestamp;
use crate::model::window::RetryEntry;
use crate::ports::StoreError;
use crate::runtime::control::change;
use crate::runtime::digest::{digest, hex};
use crate::runtime::kept;
use crate::runtime::mutation::{self, Bug};

/// An order to send some recipients again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryRequest {
    /// Whom.
    pub what: RetryWhat,
    /// Until when they may be sent: needed once the batch's own limit has passed.
    #[serde(default)]
    pub not_after: Option<Timestamp>,
}

/// Whom a retry would send again, and what that would come to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryPlan {
    /// The batch.
    pub batch: BatchId,
    /// Names the plan: the retry that is ordered with it sends exactly these.
    pub plan_hash: String,
    /// Recipients who would be sent again.
    pub recipients: u64,
    /// Of these, recipients of whom only those parts are sent that nobody took.
    pub partly: u64,
    /// What they come to.
    pub estimate: Estimate,
    /// Segments a second of all accounts of the batch's provider type.
    pub rate: f64,
    /// Seconds to send them at this rate; `None` while nobody knows it.
    pub eta_seconds: Option<f64>,
}

impl SmsBatchService {
    /// Whom a retry would send again. Reads the batch's history, lane by lane; changes nothing.
    ///
    /// # Errors
    /// [`Code::NotAllowed`] with the state, [`Code::InputInvalid`], or the store's.
    pub async fn plan_retry(&self, batch: BatchId, what: &RetryWhat, offers: &[Offer]) -> Result<RetryPlan, Fault> {
        let row = self.load(batch).await?.row;
        self.can_retry(&row).await?;
        check(what)?;
        let mut bills = bills(offers, &row.batch.provider_type);
        let (mut recipients, mut partly, mut named) = (0, 0, Vec::new());
        for key in lanes_of(&row, what) {
            let entries = self.name(&row, key, what).await?;
            named.extend(named_hash(key, &entries));
            let places = Places { manifest: 0..0, entries };
            let counted = add(&self.stores, &row.batch, key, &places, &mut [&mut bills]).await?;
            (recipients, partly) = (recipients + counted.0, partly + counted.1);
        }
        let (estimate, rate) = (estimate(&bills), rate(offers, &row.batch.provider_type));
        Ok(RetryPlan {
            batch,
            plan_hash: plan_hash(&row, what, &named)?,
            recipients,
            partly,
            eta_seconds: (rate > 0.0).then(|| estimate.segments as f64 / rate),
            estimate,
            rate,
        })
    }

    /// Sends some recipients of a batch that has ended again. With a plan hash, exactly that plan. Nobody whom an account took,
    /// or may have taken, is sent again. `order` is the caller's key for it: the same again changes nothing more.
    ///
    /// # Errors
    /// [`Code::PlanChanged`] with the hash of the plan as it is now, [`Code::IdempotencyConflict`] when the key was used for
    /// another order, [`Code::NotAllowed`] when the state forbids it or `not_after` has passed, or the store's. After a
    /// store's error the order may have been given: give it again with the same key.
    pub async fn retry(
        &self,
        batch: BatchId,
        request: &RetryRequest,
        plan_hash_seen: Option<&str>,
        order: &str,
    ) -> Result<Answer, Fault> {
        order_id(order)?;
        check(&request.what)?;
        let text = serde_json::to_vec(request).map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
        let request_digest = hex(&digest([b"retry".as_slice(), &text]));
        loop {
            let row = self.load(batch).await?.row;
            match row.orders.check(order, &request_digest) {
                Ok(()) => {}
                Err(OrderRefusal::Already) => return self.ordered(batch, order, true).await,
                Err(refusal) => return Err(refused(&row, refusal)),
            }
            self.can_retry(&row).await?;
            let now = self.world.clock.now();
            let limit = request.not_after.or(row.batch.not_after);
            if limit.is_some_and(|limit| limit < now) && (row.batch.late_start != LateStart::Send || request.not_after.is_some())
            {
                let text = "not_after has passed: nobody would be sent; give the retry a not_after of its own";
                return Err(Fault::new(Code::NotAllowed, text));
            }
            if let Some(seen) = plan_hash_seen {
                self.check_plan(&row, &request.what, seen).await?;
            }
            let changed = change(&*self.stores.batches, batch, &*self.world.chance, |current| {
                if current.row.task_number != row.task_number {
                    return Err(None);
                }
                let (what, not_after) = (request.what.clone(), request.not_after);
                current.row.order_retry(order, &request_digest, what, not_after, now).map_err(Some)
            });
            match changed.await {
                Ok(Ok(_)) => return self.ordered(batch, order, false).await,
                // Another command or retention came first, or nobody can tell: decide afresh on what is stored.
                Ok(Err(None | Some(OrderRefusal::Already | OrderRefusal::State(_)))) | Err(StoreError::Unknown(_)) => {}
                Ok(Err(Some(refusal))) => return Err(refused(&row, refusal)),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Checks that a batch may be retried: its state, and that everything is there by which whom it names is known.
    async fn can_retry(&self, row: &BatchRow) -> Result<(), Fault> {
        not_let_go(row)?;
        row.can(Command::Retry).map_err(|refusal| not_allowed(row, refusal))?;
        not_restored(row)?;
        let Some(missing) = kept::missing(&self.stores, row).await? else { return Ok(()) };
        let context = format!(
            "{missing}: nobody can tell who of batch {} was sent, and nobody of it is sent again. It is lost, or an earlier version \
             let go of it; create a new batch for those who are to get the message",
            row.batch.batch_id
        );
        Err(Fault::new(Code::NotAllowed, context))
    }

    async fn check_plan(&self, row: &BatchRow, what: &RetryWhat, seen: &str) -> Result<(), Fault> {
        let mut named = Vec::new();
        for key in lanes_of(row, what) {
            named.extend(named_hash(key, &self.name(row, key, what).await?));
        }
        let hash = plan_hash(row, what, &named)?;
        if hash != seen {
            let context = format!("{seen} was approved, the plan of this retry of batch {} is {hash}", row.batch.batch_id);
            return Err(Fault::new(Code::PlanChanged, context));
        }
        Ok(())
    }

    async fn name(&self, row: &BatchRow, key: LaneKey, what: &RetryWhat) -> Result<Vec<RetryEntry>, StoreError> {
        let named = self.select.select(row, key, what, row.orders.retries.saturating_add(1)).await?;
        Ok(named.into_iter().map(|named| named.entry).collect())
    }
}

/// Who was refused or not sent at the time of a backup may have been sent by an order that was lost with what came behind it.
fn not_restored(row: &BatchRow) -> Result<(), Fault> {
    let Some(since) = row.restored_to.filter(|_| !mutation::is_on(Bug::RetryRestored)) else { return Ok(()) };
    let context = format!(
        "batch {} was restored from a backup of {since}: whoever it says was refused or not sent may have been sent since. List them \
         (`smsfleet recipients`), ask the provider about them, and create a new batch for those who did not get it",
        row.batch.batch_id
    );
    Err(Fault::new(Code::NotAllowed, context))
}

/// Without its history everybody looks as if never sent, and without its texts nobody can be named.
fn not_let_go(row: &BatchRow) -> Result<(), Fault> {
    if row.let_go.is_nothing() {
        return Ok(());
    }
    let context = format!(
        "retention has let go of the texts or the history of batch {}: nobody can tell any more who of it was sent. Create a new \
         batch for those who are to get the message; retention.texts_days and retention.history_days say how long a batch can be \
         retried",
        row.batch.batch_id
    );
    Err(Fault::new(Code::NotAllowed, context))
}

fn check(what: &RetryWhat) -> Result<(), Fault> {
    match what.numbers() {
        Some(numbers) if numbers.len() > ORDER_NUMBERS_MAX => {
            Err(Fault::new(Code::InputInvalid, format!("a retry names {ORDER_NUMBERS_MAX} numbers at most")))
        }
        _ => Ok(()),
    }
}

/// A digest of whom a lane names.
fn named_hash(key: LaneKey, entries: &[RetryEntry]) -> [u8; 32] {
    let people: Vec<u8> =
        entries.iter().flat_map(|entry| (u64::from(entry.seq) << 32 | u64::from(entry.parts)).to_be_bytes()).collect();
    digest([[key.lane].as_slice(), &people])
}

/// A name for everything that decides whom a retry sends: the batch and its dispatch, what was asked for, and whom each lane
/// names.
fn plan_hash(row: &BatchRow, what: &RetryWhat, named: &[u8]) -> Result<String, Fault> {
    let asked = serde_json::to_vec(&(row.batch.batch_id, row.task_number, &row.batch.provider_type, what));
    let asked = asked.map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
    Ok(hex(&digest([asked.as_slice(), named])[..8]))
}
