//! Counters at 0 before they count. Prometheus sees an increase only where there was a value before: one that appears with its
//! first count hides just that one, which may be the only opt-out, or the only message outside the hours.

use super::metrics::{self, Kind, METRICS, Metric, count, expect};
use crate::model::code::CODES;
use crate::model::outcome::OUTCOMES;

/// What an account may answer, by class.
const CLASSES: [&str; 10] =
    ["accepted", "failed", "throttled", "queue_full", "transient", "session", "no_answer", "not_sent", "suppressed", "expired"];
/// What a report may say.
const RUNGS: [&str; 8] = ["ACCEPTD", "ENROUTE", "UNKNOWN", "UNDELIV", "EXPIRED", "DELETED", "REJECTD", "DELIVRD"];

/// Counters with one label, whose values are known.
const KNOWN: [(&Metric, &[&str]); 10] = [
    (&metrics::PREPARE_RECORDS, &["message", "rejected", "suppressed"]),
    (&metrics::PREPARE_RANGES, &["done", "failed"]),
    (&metrics::QUEUE_BROKEN, &["prepare", "delivery"]),
    (&metrics::DISPATCH_TOKENS, &["prepare", "delivery"]),
    (&metrics::DELIVER_WINDOWS, &["declared", "closed", "judged"]),
    (&metrics::LINKS_REQUESTS, &["redirect", "expired", "unknown", "unavailable"]),
    (&metrics::LINKS_CLICKS, &["person", "machine"]),
    (&metrics::WEBHOOKS_EVENTS, &["sent", "failed", "dead"]),
    (&metrics::STORE_REQUESTS, &["read", "write", "conditional"]),
    (&metrics::STORE_UNREADABLE, &["batch", "parked"]),
];

/// What every process counts.
pub(super) fn begin() {
    for metric in METRICS.iter().filter(|metric| metric.labels.is_empty()) {
        match metric.kind {
            Kind::Counter => count(metric, &[], 0),
            Kind::Histogram => expect(metric, &[]),
            Kind::Gauge | Kind::Fleet => {}
        }
    }
    for (metric, values) in KNOWN {
        values.iter().for_each(|value| count(metric, &[value], 0));
    }
    OUTCOMES.iter().for_each(|outcome| count(&metrics::STATISTICS_OUTCOMES, &[outcome.name()], 0));
    codes("SF-2").for_each(|code| count(&metrics::PREPARE_REJECTED, &[code], 0));
}

/// What is counted of an account by who sends through it.
pub fn of_sending(account: &str) {
    for metric in [&metrics::DELIVER_RECIPIENTS, &metrics::DELIVER_SEGMENTS, &metrics::DELIVER_OUTSIDE_HOURS] {
        count(metric, &[account], 0);
    }
    expect(&metrics::DELIVER_WINDOW_LATENCY, &[account]);
    CLASSES.iter().for_each(|class| count(&metrics::DELIVER_ANSWERS, &[account, class], 0));
    codes("SF-5").for_each(|code| count(&metrics::DELIVER_FAILURES, &[account, code], 0));
}

/// What is counted of an account by who takes its receipts in; of reports only where they are asked for.
pub fn of_receipts(account: &str, wanted: bool) {
    for metric in [&metrics::RECEIPTS_REPEATED, &metrics::RECEIPTS_INBOUND_REPEATED, &metrics::RECEIPTS_OPT_OUT_UNREADABLE] {
        count(metric, &[account], 0);
    }
    ["opt_out", "opt_in", "none"].iter().for_each(|intent| count(&metrics::RECEIPTS_INBOUND, &[account, intent], 0));
    if wanted {
        expect(&metrics::RECEIPTS_DELAY, &[account]);
        RUNGS.iter().for_each(|rung| count(&metrics::RECEIPTS_TOTAL, &[account, rung], 0));
    }
}

fn codes(begin: &'static str) -> impl Iterator<Item = &'static str> {
    CODES.iter().map(|code| code.as_str()).filter(move |code| code.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::receipt::Rung;

    #[test]
    fn the_words_are_those_that_are_counted() {
        for rung in RUNGS {
            assert_eq!(Rung::from_stat(rung).map(Rung::stat), Some(rung));
        }
        for (metric, values) in KNOWN {
            for value in values {
                // The help names them all: what is listed here and there stays the same.
                assert!(metric.help.contains(value), "{} {value}", metric.name);
            }
        }
        assert!(CLASSES.iter().all(|class| metrics::DELIVER_ANSWERS.help.contains(class)));
        assert!((5..20).contains(&codes("SF-2").count()) && (5..20).contains(&codes("SF-5").count()));
    }
}
