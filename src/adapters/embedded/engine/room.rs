//! How much can still be written: what the disk has free, and what deletes have left free within the database.
//!
//! redb's file does not shrink by much, so what is deleted shows nowhere outside. redb itself tells its free pages only by
//! walking through all tables, which takes too long while anybody waits for a write. So deletes are counted as they are
//! committed. The count is believed until a commit takes new ground of the disk all the same, which says that nothing within
//! was fit for it: whatever was counted too much costs one commit's room and no more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::Database;

use super::disk::{Disk, Disks};
use super::{Batch, Room};
use crate::ports::StoreError;

/// Bytes of rows that one transaction stored and took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) stored: u64,
    pub(super) removed: u64,
}

/// See the file's first sentence.
pub(super) struct RoomLeft {
    disks: Arc<dyn Disks>,
    min_free_bytes: u64,
    /// Bytes within the database that may be used again.
    inside: AtomicU64,
    /// What the disk held of the database at the last commit.
    held: AtomicU64,
}

impl RoomLeft {
    pub(super) fn new(disks: Arc<dyn Disks>, min_free_bytes: u64) -> RoomLeft {
        RoomLeft { disks, min_free_bytes, inside: AtomicU64::new(0), held: AtomicU64::new(0) }
    }

    /// Begins with a database that was just opened. Where room is short, or will be soon, its free pages are counted: nobody waits
    /// yet, and what was deleted before the start may be all the room there is.
    pub(super) fn begin(&self, database: &Database, disk: &dyn Disk) -> Result<(), redb::Error> {
        let held = disk.held()?;
        self.held.store(held, Ordering::Relaxed);
        if self.disks.free_bytes() < self.min_free_bytes.saturating_mul(2) {
            let transaction = database.begin_write()?;
            let stats = transaction.stats()?;
            transaction.abort()?;
            let used = stats.allocated_pages().saturating_mul(stats.page_size() as u64);
            self.inside.store(held.saturating_sub(used), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes in a commit.
    pub(super) fn committed(&self, moved: Moved, disk: &dyn Disk) {
        // A disk that does not tell has taken new ground, for all that is known.
        let held = disk.held().unwrap_or(u64::MAX);
        let before = self.held.swap(held, Ordering::Relaxed);
        let inside = if held > before { 0 } else { self.inside.load(Ordering::Relaxed).saturating_sub(before - held) };
        let inside = (inside + moved.removed).saturating_sub(moved.stored).min(held);
        self.inside.store(inside, Ordering::Relaxed);
    }

    /// Takes in that nothing within the database was fit for a commit, and nothing outside.
    pub(super) fn ran_out(&self) {
        self.inside.store(0, Ordering::Relaxed);
    }

    /// Whether a batch may be written: data is refused early, with a margin for the copies of pages that a commit makes.
    pub(super) fn for_batch(&self, batch: &Batch) -> Result<(), StoreError> {
        match batch.room {
            Room::Control => Ok(()),
            Room::Data => self.for_bytes(batch.bytes() as u64),
        }
    }

    /// Whether so many bytes of data may be written.
    pub(super) fn for_bytes(&self, bytes: u64) -> Result<(), StoreError> {
        let needed = self.min_free_bytes.saturating_add(bytes);
        let free = self.disks.free_bytes().saturating_add(self.inside.load(Ordering::Relaxed));
        if free < needed { Err(StoreError::Full(format!("{free} bytes are free, {needed} are needed"))) } else { Ok(()) }
    }
}
