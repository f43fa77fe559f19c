//! Uploads in a bucket of an object store.
//!
//! A short one is one request under its name. A longer one comes in piece by piece before its name is known: under a name of
//! its own, which a hidden folder keeps apart, then the store copies it to where it belongs.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use object_store::path::Path;
use object_store::{Error, MultipartUpload, ObjectMeta, ObjectStoreExt};

use super::{LEFT_OVER, Measure, UploadPlace, below};
use crate::adapters::source::address::{Address, UPLOAD, upload_id};
use crate::adapters::source::objects::{Bucket, ObjectStores, key};
use crate::model::code::{Code, Fault};
use crate::model::time::Timestamp;
use crate::ports::uploads::{Content, Uploaded, Uploads};
use crate::runtime::task;

/// Bytes of a piece: no store takes less than 5 MiB, and S3 at most 10,000 pieces.
const PIECE_BYTES: usize = 8 << 20;
/// Where unfinished uploads are, below the place of uploads.
const INCOMING: &str = ".incoming";

/// Keeps uploads below a key of a bucket, each under its name.
#[derive(Clone, Debug)]
pub struct BucketUploads {
    bucket: Bucket,
    prefix: String,
    max_bytes: u64,
}

impl BucketUploads {
    /// Uploads of at most `max_bytes` at `url`, such as `s3://lists/uploads/`, which is an allowed place of `stores`.
    ///
    /// # Errors
    /// [`Code::ConfigInvalid`] for what is no such place.
    pub fn new(stores: &ObjectStores, url: &str, max_bytes: u64) -> Result<BucketUploads, Fault> {
        let refuse = |why: String| Fault::new(Code::ConfigInvalid, format!("uploads.url: {why}"));
        let Ok(Address::Object(address)) = Address::parse(&format!("{}/", url.trim_end_matches('/'))) else {
            return Err(refuse(format!("{url:?} is no address such as s3://BUCKET/FOLDER/")));
        };
        let bucket = stores.bucket(&address).map_err(|fault| refuse(fault.context))?.clone();
        Ok(BucketUploads { bucket, prefix: address.key, max_bytes })
    }

    pub(in super::super) fn place(&self) -> UploadPlace {
        UploadPlace::Bucket { bucket: self.bucket.clone(), prefix: self.prefix.clone() }
    }

    fn key(&self, name: &str) -> Result<Path, Fault> {
        key(&below(&self.prefix, name))
    }

    fn fault(&self, error: &Error) -> Fault {
        match self.bucket.fault(&below(&self.prefix, ""), error) {
            // To whoever hands in a list, a missing bucket and denied access are faults of ours.
            Fault { code: Code::SourceNotFound, context } => Fault::new(Code::StoreUnavailable, context),
            fault => fault,
        }
    }

    async fn objects(&self, folder: &str) -> Result<Vec<ObjectMeta>, Fault> {
        let below = key(folder)?;
        let listed = self.bucket.store().list_with_delimiter((!folder.is_empty()).then_some(&below)).await;
        Ok(listed.map_err(|error| self.fault(&error))?.objects)
    }

    /// Takes in what is longer than a piece, of which `first` was read. Answers with what it is called.
    async fn put_long(
        &self,
        mut content: Content,
        first: BytesMut,
        mut measure: Measure,
        expected_sha256: Option<&str>,
    ) -> Result<(String, u64), Fault> {
        let store = self.bucket.store();
        let incoming = self.key(&format!("{INCOMING}/{}", unique()))?;
        let mut upload = Incoming(Some(store.put_multipart(&incoming).await.map_err(|error| self.fault(&error))?));
        let mut buffer = first;
        let named = loop {
            while buffer.len() >= PIECE_BYTES {
                upload.piece(buffer.split_to(PIECE_BYTES).freeze()).await.map_err(|error| self.fault(&error))?;
            }
            match content.next().await {
                Some(Ok(piece)) => {
                    measure.add(&piece)?;
                    buffer.extend_from_slice(&piece);
                }
                Some(Err(fault)) => return Err(fault),
                None => break measure.finish(expected_sha256)?,
            }
        };
        if !buffer.is_empty() {
            upload.piece(buffer.freeze()).await.map_err(|error| self.fault(&error))?;
        }
        upload.complete().await.map_err(|error| self.fault(&error))?;
        let copied = store.copy(&incoming, &self.key(&named.0)?).await;
        // What stays here because of a failure is hidden, and goes when it is old.
        if let Err(error) = store.delete(&incoming).await {
            tracing::warn!(cause = %self.fault(&error).context, "an upload's first copy could not be removed");
        }
        copied.map_err(|error| self.fault(&error))?;
        Ok(named)
    }
}

#[async_trait::async_trait]
impl Uploads for BucketUploads {
    async fn put(&self, mut content: Content, expected_sha256: Option<&str>, max_bytes: Option<u64>) -> Result<Uploaded, Fault> {
        let mut measure = Measure::new(max_bytes.map_or(self.max_bytes, |max| max.min(self.max_bytes)));
        let mut buffer = BytesMut::new();
        let ended = loop {
            if buffer.len() > PIECE_BYTES {
                break false;
            }
            let Some(piece) = content.next().await else { break true };
            let piece = piece?;
            measure.add(&piece)?;
            buffer.extend_from_slice(&piece);
        };
        let (upload_id, bytes) = if ended {
            let named = measure.finish(expected_sha256)?;
            let key = self.key(&named.0)?;
            self.bucket.store().put(&key, buffer.freeze().into()).await.map_err(|error| self.fault(&error))?;
            named
        } else {
            self.put_long(content, buffer, measure, expected_sha256).await?
        };
        let kept = self.get(&upload_id).await?;
        kept.filter(|kept| kept.bytes == bytes).ok_or_else(|| {
            Fault::new(Code::StoreUnavailable, format!("{UPLOAD}{upload_id} is not there, although the store took it"))
        })
    }

    async fn get(&self, id: &str) -> Result<Option<Uploaded>, Fault> {
        match self.bucket.store().head(&self.key(&upload_id(id)?)?).await {
            Ok(meta) => Ok(uploaded(&meta)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.fault(&error)),
        }
    }

    async fn list(&self) -> Result<Vec<Uploaded>, Fault> {
        let mut found: Vec<Uploaded> = self.objects(&self.prefix).await?.iter().filter_map(uploaded).collect();
        found.sort_by(|one, other| (other.at, &other.upload_id).cmp(&(one.at, &one.upload_id)));
        Ok(found)
    }

    async fn delete(&self, id: &str) -> Result<bool, Fault> {
        if self.get(id).await?.is_none() {
            return Ok(false);
        }
        match self.bucket.store().delete(&self.key(id)?).await {
            Ok(()) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.fault(&error)),
        }
    }

    async fn expire(&self, before: Timestamp, in_use: &BTreeSet<String>) -> Result<u64, Fault> {
        let mut gone = 0;
        for upload in self.list().await? {
            if upload.at < before && !in_use.contains(&upload.upload_id) {
                gone += u64::from(self.delete(&upload.upload_id).await?);
            }
        }
        let old = now().minus(LEFT_OVER);
        for meta in self.objects(&below(&self.prefix, INCOMING)).await? {
            if meta.last_modified.timestamp_millis() < old.0 {
                self.bucket.store().delete(&meta.location).await.map_err(|error| self.fault(&error))?;
            }
        }
        Ok(gone)
    }
}

/// An object as an upload, when it is named like one.
fn uploaded(meta: &ObjectMeta) -> Option<Uploaded> {
    let upload_id = upload_id(meta.location.filename()?).ok()?;
    let at = Timestamp(meta.last_modified.timestamp_millis());
    Some(Uploaded { table_name: format!("{UPLOAD}{upload_id}"), upload_id, bytes: meta.size, at })
}

/// A name that no other upload of any process has: what it holds is not known yet.
fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{nanos}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A long upload while it comes in. Dropped before its end, the store is told to forget its pieces.
struct Incoming(Option<Box<dyn MultipartUpload>>);

impl Incoming {
    async fn piece(&mut self, piece: Bytes) -> Result<(), Error> {
        match &mut self.0 {
            Some(upload) => upload.put_part(piece.into()).await,
            None => Ok(()),
        }
    }

    async fn complete(&mut self) -> Result<(), Error> {
        if let Some(upload) = &mut self.0 {
            upload.complete().await?;
            self.0 = None;
        }
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let Some(mut upload) = self.0.take() else { return };
        if tokio::runtime::Handle::try_current().is_ok() {
            task::spawn("abort upload", async move {
                if upload.abort().await.is_err() {
                    tracing::warn!("the pieces of a broken upload stay until the bucket's own rule for them lets them go");
                }
            });
        }
    }
}
