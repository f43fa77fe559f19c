//! The store's ports over a key-value engine: written once, for the folder and for the memory store.
//!
//! Rows are encoded and read on the caller; the engine only ever sees bytes.

mod batch_list;
mod control;
mod documents;
mod erasure;
mod journal;
mod links;
mod meta;
mod packs;
mod parked;
mod receipts;
mod retention;
mod suppressions;
mod windows;

use std::sync::{Arc, RwLock};

use roaring::RoaringTreemap;

pub use self::meta::{MarkCell, MarkFile};
use self::parked::ParkedCounts;
use super::engine::Engine;
use super::index::{Index, IndexOptions};
use crate::ports::clock::Chance;
use crate::ports::meta::Outside;
use crate::ports::{StoreError, Stores};

/// Does the index's own work when told that there is some.
pub type Maintainer = Box<dyn Fn() + Send + Sync>;

/// All ports of the store over one engine.
pub struct Keyed {
    engine: Arc<dyn Engine>,
    index: Arc<Index>,
    /// `None`: whoever stores the entry that fills the table does the work.
    maintainer: Option<Maintainer>,
    parked: tokio::sync::Mutex<ParkedCounts>,
    suppressed: RwLock<RoaringTreemap>,
    /// Held from a change of the suppressed rows until `suppressed` has it, so that both see changes in one order.
    suppressing: tokio::sync::Mutex<()>,
    chance: Arc<dyn Chance>,
    outside: Box<dyn Outside>,
}

impl Keyed {
    /// Reads what is kept in memory: the index's newest entries, the suppressed numbers, the counts of parked reports.
    pub async fn open(
        engine: Arc<dyn Engine>,
        index: IndexOptions,
        chance: Arc<dyn Chance>,
        outside: Box<dyn Outside>,
    ) -> Result<Keyed, StoreError> {
        let index = Arc::new(Index::open(engine.clone(), index).await?);
        let parked = tokio::sync::Mutex::new(parked::count(&*engine)?);
        let suppressed = RwLock::new(suppressions::load(&*engine)?);
        let suppressing = tokio::sync::Mutex::new(());
        Ok(Keyed { engine, index, maintainer: None, parked, suppressed, suppressing, chance, outside })
    }

    /// Leaves the index's own work to `maintainer`, which is called whenever there is some.
    pub fn maintained_by(mut self, maintainer: Maintainer) -> Keyed {
        self.maintainer = Some(maintainer);
        self
    }

    /// The receipt index.
    pub fn index(&self) -> Arc<Index> {
        self.index.clone()
    }

    /// The ports.
    pub fn stores(self: &Arc<Keyed>) -> Stores {
        Stores::of(self)
    }
}
