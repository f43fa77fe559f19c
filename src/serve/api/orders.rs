//! Orders: change of provider and retry. Each shows its plan first, and commits only the plan that was shown.

use axum::response::{IntoResponse, Json, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::batches::{find, number};
use super::commands::{CommandAnswer, OnOne, is_hash};
use super::{Answer, Once, OneBatch, Refusals};
use crate::batch::{ChangePlan, Offer, RetryPlan, RetryRequest};
use crate::model::code::{CODES, Code, Fault};
use crate::model::limits::{NAME_BYTES_MAX, ORDER_NUMBERS_MAX, ORDER_WORDS_MAX, within};
use crate::model::order::{RetryFilter, RetryWhat};
use crate::runtime::moment::moment;
use crate::serve::extract::Body;
use crate::serve::fleet::Surface;

/// What `change_provider` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeWish {
    /// The provider type that what is left goes through.
    #[schema(max_length = 256)]
    pub provider_type: String,
    /// The hash of the plan that is committed; without it the plan is shown and nothing is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 64)]
    pub plan_hash: Option<String>,
}

/// Whom a retry names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Whom {
    /// Who was refused for good.
    Failed,
    /// Who was never taken, and not refused.
    Unsent,
    /// Those of both whom the filter lets through.
    Filter,
}

/// What `retry` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryWish {
    /// Whom. Nobody whom an account took, or may have taken, is ever named.
    pub what: Whom,
    /// Filter: codes they failed with, such as `SF-5001`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 100)]
    pub codes: Vec<String>,
    /// Filter: accounts they were handed to last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 100)]
    pub accounts: Vec<String>,
    /// Filter: the provider's own codes they were refused with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 100)]
    pub details: Vec<String>,
    /// Filter: their numbers, with country codes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 1000)]
    pub numbers: Vec<String>,
    /// Until when they may be sent (RFC 3339): needed once the batch's own limit has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
    /// The hash of the plan that is committed; without it the plan is shown and nothing is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 64)]
    pub plan_hash: Option<String>,
}

impl RetryWish {
    fn request(&self) -> Result<RetryRequest, Fault> {
        let invalid = |text: String| Fault::new(Code::InputInvalid, text);
        let filtered = [&self.codes, &self.accounts, &self.details, &self.numbers].iter().any(|list| !list.is_empty());
        if filtered != (self.what == Whom::Filter) {
            return Err(invalid("codes, accounts, details and numbers go with what = filter, which needs one of them".into()));
        }
        for (name, words) in [("codes", &self.codes), ("accounts", &self.accounts), ("details", &self.details)] {
            if words.len() > ORDER_WORDS_MAX {
                return Err(invalid(format!("{name} has at most {ORDER_WORDS_MAX} of them")));
            }
            words.iter().try_for_each(|word| within(&format!("one of {name}"), word, NAME_BYTES_MAX))?;
        }
        if self.numbers.len() > ORDER_NUMBERS_MAX {
            return Err(invalid(format!("numbers has at most {ORDER_NUMBERS_MAX} of them")));
        }
        let code = |text: &String| {
            let known = CODES.iter().find(|code| code.as_str() == text);
            known.copied().ok_or_else(|| invalid(format!("{text:?} is no code of ours")))
        };
        let what = match self.what {
            Whom::Failed => RetryWhat::Failed,
            Whom::Unsent => RetryWhat::Unsent,
            Whom::Filter => RetryWhat::Filter(RetryFilter {
                codes: self.codes.iter().map(code).collect::<Result<_, _>>()?,
                accounts: self.accounts.clone(),
                details: self.details.clone(),
                numbers: self.numbers.iter().map(|text| number(text)).collect::<Result<_, _>>()?,
            }),
        };
        Ok(RetryRequest { what, not_after: self.not_after.as_deref().map(moment).transpose()? })
    }
}

/// A plan that was not committed, or what committing it came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OrderAnswer {
    /// Whether anything was changed.
    pub committed: bool,
    /// The plan of a change of provider: unsent recipients, segments and price here and there, what stands against it, rate
    /// and time; there while nothing was committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub change: Option<ChangePlan>,
    /// The plan of a retry; there while nothing was committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub retry: Option<RetryPlan>,
    /// What committing it came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<CommandAnswer>,
}

/// The accounts as they could be used now.
fn offers(surface: &Surface) -> Vec<Offer> {
    let live: Vec<_> = surface.live.iter().flat_map(|live| live.accounts()).collect();
    let rate = |name: &str| live.iter().find(|live| live.account == name).map(|live| live.rate);
    let offer = |account: &crate::model::account::Account| Offer { rate: rate(&account.name), account: account.clone() };
    surface.accounts.values().map(offer).collect()
}

/// Sends what is left through another provider type
///
/// Without `plan_hash` the plan is shown. With it exactly that plan is committed: when the answer comes, nothing is declared for
/// the old accounts any more. The batch is paused first.
#[utoipa::path(post, path = "/v1/batches/{id}/commands/change_provider", tag = "commands", request_body = ChangeWish,
    params(OneBatch, Once), responses((status = 200, body = OrderAnswer), Refusals))]
pub async fn change_provider(command: OnOne, Body(wish): Body<ChangeWish>) -> Answer<Response> {
    within("provider_type", &wish.provider_type, NAME_BYTES_MAX)?;
    is_hash(wish.plan_hash.as_deref())?;
    let Some(hash) = wish.plan_hash.clone() else {
        let row = find(&command.surface, &command.caller, &command.id).await?;
        let (service, offers) = (&command.surface.service, offers(&command.surface));
        let plan = service.plan_change(row.batch.batch_id, &wish.provider_type, &offers).await?;
        return Ok(Json(OrderAnswer { committed: false, change: Some(plan), retry: None, done: None }).into_response());
    };
    let (on_batch, id) = command.about("batch.change_provider", &wish).await?;
    let order = async move |surface: &Surface, name: &str| {
        surface.service.change_provider(id, &wish.provider_type, &hash, &offers(surface), name).await
    };
    on_batch.run_as(async move |surface, name| order(&surface, &name).await, committed).await
}

/// Sends recipients of a batch that has ended again
///
/// Without `plan_hash` the plan is shown. With it exactly that plan is committed.
#[utoipa::path(post, path = "/v1/batches/{id}/commands/retry", tag = "commands", request_body = RetryWish,
    params(OneBatch, Once), responses((status = 200, body = OrderAnswer), Refusals))]
pub async fn retry(command: OnOne, Body(wish): Body<RetryWish>) -> Answer<Response> {
    is_hash(wish.plan_hash.as_deref())?;
    let request = wish.request()?;
    let Some(hash) = wish.plan_hash.clone() else {
        let row = find(&command.surface, &command.caller, &command.id).await?;
        let (service, offers) = (&command.surface.service, offers(&command.surface));
        let plan = service.plan_retry(row.batch.batch_id, &request.what, &offers).await?;
        return Ok(Json(OrderAnswer { committed: false, change: None, retry: Some(plan), done: None }).into_response());
    };
    // The trail says how many numbers were named, not which.
    let mut told = wish.clone();
    told.numbers = wish.numbers.iter().filter_map(|text| number(text).ok()).map(|number| number.to_string()).collect();
    let (on_batch, id) = command.about("batch.retry", &told).await?;
    on_batch.run_as(async move |surface, name| surface.service.retry(id, &request, Some(&hash), &name).await, committed).await
}

fn committed(done: CommandAnswer) -> OrderAnswer {
    OrderAnswer { committed: true, change: None, retry: None, done: Some(done) }
}
