//! The suppression list: rows on the disk, and all of it in memory as a compressed bitmap.

use std::sync::PoisonError;

use roaring::RoaringTreemap;

use super::Keyed;
use crate::adapters::embedded::engine::{Batch, Engine, Op, Order, Table};
use crate::adapters::rows::key::KeyReader;
use crate::model::id::Msisdn;
use crate::ports::StoreError;
use crate::ports::suppressions::Suppressions;

/// Numbers in one commit at most.
const NUMBERS_PER_COMMIT: usize = 8_192;

pub(super) fn load(engine: &dyn Engine) -> Result<RoaringTreemap, StoreError> {
    let mut all = RoaringTreemap::new();
    engine.read()?.scan(Table::Suppressed, &[], None, Order::Up, &mut |key, _| {
        all.insert(KeyReader(key).u64()?);
        Ok(true)
    })?;
    Ok(all)
}

fn row_key(number: Msisdn) -> Vec<u8> {
    number.0.to_be_bytes().to_vec()
}

#[async_trait::async_trait]
impl Suppressions for Keyed {
    async fn add(&self, numbers: &[Msisdn]) -> Result<(), StoreError> {
        let _in_order = self.suppressing.lock().await;
        for some in numbers.chunks(NUMBERS_PER_COMMIT) {
            let ops = some.iter().map(|number| Op::Put(Table::Suppressed, row_key(*number), vec![])).collect();
            self.engine.write(Batch { ops, ..Batch::data() }).await?;
            let mut all = self.suppressed.write().unwrap_or_else(PoisonError::into_inner);
            all.extend(some.iter().map(|number| number.0));
        }
        Ok(())
    }

    async fn remove(&self, numbers: &[Msisdn]) -> Result<(), StoreError> {
        let _in_order = self.suppressing.lock().await;
        for some in numbers.chunks(NUMBERS_PER_COMMIT) {
            let ops = some.iter().map(|number| Op::Delete(Table::Suppressed, row_key(*number))).collect();
            self.engine.write(Batch { ops, ..Batch::control() }).await?;
            let mut all = self.suppressed.write().unwrap_or_else(PoisonError::into_inner);
            some.iter().for_each(|number| {
                all.remove(number.0);
            });
        }
        Ok(())
    }

    async fn check(&self, numbers: &[Msisdn]) -> Result<Vec<bool>, StoreError> {
        let all = self.suppressed.read().unwrap_or_else(PoisonError::into_inner);
        Ok(numbers.iter().map(|number| all.contains(number.0)).collect())
    }

    async fn count(&self) -> Result<u64, StoreError> {
        Ok(self.suppressed.read().unwrap_or_else(PoisonError::into_inner).len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::{Mutex, oneshot};

    use super::*;
    use crate::adapters::embedded::engine::memory::MemoryEngine;
    use crate::adapters::embedded::engine::{Reader, Written};
    use crate::adapters::embedded::index::IndexOptions;
    use crate::adapters::embedded::keyed::MarkCell;
    use crate::adapters::system::SeededChance;

    /// An engine that applies batches in order, and whose first two answers are heard the other way round where both are awaited
    /// at once: whoever is answered on another thread may be the later one to run.
    #[derive(Default)]
    struct HeardInReverse {
        rows: MemoryEngine,
        first: Mutex<Option<oneshot::Receiver<()>>>,
        second: Mutex<Option<oneshot::Sender<()>>>,
    }

    #[async_trait::async_trait]
    impl Engine for HeardInReverse {
        fn read(&self) -> Result<Box<dyn Reader + '_>, StoreError> {
            self.rows.read()
        }

        async fn write(&self, batch: Batch) -> Result<Written, StoreError> {
            let written = self.rows.write(batch).await;
            let waits = self.first.lock().await.take();
            if let Some(second) = waits {
                let _ = tokio::time::timeout(Duration::from_secs(1), second).await;
            } else if let Some(first) = self.second.lock().await.take() {
                // Heard once this answer has been taken in.
                tokio::spawn(async move { first.send(()) });
            }
            written
        }

        fn room(&self) -> Result<(), StoreError> {
            self.rows.room()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn memory_says_what_the_rows_say_whoever_is_answered_first() {
        let engine = Arc::new(HeardInReverse::default());
        let chance = Arc::new(SeededChance::from_seed(1));
        let keyed = Keyed::open(engine.clone(), IndexOptions::default(), chance, Box::new(MarkCell::default())).await;
        let keyed = keyed.expect("it opens");
        let number = [Msisdn(4_915_112_345_678)];
        keyed.add(&number).await.expect("it is added");
        let (send, receive) = oneshot::channel();
        (*engine.first.lock().await, *engine.second.lock().await) = (Some(receive), Some(send));
        // Suppressed again behind a removal: that is what the rows say.
        let (removed, added) = tokio::join!(keyed.remove(&number), keyed.add(&number));
        removed.and(added).expect("both are stored");
        assert_eq!(load(&*engine).expect("it is read").len(), 1);
        assert_eq!(keyed.check(&number).await, Ok(vec![true]));
        assert_eq!(keyed.count().await, Ok(1));
    }
}
