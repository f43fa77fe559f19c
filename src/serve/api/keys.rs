//! API keys: made, listed, revoked.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{Json, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::once::{self, Command, carry_out};
use super::{Answer, Refusals, Shared};
use crate::model::access::{ApiKey, Role, Standing};
use crate::model::code::{Code, Fault};
use crate::runtime::moment::moment;
use crate::serve::access::Admin;
use crate::serve::extract::{Body, Named};

/// A key, without what opens anything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct KeyView {
    /// Its id.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// What it may do: `viewer`, `operator` or `admin`.
    #[schema(value_type = RoleWord)]
    pub role: Role,
    /// Whose batches it sees; `*` for all.
    pub tenant: String,
    /// When it was created (RFC 3339).
    pub created: String,
    /// When it ends (RFC 3339).
    pub expires: Option<String>,
    /// When it was revoked (RFC 3339).
    pub revoked: Option<String>,
}

impl KeyView {
    fn of(key: &ApiKey) -> KeyView {
        KeyView {
            id: key.id.clone(),
            name: key.name.clone(),
            role: key.role,
            tenant: key.tenant.clone(),
            created: key.created.to_string(),
            expires: key.expires.map(|at| at.to_string()),
            revoked: key.revoked.map(|at| at.to_string()),
        }
    }
}

/// The words of a role.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "it only describes the words")]
enum RoleWord {
    Viewer,
    Operator,
    Admin,
}

/// All keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct KeyList {
    /// The oldest first, revoked ones included.
    pub keys: Vec<KeyView>,
}

/// A key to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyWish {
    /// What it is for.
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    /// What it may do: `viewer`, `operator` or `admin`.
    #[schema(value_type = RoleWord)]
    pub role: Role,
    /// Whose batches it sees; `*`, or left out, for all that the maker sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// When it ends (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// A key that was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MadeKey {
    /// The key itself: it is shown this once.
    pub key: String,
    /// What is kept of it.
    pub stored: KeyView,
}

/// Lists the keys
#[utoipa::path(get, path = "/v1/keys", tag = "keys", responses((status = 200, body = KeyList), Refusals))]
pub async fn list(State(surface): Shared, Admin(caller): Admin) -> Answer<Json<KeyList>> {
    let keys = surface.keys.list().await?;
    Ok(Json(KeyList { keys: keys.iter().filter(|key| caller.sees(&key.tenant)).map(KeyView::of).collect() }))
}

/// Makes a key
///
/// It is not kept for a repeat under an idempotency key: its text exists once, in this answer.
#[utoipa::path(post, path = "/v1/keys", tag = "keys", request_body = KeyWish,
    responses((status = 200, body = MadeKey), Refusals))]
pub async fn create(State(surface): Shared, Admin(caller): Admin, Body(wish): Body<KeyWish>) -> Answer<Response> {
    let tenant = wish.tenant.clone().unwrap_or_else(|| caller.tenant.clone());
    // Who sees one tenant can make keys for that one only.
    if caller.only_tenant().is_some_and(|only| only != tenant) {
        return Err(Fault::new(Code::RoleForbidden, format!("key {} is of another tenant", caller.key)).into());
    }
    let expires = wish.expires.as_deref().map(moment).transpose()?;
    let words = [("name", wish.name.clone()), ("role", wish.role.name().to_owned()), ("tenant", tenant.clone())];
    let command = Command {
        caller,
        key: None,
        action: "key.create",
        target: "keys".into(),
        tenant: tenant.clone(),
        before: Standing::new(),
        wish: words.map(|(name, word)| (name.to_owned(), word)).into(),
        request: String::new(),
    };
    let inner = surface.clone();
    carry_out(&surface, command, move |_| async move {
        let made = inner.keys.create(&wish.name, wish.role, &tenant, expires).await?;
        let after = Standing::from([("id".to_owned(), made.stored.id.clone())]);
        Ok((MadeKey { key: made.key, stored: KeyView::of(&made.stored) }, after))
    })
    .await
}

/// Revokes a key
///
/// Every process refuses it within a second.
#[utoipa::path(delete, path = "/v1/keys/{id}", tag = "keys", params(("id" = String, Path, description = "its id")),
    responses((status = 200, body = KeyView), Refusals))]
pub async fn revoke(State(surface): Shared, Admin(caller): Admin, Named(id): Named, headers: HeaderMap) -> Answer<Response> {
    let missing = || Fault::new(Code::KeyNotFound, format!("key {id:?}"));
    // That key alone: another one whose row is damaged must not stand in the way.
    let (tenant, revoked) = match surface.keys.find(&id).await {
        Ok(Some(key)) if caller.sees(&key.tenant) => (key.tenant.clone(), key.revoked.is_some().to_string()),
        // Whose it was nobody can say: who sees all tenants may take it away.
        Err(fault) if fault.code == Code::StoreCorrupt && caller.only_tenant().is_none() => {
            (String::new(), "unreadable".to_owned())
        }
        Err(fault) if fault.code != Code::StoreCorrupt => return Err(fault.into()),
        Ok(_) | Err(_) => return Err(missing().into()),
    };
    let command = Command {
        caller,
        key: once::key_of(&headers)?,
        action: "key.revoke",
        target: id.clone(),
        tenant,
        before: Standing::from([("revoked".to_owned(), revoked)]),
        wish: Standing::new(),
        request: String::new(),
    };
    let inner = surface.clone();
    carry_out(&surface, command, move |_| async move {
        let key = inner.keys.revoke(&id).await?;
        Ok((KeyView::of(&key), Standing::from([("revoked".to_owned(), "true".to_owned())])))
    })
    .await
}
