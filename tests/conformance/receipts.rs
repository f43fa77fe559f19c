//! Receipts count once, whatever comes how often in which order; parked ones keep their turn.

use smsfleet::model::id::{LaneKey, Msisdn, RecipientKey};
use smsfleet::model::receipt::{Delivery, Ending, Report, Rung, delivery};
use smsfleet::model::time::Timestamp;
use smsfleet::ports::receipts::{MatchedReport, ParkedReport, PartKey, UncertainEntry};

use super::fixture::{lane, over_all, part};

fn report(rung: Rung, raw: &str) -> Report {
    Report {
        message_id: "1a".into(),
        number: Some(Msisdn(8_613_800_138_000)),
        reference: None,
        rung,
        done: Some(5),
        error: "000".into(),
        raw: raw.into(),
        received: Timestamp(1_000),
    }
}

fn matched(lane: LaneKey, seq: u32, part: u8, rung: Rung, raw: &str) -> MatchedReport {
    let part = PartKey { recipient: RecipientKey { lane, seq }, part };
    MatchedReport { part, account: "a".into(), report: report(rung, raw) }
}

#[test]
fn a_report_is_new_once() {
    over_all(async |subject| {
        let receipts = subject.stores().receipts;
        let at = lane(1, 2);
        let first = vec![
            matched(at, 1, 0, Rung::EnRoute, "x"),
            matched(at, 1, 0, Rung::EnRoute, "x"),
            matched(at, 1, 0, Rung::EnRoute, "y"),
            matched(at, 1, 0, Rung::Delivered, "x"),
            matched(at, 1, 1, Rung::EnRoute, "x"),
            matched(at, 2, 0, Rung::EnRoute, "x"),
            matched(at, 1, 0, Rung::Ended(Ending::Expired), "x"),
            matched(at, 1, 0, Rung::Ended(Ending::Failed), "x"),
        ];
        let all = first.len();
        let new = receipts.record(first.clone()).await.expect("they are stored");
        assert_eq!(new, [true, false, true, true, true, true, true, true]);
        assert_eq!(receipts.record(first.clone()).await, Ok(vec![false; all]));
        assert_eq!(receipts.record(vec![]).await, Ok(vec![]));
        let subject = subject.restarted().await;
        let receipts = subject.stores().receipts;
        assert_eq!(receipts.record(first).await, Ok(vec![false; all]));
        assert_eq!(receipts.list(at, 0, 100).await.map(|all| all.len()), Ok(7));
    });
}

#[test]
fn parts_of_one_message_that_come_to_many_at_once_are_all_kept() {
    const RECIPIENTS: u32 = 50;
    over_all(async |subject| {
        let receipts = subject.stores().receipts;
        let at = lane(1, 2);
        // Each has two of the three parts of everybody, and nobody has all of them.
        let takers: Vec<_> = (0..6u8)
            .map(|taker| {
                let receipts = receipts.clone();
                tokio::spawn(async move {
                    let mut new = 0;
                    for seq in 0..RECIPIENTS {
                        let two = [taker % 3, (taker + 1) % 3].map(|part| matched(at, seq, part, Rung::Delivered, "d"));
                        new += receipts.record(two.into()).await.expect("stored").into_iter().filter(|new| *new).count();
                    }
                    new
                })
            })
            .collect();
        let mut new = 0;
        for taker in takers {
            new += taker.await.expect("no taker fails");
        }
        // Of two at once a cluster may tell both.
        assert!(new >= 3 * RECIPIENTS as usize, "each part was new to somebody: {new}");
        let listed = receipts.list(at, 0, 10 * RECIPIENTS as usize).await.expect("listed");
        assert_eq!(listed.len(), 3 * RECIPIENTS as usize, "each once");
        for seq in 0..RECIPIENTS {
            let of_one = listed.iter().filter(|matched| matched.part.recipient.seq == seq);
            let rungs: Vec<(u8, Rung)> = of_one.map(|matched| (matched.part.part, matched.report.rung)).collect();
            assert_eq!(delivery(3, &rungs, false, false, false), Delivery::Delivered, "{seq}: {rungs:?}");
        }
    });
}

#[test]
fn reports_are_listed_by_whole_recipients() {
    over_all(async |subject| {
        let receipts = subject.stores().receipts;
        let at = lane(1, 2);
        let mut all = vec![matched(lane(1, 1), 9, 0, Rung::EnRoute, "another lane")];
        for seq in [5, 1, 3] {
            for part in [1, 0] {
                all.push(matched(at, seq, part, Rung::Delivered, "d"));
                all.push(matched(at, seq, part, Rung::EnRoute, "e"));
            }
        }
        receipts.record(all).await.expect("they are stored");
        let listed = receipts.list(at, 0, 100).await.expect("they are listed");
        let order: Vec<(u32, u8, u8)> =
            listed.iter().map(|m| (m.part.recipient.seq, m.part.part, m.report.rung.height())).collect();
        let whole = |seq| [(seq, 0, 2), (seq, 0, 4), (seq, 1, 2), (seq, 1, 4)];
        assert_eq!(order, [whole(1), whole(3), whole(5)].concat());
        assert_eq!(listed[1], matched(at, 1, 0, Rung::Delivered, "d"));
        for (from, limit, recipients) in [(0, 1, vec![1]), (2, 4, vec![3]), (1, 5, vec![1, 3]), (6, 9, vec![]), (5, 0, vec![5])] {
            let mut seqs: Vec<u32> =
                receipts.list(at, from, limit).await.expect("listed").iter().map(|m| m.part.recipient.seq).collect();
            assert_eq!(seqs.len(), recipients.len() * 4, "from {from}, {limit}");
            seqs.dedup();
            assert_eq!(seqs, recipients);
        }
    });
}

fn parked(id: u64, due: Option<i64>, looks: u32) -> ParkedReport {
    let report = report(Rung::Delivered, &format!("raw {id}"));
    ParkedReport { id, account: "a".into(), report, due: due.map(Timestamp), looks }
}

#[test]
fn parked_reports_come_when_they_are_due_and_parking_again_replaces() {
    over_all(async |subject| {
        let store = subject.stores().parked;
        store.park(vec![parked(1, Some(300), 0), parked(2, Some(100), 0), parked(3, Some(200), 0)]).await.expect("parked");
        store.park(vec![parked(2, Some(250), 1), parked(2, Some(260), 2), parked(4, None, 9)]).await.expect("parked again");
        assert_eq!(store.counts().await, Ok((3, 1)));
        let ids = |due: Vec<ParkedReport>| due.iter().map(|parked| parked.id).collect::<Vec<_>>();
        assert_eq!(store.due(Timestamp(199), 9).await.map(ids), Ok(vec![]));
        assert_eq!(store.due(Timestamp(260), 9).await, Ok(vec![parked(3, Some(200), 0), parked(2, Some(260), 2)]));
        assert_eq!(store.due(Timestamp(i64::MAX), 2).await.map(ids), Ok(vec![3, 2]));
        let subject = subject.restarted().await;
        let store = subject.stores().parked;
        assert_eq!(store.counts().await, Ok((3, 1)));
        store.park(vec![parked(3, None, 5)]).await.expect("given up");
        store.remove(vec![1, 1, 77]).await.expect("removed");
        assert_eq!(store.counts().await, Ok((1, 2)));
        assert_eq!(store.due(Timestamp(i64::MAX), 9).await.map(ids), Ok(vec![2]));
        assert_eq!(store.unmatched(None, 9).await.map(ids), Ok(vec![3, 4]));
        assert_eq!(store.unmatched(Some(3), 9).await.map(ids), Ok(vec![4]));
        assert_eq!(store.unmatched(None, 1).await.map(ids), Ok(vec![3]));
        assert_eq!(store.unmatched(Some(u64::MAX), 1).await.map(ids), Ok(vec![]));
    });
}

#[test]
fn uncertain_recipients_are_found_by_account_and_number() {
    over_all(async |subject| {
        let index = subject.stores().receipt_index;
        let entry = |account: &str, number, seq| UncertainEntry {
            account: account.into(),
            number: Msisdn(number),
            part: part(1, seq),
            declared_at: Timestamp(5),
        };
        let all = vec![entry("a", 1, 10), entry("a", 1, 20), entry("a", 2, 30), entry("ab", 1, 40), entry("a", 1, 10)];
        index.put_uncertain(all).await.expect("they are stored");
        index.put_uncertain(vec![]).await.expect("nothing is stored");
        assert_eq!(index.uncertain("a", Msisdn(1)).await, Ok(vec![entry("a", 1, 10), entry("a", 1, 20)]));
        assert_eq!(index.uncertain("b", Msisdn(1)).await, Ok(vec![]));
    });
}
