//! Operators who change the provider and send again at bad moments, and what they may expect of what arrives at the accounts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use smsfleet::batch::{Answer, RetryRequest};
use smsfleet::model::batch::Command;
use smsfleet::model::code::Code;
use smsfleet::model::id::{BatchId, Msisdn};
use smsfleet::model::order::{RetryFilter, RetryWhat};
use smsfleet::model::outcome::Outcome as Ends;
use smsfleet::model::state::StepState;
use smsfleet::model::step::CurrentStep;
use smsfleet::model::time::Timestamp;
use smsfleet::ports::clock::Chance;
use smsfleet::statistics::RecipientLine;

use super::oracle::{digits, key_of, lines};
use super::process::offers;
use super::run::Run;
use super::source::VERSIONS;

/// How long an operator waits for an answer before he goes away, in milliseconds.
pub(super) const PATIENCE: [u64; 4] = [5, 50, 200, 20_000];

/// How long a write may be on its way whose sender went away.
const ON_ITS_WAY: Duration = Duration::from_secs(4);

/// What the operators did, as a witness keeps it.
#[derive(Default)]
pub struct Operators {
    /// By batch: orders to send again.
    orders: BTreeMap<String, Vec<Order>>,
    /// Parts that were refused for good, and how many orders there were then.
    refused: BTreeMap<(String, u8), usize>,
    /// Paused batches: nothing arrives after the instant, and no more recipients than so many before.
    paused: BTreeMap<String, (Timestamp, u64, BTreeSet<String>)>,
    /// By batch: from the answer to each pause or cancel on, until it went on again.
    still: BTreeMap<BatchId, Vec<(Timestamp, Option<Timestamp>)>>,
    /// By batch: nothing arrives before that.
    not_before: BTreeMap<String, Timestamp>,
    /// By batch: what may have become of its provider, and when.
    changes: BTreeMap<BatchId, Vec<(Timestamp, Change)>>,
    /// By batch: orders to send the refused again that nothing is in the way of.
    in_peace: BTreeMap<String, Peace>,
}

/// An order to send again.
struct Order {
    at: Timestamp,
    /// The numbers it named, `None` for all who were refused, or not sent.
    numbers: Option<BTreeSet<u64>>,
}

impl Order {
    fn names(&self, number: u64) -> bool {
        self.numbers.as_ref().is_none_or(|numbers| numbers.contains(&number))
    }
}

/// What a recipient's name is made of.
fn batch_and_number(recipient: &str) -> (&str, u64) {
    let (batch, number) = recipient.split_once("/+").expect("a batch and a number");
    (batch, number.parse().expect("digits"))
}

/// What is known of a batch's provider type from an instant on.
enum Change {
    /// It may have been changed.
    Perhaps(String),
    /// It is changed, and all lanes know.
    Surely(String),
    /// The store is as it was at a backup.
    Restored,
}

/// An order to send the refused again, with nothing in the way.
struct Peace {
    /// Whoever the list said has failed.
    failed: BTreeSet<String>,
    /// How many of them the order named.
    recipients: u64,
    /// Of those, whoever must not get anything any more.
    suppressed: BTreeSet<String>,
    /// Who was sent to since.
    arrived: BTreeSet<String>,
}

impl Operators {
    /// A part arrives at an account; `refused` when the account refuses it for good, `is_asked` when its batch asks that it is sent
    /// again, whatever came of it before.
    pub fn arrives(
        &mut self,
        recipient: &str,
        part: u8,
        refused: bool,
        is_asked: bool,
        now: Timestamp,
    ) -> Result<(), &'static str> {
        let (batch, number) = batch_and_number(recipient);
        if self.not_before.get(batch).is_some_and(|from| now < *from) {
            return Err("handed over before its time, or before anybody started it");
        }
        let orders = self.orders.get(batch).map(Vec::as_slice).unwrap_or_default();
        if let Some(peace) = self.in_peace.get_mut(batch) {
            peace.arrived.insert(recipient.to_owned());
        }
        let key = (recipient.to_owned(), part);
        if let Some(before) = self.refused.get(&key)
            && !is_asked
            && !orders[*before..].iter().any(|order| order.names(number))
        {
            return Err("handed over after it was refused for good, and nobody ordered that");
        }
        if refused {
            self.refused.insert(key, orders.len());
        }
        if let Some((until, most, seen)) = self.paused.get_mut(batch) {
            if now > *until {
                return Err("handed over later than the pause allows");
            }
            seen.insert(recipient.to_owned());
            if seen.len() as u64 > *most {
                return Err("handed over beyond what the pause allows");
            }
        }
        Ok(())
    }

    /// Nothing of a batch is sent before that.
    pub fn waits(&mut self, batch: BatchId, until: Timestamp) {
        self.not_before.insert(batch.to_string(), until);
    }

    /// A pause, or a cancel, was answered `now`.
    pub fn paused(&mut self, batch: BatchId, now: Timestamp, until: Timestamp, most: u64) {
        self.still.entry(batch).or_default().push((now, None));
        self.paused.insert(batch.to_string(), (until, most, BTreeSet::new()));
    }

    /// An order to send again: these numbers, or all who were refused. Whatever was paused goes on.
    pub fn retried(&mut self, batch: BatchId, numbers: Option<BTreeSet<u64>>, now: Timestamp) {
        self.goes_on(batch, now);
        self.orders.entry(batch.to_string()).or_default().push(Order { at: now, numbers });
    }

    /// Whether an order to send somebody again had been given by an instant.
    pub fn ordered_by(&self, recipient: &str, at: Timestamp) -> bool {
        let (batch, number) = batch_and_number(recipient);
        self.orders.get(batch).into_iter().flatten().any(|order| order.at <= at && order.names(number))
    }

    /// The store that knew of it was lost: what was paused or changed since the backup may be as it was.
    pub fn forget(&mut self, now: Timestamp) {
        self.paused.clear();
        self.still.values_mut().for_each(|times| end(times, now));
        self.changes.values_mut().for_each(|changes| changes.push((now, Change::Restored)));
    }

    /// From before an order on that lets it go on.
    pub fn goes_on(&mut self, batch: BatchId, now: Timestamp) {
        self.paused.remove(&batch.to_string());
        self.still.entry(batch).and_modify(|times| end(times, now));
    }

    /// Whether nothing may be declared at an instant.
    pub fn stands_at(&self, batch: BatchId, at: Timestamp) -> bool {
        let mut times = self.still.get(&batch).into_iter().flatten();
        times.any(|(from, until)| at > *from && until.is_none_or(|until| at < until))
    }

    /// Whether somebody tried to change a batch's provider.
    pub fn changed(&self, batch: BatchId) -> bool {
        self.changes.contains_key(&batch)
    }

    /// A change of provider is carried out in all lanes.
    pub fn carried(&mut self, batch: BatchId, to: String, now: Timestamp) {
        self.changes.entry(batch).or_default().push((now, Change::Surely(to)));
    }

    /// Provider types that a window may have been declared for at this instant.
    pub fn types_at(&self, batch: BatchId, at: Timestamp) -> BTreeSet<String> {
        let mut allowed = BTreeSet::from(["sim".to_owned()]);
        let mut all = allowed.clone();
        let mut changes: Vec<_> = self.changes.get(&batch).into_iter().flatten().collect();
        changes.sort_by_key(|(when, _)| *when);
        for (when, change) in changes {
            match change {
                Change::Perhaps(to) if *when <= at => {
                    allowed.insert(to.clone());
                    all.insert(to.clone());
                }
                Change::Surely(to) if *when < at => allowed = BTreeSet::from([to.clone()]),
                Change::Restored if *when < at => allowed.clone_from(&all),
                Change::Perhaps(_) | Change::Surely(_) | Change::Restored => {}
            }
        }
        allowed
    }

    /// Whoever was refused and is sent again in peace got it, and nobody else did.
    pub fn check_peace(&self, batch: BatchId) -> Result<(), String> {
        let Some(peace) = self.in_peace.get(&batch.to_string()) else { return Ok(()) };
        if let Some(stranger) = peace.arrived.difference(&peace.failed).next() {
            return Err(format!("sent again, though it had not failed: {stranger}"));
        }
        let (got, named) = (peace.arrived.len() as u64, peace.recipients);
        let kept_back = peace.suppressed.difference(&peace.arrived).count() as u64;
        if got > named || got + kept_back < named {
            return Err(format!("batch {batch}: {named} were to be sent again in peace, and {got} were: {:?}", peace.failed));
        }
        Ok(())
    }
}

fn end(times: &mut [(Timestamp, Option<Timestamp>)], now: Timestamp) {
    times.iter_mut().for_each(|(_, until)| *until = until.or(Some(now)));
}

impl Run {
    fn order_id(&mut self) -> String {
        self.orders += 1;
        format!("order{}", self.orders)
    }

    /// Gives a command; half of the time over a store with troubles, and the operator may go away before it is answered, and may
    /// give it again. `None` where it was refused, or nobody heard what came of it.
    pub(super) async fn give(&mut self, id: BatchId, command: Command) -> Option<Answer> {
        let draw = self.chance.next();
        if draw.is_multiple_of(2) {
            return self.service.command(id, command).await.ok();
        }
        let most = Duration::from_millis(PATIENCE[(draw >> 1) as usize % 4]);
        match tokio::time::timeout(most, self.shaky.command(id, command)).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(fault)) if fault.code == Code::NotAllowed => return None,
            Ok(Err(_)) | Err(_) => {}
        }
        match command {
            Command::Pause => self.fire("pause interrupted"),
            Command::Cancel => self.fire("cancel interrupted"),
            _ => {
                self.fire("resume interrupted");
                self.unheard.insert(id, self.shared.clock.now());
            }
        }
        self.tell(format!("nobody hears what comes of {command:?} {id}"));
        if (draw >> 3).is_multiple_of(2) { self.service.command(id, command).await.ok() } else { None }
    }

    /// Whether a pause stands from its answer on: a command that lets the batch go on and was never answered may come behind one that
    /// changed nothing.
    pub(super) fn stands(&self, id: BatchId, pause: &Answer) -> bool {
        let still = self.unheard.get(&id).is_none_or(|at| at.plus(ON_ITS_WAY) < self.shared.clock.now());
        !pause.already || still
    }

    /// Starts batches that wait for a person: as soon as they can be, or a little later; perhaps as the plan that was seen, perhaps
    /// interrupted.
    pub(super) async fn start_what_waits(&mut self) -> Result<(), String> {
        for (id, batch) in self.batches.clone() {
            if batch.auto_trigger {
                continue;
            }
            let row = self.service.load(id).await.map_err(|fault| fault.to_string())?.row;
            let draw = self.chance.next();
            let waits = row.current_step == CurrentStep::Delivery && row.delivery.state == StepState::Initial;
            if !waits || draw.is_multiple_of(8) {
                continue;
            }
            self.shared.network.known().operators.waits(id, batch.schedule_time.unwrap_or(Timestamp(0)));
            let seen = row.sealed.as_ref().map(|sealed| sealed.plan_hash.as_str()).filter(|_| (draw >> 2).is_multiple_of(2));
            let most = Duration::from_millis(PATIENCE[(draw >> 4) as usize % 4]);
            let service = if (draw >> 3).is_multiple_of(2) { &self.service } else { &self.shaky };
            match tokio::time::timeout(most, service.start(id, seen)).await {
                Ok(Ok(_)) => self.fire("start by a person"),
                Ok(Err(fault)) if matches!(fault.code, Code::NotAllowed | Code::PlanChanged) => {}
                Ok(Err(_)) | Err(_) => self.fire("start interrupted"),
            }
            self.tell(format!("somebody starts {id}"));
        }
        Ok(())
    }

    /// Pauses, and does not wait until all lanes know.
    async fn pause_in_a_hurry(&mut self, id: BatchId) -> Result<(), String> {
        let is_paused = async {
            loop {
                let row = self.service.load(id).await.map_err(|fault| fault.to_string())?.row;
                if row.step().state == StepState::Paused {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            biased;
            paused = is_paused => {
                self.fire("pause interrupted");
                paused
            }
            _ = self.shaky.command(id, Command::Pause) => Ok(()),
        }
    }

    /// Plans a change, perhaps lets something come between, commits it, perhaps is interrupted, perhaps sends it again.
    pub(super) async fn change_provider(&mut self, which: usize, draw: u64) -> Result<(), String> {
        let (id, _) = self.batches[which];
        match (draw >> 48) % 4 {
            0 => self.operate(Command::Pause, "pause", which).await,
            1 | 2 => self.pause_in_a_hurry(id).await?,
            _ => {}
        }
        let row = self.service.load(id).await.map_err(|fault| fault.to_string())?.row;
        let to = if row.batch.provider_type == "sim" { "alt" } else { "sim" };
        let Ok(plan) = self.service.plan_change(id, to, &offers()).await else { return Ok(()) };
        match (draw >> 1) % 8 {
            0 | 1 => tokio::time::sleep(Duration::from_millis((draw >> 8) % 3_000)).await,
            // Somebody else lets it go on meanwhile, and it does.
            2 | 3 => {
                self.operate(Command::Resume, "resume", which).await;
                tokio::time::sleep(Duration::from_millis((draw >> 8) % 5_000)).await;
            }
            _ => {}
        }
        let (order, from, offers) = (self.order_id(), self.shared.clock.now(), offers());
        let service = if (draw >> 50).is_multiple_of(2) { &self.service } else { &self.shaky };
        let committing = service.change_provider(id, to, &plan.plan_hash, &offers, &order);
        let most = Duration::from_millis([5, 30, 200, 20_000][(draw >> 4) as usize % 4]);
        let done = match tokio::time::timeout(most, committing).await {
            Ok(Ok(_)) => true,
            Ok(Err(fault)) if matches!(fault.code, Code::PlanChanged | Code::NotAllowed | Code::InputInvalid) => {
                self.fire("change of provider in vain");
                return Ok(());
            }
            Ok(Err(_)) | Err(_) => {
                self.fire("change of provider interrupted");
                // The same order again, perhaps: it is one change.
                (draw >> 6).is_multiple_of(2)
                    && self.service.change_provider(id, to, &plan.plan_hash, &offers, &order).await.is_ok()
            }
        };
        let since = done.then(|| (self.shared.clock.now(), Change::Surely(to.to_owned())));
        let changes = [Some((from, Change::Perhaps(to.to_owned()))), since].into_iter().flatten();
        self.shared.network.known().operators.changes.entry(id).or_default().extend(changes);
        if done {
            self.fire("change of provider");
        }
        self.tell(format!("{id} goes through {to} {}", if done { "from here" } else { "some time" }));
        if (draw >> 7).is_multiple_of(2) {
            self.operate(Command::Resume, "resume", which).await;
        }
        Ok(())
    }

    /// Orders some recipients to be sent again, perhaps by plan, perhaps interrupted, perhaps twice.
    pub(super) async fn retry(&mut self, which: usize, draw: u64) -> Result<(), String> {
        let (id, batch) = self.batches[which].clone();
        let (what, word, numbers) = match draw % 4 {
            0 => {
                let rows = super::source::records(&batch.table_name, VERSIONS[0]);
                let numbers: Vec<u64> = rows
                    .iter()
                    .skip((draw >> 8) as usize % 3)
                    .step_by(3)
                    .filter_map(|(number, _)| number.strip_prefix('+')?.parse().ok())
                    .collect();
                let filter = RetryFilter { numbers: numbers.iter().map(|n| Msisdn(*n)).collect(), ..RetryFilter::default() };
                (RetryWhat::Filter(filter), "retry of numbers", Some(numbers.into_iter().collect()))
            }
            1 => (RetryWhat::Unsent, "retry of the unsent", None),
            _ => (RetryWhat::Failed, "retry of the failed", None),
        };
        let Ok(plan) = self.service.plan_retry(id, &what, &offers()).await else { return Ok(()) };
        let order = self.order_id();
        let witness = |run: &Run| run.shared.network.known().operators.orders.entry(id.to_string()).or_default().len();
        let place = witness(self);
        let now = self.shared.clock.now();
        self.shared.network.known().operators.retried(id, numbers, now);
        // Where the batch has a limit, the order may bring one of its own.
        let own = now.plus(Duration::from_millis(4_000 + (draw >> 40) % 20_000));
        let request = RetryRequest { what, not_after: batch.not_after.and((draw >> 7).is_multiple_of(2).then_some(own)) };
        let by_plan = (draw >> 2).is_multiple_of(2).then_some(plan.plan_hash.as_str());
        let most = Duration::from_millis(PATIENCE[(draw >> 4) as usize % 4]);
        let given = tokio::time::timeout(most, self.shaky.retry(id, &request, by_plan, &order)).await;
        if given.is_err() {
            self.fire("retry interrupted");
        }
        if matches!(given, Ok(Ok(_))) || (draw >> 6).is_multiple_of(2) {
            let again = self.service.retry(id, &request, by_plan, &order).await;
            if let (Ok(Ok(first)), Ok(again)) = (&given, &again)
                && (!again.already || first.ordered != again.ordered)
            {
                return Err(format!("one order was two: {first:?} {again:?}"));
            }
        }
        let row = self.service.load(id).await.map_err(|fault| fault.to_string())?.row;
        let known = row.orders.pending.iter().map(|order| &order.id).chain(row.orders.carried.iter().map(|order| &order.id));
        if known.into_iter().any(|known| *known == order) {
            self.fire(word);
            self.tell(format!("{word} of {id}: {} recipients, {:?}", plan.recipients, given.is_ok()));
        } else if given.is_ok() {
            // Refused: it named nobody.
            self.shared.network.known().operators.orders.entry(id.to_string()).or_default().truncate(place);
        }
        Ok(())
    }

    /// Sends again whoever was refused, with nothing in the way. Whether there was anybody.
    pub(super) async fn retry_failed_in_peace(&mut self, id: BatchId) -> Result<bool, String> {
        let Ok(plan) = self.service.plan_retry(id, &RetryWhat::Failed, &offers()).await else { return Ok(false) };
        if plan.recipients == 0 {
            return Ok(false);
        }
        let row = self.service.load(id).await.map_err(|fault| fault.to_string())?.row;
        let lines = lines(&self.shared, &row).await?;
        let order = self.order_id();
        let now = self.shared.clock.now();
        {
            let mut known = self.shared.network.known();
            let failed: Vec<_> = lines.iter().filter(|line| line.outcome == Ends::Failed).collect();
            let is_suppressed = |line: &RecipientLine| digits(line).is_some_and(|number| known.ever_suppressed.contains(&number));
            let peace = Peace {
                failed: failed.iter().map(|line| key_of(id, line)).collect(),
                recipients: plan.recipients,
                suppressed: failed.iter().filter(|line| is_suppressed(line)).map(|line| key_of(id, line)).collect(),
                arrived: BTreeSet::new(),
            };
            known.operators.retried(id, None, now);
            known.operators.in_peace.insert(id.to_string(), peace);
        }
        // Where the batch's own limit has passed, nobody would be sent.
        let not_after = row.batch.not_after.map(|_| now.plus(Duration::from_secs(3_600)));
        let request = RetryRequest { what: RetryWhat::Failed, not_after };
        let given = self.service.retry(id, &request, Some(&plan.plan_hash), &order).await.map_err(|fault| fault.to_string())?;
        if given.ordered != Some(plan.recipients) {
            return Err(format!("{plan:?} came to {given:?}"));
        }
        self.tell(format!("{} are sent again in peace: {id}", plan.recipients));
        Ok(true)
    }
}
