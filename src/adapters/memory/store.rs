//! The store in memory: the same ports, rows and index as in the folder, over ordered maps.

use std::sync::Arc;

use crate::adapters::embedded::engine::memory::{MemoryEngine, Snapshot};
use crate::adapters::embedded::index::{Index, IndexOptions};
use crate::adapters::embedded::keyed::{Keyed, MarkCell};
use crate::ports::clock::Chance;
use crate::ports::{StoreError, Stores};

/// A store without a disk: no threads, no waiting, the same answers for the same calls.
#[derive(Clone)]
pub struct MemoryStore {
    keyed: Arc<Keyed>,
    engine: Arc<MemoryEngine>,
    outside: MarkCell,
    index: IndexOptions,
    chance: Arc<dyn Chance>,
}

impl MemoryStore {
    /// An empty store. `chance` gives the key of short links.
    pub fn new(chance: Arc<dyn Chance>) -> MemoryStore {
        MemoryStore::with_index(chance, IndexOptions::default())
    }

    /// An empty store whose receipt index has other sizes.
    pub fn with_index(chance: Arc<dyn Chance>, index: IndexOptions) -> MemoryStore {
        MemoryStore::open(Arc::default(), MarkCell::default(), chance, index).expect("an empty store has no row to misread")
    }

    fn open(
        engine: Arc<MemoryEngine>,
        outside: MarkCell,
        chance: Arc<dyn Chance>,
        index: IndexOptions,
    ) -> Result<MemoryStore, StoreError> {
        let opening = Keyed::open(engine.clone(), index, chance.clone(), Box::new(outside.clone()));
        // Nothing of it ever waits: the engine answers at once.
        let keyed = Arc::new(futures::executor::block_on(opening)?);
        Ok(MemoryStore { keyed, engine, outside, index, chance })
    }

    /// The ports.
    pub fn stores(&self) -> Stores {
        self.keyed.stores()
    }

    /// The store as a process finds it that starts after a crash: same rows, nothing else. The ports of before go on working
    /// on the same rows, as a frozen process would that wakes up; their caches know nothing of each other.
    pub fn reopen(&self) -> Result<MemoryStore, StoreError> {
        MemoryStore::open(self.engine.clone(), self.outside.clone(), self.chance.clone(), self.index)
    }

    /// A backup: all rows, without the mark outside.
    pub fn snapshot(&self) -> Snapshot {
        self.engine.snapshot()
    }

    /// The store after a restore of a backup: the mark outside is the one of today.
    pub fn restore(&self, backup: Snapshot) -> Result<MemoryStore, StoreError> {
        self.engine.restore(backup);
        self.reopen()
    }

    /// The rows, for tests that damage some.
    pub fn engine(&self) -> &MemoryEngine {
        &self.engine
    }

    /// The receipt index.
    pub fn index(&self) -> Arc<Index> {
        self.keyed.index()
    }
}
