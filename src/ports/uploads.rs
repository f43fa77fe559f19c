//! Where lists that are handed in over the network are kept until they are prepared.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::stream::BoxStream;

use crate::model::code::Fault;
use crate::model::time::Timestamp;

/// The content of an upload as it comes in. An error in it ends the upload, and nothing of it stays.
pub type Content = BoxStream<'static, Result<Bytes, Fault>>;

/// A list that was handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// SHA-256 of its content, as 64 hexadecimal digits: the same content has the same name.
    pub upload_id: String,
    /// Its size.
    pub bytes: u64,
    /// What a batch names as its `table_name`.
    pub table_name: String,
    /// When it was last handed in.
    pub at: Timestamp,
}

/// Keeps lists. Every call may be repeated.
#[async_trait::async_trait]
pub trait Uploads: Send + Sync {
    /// Takes in a list in bounded memory. It is there, whole and durable, when this answers, and not at all before or when it
    /// fails: more than `max_bytes` (or than the configuration allows, whichever is less) is
    /// [`crate::model::code::Code::UploadTooLarge`]; content whose SHA-256 is not `expected_sha256` (hexadecimal, any case), and
    /// no content at all, is [`crate::model::code::Code::UploadBroken`]. Dropping the call leaves nothing behind.
    async fn put(&self, content: Content, expected_sha256: Option<&str>, max_bytes: Option<u64>) -> Result<Uploaded, Fault>;

    /// One list, if it is there.
    async fn get(&self, upload_id: &str) -> Result<Option<Uploaded>, Fault>;

    /// All lists, the newest first.
    async fn list(&self) -> Result<Vec<Uploaded>, Fault>;

    /// Lets go of one; whether it was there. A batch that still reads it fails with
    /// [`crate::model::code::Code::SourceNotFound`], so the caller looks first.
    async fn delete(&self, upload_id: &str) -> Result<bool, Fault>;

    /// Lets go of lists last handed in before `before`, except those in use (by id), and of what broken uploads left behind;
    /// how many lists went.
    async fn expire(&self, before: Timestamp, in_use: &BTreeSet<String>) -> Result<u64, Fault>;
}
