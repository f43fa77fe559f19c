//! Delivery over SMPP on loopback, with the ledger on and nothing relaxed.

use std::time::Instant;

use smsfleet::model::account::ReceiptRules;
use smsfleet::model::step::CurrentStep;
use smsfleet::simulator::{Simulator, SimulatorConfig};

use crate::Bench;
use crate::support::{Bed, resident_mb, runtime, wait};

/// The benches of this file.
pub const BENCHES: &[(&str, Bench)] = &[("delivery: no receipts", no_receipts), ("delivery: receipts", receipts)];

fn no_receipts(size: Option<u64>) {
    deliver(size.unwrap_or(1_000_000), false);
}

fn receipts(size: Option<u64>) {
    deliver(size.unwrap_or(300_000), true);
}

fn deliver(recipients: u64, receipts: bool) {
    runtime().block_on(async {
        let simulator =
            Simulator::start(SimulatorConfig { count_numbers: false, ..SimulatorConfig::local() }).await.expect("started");
        let bed = Bed::prepare(simulator, recipients, |account| {
            account.receipts = ReceiptRules { wanted: receipts, ..account.receipts.clone() };
        })
        .await;
        println!(
            "  prepared {recipients} in {:.2?}: {:.0}/s",
            bed.prepared_in,
            recipients as f64 / bed.prepared_in.as_secs_f64()
        );
        let began = Instant::now();
        bed.fleet.service.start(bed.id, None).await.expect("started");
        wait(&bed.fleet.service, bed.id, |row| row.current_step == CurrentStep::Delivery && row.delivery.state.is_final()).await;
        let sent = began.elapsed();
        println!("  delivered in {sent:.2?}: {:.0}/s, {} MB resident", recipients as f64 / sent.as_secs_f64(), resident_mb());
        let (row, _) = wait(&bed.fleet.service, bed.id, |row| row.settlement.as_ref().is_some_and(|s| s.settled)).await;
        let settled = began.elapsed();
        println!("  settled in {settled:.2?}: {:.0}/s", recipients as f64 / settled.as_secs_f64());
        let settlement = row.settlement.expect("settled");
        println!("  {:?} {:?}", settlement.outcomes, settlement.deliveries);
        bed.fleet.stop().await;
        let report = bed.simulator.stop().await;
        println!("  simulator: {} submits, {} throttled", report.submits, report.throttled);
    });
}
