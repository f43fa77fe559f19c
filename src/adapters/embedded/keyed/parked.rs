//! Parked reports: a row by name, and a place in the order of due times that moves with it.

use std::collections::{BTreeMap, BTreeSet};

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

fn read_place(key: &[u8]) -> Result<(u64, Option<Timestamp>), StoreError> {
    let mut fields = KeyReader(key);
    let due = if fields.u8()? == WAITING { Some(fields.time()?) } else { None };
    Ok((fields.u64()?, due))
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
    /// A parked report; `None` for one that is damaged.
    pub(super) fn read_parked(&self, bytes: &[u8]) -> Result<Option<ParkedReport>, StoreError> {
        self.unread_parked.read(read_parked(bytes))
    }

    /// Takes rows away that are there. The caller holds the counts.
    pub(super) async fn unpark(&self, counts: &mut ParkedCounts, ids: &[u64]) -> Result<(), StoreError> {
        let (mut batch, mut after) = (Batch::control(), *counts);
        let ids = ids.iter().copied().collect::<BTreeSet<u64>>();
        let there = self.unplace(ids, &mut batch, &mut after)?;
        batch.ops.extend(there.into_iter().map(|id| Op::Delete(Table::Parked, row_key(id))));
        if !batch.ops.is_empty() {
            self.engine.write(batch).await?;
            *counts = after;
        }
        Ok(())
    }

    /// Takes the places of these rows away. Gives back which of the rows are there.
    fn unplace(
        &self,
        ids: impl IntoIterator<Item = u64>,
        batch: &mut Batch,
        counts: &mut ParkedCounts,
    ) -> Result<Vec<u64>, StoreError> {
        let reader = self.engine.read()?;
        let (mut there, mut damaged) = (Vec::new(), BTreeSet::new());
        for id in ids {
            let Some(bytes) = reader.get(Table::Parked, &row_key(id))? else { continue };
            there.push(id);
            if let Some(old) = self.read_parked(&bytes)? {
                batch.ops.push(Op::Delete(Table::ParkedDue, place(id, old.due)));
                counts.less(old.due);
            } else {
                damaged.insert(id);
            }
        }
        if damaged.is_empty() {
            return Ok(there);
        }
        // Where a damaged row has its place only the places themselves tell.
        reader.scan(Table::ParkedDue, &[], None, Order::Up, &mut |key, _| {
            let (id, due) = read_place(key)?;
            if damaged.contains(&id) {
                batch.ops.push(Op::Delete(Table::ParkedDue, key.to_vec()));
                counts.less(due);
            }
            Ok(true)
        })?;
        Ok(there)
    }

    /// Reports in the order of their places, from one place up to another, at most `limit`.
    fn placed(&self, mut from: Vec<u8>, to: Option<&[u8]>, limit: usize) -> Result<Vec<ParkedReport>, StoreError> {
        let reader = self.engine.read()?;
        let mut found = Vec::new();
        while found.len() < limit {
            let mut places: Vec<Vec<u8>> = Vec::new();
            let most = limit - found.len();
            reader.scan(Table::ParkedDue, &from, to, Order::Up, &mut |key, _| {
                places.push(key.to_vec());
                Ok(places.len() < most)
            })?;
            for key in &places {
                if let Some(bytes) = reader.get(Table::Parked, &row_key(read_place(key)?.0))? {
                    found.extend(self.read_parked(&bytes)?);
                }
            }
            // Those that are damaged make room for others behind them.
            let Some(last) = places.pop().filter(|_| places.len() + 1 == most) else { break };
            from = [last, vec![0]].concat();
        }
        Ok(found)
    }
}

#[async_trait::async_trait]
impl Parked for Keyed {
    async fn park(&self, reports: Vec<ParkedReport>) -> Result<(), StoreError> {
        let mut counts = self.parked.lock().await;
        let (mut batch, mut after) = (Batch::data(), *counts);
        // The last of one name counts.
        let latest: BTreeMap<u64, &ParkedReport> = reports.iter().map(|report| (report.id, report)).collect();
        self.unplace(latest.keys().copied(), &mut batch, &mut after)?;
        for (id, report) in latest {
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
        let behind = KeyBuilder::new().u8(WAITING).time(Timestamp(now.0.saturating_add(1))).done();
        self.placed(vec![WAITING], Some(&behind), limit)
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
        self.placed(place(from, None), None, limit)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::adapters::memory::store::MemoryStore;
    use crate::adapters::system::SeededChance;
    use crate::model::id::Msisdn;
    use crate::model::receipt::{Report, Rung};

    fn parked(id: u64, due: Option<i64>) -> ParkedReport {
        let report = Report {
            message_id: id.to_string(),
            number: Some(Msisdn(300)),
            reference: None,
            rung: Rung::Delivered,
            done: None,
            error: String::new(),
            raw: String::new(),
            received: Timestamp(100),
        };
        ParkedReport { id, account: "a".into(), report, due: due.map(Timestamp), looks: 0 }
    }

    #[tokio::test]
    async fn a_damaged_report_stands_in_nobodys_way_and_goes() {
        for due in [Some(5), None] {
            let store = MemoryStore::new(Arc::new(SeededChance::from_seed(1)));
            let stores = store.stores();
            stores.parked.park((1..=3).map(|id| parked(id, due)).collect()).await.expect("parked");
            assert!(store.engine().damage(Table::Parked, &row_key(1), |row| row.clear()));
            let ids = |reports: Vec<ParkedReport>| reports.into_iter().map(|parked| parked.id).collect::<Vec<_>>();
            let (waiting, unmatched) = (stores.parked.due(Timestamp(9), 9).await, stores.parked.unmatched(None, 9).await);
            let expected = if due.is_some() { ([2, 3].as_slice(), [].as_slice()) } else { ([].as_slice(), [2, 3].as_slice()) };
            assert_eq!((ids(waiting.expect("read")).as_slice(), ids(unmatched.expect("read")).as_slice()), expected);
            if due.is_some() {
                assert_eq!(ids(stores.parked.due(Timestamp(9), 1).await.expect("read")), [2], "it takes nobody's room");
            } else {
                assert_eq!(ids(stores.parked.unmatched(None, 1).await.expect("read")), [2], "it takes nobody's room");
            }
            assert_eq!(ids(stores.erasure.of_number(Msisdn(300)).await.expect("read").parked), [2, 3]);
            // It comes in again, and is whole; another that is damaged goes with what is old, whenever it came.
            stores.parked.park(vec![parked(1, Some(7))]).await.expect("parked");
            assert_eq!(stores.parked.counts().await, Ok(if due.is_some() { (3, 0) } else { (1, 2) }));
            assert!(store.engine().damage(Table::Parked, &row_key(2), |row| row.clear()));
            stores.retention.drop_index_before(Timestamp(100)).await.expect("dropped");
            assert_eq!(stores.parked.counts().await, Ok(if due.is_some() { (2, 0) } else { (1, 1) }));
            stores.retention.drop_index_before(Timestamp(101)).await.expect("dropped");
            assert_eq!(stores.parked.counts().await, Ok((0, 0)));
        }
    }
}
