//! The data folder: its lock, its files, its format.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::model::code::{Code, Fault};

/// A folder that this process alone uses.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Unlocked when the folder is dropped, and by the system when the process ends, however it ends.
    lock: File,
}

impl Folder {
    /// Creates the folder if there is none and locks it. [`Code::FolderInUse`] names the process that holds it.
    pub fn open(path: &Path) -> Result<Folder, Fault> {
        let new: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| fault(path, &error))?;
        for folder in new {
            sync_name(folder).map_err(|error| fault(folder, &error))?;
        }
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join("lock"))
            .map_err(|error| fault(path, &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(path, &mut lock)),
            Err(TryLockError::Error(error)) => return Err(fault(path, &error)),
        }
        // Only whoever wants the folder reads the number; without it the message is shorter, nothing else.
        let _ = write_pid(&mut lock);
        let spool = path.join("spool");
        DirBuilder::new().recursive(true).mode(0o700).create(&spool).map_err(|error| fault(&spool, &error))?;
        Ok(Folder { path: path.to_owned(), lock })
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.path.join("smsfleet.redb")
    }

    /// Where the mark is left.
    pub fn mark(&self) -> PathBuf {
        self.path.join("mark")
    }

    /// Where standard input is kept until it is read.
    pub fn spool(&self) -> PathBuf {
        self.path.join("spool")
    }

    /// Takes other users' rights away from the database: it holds numbers and texts.
    pub fn hide_database(&self) -> Result<(), Fault> {
        let path = self.database();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).map_err(|error| fault(&path, &error))
    }
}

impl Drop for Folder {
    /// Closing the file is not enough: a process that is just being started has a copy of it until it runs its program.
    fn drop(&mut self) {
        // It fails where there is nothing to let go of.
        let _ = self.lock.unlock();
    }
}

fn in_use(path: &Path, lock: &mut File) -> Fault {
    let mut holder = String::new();
    let named = lock.read_to_string(&mut holder).is_ok() && !holder.is_empty() && holder.bytes().all(|b| b.is_ascii_digit());
    let by = if named { format!("process {holder}") } else { "another process".to_owned() };
    Fault::new(Code::FolderInUse, format!("{} is in use by {by}", path.display()))
}

fn write_pid(lock: &mut File) -> std::io::Result<()> {
    lock.set_len(0)?;
    lock.seek(SeekFrom::Start(0))?;
    write!(lock, "{}", std::process::id())
}

/// Makes the name of a file or folder durable: syncing what is in it says nothing of the folder that it stands in.
pub(super) fn sync_name(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(folder) {
        Ok(folder) => folder.sync_all(),
        // Names may be made in a folder that may not be read.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error),
    }
}

/// What a file system error is to people.
pub(super) fn fault(path: &Path, error: &std::io::Error) -> Fault {
    let code = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Code::StoreFull,
        _ => Code::StoreUnavailable,
    };
    Fault::new(code, format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_synced_by_its_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        sync_name(&folder.path().join("file")).expect("its folder is synced");
        // A folder that cannot be synced shows whether the system was asked to.
        let refused = sync_name(Path::new("/proc/file")).map_err(|error| error.kind());
        assert_eq!(refused, Err(std::io::ErrorKind::InvalidInput));
    }
}
