//! The audit trail, to be read: no route changes it.

use axum::extract::State;
use axum::response::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::batches::find;
use super::{Answer, Refusals, Shared};
use crate::access::audit::{self, Wanted};
use crate::model::access::AuditEntry;
use crate::serve::access::Admin;
use crate::serve::extract::{Asked, journal_cursor, journal_place, page_size};

/// An entry of the audit trail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditView {
    /// When (RFC 3339).
    pub time: String,
    /// The entry.
    #[serde(flatten)]
    pub entry: AuditEntry,
}

/// One page of the audit trail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditPage {
    /// Entries, newest first: one before each command and one after it, with the same `request`.
    #[schema(value_type = Vec<Object>)]
    pub entries: Vec<AuditView>,
    /// Where the next page begins; `null` on the last. A page may be short, or empty, and have a next one.
    pub cursor: Option<String>,
}

/// Which entries are listed.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Only about this batch.
    batch: Option<String>,
    /// Only by this key.
    key: Option<String>,
    /// Where an earlier page ended.
    cursor: Option<String>,
    /// Entries on the page.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
}

/// Lists who did what, newest first
#[utoipa::path(get, path = "/v1/audit", tag = "audit", params(AuditQuery), responses((status = 200, body = AuditPage), Refusals))]
pub async fn list(State(surface): Shared, Admin(caller): Admin, Asked(query): Asked<AuditQuery>) -> Answer<Json<AuditPage>> {
    let limit = page_size(query.limit, 100)?;
    let batch = match &query.batch {
        Some(id) => Some(find(&surface, &caller, id).await?.batch.batch_id),
        None => None,
    };
    let behind = query.cursor.as_deref().map(journal_place).transpose()?;
    let tenant = caller.only_tenant().map(str::to_owned);
    let wanted = Wanted { batch, tenant, key: query.key };
    let (entries, next) = audit::list(&surface.stores, &wanted, behind, limit).await?;
    let entries = entries.into_iter().map(|entry| AuditView { time: entry.at.to_string(), entry }).collect();
    Ok(Json(AuditPage { entries, cursor: next.as_ref().map(journal_cursor) }))
}
