//! Accounts: how they are doing, and their rates, changed while they send.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{Json, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::once::{self, Command, carry_out};
use super::{Answer, Once, Refusals, Shared, whole_service};
use crate::access::rates;
use crate::model::access::Standing;
use crate::model::account::Account;
use crate::model::code::{Code, Fault};
use crate::serve::access::{Admin, Viewer};
use crate::serve::extract::{Body, Named};
use crate::serve::fleet::Surface;
use crate::statistics::LiveAccount;

/// An account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AccountView {
    /// Its name.
    pub name: String,
    /// Its provider type.
    pub provider_type: String,
    /// Segments a second as configured; `null` when they are learned.
    pub configured_rate: Option<u32>,
    /// Segments a second that were set live, when somebody did; they stand until they are set back.
    pub live_rate: Option<u32>,
    /// Price of a segment.
    pub price: Option<f64>,
    /// Its currency.
    pub currency: String,
    /// When it may send.
    pub hours: Option<String>,
    /// How it is doing, when a fleet runs here.
    #[schema(value_type = Option<Object>)]
    pub live: Option<LiveAccount>,
}

impl AccountView {
    fn of(account: &Account, live: Option<LiveAccount>, live_rate: Option<u32>) -> AccountView {
        AccountView {
            name: account.name.clone(),
            provider_type: account.provider_type.clone(),
            configured_rate: account.rate,
            live_rate,
            price: account.price,
            currency: account.currency.clone(),
            hours: account.hours.as_ref().map(|hours| hours.to_string()),
            live,
        }
    }
}

/// All accounts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AccountList {
    /// By name.
    pub accounts: Vec<AccountView>,
}

/// What a rate is changed to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RateWish {
    /// Segments a second at most; `null` sets it back to what is configured.
    #[schema(minimum = 1, maximum = 1_000_000, required)]
    // Not left out by mistake: to set a rate back is to say so.
    #[serde(deserialize_with = "Option::deserialize")]
    pub segments_per_second: Option<u32>,
}

async fn view(surface: &Surface, account: &Account) -> Result<AccountView, Fault> {
    let live = surface.seen().await?.accounts.into_iter().find(|live| live.account == account.name);
    let set = rates::get(&surface.stores, &account.name).await?;
    Ok(AccountView::of(account, live, set.map(|set| set.segments_per_second)))
}

fn known<'a>(surface: &'a Surface, name: &str) -> Result<&'a Account, Fault> {
    let unknown = || Fault::new(Code::AccountNotFound, format!("account {name:?}"));
    surface.accounts.get(name).ok_or_else(unknown)
}

/// Lists the accounts: state, rates, errors
#[utoipa::path(get, path = "/v1/accounts", tag = "accounts", responses((status = 200, body = AccountList), Refusals))]
pub async fn list(State(surface): Shared, _viewer: Viewer) -> Answer<Json<AccountList>> {
    let seen = surface.seen().await?.accounts;
    let mut live: BTreeMap<String, LiveAccount> = seen.into_iter().map(|live| (live.account.clone(), live)).collect();
    let set: BTreeMap<String, u32> = rates::all(&surface.stores).await?.into_iter().collect();
    let view = |account: &Account| AccountView::of(account, live.remove(&account.name), set.get(&account.name).copied());
    Ok(Json(AccountList { accounts: surface.accounts.values().map(view).collect() }))
}

/// Shows an account
#[utoipa::path(get, path = "/v1/accounts/{name}", tag = "accounts", params(("name" = String, Path, description = "its name")),
    responses((status = 200, body = AccountView), Refusals))]
pub async fn show(State(surface): Shared, _viewer: Viewer, Named(name): Named) -> Answer<Json<AccountView>> {
    Ok(Json(view(&surface, known(&surface, &name)?).await?))
}

/// Changes an account's rate, while it sends
///
/// Every process follows within a second. It stands until it is set back with `null`, also over a restart. An account sends for
/// all tenants: this is for keys that see all of them.
#[utoipa::path(put, path = "/v1/accounts/{name}/rate", tag = "accounts", request_body = RateWish,
    params(("name" = String, Path, description = "its name"), Once),
    responses((status = 200, body = AccountView), Refusals))]
pub async fn change_rate(
    State(surface): Shared,
    Admin(caller): Admin,
    Named(name): Named,
    headers: HeaderMap,
    Body(wish): Body<RateWish>,
) -> Answer<Response> {
    whole_service(&caller)?;
    let account = known(&surface, &name)?.clone();
    if wish.segments_per_second.is_some_and(|rate| !(1..=1_000_000).contains(&rate)) {
        return Err(Fault::new(Code::InputInvalid, "segments_per_second is 1 to 1,000,000, or null").into());
    }
    let words = |rate: Option<u32>| rate.map_or_else(|| "as configured".to_owned(), |rate| rate.to_string());
    let before = match rates::get(&surface.stores, &name).await {
        Ok(set) => words(set.map(|set| set.segments_per_second)),
        // Setting it anew is what mends it.
        Err(fault) if fault.code == Code::StoreCorrupt => "unreadable".to_owned(),
        Err(fault) => return Err(fault.into()),
    };
    let command = Command {
        caller,
        key: once::key_of(&headers)?,
        action: "account.rate",
        target: name,
        tenant: String::new(),
        before: Standing::from([("segments_per_second".into(), before)]),
        wish: Standing::from([("segments_per_second".into(), words(wish.segments_per_second))]),
        request: words(wish.segments_per_second),
    };
    let inner = surface.clone();
    carry_out(&surface, command, move |_| async move {
        rates::set(&inner.stores, &account.name, wish.segments_per_second, inner.world.clock.now()).await?;
        let after = Standing::from([("segments_per_second".into(), words(wish.segments_per_second))]);
        Ok((view(&inner, &account).await?, after))
    })
    .await
}
