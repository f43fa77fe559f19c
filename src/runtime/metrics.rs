//! The metrics of the whole system: names, help and labels in one place, and a small function for each kind of use.
//!
//! Names are `smsfleet_<stage>_<noun>_<unit or total>`; labels are closed sets or account names, never a batch, never a
//! number. Functions take label values as `&str` from the name tables of `model` (`Outcome::name`, `NotNow::name`,
//! `Code::as_str`). They cost a hash and an atomic: call them per window or per commit, not per message.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::{process, zeros};

/// What a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A gauge of the whole fleet: set by the leader alone, 0 in every other process, so the largest value is the fleet's.
    Fleet,
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
    PROCESS_CLOCK = "smsfleet_process_clock_seconds", Gauge, [], "Unix time by this process's clock, as it was asked for its metrics.";
    PROCESS_STARTED = "smsfleet_process_started_seconds", Gauge, [], "Unix time at which this process began to count.";
    PROCESS_MEMORY = "smsfleet_process_resident_bytes", Gauge, [], "Resident memory.";
    PROCESS_CPU = "smsfleet_process_cpu_milliseconds_total", Counter, [], "Processor time used, of user and system.";
    PROCESS_FILES = "smsfleet_process_open_files", Gauge, [], "Open file descriptors, sockets among them.";
    PROCESS_FILES_MAX = "smsfleet_process_open_files_limit", Gauge, [], "Open file descriptors that the process may have.";
    PROCESS_TASKS = "smsfleet_process_tasks", Gauge, [], "Tasks alive in the runtime.";
    PROCESS_SILENCE = "smsfleet_process_silence_seconds", Gauge, [], "How long the part of the process that owes a sign of life for longest has owed it.";
    PREPARE_RECORDS = "smsfleet_prepare_records_total", Counter, ["result"], "Records read, by result: message, rejected, suppressed.";
    PREPARE_REJECTED = "smsfleet_prepare_rejected_total", Counter, ["code"], "Records that can never be sent, by code.";
    PREPARE_RANGES = "smsfleet_prepare_ranges_total", Counter, ["result"], "Ranges ended, by result: done, failed.";
    PREPARE_PACKS = "smsfleet_prepare_packs_total", Counter, [], "Packs written.";
    PREPARE_LANES_SEALED = "smsfleet_prepare_lanes_sealed_total", Counter, [], "Lanes sealed.";
    QUEUE_BROKEN = "smsfleet_queue_broken_messages_total", Counter, ["queue"], "Messages of the queues that could not be read and were passed over, by queue: prepare, delivery.";
    QUEUE_LAG = "smsfleet_queue_lag_tokens", Fleet, ["queue"], "Tokens that wait, by queue: prepare, delivery.";
    QUEUE_LAG_RECIPIENTS = "smsfleet_queue_lag_recipients", Fleet, ["queue"], "Work that could be done now, by queue: prepare, records of running preparations whose range is not done; delivery, recipients of running deliveries who are due, within their batch's hours, and not declared.";
    DISPATCH_TOKENS = "smsfleet_dispatch_tokens_total", Counter, ["queue"], "Tokens sent, by queue: prepare, delivery.";
    COORDINATE_LEADER = "smsfleet_coordinate_leader_terms_total", Counter, [], "Terms this process began as leader.";
    COORDINATE_LEADING = "smsfleet_coordinate_leading", Gauge, [], "1 while this process is the leader.";
    COORDINATE_TASK_FAILURES = "smsfleet_coordinate_task_failures_total", Counter, ["task"], "Rounds of one of the leader's jobs that failed, or had to pass over a batch, by job; the next round tries again.";
    COORDINATE_STEPS = "smsfleet_coordinate_steps", Fleet, ["step", "state"], "Steps of active batches.";
    COORDINATE_LANES = "smsfleet_coordinate_lanes", Fleet, ["state"], "Lanes of active batches that are at their delivery, by state: waiting (nothing open), sending (windows open), done.";
    COORDINATE_RECIPIENTS = "smsfleet_coordinate_recipients", Fleet, ["state"], "Recipients of active batches that are at their delivery, by state: unsent, in_flight (in open windows), accepted, failed, uncertain, suppressed, expired. Whoever is sent again counts as unsent again.";
    DELIVER_PARTITIONS = "smsfleet_deliver_partitions", Gauge, [], "Partitions of the delivery queue that this process owns.";
    DELIVER_LANES = "smsfleet_deliver_lanes", Gauge, [], "Lanes that this process serves now.";
    DELIVER_STILL = "smsfleet_deliver_still_seconds", Gauge, ["partition"], "How long the lane of this partition that has stood longest while it was served has not moved; 0 where all move.";
    DELIVER_WINDOWS = "smsfleet_deliver_windows_total", Counter, ["event"], "Windows, by event: declared, closed, judged.";
    DELIVER_RECIPIENTS = "smsfleet_deliver_recipients_total", Counter, ["account"], "Recipients of windows that closed, by account.";
    DELIVER_SEGMENTS = "smsfleet_deliver_segments_total", Counter, ["account"], "Segments handed over.";
    DELIVER_IN_FLIGHT = "smsfleet_deliver_in_flight", Gauge, ["account"], "Parts handed over by this process and not answered yet.";
    DELIVER_ANSWERS = "smsfleet_deliver_answers_total", Counter, ["account", "class"], "Answers, by class: accepted, failed, throttled, queue_full, transient, session, no_answer, not_sent, suppressed, expired.";
    DELIVER_FAILURES = "smsfleet_deliver_failures_total", Counter, ["account", "code"], "Parts refused for good, by code.";
    DELIVER_OUTSIDE_HOURS = "smsfleet_deliver_outside_hours_total", Counter, ["account"], "Messages handed over outside the hours of their account or batch, later than a window that was declared within them may be; must be 0.";
    DELIVER_WINDOW_LATENCY = "smsfleet_deliver_window_latency_seconds", Histogram, ["account"], "From the beginning of a window's declare to its last answer.";
    DELIVER_LATENCY = "smsfleet_deliver_submit_latency_seconds", Histogram, ["account", "class"], "From the hand-over of a chunk to an answer, by class; one sample for answers of a class that come together.";
    DELIVER_TAKE_OVER = "smsfleet_deliver_take_over_latency_seconds", Histogram, [], "From the last declare of a lane's former owner, where it left windows open, to the claim by this process.";
    RATES_SEGMENTS = "smsfleet_rates_segments_per_second", Gauge, ["account"], "Segments a second that the governor allows.";
    RATES_CEILING = "smsfleet_rates_ceiling_segments_per_second", Gauge, ["account"], "The configured or live ceiling; 0 where the rate is learned.";
    RATES_CAPACITY = "smsfleet_rates_capacity_segments_per_second", Fleet, ["account"], "Segments a second that the account takes from the whole fleet now; 0 outside its hours, and while messages wait for it and no process can reach it.";
    RATES_THROTTLED = "smsfleet_rates_throttled", Gauge, ["account"], "1 while the account asked to slow down since the last look a few seconds ago.";
    PROVIDER_UP = "smsfleet_provider_up", Gauge, ["account"], "1 while this process can hand messages over.";
    PROVIDER_WANTED = "smsfleet_provider_wanted", Gauge, ["account"], "1 while lanes of this process go through the account, or wait for it.";
    PROVIDER_SESSIONS = "smsfleet_provider_sessions", Gauge, ["account"], "Sessions bound.";
    PROVIDER_WINDOW = "smsfleet_provider_window_parts", Gauge, ["account"], "Parts that may be in flight at once.";
    PROVIDER_BIND_SLOTS = "smsfleet_provider_bind_slots", Fleet, ["account", "state"], "Workers with sessions of an account that allows few, by state: allowed, lent.";
    RECEIPTS_TOTAL = "smsfleet_receipts_reports_total", Counter, ["account", "rung"], "New delivery reports, by rung.";
    RECEIPTS_REPEATED = "smsfleet_receipts_repeated_total", Counter, ["account"], "Reports that were there before.";
    RECEIPTS_DELAY = "smsfleet_receipts_delivery_latency_seconds", Histogram, ["account"], "From the declare of a window to final reports of its recipients, where this process sent it; a few samples of reports that come together.";
    RECEIPTS_PARKED = "smsfleet_receipts_parked", Fleet, [], "Reports that match nothing yet.";
    RECEIPTS_UNMATCHED = "smsfleet_receipts_unmatched", Fleet, [], "Reports that stayed without a recipient.";
    RECEIPTS_INBOUND = "smsfleet_receipts_inbound_total", Counter, ["account", "intent"], "New messages of people, by intent: opt_out, opt_in, none.";
    RECEIPTS_INBOUND_REPEATED = "smsfleet_receipts_inbound_repeated_total", Counter, ["account"], "Messages of people that were there before.";
    RECEIPTS_OPT_OUT_UNREADABLE = "smsfleet_receipts_opt_out_unreadable_total", Counter, ["account"], "Opt-outs and opt-ins whose sender is no number: set opt_out.country_code, or act by hand.";
    STATISTICS_OUTCOMES = "smsfleet_statistics_records_total", Counter, ["outcome"], "Records of settled batches, by outcome.";
    STATISTICS_DIFFERENCE = "smsfleet_statistics_conservation_difference", Fleet, [], "Records that no outcome accounts for, over the latest recount of each batch in this term; must be 0.";
    LINKS_REQUESTS = "smsfleet_links_requests_total", Counter, ["result"], "Short links opened, by result: redirect, expired, unknown, unavailable.";
    LINKS_CLICKS = "smsfleet_links_clicks_total", Counter, ["kind"], "Openings kept, by kind: person, machine.";
    LINKS_CLICKS_DROPPED = "smsfleet_links_clicks_dropped_total", Counter, [], "Openings not kept because too many waited for the store, or it refused them.";
    WEBHOOKS_EVENTS = "smsfleet_webhooks_events_total", Counter, ["result"], "Events of webhooks, by result of their call: sent, failed (tried again), dead.";
    WEBHOOKS_WAITING = "smsfleet_webhooks_waiting_events", Fleet, [], "Events that wait to be told, counted up to 100,000.";
    WEBHOOKS_DEAD = "smsfleet_webhooks_dead_events", Fleet, [], "Events that were given up and can be replayed, counted up to 100,000.";
    STORE_REQUESTS = "smsfleet_store_requests_total", Counter, ["kind"], "Requests to a cluster's store, by kind: read, write, conditional.";
    STORE_BUDGET = "smsfleet_store_budget_packs_per_second", Fleet, ["kind"], "The store's write budget, by kind: capacity (what the store can take), preparation (what preparation may write), floor (the capacity never falls below it).";
    STORE_COMMIT = "smsfleet_store_commit_latency_seconds", Histogram, [], "One synced commit of the store.";
    STORE_UNREADABLE = "smsfleet_store_unreadable_rows_total", Counter, ["table"], "Stored rows that could not be read and were passed over, each time, by table: batch, parked.";
    STORE_ERRORS = "smsfleet_store_errors_total", Counter, ["code"], "Calls on control rows that failed and were tried again.";
    STORE_CONFLICTS = "smsfleet_store_conflicts_total", Counter, [], "Compare-and-set calls on control rows that were refused: somebody else was first.";
    SERVE_LATENCY = "smsfleet_serve_request_latency_seconds", Histogram, [], "From a request's head to the beginning of its answer.";
    SERVE_REQUESTS = "smsfleet_serve_requests_total", Counter, ["status"], "Requests answered, by HTTP status.";
}

/// Bounds of histograms, in seconds: from a commit on a fast disk to an answer time-out.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];
/// Bounds of the time that reports take: from a handset that is on to as long as most networks try.
const RECEIPT_SECONDS: [f64; 12] = [0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0, 259_200.0];

/// Adds to a counter. `labels` are the metric's label values, in the order of its label names.
pub fn count(metric: &'static Metric, labels: &[&str], n: u64) {
    debug_assert!(metric.kind == Kind::Counter && metric.labels.len() == labels.len(), "{}", metric.name);
    metrics::counter!(metric.name, pairs(metric, labels)).increment(n);
}

/// Sets a counter to what another counter says: one that the system keeps.
pub fn count_to(metric: &'static Metric, labels: &[&str], total: u64) {
    debug_assert!(metric.kind == Kind::Counter && metric.labels.len() == labels.len(), "{}", metric.name);
    metrics::counter!(metric.name, pairs(metric, labels)).absolute(total);
}

/// Sets a gauge; one of the whole fleet only while this process leads.
pub fn set(metric: &'static Metric, labels: &[&str], value: f64) {
    debug_assert!(matches!(metric.kind, Kind::Gauge | Kind::Fleet), "{}", metric.name);
    debug_assert!(metric.labels.len() == labels.len(), "{}", metric.name);
    let gauge = metrics::gauge!(metric.name, pairs(metric, labels));
    if metric.kind == Kind::Gauge {
        return gauge.set(value);
    }
    // Set under the lock: a value of a term that has just ended must not come behind the 0.
    let mut led = led();
    if led.terms > 0 {
        gauge.set(value);
        led.set.insert((metric.name, labels.iter().map(|label| (*label).to_owned()).collect()), gauge);
    }
}

/// The gauges of the fleet that this process has set, and whether it may.
struct Led {
    terms: u32,
    set: BTreeMap<(&'static str, Vec<String>), metrics::Gauge>,
}

fn led() -> MutexGuard<'static, Led> {
    static LED: Mutex<Led> = Mutex::new(Led { terms: 0, set: BTreeMap::new() });
    LED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A term as leader, for the metrics: with its end the fleet's gauges of this process go back to 0, as another process has them.
#[must_use]
pub struct Term(());

impl Term {
    /// Begins a term.
    pub fn begin() -> Term {
        led().terms += 1;
        set(&COORDINATE_LEADING, &[], 1.0);
        Term(())
    }
}

impl Drop for Term {
    fn drop(&mut self) {
        let mut led = led();
        led.terms -= 1;
        // Several coordinators share a process in tests alone.
        if led.terms == 0 {
            set(&COORDINATE_LEADING, &[], 0.0);
            std::mem::take(&mut led.set).into_values().for_each(|gauge| gauge.set(0.0));
        }
    }
}

/// Adds a duration to a histogram.
pub fn observe(metric: &'static Metric, labels: &[&str], took: Duration) {
    debug_assert!(metric.kind == Kind::Histogram && metric.labels.len() == labels.len(), "{}", metric.name);
    metrics::histogram!(metric.name, pairs(metric, labels)).record(took.as_secs_f64());
}

/// Shows a histogram before anything is observed.
pub fn expect(metric: &'static Metric, labels: &[&str]) {
    debug_assert!(metric.kind == Kind::Histogram && metric.labels.len() == labels.len(), "{}", metric.name);
    let _ = metrics::histogram!(metric.name, pairs(metric, labels));
}

fn pairs(metric: &'static Metric, values: &[&str]) -> Vec<metrics::Label> {
    metric.labels.iter().zip(values).map(|(name, value)| metrics::Label::new(*name, (*value).to_owned())).collect()
}

static COUNTED: AtomicBool = AtomicBool::new(false);

/// Whether anything is counted in this process: for what costs more than a call.
pub fn are_counted() -> bool {
    COUNTED.load(Ordering::Relaxed)
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
                .set_buckets_for_metric(Matcher::Full(RECEIPTS_DELAY.name.into()), &RECEIPT_SECONDS)
                .map_err(|error| error.to_string())?
                .build_recorder();
            let handle = recorder.handle();
            metrics::set_global_recorder(recorder).map_err(|error| error.to_string())?;
            for metric in METRICS {
                match metric.kind {
                    Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
                    Kind::Gauge | Kind::Fleet => metrics::describe_gauge!(metric.name, metric.help),
                    Kind::Histogram => metrics::describe_histogram!(metric.name, metric.help),
                }
            }
            COUNTED.store(true, Ordering::Relaxed);
            process::begin();
            zeros::begin();
            Ok(Exporter(handle))
        });
        set(&BUILD_INFO, &[env!("CARGO_PKG_VERSION"), commit], 1.0);
        installed.clone()
    }

    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        process::measure();
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
                let scrapers = ["job", "instance", "namespace", "pod", "service", "endpoint", "container"];
                assert!(!scrapers.contains(label), "{} has a label that scraping sets", metric.name);
            }
        }
    }

    #[test]
    fn what_belongs_to_the_fleet_is_said_by_the_leader_alone() {
        let exporter = Exporter::install("test").expect("no other recorder in the tests");
        let said = || exporter.render().contains("smsfleet_queue_lag_tokens{queue=\"of_a_test\"} 7");
        {
            // Other tests lead at the same time: the term is this test's only for what it has set itself.
            let _term = Term::begin();
            set(&QUEUE_LAG, &["of_a_test"], 7.0);
            assert!(said());
        }
        let still_led = led().terms > 0;
        assert!(still_led || !said(), "a leader that was says nothing of the fleet");
    }

    #[test]
    fn what_was_counted_is_rendered() {
        let exporter = Exporter::install("test").expect("no other recorder in the tests");
        // Other tests count at the same time: exact numbers are this test's only under a label of its own.
        count(&DELIVER_ANSWERS, &["of_a_test", "accepted"], 3);
        observe(&DELIVER_WINDOW_LATENCY, &["of_a_test"], Duration::from_millis(2));
        observe(&STORE_COMMIT, &[], Duration::from_millis(2));
        observe(&RECEIPTS_DELAY, &["of_a_test"], Duration::from_secs(7_000));
        let text = exporter.render();
        for line in [
            "smsfleet_deliver_answers_total{account=\"of_a_test\",class=\"accepted\"} 3",
            "smsfleet_deliver_window_latency_seconds_bucket{account=\"of_a_test\",le=\"0.001\"} 0",
            "smsfleet_deliver_window_latency_seconds_bucket{account=\"of_a_test\",le=\"0.0025\"} 1",
            "smsfleet_receipts_delivery_latency_seconds_bucket{account=\"of_a_test\",le=\"3600\"} 0",
            "smsfleet_receipts_delivery_latency_seconds_bucket{account=\"of_a_test\",le=\"14400\"} 1",
            "smsfleet_links_clicks_dropped_total 0",
        ] {
            assert!(text.lines().any(|said| said == line), "{line} is not in\n{text}");
        }
        for start in ["# HELP smsfleet_build_info ", "smsfleet_process_resident_bytes "] {
            assert!(text.lines().any(|said| said.starts_with(start)), "{start} is not in\n{text}");
        }
        let commits =
            text.lines().find_map(|said| said.strip_prefix("smsfleet_store_commit_latency_seconds_bucket{le=\"0.0025\"} "));
        assert!(commits.is_some_and(|commits| commits.parse::<u64>().is_ok_and(|commits| commits >= 1)), "{text}");
    }
}
