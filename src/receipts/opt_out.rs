//! Suppressed numbers with why and since when: the list decides who gets nothing, a document says why.
//!
//! Numbers that were imported in bulk have no document; the list alone counts.

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::model::id::{BatchId, Msisdn};
use crate::model::time::Timestamp;
use crate::ports::documents::Shelf;
use crate::ports::{StoreError, Stores};

/// Documents written or read at once.
const AT_ONCE: usize = 64;

/// Who wanted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The person, by a message.
    Person,
    /// An operator.
    Operator,
}

/// Why and since when a number is suppressed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptOut {
    /// Who wanted it.
    pub origin: Origin,
    /// Since when.
    pub since: Timestamp,
    /// The account that the message came through.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub account: Option<String>,
    /// The batch that it answers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub batch: Option<BatchId>,
    /// Whose batch that is; none is known for those of an older version.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tenant: Option<String>,
    /// That batch's campaign; empty without one.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub campaign_id: String,
    /// What an operator says about it, or who it was.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub note: String,
}

impl OptOut {
    /// What a caller of this tenant may know of it (`None`: one who sees all): what a person answered is another tenant's matter.
    pub fn seen_by(mut self, tenant: Option<&str>) -> OptOut {
        if tenant.is_some() && self.tenant.as_deref() != tenant {
            (self.account, self.batch, self.tenant) = (None, None, None);
            self.campaign_id.clear();
        }
        self
    }
}

/// A number and whether it is suppressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppressed {
    /// The number.
    pub number: Msisdn,
    /// Whether it gets nothing.
    pub suppressed: bool,
    /// Why and since when, where it is known.
    pub why: Option<OptOut>,
}

/// Suppresses numbers, each with its reason, durably. A number that was suppressed before keeps the reason it has.
pub async fn suppress(stores: &Stores, numbers: &[(Msisdn, OptOut)]) -> Result<(), StoreError> {
    let plain: Vec<Msisdn> = numbers.iter().map(|(number, _)| *number).collect();
    let before = stores.suppressions.check(&plain).await?;
    // The list first: it is what keeps messages back.
    stores.suppressions.add(&plain).await?;
    let mut writes = Vec::with_capacity(numbers.len());
    for ((number, why), before) in numbers.iter().zip(before) {
        let body = serde_json::to_string(why).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let (documents, name) = (stores.documents.clone(), number.digits());
        writes.push(async move {
            if before {
                documents.insert(Shelf::OptOut, &name, &body).await.map(|_| ())
            } else {
                documents.put(Shelf::OptOut, &name, &body).await
            }
        });
    }
    stream::iter(writes).buffer_unordered(AT_ONCE).try_collect().await
}

/// Suppresses many numbers without a reason of their own, durably.
pub async fn suppress_all(stores: &Stores, numbers: &[Msisdn]) -> Result<(), StoreError> {
    stores.suppressions.add(numbers).await
}

/// Takes numbers off the list, and their reasons with them, durably.
pub async fn release(stores: &Stores, numbers: &[Msisdn]) -> Result<(), StoreError> {
    let mut deletes = Vec::with_capacity(numbers.len());
    for number in numbers {
        let (documents, name) = (stores.documents.clone(), number.digits());
        deletes.push(async move {
            match documents.get(Shelf::OptOut, &name).await? {
                Some(_) => documents.delete(Shelf::OptOut, &name).await,
                None => Ok(()),
            }
        });
    }
    stream::iter(deletes).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    stores.suppressions.remove(numbers).await
}

/// For each number whether it is suppressed, and why. A damaged reason is no reason, as for a number that was imported: the
/// list alone keeps messages back.
pub async fn check(stores: &Stores, numbers: &[Msisdn]) -> Result<Vec<Suppressed>, StoreError> {
    let suppressed = stores.suppressions.check(numbers).await?;
    let mut reads = Vec::with_capacity(numbers.len());
    for (number, suppressed) in numbers.iter().copied().zip(suppressed) {
        let documents = stores.documents.clone();
        reads.push(async move {
            let body = if suppressed { documents.get(Shelf::OptOut, &number.digits()).await? } else { None };
            let why = body.and_then(|body| serde_json::from_str(&body).ok());
            Ok(Suppressed { number, suppressed, why })
        });
    }
    stream::iter(reads).buffered(AT_ONCE).try_collect().await
}
