//! Uploads in a folder of this machine.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use tokio::io::AsyncWriteExt;

use super::{LEFT_OVER, Measure, UploadPlace};
use crate::adapters::source::address::{UPLOAD, upload_id};
use crate::adapters::source::blocking;
use crate::adapters::source::spool::{HALF_WRITTEN, cannot_write};
use crate::model::code::{Code, Fault};
use crate::model::time::Timestamp;
use crate::ports::uploads::{Content, Uploaded, Uploads};

/// Keeps uploads in a folder, each under its name; only this user may read them.
#[derive(Clone, Debug)]
pub struct FolderUploads {
    folder: PathBuf,
    max_bytes: u64,
}

impl FolderUploads {
    /// Uploads of at most `max_bytes` in `folder`, which is made when it is needed.
    pub fn new(folder: PathBuf, max_bytes: u64) -> FolderUploads {
        FolderUploads { folder, max_bytes }
    }

    pub(in super::super) fn place(&self) -> UploadPlace {
        UploadPlace::Folder(self.folder.clone())
    }
}

#[async_trait::async_trait]
impl Uploads for FolderUploads {
    async fn put(&self, mut content: Content, expected_sha256: Option<&str>, max_bytes: Option<u64>) -> Result<Uploaded, Fault> {
        let mut measure = Measure::new(max_bytes.map_or(self.max_bytes, |max| max.min(self.max_bytes)));
        let folder = self.folder.clone();
        let (half, file) = blocking(move || Half::begin(&folder)).await?;
        let mut file = tokio::fs::File::from_std(file);
        let failed = |error: io::Error| cannot_write(&half.path, &error);
        while let Some(piece) = content.next().await {
            let piece = piece?;
            measure.add(&piece)?;
            file.write_all(&piece).await.map_err(failed)?;
        }
        let (upload_id, _) = measure.finish(expected_sha256)?;
        file.flush().await.map_err(failed)?;
        let file = file.into_std().await;
        let path = self.folder.join(&upload_id);
        let facts = blocking(move || half.finish(&file, &path)).await?;
        Ok(uploaded(upload_id, &facts))
    }

    async fn get(&self, id: &str) -> Result<Option<Uploaded>, Fault> {
        let path = self.folder.join(upload_id(id)?);
        match fs::metadata(&path) {
            Ok(facts) => Ok(Some(uploaded(id.to_string(), &facts))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(cannot_write(&path, &error)),
        }
    }

    async fn list(&self) -> Result<Vec<Uploaded>, Fault> {
        let folder = self.folder.clone();
        let mut found = blocking(move || entries(&folder)).await?;
        found.retain(|(name, _)| upload_id(name).is_ok());
        let mut found: Vec<Uploaded> = found.into_iter().map(|(name, facts)| uploaded(name, &facts)).collect();
        found.sort_by(|one, other| (other.at, &other.upload_id).cmp(&(one.at, &one.upload_id)));
        Ok(found)
    }

    async fn delete(&self, id: &str) -> Result<bool, Fault> {
        remove(&self.folder.join(upload_id(id)?))
    }

    async fn expire(&self, before: Timestamp, in_use: &BTreeSet<String>) -> Result<u64, Fault> {
        let mut gone = 0;
        for upload in self.list().await? {
            if upload.at < before && !in_use.contains(&upload.upload_id) {
                gone += u64::from(self.delete(&upload.upload_id).await?);
            }
        }
        let old = SystemTime::now().checked_sub(LEFT_OVER).unwrap_or(UNIX_EPOCH);
        for (name, facts) in entries(&self.folder)? {
            if name.ends_with(HALF_WRITTEN) && facts.modified().is_ok_and(|at| at < old) {
                remove(&self.folder.join(name))?;
            }
        }
        Ok(gone)
    }
}

fn uploaded(upload_id: String, facts: &Metadata) -> Uploaded {
    let since = facts.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or(Duration::ZERO);
    let at = Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    Uploaded { table_name: format!("{UPLOAD}{upload_id}"), upload_id, bytes: facts.len(), at }
}

fn remove(path: &Path) -> Result<bool, Fault> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(cannot_write(path, &error)),
    }
}

/// The files of the folder; none when there is no folder.
fn entries(folder: &Path) -> Result<Vec<(String, Metadata)>, Fault> {
    let failed = |error: io::Error| Fault::new(Code::StoreUnavailable, format!("{} cannot be read: {error}", folder.display()));
    let read = match fs::read_dir(folder) {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(failed(error)),
    };
    let mut found = vec![];
    for entry in read {
        let entry = entry.map_err(failed)?;
        match entry.metadata() {
            Ok(facts) => found.push((entry.file_name().to_string_lossy().into_owned(), facts)),
            // Somebody let go of it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(found)
}

/// An upload while it comes in. Dropped before its end, it goes.
struct Half {
    folder: PathBuf,
    path: PathBuf,
    done: bool,
}

impl Half {
    fn begin(folder: &Path) -> Result<(Half, File), Fault> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| cannot_write(folder, &error))?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{}-{number}{HALF_WRITTEN}", std::process::id()));
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let file = file.map_err(|error| cannot_write(&path, &error))?;
        Ok((Half { folder: folder.to_path_buf(), path, done: false }, file))
    }

    fn finish(mut self, file: &File, path: &Path) -> Result<Metadata, Fault> {
        let finished = file
            .sync_all()
            .and_then(|()| fs::rename(&self.path, path))
            .and_then(|()| File::open(&self.folder)?.sync_all())
            .and_then(|()| file.metadata());
        let facts = finished.map_err(|error| cannot_write(path, &error))?;
        self.done = true;
        Ok(facts)
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        if !self.done {
            // What cannot be removed now goes when it is old.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What cannot be synced shows whether the system was asked to: for the file, and for the folder that its name stands in.
    #[test]
    fn an_upload_is_synced_and_so_is_its_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let (half, whole) = (folder.path().join("list.half"), folder.path().join("list"));
        for (of, file) in [(folder.path(), Path::new("/dev/null")), (Path::new("/proc"), half.as_path())] {
            fs::write(&half, "text").expect("it is written");
            let file = File::open(file).expect("it is there");
            let upload = Half { folder: of.to_path_buf(), path: half.clone(), done: false };
            let refused = upload.finish(&file, &whole);
            assert!(refused.is_err(), "{refused:?}");
        }
    }
}
