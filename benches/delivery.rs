//! Delivery over SMPP on loopback, with the ledger on and nothing relaxed.

use std::time::{Duration, Instant};

use smsfleet::model::account::ReceiptRules;
use smsfleet::model::step::CurrentStep;
use smsfleet::roles::config::AccountConfig;
use smsfleet::simulator::{Faults, Receipts, Simulator, SimulatorConfig, SimulatorReport};

use crate::Bench;
use crate::support::{Bed, config, resident_mb, runtime, wait};
use crate::{bare, memory};

/// The benches of this file.
pub const BENCHES: &[(&str, Bench)] = &[
    ("delivery: as fast as it goes, and the bare client", |size| fast(size.unwrap_or(2_000_000))),
    ("delivery: every receipt asked for, matched and durable", |size| receipts(size.unwrap_or(1_000_000))),
    ("delivery: an account that allows 1,000 and 5,000 a second, told and not told", |_| limits()),
    ("memory: resident, 1 million and 10 million recipients", |size| memory::grow(size.unwrap_or(10_000_000))),
];

fn local(faults: Faults, receipts: Receipts) -> SimulatorConfig {
    SimulatorConfig { count_numbers: false, faults, receipts, ..SimulatorConfig::local() }
}

/// What one batch came to.
pub struct Ran {
    /// From the start of delivery to its end.
    pub sent: Duration,
    /// From the start of delivery to the settled report.
    pub settled: Duration,
    /// Resident memory at the end, in megabytes.
    pub resident: u64,
    /// Preparation.
    pub prepared: Duration,
    /// What the simulator saw.
    pub report: SimulatorReport,
}

/// Prepares, delivers and settles one batch.
pub async fn run(simulator: SimulatorConfig, recipients: u64, change: impl FnOnce(&mut AccountConfig)) -> Ran {
    let simulator = Simulator::start(simulator).await.expect("the simulator starts");
    let bed = Bed::at(simulator.smpp_addr().expect("it listens").port(), recipients, change).await;
    let (sent, settled) = deliver(&bed, recipients).await;
    let resident = resident_mb();
    bed.fleet.stop().await;
    let report = simulator.stop().await;
    Ran { sent, settled, resident, prepared: bed.prepared_in, report }
}

/// Delivers and settles a sealed batch: the time to the last answer, and to the settled report.
pub async fn deliver(bed: &Bed, recipients: u64) -> (Duration, Duration) {
    let began = Instant::now();
    bed.fleet.service.start(bed.id, None).await.expect("started");
    wait(&bed.fleet.service, bed.id, |row| row.current_step == CurrentStep::Delivery && row.delivery.state.is_final()).await;
    let sent = began.elapsed();
    let (row, _) = wait(&bed.fleet.service, bed.id, |row| row.settlement.as_ref().is_some_and(|s| s.settled)).await;
    let settlement = row.settlement.expect("it is settled");
    assert_eq!(settlement.unaccounted(), 0);
    assert_eq!(settlement.outcomes.get("accepted"), Some(&recipients), "{:?}", settlement.outcomes);
    (sent, began.elapsed())
}

fn no_receipts(account: &mut AccountConfig) {
    account.receipts = ReceiptRules { wanted: false, ..account.receipts.clone() };
}

fn fast(recipients: u64) {
    runtime().block_on(async {
        let simulator = Simulator::start(local(Faults::default(), Receipts::default())).await.expect("the simulator starts");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = simulator.smpp_addr().expect("it listens").port();
        let bare = bare::rate(&config(folder.path(), port, no_receipts), recipients).await;
        simulator.stop().await;
        println!("  bare client, 4 binds of window 500: {bare:.0} messages/s");
        let ran = run(local(Faults::default(), Receipts::default()), recipients, no_receipts).await;
        let rate = recipients as f64 / ran.sent.as_secs_f64();
        println!("  prepared {recipients} in {:.2?}: {:.0}/s", ran.prepared, recipients as f64 / ran.prepared.as_secs_f64());
        println!(
            "  delivered {recipients} in {:.2?}: {rate:.0} messages/s, {:.0} % of the bare client",
            ran.sent,
            rate / bare * 100.0
        );
        let best = ran.report.accepted_per_second.iter().max().copied().unwrap_or(0);
        println!("  best second: {best} messages, {:.0} % of the bare client", f64::from(best) / bare * 100.0);
    });
}

fn receipts(recipients: u64) {
    runtime().block_on(async {
        let ran = run(local(Faults::default(), Receipts::default()), recipients, |_| {}).await;
        println!("  delivered in {:.2?}: {:.0}/s", ran.sent, recipients as f64 / ran.sent.as_secs_f64());
        println!(
            "  settled in {:.2?}: {:.0} messages with their receipts a second",
            ran.settled,
            recipients as f64 / ran.settled.as_secs_f64()
        );
        println!("  resident {} MB, the simulator included", ran.resident);
    });
}

fn limits() {
    for limit in [1_000u32, 5_000] {
        for told in [true, false] {
            let recipients = u64::from(limit) * 20;
            runtime().block_on(async {
                let faults = Faults { rate: limit, ..Faults::default() };
                let ran = run(local(faults, Receipts::default()), recipients, |account| {
                    no_receipts(account);
                    account.rate = told.then_some(limit);
                })
                .await;
                let used = recipients as f64 / ran.sent.as_secs_f64() / f64::from(limit) * 100.0;
                let throttled = ran.report.throttled as f64 / ran.report.submits as f64 * 100.0;
                let said = if told { "told" } else { "not told" };
                println!("  {limit}/s, {said}: used to {used:.1} %, {throttled:.2} % of answers throttled");
            });
        }
    }
}
