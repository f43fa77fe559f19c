//! The metrics of the whole system: names, help and labels in one place, and a small function for each kind of use.
//!
//! Names are `smsfleet_<stage>_<noun>_<unit or total>`; labels are closed sets or account names, never a batch, never a
//! number. Functions take label values as `&str` from the name tables of `model` (`Outcome::name`, `NotNow::name`,
//! `Code::as_str`). They cost a hash and an atomic: call them per window or per commit, not per message.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// What a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution, in seconds.
    Histogram,
}

/// A metric as dashboards and alerts know it.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it counts.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

macro_rules! metrics_table {
    ($($constant:ident = $name:literal, $kind:ident, [$($label:literal),*], $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: Metric =
            Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*

        /// All metrics, in the order of the stages.
        pub const METRICS: &[Metric] = &[$($constant),*];
    };
}

metrics_table! {
    BUILD_INFO = "smsfleet_build_info", Gauge, ["version", "commit"], "1; the labels say which build runs.";
    PREPARE_RECORDS = "smsfleet_prepare_records_total", Counter, ["result"], "Records read, by result: message, rejected, suppressed.";
    PREPARE_RANGES = "smsfleet_prepare_ranges_total", Counter, ["result"], "Ranges ended, by result: done, failed.";
    PREPARE_PACKS = "smsfleet_prepare_packs_total", Counter, [], "Packs written.";
    PREPARE_LANES_SEALED = "smsfleet_prepare_lanes_sealed_total", Counter, [], "Lanes sealed.";
    QUEUE_BROKEN = "smsfleet_queue_broken_messages_total", Counter, ["queue"], "Messages of the queues that could not be read and were passed over, by queue: prepare, delivery.";
    DISPATCH_TOKENS = "smsfleet_dispatch_tokens_total", Counter, ["queue"], "Tokens sent, by queue: prepare, delivery.";
    COORDINATE_LEADER = "smsfleet_coordinate_leader_terms_total", Counter, [], "Terms this process began as leader.";
    COORDINATE_LEADING = "smsfleet_coordinate_leading", Gauge, [], "1 while this process is the leader.";
    COORDINATE_STEPS = "smsfleet_coordinate_steps", Gauge, ["step", "state"], "Steps of active batches; set by the leader alone.";
    DELIVER_WINDOWS = "smsfleet_deliver_windows_total", Counter, ["event"], "Windows, by event: declared, closed, judged.";
    DELIVER_IN_FLIGHT = "smsfleet_deliver_in_flight", Gauge, ["account"], "Parts handed over by this process and not answered yet.";
    DELIVER_ANSWERS = "smsfleet_deliver_answers_total", Counter, ["account", "class"], "Answers, by class: accepted, failed, throttled, queue_full, transient, session, no_answer, not_sent, suppressed, expired.";
    DELIVER_LATENCY = "smsfleet_deliver_submit_latency_seconds", Histogram, ["account"], "From the hand-over of a chunk to its last answer.";
    RATES_SEGMENTS = "smsfleet_rates_segments_per_second", Gauge, ["account"], "Segments a second that the governor allows.";
    RATES_THROTTLED = "smsfleet_rates_throttled", Gauge, ["account"], "Answers that asked to slow down, since this process began.";
    PROVIDER_SESSIONS = "smsfleet_provider_sessions", Gauge, ["account"], "Sessions bound.";
    RECEIPTS_TOTAL = "smsfleet_receipts_reports_total", Counter, ["account", "rung"], "New delivery reports, by rung.";
    RECEIPTS_REPEATED = "smsfleet_receipts_repeated_total", Counter, ["account"], "Reports that were there before.";
    RECEIPTS_PARKED = "smsfleet_receipts_parked", Gauge, [], "Reports that match nothing yet.";
    RECEIPTS_UNMATCHED = "smsfleet_receipts_unmatched", Gauge, [], "Reports that stayed without a recipient.";
    RECEIPTS_INBOUND = "smsfleet_receipts_inbound_total", Counter, ["account", "intent"], "New messages of people, by intent: opt_out, opt_in, none.";
    RECEIPTS_INBOUND_REPEATED = "smsfleet_receipts_inbound_repeated_total", Counter, ["account"], "Messages of people that were there before.";
    RECEIPTS_OPT_OUT_UNREADABLE = "smsfleet_receipts_opt_out_unreadable_total", Counter, ["account"], "Opt-outs and opt-ins whose sender is no number: set opt_out.country_code, or act by hand.";
    LINKS_REQUESTS = "smsfleet_links_requests_total", Counter, ["result"], "Short links opened, by result: redirect, expired, unknown, unavailable.";
    LINKS_CLICKS = "smsfleet_links_clicks_total", Counter, ["kind"], "Openings kept, by kind: person, machine.";
    LINKS_CLICKS_DROPPED = "smsfleet_links_clicks_dropped_total", Counter, [], "Openings not kept because too many waited for the store, or it refused them.";
    STATISTICS_OUTCOMES = "smsfleet_statistics_records_total", Counter, ["outcome"], "Records of settled batches, by outcome.";
    STATISTICS_DIFFERENCE = "smsfleet_statistics_conservation_difference", Gauge, [], "Records that no outcome accounts for, over the latest recounts; must be 0.";
    WEBHOOKS_EVENTS = "smsfleet_webhooks_events_total", Counter, ["result"], "Events of webhooks, by result of their call: sent, failed (tried again), dead.";
    WEBHOOKS_WAITING = "smsfleet_webhooks_waiting_events", Gauge, [], "Events that wait to be told; set by the leader alone, counted up to 100,000.";
    WEBHOOKS_DEAD = "smsfleet_webhooks_dead_events", Gauge, [], "Events that were given up and can be replayed; set by the leader alone, counted up to 100,000.";
    QUEUE_LAG = "smsfleet_queue_lag_tokens", Gauge, ["queue"], "Tokens that wait, by queue: prepare, delivery; set by the leader alone.";
    STORE_REQUESTS = "smsfleet_store_requests_total", Counter, ["kind"], "Requests to a cluster's store, by kind: read, write, conditional.";
    STORE_COMMIT = "smsfleet_store_commit_latency_seconds", Histogram, [], "One synced commit of the store.";
    STORE_ERRORS = "smsfleet_store_errors_total", Counter, ["code"], "Calls on control rows that failed and were tried again.";
    STORE_CONFLICTS = "smsfleet_store_conflicts_total", Counter, [], "Compare-and-set calls on control rows that were refused: somebody else was first.";
    SERVE_LATENCY = "smsfleet_serve_request_latency_seconds", Histogram, [], "From a request's head to the beginning of its answer.";
    SERVE_REQUESTS = "smsfleet_serve_requests_total", Counter, ["status"], "Requests answered, by HTTP status.";
}

/// Bounds of all histograms, in seconds: from a commit on a fast disk to an answer time-out.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];

/// Adds to a counter. `labels` are the metric's label values, in the order of its label names.
pub fn count(metric: &'static Metric, labels: &[&str], n: u64) {
    debug_assert!(metric.kind == Kind::Counter && metric.labels.len() == labels.len(), "{}", metric.name);
    metrics::counter!(metric.name, pairs(metric, labels)).increment(n);
}

/// Sets a gauge.
pub fn set(metric: &'static Metric, labels: &[&str], value: f64) {
    debug_assert!(metric.kind == Kind::Gauge && metric.labels.len() == labels.len(), "{}", metric.name);
    metrics::gauge!(metric.name, pairs(metric, labels)).set(value);
}

/// Adds a duration to a histogram.
pub fn observe(metric: &'static Metric, labels: &[&str], took: Duration) {
    debug_assert!(metric.kind == Kind::Histogram && metric.labels.len() == labels.len(), "{}", metric.name);
    metrics::histogram!(metric.name, pairs(metric, labels)).record(took.as_secs_f64());
}

fn pairs(metric: &'static Metric, values: &[&str]) -> Vec<metrics::Label> {
    metric.labels.iter().zip(values).map(|(name, value)| metrics::Label::new(*name, (*value).to_owned())).collect()
}

/// Renders what was counted in this process.
#[derive(Clone)]
pub struct Exporter(PrometheusHandle);

impl Exporter {
    /// The exporter of this process, installed at the first call. Before that nothing is counted, which costs nothing.
    pub fn install(commit: &str) -> Result<Exporter, String> {
        static INSTALLED: OnceLock<Result<Exporter, String>> = OnceLock::new();
        let installed = INSTALLED.get_or_init(|| {
            let recorder = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
                .map_err(|error| error.to_string())?
                .build_recorder();
            let handle = recorder.handle();
            metrics::set_global_recorder(recorder).map_err(|error| error.to_string())?;
            for metric in METRICS {
                match metric.kind {
                    Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
                    Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
                    Kind::Histogram => metrics::describe_histogram!(metric.name, metric.help),
                }
            }
            Ok(Exporter(handle))
        });
        set(&BUILD_INFO, &[env!("CARGO_PKG_VERSION"), commit], 1.0);
        installed.clone()
    }

    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Takes in what histograms gathered; called every few seconds where nobody scrapes, so that samples do not pile up.
    pub fn tidy(&self) {
        self.0.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule_and_are_different() {
        let mut seen = std::collections::BTreeSet::new();
        for metric in METRICS {
            assert!(seen.insert(metric.name), "{} is there twice", metric.name);
            assert!(metric.name.starts_with("smsfleet_") && metric.help.ends_with('.'), "{}", metric.name);
            let ends = |end: &str| metric.name.ends_with(end);
            assert_eq!(ends("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert_eq!(ends("_latency_seconds"), metric.kind == Kind::Histogram, "{}", metric.name);
            for label in metric.labels {
                assert!(!["batch", "number", "lane"].contains(label), "{} has a label without bound", metric.name);
            }
        }
    }

    #[test]
    fn what_was_counted_is_rendered() {
        let exporter = Exporter::install("test").expect("no other recorder in the tests");
        count(&DELIVER_ANSWERS, &["a", "accepted"], 3);
        observe(&STORE_COMMIT, &[], Duration::from_millis(2));
        let text = exporter.render();
        assert!(text.contains("smsfleet_deliver_answers_total{account=\"a\",class=\"accepted\"} 3"), "{text}");
        assert!(text.contains("smsfleet_store_commit_latency_seconds_bucket{le=\"0.0025\"} 1"), "{text}");
        assert!(text.contains("# HELP smsfleet_build_info"), "{text}");
    }
}
