//! What lies under the database: a file, or in tests a disk that is small, loses what was not synced, or fails.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::adapters::embedded::folder::sync_name;

/// What the system counts a file's blocks in.
const BLOCK_BYTES: u64 = 512;

/// Bytes at places. Each call means what the system call of its name means.
pub trait Disk: std::fmt::Debug + Send + Sync {
    /// Length in bytes.
    fn length(&self) -> io::Result<u64>;

    /// Bytes that the disk has set aside for it: where nothing was written yet, a file may be longer.
    fn held(&self) -> io::Result<u64> {
        self.length()
    }

    /// Fills `out` from `offset` on.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Sets the length; new bytes are zero.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Returns when everything written is on the disk.
    fn sync(&self) -> io::Result<()>;

    /// Writes at `offset`.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;
}

/// Opens the disk, and opens it again after a full one refused a write.
pub trait Disks: Send + Sync {
    /// Opens it. What is read from it then lies on the disk itself: after a sync that failed, the system may still show what
    /// was never written, and takes it for written.
    fn open(&self) -> io::Result<Box<dyn Disk>>;

    /// Bytes that can still be written.
    fn free_bytes(&self) -> u64;
}

/// A file of a folder, perhaps with a limit on its length.
#[derive(Debug)]
pub struct FileDisks {
    path: PathBuf,
    max_bytes: Arc<AtomicU64>,
}

impl FileDisks {
    /// The file at `path`, which never grows beyond `max_bytes`; the limit may be changed while it is in use.
    pub fn new(path: &Path, max_bytes: Arc<AtomicU64>) -> FileDisks {
        FileDisks { path: path.to_owned(), max_bytes }
    }
}

impl Disks for FileDisks {
    fn open(&self) -> io::Result<Box<dyn Disk>> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&self.path)?;
        // Whatever is synced into a file is gone with its name.
        sync_name(&self.path)?;
        // After a failed sync Linux counts the pages as written, and a later sync says nothing of them. So whatever can still be
        // written is, and what the system then remembers of the file is dropped: the rest is read from the disk.
        file.sync_data()?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        Ok(Box::new(FileDisk { file, max_bytes: self.max_bytes.clone() }))
    }

    fn free_bytes(&self) -> u64 {
        let length = std::fs::metadata(&self.path).map_or(0, |file| file.len());
        let allowed = self.max_bytes.load(Ordering::Relaxed).saturating_sub(length);
        let folder = self.path.parent().unwrap_or(&self.path);
        // A file system that does not tell is taken to have room: the write itself will say.
        let free = rustix::fs::statvfs(folder).map_or(u64::MAX, |fs| fs.f_bavail.saturating_mul(fs.f_frsize));
        allowed.min(free)
    }
}

#[derive(Debug)]
struct FileDisk {
    file: File,
    max_bytes: Arc<AtomicU64>,
}

impl Disk for FileDisk {
    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn held(&self) -> io::Result<u64> {
        let file = self.file.metadata()?;
        Ok(file.blocks().saturating_mul(BLOCK_BYTES).min(file.len()))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if len > self.length()? && len > self.max_bytes.load(Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the store has reached its configured size"));
        }
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }
}

/// Where the last failure of a disk happened: decides whether a write was lost cleanly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Growing or writing found no room: nothing that was committed is touched.
    NoRoom,
    /// Anything else, a failed sync above all: what is on the disk is not known any more.
    Lost,
}

/// Hands a [`Disk`] to redb and remembers how it failed.
#[derive(Debug)]
pub(super) struct Watched {
    disk: Arc<dyn Disk>,
    failure: Arc<Mutex<Option<Failure>>>,
}

impl Watched {
    pub(super) fn new(disk: Arc<dyn Disk>) -> (Watched, Arc<Mutex<Option<Failure>>>) {
        let failure = Arc::new(Mutex::new(None));
        (Watched { disk, failure: failure.clone() }, failure)
    }

    fn note<T>(&self, result: io::Result<T>, growing: bool) -> io::Result<T> {
        if let Err(error) = &result {
            let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let failure = if full && growing { Failure::NoRoom } else { Failure::Lost };
            let mut last = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            // A lost write stays lost, whatever fails after it.
            if *last != Some(Failure::Lost) {
                *last = Some(failure);
            }
        }
        result
    }
}

impl ::redb::StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.note(self.disk.length(), false)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.note(self.disk.read(offset, out), false)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.note(self.disk.set_len(len), true)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.note(self.disk.sync(), false)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.note(self.disk.write(offset, data), true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Advice, fadvise};
    use rustix::io::{Errno, ReadWriteFlags, preadv2};

    /// Reads only what the system has in memory.
    fn remembered(path: &Path) -> Result<usize, Errno> {
        let file = File::open(path).expect("it is there");
        preadv2(&file, &mut [io::IoSliceMut::new(&mut [0; 4_096])], 0, ReadWriteFlags::NOWAIT)
    }

    /// What cannot be synced shows whether the system was asked to.
    #[test]
    fn a_sync_reaches_the_system() {
        let (path, max_bytes) = (Path::new("/dev/null"), Arc::new(AtomicU64::new(u64::MAX)));
        let file = File::options().read(true).write(true).open(path).expect("it is there");
        let disk = FileDisk { file, max_bytes: max_bytes.clone() };
        assert_eq!(disk.sync().map_err(|error| error.kind()), Err(io::ErrorKind::InvalidInput));
        assert!(FileDisks::new(path, max_bytes).open().is_err(), "so does opening");
    }

    #[test]
    fn what_the_system_remembers_of_the_file_is_dropped_when_it_is_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("database");
        std::fs::write(&path, [7; 64 << 10]).expect("it is written");
        let file = File::open(&path).expect("it is there");
        file.sync_data().and_then(|()| Ok(fadvise(&file, 0, None, Advice::DontNeed)?)).expect("it is dropped");
        let drops = remembered(&path) == Err(Errno::AGAIN);
        std::fs::read(&path).expect("it is read");
        // A file system in memory has nothing else to read from, and some do not tell.
        if !drops || remembered(&path) != Ok(4_096) {
            return;
        }
        let disk = FileDisks::new(&path, Arc::new(AtomicU64::new(u64::MAX))).open().expect("it opens");
        assert_eq!(remembered(&path), Err(Errno::AGAIN));
        let mut bytes = [0; 3];
        disk.read(5, &mut bytes).expect("it is read");
        assert_eq!(bytes, [7; 3]);
    }
}
