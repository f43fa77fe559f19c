//! The store's facts and its mark.

use std::sync::Arc;

use smsfleet::adapters::memory::store::MemoryStore;
use smsfleet::adapters::system::SeededChance;
use smsfleet::ports::StoreError;

use super::fixture::over_all;

#[test]
fn the_mark_grows_and_facts_stay() {
    over_all(async |subject| {
        let meta = subject.stores().meta;
        assert_eq!(meta.check_mark().await, Ok(Ok(())), "a new store is not a restored one");
        for mark in 1..4 {
            assert_eq!(meta.raise_mark().await, Ok(mark));
        }
        assert_eq!(meta.get("id_form.a").await, Ok(None));
        meta.put("id_form.a", "same").await.expect("it is stored");
        meta.put("id_form.a", "hex_then_decimal").await.expect("it is replaced");
        let subject = subject.restarted().await;
        let meta = subject.stores().meta;
        assert_eq!(meta.check_mark().await, Ok(Ok(())));
        assert_eq!(meta.raise_mark().await, Ok(4));
        assert_eq!(meta.get("id_form.a").await, Ok(Some("hex_then_decimal".into())));
    });
}

#[tokio::test]
async fn a_restored_store_is_noticed_until_it_is_accepted() {
    let store = MemoryStore::new(Arc::new(SeededChance::from_seed(1)));
    store.stores().meta.raise_mark().await.expect("a mark");
    let backup = store.snapshot();
    store.stores().meta.raise_mark().await.expect("a mark");
    let restored = store.restore(backup).expect("it opens");
    let meta = restored.stores().meta;
    assert!(matches!(meta.check_mark().await, Ok(Err(why)) if why.contains("restored")));
    assert!(matches!(meta.raise_mark().await, Err(StoreError::Unavailable(_))), "that would wipe out the trace");
    assert!(matches!(meta.check_mark().await, Ok(Err(_))));
    meta.accept().await.expect("it is accepted");
    assert_eq!(meta.check_mark().await, Ok(Ok(())));
    assert_eq!(meta.raise_mark().await, Ok(4), "behind what was reached before the restore");
}

/// A later backup, put back after an earlier one was accepted, is older than what was sent since, whatever was reached.
#[tokio::test]
async fn a_second_restore_is_noticed_as_the_first_was() {
    let store = MemoryStore::new(Arc::new(SeededChance::from_seed(1)));
    let raise = async |store: &MemoryStore, times: usize| {
        for _ in 0..times {
            store.stores().meta.raise_mark().await.expect("a mark");
        }
        store.snapshot()
    };
    let first = raise(&store, 5).await;
    let second = raise(&store, 3).await;
    raise(&store, 2).await;
    let store = store.restore(first).expect("it opens");
    store.stores().meta.accept().await.expect("it is accepted");
    raise(&store, 1).await;
    let store = store.restore(second).expect("it opens");
    let found = store.stores().meta.check_mark().await;
    assert!(matches!(&found, Ok(Err(why)) if why.contains("restored")), "{found:?}");
}
