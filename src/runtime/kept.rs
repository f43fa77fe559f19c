//! Whether the rows are there still by which it is known who of a batch was sent.
//!
//! Retention writes down what it lets go of before it does ([`LetGo`](crate::model::let_go::LetGo)). Where that is not written,
//! by an earlier version or because rows were lost, absence must not pass for "never sent": this is the look at the rows
//! themselves.

use std::fmt;

use futures::stream::{self, StreamExt, TryStreamExt};

use crate::model::batch::BatchRow;
use crate::model::id::LaneKey;
use crate::model::ledger::Ledger;
use crate::ports::{StoreError, Stores};

/// Lanes looked at at once.
const LANES_AT_ONCE: usize = 8;

/// What is not there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A lane's manifest.
    Manifest(LaneKey),
    /// All windows of a lane in which people were declared.
    History(LaneKey),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Manifest(lane) => write!(f, "the manifest of lane {lane} is not there any more"),
            Missing::History(lane) => write!(f, "what happened in lane {lane} is not there any more"),
        }
    }
}

/// What of a sealed batch is missing; `None` while all lanes have their manifest, and windows where people were declared.
///
/// # Errors
/// The store's.
pub async fn missing(stores: &Stores, row: &BatchRow) -> Result<Option<Missing>, StoreError> {
    let ledgers = stores.ledgers.list(row.batch.batch_id).await?;
    let looks =
        ledgers.into_iter().filter(|(_, ledger)| ledger.row.len > 0).map(|(key, ledger)| of_lane(stores, key, ledger.row));
    let mut looked = stream::iter(looks).buffered(LANES_AT_ONCE);
    while let Some(missing) = looked.try_next().await? {
        if missing.is_some() {
            return Ok(missing);
        }
    }
    Ok(None)
}

async fn of_lane(stores: &Stores, key: LaneKey, ledger: Ledger) -> Result<Option<Missing>, StoreError> {
    let Some(manifest) = stores.manifests.get(key).await? else { return Ok(Some(Missing::Manifest(key))) };
    // A window that is open may have no row yet, and one of people who are struck out never gets any.
    let declared = ledger.open.is_empty() && (0..ledger.first_pass()).any(|seq| !manifest.is_struck(seq));
    if declared && stores.windows.list(key, 0, 1).await?.is_empty() {
        return Ok(Some(Missing::History(key)));
    }
    Ok(None)
}
