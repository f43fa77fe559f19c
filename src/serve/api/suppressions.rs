//! The list of those who get nothing: one number, or many at once.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{Json, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::batches::number;
use super::once::{self, Command, carry_out};
use super::{Answer, Once, OneNumber, Refusals, Shared};
use crate::model::access::{Caller, Standing};
use crate::model::code::{Code, Fault};
use crate::model::id::Msisdn;
use crate::receipts::opt_out::{self, OptOut};
use crate::runtime::digest::{digest, hex};
use crate::serve::access::{Operator, Viewer};
use crate::serve::extract::{Body, Named};
use crate::serve::fleet::Surface;

/// Numbers in one request at most.
pub const NUMBERS_MAX: usize = 50_000;

/// Numbers of a request, each with its country code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Numbers {
    /// Such as `+8613800138000`.
    #[schema(max_items = 50000)]
    pub numbers: Vec<String>,
}

/// What a change of the list came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SuppressionAnswer {
    /// Numbers in the request.
    pub read: u64,
    /// Numbers on the list after it.
    pub suppressed: u64,
}

/// Whether one number gets nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Checked {
    /// Whether it is on the list.
    pub suppressed: bool,
    /// Why and since when, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub why: Option<OptOut>,
}

/// Which of many numbers get nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckedMany {
    /// For each number of the request, in its order.
    pub suppressed: Vec<bool>,
}

/// How many are on the list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Counted {
    /// Numbers that get nothing.
    pub suppressed: u64,
}

fn all(texts: &[String]) -> Result<Vec<Msisdn>, Fault> {
    if texts.len() > NUMBERS_MAX {
        return Err(Fault::new(Code::BodyTooLarge, format!("a request has at most {NUMBERS_MAX} numbers")));
    }
    let read = |(at, text): (usize, &String)| {
        number(text).map_err(|fault| Fault::new(fault.code, format!("number {} of the request: {}", at + 1, fault.context)))
    };
    texts.iter().enumerate().map(read).collect()
}

async fn change(
    surface: &Arc<Surface>,
    caller: Caller,
    headers: &HeaderMap,
    add: bool,
    numbers: Vec<Msisdn>,
) -> Answer<Response> {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.0.to_be_bytes()).collect();
    let wish = match numbers.as_slice() {
        [one] => ("number", one.to_string()),
        many => ("numbers", many.len().to_string()),
    };
    let command = Command {
        caller,
        key: once::key_of(headers)?,
        action: if add { "suppression.add" } else { "suppression.remove" },
        target: "suppressions".into(),
        tenant: String::new(),
        before: Standing::new(),
        wish: Standing::from([(wish.0.to_owned(), wish.1)]),
        request: hex(&digest([bytes.as_slice()])),
    };
    let inner = surface.clone();
    carry_out(surface, command, move |_| async move {
        let list = &inner.stores.suppressions;
        if add {
            list.add(&numbers).await?
        } else {
            opt_out::release(&inner.stores, &numbers).await?
        };
        let answer = SuppressionAnswer { read: numbers.len() as u64, suppressed: list.count().await? };
        let after = Standing::from([("suppressed".to_owned(), answer.suppressed.to_string())]);
        Ok((answer, after))
    })
    .await
}

/// Counts the numbers that get nothing
#[utoipa::path(get, path = "/v1/suppressions", tag = "suppressions", responses((status = 200, body = Counted), Refusals))]
pub async fn count(State(surface): Shared, _viewer: Viewer) -> Answer<Json<Counted>> {
    Ok(Json(Counted { suppressed: surface.stores.suppressions.count().await? }))
}

/// Says whether a number gets nothing
///
/// The list is one for all tenants; which batch a person answered, and through which account, is told to its own tenant alone.
#[utoipa::path(get, path = "/v1/suppressions/{number}", tag = "suppressions",
    params(OneNumber), responses((status = 200, body = Checked), Refusals))]
pub async fn check(State(surface): Shared, Operator(caller): Operator, Named(text): Named) -> Answer<Json<Checked>> {
    let checked = opt_out::check(&surface.stores, &[number(&text)?]).await?.pop();
    let found = checked.map_or((false, None), |checked| (checked.suppressed, checked.why));
    let why = found.1.map(|why| why.seen_by(caller.only_tenant()));
    Ok(Json(Checked { suppressed: found.0, why }))
}

/// Puts a number on the list
///
/// Whoever is on it gets nothing more within seconds, also of batches that run.
#[utoipa::path(put, path = "/v1/suppressions/{number}", tag = "suppressions",
    params(OneNumber, Once),
    responses((status = 200, body = SuppressionAnswer), Refusals))]
pub async fn add(State(surface): Shared, Operator(caller): Operator, Named(text): Named, headers: HeaderMap) -> Answer<Response> {
    change(&surface, caller, &headers, true, vec![number(&text)?]).await
}

/// Takes a number off the list
#[utoipa::path(delete, path = "/v1/suppressions/{number}", tag = "suppressions",
    params(OneNumber, Once),
    responses((status = 200, body = SuppressionAnswer), Refusals))]
pub async fn remove(
    State(surface): Shared,
    Operator(caller): Operator,
    Named(text): Named,
    headers: HeaderMap,
) -> Answer<Response> {
    change(&surface, caller, &headers, false, vec![number(&text)?]).await
}

/// Puts many numbers on the list
///
/// If one of them is no number, none is added.
#[utoipa::path(post, path = "/v1/suppressions/commands/add", tag = "suppressions", request_body = Numbers, params(Once),
    responses((status = 200, body = SuppressionAnswer), Refusals))]
pub async fn add_many(
    State(surface): Shared,
    Operator(caller): Operator,
    headers: HeaderMap,
    Body(wish): Body<Numbers>,
) -> Answer<Response> {
    change(&surface, caller, &headers, true, all(&wish.numbers)?).await
}

/// Takes many numbers off the list
#[utoipa::path(post, path = "/v1/suppressions/commands/remove", tag = "suppressions", request_body = Numbers, params(Once),
    responses((status = 200, body = SuppressionAnswer), Refusals))]
pub async fn remove_many(
    State(surface): Shared,
    Operator(caller): Operator,
    headers: HeaderMap,
    Body(wish): Body<Numbers>,
) -> Answer<Response> {
    change(&surface, caller, &headers, false, all(&wish.numbers)?).await
}

/// Says which of many numbers get nothing
#[utoipa::path(post, path = "/v1/suppressions/commands/check", tag = "suppressions", request_body = Numbers,
    responses((status = 200, body = CheckedMany), Refusals))]
pub async fn check_many(State(surface): Shared, _operator: Operator, Body(wish): Body<Numbers>) -> Answer<Json<CheckedMany>> {
    Ok(Json(CheckedMany { suppressed: surface.stores.suppressions.check(&all(&wish.numbers)?).await? }))
}
