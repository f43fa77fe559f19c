//! Reading batches: lists, one batch, its report, its recipients, and why it is as it is.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Json, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Answer, OneBatch, Refusals, Shared};
use crate::model::access::{Caller, Role};
use crate::model::batch::BatchRow;
use crate::model::code::{Code, Fault};
use crate::model::id::{BatchId, Msisdn};
use crate::model::outcome::Outcome;
use crate::model::report::Settlement;
use crate::model::schedule::SendingHours;
use crate::model::time::Timestamp;
use crate::ports::tallies::Tallies;
use crate::runtime::kept;
use crate::runtime::moment::moment;
use crate::serve::access::{Operator, Viewer};
use crate::serve::extract::{Asked, Named, PAGE_MAX, cursor, page_size, place};
use crate::serve::fleet::Surface;
use crate::serve::listing::{self, Format};
use crate::serve::problem::Problem;
use crate::serve::views::{BatchReport, BatchView};
use crate::statistics::{
    BatchFacts, LiveAccount, Progress, RecipientFilter, RecipientLine, RecipientPages, batch_clicks, explain_batch,
    explain_number, progress as far, recount, verdict,
};

/// Digits of a batch id that are needed at least.
const PREFIX_MIN: usize = 4;
/// Batches looked at for one page at most: a filter that fits few gives short pages, never a slow one.
const LOOKED_AT_MAX: usize = 5_000;

/// One page of batches.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BatchPage {
    /// The batches, newest first.
    pub batches: Vec<BatchView>,
    /// Where the next page begins; `null` on the last. A page may be short, or empty, and have a next one.
    pub cursor: Option<String>,
}

/// Why a batch is as it is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BatchExplained {
    /// What limits it, the strongest reason first.
    pub limits: Vec<String>,
    /// The facts behind it.
    #[schema(value_type = Object)]
    pub facts: BatchFacts,
    /// The accounts, when a fleet runs.
    #[schema(value_type = Vec<Object>)]
    pub accounts: Vec<LiveAccount>,
}

/// What became of a number.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NumberExplained {
    /// All records of the batch with this number.
    #[schema(value_type = Vec<Object>)]
    pub records: Vec<RecipientLine>,
}

/// Which batches are listed.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Where an earlier page ended.
    cursor: Option<String>,
    /// Batches on the page.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
    /// Only those whose current step is in this state, such as `RUNNING`.
    state: Option<String>,
    /// Only those of this provider type.
    provider_type: Option<String>,
    /// Only those of this campaign.
    campaign_id: Option<String>,
    /// Only those of this tenant.
    tenant: Option<String>,
    /// Only those created at this instant or later (RFC 3339).
    since: Option<String>,
    /// Only those created before this instant (RFC 3339).
    until: Option<String>,
}

/// Lists batches, newest first
#[utoipa::path(get, path = "/v1/batches", tag = "batches", params(ListQuery), responses((status = 200, body = BatchPage), Refusals))]
pub async fn list(State(surface): Shared, Viewer(caller): Viewer, Asked(query): Asked<ListQuery>) -> Answer<Json<BatchPage>> {
    let limit = page_size(query.limit, 50)?;
    if let Some(state) = &query.state
        && !crate::model::state::STATES.iter().any(|known| known.name() == state)
    {
        return Err(Fault::new(Code::InputInvalid, format!("state {state:?} is no state of a step")).into());
    }
    let (since, until) = (query.since.as_deref().map(moment).transpose()?, query.until.as_deref().map(moment).transpose()?);
    let mut behind = query.cursor.as_deref().map(place).transpose()?;
    let now = surface.world.clock.now();
    let (mut batches, mut looked_at) = (vec![], 0);
    loop {
        let (listed, next) = surface.stores.batch_index.list(behind, limit - batches.len()).await?;
        looked_at += listed.len();
        let over = since.is_some_and(|since| listed.last().is_some_and(|one| one.row.created < since));
        let fits = listed.iter().filter(|one| caller.sees(&one.row.batch.tenant) && query.fits(&one.row, since, until));
        batches.extend(fits.map(|one| seen_by(&caller, BatchView::of(&one.row, &surface.accounts, now))));
        behind = if over { None } else { next };
        if behind.is_none() || batches.len() >= limit || looked_at >= LOOKED_AT_MAX {
            return Ok(Json(BatchPage { batches, cursor: behind.as_deref().map(cursor) }));
        }
        tokio::task::yield_now().await;
    }
}

/// A batch as a caller may see it: texts that were rendered for people are not for viewers.
fn seen_by(caller: &Caller, mut view: BatchView) -> BatchView {
    if caller.role == Role::Viewer
        && let Some(plan) = &mut view.plan
    {
        plan.samples.clear();
    }
    view
}

impl ListQuery {
    fn fits(&self, row: &BatchRow, since: Option<Timestamp>, until: Option<Timestamp>) -> bool {
        let is = |wanted: &Option<String>, text: &str| wanted.as_deref().is_none_or(|wanted| wanted == text);
        is(&self.state, row.step().state.name())
            && is(&self.provider_type, &row.batch.provider_type)
            && is(&self.campaign_id, &row.batch.campaign_id)
            && is(&self.tenant, &row.batch.tenant)
            && since.is_none_or(|since| row.created >= since)
            && until.is_none_or(|until| row.created < until)
    }
}

/// Shows a batch, with the commands that are possible now
#[utoipa::path(get, path = "/v1/batches/{id}", tag = "batches", params(OneBatch),
    responses((status = 200, body = BatchView), Refusals))]
pub async fn show(State(surface): Shared, Viewer(caller): Viewer, Named(id): Named) -> Answer<Json<BatchView>> {
    let row = find(&surface, &caller, &id).await?;
    Ok(Json(seen_by(&caller, BatchView::of(&row, &surface.accounts, surface.world.clock.now()))))
}

/// Says how far a batch is
#[utoipa::path(get, path = "/v1/batches/{id}/progress", tag = "batches", params(OneBatch),
    responses((status = 200, body = Object), Refusals))]
pub async fn progress(State(surface): Shared, Viewer(caller): Viewer, Named(id): Named) -> Answer<Json<Progress>> {
    let row = find(&surface, &caller, &id).await?;
    Ok(Json(progress_of(&surface, &row).await?))
}

/// How far a batch is, with this process's live counters where it has some.
pub(super) async fn progress_of(surface: &Surface, row: &BatchRow) -> Result<Progress, Fault> {
    let tallies: Option<Arc<dyn Tallies>> = surface.live.as_ref().map(|live| live.tallies());
    Ok(far(&surface.stores, row, tallies.as_deref()).await?)
}

/// Reports a batch: every record counted from the store
#[utoipa::path(get, path = "/v1/batches/{id}/report", tag = "batches", params(OneBatch),
    responses((status = 200, body = BatchReport), Refusals))]
pub async fn report(State(surface): Shared, Viewer(caller): Viewer, Named(id): Named) -> Answer<Json<BatchReport>> {
    let row = find(&surface, &caller, &id).await?;
    let now = surface.world.clock.now();
    let settlement = match &row.settlement {
        Some(settlement) if settlement.settled && !can_change(&surface, &row, settlement).await? => settlement.clone(),
        Some(_) | None => recount(&surface.stores, &row, &surface.accounts, now).await?,
    };
    let mut report = BatchReport::of(&row, settlement, &surface.accounts, now);
    if row.batch.contains_url() {
        report.clicks = Some(batch_clicks(&surface.stores, &row).await?);
    }
    report.batch = seen_by(&caller, report.batch);
    Ok(Json(report))
}

/// Whether late receipts may have changed a settled count. They cannot once everybody has it, and nothing can be counted
/// again once retention has let go of the manifests or of the history.
async fn can_change(surface: &Surface, row: &BatchRow, settlement: &Settlement) -> Result<bool, Problem> {
    let all_have_it = settlement.of(Outcome::Uncertain) == 0 && settlement.delivery_num == settlement.of(Outcome::Accepted);
    if all_have_it || !row.let_go.is_nothing() {
        return Ok(false);
    }
    Ok(kept::missing(&surface.stores, row).await?.is_none())
}

/// Which recipients are listed, and how.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RecipientsQuery {
    /// Only these, with commas between: accepted, failed, uncertain, expired, canceled, rejected, duplicate, suppressed, open,
    /// delivered, undelivered, pending, unknown.
    status: Option<String>,
    /// `jsonl` or `csv`.
    format: Option<String>,
    /// Only this number, with its country code.
    number: Option<String>,
    /// Whether texts are shown.
    text: Option<bool>,
}

/// Streams the recipients of a batch, each with its history
///
/// One stream, without cursors: it is written as it is read, in bounded memory, and takes turns with other requests. Its head
/// comes at once, lines as they are found. With `status` a pack of recipients that has nobody of it is passed over unread, so
/// what a request costs follows what it shows; where few fit, nothing may come for a while. `number` reads one lane alone. A
/// stream that breaks off in the middle is no whole list: it ends without the closing chunk.
#[utoipa::path(get, path = "/v1/batches/{id}/recipients", tag = "batches", params(OneBatch, RecipientsQuery),
    responses((status = 200, content((String = "application/x-ndjson"), (String = "text/csv"))), Refusals))]
pub async fn recipients(
    State(surface): Shared,
    Operator(caller): Operator,
    Named(id): Named,
    Asked(query): Asked<RecipientsQuery>,
) -> Answer<Response> {
    let row = find(&surface, &caller, &id).await?;
    let words = query.status.unwrap_or_default();
    let mut filter = RecipientFilter::from_words(words.split(','))
        .map_err(|word| Fault::new(Code::InputInvalid, format!("status {word:?} is no outcome and no delivery")))?;
    filter.number = query.number.as_deref().map(number).transpose()?;
    filter.text = query.text.unwrap_or(false);
    let format = query.format.as_deref().map_or(Ok(Format::default()), Format::from_word)?;
    let (stores, accounts) = (surface.stores.clone(), surface.accounts.clone());
    let pages = RecipientPages::new(stores, row, accounts, filter, surface.world.clock.now()).await?;
    Ok(listing::respond(pages, format))
}

/// What is to be explained.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExplainQuery {
    /// A number, with its country code: what happened to it. Left out: what limits the batch.
    number: Option<String>,
}

/// Explains what limits a batch, or what happened to a number
#[utoipa::path(get, path = "/v1/batches/{id}/explain", tag = "batches", params(OneBatch, ExplainQuery),
    responses((status = 200, body = Object), Refusals))]
pub async fn explain(
    State(surface): Shared,
    Operator(caller): Operator,
    Named(id): Named,
    Asked(query): Asked<ExplainQuery>,
) -> Answer<Response> {
    let row = find(&surface, &caller, &id).await?;
    let now = surface.world.clock.now();
    if let Some(text) = query.number {
        let records = explain_number(&surface.stores, &row, surface.accounts.clone(), number(&text)?, now).await?;
        if records.is_empty() {
            return Err(Fault::new(Code::RecipientNotFound, "no record of the batch has this number").into());
        }
        return Ok(Json(NumberExplained { records }).into_response());
    }
    let mine = surface.accounts.values().filter(|account| account.provider_type == row.batch.provider_type);
    let forbid = |hours: &Option<SendingHours>| {
        let minute = |zone: &str| surface.world.clock.minute_of_day(zone, now);
        hours.as_ref().is_some_and(|hours| minute(&hours.zone).is_some_and(|minute| !hours.allow(minute)))
    };
    let outside = mine.filter(|account| forbid(&account.hours));
    let mut facts = explain_batch(&surface.stores, &row, outside.map(|account| account.name.clone()).collect(), now).await?;
    facts.outside_own_hours = forbid(&row.batch.hours);
    let named =
        |live: &LiveAccount| surface.accounts.get(&live.account).is_none_or(|a| a.provider_type == row.batch.provider_type);
    let seen = surface.seen().await?;
    let accounts: Vec<LiveAccount> = seen.accounts.into_iter().filter(|account| named(account)).collect();
    let limits = verdict(&facts, &accounts, seen.store_latency_ms);
    Ok(Json(BatchExplained { limits, facts, accounts }).into_response())
}

/// The batch of an id, or of the first digits of one if only one begins so. Another tenant's batch is no batch.
pub(super) async fn find(surface: &Surface, caller: &Caller, id: &str) -> Result<BatchRow, Fault> {
    if let Ok(id) = id.parse::<BatchId>() {
        let stored = surface.stores.batches.load(id).await?;
        let mine = stored.map(|stored| stored.row).filter(|row| caller.sees(&row.batch.tenant));
        return mine.ok_or_else(|| Fault::new(Code::BatchNotFound, format!("batch {id}")));
    }
    if id.len() < PREFIX_MIN || id.len() > 32 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        let text = format!("a batch id has 32 hexadecimal digits; its first {PREFIX_MIN} or more will do");
        return Err(Fault::new(Code::InputInvalid, text));
    }
    let prefix = id.to_ascii_lowercase();
    let (mut found, mut behind): (Option<BatchRow>, _) = (None, None);
    loop {
        let (listed, next) = surface.stores.batch_index.list(behind, PAGE_MAX).await?;
        let mine = |one: &crate::ports::batches::Listed| {
            one.batch.to_string().starts_with(&prefix) && caller.sees(&one.row.batch.tenant)
        };
        for one in listed.into_iter().filter(mine) {
            if found.is_some() {
                return Err(Fault::new(Code::InputInvalid, format!("several batches begin with {prefix}: give more digits")));
            }
            found = Some(one.row);
        }
        behind = next;
        if behind.is_none() {
            break;
        }
        // Every batch is looked at, and rows come from memory to a good part: others have a turn.
        tokio::task::yield_now().await;
    }
    found.ok_or_else(|| Fault::new(Code::BatchNotFound, format!("no batch begins with {prefix}")))
}

/// A number in E.164, with or without its plus sign.
pub(super) fn number(text: &str) -> Result<Msisdn, Fault> {
    let digits: String = text.chars().filter(|c| !matches!(c, '+' | ' ' | '-' | '(' | ')')).collect();
    let fits = (5..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    match digits.parse() {
        Ok(number) if fits => Ok(Msisdn(number)),
        _ => Err(Fault::new(Code::InputInvalid, "a number is given with its country code, such as +8613800138000")),
    }
}
