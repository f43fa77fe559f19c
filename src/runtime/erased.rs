//! Which recipients' numbers were erased: what still comes in about them is kept without naming them.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::model::id::{LaneKey, RecipientKey};
use crate::ports::documents::Shelf;
use crate::ports::{StoreError, Stores};

/// The document that differs after each erasure: it says when to look again.
const MARK: &str = "mark";
/// Names read at once.
const AT_ONCE: usize = 1_000;

/// A set of erased recipients, as of the last look.
#[derive(Default)]
pub struct Erased(Mutex<(Option<String>, BTreeSet<RecipientKey>)>);

impl Erased {
    /// Reads the set again if there was an erasure since.
    pub async fn look(&self, stores: &Stores) -> Result<(), StoreError> {
        let mark = mark(stores).await?;
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).0 == mark {
            return Ok(());
        }
        let (mut known, mut behind): (BTreeSet<RecipientKey>, Option<String>) = (BTreeSet::new(), None);
        loop {
            let page = stores.documents.list(Shelf::Erased, "", behind.as_deref(), AT_ONCE).await?;
            let Some(last) = page.last() else { break };
            behind = Some(last.name.clone());
            known.extend(page.iter().filter_map(|document| recipient_of(&document.name)));
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (mark, known);
        Ok(())
    }

    /// Whether a recipient's number was erased.
    pub fn has(&self, recipient: RecipientKey) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.contains(&recipient)
    }
}

/// What the last erasure left, to be compared with what was read before.
pub async fn mark(stores: &Stores) -> Result<Option<String>, StoreError> {
    stores.documents.get(Shelf::Erased, MARK).await
}

/// Lets everybody look again: called after each erasure, with something that no earlier one said.
pub async fn raise(stores: &Stores, mark: &str) -> Result<(), StoreError> {
    stores.documents.put(Shelf::Erased, MARK, mark).await
}

/// The name of a recipient's document.
pub fn name_of(recipient: RecipientKey) -> String {
    format!("{}-{}-{}", recipient.lane.batch, recipient.lane.lane, recipient.seq)
}

/// The recipient of a document's name.
pub fn recipient_of(name: &str) -> Option<RecipientKey> {
    let mut fields = name.split('-');
    let (batch, lane) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(RecipientKey { lane: LaneKey { batch, lane }, seq: fields.next()?.parse().ok()? })
}
