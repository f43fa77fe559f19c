//! Letting go of old data, some rows a commit, so that nobody waits behind it.

use super::Keyed;
use crate::adapters::embedded::engine::{Batch, Engine, Op, Order, Table};
use crate::adapters::rows::key::{self, KeyBuilder, KeyReader};
use crate::adapters::rows::receipt::read_uncertain;
use crate::model::batch::BatchRow;
use crate::model::id::BatchId;
use crate::model::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::control::ControlRows;
use crate::ports::retention::{Kind, Retention};

/// Rows deleted in one commit.
const DELETES_PER_COMMIT: usize = 2_048;

#[async_trait::async_trait]
impl Retention for Keyed {
    async fn drop_batch(&self, batch: BatchId, kind: Kind) -> Result<(), StoreError> {
        let tables: &[Table] = match kind {
            Kind::Texts => &[Table::PackText, Table::PackHead, Table::Rejects, Table::Manifest],
            Kind::History => &[Table::Window, Table::Retry, Table::Receipt],
            Kind::Batch => &[Table::Range, Table::Ledger],
        };
        for table in tables {
            drop_prefix(&*self.engine, *table, &key::batch(batch)).await?;
        }
        if kind == Kind::Batch {
            self.drop_row(batch).await?;
        }
        Ok(())
    }

    async fn drop_index_before(&self, before: Timestamp) -> Result<(), StoreError> {
        self.index.drop_before(before).await?;
        self.drop_uncertain(before).await?;
        self.drop_parked(before).await
    }
}

impl Keyed {
    /// The batch's own row goes last, with everything that names it.
    async fn drop_row(&self, batch: BatchId) -> Result<(), StoreError> {
        let key = key::batch(batch);
        let mut change = Batch::control()
            .delete(Table::Batch, key.clone())
            .delete(Table::BatchActive, key.clone())
            .delete(Table::BatchNumber, key);
        let row = ControlRows::<BatchId, BatchRow>::load(self, batch).await?;
        if let Some(row) = row {
            let created = KeyBuilder::new().time(row.row.created).batch(batch).done();
            change = change.delete(Table::BatchCreated, created);
        }
        self.engine.write(change).await?;
        self.index.forget(batch);
        Ok(())
    }

    async fn drop_uncertain(&self, before: Timestamp) -> Result<(), StoreError> {
        drop_where(&*self.engine, Table::Uncertain, |bytes| Ok(read_uncertain(bytes)? < before)).await
    }

    async fn drop_parked(&self, before: Timestamp) -> Result<(), StoreError> {
        let mut counts = self.parked.lock().await;
        let mut from = vec![];
        loop {
            let mut old = Vec::new();
            let mut next = None;
            self.engine.read()?.scan(Table::Parked, &from, None, Order::Up, &mut |key, bytes| {
                // A damaged one is nobody's any more, and does not tell when it came.
                if self.read_parked(bytes)?.is_none_or(|parked| parked.report.received < before) {
                    old.push(KeyReader(key).u64()?);
                }
                let goes_on = old.len() < DELETES_PER_COMMIT;
                next = (!goes_on).then(|| behind_key(key));
                Ok(goes_on)
            })?;
            self.unpark(&mut counts, &old).await?;
            match next {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }
}

async fn drop_prefix(engine: &dyn Engine, table: Table, prefix: &[u8]) -> Result<(), StoreError> {
    loop {
        let mut ops = Vec::new();
        engine.read()?.scan_prefix(table, prefix, &mut |key, _| {
            ops.push(Op::Delete(table, key.to_vec()));
            Ok(ops.len() < DELETES_PER_COMMIT)
        })?;
        let is_last = ops.len() < DELETES_PER_COMMIT;
        if !ops.is_empty() {
            engine.write(Batch { ops, ..Batch::control() }).await?;
        }
        if is_last {
            return Ok(());
        }
    }
}

async fn drop_where(
    engine: &dyn Engine,
    table: Table,
    is_old: impl Fn(&[u8]) -> Result<bool, StoreError> + Send + Sync,
) -> Result<(), StoreError> {
    let mut from = vec![];
    loop {
        let (mut ops, mut next) = (Vec::new(), None);
        engine.read()?.scan(table, &from, None, Order::Up, &mut |key, bytes| {
            if is_old(bytes)? {
                ops.push(Op::Delete(table, key.to_vec()));
            }
            let goes_on = ops.len() < DELETES_PER_COMMIT;
            next = (!goes_on).then(|| behind_key(key));
            Ok(goes_on)
        })?;
        if !ops.is_empty() {
            engine.write(Batch { ops, ..Batch::control() }).await?;
        }
        match next {
            Some(next) => from = next,
            None => return Ok(()),
        }
    }
}

/// The smallest key behind another.
fn behind_key(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}
