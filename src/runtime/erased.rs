//! Which recipients' numbers were erased: what still comes in about them is kept without naming them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::model::id::{LaneKey, RecipientKey};
use crate::model::limits::ERASURE_READING_MAX;
use crate::ports::clock::Clock;
use crate::ports::documents::Shelf;
use crate::ports::{StoreError, Stores};

/// The document that differs after each erasure: it says when to look again.
const MARK: &str = "mark";
/// Names read at once.
const AT_ONCE: usize = 1_000;

/// The mark that the last erasure left, to be compared with what was read before. It is one row for the whole fleet and read with
/// a condition, so a process reads it now and then for all who ask, and an erasure waits for the readings of all to be over.
pub struct Mark {
    clock: Arc<dyn Clock>,
    /// When the last reading began, and what it found.
    kept: Mutex<Option<(Duration, Option<String>)>>,
    /// Held by the one that reads for all.
    reading: tokio::sync::Mutex<()>,
}

impl Mark {
    /// Nothing is read before somebody asks.
    pub fn new(clock: Arc<dyn Clock>) -> Mark {
        Mark { clock, kept: Mutex::default(), reading: tokio::sync::Mutex::default() }
    }

    /// What an erasure left, unless it came less than [`ERASURE_READING_MAX`] ago.
    pub async fn get(&self, stores: &Stores) -> Result<Option<String>, StoreError> {
        let asked = self.clock.boot();
        if let Some(mark) = self.fresh(asked) {
            return Ok(mark);
        }
        let _only_one = self.reading.lock().await;
        if let Some(mark) = self.fresh(asked) {
            return Ok(mark);
        }
        let begun = self.clock.boot();
        let mark = stores.documents.get(Shelf::Erased, MARK).await?;
        *self.kept() = Some((begun, mark.clone()));
        Ok(mark)
    }

    fn fresh(&self, asked: Duration) -> Option<Option<String>> {
        self.kept().as_ref().filter(|(begun, _)| *begun + ERASURE_READING_MAX >= asked).map(|(_, mark)| mark.clone())
    }

    fn kept(&self) -> MutexGuard<'_, Option<(Duration, Option<String>)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A set of erased recipients, as of the last look.
pub struct Erased {
    mark: Mark,
    known: Mutex<(Option<String>, BTreeSet<RecipientKey>)>,
}

impl Erased {
    /// Nothing is read before somebody looks.
    pub fn new(clock: Arc<dyn Clock>) -> Erased {
        Erased { mark: Mark::new(clock), known: Mutex::default() }
    }

    /// Reads the set again if there was an erasure since.
    pub async fn look(&self, stores: &Stores) -> Result<(), StoreError> {
        let mark = self.mark.get(stores).await?;
        if self.known.lock().unwrap_or_else(PoisonError::into_inner).0 == mark {
            return Ok(());
        }
        let (mut known, mut behind): (BTreeSet<RecipientKey>, Option<String>) = (BTreeSet::new(), None);
        loop {
            let page = stores.documents.list(Shelf::Erased, "", behind.as_deref(), AT_ONCE).await?;
            let Some(last) = page.last() else { break };
            behind = Some(last.name.clone());
            known.extend(page.iter().filter_map(|document| recipient_of(&document.name)));
        }
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = (mark, known);
        Ok(())
    }

    /// Whether a recipient's number was erased.
    pub fn has(&self, recipient: RecipientKey) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).1.contains(&recipient)
    }
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
