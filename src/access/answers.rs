//! Commands under an idempotency key: carried out once, answered alike each time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::code::{Code, Fault};
use crate::model::time::Timestamp;
use crate::ports::Stores;
use crate::ports::control::Cas;
use crate::ports::documents::Shelf;
use crate::runtime::digest::{digest, hex};
use crate::runtime::document;

/// How long a command that gave no answer yet is taken to be under way. Behind it, its process has died: the command is
/// carried out again, which is harmless, as a command names itself by its key wherever that matters.
pub const UNDER_WAY: Duration = Duration::from_secs(120);

/// What is stored of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Answered {
    /// When it was stored, for retention.
    stored: Timestamp,
    /// SHA-256 over the request.
    request: String,
    /// The answer; `None` while it is under way.
    answer: Option<String>,
}

/// What is to be done with a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Carry it out, then [`finish`] or [`give_up`].
    CarryOut,
    /// It was carried out: this was the answer.
    Replay(String),
}

/// The name under which a command's answer is kept.
pub fn name_of(tenant: &str, key: &str) -> String {
    hex(&digest([tenant.as_bytes(), key.as_bytes()]))
}

/// Takes a command under an idempotency key. `request` is everything that makes it this command and no other.
///
/// # Errors
/// [`Code::IdempotencyConflict`] when the key was used for another request, [`Code::CommandRunning`] while it is under way;
/// or the store's.
pub async fn take(stores: &Stores, name: &str, request: &[u8], now: Timestamp) -> Result<Turn, Fault> {
    let request = hex(&digest([request]));
    let mine = written(&Answered { stored: now, request: request.clone(), answer: None })?;
    if stores.documents.insert(Shelf::Answer, name, &mine).await? == Cas::Applied {
        return Ok(Turn::CarryOut);
    }
    let Some(body) = stores.documents.get(Shelf::Answer, name).await? else {
        // Given up between the two calls: whoever did so is done with it.
        return Err(Fault::new(Code::CommandRunning, "the key is being used"));
    };
    let known: Answered = document::read("a stored answer", &body)?;
    if known.request != request {
        return Err(Fault::new(Code::IdempotencyConflict, "the idempotency key was used for another request"));
    }
    match known.answer {
        Some(answer) => Ok(Turn::Replay(answer)),
        None if now.since(known.stored) < UNDER_WAY => {
            Err(Fault::new(Code::CommandRunning, "it was asked for a moment ago and is not answered yet"))
        }
        None => {
            stores.documents.put(Shelf::Answer, name, &mine).await?;
            Ok(Turn::CarryOut)
        }
    }
}

/// Keeps the answer of a command that was carried out.
pub async fn finish(stores: &Stores, name: &str, request: &[u8], answer: &str, now: Timestamp) -> Result<(), Fault> {
    let answered = Answered { stored: now, request: hex(&digest([request])), answer: Some(answer.to_owned()) };
    stores.documents.put(Shelf::Answer, name, &written(&answered)?).await.map_err(Fault::from)
}

/// Forgets a command that was refused: nothing was done, so the same key may be used again.
pub async fn give_up(stores: &Stores, name: &str) -> Result<(), Fault> {
    stores.documents.delete(Shelf::Answer, name).await.map_err(Fault::from)
}

fn written(answered: &Answered) -> Result<String, Fault> {
    serde_json::to_string(answered).map_err(|error| Fault::new(Code::Internal, error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::adapters::memory::store::MemoryStore;
    use crate::adapters::system::SeededChance;

    #[tokio::test]
    async fn a_key_carries_out_one_request_once() {
        let stores = MemoryStore::new(Arc::new(SeededChance::from_seed(1))).stores();
        let name = name_of("t", "k");
        assert_ne!(name, name_of("tk", ""));
        let take = async |request: &str, at: i64| take(&stores, &name, request.as_bytes(), Timestamp(at)).await;
        let code = |turn: Result<Turn, Fault>| turn.map_err(|fault| fault.code);
        assert_eq!(take("pause", 0).await, Ok(Turn::CarryOut));
        assert_eq!(code(take("pause", 1).await), Err(Code::CommandRunning));
        assert_eq!(code(take("cancel", 1).await), Err(Code::IdempotencyConflict));
        give_up(&stores, &name).await.expect("forgotten");
        assert_eq!(take("cancel", 2).await, Ok(Turn::CarryOut), "nothing had been done");
        let later = 2 + UNDER_WAY.as_millis() as i64;
        assert_eq!(code(take("cancel", later - 1).await), Err(Code::CommandRunning));
        assert_eq!(take("cancel", later).await, Ok(Turn::CarryOut), "its process died");
        finish(&stores, &name, b"cancel", "{\"ok\":1}", Timestamp(later)).await.expect("kept");
        assert_eq!(take("cancel", i64::MAX).await, Ok(Turn::Replay("{\"ok\":1}".into())));
        assert_eq!(code(take("pause", i64::MAX).await), Err(Code::IdempotencyConflict));
    }
}
