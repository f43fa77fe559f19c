//! Our own references in receipts: whom one names, and whether the account that brings it has any business with that batch.
//!
//! A reference is no secret: whoever has seen one can write others. So a provider is believed about the batches that were sent
//! through its type and about no others, and only about recipients there can be.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::model::account::Account;
use crate::model::batch::BatchRow;
use crate::model::id::{BatchId, LaneKey, RecipientKey};
use crate::ports::receipts::PartKey;
use crate::ports::{StoreError, Stores};

/// Batches remembered. Invented ones are not, so that guessing fills no memory.
const REMEMBERED_MAX: usize = 1_024;
/// What speaks against a reference is read again after this long: a change of provider makes old knowledge wrong.
const FRESH: Duration = Duration::from_millis(500);

/// What is known of the batches that references name.
#[derive(Default)]
pub struct References(Mutex<HashMap<BatchId, (Duration, Arc<Named>)>>);

/// What a reference must fit.
struct Named {
    provider_types: Vec<String>,
    lanes: u16,
    records: u64,
}

impl Named {
    fn of(row: &BatchRow) -> Named {
        let now = std::iter::once(&row.batch.provider_type);
        let provider_types = now.chain(&row.orders.before).cloned().collect();
        Named { provider_types, lanes: row.lanes, records: row.records }
    }

    fn fits(&self, account: &Account, recipient: RecipientKey) -> bool {
        self.provider_types.contains(&account.provider_type)
            && u16::from(recipient.lane.lane) < self.lanes
            && u64::from(recipient.seq) < self.records
    }
}

impl References {
    /// The recipient that a reference names, if the account may speak about it. `now` is a clock that only grows.
    pub async fn find(
        &self,
        stores: &Stores,
        now: Duration,
        account: &Account,
        reference: &str,
    ) -> Result<Option<PartKey>, StoreError> {
        let Some(part) = named(reference) else { return Ok(None) };
        let recipient = part.recipient;
        let batch = recipient.lane.batch;
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&batch).cloned();
        if let Some((read, known)) = held {
            let fits = known.fits(account, recipient);
            if fits || now.saturating_sub(read) < FRESH {
                return Ok(fits.then_some(part));
            }
        }
        // A batch that cannot be read is as good as none: the report waits, and all that came with it are taken in.
        let Some(stored) = StoreError::unless_damaged(stores.batches.load(batch).await)? else { return Ok(None) };
        let known = Arc::new(Named::of(&stored.row));
        let fits = known.fits(account, recipient);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED_MAX && !all.contains_key(&batch) {
            all.clear();
        }
        all.insert(batch, (now, known));
        Ok(fits.then_some(part))
    }
}

/// The recipient in a reference of ours: `batch-lane-seq-round`, as put into each submit.
fn named(reference: &str) -> Option<PartKey> {
    let mut fields = reference.split('-');
    let batch: BatchId = fields.next()?.parse().ok()?;
    let lane = fields.next()?.parse().ok()?;
    let seq = fields.next()?.parse().ok()?;
    Some(PartKey { recipient: RecipientKey { lane: LaneKey { batch, lane }, seq }, part: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::memory::store::MemoryStore;
    use crate::adapters::system::SeededChance;
    use crate::model::time::Timestamp;

    #[test]
    fn our_own_reference_names_the_recipient() {
        let batch = BatchId(0xabc);
        let found = named(&format!("{batch}-12-345-0")).expect("a reference of ours");
        assert_eq!((found.recipient.lane.batch, found.recipient.lane.lane, found.recipient.seq), (batch, 12, 345));
        for foreign in ["", "x", "1-2-3", "000-1-2-3"] {
            assert_eq!(named(foreign), None, "{foreign}");
        }
    }

    #[tokio::test]
    async fn a_provider_is_believed_about_what_was_sent_through_it_and_about_nothing_else() {
        let stores = MemoryStore::new(Arc::new(SeededChance::from_seed(1))).stores();
        let mut row = BatchRow::created(crate::model::batch::tests::batch(), String::new(), Timestamp(1));
        (row.lanes, row.records, row.batch.provider_type) = (2, 10, "first".into());
        let batch = BatchId(9);
        stores.batches.insert(batch, &row, 1).await.expect("inserted");
        let account = |provider_type: &str| Account {
            provider_type: provider_type.into(),
            ..crate::roles::config::AccountConfig::default().account("main")
        };
        let (first, second) = (account("first"), account("second"));
        let (references, at) = (References::default(), Duration::from_secs);
        let asks = async |now: u64, account: &Account, reference: String| {
            references.find(&stores, at(now), account, &reference).await.expect("the store answers").is_some()
        };
        assert!(asks(1, &first, format!("{batch}-1-9-0")).await);
        assert!(!asks(1, &second, format!("{batch}-1-9-0")).await, "another provider had nothing to do with it");
        assert!(!asks(1, &first, format!("{batch}-2-9-0")).await, "there is no such lane");
        assert!(!asks(1, &first, format!("{batch}-1-10-0")).await, "there is no such recipient");
        assert!(!asks(1, &first, format!("{}-0-0-0", BatchId(8))).await, "there is no such batch");
        // After a change of provider both may speak.
        (row.batch.provider_type, row.orders.before) = ("second".into(), vec!["first".into()]);
        stores.batches.replace(batch, 1, &row, 2).await.expect("replaced");
        assert!(asks(2, &second, format!("{batch}-1-9-0")).await && asks(2, &first, format!("{batch}-1-9-0")).await);
    }
}
