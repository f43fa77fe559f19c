//! The service behind the API and the command line.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tracing::Instrument;

use super::pause::{self, PauseReceipt};
use super::select::Select;
use crate::model::batch::{BatchRow, Command, SmsBatch};
use crate::model::code::{Code, Fault};
use crate::model::id::{BatchId, LaneKey};
use crate::model::ledger::Ledger;
use crate::model::limits::{
    ADDRESS_BYTES_MAX, LINK_PARAMETERS_MAX, LINK_TARGET_BYTES_MAX, NAME_BYTES_MAX, SIGNATURE_CHARS_MAX, TEMPLATE_BYTES_MAX,
    within,
};
use crate::model::order::OrderRefusal;
use crate::model::state::{Refusal, StepState};
use crate::model::step::CurrentStep;
use crate::ports::batches::Listed;
use crate::ports::control::{Cas, Versioned};
use crate::ports::{Stores, World};
use crate::runtime::control::{change, create};
use crate::runtime::digest::{digest, hex};
use crate::runtime::fence::fence;
use crate::runtime::link_target::target;
use crate::runtime::mutation::{self, Bug};
use crate::runtime::trace::{Piece, Span};

/// Creates batches and carries out commands.
#[derive(Clone)]
pub struct SmsBatchService {
    pub(super) stores: Stores,
    pub(super) world: World,
    /// Wakes the leader of this process, so that a command is followed at once.
    pub(super) wake: Arc<Notify>,
    /// Names recipients by what became of them.
    pub(super) select: Arc<dyn Select>,
}

/// What came of a creation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// The batch.
    pub batch: BatchId,
    /// Whether it was there already, made by the same request.
    pub existed: bool,
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The batch.
    pub batch: BatchId,
    /// The dispatch after the command: whatever carries a smaller number does nothing any more.
    pub task_code: String,
    /// The step the batch is at, and its state.
    pub current_step: CurrentStep,
    /// The state of that step.
    pub state: StepState,
    /// Whether the command had been carried out before.
    pub already: bool,
    /// Recipients declared and not answered yet when the command was carried out.
    pub in_flight: u64,
    /// Recipients that were never declared.
    pub undeclared: u64,
    /// Recipients that an order named; there once it was carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordered: Option<u64>,
    /// What a pause is good for; there after a pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<PauseReceipt>,
}

impl SmsBatchService {
    /// A service over a store; `wake` is notified after each change, `select` names whom a retry sends again.
    pub fn new(stores: Stores, world: World, wake: Arc<Notify>, select: Arc<dyn Select>) -> SmsBatchService {
        SmsBatchService { stores, world, wake, select }
    }

    /// The id of the batch that `tenant` creates under `key`.
    pub fn id_of(tenant: &str, key: &str) -> BatchId {
        SmsBatch::generate_id(&digest([tenant.as_bytes(), key.as_bytes()]))
    }

    /// Creates a batch under an idempotency key, which names it: `batch_id` of the request is set here. The same key with
    /// the same request finds the batch made before; with another request it is refused.
    ///
    /// # Errors
    /// [`Code::InputInvalid`], [`Code::IdempotencyConflict`], or the store's.
    pub async fn create(&self, key: &str, mut batch: SmsBatch) -> Result<Created, Fault> {
        if key.is_empty() || key.len() > 200 {
            return Err(Fault::new(Code::InputInvalid, "the idempotency key must have 1 to 200 characters"));
        }
        check(&batch)?;
        if let Some(hours) = &batch.hours
            && self.world.clock.minute_of_day(&hours.zone, self.world.clock.now()).is_none()
        {
            return Err(Fault::new(Code::InputInvalid, "hours.zone is no IANA time zone"));
        }
        batch.batch_id = SmsBatchService::id_of(&batch.tenant, key);
        let id = batch.batch_id;
        let request = serde_json::to_vec(&batch).map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
        let request_digest = hex(&digest([request.as_slice()]));
        let row = BatchRow::created(batch, request_digest.clone(), self.world.clock.now());
        // A batch that is there already has its first span.
        let mut span = Span::root(Piece::Create(id));
        let creating = create(&*self.stores.batches, id, &*self.world.chance, &row).instrument(span.lines());
        let created = creating.await.inspect_err(|error| span.failed(error.code()))?;
        self.wake.notify_one();
        if created == Cas::Applied {
            span.lines().in_scope(|| tracing::info!(batch = %id, "a batch was created"));
            return Ok(Created { batch: id, existed: false });
        }
        span.forget();
        let stored = self.load(id).await?;
        if stored.row.request_digest != request_digest {
            return Err(Fault::new(
                Code::IdempotencyConflict,
                format!("batch {id} was created with this key and another request"),
            ));
        }
        Ok(Created { batch: id, existed: true })
    }

    /// The row of a batch.
    ///
    /// # Errors
    /// [`Code::BatchNotFound`], or the store's.
    pub async fn load(&self, batch: BatchId) -> Result<Versioned<BatchRow>, Fault> {
        let row = crate::runtime::control::load_row(&*self.stores.batches, batch, &*self.world.chance).await?;
        row.ok_or_else(|| Fault::new(Code::BatchNotFound, format!("batch {batch}")))
    }

    /// Batches, newest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(&self, behind: Option<String>, limit: usize) -> Result<(Vec<Listed>, Option<String>), Fault> {
        self.stores.batch_index.list(behind, limit).await.map_err(Fault::from)
    }

    /// Asks for the preparation of a batch.
    ///
    /// # Errors
    /// As for [`command`](SmsBatchService::command).
    pub async fn entry_process(&self, batch: BatchId) -> Result<Answer, Fault> {
        self.command(batch, Command::EntryProcess).await
    }

    /// Pauses a batch. The answer says what may still be handed over, and until when. With `wait` it comes when nothing is in
    /// flight any more, or after that long, and says which, and when the last message was handed over.
    ///
    /// # Errors
    /// As for [`command`](SmsBatchService::command).
    pub async fn pause(&self, batch: BatchId, wait: Option<Duration>) -> Result<Answer, Fault> {
        let mut answer = self.command(batch, Command::Pause).await?;
        if let (Some(receipt), Some(most)) = (&mut answer.pause, wait) {
            receipt.end = Some(pause::wait(&self.stores, batch, receipt, most).await?);
        }
        Ok(answer)
    }

    /// Asks for the delivery of a sealed batch. With a plan hash, exactly that plan is approved.
    ///
    /// # Errors
    /// [`Code::PlanChanged`] when the sealed plan has another hash; else as for [`command`](SmsBatchService::command).
    pub async fn start(&self, batch: BatchId, approve: Option<&str>) -> Result<Answer, Fault> {
        self.carry(batch, Command::Start, approve).await
    }

    /// Carries out a command that is one event of the batch's step. Done before is no error.
    ///
    /// # Errors
    /// [`Code::BatchNotFound`], [`Code::NotAllowed`] with the state, or the store's.
    pub async fn command(&self, batch: BatchId, command: Command) -> Result<Answer, Fault> {
        if matches!(command, Command::ChangeProvider | Command::Retry) {
            return Err(Fault::new(Code::NotAllowed, "this command needs more than the batch's name"));
        }
        self.carry(batch, command, None).await
    }

    async fn carry(&self, batch: BatchId, command: Command, approve: Option<&str>) -> Result<Answer, Fault> {
        self.load(batch).await?;
        let now = self.world.clock.now();
        // The plan is compared in the same change: another one may take its place at any moment.
        let changed = change(&*self.stores.batches, batch, &*self.world.chance, |row| {
            check_approved(&row.row, approve).map_err(No::OtherPlan)?;
            row.row.command(command, now).map_err(No::State)
        });
        let (row, already) = match changed.await? {
            Ok(row) => (row.row, false),
            Err(No::State(Refusal::Already)) => (self.load(batch).await?.row, true),
            Err(No::State(refusal)) => {
                return Err(not_allowed(&self.load(batch).await?.row, refusal));
            }
            Err(No::OtherPlan(fault)) => return Err(fault),
        };
        self.wake.notify_one();
        let mut lanes = self.stores.ledgers.list(batch).await?;
        let forgets = match command {
            Command::Cancel => mutation::is_on(Bug::NoFenceOnCancel),
            _ => mutation::is_on(Bug::NoFenceOnPause),
        };
        if matches!(command, Command::Cancel | Command::Pause) && !forgets {
            let number = row.task_number;
            let behind = |read: &Versioned<Ledger>| match command {
                Command::Cancel => read.row.fence_closed(number),
                _ => read.row.fence(number),
            };
            // When this returns, nothing of an older dispatch is declared any more.
            lanes = fence(&*self.stores.ledgers, &*self.world.chance, lanes, behind).await?;
        }
        let mut answer = answer_of(&row, &lanes, already);
        if command == Command::Pause {
            answer.pause = Some(PauseReceipt::of(row.task_number, &lanes, self.world.clock.now()));
        }
        Ok(answer)
    }

    /// Carries out an order that was given, and says how the batch stands then.
    pub(super) async fn ordered(&self, batch: BatchId, order: &str, already: bool) -> Result<Answer, Fault> {
        self.wake.notify_one();
        self.carry_out(batch).await?;
        let row = self.load(batch).await?.row;
        let lanes = self.stores.ledgers.list(batch).await?;
        let mut answer = answer_of(&row, &lanes, already);
        answer.ordered = row.orders.carried.iter().find(|carried| carried.id == order).and_then(|carried| carried.recipients);
        Ok(answer)
    }
}

/// Why a command is not carried out.
enum No {
    State(Refusal),
    OtherPlan(Fault),
}

/// Checks that the plan that is approved, if one is, is what would be sent.
fn check_approved(row: &BatchRow, approve: Option<&str>) -> Result<(), Fault> {
    let (Some(hash), batch) = (approve, row.batch.batch_id) else { return Ok(()) };
    let Some(sealed) = &row.sealed else {
        let context = format!("batch {batch} is not sealed yet: there is no plan to approve");
        return Err(Fault::new(Code::NotAllowed, context));
    };
    if sealed.plan_hash != hash {
        let context = format!("{hash} was approved, the plan of batch {batch} is {}", sealed.plan_hash);
        return Err(Fault::new(Code::PlanChanged, context));
    }
    Ok(())
}

/// Checks the key of an order.
pub(super) fn order_id(id: &str) -> Result<(), Fault> {
    if id.is_empty() || id.len() > 200 {
        return Err(Fault::new(Code::InputInvalid, "the key of an order must have 1 to 200 characters"));
    }
    Ok(())
}

/// A command that the batch's state does not allow.
pub(super) fn not_allowed(row: &BatchRow, refusal: Refusal) -> Fault {
    let (batch, state) = (row.batch.batch_id, row.step().state.name());
    let pending = row.orders.pending.as_ref().map_or("", |_| ", and an order is being carried out");
    Fault::new(Code::NotAllowed, format!("{refusal}: batch {batch} is {:?} {state}{pending}", row.current_step))
}

/// An order that was refused.
pub(super) fn refused(row: &BatchRow, refusal: OrderRefusal) -> Fault {
    let batch = row.batch.batch_id;
    match refusal {
        OrderRefusal::State(refusal) => not_allowed(row, refusal),
        OrderRefusal::OtherRequest => {
            Fault::new(Code::IdempotencyConflict, format!("another order was given to batch {batch} with this key"))
        }
        OrderRefusal::Busy(other) => Fault::new(Code::NotAllowed, format!("batch {batch} is still carrying out order {other}")),
        OrderRefusal::TooMany => Fault::new(Code::NotAllowed, format!("batch {batch} was retried as often as can be")),
        OrderRefusal::Already => {
            Fault::new(Code::Internal, format!("an order of batch {batch} that was given before is no error"))
        }
    }
}

/// What a row and its ledgers say after a command.
pub(super) fn answer_of(row: &BatchRow, lanes: &[(LaneKey, Versioned<Ledger>)], already: bool) -> Answer {
    Answer {
        batch: row.batch.batch_id,
        task_code: row.task_code().to_string(),
        current_step: row.current_step,
        state: row.step().state,
        already,
        in_flight: lanes.iter().map(|(_, ledger)| ledger.row.in_flight()).sum(),
        undeclared: lanes.iter().map(|(_, ledger)| ledger.row.undeclared()).sum(),
        ordered: None,
        pause: None,
    }
}

/// Checks what has no form but a size: a row that holds it is read whole, often with hundreds of others.
fn check_sizes(batch: &SmsBatch) -> Result<(), Fault> {
    let names = [
        ("campaign_id", batch.campaign_id.as_str()),
        ("campaign_name", &batch.campaign_name),
        ("marketing_program_id", &batch.marketing_program_id),
        ("task_id", &batch.task_id),
        ("content_id", &batch.content_id),
        ("link_base", &batch.link_base),
        ("number_column", batch.number_column.as_deref().unwrap_or("")),
        ("dialect", &batch.dialect),
    ];
    for (name, text) in names {
        within(name, text, NAME_BYTES_MAX)?;
    }
    within("table_name", &batch.table_name, ADDRESS_BYTES_MAX)?;
    within("url", batch.url.as_deref().unwrap_or(""), ADDRESS_BYTES_MAX)?;
    if batch.content_signature.chars().count() > SIGNATURE_CHARS_MAX {
        return Err(Fault::new(Code::InputInvalid, format!("content_signature has at most {SIGNATURE_CHARS_MAX} characters")));
    }
    if batch.link_parameters.len() > LINK_PARAMETERS_MAX {
        return Err(Fault::new(Code::InputInvalid, format!("link_parameters has at most {LINK_PARAMETERS_MAX} of them")));
    }
    for (name, value) in &batch.link_parameters {
        within("a name in link_parameters", name, NAME_BYTES_MAX)?;
        within("a value in link_parameters", value, NAME_BYTES_MAX)?;
    }
    Ok(())
}

/// Checks what a request says, before anything is stored.
fn check(batch: &SmsBatch) -> Result<(), Fault> {
    let invalid = |what: &str| Err(Fault::new(Code::InputInvalid, what.to_owned()));
    if batch.table_name.is_empty() {
        return invalid("table_name must name a list of recipients");
    }
    if batch.content.is_empty() {
        return invalid("content must hold a template");
    }
    if batch.content.len() > TEMPLATE_BYTES_MAX {
        return invalid("content is longer than 64 KiB");
    }
    check_sizes(batch)?;
    if !batch.ext_code.bytes().all(|byte| byte.is_ascii_digit()) || batch.ext_code.len() > 20 {
        return invalid("ext_code must be up to 20 digits");
    }
    if batch.priority > 9 {
        return invalid("priority goes from 0 to 9");
    }
    if batch.content_signature.contains(['【', '】']) {
        return invalid("content_signature is given without its brackets 【】");
    }
    if let (Some(at), Some(limit)) = (batch.schedule_time, batch.not_after)
        && limit < at
    {
        return invalid("not_after lies before schedule_time");
    }
    let has_link = batch.contains_url();
    let scheme = batch.url.as_deref().unwrap_or("").to_ascii_lowercase();
    if has_link && !(scheme.starts_with("http://") || scheme.starts_with("https://")) {
        return invalid("url must begin with http:// or https://: links lead nowhere else");
    }
    // What the configuration adds is short; with it, a link at the very limit may still lead nowhere.
    if has_link && target(batch, &[]).is_none() {
        let text = format!("url with its link_parameters is an address of the web, of at most {LINK_TARGET_BYTES_MAX} bytes");
        return Err(Fault::new(Code::InputInvalid, text));
    }
    if batch.hours.as_ref().is_some_and(|hours| hours.from == hours.to) {
        return invalid("hours allow nothing: from and to are the same minute");
    }
    if has_link && batch.link_base.is_empty() {
        return invalid("link_base is needed when the template has a link");
    }
    Ok(())
}
