//! The data folder: one process at a time, its format, copies, and what a crash leaves.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use smsfleet::adapters::embedded::EmbeddedStore;
use smsfleet::adapters::embedded::engine::disk::FileDisks;
use smsfleet::adapters::embedded::engine::redb::{EngineOptions, RedbEngine};
use smsfleet::adapters::embedded::engine::{Batch, Engine, Table};
use smsfleet::adapters::rows::frame::small;
use smsfleet::model::code::Code;
use smsfleet::model::ledger::Ledger;
use smsfleet::ports::control::Cas;

use super::fixture::{lane, open, small_options};

fn copy(from: &Path, to: &Path) {
    for name in ["smsfleet.redb", "mark"] {
        std::fs::copy(from.join(name), to.join(name)).expect("it is copied");
    }
}

#[tokio::test]
async fn a_second_user_of_the_folder_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("new/data");
    let first = open(&place).await;
    let Err(fault) = EmbeddedStore::open(&place, small_options()).await else { panic!("it is opened twice") };
    assert_eq!(fault.code, Code::FolderInUse);
    assert!(fault.context.contains(&std::process::id().to_string()), "{}", fault.context);
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&place), mode(&place.join("smsfleet.redb")), mode(&first.spool())), (0o700, 0o600, 0o700));
    let stores = first.stores();
    drop(first);
    assert!(stores.ledgers.load(lane(1, 1)).await.is_err(), "a closed store answers nothing");
    assert!(stores.ledgers.insert(lane(1, 1), &Ledger::sealed(1), 1).await.is_err());
    drop(open(&place).await);
}

/// A process that is being started holds copies of all open files until it runs its own program: closing a file is not
/// letting go of its lock.
#[tokio::test]
async fn the_folder_is_free_once_it_is_closed_although_processes_are_being_started() {
    let folder = tempfile::tempdir().expect("a folder");
    let stop = Arc::new(AtomicBool::new(false));
    let others: Vec<_> = (0..4)
        .map(|_| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::process::Command::new("true").status().expect("it starts");
                }
            })
        })
        .collect();
    let opened = futures::stream::iter(0..40).then(|_| EmbeddedStore::open(folder.path(), small_options()));
    let refused: Vec<_> = opened.filter_map(async |opened| opened.err()).collect().await;
    stop.store(true, Ordering::Relaxed);
    others.into_iter().for_each(|other| other.join().expect("it ends"));
    assert!(refused.is_empty(), "{} of 40: {}", refused.len(), refused[0]);
}

#[tokio::test]
async fn a_folder_of_another_format_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open(folder.path()).await);
    for row in [(2u32, 128u16), (1, 64)] {
        let disks = FileDisks::new(&folder.path().join("smsfleet.redb"), small_options().max_bytes);
        let options = EngineOptions { cache_bytes: 1 << 20, min_free_bytes: 0 };
        let engine = RedbEngine::open(Arc::new(disks), options).expect("it opens");
        let format = Batch::control().put(Table::System, b"format".to_vec(), small(&row));
        engine.write(format).await.expect("it is written");
        drop(engine);
        let Err(fault) = EmbeddedStore::open(folder.path(), small_options()).await else { panic!("it opened") };
        assert_eq!(fault.code, Code::StoreFormat, "{fault}");
    }
    std::fs::write(folder.path().join("smsfleet.redb"), b"this is no database at all").expect("it is written");
    let Err(fault) = EmbeddedStore::open(folder.path(), small_options()).await else { panic!("it opened") };
    assert_eq!(fault.code, Code::StoreCorrupt, "{fault}");
}

#[tokio::test]
async fn a_copy_of_the_folder_is_noticed() {
    let (folder, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let store = open(folder.path()).await;
    store.stores().meta.raise_mark().await.expect("a mark");
    store.close();
    drop(store);
    copy(folder.path(), other.path());
    let copied = open(other.path()).await;
    let meta = copied.stores().meta;
    assert!(matches!(meta.check_mark().await, Ok(Err(why)) if why.contains("copied")));
    meta.accept().await.expect("it is accepted");
    assert_eq!(meta.check_mark().await, Ok(Ok(())));
    std::fs::remove_file(other.path().join("mark")).expect("it is removed");
    assert!(matches!(meta.check_mark().await, Ok(Err(why)) if why.contains("missing")));
    let first = open(folder.path()).await;
    assert_eq!(first.stores().meta.check_mark().await, Ok(Ok(())), "the original is what it was");
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_crash() {
    let (folder, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let store = open(folder.path()).await;
    let ledgers = store.stores().ledgers;
    for n in 0..100u8 {
        assert_eq!(ledgers.insert(lane(1, n), &Ledger::sealed(u32::from(n)), 1).await, Ok(Cas::Applied));
    }
    store.stores().meta.raise_mark().await.expect("a mark");
    // The file as it is while the store is open is what a killed process leaves.
    copy(folder.path(), other.path());
    let after = open(other.path()).await;
    let found = after.stores().ledgers.list(lane(1, 0).batch).await.expect("they are listed");
    assert_eq!(found.len(), 100);
}
