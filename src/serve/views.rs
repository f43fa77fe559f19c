//! What people and programs see of a batch: its standing, its plan, its report.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::account::Account;
use crate::model::batch::{BatchRow, COMMANDS, Command};
use crate::model::code::Code;
use crate::model::id::BatchId;
use crate::model::outcome::{OUTCOMES, Outcome};
use crate::model::record::Sample;
use crate::model::report::Settlement;
use crate::model::state::{Refusal, StepState};
use crate::model::step::{AbstractStep, CurrentStep};
use crate::model::time::Timestamp;
use crate::statistics::BatchClicks;

/// A step of a batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// Its state.
    pub state: String,
    /// When it was dispatched first (RFC 3339).
    pub started: Option<String>,
    /// When it ended (RFC 3339).
    pub ended: Option<String>,
    /// Seconds it took, or takes until now.
    pub seconds: Option<f64>,
    /// Why it is paused or failed.
    pub reason: Option<String>,
}

impl StepView {
    fn of(step: &AbstractStep, now: Timestamp) -> StepView {
        StepView {
            state: step.state.name().to_owned(),
            started: step.started.map(|at| at.to_string()),
            ended: step.ended.map(|at| at.to_string()),
            seconds: step.started.map(|at| step.ended.unwrap_or(now).since(at).as_secs_f64()),
            reason: step.reason.as_ref().map(|(code, text)| format!("{code} {text}")),
        }
    }
}

/// A batch as lists and `GET /v1/batches/{id}` show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BatchView {
    /// Its id.
    #[schema(value_type = String)]
    pub batch_id: BatchId,
    /// The campaign's name.
    pub campaign_name: String,
    /// The provider type.
    pub provider_type: String,
    /// When it was created (RFC 3339).
    pub created: String,
    /// `PREPARATION` or `DELIVERY`.
    pub current_step: String,
    /// Preparation.
    pub preparation: StepView,
    /// Delivery.
    pub delivery: StepView,
    /// Records of its source; 0 before it was planned.
    pub records: u64,
    /// Whether nothing will change any more but by late receipts.
    pub over: bool,
    /// What would be, or was, sent; there after the seal.
    pub plan: Option<PlanView>,
    /// Whose batch it is.
    #[serde(default)]
    pub tenant: String,
    /// The campaign.
    #[serde(default)]
    pub campaign_id: String,
    /// The newest dispatch.
    #[serde(default)]
    pub task_code: String,
    /// What may be done with it now, and why the rest may not.
    #[serde(default)]
    pub commands: Vec<CommandView>,
}

/// Whether a command is possible now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CommandView {
    /// The command, as its route names it.
    #[schema(value_type = String)]
    pub command: Command,
    /// Whether it is possible.
    pub allowed: bool,
    /// Why it is not, and what would make it so.
    pub why: Option<String>,
}

/// All commands, each with whether it is possible now.
pub fn commands(row: &BatchRow) -> Vec<CommandView> {
    let said = |command: Command| {
        let why = row.can(command).err().map(|refusal| why(row, command, refusal));
        CommandView { command, allowed: why.is_none(), why }
    };
    COMMANDS.into_iter().map(said).collect()
}

fn why(row: &BatchRow, command: Command, refusal: Refusal) -> String {
    let state = row.step().state;
    let standing = format!("{} is {}", step_name(row.current_step).to_lowercase(), state.name());
    let more = match (command, refusal, row.current_step, state) {
        (_, Refusal::Already, ..) => "it was done before",
        (_, Refusal::Final, _, StepState::Canceled) => "a canceled batch stays as it is",
        (Command::Retry, ..) => "only a batch that has ended is tried again",
        (_, Refusal::Final, ..) => "it has ended",
        (Command::Start, _, CurrentStep::Preparation, _) => "it is started once it is prepared",
        (Command::ChangeProvider, _, _, StepState::Running) => "pause it first",
        (Command::Resume, ..) => "only a paused batch goes on",
        (Command::Pause, _, _, StepState::Initial) => "nobody asked for it yet: there is nothing to pause",
        _ => "not possible from this state",
    };
    format!("{standing}: {more}")
}

/// What a seal came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlanView {
    /// Names the plan: what is approved with it is sent exactly so.
    pub plan_hash: String,
    /// Records of the source.
    pub records: u64,
    /// Recipients who get a message.
    pub recipients: u64,
    /// Rejected records by code.
    pub rejected: BTreeMap<String, u64>,
    /// Records whose number came before.
    pub duplicates: u64,
    /// Records whose number is suppressed.
    pub suppressed: u64,
    /// Segments of all messages.
    pub segments: u64,
    /// Recipients whose message is in the GSM 03.38 alphabet.
    pub gsm7: u64,
    /// Recipients whose message is in UCS-2.
    pub ucs2: u64,
    /// What it would cost, when a price is known.
    pub cost: Vec<Cost>,
    /// The longest and strangest texts.
    #[schema(value_type = Vec<Object>)]
    pub samples: Vec<Sample>,
}

/// An amount in one currency.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Cost {
    /// The currency.
    pub currency: String,
    /// The amount.
    pub amount: f64,
}

impl BatchView {
    /// The view of a row.
    pub fn of(row: &BatchRow, accounts: &BTreeMap<String, Account>, now: Timestamp) -> BatchView {
        BatchView {
            batch_id: row.batch.batch_id,
            campaign_name: row.batch.campaign_name.clone(),
            provider_type: row.batch.provider_type.clone(),
            created: row.created.to_string(),
            current_step: step_name(row.current_step).to_owned(),
            preparation: StepView::of(&row.preparation, now),
            delivery: StepView::of(&row.delivery, now),
            records: row.records,
            over: row.is_over(),
            plan: plan(row, accounts),
            tenant: row.batch.tenant.clone(),
            campaign_id: row.batch.campaign_id.clone(),
            task_code: row.task_code().to_string(),
            commands: commands(row),
        }
    }
}

fn step_name(step: CurrentStep) -> &'static str {
    match step {
        CurrentStep::Preparation => "PREPARATION",
        CurrentStep::Delivery => "DELIVERY",
    }
}

/// The view of a row's plan, after the seal.
pub fn plan(row: &BatchRow, accounts: &BTreeMap<String, Account>) -> Option<PlanView> {
    let sealed = row.sealed.as_ref()?;
    // Any account of the provider type may take a message: the estimate is with the dearest, so that it is never too low.
    let dearest = accounts
        .values()
        .filter(|account| account.provider_type == row.batch.provider_type)
        .filter_map(|account| Some((account.price?, account.currency.clone())))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let segments = sealed.totals.segments;
    Some(PlanView {
        plan_hash: sealed.plan_hash.clone(),
        records: sealed.records,
        recipients: sealed.totals.recipients,
        rejected: sealed.rejected.iter().map(|(code, n)| (code.as_str().to_owned(), *n)).collect(),
        duplicates: sealed.totals.duplicates,
        suppressed: sealed.suppressed,
        segments,
        gsm7: sealed.totals.gsm7,
        ucs2: sealed.totals.ucs2,
        cost: dearest.map(|(price, currency)| Cost { currency, amount: price * segments as f64 }).into_iter().collect(),
        samples: sealed.samples.clone(),
    })
}

/// A batch's report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BatchReport {
    /// The batch.
    pub batch: BatchView,
    /// The count of every record.
    #[schema(value_type = Object)]
    pub settlement: Settlement,
    /// Whether everything is settled.
    pub settled: bool,
    /// Records that no outcome accounts for: always 0, or there is a bug.
    pub unaccounted: i64,
    /// Records a second of the preparation.
    pub prepared_per_second: Option<f64>,
    /// Segments a second of the delivery, over its whole time.
    pub sent_per_second: Option<f64>,
    /// What the taken segments cost, by currency, where prices are known.
    pub cost: Vec<Cost>,
    /// Openings of its links by people and by machines; for batches with links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub clicks: Option<BatchClicks>,
    /// What to do next.
    pub next: Vec<String>,
}

impl BatchReport {
    /// The report of a batch from its newest count.
    pub fn of(row: &BatchRow, settlement: Settlement, accounts: &BTreeMap<String, Account>, now: Timestamp) -> BatchReport {
        let batch = BatchView::of(row, accounts, now);
        let per_second = |n: u64, seconds: Option<f64>| seconds.filter(|s| *s > 0.0).map(|s| n as f64 / s);
        let mut cost: Vec<Cost> = vec![];
        for (name, segments) in &settlement.segments_by_account {
            let Some((price, currency)) = accounts.get(name).and_then(|account| Some((account.price?, &account.currency))) else {
                continue;
            };
            let amount = price * *segments as f64;
            match cost.iter_mut().find(|cost| cost.currency == *currency) {
                Some(known) => known.amount += amount,
                None => cost.push(Cost { currency: currency.clone(), amount }),
            }
        }
        let unaccounted = i64::try_from(settlement.unaccounted()).unwrap_or(i64::MAX);
        BatchReport {
            prepared_per_second: per_second(row.records, batch.preparation.seconds),
            sent_per_second: per_second(settlement.segments, batch.delivery.seconds),
            settled: settlement.settled,
            unaccounted,
            clicks: None,
            next: next_steps(row, &settlement),
            cost,
            batch,
            settlement,
        }
    }

    /// The exit code of a command that shows it: 0 all settled, 1 some failed or uncertain, or not settled yet, or it could not
    /// be prepared.
    pub fn exit_code(&self) -> u8 {
        let failed =
            [&self.batch.preparation, &self.batch.delivery].iter().any(|step| step.state == StepState::CompletedFailed.name());
        u8::from(failed || !self.settlement.all_well())
    }
}

fn next_steps(row: &BatchRow, settlement: &Settlement) -> Vec<String> {
    let id = short(row.batch.batch_id);
    let mut next = vec![];
    let pending = settlement.deliveries.get("pending").copied().unwrap_or(0);
    if settlement.unaccounted() != 0 {
        next.push(format!("{}: {}", Code::RecordsUnaccounted, Code::RecordsUnaccounted.advice()));
    }
    for (outcome, why) in [
        (Outcome::Rejected, "see which rows were rejected and why"),
        (Outcome::Failed, "see who failed and why"),
        (Outcome::Uncertain, "see who is uncertain: handed over, and never answered"),
    ] {
        if settlement.of(outcome) > 0 {
            next.push(format!("{why}: smsfleet recipients {id} --status {}", outcome.name()));
        }
    }
    if settlement.deliveries.get("undelivered").is_some_and(|n| *n > 0) {
        next.push(format!("see who did not get it: smsfleet recipients {id} --status undelivered"));
    }
    if settlement.of(Outcome::Open) > 0 {
        next.push(format!("see what it waits for: smsfleet explain {id}"));
    } else if pending > 0 {
        next.push(format!("{pending} receipts are still to come; look again: smsfleet report {id}"));
    }
    next
}

/// The first digits of an id: enough to name a batch.
pub fn short(id: BatchId) -> String {
    id.to_string()[..8].to_owned()
}

/// The sum of all outcomes.
pub fn sum(settlement: &Settlement) -> u64 {
    OUTCOMES.iter().map(|outcome| settlement.of(*outcome)).sum()
}
