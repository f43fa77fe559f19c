//! Uploads: lists that were handed in over the network, named by their content, in a folder or in a bucket.

mod bucket;
mod folder;

use std::path::PathBuf;

use sha2::{Digest, Sha256};

pub use self::bucket::BucketUploads;
pub use self::folder::FolderUploads;
use super::address::UPLOAD;
use super::cannot_open;
use super::objects::{Bucket, key};
use super::part::{Part, Place};
use crate::model::code::{Code, Fault};
use crate::runtime::digest::hex;

/// The version of every upload: named by its content, it never has another.
pub(super) const UPLOADED: &str = "uploaded";
/// What an upload that broke off leaves behind goes when it is this old.
const LEFT_OVER: std::time::Duration = std::time::Duration::from_secs(86_400);

/// Where uploads lie.
#[derive(Clone, Debug)]
pub(super) enum UploadPlace {
    Folder(PathBuf),
    Bucket { bucket: Bucket, prefix: String },
}

impl UploadPlace {
    /// An upload as a file of a list.
    pub async fn part(&self, id: &str) -> Result<Part, Fault> {
        let name = format!("{UPLOAD}{id}");
        let part = match self {
            UploadPlace::Folder(folder) => {
                let path = folder.join(id);
                let facts = std::fs::metadata(&path).map_err(|error| match error.kind() {
                    std::io::ErrorKind::NotFound => Fault::new(Code::SourceNotFound, format!("there is no {name}")),
                    _ => cannot_open(&name, &error),
                })?;
                Part {
                    name: String::new(),
                    file_name: id.to_string(),
                    size: facts.len(),
                    version: String::new(),
                    place: Place::File(path),
                }
            }
            UploadPlace::Bucket { bucket, prefix } => bucket.stat(key(&below(prefix, id))?, name.clone()).await?,
        };
        Ok(Part { name, version: UPLOADED.to_string(), ..part })
    }
}

/// A key below a prefix, which may be empty.
fn below(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_string() } else { format!("{prefix}/{name}") }
}

/// Counts and hashes what comes in.
struct Measure {
    hash: Sha256,
    bytes: u64,
    max: u64,
}

impl Measure {
    fn new(max: u64) -> Measure {
        Measure { hash: Sha256::new(), bytes: 0, max }
    }

    fn add(&mut self, piece: &[u8]) -> Result<(), Fault> {
        self.bytes += piece.len() as u64;
        if self.bytes > self.max {
            return Err(Fault::new(Code::UploadTooLarge, format!("the upload has more than {} bytes", self.max)));
        }
        self.hash.update(piece);
        Ok(())
    }

    /// The name and the size, when they are what was announced.
    fn finish(self, expected_sha256: Option<&str>) -> Result<(String, u64), Fault> {
        let id = hex(&self.hash.finalize());
        if self.bytes == 0 {
            return Err(Fault::new(Code::UploadBroken, "the upload is empty"));
        }
        match expected_sha256 {
            Some(expected) if !expected.eq_ignore_ascii_case(&id) => {
                Err(Fault::new(Code::UploadBroken, format!("the SHA-256 of what came in is {id}, and another was announced")))
            }
            _ => Ok((id, self.bytes)),
        }
    }
}
