//! A batch made by hand with every outcome in it, counted and listed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::fakes::Fake;
use super::recipients::places_of;
use super::walk::{History, Lane};
use super::*;
use crate::model::account::{Account, Capabilities, LongMessage, ReceiptRules};
use crate::model::answer::{Answer, NotNow};
use crate::model::batch::{BatchRow, SealedPlan, tests::batch};
use crate::model::code::Code;
use crate::model::id::{BatchId, LaneKey, Msisdn, RangeKey, RecipientKey, WindowKey, WorkerId};
use crate::model::lane::lane_of;
use crate::model::ledger::{Ledger, OpenWindow};
use crate::model::outcome::Outcome;
use crate::model::pack::{Manifest, ManifestPack, Message, PackKey, SmsDeliveryPack};
use crate::model::receipt::{Delivery, Ending, Report, Rung};
use crate::model::record::{RangePlan, RangeRow, RangeState, RangeTotals, Reject, RejectKind};
use crate::model::report::Settlement;
use crate::model::state::StepState;
use crate::model::step::CurrentStep;
use crate::model::time::Timestamp;
use crate::model::window::{Answered, Judgement, RetryEntry, RetryPack, WindowRow};
use crate::ports::receipts::{MatchedReport, PartKey, UNKNOWN_PART};
use crate::ports::windows::StoredWindow;

pub(crate) const LANE: LaneKey = LaneKey { batch: BatchId(7), lane: 0 };
const NOW: Timestamp = Timestamp(1_000_000);

/// Builds a batch of one lane.
pub(crate) struct Hand {
    pub fake: Fake,
    pub row: BatchRow,
    pub accounts: BTreeMap<String, Account>,
    window: u64,
}

impl Hand {
    /// A sealed and ended batch of `people` recipients in packs of three, with `rejected` and `suppressed` records.
    pub fn new(people: u32, rejected: u64, suppressed: u64, strikes: Vec<u32>) -> Hand {
        let fake = Fake::default();
        let mut row = BatchRow::created(batch(), String::new(), Timestamp(0));
        row.records = u64::from(people) + rejected + suppressed;
        (row.lanes, row.ranges, row.current_step) = (1, 1, CurrentStep::Delivery);
        row.sealed = Some(SealedPlan::default());
        row.delivery.state = StepState::CompletedSucceeded;
        let mut packs = vec![];
        for (n, first) in (0..people).step_by(3).enumerate() {
            let count = 3.min(people - first);
            packs.push(ManifestPack { range: 0, attempt: 1, n: n as u32, first_seq: first, count });
            let messages = (first..first + count).map(message).collect();
            let key = PackKey { lane: LANE, range: 0, attempt: 1, n: n as u32 };
            fake.rows().packs.insert(key, Some(SmsDeliveryPack { messages }));
        }
        let manifest = Manifest { packs, strikes, ..Manifest::default() };
        let ledger = Ledger { legs: vec![], ..Ledger::sealed(people) };
        let totals = RangeTotals { rejected: vec![(Code::RowNumberInvalid, rejected)], suppressed, ..RangeTotals::default() };
        let range = RangeKey { batch: BatchId(7), range: 0 };
        let done = RangeState::Done(Box::new(totals));
        let reject = |kind, code| Reject { record: 0, line: 2, kind, code, detail: "".into(), number: "12".into() };
        let rejects = (0..rejected)
            .map(|_| reject(RejectKind::Rejected, Some(Code::RowNumberInvalid)))
            .chain((0..suppressed).map(|_| reject(RejectKind::Suppressed, None)))
            .collect();
        {
            let mut rows = fake.rows();
            rows.manifests.insert(LANE, manifest);
            rows.ledgers.insert(LANE, ledger);
            rows.ranges.insert(range, RangeRow { attempt: 1, state: done, ..RangeRow::planned(RangePlan::default()) });
            rows.rejects.insert((range, 1, 0), rejects);
            rows.batches.insert(BatchId(7), row.clone());
        }
        let mut accounts = BTreeMap::new();
        for (name, long_message) in [("a", LongMessage::Udh8), ("p", LongMessage::Payload)] {
            accounts.insert(name.to_owned(), account(name, long_message));
        }
        Hand { fake, row, accounts, window: 1 }
    }

    /// A window with answers of account `a`.
    pub fn answers(&mut self, answers: Vec<(u32, u8, u8, Answer)>) {
        self.window_of("a", answers, None);
    }

    fn window_of(&mut self, account: &str, answers: Vec<(u32, u8, u8, Answer)>, unanswered: Option<Vec<u32>>) {
        self.window += 1;
        let key = WindowKey { lane: LANE, window: self.window };
        let window = open_window(self.window, 0, 0, 1, account);
        let answers = answers.into_iter().map(|(seq, part, parts, answer)| Answered { seq, part, parts, answer }).collect();
        let judgement = unanswered.map(|unanswered| Judgement { window: window.clone(), judged_at: NOW, unanswered });
        let row = Some(WindowRow { window, answers, complete: judgement.is_none() });
        self.fake.rows().windows.insert(key, StoredWindow { key, row, judgement });
    }

    pub fn receipt(&mut self, seq: u32, part: u8, rung: Rung) {
        self.receipt_of("1", seq, part, rung);
    }

    fn receipt_of(&mut self, id: &str, seq: u32, part: u8, rung: Rung) {
        let report = Report {
            message_id: id.into(),
            number: None,
            reference: None,
            rung,
            done: None,
            error: String::new(),
            raw: String::new(),
            received: NOW,
        };
        let part = PartKey { recipient: RecipientKey { lane: LANE, seq }, part };
        let matched = MatchedReport { part, account: "a".into(), report };
        self.fake.rows().receipts.entry(LANE).or_default().push(matched);
    }

    async fn count(&self, now: Timestamp) -> Settlement {
        recount(&self.fake.stores(), &self.row, &self.accounts, now).await.expect("the fake answers")
    }

    async fn list(&self, filter: RecipientFilter) -> Vec<RecipientLine> {
        self.pages(filter).await.concat()
    }

    async fn pages(&self, filter: RecipientFilter) -> Vec<Vec<RecipientLine>> {
        let accounts = Arc::new(self.accounts.clone());
        let pages = RecipientPages::new(self.fake.stores(), self.row.clone(), accounts, filter, NOW).await;
        let (mut pages, mut all) = (pages.expect("the fake answers"), vec![]);
        while let Some(page) = pages.next().await.expect("the fake answers") {
            all.push(page);
        }
        all
    }
}

pub(super) fn account(name: &str, long_message: LongMessage) -> Account {
    Account {
        name: name.into(),
        provider_type: "smpp".into(),
        rate: None,
        capabilities: Capabilities { long_message, ..Capabilities::default() },
        receipts: ReceiptRules { wait: Duration::from_secs(60), ..ReceiptRules::default() },
        price: Some(0.5),
        currency: "EUR".into(),
        hours: None,
        answer_timeout: Duration::from_secs(10),
        sender: String::new(),
        opt_out: Default::default(),
    }
}

fn message(seq: u32) -> Message {
    let number = Msisdn(8_613_800_000_000 + u64::from(seq));
    Message {
        number,
        record: u64::from(seq),
        line: u64::from(seq) + 2,
        body: format!("text {seq}"),
        link: None,
        // Of several parts only where no late receipt has to settle the message alone.
        segments: if [0, 1, 3, 5].contains(&seq) { 2 } else { 1 },
        ucs2: false,
    }
}

fn open_window(window: u64, leg: u64, from: u32, to: u32, account: &str) -> OpenWindow {
    let (declared_at, send_by) = (NOW, NOW.plus(Duration::from_secs(10)));
    OpenWindow { window, leg, from, to, account: account.into(), declarer: WorkerId(1), declared_at, send_by }
}

fn ok() -> Answer {
    Answer::Accepted { id: "1".into() }
}

fn refused(detail: &str) -> Answer {
    Answer::Failed { code: Code::ProviderRefused, detail: detail.into() }
}

/// Nine recipients, one of each kind.
fn one_of_each() -> Hand {
    let mut hand = Hand::new(9, 2, 1, vec![8]);
    let later = Answer::NotNow { kind: NotNow::Throttled, detail: "".into() };
    hand.answers(vec![(0, 0, 1, ok()), (1, 0, 1, refused("0x0B")), (2, 0, 1, Answer::NoAnswer), (3, 0, 1, Answer::Expired)]);
    hand.answers(vec![(4, 0, 1, Answer::Suppressed), (5, 0, 2, ok()), (5, 1, 2, later), (6, 0, 1, Answer::NoAnswer)]);
    hand.answers(vec![(5, 1, 2, ok())]);
    hand.fake.rows().ledgers.insert(LANE, Ledger::sealed(9).fence_closed(1).expect("fenced"));
    hand.receipt(0, 0, Rung::Delivered);
    hand.receipt(5, 0, Rung::Delivered);
    hand.receipt(5, 1, Rung::Ended(Ending::Failed));
    hand.receipt(6, 0, Rung::EnRoute);
    hand
}

#[tokio::test]
async fn whoever_waits_for_the_first_lines_does_not_wait_for_a_whole_pack() {
    let hand = Hand::new(600, 0, 0, vec![]);
    {
        let mut rows = hand.fake.rows();
        let packs = vec![ManifestPack { range: 0, attempt: 1, n: 0, first_seq: 0, count: 600 }];
        let key = PackKey { lane: LANE, range: 0, attempt: 1, n: 0 };
        rows.packs.insert(key, Some(SmsDeliveryPack { messages: (0..600).map(message).collect() }));
        rows.manifests.insert(LANE, Manifest { packs, ..Manifest::default() });
    }
    let pages = hand.pages(RecipientFilter::default()).await;
    let sizes: Vec<usize> = pages.iter().map(Vec::len).filter(|size| *size > 0).collect();
    assert_eq!(sizes, [32, 64, 128, 256, 120]);
}

#[tokio::test]
async fn every_record_is_counted_in_exactly_one_outcome() {
    let hand = one_of_each();
    let settlement = hand.count(NOW).await;
    assert_eq!(settlement.unaccounted(), 0, "{settlement:?}");
    let expected = [
        (Outcome::Accepted, 3),
        (Outcome::Failed, 1),
        (Outcome::Uncertain, 1),
        (Outcome::Expired, 1),
        (Outcome::Canceled, 1),
        (Outcome::Rejected, 2),
        (Outcome::Duplicate, 1),
        (Outcome::Suppressed, 2),
        (Outcome::Open, 0),
    ];
    for (outcome, records) in expected {
        assert_eq!(settlement.of(outcome), records, "{outcome:?} in {settlement:?}");
    }
    assert_eq!(settlement.failed, BTreeMap::from([("SF-5001 0x0B".to_owned(), 1)]));
    assert_eq!(settlement.rejected, BTreeMap::from([("SF-2002".to_owned(), 2)]));
    assert_eq!(settlement.deliveries.get("delivered"), Some(&1));
    assert_eq!(settlement.deliveries.get("undelivered"), Some(&1));
    assert_eq!(settlement.deliveries.get("pending"), Some(&1), "the uncertain one that a receipt settled");
    assert_eq!((settlement.delivery_num, settlement.segments), (1, 4));
    assert!(!settlement.settled);
}

#[tokio::test]
async fn a_batch_is_settled_when_the_last_receipt_came_or_was_waited_for() {
    let mut hand = one_of_each();
    let late = NOW.plus(Duration::from_secs(60));
    let settlement = hand.count(late).await;
    assert!(settlement.settled && settlement.deliveries.get("unknown") == Some(&1), "{settlement:?}");
    hand.receipt(6, 0, Rung::Delivered);
    assert!(hand.count(NOW).await.settled);
    hand.row.delivery.state = StepState::Running;
    assert!(!hand.count(late).await.settled, "the step has not ended");
}

#[tokio::test]
async fn an_account_without_receipts_is_not_waited_for() {
    let mut hand = Hand::new(1, 0, 0, vec![]);
    hand.answers(vec![(0, 0, 1, ok())]);
    assert!(!hand.count(NOW).await.settled);
    hand.accounts.get_mut("a").expect("there").receipts.wanted = false;
    assert!(hand.count(NOW).await.settled);
}

#[tokio::test]
async fn a_judgement_makes_uncertain_unless_the_declarer_answered_after_all() {
    let mut hand = Hand::new(4, 0, 0, vec![]);
    hand.window_of("a", vec![(0, 0, 1, ok()), (1, 0, 1, refused("x"))], Some(vec![0, 1, 2]));
    let settlement = hand.count(NOW).await;
    assert_eq!((settlement.of(Outcome::Accepted), settlement.of(Outcome::Failed)), (1, 1));
    assert_eq!((settlement.of(Outcome::Uncertain), settlement.of(Outcome::Open)), (1, 1));
    hand.receipt(2, 0, Rung::Delivered);
    assert_eq!(hand.count(NOW).await.of(Outcome::Accepted), 2, "a late receipt settles it");
}

#[tokio::test]
async fn a_receipt_by_the_number_is_about_a_part_in_doubt_and_not_about_one_that_was_refused() {
    let mut hand = Hand::new(1, 0, 0, vec![]);
    hand.answers(vec![(0, 0, 4, ok()), (0, 1, 4, ok()), (0, 2, 4, refused("0x0B")), (0, 3, 4, Answer::NoAnswer)]);
    // The refused part was ordered again, and its number was suppressed by then.
    hand.answers(vec![(0, 2, 3, Answer::Suppressed)]);
    hand.receipt(0, 0, Rung::Delivered);
    hand.receipt(0, 1, Rung::Delivered);
    assert_eq!(hand.count(NOW).await.of(Outcome::Uncertain), 1);
    hand.receipt_of("4", 0, UNKNOWN_PART, Rung::Delivered);
    let settlement = hand.count(NOW).await;
    assert_eq!((settlement.of(Outcome::Accepted), settlement.of(Outcome::Failed)), (0, 1), "{settlement:?}");
}

#[tokio::test]
async fn of_somebody_who_had_a_part_before_the_declarers_late_answers_about_the_rest_are_all_there_is() {
    let mut hand = Hand::new(1, 0, 0, vec![]);
    let later = Answer::NotNow { kind: NotNow::Throttled, detail: "".into() };
    hand.answers(vec![(0, 0, 2, ok()), (0, 1, 2, later)]);
    // The second part alone was declared again, the window was judged, and its declarer said later that it was not handed over.
    hand.window_of("a", vec![(0, 1, 2, Answer::NotSent)], Some(vec![0]));
    let settlement = hand.count(NOW).await;
    assert_eq!((settlement.of(Outcome::Failed), settlement.of(Outcome::Uncertain)), (1, 0), "{settlement:?}");
}

#[tokio::test]
async fn whoever_is_in_flight_when_a_batch_is_canceled_is_not_canceled_yet() {
    let mut hand = Hand::new(4, 0, 0, vec![]);
    hand.row.delivery.state = StepState::Canceled;
    let mut ledger = Ledger::sealed(4).fence_closed(1).expect("fenced");
    ledger.open = vec![open_window(9, 0, 0, 1, "a"), open_window(10, 77, 1, 2, "a")];
    hand.fake.rows().ledgers.insert(LANE, ledger);
    let entry = |seq| RetryEntry { seq, tries: 0, parts: 0, round: 0 };
    hand.fake.rows().retries.insert((LANE, 77), RetryPack { entries: vec![entry(3), entry(2)] });
    let settlement = hand.count(NOW).await;
    assert_eq!((settlement.of(Outcome::Open), settlement.of(Outcome::Canceled)), (2, 2), "{settlement:?}");
    assert!(!settlement.settled);
}

#[tokio::test]
async fn people_of_a_pack_that_cannot_be_read_fail_and_the_rest_goes_on() {
    let mut hand = Hand::new(6, 0, 0, vec![4]);
    hand.answers((0..4).map(|seq| (seq, 0, 1, ok())).collect());
    let key = PackKey { lane: LANE, range: 0, attempt: 1, n: 1 };
    for pack in [Some(None), None] {
        match pack {
            Some(corrupt) => hand.fake.rows().packs.insert(key, corrupt),
            None => hand.fake.rows().packs.remove(&key),
        };
        let settlement = hand.count(NOW).await;
        assert_eq!(settlement.of(Outcome::Accepted), 4, "an answer is a fact, whatever became of the pack");
        assert_eq!((settlement.of(Outcome::Failed), settlement.of(Outcome::Duplicate)), (1, 1));
        assert_eq!((settlement.failed.get("SF-4004"), settlement.unaccounted()), (Some(&1), 0));
        assert_eq!(hand.list(RecipientFilter::default()).await.len(), 6, "the listing agrees");
    }
    hand.fake.rows().manifests.clear();
    assert_eq!(hand.count(NOW).await.of(Outcome::Failed), 6);
}

#[tokio::test]
async fn segments_of_a_provider_that_splits_itself_are_those_of_the_message() {
    let mut hand = Hand::new(4, 0, 0, vec![]);
    hand.window_of("p", vec![(0, 0, 1, ok()), (3, 0, 1, ok())], None);
    hand.answers(vec![(1, 0, 2, ok()), (1, 1, 2, ok())]);
    let settlement = hand.count(NOW).await;
    assert_eq!(settlement.segments_by_account, BTreeMap::from([("a".to_owned(), 2), ("p".to_owned(), 4)]));
}

#[tokio::test]
async fn a_batch_that_was_never_sealed_is_accounted_for_too() {
    let mut hand = Hand::new(5, 2, 1, vec![]);
    (hand.row.sealed, hand.row.current_step) = (None, CurrentStep::Preparation);
    for (state, outcome, settled) in [
        (StepState::Running, Outcome::Open, false),
        (StepState::Canceled, Outcome::Canceled, true),
        (StepState::CompletedFailed, Outcome::Failed, true),
    ] {
        hand.row.preparation.state = state;
        let settlement = hand.count(NOW).await;
        assert_eq!((settlement.of(outcome), settlement.settled), (5, settled), "{state:?}");
        assert_eq!(settlement.unaccounted(), 0);
    }
}

#[tokio::test]
async fn the_listing_has_every_record_once_with_the_outcome_of_the_recount() {
    let hand = one_of_each();
    let (settlement, lines) = (hand.count(NOW).await, hand.list(RecipientFilter::default()).await);
    assert_eq!(lines.len() as u64, settlement.records);
    for outcome in crate::model::outcome::OUTCOMES {
        let listed = lines.iter().filter(|line| line.outcome == outcome).count() as u64;
        assert_eq!(listed, settlement.of(outcome), "{outcome:?}");
    }
    let five = lines.iter().find(|line| line.number == "+8613800000005").expect("listed");
    let what: Vec<&str> = five.history.iter().map(|event| event.what.as_str()).collect();
    assert_eq!(what, ["accepted", "throttled", "accepted", "receipt", "receipt"]);
    assert_eq!((five.delivery, five.segments, five.line), (Some(Delivery::Undelivered), 2, 7));
    let failed = hand.list(RecipientFilter::from_words("failed".split(',')).expect("a word")).await;
    assert_eq!((failed.len(), failed[0].detail.as_str(), failed[0].code), (1, "0x0B", Some(Code::ProviderRefused)));
}

#[tokio::test]
async fn a_number_is_explained_by_its_own_lines() {
    let hand = one_of_each();
    let accounts = Arc::new(hand.accounts.clone());
    let number = Msisdn(8_613_800_000_002);
    let lines = explain_number(&hand.fake.stores(), &hand.row, accounts, number, NOW).await.expect("the fake answers");
    assert_eq!(lines.len(), 1);
    assert_eq!((lines[0].outcome, lines[0].text.as_deref()), (Outcome::Uncertain, Some("text 2")));
}

#[tokio::test]
async fn of_one_person_s_lane_nothing_is_kept_of_the_others() {
    let mut hand = Hand::new(3_000, 0, 0, vec![]);
    hand.answers((0..3_000).map(|seq| (seq, 0, 1, ok())).collect());
    let (stores, number) = (hand.fake.stores(), message(1_207).number);
    let places = places_of(&stores, LANE, number).await.expect("the fake answers");
    assert_eq!(places, BTreeSet::from([1_207]));
    let lane = Lane::load(&stores, &hand.accounts, LANE, &History::Of(places)).await.expect("the fake answers");
    assert_eq!((lane.people.len(), lane.events.len()), (3_000, 1));
    let lines = hand.list(RecipientFilter { number: Some(number), ..RecipientFilter::default() }).await;
    assert_eq!((lines.len(), lines[0].history.len(), lines[0].outcome), (1, 1, Outcome::Accepted));
}

#[tokio::test]
async fn one_person_of_a_batch_costs_one_pack_and_the_small_columns_of_one_lane() {
    let mut hand = one_of_each();
    hand.row.lanes = 4;
    {
        let mut rows = hand.fake.rows();
        let (manifest, ledger, packs) = (rows.manifests[&LANE].clone(), rows.ledgers[&LANE].clone(), rows.packs.clone());
        for lane in (0..4).map(|lane| LaneKey { lane, ..LANE }) {
            rows.manifests.insert(lane, manifest.clone());
            rows.ledgers.insert(lane, ledger.clone());
            rows.packs.extend(packs.iter().map(|(key, pack)| (PackKey { lane, ..*key }, pack.clone())));
        }
    }
    let (stores, accounts) = (hand.fake.stores(), Arc::new(hand.accounts.clone()));
    for seq in 0..9 {
        hand.fake.rows().read = Default::default();
        let number = message(seq).number;
        let lines = explain_number(&stores, &hand.row, accounts.clone(), number, NOW).await.expect("the fake answers");
        assert_eq!(lines.iter().filter(|line| line.number == format!("+{}", number.digits())).count(), 1);
        let lane = LaneKey { lane: lane_of(number, 4), ..LANE };
        let (whole, heads) = hand.fake.rows().read.clone();
        assert_eq!(whole, [PackKey { lane, range: 0, attempt: 1, n: seq / 3 }], "{seq}");
        // Once to find the number, once where somebody is in doubt.
        assert!(heads.iter().all(|key| key.lane == lane) && (3..=6).contains(&heads.len()), "{seq}: {heads:?}");
    }
}

#[tokio::test]
async fn a_filter_reads_no_pack_of_others_and_shows_what_it_names() {
    for damaged in [None, Some(1), Some(2)] {
        let hand = one_of_each();
        if let Some(n) = damaged {
            hand.fake.rows().packs.insert(PackKey { lane: LANE, range: 0, attempt: 1, n }, None);
        }
        let all = hand.list(RecipientFilter::default()).await;
        let deliveries = ["delivered", "undelivered", "pending", "unknown"];
        for word in crate::model::outcome::OUTCOMES.iter().map(|outcome| outcome.name()).chain(deliveries) {
            let filter = RecipientFilter::from_words([word].into_iter()).expect("a word");
            let expected: Vec<_> = all.iter().filter(|line| filter.allows(line.outcome, line.delivery)).cloned().collect();
            assert_eq!(hand.list(filter).await, expected, "{word}, damaged: {damaged:?}");
        }
    }
    // A batch that has hardly begun: one pack of a hundred has somebody whom an account took.
    let mut hand = Hand::new(300, 0, 0, vec![]);
    hand.answers(vec![(151, 0, 1, ok())]);
    assert_eq!(hand.list(RecipientFilter::from_words("accepted".split(',')).expect("a word")).await.len(), 1);
    assert_eq!(hand.fake.rows().read.0, [PackKey { lane: LANE, range: 0, attempt: 1, n: 50 }]);
}
