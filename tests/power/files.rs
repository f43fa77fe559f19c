//! What lies beside the database: the mark, which a cut may leave at any of its steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use smsfleet::adapters::embedded::EmbeddedStore;
use smsfleet::adapters::embedded::folder::Folder;
use smsfleet::adapters::embedded::keyed::{MarkCell, MarkFile};
use smsfleet::ports::StoreError;
use smsfleet::ports::meta::{Left, Outside};

use super::disk::PowerDisk;
use crate::conformance::fixture::small_options;

/// A place for the mark on a machine whose power goes before the n-th time that it is left there.
#[derive(Clone)]
struct UntilTheCut {
    cell: MarkCell,
    left: Arc<AtomicI64>,
}

#[async_trait::async_trait]
impl Outside for UntilTheCut {
    async fn read(&self) -> Result<Option<Left>, StoreError> {
        self.cell.read().await
    }

    async fn write(&self, left: Left) -> Result<(), StoreError> {
        if self.left.fetch_sub(1, Ordering::Relaxed) <= 0 {
            return Err(StoreError::Unavailable("the power went".into()));
        }
        self.cell.write(left).await
    }

    fn identity(&self) -> String {
        self.cell.identity()
    }
}

async fn open(folder: &tempfile::TempDir, disk: &PowerDisk, outside: &UntilTheCut) -> EmbeddedStore {
    let folder = Folder::open(folder.path()).expect("the folder opens");
    let opened = EmbeddedStore::open_on(folder, Arc::new(disk.clone()), Box::new(outside.clone()), small_options());
    opened.await.expect("it opens")
}

/// The mark is raised in the database and left beside it: the power may go between the two, the first time as well.
#[tokio::test]
async fn a_cut_at_any_step_of_the_mark_is_not_taken_for_a_copy() {
    for steps in 0..6 {
        let (folder, disk) = (tempfile::tempdir().expect("a folder"), PowerDisk::new(7, 0));
        let outside = UntilTheCut { cell: MarkCell::default(), left: Arc::new(AtomicI64::new(steps)) };
        let store = open(&folder, &disk, &outside).await;
        let mut raised = 0;
        while let Ok(mark) = store.stores().meta.raise_mark().await {
            raised = mark;
        }
        disk.cut();
        drop(store);
        disk.restore();
        outside.left.store(i64::MAX, Ordering::Relaxed);
        let store = open(&folder, &disk, &outside).await;
        let meta = store.stores().meta;
        assert_eq!(meta.check_mark().await, Ok(Ok(())), "cut after {steps} steps");
        assert!(meta.raise_mark().await.is_ok_and(|mark| mark > raised), "cut after {steps} steps");
    }
}

/// The mark's file is written beside and renamed: whatever a cut leaves of what was written beside is nothing to anybody.
#[tokio::test]
async fn what_a_cut_leaves_beside_the_mark_is_not_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("smsfleet.redb"), "").expect("a database");
    let mark = MarkFile::new(&path("mark"), &path("smsfleet.redb"));
    let left = |mark: u64| Left { mark, identity: "it".into() };
    for half in ["", "{\"mark\":9,\"ident", "\0\0\0\0\0\0\0\0"] {
        std::fs::write(path("mark.new"), half).expect("what was left");
        let next = mark.read().await.expect("it is read").map_or(1, |left| left.mark + 1);
        mark.write(left(next)).await.expect("it is left");
        assert!(!path("mark.new").exists());
        assert_eq!(mark.read().await, Ok(Some(left(next))));
    }
    assert_eq!(mark.read().await, Ok(Some(left(3))));
    // A mark that cannot be read is said, never taken for none: with none a restored store would send.
    std::fs::write(path("mark"), "\0\0\0\0").expect("a broken disk");
    assert!(matches!(mark.read().await, Err(StoreError::Corrupt(_))));
}
