//! What this version makes of rows that the next one wrote: everything it knows, wherever fields were added.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{ADDED, Next};
use crate::adapters::rows::control;
use crate::adapters::rows::frame::VERSION;
use crate::model::batch::{BatchRow, SealedPlan, SmsBatch};
use crate::model::id::{Msisdn, WorkerId};
use crate::model::ledger::{Ledger, OpenWindow};
use crate::model::order::{Order, RetryFilter, RetryWhat, Work};
use crate::model::record::{Fingerprint, PartPlan, RangePlan, RangeRow, Sample};
use crate::model::report::Settlement;
use crate::model::schedule::SendingHours;
use crate::model::time::Timestamp;

/// Reads the row as the next version writes it; how many fields that has added.
fn read_as_added<T>(row: &T) -> usize
where
    T: serde::Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let mut bytes = control::write(3, 4, row)[..17].to_vec();
    bytes[0] = VERSION + 1;
    serde_json::to_writer(&mut bytes, &Next(row)).expect("it is written");
    let read =
        control::read::<T>("row", &bytes).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&bytes[17..])));
    assert_eq!(&read.row, row);
    String::from_utf8_lossy(&bytes).matches(ADDED).count()
}

fn batch() -> BatchRow {
    let hours = Some(SendingHours { from: 480, to: 1_320, zone: "Asia/Shanghai".into() });
    let batch = SmsBatch { hours, link_parameters: vec![("a".into(), "b".into())], ..SmsBatch::new("list.csv", "Hello", "main") };
    let mut row = BatchRow::created(batch, "digest".into(), Timestamp(7));
    let sample = Sample { line: 2, text: "Hello".into(), segments: 1, why: "longest".into(), weight: 5 };
    row.fingerprint = Some(Fingerprint { size: 1, version: "v".into(), content: 2 });
    row.sealed = Some(SealedPlan { records: 1, samples: vec![sample], ..SealedPlan::default() });
    let outcomes = [("accepted".to_owned(), 1)].into();
    row.settlement = Some(Settlement { records: 1, outcomes, ..Settlement::default() });
    let filter = RetryFilter { numbers: vec![Msisdn(8_613_900_000_000)], ..RetryFilter::default() };
    let work = Work::Retry { what: RetryWhat::Filter(filter), round: 1, not_after: None };
    row.orders.pending = Some(Order { id: "o".into(), digest: "d".into(), at: Timestamp(8), task_number: 2, work });
    row
}

#[test]
fn a_batch_with_everything_in_it_is_read_though_the_next_version_added_a_field_to_each_part() {
    let added = read_as_added(&batch());
    // Row, batch, hours, two steps, fingerprint, plan, its totals and sample, settlement, orders, order, its work and filter.
    assert_eq!(added, 14);
}

#[test]
fn a_ledger_and_a_range_are_read_though_the_next_version_added_a_field_to_each_part() {
    let mut ledger = Ledger::sealed(2);
    ledger.open.push(OpenWindow {
        window: 1,
        leg: 0,
        from: 0,
        to: 1,
        account: "main".into(),
        declarer: WorkerId(3),
        declared_at: Timestamp(4),
        send_by: Timestamp(5),
    });
    assert_eq!(read_as_added(&ledger), 4, "ledger, leg, window, totals");
    let plan = RangePlan { part: Some(Box::new(PartPlan::default())), keys: Some(Box::default()), ..RangePlan::default() };
    assert!(read_as_added(&RangeRow::planned(plan)) >= 4, "row, plan, part, keys");
}

#[test]
fn keys_of_maps_and_of_cases_are_nobodys_fields() {
    let written = serde_json::to_value(Next(&batch())).expect("it is written");
    assert_eq!(written["settlement"]["outcomes"], serde_json::json!({"accepted": 1}));
    let work = written["orders"]["pending"]["work"].as_object().expect("a case");
    assert_eq!(work.keys().collect::<Vec<_>>(), ["retry"]);
    let plain = serde_json::to_value(batch()).expect("it is written");
    assert_eq!(without_added(written), plain, "nothing else is changed");
}

fn without_added(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.into_iter().filter(|(key, _)| key != ADDED).map(|(key, field)| (key, without_added(field))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_added).collect(),
        other => other,
    }
}
