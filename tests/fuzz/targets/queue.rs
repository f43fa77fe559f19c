//! What lies in Kafka: tokens, the header that says where in a trace they belong, and the store's mark.

use smsfleet::adapters::kafka::wire;
use smsfleet::model::id::{BatchId, WorkerId};
use smsfleet::model::ledger::Ledger;
use smsfleet::model::task::{PrepareTask, SmsBatchPartitionTask, TaskStatus};
use smsfleet::model::trace::TraceParent;

use super::input::Input;
use super::is_reason;

/// An octet that says what it is, then the body, or the header's value.
pub fn queue(input: &[u8]) -> bool {
    let mut input = Input(input);
    match input.byte() % 5 {
        0 => token(input.0),
        1 => task(input.0),
        2 => mark(input.0),
        3 => std::str::from_utf8(input.0).is_ok_and(trace),
        _ => std::str::from_utf8(input.0).is_ok_and(names),
    }
}

fn token(body: &[u8]) -> bool {
    let token: SmsBatchPartitionTask = match wire::task(Some(body)) {
        Ok(token) => token,
        Err(reason) => return refused(&reason),
    };
    assert_eq!(wire::task(Some(&wire::body(&token))), Ok(token), "a token reads back");
    for len in [0, 1, 5_000, 5_001, u32::MAX] {
        let fresh = Ledger { task_number: token.task_code.number, ..Ledger::sealed(len) };
        let newer = Ledger { task_number: fresh.task_number.saturating_add(1), ..fresh.clone() };
        // A token of a lane that has something left is never done by its number alone.
        let is_done = token.judge(&fresh) == TaskStatus::Done;
        assert_eq!(is_done, len == 0, "slice {} of {len}", token.slice);
        let is_last = newer.task_number == fresh.task_number;
        assert!(is_last || token.judge(&newer) != TaskStatus::Queued, "only the newest dispatch's tokens are worked on");
    }
    true
}

fn task(body: &[u8]) -> bool {
    let task: PrepareTask = match wire::task(Some(body)) {
        Ok(task) => task,
        Err(reason) => return refused(&reason),
    };
    assert_eq!(wire::task(Some(&wire::body(&task))), Ok(task.clone()), "a task reads back");
    task.task_code().number > 0
}

fn mark(body: &[u8]) -> bool {
    let Some(left) = wire::mark(body) else { return false };
    assert!(left.identity.len() <= body.len());
    assert_eq!(wire::mark(&wire::mark_body(&left)), Some(left), "a mark reads back");
    true
}

fn trace(value: &str) -> bool {
    let Ok(parent) = value.parse::<TraceParent>() else { return false };
    assert!(parent.trace_id != 0 && parent.span_id != 0);
    assert_eq!(parent.to_string().parse(), Ok(parent), "a place in a trace reads back");
    true
}

/// Names that travel in keys and addresses.
fn names(value: &str) -> bool {
    if let Ok(batch) = value.parse::<BatchId>() {
        assert_eq!(batch.to_string(), value.to_ascii_lowercase());
        return true;
    }
    let Ok(worker) = value.parse::<WorkerId>() else { return false };
    assert_eq!(worker.to_string().parse(), Ok(worker));
    true
}

fn refused(reason: &str) -> bool {
    assert!(is_reason(reason));
    false
}
