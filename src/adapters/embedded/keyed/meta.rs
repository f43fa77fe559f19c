//! Facts about the store: the growing mark inside and outside, and small facts under names.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use super::Keyed;
use crate::adapters::embedded::engine::{Batch, Expect, Table, Written};
use crate::adapters::rows::frame::{corrupt, read_small, small};
use crate::ports::StoreError;
use crate::ports::meta::{Left, Meta, Outside, left_mark};

const MARK: &[u8] = b"mark";

/// A cell that outlives a memory store and its snapshots.
#[derive(Clone, Debug, Default)]
pub struct MarkCell(Arc<Mutex<Option<Left>>>);

#[async_trait::async_trait]
impl Outside for MarkCell {
    async fn read(&self) -> Result<Option<Left>, StoreError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    async fn write(&self, left: Left) -> Result<(), StoreError> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(left);
        Ok(())
    }

    fn identity(&self) -> String {
        "memory".to_owned()
    }
}

/// A file beside the database.
#[derive(Debug)]
pub struct MarkFile {
    path: PathBuf,
    database: PathBuf,
    /// Two writers would meet in the file that is renamed.
    writing: tokio::sync::Mutex<()>,
}

impl MarkFile {
    /// The mark of `database`, left in the file `path`.
    pub fn new(path: &Path, database: &Path) -> MarkFile {
        MarkFile { path: path.to_owned(), database: database.to_owned(), writing: tokio::sync::Mutex::new(()) }
    }
}

#[async_trait::async_trait]
impl Outside for MarkFile {
    async fn read(&self) -> Result<Option<Left>, StoreError> {
        match tokio::fs::read(&self.path).await {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|_| StoreError::Corrupt(format!("{} is not a mark", self.path.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unavailable(&error)),
        }
    }

    async fn write(&self, left: Left) -> Result<(), StoreError> {
        let _only_one = self.writing.lock().await;
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || replace_file(&path, &left)).await;
        written.map_err(|error| StoreError::Unavailable(error.to_string()))?.map_err(|error| unavailable(&error))
    }

    /// Inode and time of birth. Not the device: its number changes over restarts on several file systems, and a fleet that
    /// takes each restart for a copy is one that nobody believes.
    fn identity(&self) -> String {
        let Ok(file) = std::fs::metadata(&self.database) else { return String::new() };
        let born = file.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        format!("{}-{}", file.ino(), born.map_or(0, |born| born.as_nanos()))
    }
}

/// Written beside and renamed: a crash leaves the old mark or the new one.
fn replace_file(path: &Path, left: &Left) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = std::fs::File::create(&beside)?;
    serde_json::to_writer(&mut file, left)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    path.parent().map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
}

fn unavailable(error: &std::io::Error) -> StoreError {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => StoreError::Full(error.to_string()),
        _ => StoreError::Unavailable(format!("the mark: {error}")),
    }
}

impl Keyed {
    fn mark_row(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.engine.read()?.get(Table::System, MARK)
    }

    /// Raises the mark in the store beyond its own and `least`, then leaves it outside.
    async fn leave_next(&self, least: u64) -> Result<u64, StoreError> {
        loop {
            let row = self.mark_row()?;
            let reached = mark_of(row.as_deref())?.max(least);
            let mark = reached.checked_add(1).ok_or_else(|| corrupt("mark", "it is at its end"))?;
            let expect = row.map_or(Expect::Absent, |bytes| Expect::Bytes(0, bytes));
            let change =
                Batch::control().check(Table::System, MARK.to_vec(), expect).put(Table::System, MARK.to_vec(), small(&(mark,)));
            if let Written::Applied(_) = self.engine.write(change).await? {
                self.outside.write(Left { mark, identity: self.outside.identity() }).await?;
                return Ok(mark);
            }
        }
    }
}

fn mark_of(row: Option<&[u8]>) -> Result<u64, StoreError> {
    row.map_or(Ok(0), |bytes| read_small::<(u64,)>("mark", bytes).map(|(mark,)| mark))
}

#[async_trait::async_trait]
impl Meta for Keyed {
    async fn room(&self) -> Result<(), StoreError> {
        self.engine.room()
    }

    async fn raise_mark(&self) -> Result<u64, StoreError> {
        // Raising the mark of a restored store would wipe out the only trace of it.
        if let Err(differs) = self.check_mark().await? {
            return Err(StoreError::Unavailable(differs));
        }
        // The place of the first mark is there before the store holds one: whoever is killed between the two left no copy.
        if self.mark_row()?.is_none() && self.outside.read().await?.is_none() {
            self.outside.write(Left { mark: 0, identity: self.outside.identity() }).await?;
        }
        self.leave_next(0).await
    }

    async fn check_mark(&self) -> Result<Result<(), String>, StoreError> {
        let mark = mark_of(self.mark_row()?.as_deref())?;
        let Some(left) = self.outside.read().await? else {
            let is_new = mark == 0;
            return Ok(if is_new { Ok(()) } else { Err("the mark outside the store is missing: the folder was copied".into()) });
        };
        Ok(if left.mark > mark {
            Err(format!("the store stands at mark {mark}, but had reached {}: it was restored from a backup", left.mark))
        } else if left.identity != self.outside.identity() {
            Err("the folder was copied: the database is not the file that the mark was left for".into())
        } else {
            Ok(())
        })
    }

    async fn accept(&self) -> Result<(), StoreError> {
        self.leave_next(left_mark(self.outside.read().await)?).await?;
        Ok(())
    }

    async fn get(&self, name: &str) -> Result<Option<String>, StoreError> {
        let row = self.engine.read()?.get(Table::Fact, name.as_bytes())?;
        row.map(|bytes| read_small::<(String,)>("fact", &bytes).map(|(value,)| value)).transpose()
    }

    async fn put(&self, name: &str, value: &str) -> Result<(), StoreError> {
        self.engine.write(Batch::control().put(Table::Fact, name.as_bytes().to_vec(), small(&(value,)))).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_that_could_not_be_synced_does_not_take_the_place_of_the_old_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("mark");
        let left = |mark| Left { mark, identity: "it".into() };
        replace_file(&path, &left(1)).expect("it is left");
        // It takes what is written and cannot be synced.
        std::os::unix::fs::symlink("/dev/null", path.with_extension("new")).expect("a link");
        let refused = replace_file(&path, &left(2)).map_err(|error| error.kind());
        assert_eq!(refused, Err(std::io::ErrorKind::InvalidInput));
        let stands = std::fs::read(&path).expect("it is read");
        assert_eq!(serde_json::from_slice::<Left>(&stands).expect("it is a mark"), left(1));
    }
}
