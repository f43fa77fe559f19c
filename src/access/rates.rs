//! Rates of accounts that were changed live: stored, so that every process follows and a restart keeps them.

use serde::{Deserialize, Serialize};

use crate::model::code::{Code, Fault};
use crate::model::time::Timestamp;
use crate::ports::Stores;
use crate::ports::documents::Shelf;
use crate::runtime::document;

/// Accounts read at once: more than anybody has.
const ACCOUNTS_MAX: usize = 10_000;

/// A rate that was set live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveRate {
    /// When it was set.
    pub stored: Timestamp,
    /// Segments a second at most.
    pub segments_per_second: u32,
}

/// The live rate of an account, when one is set.
///
/// # Errors
/// The store's.
pub async fn get(stores: &Stores, account: &str) -> Result<Option<LiveRate>, Fault> {
    stores.documents.get(Shelf::Rate, account).await?.map(|body| read(account, &body)).transpose()
}

/// Sets an account's rate; `None` sets it back to the configured one.
///
/// # Errors
/// The store's.
pub async fn set(stores: &Stores, account: &str, segments_per_second: Option<u32>, now: Timestamp) -> Result<(), Fault> {
    let stored = match segments_per_second {
        Some(segments_per_second) => {
            let body = serde_json::to_string(&LiveRate { stored: now, segments_per_second })
                .map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
            stores.documents.put(Shelf::Rate, account, &body).await
        }
        None => stores.documents.delete(Shelf::Rate, account).await,
    };
    Ok(stored?)
}

/// All live rates, by account.
///
/// # Errors
/// The store's. A rate that cannot be read is named, and no other is passed over for it: whoever asked keeps the rates it has,
/// until that one is set anew or set back.
pub async fn all(stores: &Stores) -> Result<Vec<(String, u32)>, Fault> {
    let documents = stores.documents.list(Shelf::Rate, "", None, ACCOUNTS_MAX).await?;
    documents
        .into_iter()
        .map(|document| {
            let rate = read(&document.name, &document.body)?;
            Ok((document.name, rate.segments_per_second))
        })
        .collect()
}

fn read(account: &str, body: &str) -> Result<LiveRate, Fault> {
    Ok(document::read(&format!("the live rate of account {account:.100}"), body)?)
}
