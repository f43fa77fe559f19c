//! What was erased stays so, whoever writes late and whoever erases at the same time.

use smsfleet::adapters::rows::{pack as rows, receipt};
use smsfleet::model::id::{BatchId, LaneKey, Msisdn, RangeKey};
use smsfleet::model::pack::PackKey;
use smsfleet::model::receipt::{Report, Rung};
use smsfleet::model::record::{RangePlan, RangeRow, Reject, RejectKind};
use smsfleet::model::time::Timestamp;
use smsfleet::ports::Stores;
use smsfleet::ports::receipts::MatchedReport;

use crate::conformance::fixture::{Keyspace, lane, part};
use crate::conformance::packs::pack;

const PLACE: LaneKey = LaneKey { batch: BatchId(1), lane: 9 };
const KEY: PackKey = PackKey { lane: PLACE, range: 0, attempt: 1, n: 0 };

async fn planned(stores: &Stores) {
    let range = RangeKey { batch: BatchId(1), range: 0 };
    stores.ranges.insert(range, &RangeRow::planned(RangePlan::default()), 1).await.expect("it is planned");
}

/// The numbers and texts in the bytes of the pack, marks aside.
async fn bytes(keyspace: &Keyspace) -> Vec<(u64, String)> {
    let rows: Vec<(Vec<u8>, Vec<u8>)> = keyspace.rows("SELECT head, texts FROM sms_delivery_pack").await;
    let (head, texts) = &rows[0];
    let pack = rows::read(head, texts).expect("it can be read");
    pack.messages.into_iter().map(|message| (message.number.0, message.body)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_erasures_of_one_pack_at_once_lose_none() {
    let keyspace = Keyspace::empty().await;
    let (one, other) = (keyspace.connect().await.stores(), keyspace.connect().await.stores());
    planned(&one).await;
    one.packs.put(vec![(KEY, pack(0, 60))]).await.expect("it is stored");
    let numbers: Vec<Msisdn> = pack(0, 60).messages.iter().map(|message| message.number).collect();
    let erasures: Vec<_> = (0..24usize)
        .map(|at| {
            let (stores, number) = (if at % 2 == 0 { one.clone() } else { other.clone() }, numbers[at * 2]);
            tokio::spawn(async move {
                // Whoever is told to erase again does.
                for _ in 0..20 {
                    if stores.erasure.erase_messages(PLACE, number).await.is_ok() {
                        return;
                    }
                }
                panic!("it never comes to rest");
            })
        })
        .collect();
    for erasure in erasures {
        erasure.await.expect("no erasure fails");
    }
    let seen = one.packs.get(KEY).await.expect("it is read").expect("it is there");
    for (at, (number, body)) in bytes(&keyspace).await.into_iter().enumerate() {
        let is_erased = at % 2 == 0 && at < 48;
        assert_eq!(number == 0 && body.is_empty(), is_erased, "{at} in the bytes");
        assert_eq!(seen.messages[at].number.is_erased(), is_erased, "{at} as it is read");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_write_of_a_pack_brings_nobody_back() {
    let keyspace = Keyspace::empty().await;
    let stores = keyspace.connect().await.stores();
    planned(&stores).await;
    let number = pack(0, 20).messages[7].number;
    stores.packs.put(vec![(KEY, pack(0, 20))]).await.expect("it is stored");
    assert_eq!(stores.erasure.erase_messages(PLACE, number).await, Ok(1));
    // The preparer, frozen in its put until now, by another process and with a later timestamp.
    let late = keyspace.connect().await.stores();
    late.packs.put(vec![(KEY, pack(0, 20))]).await.expect("it is stored");
    let seen = stores.packs.get(KEY).await.expect("it is read").expect("it is there");
    assert_eq!((seen.messages[7].number, seen.messages[7].body.as_str(), &seen.messages[7].link), (Msisdn::ERASED, "", &None));
    assert_eq!(seen.messages[8], pack(0, 20).messages[8]);
    assert_eq!(stores.packs.head(KEY).await, Ok(Some(seen.head())));
    assert_eq!(stores.erasure.messages(PLACE, number).await, Ok(vec![]));
    // Whoever erases again cleans the bytes too.
    assert_eq!(bytes(&keyspace).await[7].0, number.0);
    assert_eq!(stores.erasure.erase_messages(PLACE, number).await, Ok(0));
    assert_eq!(bytes(&keyspace).await[7], (0, String::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_write_of_rejects_brings_nobody_back() {
    let keyspace = Keyspace::empty().await;
    let stores = keyspace.connect().await.stores();
    planned(&stores).await;
    let range = RangeKey { batch: BatchId(1), range: 0 };
    let reject = |record, number: &str| Reject {
        record,
        line: record + 1,
        kind: RejectKind::Suppressed,
        code: None,
        detail: "d".into(),
        number: number.into(),
    };
    let piece = vec![reject(1, "+491511234567"), reject(2, "+491511234568")];
    stores.rejects.put(range, 1, 0, piece.clone()).await.expect("it is stored");
    assert_eq!(stores.erasure.erase_rejects(BatchId(1), Msisdn(491_511_234_567)).await, Ok(1));
    stores.rejects.put(range, 1, 0, piece.clone()).await.expect("it is stored again");
    let seen = stores.rejects.get(range, 1, 0).await.expect("it is read");
    assert_eq!((seen[0].number.as_str(), seen[0].detail.as_str(), &seen[1]), ("", "", &piece[1]));
    assert_eq!(stores.erasure.erase_rejects(BatchId(1), Msisdn(491_511_234_567)).await, Ok(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_recorder_brings_nobody_back() {
    let keyspace = Keyspace::empty().await;
    let stores = keyspace.connect().await.stores();
    let report = Report {
        message_id: "m".into(),
        number: Some(Msisdn(491_511_234_567)),
        reference: None,
        rung: Rung::Delivered,
        done: None,
        error: String::new(),
        raw: "to 491511234567".into(),
        received: Timestamp(3),
    };
    let matched = MatchedReport { part: part(1, 4), account: "a".into(), report: report.clone() };
    stores.receipts.record(vec![matched.clone()]).await.expect("it is stored");
    assert_eq!(stores.erasure.erase_reports(matched.part.recipient).await, Ok(1));
    // Another recorder of the same report, which had found it new, writes its row only now.
    let body: String = receipt::write("a", &report).iter().map(|byte| format!("{byte:02x}")).collect();
    let keys: Vec<(i32, i64)> = keyspace.rows("SELECT rung, digest FROM receipt").await;
    let (rung, digest) = keys[0];
    let text = format!(
        "INSERT INTO receipt (batch_id, lane, bucket, seq, part, rung, digest, body) \
         VALUES (0x{:032x}, 3, 0, 4, 0, {rung}, {digest}, 0x{body})",
        1
    );
    keyspace.run(&text).await;
    let listed = stores.receipts.list(lane(1, 3), 0, 9).await.expect("they are listed");
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].report, Report { number: None, raw: String::new(), ..report });
    assert_eq!(stores.receipts.record(vec![matched]).await, Ok(vec![false]), "and it is known all the same");
}
