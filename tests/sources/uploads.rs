//! Uploads: whole and named by their content, or not there at all; in a folder and in a bucket.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use smsfleet::adapters::source::{BucketUploads, FolderUploads, ListSource, ObjectStores, StoreKind};
use smsfleet::model::code::{Code, Fault};
use smsfleet::model::time::Timestamp;
use smsfleet::ports::source::{Source, SourceSpec};
use smsfleet::ports::uploads::{Content, Uploads};

use super::{KINDS, Kind, fault_of, files_in};

const MAX: u64 = 40 << 20;

struct Kept {
    folder: tempfile::TempDir,
    uploads: Arc<dyn Uploads>,
    source: ListSource,
    store: Option<Arc<dyn ObjectStore>>,
}

impl Kept {
    fn new(kind: Kind) -> Kept {
        let folder = tempfile::tempdir().expect("a folder");
        let source = ListSource::new(folder.path().join("spool"));
        match kind {
            Kind::Local => {
                let uploads = FolderUploads::new(folder.path().join("uploads"), MAX);
                let source = source.with_uploads_in_folder(&uploads);
                Kept { folder, uploads: Arc::new(uploads), source, store: None }
            }
            Kind::Object => {
                let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
                let stores = ObjectStores::default().with_bucket(StoreKind::S3, "lists", store.clone());
                let uploads = BucketUploads::new(&stores, "s3://lists/uploads/", MAX).expect("a place");
                let source = source.with_objects(stores).with_uploads_in_bucket(&uploads);
                Kept { folder, uploads: Arc::new(uploads), source, store: Some(store) }
            }
        }
    }

    /// Everything that is there, unfinished things too.
    async fn names(&self) -> Vec<String> {
        match &self.store {
            None => files_in(&self.folder.path().join("uploads")),
            Some(store) => {
                let all: Vec<_> = store.list(None).try_collect().await.expect("a listing");
                all.iter()
                    .map(|meta| Path::new(meta.location.as_ref()).file_name().expect("a name").to_string_lossy().into())
                    .collect()
            }
        }
    }
}

fn content(bytes: &[u8]) -> Content {
    let pieces: Vec<_> = bytes.chunks(100_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    stream::iter(pieces).boxed()
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    smsfleet::runtime::digest::hex(&sha2::Sha256::digest(bytes))
}

fn list(records: usize) -> Vec<u8> {
    let rows: String = (0..records).map(|n| format!("{n},name {n}\n")).collect();
    format!("phone,name\n{rows}").into_bytes()
}

#[tokio::test]
async fn an_upload_is_there_under_the_hash_of_its_content_and_is_a_list() {
    for kind in KINDS {
        let kept = Kept::new(kind);
        // The second is longer than a piece of a long upload, and no multiple of one.
        for records in [3, 1_000_000] {
            let (bytes, before) = (list(records), kept.uploads.list().await.expect("a list").len());
            let sha = sha256(&bytes);
            for expected in [None, Some(sha.clone()), Some(sha.to_uppercase())] {
                let uploaded = kept.uploads.put(content(&bytes), expected.as_deref(), None).await.expect("it is kept");
                assert_eq!((&uploaded.upload_id, uploaded.bytes), (&sha, bytes.len() as u64));
                assert_eq!(uploaded.table_name, format!("upload:{sha}"));
                assert_eq!(kept.uploads.get(&sha).await, Ok(Some(uploaded)));
            }
            assert_eq!(kept.uploads.list().await.expect("a list").len(), before + 1, "the same content is one file");
            assert_eq!(kept.names().await.len(), before + 1, "nothing else is left");

            let spec = SourceSpec { table_name: format!("upload:{sha}"), ..SourceSpec::default() };
            let plan = kept.source.plan(&spec, 300_000).await.expect("a plan");
            assert_eq!(plan.records, records as u64);
            kept.uploads.put(content(&bytes), None, None).await.expect("handed in again");
            let mut read = 0;
            for range in &plan.ranges {
                let mut reader = kept.source.open(&spec, &plan, range).await.expect("the same list");
                loop {
                    let records = reader.read(10_000).await.expect("records");
                    if records.is_empty() {
                        break;
                    }
                    read += records.len();
                }
            }
            assert_eq!(read, records);
        }
    }
}

#[tokio::test]
async fn what_is_not_whole_leaves_nothing_behind() {
    for kind in KINDS {
        let kept = Kept::new(kind);
        let long = list(1_500_000);
        assert!(long.len() > 20 << 20, "longer than two pieces");
        for bytes in [list(3), long] {
            let wrong = sha256(b"something else");
            fault_of(kept.uploads.put(content(&bytes), Some(&wrong), None).await, Code::UploadBroken, "SHA-256");
            let less = bytes.len() as u64 - 1;
            fault_of(kept.uploads.put(content(&bytes), None, Some(less)).await, Code::UploadTooLarge, &less.to_string());
            let lost = || Fault::new(Code::InputInvalid, "the connection broke");
            let broken = content(&bytes).chain(stream::iter([Err(lost())])).boxed();
            assert_eq!(kept.uploads.put(broken, None, None).await, Err(lost()));
            // Whoever hands it in goes away.
            let never = content(&bytes).chain(stream::pending()).boxed();
            let uploads = kept.uploads.clone();
            let given_up = tokio::time::timeout(std::time::Duration::from_millis(500), uploads.put(never, None, None)).await;
            assert!(given_up.is_err());
            tokio::task::yield_now().await;
            assert_eq!(kept.names().await, [""; 0], "{kind:?}");
        }
        fault_of(kept.uploads.put(content(b""), None, None).await, Code::UploadBroken, "empty");
        let too_large = stream::iter(std::iter::repeat_n(Ok(Bytes::from(vec![b'x'; 1 << 20])), 41)).boxed();
        fault_of(kept.uploads.put(too_large, None, Some(u64::MAX)).await, Code::UploadTooLarge, "41943040");
        assert_eq!(kept.names().await, [""; 0]);
        let exact = stream::iter(std::iter::repeat_n(Ok(Bytes::from(vec![b'x'; 1 << 20])), 40)).boxed();
        assert_eq!(kept.uploads.put(exact, None, None).await.map(|kept| kept.bytes), Ok(MAX));
    }
}

#[tokio::test]
async fn uploads_go_by_name_and_by_age_and_stay_while_they_are_needed() {
    for kind in KINDS {
        let kept = Kept::new(kind);
        let mut ids = vec![];
        for records in 1..=3 {
            ids.push(kept.uploads.put(content(&list(records)), None, None).await.expect("it is kept").upload_id);
        }
        assert_eq!(kept.uploads.delete(&ids[0]).await, Ok(true));
        assert_eq!(kept.uploads.delete(&ids[0]).await, Ok(false));
        assert_eq!(kept.uploads.get(&ids[0]).await, Ok(None));
        let spec = SourceSpec { table_name: format!("upload:{}", ids[0]), ..SourceSpec::default() };
        fault_of(kept.source.plan(&spec, 1).await, Code::SourceNotFound, &ids[0]);
        for name in ["..", "../uploads", "A", &"g".repeat(64)] {
            fault_of(kept.uploads.delete(name).await, Code::InputInvalid, "hexadecimal");
        }

        let newest = kept.uploads.list().await.expect("a list")[0].at;
        let in_use = BTreeSet::from([ids[1].clone()]);
        assert_eq!(kept.uploads.expire(Timestamp(0), &in_use).await, Ok(0));
        assert_eq!(kept.uploads.expire(Timestamp(newest.0 + 1), &in_use).await, Ok(1));
        assert_eq!(kept.names().await, [ids[1].clone()]);
    }
}

#[tokio::test]
async fn what_a_killed_process_left_goes_when_it_is_old() {
    let kept = Kept::new(Kind::Local);
    kept.uploads.put(content(&list(1)), None, None).await.expect("it is kept");
    let half = kept.folder.path().join("uploads").join("1-1.half");
    std::fs::write(&half, "half").expect("written");
    kept.uploads.expire(Timestamp(0), &BTreeSet::new()).await.expect("looked at");
    assert!(half.exists(), "it may still come in");
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 86_400);
    std::fs::File::options().write(true).open(&half).and_then(|file| file.set_modified(old)).expect("made old");
    kept.uploads.expire(Timestamp(0), &BTreeSet::new()).await.expect("looked at");
    assert!(!half.exists() && kept.names().await.len() == 1);
}

#[tokio::test]
async fn uploads_may_not_lie_where_the_configuration_does_not_allow() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let stores = ObjectStores::default().with_bucket(StoreKind::S3, "lists", store.clone());
    for url in ["s3://other/uploads/", "/tmp/uploads", "http://lists/x", "s3://lists/../x"] {
        fault_of(BucketUploads::new(&stores, url, MAX).map(|_| ()), Code::ConfigInvalid, "uploads.url");
    }
    // A whole bucket is a place too.
    let uploads = BucketUploads::new(&stores, "s3://lists", MAX).expect("a place");
    let uploaded = uploads.put(content(&list(1)), None, None).await.expect("it is kept");
    assert!(store.head(&uploaded.upload_id.as_str().into()).await.is_ok());
}
