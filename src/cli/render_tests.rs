//! Reports and plans, word by word.

use std::collections::BTreeMap;

use super::*;
use crate::model::id::BatchId;
use crate::model::record::Sample;
use crate::model::report::Settlement;
use crate::serve::views::StepView;

fn view() -> BatchView {
    let step = |state: &str, took| StepView { state: state.into(), seconds: Some(took), ..StepView::default() };
    BatchView {
        batch_id: BatchId(0x1234_5678 << 96),
        campaign_name: "spring".into(),
        provider_type: "main".into(),
        created: "2024-05-01T09:00:00.000Z".into(),
        current_step: "DELIVERY".into(),
        preparation: step("COMPLETED_SUCCEEDED", 2.0),
        delivery: step("COMPLETED_SUCCEEDED", 75.0),
        records: 1_234_567,
        over: true,
        tenant: String::new(),
        campaign_id: String::new(),
        task_code: String::new(),
        commands: vec![],
        plan: None,
    }
}

fn counted() -> BatchReport {
    let mut settlement = Settlement { records: 1_234_567, segments: 1_300_000, settled: true, ..Settlement::default() };
    for (outcome, n) in [(Outcome::Accepted, 1_234_000), (Outcome::Failed, 500), (Outcome::Rejected, 67)] {
        settlement.count(outcome, n);
    }
    settlement.failed = BTreeMap::from([("SF-5001 0x0000000B".into(), 500)]);
    settlement.rejected = BTreeMap::from([("SF-2002".into(), 67)]);
    settlement.deliveries = BTreeMap::from([("delivered".into(), 1_234_000)]);
    settlement.segments_by_account = BTreeMap::from([("main".into(), 1_300_000)]);
    BatchReport {
        clicks: None,
        batch: view(),
        settled: true,
        unaccounted: 0,
        prepared_per_second: Some(617_283.4),
        sent_per_second: None,
        cost: vec![Cost { currency: "EUR".into(), amount: 58_500.0 }],
        next: vec!["see who failed".into()],
        settlement,
    }
}

#[test]
fn a_report_says_everything_once() {
    let expected = "\
Batch 12345678000000000000000000000000 (spring)
  preparation COMPLETED_SUCCEEDED, delivery COMPLETED_SUCCEEDED

Records                        1,234,567
  accepted                     1,234,000  the provider took them
  failed                             500  the provider refused them for good, or too often
    SF-5001 0x0000000B               500  the provider refused the message for good
  rejected                            67  cannot be sent
    SF-2002                           67  the telephone number is not valid
  sum                          1,234,567  every record is accounted for

Receipts of the accepted
  delivered                    1,234,000  every part's receipt says DELIVRD

Segments
  main                         1,300,000
  total                        1,300,000  58500.00 EUR

Time
  prepared in 2.0 s, 617,283 records a second
  sent in 1 min 15 s

Settled: nothing will change any more but by late receipts.
  - see who failed
";
    assert_eq!(report(&counted()), expected);
    assert_eq!(counted().exit_code(), 1, "some failed");
    let settlement = Settlement { settled: true, ..Settlement::default() };
    let mut nobody = BatchReport { settlement, ..counted() };
    assert_eq!(nobody.exit_code(), 0, "there was nobody to fail");
    nobody.batch.preparation.state = "COMPLETED_FAILED".into();
    assert_eq!(nobody.exit_code(), 1, "it could not be prepared");
}

#[test]
fn a_difference_is_shouted() {
    let mut wrong = counted();
    wrong.unaccounted = 3;
    assert!(report(&wrong).contains("NOT ALL RECORDS ARE ACCOUNTED FOR"));
}

#[test]
fn a_plan_shows_samples_without_control_characters() {
    let sample = Sample { line: 7, text: "Hi\u{1b}[31m\nthere".into(), segments: 2, why: "longest".into(), weight: 1 };
    let sealed = PlanView {
        plan_hash: "5d2c".into(),
        records: 10,
        recipients: 7,
        rejected: BTreeMap::from([("SF-2001".into(), 1)]),
        duplicates: 1,
        suppressed: 1,
        segments: 9,
        gsm7: 5,
        ucs2: 2,
        cost: vec![],
        samples: vec![sample],
    };
    let expected = "\
Plan of batch 12345678000000000000000000000000: nothing was sent

Records                               10
  recipients                           7  will get a message
  duplicate                            1  the number came before
  suppressed                           1  on the list of those who get nothing
  rejected                             1  cannot be sent
    SF-2001                            1  the record has no telephone number

Messages
  GSM 03.38                            5
  UCS-2                                2
  segments                             9

Samples
  line 7, longest, 2 segments:
    Hi\u{fffd}[31m⏎there

Plan hash 5d2c
  to send exactly this: the same command with --approve 5d2c in place of --dry-run
";
    assert_eq!(plan(&view(), &sealed), expected);
}

#[test]
fn a_report_shows_names_and_reasons_without_control_characters() {
    let mut counted = counted();
    counted.batch.campaign_name = "spring\u{1b}[2J".into();
    counted.batch.delivery.reason = Some("SF-3003 \u{1b}]0;x\u{7}".into());
    counted.settlement.failed = BTreeMap::from([("SF-5001 \u{1b}[31mred".into(), 500)]);
    let text = report(&counted);
    assert!(text.contains("SF-5001 \u{fffd}[31mred") && text.contains("refused the message for good"), "{text}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
}

#[test]
fn numbers_are_grouped() {
    let cases = [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")];
    for (n, text) in cases {
        assert_eq!(grouped(n), text);
    }
}

#[test]
fn the_readme_has_the_codes_and_the_exit_codes() {
    let readme = include_str!("../../README.md");
    assert!(readme.contains(&code_table()), "README.md should have this table:\n{}", code_table());
    for line in crate::cli::args::EXIT_CODES.lines().skip(1) {
        let (code, text) = line.trim().split_once("  ").expect("a code and its meaning");
        assert!(readme.contains(&format!("| {code} | {text} |")), "README.md lacks exit code {code}: {text}");
    }
}
