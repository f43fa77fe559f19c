//! What the embedded store needs of a key-value engine: ordered tables, snapshots to read, and batches that are applied
//! whole, on conditions, durably.
//!
//! Two engines: [`redb`](self::redb) on a disk, and [`memory`] for simulation. The ports are written once, over this trait,
//! so that what is proved over one holds for the other.

pub mod disk;
pub mod memory;
pub mod redb;
mod room;
mod writer;

use crate::ports::StoreError;

macro_rules! tables {
    ($($variant:ident = $name:literal, $meaning:literal;)*) => {
        /// The tables. Their names are part of the folder's format.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Table { $(#[doc = $meaning] $variant,)* }

        /// All tables.
        pub const TABLES: &[Table] = &[$(Table::$variant),*];

        impl Table {
            /// The name it is stored under.
            pub fn name(self) -> &'static str { match self { $(Table::$variant => $name,)* } }
        }
    };
}

tables! {
    System = "system", "Facts about the store: format, mark, counters.";
    Fact = "fact", "Small facts under names of the fleet's own.";
    Batch = "batch", "Control rows of batches.";
    BatchCreated = "batch_created", "Batches by their time of creation.";
    BatchActive = "batch_active", "Batches that are active.";
    Range = "range", "Control rows of ranges.";
    Ledger = "ledger", "Control rows of lanes.";
    PackHead = "pack_head", "Small columns of packs.";
    PackText = "pack_text", "Texts of packs.";
    Rejects = "rejects", "Records that never became a message.";
    Manifest = "manifest", "Manifests of lanes.";
    Window = "window", "Answers and judgements.";
    Retry = "retry", "Retry packs.";
    Receipt = "receipt", "Reports of recipients.";
    Uncertain = "uncertain", "Uncertain recipients by account and number.";
    Parked = "parked", "Reports that match nothing, by name.";
    ParkedDue = "parked_due", "Parked reports by due time; those without one last.";
    Suppressed = "suppressed", "Numbers that get nothing.";
    LinkBlock = "link_block", "Blocks of link numbers by their first.";
    BatchNumber = "batch_number", "Short numbers of batches, for the receipt index.";
    IndexLog = "index_log", "Receipt index entries that are in no run yet.";
    IndexRun = "index_run", "Sorted runs of the receipt index.";
    IndexBlock = "index_block", "Blocks of the runs.";
    Document = "document", "Small documents by shelf and name.";
    Journal = "journal", "What happened, by stream, scope and time.";
}

/// Whether a batch may use the last of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Room {
    /// Data: refused while little room is left, so that control rows can still be written.
    #[default]
    Data,
    /// Control rows, and deletes: always tried.
    Control,
}

/// What a condition expects of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// That there is none.
    Absent,
    /// That it is there and has these bytes at this place.
    Bytes(usize, Vec<u8>),
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Stores a row, whatever was there.
    Put(Table, Vec<u8>, Vec<u8>),
    /// Stores a row if there is none; [`Written::Applied`] tells for each.
    Insert(Table, Vec<u8>, Vec<u8>),
    /// Removes a row, if it is there.
    Delete(Table, Vec<u8>),
}

/// Changes that are applied together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Whether it may use the last of the disk.
    pub room: Room,
    /// Conditions, seen with everything that was applied before.
    pub checks: Vec<(Table, Vec<u8>, Expect)>,
    /// The changes, in order.
    pub ops: Vec<Op>,
}

impl Batch {
    /// An empty batch of data.
    pub fn data() -> Batch {
        Batch::default()
    }

    /// An empty batch of control rows or deletes.
    pub fn control() -> Batch {
        Batch { room: Room::Control, ..Batch::default() }
    }

    /// Adds a condition.
    pub fn check(mut self, table: Table, key: Vec<u8>, expect: Expect) -> Batch {
        self.checks.push((table, key, expect));
        self
    }

    /// Stores a row.
    pub fn put(mut self, table: Table, key: Vec<u8>, value: Vec<u8>) -> Batch {
        self.ops.push(Op::Put(table, key, value));
        self
    }

    /// Removes a row.
    pub fn delete(mut self, table: Table, key: Vec<u8>) -> Batch {
        self.ops.push(Op::Delete(table, key));
        self
    }

    /// Bytes it holds, about.
    pub fn bytes(&self) -> usize {
        let size = |op: &Op| match op {
            Op::Put(_, key, value) | Op::Insert(_, key, value) => key.len() + value.len(),
            Op::Delete(_, key) => key.len(),
        };
        self.ops.iter().map(size).sum()
    }
}

/// What a batch came to. Either way the answer holds only things that are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// A condition did not hold; nothing of it was applied.
    Refused,
    /// It is stored. For each [`Op::Insert`], in order, whether its row is new.
    Applied(Vec<bool>),
}

impl Written {
    /// For batches without conditions.
    pub fn inserted(self) -> Vec<bool> {
        match self {
            Written::Refused => vec![],
            Written::Applied(new) => new,
        }
    }
}

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// From the first key up.
    Up,
    /// From the last key down.
    Down,
}

/// Gets the rows of a scan; `false` ends it.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<bool, StoreError> + 'a;

/// Reads the rows. It holds everything that was applied when it was made, and is not kept over an await.
pub trait Reader {
    /// A row.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Shows the rows with keys from `from` on, below `to` (`None`: to the end).
    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>, order: Order, visit: &mut Visit) -> Result<(), StoreError>;

    /// Shows the rows whose keys begin with `prefix`.
    fn scan_prefix(&self, table: Table, prefix: &[u8], visit: &mut Visit) -> Result<(), StoreError> {
        self.scan(table, prefix, crate::adapters::rows::key::behind(prefix).as_deref(), Order::Up, visit)
    }
}

/// An ordered key-value store.
///
/// Contract: a batch is applied whole or not at all, durably before it answers, each after those that answered before it
/// was sent. A reader made after an answer sees what was applied.
#[async_trait::async_trait]
pub trait Engine: Send + Sync {
    /// A view of the rows as they are now.
    fn read(&self) -> Result<Box<dyn Reader + '_>, StoreError>;

    /// Applies a batch.
    async fn write(&self, batch: Batch) -> Result<Written, StoreError>;

    /// Whether there is room for data now; [`StoreError::Full`] when there is not.
    fn room(&self) -> Result<(), StoreError>;
}
