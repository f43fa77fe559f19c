//! Resident memory of a process of its own, for two sizes of batch: it must not grow with the batch.

use std::process::Command;

use smsfleet::simulator::{Faults, Receipts, SimulatorConfig};

use crate::delivery::run;
use crate::support::{peak_mb, runtime};

/// Prints the peak for a tenth of `recipients` and for all, each in a process of its own.
pub fn grow(recipients: u64) {
    let mut peaks = Vec::new();
    for size in [recipients / 10, recipients] {
        let output = Command::new(std::env::current_exe().expect("this program"))
            .args(["--bench", "one-batch", &size.to_string()])
            .output()
            .expect("this program runs again");
        let text = String::from_utf8_lossy(&output.stdout);
        let peak = text.lines().find_map(|line| line.trim().strip_prefix("peak ")?.split(' ').next()?.parse::<u64>().ok());
        match peak {
            Some(peak) => println!("  {size} recipients: peak {peak} MB, the simulator included"),
            None => println!("  {size} recipients: no figure: {text}{}", String::from_utf8_lossy(&output.stderr)),
        }
        peaks.extend(peak);
    }
    if let [small, large] = peaks[..] {
        println!("  {:+.1} % from the one to the other", (large as f64 / small as f64 - 1.0) * 100.0);
    }
}

/// One batch with receipts, and the peak of this process.
pub fn one_batch(recipients: Option<u64>) {
    let recipients = recipients.unwrap_or(1_000_000);
    runtime().block_on(async {
        let simulator = SimulatorConfig {
            count_numbers: false,
            faults: Faults::default(),
            receipts: Receipts::default(),
            ..SimulatorConfig::local()
        };
        let ran = run(simulator, recipients, |_| {}).await;
        println!("  settled in {:.1?}", ran.settled);
    });
    println!("  peak {} MB", peak_mb());
}
