//! Parked reports: a row by name, and a place in the order of due times that moves with it.

use super::Keyed;
use crate::adapters::embedded::engine::{Batch, Engine, Op, Order, Table};
use crate::adapters::rows::key::{KeyBuilder, KeyReader};
use crate::adapters::rows::receipt::{read_parked, write_parked};
use crate::model::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::receipts::{Parked, ParkedReport};

/// Those that wait for another look, and those that stayed unmatched. Held while rows change, so that a report's old place
/// is always the one that is taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ParkedCounts {
    waiting: u64,
    unmatched: u64,
}

impl ParkedCounts {
    fn of(&mut self, due: Option<Timestamp>) -> &mut u64 {
        if due.is_some() { &mut self.waiting } else { &mut self.unmatched }
    }

    /// One less. A row whose place was lost was never counted, and is taken away all the same.
    fn less(&mut self, due: Option<Timestamp>) {
        let count = self.of(due);
        *count = count.saturating_sub(1);
    }
}

const WAITING: u8 = 0;
const UNMATCHED: u8 = 1;

fn place(id: u64, due: Option<Timestamp>) -> Vec<u8> {
    match due {
        Some(due) => KeyBuilder::new().u8(WAITING).time(due).u64(id).done(),
        None => KeyBuilder::new().u8(UNMATCHED).u64(id).done(),
    }
}

fn row_key(id: u64) -> Vec<u8> {
    id.to_be_bytes().to_vec()
}

pub(super) fn count(engine: &dyn Engine) -> Result<ParkedCounts, StoreError> {
    let mut counts = ParkedCounts::default();
    engine.read()?.scan(Table::ParkedDue, &[], None, Order::Up, &mut |key, _| {
        match KeyReader(key).u8()? {
            WAITING => counts.waiting += 1,
            _ => counts.unmatched += 1,
        }
        Ok(true)
    })?;
    Ok(counts)
}

impl Keyed {
    fn parked_row(&self, id: u64) -> Result<Option<ParkedReport>, StoreError> {
        self.engine.read()?.get(Table::Parked, &row_key(id))?.map(|bytes| read_parked(&bytes)).transpose()
    }

    /// Takes rows away that are there. The caller holds the counts.
    pub(super) async fn unpark(&self, counts: &mut ParkedCounts, ids: &[u64]) -> Result<(), StoreError> {
        let (mut batch, mut after) = (Batch::control(), *counts);
        let mut seen = std::collections::BTreeSet::new();
        for id in ids {
            if seen.insert(id)
                && let Some(old) = self.parked_row(*id)?
            {
                batch = batch.delete(Table::Parked, row_key(*id)).delete(Table::ParkedDue, place(*id, old.due));
                after.less(old.due);
            }
        }
        if !batch.ops.is_empty() {
            self.engine.write(batch).await?;
            *counts = after;
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Parked for Keyed {
    async fn park(&self, reports: Vec<ParkedReport>) -> Result<(), StoreError> {
        let mut counts = self.parked.lock().await;
        let (mut batch, mut after) = (Batch::data(), *counts);
        // The last of one name counts.
        let latest: std::collections::BTreeMap<u64, &ParkedReport> = reports.iter().map(|report| (report.id, report)).collect();
        for (id, report) in latest {
            if let Some(old) = self.parked_row(id)? {
                batch.ops.push(Op::Delete(Table::ParkedDue, place(id, old.due)));
                after.less(old.due);
            }
            batch.ops.push(Op::Put(Table::ParkedDue, place(id, report.due), vec![]));
            batch.ops.push(Op::Put(Table::Parked, row_key(id), write_parked(report)));
            *after.of(report.due) += 1;
        }
        if !batch.ops.is_empty() {
            self.engine.write(batch).await?;
            *counts = after;
        }
        Ok(())
    }

    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<ParkedReport>, StoreError> {
        let reader = self.engine.read()?;
        let behind = KeyBuilder::new().u8(WAITING).time(Timestamp(now.0.saturating_add(1))).done();
        let mut ids = Vec::new();
        if limit > 0 {
            reader.scan(Table::ParkedDue, &[WAITING], Some(&behind), Order::Up, &mut |key, _| {
                let mut place = KeyReader(key);
                let _ = (place.u8()?, place.time()?);
                ids.push(place.u64()?);
                Ok(ids.len() < limit)
            })?;
        }
        let rows = ids.into_iter().filter_map(|id| reader.get(Table::Parked, &row_key(id)).transpose());
        rows.map(|bytes| bytes.and_then(|bytes| read_parked(&bytes))).collect()
    }

    async fn remove(&self, ids: Vec<u64>) -> Result<(), StoreError> {
        let mut counts = self.parked.lock().await;
        self.unpark(&mut counts, &ids).await
    }

    async fn counts(&self) -> Result<(u64, u64), StoreError> {
        let counts = self.parked.lock().await;
        Ok((counts.waiting, counts.unmatched))
    }

    async fn unmatched(&self, behind: Option<u64>, limit: usize) -> Result<Vec<ParkedReport>, StoreError> {
        let from = match behind.map(|id| id.checked_add(1)) {
            None => 0,
            Some(Some(next)) => next,
            Some(None) => return Ok(vec![]),
        };
        let reader = self.engine.read()?;
        let mut ids = Vec::new();
        if limit > 0 {
            reader.scan(Table::ParkedDue, &place(from, None), None, Order::Up, &mut |key, _| {
                ids.push(KeyReader(&key[1..]).u64()?);
                Ok(ids.len() < limit)
            })?;
        }
        let rows = ids.into_iter().filter_map(|id| reader.get(Table::Parked, &row_key(id)).transpose());
        rows.map(|bytes| bytes.and_then(|bytes| read_parked(&bytes))).collect()
    }
}
