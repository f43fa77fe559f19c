//! Lists that are handed in: streamed to where they are kept, whole or not at all.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{Json, Response};
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::once::{self, Command, carry_out};
use super::{Answer, Once, Refusals, Shared, whole_service};
use crate::model::access::Standing;
use crate::model::code::{Code, Fault};
use crate::ports::uploads::Uploaded as Kept;
use crate::serve::access::Operator;
use crate::serve::extract::{Asked, Named};

/// The longest that a list may stand still while it comes in.
const STANDS_STILL: Duration = Duration::from_secs(30);

/// A list that was handed in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Uploaded {
    /// SHA-256 of its content: the same list has the same id.
    pub upload_id: String,
    /// Its size.
    pub bytes: u64,
    /// What a batch may name as its `table_name`.
    pub table_name: String,
    /// When it was last handed in (RFC 3339).
    pub at: String,
}

impl Uploaded {
    fn of(kept: &Kept) -> Uploaded {
        let Kept { upload_id, bytes, table_name, at } = kept.clone();
        Uploaded { upload_id, bytes, table_name, at: at.to_string() }
    }
}

/// All lists that were handed in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UploadList {
    /// The newest first.
    pub uploads: Vec<Uploaded>,
}

/// What is known of a list before it comes.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UploadQuery {
    /// SHA-256 of its content, in hexadecimal: a list with another is refused.
    #[param(pattern = "^[0-9a-fA-F]{64}$")]
    sha256: Option<String>,
}

/// Hands in a list of recipients
///
/// CSV or JSON Lines, plain or compressed, as it is. It is there whole, or not at all; the same list again is the same upload.
#[utoipa::path(post, path = "/v1/uploads", tag = "uploads", params(UploadQuery),
    request_body(content = String, content_type = "application/octet-stream"),
    responses((status = 200, body = Uploaded), Refusals))]
pub async fn put(
    State(surface): Shared,
    Operator(caller): Operator,
    Asked(query): Asked<UploadQuery>,
    request: Request,
) -> Answer<Response> {
    let is_digest = |text: &String| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if query.sha256.as_ref().is_some_and(|text| !is_digest(text)) {
        return Err(Fault::new(Code::InputInvalid, "sha256 has 64 hexadecimal digits").into());
    }
    let pieces = stream::unfold(request.into_body().into_data_stream(), |mut body| async move {
        let piece = match tokio::time::timeout(STANDS_STILL, body.next()).await {
            Ok(Some(piece)) => piece.map_err(|error| Fault::new(Code::UploadBroken, format!("the upload broke off: {error}"))),
            Ok(None) => return None,
            Err(_) => Err(Fault::new(Code::TooSlow, format!("nothing came for {} seconds", STANDS_STILL.as_secs()))),
        };
        Some((piece, body))
    });
    let command = Command {
        tenant: caller.tenant.clone(),
        caller,
        key: None,
        action: "upload.put",
        target: "uploads".into(),
        before: Standing::new(),
        wish: Standing::new(),
        request: String::new(),
    };
    let inner = surface.clone();
    carry_out(&surface, command, move |_| async move {
        let kept = inner.lists.uploads().put(pieces.boxed(), query.sha256.as_deref(), None).await?;
        let after =
            Standing::from([("upload_id".to_owned(), kept.upload_id.clone()), ("bytes".to_owned(), kept.bytes.to_string())]);
        Ok((Uploaded::of(&kept), after))
    })
    .await
}

/// Lists what was handed in
///
/// Whoever knows a list's id can send to it, and lists have no tenant: this is for keys that see all of them.
#[utoipa::path(get, path = "/v1/uploads", tag = "uploads", responses((status = 200, body = UploadList), Refusals))]
pub async fn list(State(surface): Shared, Operator(caller): Operator) -> Answer<Json<UploadList>> {
    whole_service(&caller)?;
    let kept = surface.lists.uploads().list().await?;
    Ok(Json(UploadList { uploads: kept.iter().map(Uploaded::of).collect() }))
}

/// Lets go of a list
///
/// A batch that is not prepared yet and reads it keeps it.
#[utoipa::path(delete, path = "/v1/uploads/{upload_id}", tag = "uploads",
    params(("upload_id" = String, Path, description = "its id", pattern = "^[0-9a-f]{64}$"), Once),
    responses((status = 200, body = Uploaded), Refusals))]
pub async fn delete(
    State(surface): Shared,
    Operator(caller): Operator,
    Named(upload_id): Named,
    headers: HeaderMap,
) -> Answer<Response> {
    let missing = || Fault::new(Code::NotFound, "there is no such upload");
    let known = surface.lists.uploads().get(&upload_id).await?.ok_or_else(missing)?;
    let command = Command {
        tenant: caller.tenant.clone(),
        caller,
        key: once::key_of(&headers)?,
        action: "upload.delete",
        target: upload_id.clone(),
        before: Standing::from([("bytes".to_owned(), known.bytes.to_string())]),
        wish: Standing::new(),
        request: String::new(),
    };
    let inner = surface.clone();
    carry_out(&surface, command, move |_| async move {
        if inner.lists.in_use().await?.contains(&upload_id) {
            return Err(Fault::new(Code::NotAllowed, "a batch that is not prepared yet reads it"));
        }
        inner.lists.uploads().delete(&upload_id).await?;
        Ok((Uploaded::of(&known), Standing::new()))
    })
    .await
}
