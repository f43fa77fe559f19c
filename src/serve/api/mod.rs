//! The API: every route with its role, its limits and its description.
//!
//! The description is served at [`DOCUMENT`] and made from the handlers themselves, so that it cannot say anything else. A
//! handler reads its request, asks a stage, and gives the answer a shape; nothing is decided here.

mod accounts;
mod audit;
mod batches;
mod commands;
mod create;
mod fleet;
mod keys;
mod numbers;
mod once;
mod orders;
mod suppressions;
mod uploads;
mod watch;
mod webhooks;

use std::collections::BTreeMap;
use std::sync::Arc;

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{self, RefOr};
use utoipa::{IntoParams, IntoResponses, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::fleet::Surface;
use super::problem::Problem;
use crate::model::access::Caller;
use crate::model::code::{Code, Fault};

pub use accounts::{AccountList, AccountView, RateWish};
pub use audit::AuditPage;
pub use batches::{BatchExplained, BatchPage, NumberExplained};
pub use commands::{CommandAnswer, PauseView, PauseWish, StartWish, standing};
pub use create::{Created, NewBatch, SourceWish};
pub use fleet::{FleetView, MemberView, SlotView};
pub use keys::{KeyList, KeyView, KeyWish, MadeKey};
pub use numbers::InboxList;
pub use orders::{ChangeWish, OrderAnswer, RetryWish, Whom};
pub use suppressions::{CheckedMany, NUMBERS_MAX, Numbers, SuppressionAnswer};
pub use uploads::{UploadList, Uploaded};
pub use watch::Watched;
pub use webhooks::{ActiveWish, DeadPage, ReplayWish, Replayed, WebhookList, WebhookWish};

/// Where the description of the API is served.
pub const DOCUMENT: &str = "/openapi.json";

/// What every handler answers with.
pub(super) type Answer<T> = Result<T, Problem>;
/// What every handler answers from.
pub(super) type Shared = axum::extract::State<Arc<Surface>>;

#[derive(OpenApi)]
#[openapi(
    info(title = "smsfleet", description = "Sends batches of text messages and accounts for every recipient."),
    components(schemas(Problem)),
    security(("key" = [])),
    modifiers(&Key),
)]
struct Document;

/// The API key, as the description names it.
struct Key;

impl utoipa::Modify for Key {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("sfk_ID_SECRET").build();
        let components = document.components.get_or_insert_with(Default::default);
        components.add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}

/// What concerns all tenants alike is for keys that see all of them.
fn whole_service(caller: &Caller) -> Result<(), Fault> {
    if caller.only_tenant().is_none() {
        return Ok(());
    }
    Err(Fault::new(Code::RoleForbidden, "this needs a key that sees all tenants"))
}

/// The batch that a route is about.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "it only describes the parameter")]
struct OneBatch {
    /// The batch: its id, or the first digits of it.
    #[param(pattern = "^[0-9a-fA-F]{4,32}$")]
    id: String,
}

/// What names a command.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "it only describes the parameter")]
struct Once {
    /// Carries the command out once: asked for again with the same key, it gives the same answer.
    #[param(rename = "idempotency-key", min_length = 1, max_length = 200)]
    key: Option<String>,
}

/// What every route may answer instead: a problem document (RFC 9457).
struct Refusals;

impl IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        let problem = |meaning: &str| {
            let content = openapi::ContentBuilder::new().schema(Some(openapi::Ref::from_schema_name("Problem"))).build();
            let response = openapi::ResponseBuilder::new().description(meaning).content("application/problem+json", content);
            RefOr::T(response.build())
        };
        let refused = [("4XX", "what was asked is refused"), ("5XX", "it could not be done now")];
        refused.into_iter().map(|(status, meaning)| (status.to_owned(), problem(meaning))).collect()
    }
}

/// The number that a route is about.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "it only describes the parameter")]
struct OneNumber {
    /// A number with its country code, such as `+8613800138000`.
    #[param(pattern = "^[+]?[1-9][0-9]{4,14}$")]
    number: String,
}

/// All routes of the API, with their description.
pub fn routes() -> OpenApiRouter<Arc<Surface>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(batches::list, create::create))
        .routes(routes!(batches::show))
        .routes(routes!(batches::progress))
        .routes(routes!(batches::report))
        .routes(routes!(batches::recipients))
        .routes(routes!(batches::explain))
        .routes(routes!(watch::watch))
        .routes(routes!(commands::entry_process))
        .routes(routes!(commands::start))
        .routes(routes!(commands::approve))
        .routes(routes!(commands::pause))
        .routes(routes!(commands::resume))
        .routes(routes!(commands::cancel))
        .routes(routes!(orders::change_provider))
        .routes(routes!(orders::retry))
        .routes(routes!(fleet::show))
        .routes(routes!(accounts::list))
        .routes(routes!(accounts::show))
        .routes(routes!(accounts::change_rate))
        .routes(routes!(uploads::put, uploads::list))
        .routes(routes!(uploads::delete))
        .routes(routes!(suppressions::count))
        .routes(routes!(suppressions::check, suppressions::add, suppressions::remove))
        .routes(routes!(suppressions::add_many))
        .routes(routes!(suppressions::remove_many))
        .routes(routes!(suppressions::check_many))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::revoke))
        .routes(routes!(webhooks::list, webhooks::add))
        .routes(routes!(webhooks::remove))
        .routes(routes!(webhooks::enable))
        .routes(routes!(webhooks::replay))
        .routes(routes!(webhooks::dead))
        .routes(routes!(numbers::history))
        .routes(routes!(numbers::export))
        .routes(routes!(numbers::erase))
        .routes(routes!(numbers::list))
        .routes(routes!(audit::list))
}

#[cfg(test)]
mod tests;
