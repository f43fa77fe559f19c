//! One number: its history over all batches, what is stored about it, its erasure; and what people wrote.

use axum::body::Body as Stream;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Json, Response};
use bytes::Bytes;
use futures::stream;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::batches::{find, number};
use super::once::{self, Command, carry_out};
use super::{Answer, Once, OneNumber, Refusals, Shared, whole_service};
use crate::model::access::Standing;
use crate::model::code::{Code, Fault};
use crate::receipts::inbox::{self, InboxFilter, InboxRow};
use crate::receipts::opt_out::OptOut;
use crate::runtime::digest::{digest, hex};
use crate::serve::access::{Admin, Operator};
use crate::serve::extract::{Asked, Named, cursor, journal_cursor, journal_place, page_size, place};
use crate::statistics::number::{NumberExport, NumberHistory, number_history};

/// Batches looked at for one page of a history.
const BATCHES_A_PAGE: usize = 200;

/// Where a list goes on.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// Where an earlier page ended.
    cursor: Option<String>,
}

/// Shows what happened to a number, over all batches, newest first
///
/// A page may be empty and still have a `next`: only so many batches are looked at for one.
#[utoipa::path(get, path = "/v1/numbers/{number}/history", tag = "numbers", params(OneNumber, HistoryQuery),
    responses((status = 200, body = Object), Refusals))]
pub async fn history(
    State(surface): Shared,
    Operator(caller): Operator,
    Named(text): Named,
    Asked(query): Asked<HistoryQuery>,
) -> Answer<Json<NumberHistory>> {
    let number = number(&text)?;
    let behind = query.cursor.as_deref().map(place).transpose()?;
    let tenant = caller.only_tenant();
    let now = surface.world.clock.now();
    let mut page = number_history(&surface.stores, &surface.accounts, number, tenant, behind, BATCHES_A_PAGE, now).await?;
    page.next = page.next.as_deref().map(cursor);
    if tenant.is_some() {
        // What people wrote may answer another tenant's campaign.
        page.inbound.retain(|row| row["tenant"].as_str() == tenant);
        // So may what keeps the number on the list; what cannot be read is nobody's.
        let why = page.opt_out.take().and_then(|why| serde_json::from_value::<OptOut>(why).ok());
        page.opt_out = why.and_then(|why| serde_json::to_value(why.seen_by(tenant)).ok());
    }
    Ok(Json(page))
}

/// Streams everything that is stored about a number, as JSON lines
#[utoipa::path(get, path = "/v1/numbers/{number}/export", tag = "numbers", params(OneNumber),
    responses((status = 200, content((String = "application/x-ndjson"))), Refusals))]
pub async fn export(State(surface): Shared, Admin(caller): Admin, Named(text): Named) -> Answer<Response> {
    whole_service(&caller)?;
    let (stores, accounts) = (surface.stores.clone(), surface.accounts.clone());
    let export = NumberExport::new(stores, accounts, number(&text)?, surface.world.clock.now());
    let body = stream::try_unfold(export, |mut export| async move {
        let Some(piece) = export.next().await? else { return Ok::<_, crate::ports::StoreError>(None) };
        let lines: String = piece.iter().map(|object| format!("{object}\n")).collect();
        Ok(Some((Bytes::from(lines), export)))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Stream::from_stream(body)).into_response())
}

/// Erases a number everywhere
///
/// Counts and outcomes stay. The number stays on the suppression list if it is there: that is what keeps the promise. The answer
/// says what was erased, and what is not ours to erase.
#[utoipa::path(post, path = "/v1/numbers/{number}/erase", tag = "numbers", params(OneNumber, Once),
    responses((status = 200, body = Object), Refusals))]
pub async fn erase(State(surface): Shared, Admin(caller): Admin, Named(text): Named, headers: HeaderMap) -> Answer<Response> {
    whole_service(&caller)?;
    let number = number(&text)?;
    let command = Command {
        tenant: caller.tenant.clone(),
        caller,
        key: once::key_of(&headers)?,
        action: "number.erase",
        target: "numbers".into(),
        before: Standing::new(),
        wish: Standing::from([("number".to_owned(), number.to_string())]),
        // As text a number is masked, and many read alike.
        request: hex(&digest([number.0.to_be_bytes().as_slice()])),
    };
    let inner = surface.clone();
    carry_out(&surface, command, move |_| async move {
        let report = inner.eraser.erase(number).await?;
        let after = Standing::from([("messages".to_owned(), report.messages.to_string())]);
        Ok((report, after))
    })
    .await
}

/// A message that somebody wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InboxView {
    /// When it came in (RFC 3339).
    pub at: String,
    /// Who wrote it, through which account, what, and which campaign it answers.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub message: InboxRow,
}

/// One page of what people wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InboxList {
    /// Messages, newest first.
    #[schema(value_type = Vec<Object>)]
    pub messages: Vec<InboxView>,
    /// Where the next page begins; `null` on the last. A page may be short and have a next one.
    pub cursor: Option<String>,
}

/// Which messages are listed.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct InboxQuery {
    /// Only through this account.
    account: Option<String>,
    /// Only answers to this batch.
    batch: Option<String>,
    /// Only answers to this campaign.
    campaign_id: Option<String>,
    /// Only of this UTC day.
    #[param(pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
    day: Option<String>,
    /// Where an earlier page ended.
    cursor: Option<String>,
    /// Messages on the page.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
}

/// Lists what people wrote, newest first
#[utoipa::path(get, path = "/v1/inbox", tag = "numbers", params(InboxQuery), responses((status = 200, body = InboxList), Refusals))]
pub async fn list(
    State(surface): Shared,
    Operator(caller): Operator,
    Asked(query): Asked<InboxQuery>,
) -> Answer<Json<InboxList>> {
    let limit = page_size(query.limit, 100)?;
    let is_day = |day: &String| day.len() == 10 && day.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    if query.day.as_ref().is_some_and(|day| !is_day(day)) {
        return Err(Fault::new(Code::InputInvalid, "day is of the form 2024-05-01").into());
    }
    let batch = match &query.batch {
        Some(id) => Some(find(&surface, &caller, id).await?.batch.batch_id),
        None => None,
    };
    let filter = InboxFilter {
        account: query.account,
        tenant: caller.only_tenant().map(str::to_owned),
        batch,
        campaign_id: query.campaign_id,
        day: query.day,
        ..InboxFilter::default()
    };
    let behind = query.cursor.as_deref().map(journal_place).transpose()?;
    let page = inbox::list(&surface.stores, &filter, behind, limit).await?;
    let messages = page.rows.into_iter().map(|(at, message)| InboxView { at: at.at.to_string(), message }).collect();
    Ok(Json(InboxList { messages, cursor: page.next.as_ref().map(journal_cursor) }))
}
