//! The metrics of the whole system: names, help and labels in one place.
//!
//! Names are `smsfleet_<stage>_<noun>_<unit or total>`; labels are closed sets or account names, never a batch, never a
//! number.

use std::time::Duration;

use crate::model::answer::Answer;

/// A window of an account ended; `took` is the time from its declare to its last answer.
pub fn window_closed(account: &str, took: Duration) {
    metrics::histogram!("smsfleet_deliver_window_seconds", "account" => account.to_owned()).record(took.as_secs_f64());
}

/// One answer of an account.
pub fn answered(account: &str, answer: &Answer) {
    let class = match answer {
        Answer::Accepted { .. } => "accepted",
        Answer::Failed { .. } => "failed",
        Answer::NotNow { kind, .. } => kind.name(),
        Answer::NoAnswer => "no_answer",
        Answer::NotSent => "not_sent",
        Answer::Suppressed => "suppressed",
        Answer::Expired => "expired",
    };
    metrics::counter!("smsfleet_deliver_answers_total", "account" => account.to_owned(), "class" => class).increment(1);
}

/// A window that a dead owner left open was judged; so many of its recipients had no answer.
pub fn window_judged(account: &str, unanswered: u64) {
    metrics::counter!("smsfleet_deliver_uncertain_total", "account" => account.to_owned()).increment(unanswered);
}

/// A window was declared for an account.
pub fn window_declared(account: &str, recipients: u64) {
    metrics::counter!("smsfleet_deliver_declared_total", "account" => account.to_owned()).increment(recipients);
}

/// A report was stored; `new` tells a first one from a repeat.
pub fn receipt(account: &str, rung: crate::model::receipt::Rung, new: bool) {
    let labels = [("account", account.to_owned()), ("stat", rung.stat().to_owned()), ("new", new.to_string())];
    metrics::counter!("smsfleet_receipts_reports_total", &labels).increment(1);
}
