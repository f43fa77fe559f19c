//! Room that deletes leave within the database: it counts, while the store runs and when it is started.

use smsfleet::adapters::embedded::EmbeddedStore;
use smsfleet::adapters::embedded::engine::disk::Disks;
use smsfleet::model::id::BatchId;
use smsfleet::model::pack::PackKey;
use smsfleet::ports::StoreError;
use smsfleet::ports::retention::Kind;

use super::fixture::{lane, small_options};
use super::packs::pack;
use super::troubled::{SmallDisk, note, open_on};

/// Messages in a pack of these tests: about 30 KB.
const PACK: u64 = 1_500;

/// Stores packs of two batches in turn until one is refused for want of room; gives back how many were stored.
async fn fill(store: &EmbeddedStore, from: u32) -> u32 {
    for n in from..100_000 {
        let key = PackKey { lane: lane(1 + u128::from(n % 2), 0), range: 0, attempt: 1, n };
        match store.stores().packs.put(vec![(key, pack(u64::from(n), PACK))]).await {
            Ok(()) => {}
            Err(StoreError::Full(_)) => return n - from,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the disk never became full");
}

#[tokio::test]
async fn what_is_deleted_makes_room_while_it_runs_and_at_a_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = SmallDisk::new(8 << 20);
    let store = open_on(folder.path(), &disk, small_options()).await;
    let first = fill(&store, 0).await;
    assert!(first > 50, "{first}");
    store.stores().retention.drop_batch(BatchId(1), Kind::Texts).await.expect("it is deleted");
    let free_on_disk = disk.free_bytes();
    assert_eq!(store.stores().meta.room().await, Ok(()), "{free_on_disk} bytes of the disk are free");
    let second = fill(&store, first).await;
    println!("{first} packs, then {second}; {free_on_disk} bytes were free on the disk");
    assert!(second > first / 4, "{second} after {first}, of which half were deleted");
    // What was counted too much never reaches what is kept for control rows.
    assert!(disk.free_bytes() > small_options().min_free_bytes / 2, "{} bytes are free", disk.free_bytes());
    note(&store.stores(), "control").await.expect("there is room for control rows");

    store.stores().retention.drop_batch(BatchId(1), Kind::Texts).await.expect("it is deleted");
    drop(store);
    // Somebody else took what is free: what a start finds within the database is all the room there is.
    disk.leave_free(small_options().min_free_bytes / 2);
    let store = open_on(folder.path(), &disk, small_options()).await;
    let free_on_disk = disk.free_bytes();
    assert_eq!(store.stores().meta.room().await, Ok(()), "{free_on_disk} bytes of the disk are free");
    let third = fill(&store, first + second).await;
    println!("then {third}; {free_on_disk} bytes were free on the disk");
    assert!(third > second / 4, "{third} after {second}, of which half were deleted");
}
