//! Resident memory of a process that holds the fleet alone, for two sizes of batch: it must not grow with the batch. The
//! simulator runs in a process of its own.
//!
//! The figures are only printed, unless `SMSFLEET_BENCH_GROWTH_PERCENT=25` makes more growth than that an error, as
//! `tests/campaign --memory` does.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use smsfleet::simulator::{Simulator, SimulatorConfig};

use crate::delivery::deliver;
use crate::support::{Bed, peak_mb, runtime};

/// Growth above which it is an error, in percent.
const LIMIT: &str = "SMSFLEET_BENCH_GROWTH_PERCENT";

/// Prints the peak for a tenth of `recipients` and for all.
pub fn grow(recipients: u64) {
    // A limit that cannot be read is no reason to go without one, and is said before minutes have passed.
    let limit = std::env::var(LIMIT).ok();
    let limit = limit.map(|most| most.parse::<f64>().unwrap_or_else(|_| panic!("{LIMIT} is a number of percent, not {most}")));
    let mut peaks = Vec::new();
    for size in [recipients / 10, recipients] {
        let (mut simulator, address) = simulator();
        let output = again(&["one-batch", &size.to_string()]).env("BENCH_SIMULATOR", address).output().expect("it runs again");
        drop(simulator.stdin.take());
        let _ = simulator.wait();
        let text = String::from_utf8_lossy(&output.stdout);
        let peak = text.lines().find_map(|line| line.trim().strip_prefix("peak ")?.split(' ').next()?.parse::<u64>().ok());
        match peak {
            Some(peak) => println!("  {size} recipients: peak {peak} MB"),
            None => println!("  {size} recipients: no figure: {text}{}", String::from_utf8_lossy(&output.stderr)),
        }
        peaks.extend(peak);
    }
    let growth = match peaks[..] {
        [small, large] => Some((large as f64 / small as f64 - 1.0) * 100.0),
        _ => None,
    };
    if let Some(growth) = growth {
        println!("  {growth:+.1} % from the one to the other");
    }
    if let Some(most) = limit {
        assert!(growth.is_some_and(|growth| growth <= most), "{growth:?} % of growth, and {most} % are allowed ({LIMIT})");
    }
}

fn again(words: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.arg("--bench").args(words);
    command
}

/// A simulator in a process of its own: it ends when its input does.
fn simulator() -> (Child, String) {
    let mut child = again(&["simulator-alone"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs again");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let address = lines.find_map(|line| line.ok()?.strip_prefix("listens on ").map(str::to_owned));
    (child, address.expect("the simulator says where it listens"))
}

/// The simulator's process.
pub fn simulator_alone() {
    runtime().block_on(async {
        let simulator =
            Simulator::start(SimulatorConfig { count_numbers: false, ..SimulatorConfig::local() }).await.expect("started");
        println!("listens on {}", simulator.smpp_addr().expect("it listens"));
        let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await;
        simulator.stop().await;
    });
}

/// One batch with receipts, and the peak of this process.
pub fn one_batch(recipients: Option<u64>) {
    let recipients = recipients.unwrap_or(1_000_000);
    let address: SocketAddr = std::env::var("BENCH_SIMULATOR").expect("the simulator's address").parse().expect("an address");
    runtime().block_on(async {
        let bed = Bed::at(address.port(), recipients, |_| {}).await;
        let (sent, settled) = deliver(&bed, recipients).await;
        println!("  sent in {sent:.1?}, settled in {settled:.1?}");
        bed.fleet.stop().await;
    });
    println!("  peak {} MB", peak_mb());
}
