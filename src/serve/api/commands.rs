//! Commands on a batch, each answered with what it changed and what may be done next.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::batches::find;
use super::once::{self, carry_out};
use super::{Answer, Once, OneBatch, Refusals};
use crate::batch::PauseReceipt;
use crate::batch::service::Answer as Outcome;
use crate::model::access::{Caller, Standing};
use crate::model::batch::{BatchRow, Command};
use crate::model::code::{Code, Fault};
use crate::model::id::BatchId;
use crate::model::limits::{PLAN_HASH_CHARS_MAX, within};
use crate::serve::access::Operator;
use crate::serve::extract::{Body, Named};
use crate::serve::fleet::Surface;
use crate::serve::problem::Problem;
use crate::serve::views::{BatchView, commands};

/// Seconds that a pause waits at most: less than a request may take.
const WAIT_MAX: u8 = 50;

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CommandAnswer {
    /// The batch after it, with the commands that are possible now.
    pub batch: BatchView,
    /// The dispatch after it: whatever carries a smaller number does nothing any more.
    pub task_code: String,
    /// Whether it had been carried out before.
    pub already: bool,
    /// Recipients declared and not answered when it was carried out.
    pub in_flight: u64,
    /// Recipients that were never declared.
    pub undeclared: u64,
    /// Recipients that an order named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordered: Option<u64>,
    /// What a pause is good for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<PauseView>,
}

/// What holds once a pause was answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PauseView {
    /// When the answer was made: nothing was declared later (RFC 3339).
    pub cut: String,
    /// Recipients declared and not answered at the cut.
    pub in_flight: u64,
    /// Of these, recipients that may still be handed over after the cut, at most.
    pub may_still_go: u64,
    /// Nothing is handed over after this instant (RFC 3339).
    pub until: String,
    /// Recipients with an outcome at the cut.
    pub settled: u64,
    /// For who waited: whether nothing is in flight any more.
    pub still: Option<bool>,
    /// For who waited: when the last message was handed to an account (RFC 3339).
    pub last_submit: Option<String>,
    /// For who waited: recipients whose outcome came since the cut.
    pub answered: Option<u64>,
}

impl PauseView {
    fn of(receipt: &PauseReceipt) -> PauseView {
        PauseView {
            cut: receipt.cut.to_string(),
            in_flight: receipt.in_flight,
            may_still_go: receipt.may_still_go,
            until: receipt.until.to_string(),
            settled: receipt.settled,
            still: receipt.end.as_ref().map(|end| end.still),
            last_submit: receipt.end.as_ref().and_then(|end| end.last_submit).map(|at| at.to_string()),
            answered: receipt.end.as_ref().map(|end| end.answered),
        }
    }
}

/// What `start` may say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StartWish {
    /// Send exactly the plan with this hash, and refuse if it is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 64)]
    pub plan_hash: Option<String>,
}

/// What `approve` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApproveWish {
    /// The hash of the plan that is approved.
    #[schema(max_length = 64)]
    pub plan_hash: String,
}

/// What `pause` may say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PauseWish {
    /// Wait up to this many seconds until nothing is in flight any more, and say when the last message was handed over.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 50)]
    pub wait_seconds: Option<u8>,
}

/// What a command without wishes says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NoWish {}

/// How a batch stands, in words for the audit trail.
pub fn standing(row: &BatchRow) -> Standing {
    Standing::from([
        ("step".to_owned(), format!("{:?}", row.current_step).to_uppercase()),
        ("state".to_owned(), row.step().state.name().to_owned()),
        ("task_code".to_owned(), row.task_code().to_string()),
        ("provider_type".to_owned(), row.batch.provider_type.clone()),
    ])
}

/// A command on a batch, found and about to be carried out.
pub(super) struct OnBatch {
    pub surface: Arc<Surface>,
    pub row: BatchRow,
    pub command: once::Command,
}

impl OnBatch {
    pub async fn new<W: Serialize>(
        surface: &Arc<Surface>,
        caller: Caller,
        headers: &HeaderMap,
        id: &str,
        action: &'static str,
        wish: &W,
    ) -> Result<OnBatch, Fault> {
        let row = find(surface, &caller, id).await?;
        let request = serde_json::to_string(wish).unwrap_or_default();
        let command = once::Command {
            caller,
            key: once::key_of(headers)?,
            action,
            target: row.batch.batch_id.to_string(),
            tenant: row.batch.tenant.clone(),
            before: standing(&row),
            wish: Standing::from([("wish".to_owned(), request.clone())]),
            request,
        };
        Ok(OnBatch { surface: surface.clone(), row, command })
    }

    /// Carries out what is one call of the service.
    pub async fn run<F, Run>(self, run: Run) -> Answer<Response>
    where
        F: Future<Output = Result<Outcome, Fault>> + Send + 'static,
        Run: FnOnce(Arc<Surface>, String) -> F + Send + 'static,
    {
        self.run_as(run, |answer| answer).await
    }

    /// Carries out what is one call of the service, and gives the answer another shape.
    pub async fn run_as<T, F, Run>(self, run: Run, shape: fn(CommandAnswer) -> T) -> Answer<Response>
    where
        T: Serialize + Send + 'static,
        F: Future<Output = Result<Outcome, Fault>> + Send + 'static,
        Run: FnOnce(Arc<Surface>, String) -> F + Send + 'static,
    {
        let OnBatch { surface, row, command } = self;
        let (inner, id) = (surface.clone(), row.batch.batch_id);
        let done = carry_out(&surface, command, move |name| async move {
            let outcome = run(inner.clone(), name).await?;
            let row = inner.service.load(id).await?.row;
            Ok((shape(answer(&inner, &row, outcome)), standing(&row)))
        });
        match done.await {
            Err(mut problem) if problem.code == Code::NotAllowed => {
                problem.commands = commands(&surface.service.load(id).await?.row).into();
                Err(problem)
            }
            done => done,
        }
    }
}

/// Refuses what no plan's hash can be, before the trail takes it.
pub(super) fn is_hash(text: Option<&str>) -> Result<(), Fault> {
    within("plan_hash", text.unwrap_or(""), PLAN_HASH_CHARS_MAX)
}

fn answer(surface: &Surface, row: &BatchRow, outcome: Outcome) -> CommandAnswer {
    CommandAnswer {
        batch: BatchView::of(row, &surface.accounts, surface.world.clock.now()),
        task_code: outcome.task_code,
        already: outcome.already,
        in_flight: outcome.in_flight,
        undeclared: outcome.undeclared,
        ordered: outcome.ordered,
        pause: outcome.pause.as_ref().map(PauseView::of),
    }
}

/// A command as it comes: who asks, about which batch, under which key.
pub(super) struct OnOne {
    pub surface: Arc<Surface>,
    pub caller: Caller,
    pub headers: HeaderMap,
    pub id: String,
}

impl FromRequestParts<Arc<Surface>> for OnOne {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, surface: &Arc<Surface>) -> Result<OnOne, Problem> {
        let Operator(caller) = Operator::from_request_parts(parts, surface).await?;
        let Named(id) = Named::from_request_parts(parts, surface).await?;
        Ok(OnOne { surface: surface.clone(), caller, headers: parts.headers.clone(), id })
    }
}

impl OnOne {
    /// The batch, found, and the command on it.
    pub async fn about<W: Serialize>(self, action: &'static str, wish: &W) -> Result<(OnBatch, BatchId), Fault> {
        let on_batch = OnBatch::new(&self.surface, self.caller, &self.headers, &self.id, action, wish).await?;
        let id = on_batch.row.batch.batch_id;
        Ok((on_batch, id))
    }

    /// Carries out a command without wishes.
    async fn plain(self, action: &'static str, command: Command) -> Answer<Response> {
        let (on_batch, id) = self.about(action, &NoWish {}).await?;
        on_batch.run(move |surface, _| async move { surface.service.command(id, command).await }).await
    }
}

/// Prepares a batch
///
/// Its list is read, its texts are rendered, and the plan is there to be looked at. Nothing is sent.
#[utoipa::path(post, path = "/v1/batches/{id}/commands/entry_process", tag = "commands", request_body(content = Option<NoWish>),
    params(OneBatch, Once), responses((status = 200, body = CommandAnswer), Refusals))]
pub async fn entry_process(command: OnOne, _nothing: Body<NoWish>) -> Answer<Response> {
    command.plain("batch.entry_process", Command::EntryProcess).await
}

/// Starts the delivery of a prepared batch
#[utoipa::path(post, path = "/v1/batches/{id}/commands/start", tag = "commands", request_body(content = Option<StartWish>),
    params(OneBatch, Once), responses((status = 200, body = CommandAnswer), Refusals))]
pub async fn start(command: OnOne, Body(wish): Body<StartWish>) -> Answer<Response> {
    is_hash(wish.plan_hash.as_deref())?;
    let (on_batch, id) = command.about("batch.start", &wish).await?;
    on_batch.run(move |surface, _| async move { surface.service.start(id, wish.plan_hash.as_deref()).await }).await
}

/// Approves a plan
///
/// Exactly the plan with this hash is sent; another one is refused.
#[utoipa::path(post, path = "/v1/batches/{id}/commands/approve", tag = "commands", request_body = ApproveWish,
    params(OneBatch, Once), responses((status = 200, body = CommandAnswer), Refusals))]
pub async fn approve(command: OnOne, Body(wish): Body<ApproveWish>) -> Answer<Response> {
    is_hash(Some(&wish.plan_hash))?;
    let (on_batch, id) = command.about("batch.approve", &wish).await?;
    on_batch.run(move |surface, _| async move { surface.service.start(id, Some(&wish.plan_hash)).await }).await
}

/// Pauses a batch
///
/// Nothing new is begun; the answer says how many messages are in flight.
#[utoipa::path(post, path = "/v1/batches/{id}/commands/pause", tag = "commands", request_body(content = Option<PauseWish>),
    params(OneBatch, Once), responses((status = 200, body = CommandAnswer), Refusals))]
pub async fn pause(command: OnOne, Body(wish): Body<PauseWish>) -> Answer<Response> {
    let (on_batch, id) = command.about("batch.pause", &wish).await?;
    let wait = wish.wait_seconds.map(|seconds| Duration::from_secs(u64::from(seconds.min(WAIT_MAX))));
    on_batch.run(move |surface, _| async move { surface.service.pause(id, wait).await }).await
}

/// Goes on with a paused batch
#[utoipa::path(post, path = "/v1/batches/{id}/commands/resume", tag = "commands", request_body(content = Option<NoWish>),
    params(OneBatch, Once), responses((status = 200, body = CommandAnswer), Refusals))]
pub async fn resume(command: OnOne, _nothing: Body<NoWish>) -> Answer<Response> {
    command.plain("batch.resume", Command::Resume).await
}

/// Ends a batch
///
/// What was not sent stays unsent. When the answer comes, nothing is declared any more anywhere.
#[utoipa::path(post, path = "/v1/batches/{id}/commands/cancel", tag = "commands", request_body(content = Option<NoWish>),
    params(OneBatch, Once), responses((status = 200, body = CommandAnswer), Refusals))]
pub async fn cancel(command: OnOne, _nothing: Body<NoWish>) -> Answer<Response> {
    command.plain("batch.cancel", Command::Cancel).await
}
