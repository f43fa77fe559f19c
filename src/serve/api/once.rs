//! A command from its request to its answer: taken once under its idempotency key, written into the audit trail before and
//! after, and carried to its end even when the caller has gone.

use std::future::Future;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::Answer;
use crate::access::answers::{self, Turn};
use crate::access::audit::Asked;
use crate::model::access::{Caller, Standing};
use crate::model::code::{Code, Fault};
use crate::runtime::task;
use crate::serve::fleet::Surface;

/// The header that names a command.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The header of an answer that was given before.
pub const REPLAYED: &str = "idempotency-replayed";
/// Characters of an idempotency key at most.
const KEY_MAX: usize = 200;

/// The idempotency key of a request.
///
/// # Errors
/// [`Code::InputInvalid`] when it is too long or no text.
pub fn key_of(headers: &HeaderMap) -> Result<Option<String>, Fault> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    match value.to_str() {
        Ok(key) if (1..=KEY_MAX).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(Fault::new(Code::InputInvalid, format!("Idempotency-Key has 1 to {KEY_MAX} visible ASCII characters"))),
    }
}

/// A command as it is asked for.
pub struct Command {
    /// Who asks.
    pub caller: Caller,
    /// Its idempotency key, when it has one.
    pub key: Option<String>,
    /// Such as `batch.pause`.
    pub action: &'static str,
    /// What it is about.
    pub target: String,
    /// Whose thing that is.
    pub tenant: String,
    /// How it is before.
    pub before: Standing,
    /// What is asked for, in words for the audit trail.
    pub wish: Standing,
    /// Everything that makes it this command and no other, as JSON.
    pub request: String,
}

/// Carries a command out. `run` gets a name for it that is the same whenever it is asked for again under the same key; it
/// gives the answer, and how things stand after it.
pub async fn carry_out<T, F, Run>(surface: &Arc<Surface>, command: Command, run: Run) -> Answer<Response>
where
    T: Serialize + Send + 'static,
    F: Future<Output = Result<(T, Standing), Fault>> + Send + 'static,
    Run: FnOnce(String) -> F + Send + 'static,
{
    let surface = surface.clone();
    // A caller that hangs up must not leave half a command behind.
    let done = task::spawn("command", async move { carried(&surface, command, run).await }).await;
    match done {
        Ok(answer) => Ok(answer?),
        Err(error) => Err(Fault::new(Code::Internal, format!("the command broke off: {error}")).into()),
    }
}

async fn carried<T, F, Run>(surface: &Surface, command: Command, run: Run) -> Result<Response, Fault>
where
    T: Serialize + Send + 'static,
    F: Future<Output = Result<(T, Standing), Fault>> + Send + 'static,
    Run: FnOnce(String) -> F + Send + 'static,
{
    let clock = surface.world.clock.clone();
    let request = format!("{} {} {}", command.action, command.target, command.request);
    let kept = command.key.as_ref().map(|key| answers::name_of(&command.caller.tenant, key));
    if let Some(name) = &kept {
        match answers::take(&surface.stores, name, request.as_bytes(), clock.now()).await? {
            Turn::CarryOut => {}
            Turn::Replay(body) => return Ok(response(body, true)),
        }
    }
    let name =
        kept.clone().unwrap_or_else(|| format!("{:016x}{:016x}", surface.world.chance.next(), surface.world.chance.next()));
    let Command { caller, action, target, tenant, before, wish, .. } = command;
    let asked = Asked { request: name.clone(), caller, action: action.to_owned(), target, tenant, before };
    let command = async {
        match run(name).await {
            Ok((answer, after)) => {
                let body = serde_json::to_string(&answer).map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
                if let Some(name) = &kept {
                    answers::finish(&surface.stores, name, request.as_bytes(), &body, clock.now()).await?;
                }
                Ok((body, after))
            }
            Err(fault) => {
                if let Some(name) = &kept {
                    answers::give_up(&surface.stores, name).await?;
                }
                Err(fault)
            }
        }
    };
    Ok(response(asked.witness(&surface.stores, &*clock, wish, command).await?, false))
}

fn response(body: String, replayed: bool) -> Response {
    let mut response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}
