//! Packs, rejects and manifests: written once, read whole or not at all.

use smsfleet::adapters::embedded::engine::Table;
use smsfleet::adapters::memory::store::MemoryStore;
use smsfleet::adapters::rows::key;
use smsfleet::adapters::system::SeededChance;
use smsfleet::model::code::Code;
use smsfleet::model::id::{BatchId, Msisdn, RangeKey};
use smsfleet::model::pack::{LinkSpot, Manifest, ManifestPack, Message, PackKey, SmsDeliveryPack};
use smsfleet::model::record::{Reject, RejectKind};
use smsfleet::ports::StoreError;
use smsfleet::ports::control::Cas;

use super::fixture::{lane, over_all};

pub fn pack(first: u64, count: u64) -> SmsDeliveryPack {
    let message = |n: u64| Message {
        number: Msisdn(8_613_800_000_000 + first + 7 * n),
        record: first + n * 3 % 11,
        line: first + n,
        body: format!("Dear customer {n}, your parcel waits for you until {first}"),
        link: n.is_multiple_of(3).then(|| LinkSpot { at: 4, code: format!("c{n}") }),
        segments: 1 + (n % 2) as u8,
        ucs2: n.is_multiple_of(5),
    };
    SmsDeliveryPack { messages: (0..count).map(message).collect() }
}

fn key_of(range: u32, attempt: u32, n: u32) -> PackKey {
    PackKey { lane: lane(1, 9), range, attempt, n }
}

#[test]
fn packs_and_their_heads_read_back() {
    over_all(async |subject| {
        let packs = subject.stores().packs;
        // Enough for several commits.
        let many: Vec<(PackKey, SmsDeliveryPack)> = (0..40).map(|n| (key_of(0, 1, n), pack(u64::from(n), 1_024))).collect();
        packs.put(many.clone()).await.expect("they are stored");
        packs.put(vec![(key_of(0, 2, 0), pack(99, 1))]).await.expect("another attempt is stored apart");
        packs.put(vec![]).await.expect("nothing is stored");
        packs.put(many.clone()).await.expect("storing again is harmless");
        let subject = subject.restarted().await;
        let packs = subject.stores().packs;
        for (key, pack) in &many {
            assert_eq!(packs.head(*key).await, Ok(Some(pack.head())));
            assert_eq!(packs.get(*key).await.expect("it is read").as_deref(), Some(pack));
        }
        assert_eq!(packs.get(key_of(0, 2, 0)).await.expect("it is read").map(|pack| pack.messages.len()), Some(1));
        assert_eq!(packs.get(key_of(1, 1, 0)).await, Ok(None));
        assert_eq!(packs.head(key_of(1, 1, 0)).await, Ok(None));
    });
}

#[tokio::test]
async fn a_damaged_pack_is_noticed_and_its_neighbours_are_read() {
    let store = MemoryStore::new(std::sync::Arc::new(SeededChance::from_seed(1)));
    let packs = store.stores().packs;
    packs.put(vec![(key_of(0, 1, 0), pack(0, 50)), (key_of(0, 1, 1), pack(9, 50))]).await.expect("they are stored");
    assert!(store.engine().damage(Table::PackText, &key::pack(key_of(0, 1, 0)), |row| row[40] ^= 1));
    assert!(matches!(packs.get(key_of(0, 1, 0)).await, Err(StoreError::Corrupt(_))));
    assert_eq!(packs.head(key_of(0, 1, 0)).await, Ok(Some(pack(0, 50).head())), "its numbers are in another row");
    assert_eq!(packs.get(key_of(0, 1, 1)).await.expect("it is read").as_deref(), Some(&pack(9, 50)));
    assert!(store.engine().damage(Table::PackHead, &key::pack(key_of(0, 1, 1)), |row| row.truncate(20)));
    assert!(matches!(packs.head(key_of(0, 1, 1)).await, Err(StoreError::Corrupt(_))));
}

#[test]
fn rejects_are_kept_by_attempt_and_piece() {
    over_all(async |subject| {
        let rejects = subject.stores().rejects;
        let range = RangeKey { batch: BatchId(1), range: 2 };
        let reject = |record, code: Option<Code>| Reject {
            record,
            line: record + 2,
            kind: if code.is_some() { RejectKind::Rejected } else { RejectKind::Suppressed },
            code,
            detail: "has 3 fields".into(),
            number: "13x".into(),
        };
        let pieces = [vec![reject(1, Some(Code::RowMalformed)), reject(5, None)], vec![reject(9, Some(Code::RowTextEmpty))]];
        for (n, piece) in pieces.iter().enumerate() {
            rejects.put(range, 1, n as u32, piece.clone()).await.expect("it is stored");
        }
        for (n, piece) in pieces.iter().enumerate() {
            assert_eq!(rejects.get(range, 1, n as u32).await.as_ref(), Ok(piece));
        }
        assert_eq!(rejects.get(range, 1, 2).await, Ok(vec![]));
        assert_eq!(rejects.get(range, 2, 0).await, Ok(vec![]));
    });
}

#[test]
fn a_manifest_is_written_once() {
    over_all(async |subject| {
        let manifests = subject.stores().manifests;
        let manifest = |count| Manifest {
            packs: vec![ManifestPack { range: 0, attempt: 1, n: 0, first_seq: 0, count }],
            strikes: vec![1, 5],
            ..Manifest::default()
        };
        assert_eq!(manifests.get(lane(1, 0)).await, Ok(None));
        assert_eq!(manifests.put(lane(1, 0), &manifest(10)).await, Ok(Cas::Applied));
        assert_eq!(manifests.put(lane(1, 0), &manifest(11)).await, Ok(Cas::Refused));
        assert_eq!(manifests.get(lane(1, 0)).await.expect("it is read").as_deref(), Some(&manifest(10)));
        assert_eq!(manifests.get(lane(1, 1)).await, Ok(None));
    });
}
