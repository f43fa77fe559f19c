//! The spool and the uploads as copies of lists that can be removed when a person is erased.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::spool;
use crate::model::code::{Code, Fault};
use crate::ports::clock::Clock;
use crate::ports::source::{ListCopies, Removed};
use crate::ports::uploads::Uploads;

/// A copy that was used more recently may belong to a batch that is just being created.
const AT_REST: Duration = Duration::from_secs(600);

/// The copies in a spool folder.
pub struct SpoolCopies {
    folder: PathBuf,
    at_rest: Duration,
}

impl SpoolCopies {
    /// The copies of this folder.
    pub fn new(folder: PathBuf) -> SpoolCopies {
        SpoolCopies { folder, at_rest: AT_REST }
    }
}

#[async_trait::async_trait]
impl ListCopies for SpoolCopies {
    fn is_copy(&self, table_name: &str) -> bool {
        Path::new(table_name).starts_with(&self.folder)
    }

    async fn remove_unneeded(&self, needed: &[String]) -> Result<Removed, Fault> {
        let (folder, needed, at_rest) = (self.folder.clone(), needed.to_vec(), self.at_rest);
        let done = tokio::task::spawn_blocking(move || remove(&folder, &needed, at_rest)).await;
        let done = done.map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
        done.map_err(|error| Fault::new(Code::StoreUnavailable, format!("the spool: {error}")))
    }
}

/// Lists that were handed in.
pub struct UploadCopies {
    uploads: Arc<dyn Uploads>,
    clock: Arc<dyn Clock>,
}

impl UploadCopies {
    /// What is kept there.
    pub fn new(uploads: Arc<dyn Uploads>, clock: Arc<dyn Clock>) -> UploadCopies {
        UploadCopies { uploads, clock }
    }
}

#[async_trait::async_trait]
impl ListCopies for UploadCopies {
    fn is_copy(&self, table_name: &str) -> bool {
        table_name.starts_with("upload:")
    }

    async fn remove_unneeded(&self, needed: &[String]) -> Result<Removed, Fault> {
        let mut done = Removed::default();
        for kept in self.uploads.list().await? {
            let rests = self.clock.now().since(kept.at) >= AT_REST;
            if needed.contains(&kept.table_name) || !rests {
                done.kept += 1;
            } else {
                done.removed += u64::from(self.uploads.delete(&kept.upload_id).await?);
            }
        }
        Ok(done)
    }
}

fn remove(folder: &Path, needed: &[String], at_rest: Duration) -> io::Result<Removed> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Removed::default()),
        Err(error) => return Err(error),
    };
    let mut done = Removed::default();
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        // Which list a conversion was made of is known to its batch alone: while any is needed, all are.
        let converted = spool::is_converted(&entry.file_name().to_string_lossy());
        let is_needed = converted && !needed.is_empty() || needed.iter().any(|name| Path::new(name) == path);
        let rests = entry.metadata()?.modified()?.elapsed().unwrap_or_default() >= at_rest;
        if is_needed || !rests {
            done.kept += 1;
            continue;
        }
        fs::remove_file(&path)?;
        done.removed += 1;
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn only_copies_that_nobody_needs_are_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let put = |name: &str, age: u64| {
            fs::write(path(name), "x").expect("it is written");
            let then = SystemTime::now() - Duration::from_secs(age);
            fs::File::options().write(true).open(path(name)).and_then(|file| file.set_modified(then)).expect("it is aged");
        };
        put("input-1", 3_600);
        put("input-2", 3_600);
        put("input-3", 10);
        put("text-1", 3_600);
        let needed = [path("input-1").display().to_string()];
        assert_eq!(remove(folder.path(), &needed, AT_REST).expect("it works"), Removed { removed: 1, kept: 3 });
        assert!(path("input-1").exists() && !path("input-2").exists() && path("input-3").exists() && path("text-1").exists());
        assert_eq!(remove(folder.path(), &[], AT_REST).expect("it works"), Removed { removed: 2, kept: 1 });
        assert_eq!(remove(&path("nowhere"), &[], AT_REST).expect("it works"), Removed::default());
        let copies = SpoolCopies::new(folder.path().to_owned());
        assert!(copies.is_copy(&needed[0]) && !copies.is_copy("/home/lists/a.csv"));
    }
}
