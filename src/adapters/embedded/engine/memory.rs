//! An engine in memory: no thread, no waiting, the same answers every time.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Batch, Engine, Expect, Op, Order, Reader, Table, Visit, Written};
use crate::ports::StoreError;

/// The rows of a memory engine at one moment: what a backup would hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>);

/// Tables in ordered maps.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    rows: Mutex<Snapshot>,
}

impl MemoryEngine {
    /// A copy of all rows.
    pub fn snapshot(&self) -> Snapshot {
        self.lock().clone()
    }

    /// Puts back what [`snapshot`](MemoryEngine::snapshot) copied: what a restore from a backup does.
    pub fn restore(&self, snapshot: Snapshot) {
        *self.lock() = snapshot;
    }

    /// Changes one row behind the store's back, for tests of damaged rows; `false` when there is none.
    pub fn damage(&self, table: Table, key: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut rows = self.lock();
        let row = rows.0.get_mut(&table).and_then(|rows| rows.get_mut(key));
        row.map(change).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader for &MemoryEngine {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.lock().0.get(&table).and_then(|rows| rows.get(key)).cloned())
    }

    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>, order: Order, visit: &mut Visit) -> Result<(), StoreError> {
        if to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        let rows = self.lock();
        let Some(rows) = rows.0.get(&table) else { return Ok(()) };
        let mut range = rows.range::<[u8], _>((Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded)));
        loop {
            let next = match order {
                Order::Up => range.next(),
                Order::Down => range.next_back(),
            };
            let Some((key, value)) = next else { return Ok(()) };
            if !visit(key, value)? {
                return Ok(());
            }
        }
    }
}

#[async_trait::async_trait]
impl Engine for MemoryEngine {
    fn room(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn read(&self) -> Result<Box<dyn Reader + '_>, StoreError> {
        Ok(Box::new(self))
    }

    async fn write(&self, batch: Batch) -> Result<Written, StoreError> {
        let mut rows = self.lock();
        let holds = |(table, key, expect): &(Table, Vec<u8>, Expect)| {
            let row = rows.0.get(table).and_then(|rows| rows.get(key));
            match (row, expect) {
                (None, Expect::Absent) => true,
                (Some(row), Expect::Bytes(at, bytes)) => row.get(*at..*at + bytes.len()) == Some(bytes.as_slice()),
                (Some(_), Expect::Absent) | (None, Expect::Bytes(..)) => false,
            }
        };
        if !batch.checks.iter().all(holds) {
            return Ok(Written::Refused);
        }
        let mut inserted = Vec::new();
        for op in batch.ops {
            match op {
                Op::Put(table, key, value) => {
                    rows.0.entry(table).or_default().insert(key, value);
                }
                Op::Insert(table, key, value) => {
                    let table = rows.0.entry(table).or_default();
                    let new = !table.contains_key(&key);
                    if new {
                        table.insert(key, value);
                    }
                    inserted.push(new);
                }
                Op::Delete(table, key) => {
                    rows.0.entry(table).or_default().remove(&key);
                }
            }
        }
        Ok(Written::Applied(inserted))
    }
}
