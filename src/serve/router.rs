//! The routes: all of them on the local socket, few on the network.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};

use super::fleet::{Callback, Live, Surface};
use super::listing::{self, Format};
use super::problem::Problem;
use super::views::{BatchReport, BatchView};
use crate::model::batch::{BatchRow, Command};
use crate::model::code::{Code, Fault};
use crate::model::id::{BatchId, LaneKey, Msisdn};
use crate::model::outcome::Outcome;
use crate::model::report::Settlement;
use crate::model::schedule::SendingHours;
use crate::ports::tallies::Tallies;
use crate::runtime::metrics::{SERVE_REQUESTS, count};
use crate::statistics::{
    BatchFacts, LiveAccount, Progress, RecipientFilter, RecipientLine, RecipientPages, explain_batch, explain_number, progress,
    recount, verdict,
};

/// Digits of a batch id that are needed at least.
const PREFIX_MIN: usize = 4;
/// Batches on one page of a list at most.
const PAGE_MAX: usize = 500;

type Answer<T> = Result<T, Problem>;
type Shared = State<Arc<Surface>>;

/// All routes: for the local socket, whose file only its owner can open.
pub fn local(surface: Surface) -> Router {
    let routes = Router::new()
        .route("/v1/batches", get(batches))
        .route("/v1/batches/{id}", get(batch))
        .route("/v1/batches/{id}/progress", get(batch_progress))
        .route("/v1/batches/{id}/report", get(report))
        .route("/v1/batches/{id}/recipients", get(recipients))
        .route("/v1/batches/{id}/explain", get(explain))
        .route("/v1/batches/{id}/commands/{command}", post(command))
        .merge(open_routes());
    finish(routes, surface)
}

/// The routes for the network: providers' receipts behind their tokens, health, metrics. Nothing that shows a recipient.
pub fn public(surface: Surface) -> Router {
    finish(open_routes(), surface)
}

fn open_routes() -> Router<Arc<Surface>> {
    Router::new()
        .route("/v1/receipts/{account}", post(receipts).get(receipts))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

fn finish(routes: Router<Arc<Surface>>, surface: Surface) -> Router {
    routes
        .fallback(|| async { Problem::from(Fault::new(Code::InputInvalid, "there is no such route")).with_status(404) })
        .method_not_allowed_fallback(|| async {
            Problem::from(Fault::new(Code::InputInvalid, "the route does not take this method")).with_status(405)
        })
        .layer(middleware::from_fn(counted))
        .with_state(Arc::new(surface))
}

async fn counted(request: axum::extract::Request, next: Next) -> Response {
    let response = next.run(request).await;
    count(&SERVE_REQUESTS, &[response.status().as_str()], 1);
    response
}

impl Problem {
    fn with_status(mut self, status: u16) -> Problem {
        self.status = status;
        self
    }
}

/// One page of batches.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BatchPage {
    /// The batches, newest first.
    pub batches: Vec<BatchView>,
    /// Where the next page begins; `None` on the last.
    pub cursor: Option<String>,
}

/// What [`explain`] says of a batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BatchExplained {
    /// What limits it, the strongest reason first.
    pub limits: Vec<String>,
    /// The facts behind it.
    pub facts: BatchFacts,
    /// The accounts, when a fleet runs.
    pub accounts: Vec<LiveAccount>,
}

/// What [`explain`] says of a number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NumberExplained {
    /// All records of the batch with this number.
    pub records: Vec<RecipientLine>,
}

#[derive(Deserialize)]
struct PageQuery {
    cursor: Option<String>,
    limit: Option<usize>,
}

async fn batches(State(surface): Shared, Query(query): Query<PageQuery>) -> Answer<Json<BatchPage>> {
    let limit = query.limit.unwrap_or(50).clamp(1, PAGE_MAX);
    let (listed, cursor) = surface.stores.batch_index.list(query.cursor, limit).await?;
    let now = surface.clock.now();
    let batches = listed.iter().map(|listed| BatchView::of(&listed.row, &surface.accounts, now)).collect();
    Ok(Json(BatchPage { batches, cursor }))
}

async fn batch(State(surface): Shared, Path(id): Path<String>) -> Answer<Json<BatchView>> {
    let row = find(&surface, &id).await?;
    Ok(Json(BatchView::of(&row, &surface.accounts, surface.clock.now())))
}

async fn batch_progress(State(surface): Shared, Path(id): Path<String>) -> Answer<Json<Progress>> {
    let row = find(&surface, &id).await?;
    let tallies: Option<Arc<dyn Tallies>> = surface.live.as_ref().map(|live| live.tallies());
    Ok(Json(progress(&surface.stores, &row, tallies.as_deref()).await?))
}

async fn report(State(surface): Shared, Path(id): Path<String>) -> Answer<Json<BatchReport>> {
    let row = find(&surface, &id).await?;
    let now = surface.clock.now();
    let settlement = match &row.settlement {
        Some(settlement) if settlement.settled && !can_change(&surface, &row, settlement).await? => settlement.clone(),
        Some(_) | None => recount(&surface.stores, &row, &surface.accounts, now).await?,
    };
    Ok(Json(BatchReport::of(&row, settlement, &surface.accounts, now)))
}

/// Whether late receipts may have changed a settled count. They cannot once everybody has it, and nothing can be counted
/// again once retention has let go of the manifests.
async fn can_change(surface: &Surface, row: &BatchRow, settlement: &Settlement) -> Result<bool, Problem> {
    if settlement.of(Outcome::Uncertain) == 0 && settlement.delivery_num == settlement.of(Outcome::Accepted) {
        return Ok(false);
    }
    for lane in 0..row.lanes {
        let key = LaneKey { batch: row.batch.batch_id, lane: lane as u8 };
        if surface.stores.manifests.get(key).await?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[derive(Deserialize)]
struct RecipientsQuery {
    status: Option<String>,
    format: Option<String>,
    number: Option<String>,
    text: Option<bool>,
}

async fn recipients(State(surface): Shared, Path(id): Path<String>, Query(query): Query<RecipientsQuery>) -> Answer<Response> {
    let row = find(&surface, &id).await?;
    let words = query.status.unwrap_or_default();
    let mut filter = RecipientFilter::from_words(words.split(','))
        .map_err(|word| Fault::new(Code::InputInvalid, format!("status {word:?} is no outcome and no delivery")))?;
    filter.number = query.number.as_deref().map(number).transpose()?;
    filter.text = query.text.unwrap_or(false);
    let format = query.format.as_deref().map_or(Ok(Format::default()), Format::from_word)?;
    let (stores, accounts) = (surface.stores.clone(), surface.accounts.clone());
    let pages = RecipientPages::new(stores, row, accounts, filter, surface.clock.now()).await?;
    Ok(listing::respond(pages, format))
}

#[derive(Deserialize)]
struct ExplainQuery {
    number: Option<String>,
}

async fn explain(State(surface): Shared, Path(id): Path<String>, Query(query): Query<ExplainQuery>) -> Answer<Response> {
    let row = find(&surface, &id).await?;
    let now = surface.clock.now();
    if let Some(text) = query.number {
        let records = explain_number(&surface.stores, &row, surface.accounts.clone(), number(&text)?, now).await?;
        if records.is_empty() {
            return Err(Fault::new(Code::RecipientNotFound, "no record of the batch has this number").into());
        }
        return Ok(Json(NumberExplained { records }).into_response());
    }
    let mine = surface.accounts.values().filter(|account| account.provider_type == row.batch.provider_type);
    let forbid = |hours: &Option<SendingHours>| {
        let minute = |zone: &str| surface.clock.minute_of_day(zone, now);
        hours.as_ref().is_some_and(|hours| minute(&hours.zone).is_some_and(|minute| !hours.allow(minute)))
    };
    let outside = mine.filter(|account| forbid(&account.hours));
    let mut facts = explain_batch(&surface.stores, &row, outside.map(|account| account.name.clone()).collect(), now).await?;
    facts.outside_own_hours = forbid(&row.batch.hours);
    let named =
        |live: &LiveAccount| surface.accounts.get(&live.account).is_none_or(|a| a.provider_type == row.batch.provider_type);
    let accounts: Vec<LiveAccount> =
        surface.live.iter().flat_map(|live| live.accounts()).filter(|account| named(account)).collect();
    let latency = surface.live.as_ref().and_then(|live| live.store_latency_ms());
    let limits = verdict(&facts, &accounts, latency);
    Ok(Json(BatchExplained { limits, facts, accounts }).into_response())
}

#[derive(Deserialize)]
struct CommandQuery {
    argument: Option<String>,
}

async fn command(
    State(surface): Shared,
    Path((id, word)): Path<(String, String)>,
    Query(query): Query<CommandQuery>,
) -> Answer<Json<BatchView>> {
    let command: Command = serde_json::from_value(serde_json::Value::String(word.clone()))
        .map_err(|_| Fault::new(Code::InputInvalid, format!("there is no command {word:?}")))?;
    let row = find(&surface, &id).await?;
    surface.commands.command(row.batch.batch_id, command, query.argument).await?;
    let row = find(&surface, &row.batch.batch_id.to_string()).await?;
    Ok(Json(BatchView::of(&row, &surface.accounts, surface.clock.now())))
}

async fn receipts(
    State(surface): Shared,
    Path(account): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Response> {
    let live = live(&surface)?;
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let query = query.unwrap_or_default();
    let bearer = text(header::AUTHORIZATION).strip_prefix("Bearer ").map(str::to_owned);
    let token = query.split('&').find_map(|pair| pair.strip_prefix("token=")).map(str::to_owned).or(bearer);
    let content_type = text(header::CONTENT_TYPE).split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let reply = live.receipts(Callback { account, token, query, content_type, body }).await?;
    Ok(([(header::CONTENT_TYPE, reply.content_type)], reply.body).into_response())
}

async fn ready(State(surface): Shared) -> Answer<&'static str> {
    match live(&surface)?.ready() {
        Ok(()) => Ok("ready\n"),
        Err(why) => Err(Fault::new(Code::StoreUnavailable, why).into()),
    }
}

async fn metrics(State(surface): Shared) -> Response {
    let text = surface.exporter.as_ref().map(|exporter| exporter.render()).unwrap_or_default();
    (StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

fn live(surface: &Surface) -> Result<&Arc<dyn Live>, Fault> {
    surface.live.as_ref().ok_or_else(|| Fault::new(Code::StoreUnavailable, "no fleet runs in this process"))
}

impl From<crate::ports::StoreError> for Fault {
    fn from(error: crate::ports::StoreError) -> Fault {
        Fault::new(error.code(), error.to_string())
    }
}

/// The batch of an id, or of the first digits of one if only one begins so.
async fn find(surface: &Surface, id: &str) -> Result<BatchRow, Fault> {
    if let Ok(id) = id.parse::<BatchId>() {
        let stored = surface.stores.batches.load(id).await?;
        return stored.map(|stored| stored.row).ok_or_else(|| Fault::new(Code::BatchNotFound, format!("batch {id}")));
    }
    if id.len() < PREFIX_MIN || id.len() > 32 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        let text = format!("a batch id has 32 hexadecimal digits; its first {PREFIX_MIN} or more will do");
        return Err(Fault::new(Code::InputInvalid, text));
    }
    let prefix = id.to_ascii_lowercase();
    let (mut found, mut cursor): (Option<BatchRow>, _) = (None, None);
    loop {
        let (listed, next) = surface.stores.batch_index.list(cursor, PAGE_MAX).await?;
        for one in listed.into_iter().filter(|one| one.batch.to_string().starts_with(&prefix)) {
            if found.is_some() {
                return Err(Fault::new(Code::InputInvalid, format!("several batches begin with {prefix}: give more digits")));
            }
            found = Some(one.row);
        }
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    found.ok_or_else(|| Fault::new(Code::BatchNotFound, format!("no batch begins with {prefix}")))
}

/// A number in E.164, with or without its plus sign.
fn number(text: &str) -> Result<Msisdn, Fault> {
    let digits: String = text.chars().filter(|c| !matches!(c, '+' | ' ' | '-' | '(' | ')')).collect();
    let fits = (5..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    match digits.parse() {
        Ok(number) if fits => Ok(Msisdn(number)),
        _ => Err(Fault::new(Code::InputInvalid, "a number is given with its country code, such as +8613800138000")),
    }
}

#[cfg(test)]
#[path = "router_tests.rs"]
mod tests;
