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
        for some in numbers.chunks(NUMBERS_PER_COMMIT) {
            let ops = some.iter().map(|number| Op::Put(Table::Suppressed, row_key(*number), vec![])).collect();
            self.engine.write(Batch { ops, ..Batch::data() }).await?;
            let mut all = self.suppressed.write().unwrap_or_else(PoisonError::into_inner);
            all.extend(some.iter().map(|number| number.0));
        }
        Ok(())
    }

    async fn remove(&self, numbers: &[Msisdn]) -> Result<(), StoreError> {
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
