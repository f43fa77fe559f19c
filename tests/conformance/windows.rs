//! Windows: answers replaced by their declarer, judgements beside them, retry packs by name.

use smsfleet::model::answer::{Answer, NotNow};
use smsfleet::model::code::Code;
use smsfleet::model::id::{LaneKey, WindowKey, WorkerId};
use smsfleet::model::ledger::OpenWindow;
use smsfleet::model::time::Timestamp;
use smsfleet::model::window::{Answered, Judgement, RetryEntry, RetryPack, WindowRow};

use super::fixture::{lane, over_all};

pub fn window_row(window: u64, answers: u32, at: i64) -> WindowRow {
    let answer = |seq: u32| match seq % 4 {
        0 => Answer::Failed { code: Code::ProviderRefused, detail: "0x0000000B".into() },
        1 => Answer::NotNow { kind: NotNow::Throttled, detail: "0x00000058".into() },
        _ => Answer::Accepted { id: format!("{seq:08x}").into() },
    };
    WindowRow {
        window: OpenWindow {
            window,
            leg: 0,
            from: 0,
            to: 2_000,
            account: "a".into(),
            declarer: WorkerId(4),
            declared_at: Timestamp(at),
            send_by: Timestamp(at + 10_000),
        },
        answers: (0..answers).map(|seq| Answered { seq, part: 0, parts: 1, answer: answer(seq) }).collect(),
        complete: answers == 2_000,
    }
}

fn key(lane: LaneKey, window: u64) -> WindowKey {
    WindowKey { lane, window }
}

#[test]
fn a_later_row_replaces_and_a_judgement_stands_beside_it() {
    over_all(async |subject| {
        let windows = subject.stores().windows;
        let (place, judgement) = (lane(1, 2), |window| Judgement {
            window: window_row(window, 0, 5).window,
            judged_at: Timestamp(20_000),
            unanswered: vec![7, 8],
        });
        assert_eq!(windows.get(key(place, 3)).await, Ok(None));
        windows.put(key(place, 3), &window_row(3, 100, 5), vec![]).await.expect("it is stored");
        windows.put(key(place, 3), &window_row(3, 2_000, 5), vec![]).await.expect("it is replaced");
        windows.put_judgement(key(place, 3), &judgement(3)).await.expect("it is judged");
        windows.put_judgement(key(place, 9), &judgement(9)).await.expect("a window without an answer is judged too");
        let subject = subject.restarted().await;
        let windows = subject.stores().windows;
        let stored = windows.get(key(place, 3)).await.expect("it is read").expect("it is there");
        assert_eq!((stored.row, stored.judgement), (Some(window_row(3, 2_000, 5)), Some(judgement(3))));
        let judged = windows.get(key(place, 9)).await.expect("it is read").expect("it is there");
        assert_eq!((judged.row, judged.judgement), (None, Some(judgement(9))));
        assert_eq!(windows.get(key(place, 4)).await, Ok(None), "the next window is another one");
    });
}

#[test]
fn windows_of_a_lane_come_in_the_order_of_their_names() {
    over_all(async |subject| {
        let windows = subject.stores().windows;
        for window in [300, 2, 70_000, 1] {
            windows.put(key(lane(1, 2), window), &window_row(window, 3, 0), vec![]).await.expect("it is stored");
        }
        windows.put(key(lane(1, 3), 4), &window_row(4, 3, 0), vec![]).await.expect("another lane's");
        windows.put(key(lane(1, 1), 4), &window_row(4, 3, 0), vec![]).await.expect("another lane's");
        let names = |found: Vec<smsfleet::ports::windows::StoredWindow>| -> Vec<u64> {
            found.iter().map(|stored| stored.key.window).collect()
        };
        assert_eq!(windows.list(lane(1, 2), 0, 9).await.map(names), Ok(vec![1, 2, 300, 70_000]));
        assert_eq!(windows.list(lane(1, 2), 2, 2).await.map(names), Ok(vec![2, 300]));
        assert_eq!(windows.list(lane(1, 2), 70_001, 2).await.map(names), Ok(vec![]));
        assert_eq!(windows.list(lane(1, 4), 0, 2).await.map(names), Ok(vec![]));
    });
}

#[test]
fn retry_packs_are_found_by_name() {
    over_all(async |subject| {
        let windows = subject.stores().windows;
        let pack = RetryPack { entries: vec![RetryEntry { seq: 9, tries: 2, parts: 0b101, round: 1 }] };
        windows.put_retry(lane(1, 2), u64::MAX, &pack).await.expect("it is stored");
        assert_eq!(windows.retry(lane(1, 2), u64::MAX).await, Ok(Some(pack)));
        assert_eq!(windows.retry(lane(1, 2), 1).await, Ok(None));
        assert_eq!(windows.retry(lane(1, 3), u64::MAX).await, Ok(None));
    });
}
