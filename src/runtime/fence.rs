//! Fences: a change of every ledger of a batch, after which whatever rests on an older reading of them is refused.

use futures::stream::{self, StreamExt, TryStreamExt};

use super::control::change;
use crate::model::id::LaneKey;
use crate::model::ledger::Ledger;
use crate::ports::StoreError;
use crate::ports::batches::Ledgers;
use crate::ports::clock::Chance;
use crate::ports::control::Versioned;

/// Ledgers fenced at once: a store that commits in groups takes them together.
const AT_ONCE: usize = 16;

/// Fences lanes: `fenced` makes the row behind the fence, or `None` when the row stands behind it already. When this returns,
/// every lane does, and the rows are given back as they are stored then, in the same order.
///
/// # Errors
/// The store's, when waiting cannot help; some lanes may be fenced then, and doing it again is harmless.
pub async fn fence(
    ledgers: &dyn Ledgers,
    chance: &dyn Chance,
    lanes: Vec<(LaneKey, Versioned<Ledger>)>,
    fenced: impl Fn(&Versioned<Ledger>) -> Option<Ledger> + Sync,
) -> Result<Vec<(LaneKey, Versioned<Ledger>)>, StoreError> {
    let fenced = &fenced;
    let all = lanes.into_iter().map(|(key, read)| async move {
        // A row never leaves a fence behind again, so that what was read may be old.
        if fenced(&read).is_none() {
            return Ok((key, read));
        }
        loop {
            let mut stands = None;
            let changed = change(ledgers, key, chance, |current| fenced(current).ok_or_else(|| stands = Some(current.clone())));
            match changed.await {
                Ok(Ok(row)) => return Ok((key, row)),
                Ok(Err(())) => {
                    if let Some(row) = stands {
                        return Ok((key, row));
                    }
                }
                // Overtaken while unanswered: look again. The fence is what counts, not whose it is.
                Err(StoreError::Unknown(_)) => {}
                Err(error) => return Err(error),
            }
        }
    });
    stream::iter(all).buffered(AT_ONCE).try_collect().await
}
