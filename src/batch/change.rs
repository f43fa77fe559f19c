//! Changing the provider type half-way: first what it would come to, then exactly that.

use serde::{Deserialize, Serialize};

use super::estimate::{Bill, Estimate, Offer, Places, add, bills, estimate, rate};
use super::service::{Answer, SmsBatchService, not_allowed, order_id, refused};
use crate::model::batch::{BatchRow, Command, SmsBatch};
use crate::model::code::{Code, Fault};
use crate::model::id::{BatchId, LaneKey};
use crate::model::ledger::Ledger;
use crate::model::order::OrderRefusal;
use crate::model::step::CurrentStep;
use crate::ports::StoreError;
use crate::ports::control::Versioned;
use crate::runtime::control::change;
use crate::runtime::digest::{digest, hex};

/// What a change of provider would come to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangePlan {
    /// The batch.
    pub batch: BatchId,
    /// Names the plan: the change that is committed with it is this one.
    pub plan_hash: String,
    /// The provider type now.
    pub from: String,
    /// The provider type then.
    pub to: String,
    /// What is left, counted; `None` before anything was prepared.
    pub counts: Option<ChangeCounts>,
    /// What stands against it. Recipients who cannot be sent there will fail with a code.
    pub conflicts: Vec<Conflict>,
    /// Segments a second of all accounts of the new type.
    pub rate: f64,
}

/// What is left to send, at the new accounts and at the old ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangeCounts {
    /// Recipients that were not declared yet.
    pub unsent: u64,
    /// Recipients still in flight at the old accounts. Who of them is refused for now goes through the new ones.
    pub in_flight: u64,
    /// What the unsent come to at the new accounts.
    pub then: Estimate,
    /// What they would come to at the old ones.
    pub now: Estimate,
    /// Seconds to send them at the new rate; `None` while nobody knows it.
    pub eta_seconds: Option<f64>,
}

/// Something that an account of the new type does otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// What it is about.
    pub kind: ConflictKind,
    /// The account.
    pub account: String,
    /// What it means, in a sentence.
    pub text: String,
    /// Recipients it concerns; `None` before anything was prepared.
    pub recipients: Option<u64>,
}

/// What a conflict is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictKind {
    /// Who puts the signature before the text.
    Signature,
    /// Links of the recipients' own.
    Links,
    /// Digits behind the sender's number.
    ExtCode,
    /// Parts of long messages.
    Parts,
    /// Sending hours.
    Hours,
}

type Lanes = Vec<(LaneKey, Versioned<Ledger>)>;

impl SmsBatchService {
    /// What sending the rest of a batch through the provider type `to` would come to. Reads every text that is left, pack by
    /// pack; changes nothing. `offers` are all configured accounts.
    ///
    /// # Errors
    /// [`Code::NotAllowed`] with the state, [`Code::AccountUnknown`] for a type without accounts, [`Code::InputInvalid`] when
    /// it goes through this type already, or the store's.
    pub async fn plan_change(&self, batch: BatchId, to: &str, offers: &[Offer]) -> Result<ChangePlan, Fault> {
        let row = self.load(batch).await?.row;
        row.can(Command::ChangeProvider).map_err(|refusal| not_allowed(&row, refusal))?;
        check_type(&row, to, offers)?;
        let lanes = self.stores.ledgers.list(batch).await?;
        let (mut then, mut now) = (bills(offers, to), bills(offers, &row.batch.provider_type));
        let mut counts = None;
        let (mut unsent, mut partly) = (0, 0);
        if row.current_step == CurrentStep::Delivery {
            for (key, ledger) in &lanes {
                let counted = self.count(&row.batch, *key, &ledger.row, &mut then, &mut now).await?;
                (unsent, partly) = (unsent + counted.0, partly + counted.1);
            }
            let rate = rate(offers, to);
            let there = estimate(&then);
            counts = Some(ChangeCounts {
                unsent,
                in_flight: lanes.iter().map(|(_, ledger)| ledger.row.in_flight()).sum(),
                eta_seconds: (rate > 0.0).then(|| there.segments as f64 / rate),
                then: there,
                now: estimate(&now),
            });
        }
        let signed_here = now.iter().any(|bill| bill.can.add_signature);
        Ok(ChangePlan {
            batch,
            plan_hash: plan_hash(&row, to, offers, &lanes)?,
            from: row.batch.provider_type.clone(),
            to: to.to_owned(),
            conflicts: self.conflicts(&row.batch, &then, signed_here, counts.as_ref().map(|_| (unsent, partly))),
            counts,
            rate: rate(offers, to),
        })
    }

    /// Sends the rest of a batch through the provider type `to`, if the plan is still the one with this hash. When this
    /// returns, nothing is declared for the old accounts any more. `order_id` is the caller's key for it: the same again
    /// changes nothing more.
    ///
    /// # Errors
    /// [`Code::PlanChanged`] with the hash of the plan as it is now, [`Code::IdempotencyConflict`] when the key was used for
    /// another order, else as for [`plan_change`](SmsBatchService::plan_change).
    pub async fn change_provider(
        &self,
        batch: BatchId,
        to: &str,
        plan_hash_seen: &str,
        offers: &[Offer],
        order: &str,
    ) -> Result<Answer, Fault> {
        order_id(order)?;
        let request = hex(&digest([b"change_provider".as_slice(), to.as_bytes()]));
        loop {
            let row = self.load(batch).await?.row;
            match row.orders.check(order, &request) {
                Ok(()) => {}
                Err(OrderRefusal::Already) => return self.ordered(batch, order, true).await,
                Err(refusal) => return Err(refused(&row, refusal)),
            }
            row.can(Command::ChangeProvider).map_err(|refusal| not_allowed(&row, refusal))?;
            check_type(&row, to, offers)?;
            let lanes = self.stores.ledgers.list(batch).await?;
            let hash = plan_hash(&row, to, offers, &lanes)?;
            if hash != plan_hash_seen {
                let context = format!("{plan_hash_seen} was approved, the plan of changing batch {batch} to {to} is {hash}");
                return Err(Fault::new(Code::PlanChanged, context));
            }
            let now = self.world.clock.now();
            let changed = change(&*self.stores.batches, batch, &*self.world.chance, |current| {
                if current.row.task_number != row.task_number {
                    return Err(None);
                }
                let mut next = current.row.order_change(order, &request, to, now).map_err(Some)?;
                // Whoever approved what was to be sent before has not approved this.
                if let Some(sealed) = &mut next.sealed {
                    sealed.plan_hash = hash.clone();
                }
                Ok(next)
            });
            match changed.await {
                Ok(Ok(_)) => return self.ordered(batch, order, false).await,
                // Another command came first, or nobody can tell: decide afresh on what is stored.
                Ok(Err(None | Some(OrderRefusal::Already))) | Err(StoreError::Unknown(_)) => {}
                Ok(Err(Some(refusal))) => return Err(refused(&row, refusal)),
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn count(
        &self,
        batch: &SmsBatch,
        key: LaneKey,
        ledger: &Ledger,
        then: &mut [Bill],
        now: &mut [Bill],
    ) -> Result<(u64, u64), StoreError> {
        let places = Places::undeclared(&self.stores, key, ledger).await?;
        add(&self.stores, batch, key, &places, &mut [then, now]).await
    }

    /// What stands against sending through these accounts. `left` are the unsent recipients, and those of them who had some
    /// parts taken.
    fn conflicts(&self, batch: &SmsBatch, bills: &[Bill], signed_here: bool, left: Option<(u64, u64)>) -> Vec<Conflict> {
        let mut found = Vec::new();
        let all = left.map(|(unsent, _)| unsent);
        let now = self.world.clock.now();
        for (bill, account) in bills.iter().flat_map(|bill| bill.accounts.iter().map(move |account| (bill, account))) {
            let mut say = |kind, recipients: Option<u64>, text: String| {
                found.push(Conflict { kind, account: account.name.clone(), text, recipients });
            };
            let signed = !batch.content_signature.is_empty();
            if signed && signed_here && !bill.can.add_signature {
                say(
                    ConflictKind::Signature,
                    all,
                    "the provider puts its own signature before the text; the batch's is left out".into(),
                );
            }
            if bill.against.signed_twice > 0 {
                let text = "the text begins with a signature, and the provider puts another before it";
                say(ConflictKind::Signature, Some(bill.against.signed_twice), text.into());
            }
            if bill.against.links > 0 || left.is_none() && batch.contains_url() && !bill.can.links {
                let recipients = left.map(|_| bill.against.links);
                say(ConflictKind::Links, recipients, "links of the recipients' own are not allowed: they will fail".into());
            }
            if batch.ext_code.len() > usize::from(bill.can.ext_code_max) {
                let text = format!(
                    "ext_code has {} digits, {} are allowed: they will fail",
                    batch.ext_code.len(),
                    bill.can.ext_code_max
                );
                say(ConflictKind::ExtCode, all, text);
            }
            if bill.against.parts > 0 {
                let text = format!("the message takes more than {} parts: they will fail", bill.can.parts_max);
                say(ConflictKind::Parts, Some(bill.against.parts), text);
            }
            if let Some((_, partly)) = left.filter(|(_, partly)| *partly > 0) {
                let text = "some parts were taken by the old provider, and a handset cannot put them together with others: they will fail";
                say(ConflictKind::Parts, Some(partly), text.into());
            }
            if let Some(hours) = &account.hours
                && !self.world.clock.minute_of_day(&hours.zone, now).is_some_and(|minute| hours.allow(minute))
            {
                say(ConflictKind::Hours, all, format!("it sends from {hours}, which is not now"));
            }
        }
        found
    }
}

fn check_type(row: &BatchRow, to: &str, offers: &[Offer]) -> Result<(), Fault> {
    if !offers.iter().any(|offer| offer.account.provider_type == to) {
        return Err(Fault::new(Code::AccountUnknown, format!("no account of provider type {to} is configured")));
    }
    if row.batch.provider_type == to {
        return Err(Fault::new(Code::InputInvalid, format!("the batch goes through provider type {to} already")));
    }
    Ok(())
}

/// A name for everything that decides what a change comes to: the batch and its dispatch, the accounts' abilities and prices,
/// and what every lane has left.
fn plan_hash(row: &BatchRow, to: &str, offers: &[Offer], lanes: &Lanes) -> Result<String, Fault> {
    let mut accounts: Vec<_> = offers
        .iter()
        .map(|offer| &offer.account)
        .filter(|account| account.provider_type == to)
        .map(|account| (&account.name, &account.capabilities, account.price, &account.currency))
        .collect();
    accounts.sort_by_key(|account| account.0);
    let left = |ledger: &Ledger| -> Vec<(u64, u32, u32)> {
        let legs = ledger.legs.iter().filter(|leg| leg.declared < leg.len);
        legs.map(|leg| (leg.id, leg.len, leg.declared)).collect()
    };
    let lanes: Vec<_> = lanes.iter().map(|(key, ledger)| (key.lane, left(&ledger.row))).collect();
    let all = (row.batch.batch_id, row.task_number, &row.batch.provider_type, to, accounts, lanes);
    let text = serde_json::to_vec(&all).map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
    Ok(hex(&digest([text.as_slice()])[..8]))
}
