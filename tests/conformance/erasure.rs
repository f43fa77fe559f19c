//! Erasing a number: what names it goes, everything else stays where it is.

use smsfleet::model::code::Code;
use smsfleet::model::id::{BatchId, Msisdn, RangeKey};
use smsfleet::model::pack::PackKey;
use smsfleet::model::receipt::{Report, Rung};
use smsfleet::model::record::{RangePlan, RangeRow, Reject, RejectKind};
use smsfleet::model::time::Timestamp;
use smsfleet::ports::Stores;
use smsfleet::ports::receipts::{MatchedReport, ParkedReport, UncertainEntry};

use super::fixture::{lane, over_all, part};
use super::packs::pack;

fn report(number: Option<Msisdn>, raw: &str) -> Report {
    Report {
        message_id: "m1".into(),
        number,
        reference: None,
        rung: Rung::Delivered,
        done: Some(5),
        error: "000".into(),
        raw: raw.into(),
        received: Timestamp(7),
    }
}

/// What is prepared belongs to a range of a plan: packs and rejects are found by it.
async fn planned(stores: &Stores, range: u32) {
    let key = RangeKey { batch: BatchId(1), range };
    stores.ranges.insert(key, &RangeRow::planned(RangePlan::default()), 1).await.expect("it is planned");
}

#[test]
fn messages_of_all_attempts_are_emptied_in_their_places() {
    over_all(async |subject| {
        let stores = subject.stores();
        let key = |attempt, n| PackKey { lane: lane(1, 9), range: 0, attempt, n };
        let keys = [key(1, 0), key(2, 0), key(2, 1)];
        // The first two packs hold the same numbers; the third others.
        let packs = vec![(keys[0], pack(0, 50)), (keys[1], pack(0, 50)), (keys[2], pack(1_000, 50))];
        planned(&stores, 0).await;
        stores.packs.put(packs.clone()).await.expect("they are stored");
        let number = pack(0, 50).messages[12].number;
        let found = stores.erasure.messages(lane(1, 9), number).await.expect("they are found");
        let expected = [(keys[0], 12, Some("c12".to_owned())), (keys[1], 12, Some("c12".to_owned()))];
        assert_eq!(found.into_iter().map(|found| (found.pack, found.index, found.code)).collect::<Vec<_>>(), expected);
        let other = pack(0, 50).messages[40].number;
        let both =
            tokio::join!(stores.erasure.erase_messages(lane(1, 9), number), stores.erasure.erase_messages(lane(1, 9), other),);
        assert_eq!(both, (Ok(2), Ok(2)), "two at once lose neither");
        assert_eq!(stores.erasure.erase_messages(lane(1, 9), number).await, Ok(0), "again is harmless");
        let subject = subject.restarted().await;
        let stores = subject.stores();
        for (key, before) in packs {
            let after = stores.packs.get(key).await.expect("it is read").expect("it is there");
            assert_eq!(stores.packs.head(key).await, Ok(Some(after.head())));
            assert_eq!(after.messages.len(), before.messages.len());
            for (at, (after, before)) in after.messages.iter().zip(&before.messages).enumerate() {
                if key != keys[2] && (at == 12 || at == 40) {
                    assert_eq!((after.number, after.body.as_str(), &after.link), (Msisdn::ERASED, "", &None));
                    let kept =
                        |message: &smsfleet::model::pack::Message| (message.record, message.line, message.segments, message.ucs2);
                    assert_eq!(kept(after), kept(before));
                } else {
                    assert_eq!(after, before);
                }
            }
        }
        assert_eq!(stores.erasure.messages(lane(1, 9), number).await, Ok(vec![]));
    });
}

#[test]
fn rejects_are_emptied_however_the_list_wrote_the_number() {
    over_all(async |subject| {
        let stores = subject.stores();
        let range = RangeKey { batch: BatchId(1), range: 2 };
        let reject = |record, number: &str| Reject {
            record,
            line: record + 2,
            kind: RejectKind::Rejected,
            code: Some(Code::RowMalformed),
            detail: "of somebody".into(),
            number: number.into(),
        };
        let piece = vec![reject(1, "+49 151 1234567"), reject(2, "0151/1234567"), reject(3, "+491511234568"), reject(4, "x")];
        planned(&stores, 2).await;
        stores.rejects.put(range, 1, 0, piece.clone()).await.expect("it is stored");
        assert_eq!(stores.erasure.erase_rejects(BatchId(1), Msisdn(491_511_234_567)).await, Ok(2));
        assert_eq!(stores.erasure.erase_rejects(BatchId(1), Msisdn(491_511_234_567)).await, Ok(0));
        let after = stores.rejects.get(range, 1, 0).await.expect("it is read");
        assert_eq!(after[2..], piece[2..]);
        for (after, before) in after.iter().zip(&piece).take(2) {
            assert_eq!((after.number.as_str(), after.detail.as_str()), ("", ""));
            assert_eq!(
                (after.record, after.line, after.kind, after.code),
                (before.record, before.line, before.kind, before.code)
            );
        }
    });
}

#[test]
fn reports_keep_what_they_say_and_lose_whom_they_name() {
    over_all(async |subject| {
        let stores = subject.stores();
        let number = Msisdn(491_511_234_567);
        let matched =
            |seq, raw: &str| MatchedReport { part: part(1, seq), account: "a".into(), report: report(Some(number), raw) };
        stores
            .receipts
            .record(vec![matched(4, "to 491511234567"), matched(4, "again 491511234567"), matched(5, "x")])
            .await
            .expect("ok");
        let recipient = part(1, 4).recipient;
        assert_eq!(stores.erasure.erase_reports(recipient).await, Ok(2));
        assert_eq!(stores.erasure.erase_reports(recipient).await, Ok(0));
        assert_eq!(
            stores.receipts.record(vec![matched(4, "to 491511234567")]).await,
            Ok(vec![false]),
            "it is known all the same"
        );
        let after = stores.receipts.list(lane(1, 3), 0, 10).await.expect("they are read");
        assert_eq!(after.len(), 3);
        for matched in after.iter().filter(|matched| matched.part.recipient == recipient) {
            assert_eq!(matched.report, Report { raw: String::new(), ..report(None, "") });
        }
        assert!(after.contains(&matched(5, "x")), "nobody else's are touched");
    });
}

#[test]
fn what_stands_outside_batches_is_found_and_removed() {
    over_all(async |subject| {
        let stores = subject.stores();
        let (mine, other) = (Msisdn(491_511_234_567), Msisdn(491_511_234_568));
        let entry = |account: &str, number| UncertainEntry {
            account: account.into(),
            number,
            part: part(1, 4),
            declared_at: Timestamp(3),
        };
        let entries = vec![entry("a", mine), entry("bb", mine), entry("a", other)];
        stores.receipt_index.put_uncertain(entries.clone()).await.expect("they are stored");
        let parked =
            |id, number, raw: &str, due| ParkedReport { id, account: "a".into(), report: report(number, raw), due, looks: 1 };
        let parked = vec![
            parked(1, Some(mine), "x", Some(Timestamp(9))),
            parked(2, None, "to:491511234567 stat:DELIVRD", None),
            parked(3, Some(other), "y", None),
        ];
        stores.parked.park(parked.clone()).await.expect("they are parked");
        let found = stores.erasure.of_number(mine).await.expect("they are found");
        assert_eq!((found.uncertain, found.parked), (entries[..2].to_vec(), parked[..2].to_vec()));
        assert_eq!(stores.erasure.erase_of_number(mine).await, Ok((2, 2)));
        assert_eq!(stores.erasure.erase_of_number(mine).await, Ok((0, 0)));
        assert_eq!(stores.parked.counts().await, Ok((0, 1)));
        assert_eq!(stores.receipt_index.uncertain("a", other).await, Ok(entries[2..].to_vec()));
        assert_eq!(stores.receipt_index.uncertain("bb", mine).await, Ok(vec![]));
    });
}
