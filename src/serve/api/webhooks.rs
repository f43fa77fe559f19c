//! Webhooks: where events are told, and those that could not be.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{Json, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::batches::find;
use super::once::{self, Command, carry_out};
use super::{Answer, Once, Refusals, Shared};
use crate::model::access::{ALL_TENANTS, Caller, Standing};
use crate::model::code::{Code, Fault};
use crate::model::limits::{ADDRESS_BYTES_MAX, NAME_BYTES_MAX, within};
use crate::model::webhook::{EventKind, WebhookView};
use crate::serve::access::Admin;
use crate::serve::extract::{Asked, Body, Named, cursor, page_size, place};
use crate::webhooks::{Added, DeadEvent, Replay};

/// A webhook to be added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookWish {
    /// Where events go: https, at a host that `webhooks.allow` names.
    #[schema(max_length = 2048)]
    pub url: String,
    /// What it is told of: `batch`, `receipt`, `inbound`.
    #[schema(value_type = Vec<EventWord>)]
    pub events: Vec<EventKind>,
    /// Whose batches it is told of; only for keys that see all tenants. Left out: all that the key sees.
    #[schema(max_length = 256)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

/// The words of events.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "it only describes the words")]
enum EventWord {
    Batch,
    Receipt,
    Inbound,
}

/// All webhooks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WebhookList {
    /// Without their secrets.
    #[schema(value_type = Vec<Object>)]
    pub webhooks: Vec<WebhookView>,
}

/// Whether a webhook is told anything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ActiveWish {
    /// Whether it is.
    pub active: bool,
}

/// Which events are sent again; all of the webhook when nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReplayWish {
    /// Only those of this batch.
    #[schema(max_length = 256)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    /// Only the one at this place.
    #[schema(max_length = 256)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

/// How many events are sent again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Replayed {
    /// Events that were dead and wait again.
    pub replayed: u64,
}

/// One page of dead events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadPage {
    /// The oldest of a webhook first.
    #[schema(value_type = Vec<Object>)]
    pub events: Vec<DeadEvent>,
    /// Where the next page begins; `null` on the last.
    pub cursor: Option<String>,
}

/// Which dead events are listed.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeadQuery {
    /// Only those of this webhook.
    webhook: Option<String>,
    /// Where an earlier page ended.
    cursor: Option<String>,
    /// Events on the page.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
}

fn command(caller: &Caller, headers: &HeaderMap, action: &'static str, target: &str, request: String) -> Result<Command, Fault> {
    Ok(Command {
        caller: caller.clone(),
        key: once::key_of(headers)?,
        action,
        target: target.to_owned(),
        tenant: caller.tenant.clone(),
        before: Standing::new(),
        wish: Standing::from([("wish".to_owned(), request.clone())]),
        request,
    })
}

/// Lists webhooks
#[utoipa::path(get, path = "/v1/webhooks", tag = "webhooks", responses((status = 200, body = WebhookList), Refusals))]
pub async fn list(State(surface): Shared, Admin(caller): Admin) -> Answer<Json<WebhookList>> {
    Ok(Json(WebhookList { webhooks: surface.webhooks.list(caller.only_tenant()).await? }))
}

/// Adds a webhook
///
/// The secret that its calls are signed with is shown this once. Calls follow Standard Webhooks: `webhook-id`,
/// `webhook-timestamp` and `webhook-signature`.
#[utoipa::path(post, path = "/v1/webhooks", tag = "webhooks", request_body = WebhookWish,
    responses((status = 200, body = Object), Refusals))]
pub async fn add(State(surface): Shared, Admin(caller): Admin, Body(wish): Body<WebhookWish>) -> Answer<Response> {
    within("url", &wish.url, ADDRESS_BYTES_MAX)?;
    within("tenant", wish.tenant.as_deref().unwrap_or(""), NAME_BYTES_MAX)?;
    let of = match (caller.only_tenant(), wish.tenant.clone()) {
        (Some(own), Some(asked)) if own != asked => {
            return Err(Fault::new(Code::RoleForbidden, format!("key {} is of another tenant", caller.key)).into());
        }
        (Some(own), _) => Some(own.to_owned()),
        (None, asked) => asked.filter(|asked| asked != ALL_TENANTS),
    };
    let request = serde_json::to_string(&wish).unwrap_or_default();
    let command = command(&caller, &HeaderMap::new(), "webhook.add", "webhooks", request)?;
    let inner = surface.clone();
    carry_out(&surface, command, move |_| async move {
        let added: Added = inner.webhooks.add(of, &wish.url, wish.events).await?;
        let after = Standing::from([("id".to_owned(), added.webhook.id.clone())]);
        Ok((added, after))
    })
    .await
}

/// Begins or stops telling a webhook
#[utoipa::path(put, path = "/v1/webhooks/{id}/active", tag = "webhooks", request_body = ActiveWish,
    params(("id" = String, Path, description = "the webhook"), Once), responses((status = 200, body = Object), Refusals))]
pub async fn enable(
    State(surface): Shared,
    Admin(caller): Admin,
    Named(id): Named,
    headers: HeaderMap,
    Body(wish): Body<ActiveWish>,
) -> Answer<Response> {
    let command = command(&caller, &headers, "webhook.enable", &id, wish.active.to_string())?;
    let inner = surface.clone();
    carry_out(&surface, command, move |_| async move {
        Ok((inner.webhooks.enable(caller.only_tenant(), &id, wish.active).await?, Standing::new()))
    })
    .await
}

/// Removes a webhook, with everything that waits for it
#[utoipa::path(delete, path = "/v1/webhooks/{id}", tag = "webhooks",
    params(("id" = String, Path, description = "the webhook"), Once), responses((status = 200, body = Object), Refusals))]
pub async fn remove(State(surface): Shared, Admin(caller): Admin, Named(id): Named, headers: HeaderMap) -> Answer<Response> {
    let command = command(&caller, &headers, "webhook.remove", &id, String::new())?;
    let inner = surface.clone();
    carry_out(&surface, command, move |_| async move {
        let view = inner.webhooks.get(caller.only_tenant(), &id).await?;
        inner.webhooks.remove(caller.only_tenant(), &id).await?;
        Ok((view, Standing::new()))
    })
    .await
}

/// Lists events that were tried for about a day and not taken
#[utoipa::path(get, path = "/v1/dead-events", tag = "webhooks", params(DeadQuery), responses((status = 200, body = DeadPage), Refusals))]
pub async fn dead(State(surface): Shared, Admin(caller): Admin, Asked(query): Asked<DeadQuery>) -> Answer<Json<DeadPage>> {
    let limit = page_size(query.limit, 100)?;
    let behind = query.cursor.as_deref().map(place).transpose()?;
    let events = surface.webhooks.dead(caller.only_tenant(), query.webhook.as_deref(), behind.as_deref(), limit).await?;
    let next = events.last().filter(|_| events.len() >= limit).map(|last| cursor(&last.place));
    Ok(Json(DeadPage { events, cursor: next }))
}

/// Sends dead events of a webhook again
#[utoipa::path(post, path = "/v1/webhooks/{id}/replay", tag = "webhooks", request_body(content = Option<ReplayWish>),
    params(("id" = String, Path, description = "the webhook"), Once), responses((status = 200, body = Replayed), Refusals))]
pub async fn replay(
    State(surface): Shared,
    Admin(caller): Admin,
    Named(id): Named,
    headers: HeaderMap,
    Body(wish): Body<ReplayWish>,
) -> Answer<Response> {
    within("place", wish.place.as_deref().unwrap_or(""), NAME_BYTES_MAX)?;
    within("batch", wish.batch.as_deref().unwrap_or(""), NAME_BYTES_MAX)?;
    let what = match (&wish.place, &wish.batch) {
        (Some(_), Some(_)) => return Err(Fault::new(Code::InputInvalid, "name a batch or a place, not both").into()),
        (Some(place), None) => Replay::Place(place.clone()),
        (None, Some(batch)) => Replay::Batch(find(&surface, &caller, batch).await?.batch.batch_id),
        (None, None) => Replay::All,
    };
    let command = command(&caller, &headers, "webhook.replay", &id, serde_json::to_string(&wish).unwrap_or_default())?;
    let inner = surface.clone();
    carry_out(&surface, command, move |_| async move {
        let replayed = inner.webhooks.replay(caller.only_tenant(), &id, &what).await?;
        Ok((Replayed { replayed }, Standing::from([("replayed".to_owned(), replayed.to_string())])))
    })
    .await
}
