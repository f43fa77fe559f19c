//! A batch: what was asked for, where it stands, and what may be done with it.

use serde::{Deserialize, Serialize};

use super::code::Code;
use super::id::{BatchId, TaskCode};
use super::let_go::LetGo;
use super::limits::CHANGES_KEPT;
use super::order::Orders;
use super::pack::SealTotals;
use super::record::{Fingerprint, Sample};
use super::report::Settlement;
use super::schedule::{LateStart, SendingHours, StartDecision, start_decision};
use super::state::{Refusal, StepEvent, StepState, decide};
use super::step::{AbstractStep, CurrentStep, SmsDeliveryStep, SmsPreparationStep};
use super::time::Timestamp;
use super::window::OnUncertain;

/// One run over one list of recipients, as it was asked for. Nothing in it changes but by an operator's command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmsBatch {
    /// Derived from tenant and idempotency key.
    pub batch_id: BatchId,
    /// Whose batch it is.
    pub tenant: String,
    /// Where the records are: the source adapter's own address (a path, `-` spooled into a path, later a table).
    pub table_name: String,
    /// The campaign.
    pub campaign_id: String,
    /// The campaign's name.
    pub campaign_name: String,
    /// The programme the campaign belongs to.
    pub marketing_program_id: String,
    /// The caller's own number for this run.
    pub task_id: String,
    /// The caller's own number for the content.
    pub content_id: String,
    /// The template.
    pub content: String,
    /// The signature, without its brackets 【】; empty for none.
    pub content_signature: String,
    /// The long link, when the template has one.
    pub url: Option<String>,
    /// Where short links live: the code is put behind it.
    pub link_base: String,
    /// Whether delivery begins by itself after the seal.
    pub auto_trigger: bool,
    /// Not before this instant.
    pub schedule_time: Option<Timestamp>,
    /// Not after this instant.
    pub not_after: Option<Timestamp>,
    /// What happens to a start that was missed.
    pub late_start: LateStart,
    /// Digits behind the sender's number, kept as text: leading zeros count.
    pub ext_code: String,
    /// Which provider type sends it.
    pub provider_type: String,
    /// What is done with recipients that were handed over and never answered.
    pub on_uncertain: OnUncertain,
    /// Larger goes first among a tenant's batches; 0 to 9.
    pub priority: u8,
    /// The column that holds the number; `None` finds it by its name.
    pub number_column: Option<String>,
    /// How the source is to be read, in the source adapter's words; empty finds everything out.
    #[serde(default)]
    pub dialect: String,
    /// Region of numbers without a country code, as ISO 3166-1 alpha-2.
    pub default_region: String,
    /// A lane has at least this many recipients; 0 gives every batch 128 lanes.
    pub min_recipients_per_lane: u32,
    /// When it may be sent, by the wall clock of a zone; `None` for always. Narrows the hours of the accounts.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::schedule::stored_hours")]
    pub hours: Option<SendingHours>,
    /// Parameters that opened links carry to the long link, beside or instead of the configured ones of the same name. Not
    /// written when there are none: the digest of a request from before stays what it was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub link_parameters: Vec<(String, String)>,
}

impl SmsBatch {
    /// A request that says who gets what through whom, and leaves everything else as it is when nobody says otherwise.
    pub fn new(table_name: &str, content: &str, provider_type: &str) -> SmsBatch {
        SmsBatch {
            batch_id: BatchId(0),
            tenant: "default".into(),
            table_name: table_name.into(),
            campaign_id: String::new(),
            campaign_name: String::new(),
            marketing_program_id: String::new(),
            task_id: String::new(),
            content_id: String::new(),
            content: content.into(),
            content_signature: String::new(),
            url: None,
            link_base: String::new(),
            auto_trigger: false,
            schedule_time: None,
            not_after: None,
            late_start: LateStart::Hold,
            ext_code: String::new(),
            provider_type: provider_type.into(),
            on_uncertain: OnUncertain::Hold,
            priority: 5,
            number_column: None,
            dialect: String::new(),
            default_region: "CN".into(),
            min_recipients_per_lane: 5_000,
            hours: None,
            link_parameters: vec![],
        }
    }

    /// The batch id of an idempotency key: the first 16 bytes of SHA-256 over tenant and key, which the caller computes.
    pub fn generate_id(digest: &[u8; 32]) -> BatchId {
        let mut first = [0u8; 16];
        first.copy_from_slice(&digest[..16]);
        BatchId(u128::from_be_bytes(first))
    }

    /// Whether the texts carry a link of their own for each recipient: the template names the long link, as itself or as
    /// `{{url}}` or `${url}`.
    pub fn contains_url(&self) -> bool {
        self.url.as_deref().is_some_and(|url| {
            let spaceless: String = self.content.chars().filter(|c| !c.is_whitespace()).collect();
            (!url.is_empty() && self.content.contains(url)) || spaceless.contains("{{url}}") || spaceless.contains("${url}")
        })
    }
}

/// What the seal came to: shown to the operator before anything is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedPlan {
    /// Records in the source.
    pub records: u64,
    /// Rejected records by reason.
    pub rejected: Vec<(Code, u64)>,
    /// Records whose number is suppressed.
    pub suppressed: u64,
    /// What will be sent.
    pub totals: SealTotals,
    /// The longest and strangest texts.
    pub samples: Vec<Sample>,
    /// Hash over all manifests, the template and everything else that decides what is sent, in hexadecimal.
    pub plan_hash: String,
}

/// The control row of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchRow {
    /// What was asked for.
    pub batch: SmsBatch,
    /// SHA-256 of the request, in hexadecimal: the same key with another request is refused.
    pub request_digest: String,
    /// When it was created.
    pub created: Timestamp,
    /// Which step it is at.
    pub current_step: CurrentStep,
    /// Preparation.
    pub preparation: SmsPreparationStep,
    /// Delivery.
    pub delivery: SmsDeliveryStep,
    /// Number of the newest dispatch.
    #[serde(deserialize_with = "super::growing::read")]
    pub task_number: u64,
    /// What the source was when it was planned; `None` before.
    pub fingerprint: Option<Fingerprint>,
    /// Names of the source's columns, and its dialect in the source adapter's words.
    pub columns: Vec<String>,
    /// How the source is read.
    pub dialect: String,
    /// Records in the source; 0 before it is planned.
    pub records: u64,
    /// Record ranges; 0 before it is planned.
    pub ranges: u32,
    /// Lanes; 0 before it is planned.
    #[serde(deserialize_with = "super::lane::stored")]
    pub lanes: u16,
    /// What the seal came to; `None` before.
    pub sealed: Option<SealedPlan>,
    /// The last recount; `None` before the first. `settled` in it ends the batch's story.
    #[doc(alias = "delivery_num")]
    pub settlement: Option<Settlement>,
    /// The newest changes of its steps, oldest first: what webhooks tell, in order and without a gap.
    #[serde(default)]
    pub changes: Vec<Change>,
    /// Orders that take more than one write.
    #[serde(default)]
    pub orders: Orders,
    /// Of when the backup was that the batch was restored from: nobody can tell whom orders since then named.
    #[serde(default)]
    pub restored_to: Option<Timestamp>,
    /// What retention has let go of. Not written while it is nothing.
    #[serde(default, skip_serializing_if = "LetGo::is_nothing")]
    pub let_go: LetGo,
}

/// A change of a step's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Counts a batch's changes, from 1.
    #[serde(deserialize_with = "super::growing::read")]
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// Which step.
    pub step: CurrentStep,
    /// The state after it.
    pub state: StepState,
    /// Why, when there is more to say.
    pub reason: Option<(Code, String)>,
}

/// What an operator can ask of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Prepare it.
    EntryProcess,
    /// Send it.
    Start,
    /// Begin nothing new.
    Pause,
    /// Go on.
    Resume,
    /// End it.
    Cancel,
    /// Send what is left through another provider type.
    ChangeProvider,
    /// Send again what was not sent, or who was refused.
    Retry,
}

/// All commands, in the order of a batch's life.
pub const COMMANDS: [Command; 7] = [
    Command::EntryProcess,
    Command::Start,
    Command::Pause,
    Command::Resume,
    Command::ChangeProvider,
    Command::Retry,
    Command::Cancel,
];

impl BatchRow {
    /// A batch that was just created.
    pub fn created(batch: SmsBatch, request_digest: String, now: Timestamp) -> BatchRow {
        BatchRow {
            batch,
            request_digest,
            created: now,
            current_step: CurrentStep::Preparation,
            preparation: AbstractStep::initial(),
            delivery: AbstractStep::initial(),
            task_number: 0,
            fingerprint: None,
            columns: vec![],
            dialect: String::new(),
            records: 0,
            ranges: 0,
            lanes: 0,
            sealed: None,
            settlement: None,
            changes: vec![],
            orders: Orders::default(),
            restored_to: None,
            let_go: LetGo::default(),
        }
    }

    /// The newest dispatch.
    pub fn task_code(&self) -> TaskCode {
        TaskCode { batch: self.batch.batch_id, number: self.task_number }
    }

    /// The step the batch is at.
    pub fn step(&self) -> &AbstractStep {
        match self.current_step {
            CurrentStep::Preparation => &self.preparation,
            CurrentStep::Delivery => &self.delivery,
        }
    }

    /// Whether the leader has anything left to do for it.
    pub fn is_active(&self) -> bool {
        let settled = self.settlement.as_ref().is_some_and(|settlement| settlement.settled);
        match self.current_step {
            CurrentStep::Preparation => !self.preparation.state.is_final(),
            CurrentStep::Delivery => !settled,
        }
    }

    /// Whether the batch has reached its end: nothing will change but by late receipts.
    pub fn is_over(&self) -> bool {
        !self.is_active()
    }

    fn step_mut(&mut self) -> &mut AbstractStep {
        match self.current_step {
            CurrentStep::Preparation => &mut self.preparation,
            CurrentStep::Delivery => &mut self.delivery,
        }
    }

    /// The row after `event` happened to the current step. A new dispatch takes a new task number; a pause and an end take
    /// one too, so that every token in the queue is out of date at once.
    pub fn after(&self, event: StepEvent, reason: Option<(Code, String)>, now: Timestamp) -> Result<BatchRow, Refusal> {
        let transition = decide(self.step().state, event)?;
        let mut next = self.with_change(transition.to, reason, now);
        let step = next.step_mut();
        match transition.to {
            StepState::Running => step.started = step.started.or(Some(now)),
            StepState::Canceled | StepState::CompletedSucceeded | StepState::CompletedFailed => step.ended = Some(now),
            StepState::Initial | StepState::Ready | StepState::Paused => step.ended = None,
        }
        if matches!(event, StepEvent::Start | StepEvent::Pause | StepEvent::Cancel | StepEvent::Retry) {
            next.task_number += 1;
        }
        if event == StepEvent::Retry {
            next.settlement = None;
        }
        Ok(next)
    }

    fn with_change(&self, state: StepState, reason: Option<(Code, String)>, now: Timestamp) -> BatchRow {
        let mut next = self.clone();
        let number = self.changes.last().map_or(0, |change| change.number).saturating_add(1);
        next.changes.push(Change { number, at: now, step: self.current_step, state, reason: reason.clone() });
        let too_many = next.changes.len().saturating_sub(CHANGES_KEPT);
        next.changes.drain(..too_many);
        let step = next.step_mut();
        (step.state, step.reason) = (state, reason);
        next
    }

    /// Whether it is paused because the disk is full, and goes on by itself once there is room.
    pub fn waits_for_room(&self) -> bool {
        let step = self.step();
        step.state == StepState::Paused && step.reason.as_ref().is_some_and(|(code, _)| *code == Code::StoreFull)
    }

    /// The row after `event` happened to its preparation. Whoever decides it may have read the row long ago: at a batch that is
    /// delivered by now it is refused, where [`after`](BatchRow::after) would take it for an event of the delivery.
    pub fn after_preparing(&self, event: StepEvent, reason: Option<(Code, String)>, now: Timestamp) -> Result<BatchRow, Refusal> {
        match self.current_step {
            CurrentStep::Preparation => self.after(event, reason, now),
            CurrentStep::Delivery => Err(Refusal::Already),
        }
    }

    /// The row after the seal: preparation has succeeded and the batch is at its delivery step, armed when it triggers
    /// itself.
    pub fn after_seal(&self, sealed: SealedPlan, now: Timestamp) -> Result<BatchRow, Refusal> {
        if self.preparation.state == StepState::Paused {
            // It would trigger itself behind the pause. Sealed lanes stay sealed: after the pause it gets here again.
            return Err(Refusal::NotFrom);
        }
        let mut next = self.after_preparing(StepEvent::Succeed, None, now)?;
        next.sealed = Some(sealed);
        next.current_step = CurrentStep::Delivery;
        if next.batch.auto_trigger {
            next = next.after(StepEvent::Arm, None, now)?;
        }
        Ok(next)
    }

    /// What a command does to the row; the reason when it is not possible now.
    fn event_of(&self, command: Command) -> Result<StepEvent, Refusal> {
        let at_delivery = self.current_step == CurrentStep::Delivery;
        match command {
            Command::ChangeProvider | Command::Retry if self.orders.pending.is_some() => Err(Refusal::NotFrom),
            Command::EntryProcess if at_delivery => Err(Refusal::Already),
            Command::EntryProcess => Ok(StepEvent::Arm),
            Command::Start if !at_delivery => Err(Refusal::NotFrom),
            Command::Start => Ok(StepEvent::Arm),
            Command::Pause => Ok(StepEvent::Pause),
            Command::Resume => Ok(StepEvent::Resume),
            Command::Cancel => Ok(StepEvent::Cancel),
            Command::Retry if !at_delivery => Err(Refusal::NotFrom),
            Command::Retry if !self.let_go.is_nothing() => Err(Refusal::Final),
            Command::Retry => Ok(StepEvent::Retry),
            // Not an event of the step: the state stays, the route changes.
            Command::ChangeProvider => match self.step().state {
                StepState::Initial => Ok(StepEvent::Pause),
                StepState::Paused | StepState::Ready if at_delivery => Ok(StepEvent::Pause),
                // What is being prepared is counted for the accounts of its provider type.
                StepState::Paused | StepState::Ready | StepState::Running => Err(Refusal::NotFrom),
                StepState::Canceled | StepState::CompletedSucceeded | StepState::CompletedFailed => Err(Refusal::Final),
            },
        }
    }

    /// Whether `command` is possible now.
    pub fn can(&self, command: Command) -> Result<(), Refusal> {
        let event = self.event_of(command)?;
        if command == Command::ChangeProvider || command == Command::Pause && self.waits_for_room() {
            return Ok(());
        }
        decide(self.step().state, event).map(|_| ())
    }

    /// The row after `command`, for the commands that are one event of the current step.
    pub fn command(&self, command: Command, now: Timestamp) -> Result<BatchRow, Refusal> {
        if command == Command::Pause && self.waits_for_room() {
            // From now on it is a person's pause: it does not go on by itself when there is room.
            return Ok(self.with_change(StepState::Paused, None, now));
        }
        let mut next = self.after(self.event_of(command)?, None, now)?;
        let missed = self.step().reason.as_ref().is_some_and(|(code, _)| *code == Code::StartMissed);
        if command == Command::Resume && missed {
            // It was held for a person to decide, and a person has decided.
            next.batch.late_start = LateStart::Send;
        }
        Ok(next)
    }

    /// Whether delivery may be armed.
    pub fn can_start(&self) -> bool {
        self.can(Command::Start).is_ok()
    }

    /// Whether it may be paused.
    pub fn can_pause(&self) -> bool {
        self.can(Command::Pause).is_ok()
    }

    /// Whether it may go on.
    pub fn can_resume(&self) -> bool {
        self.can(Command::Resume).is_ok()
    }

    /// Whether its provider may be changed.
    pub fn can_change_provider(&self) -> bool {
        self.can(Command::ChangeProvider).is_ok()
    }

    /// What the leader does with a delivery that is READY.
    pub fn start_decision(&self, now: Timestamp) -> StartDecision {
        start_decision(self.batch.schedule_time, self.batch.not_after, self.batch.late_start, now)
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
pub(crate) mod tests;
