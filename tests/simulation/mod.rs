//! Simulation: the real roles over in-memory ports, time and chance from a seed.
//!
//! One seed makes one run: some batches, a few processes, and a schedule of crashes, freezes, stops, lost queues, lost leases
//! and operators at bad moments, over a store that is unavailable, times out, times out but applies, and applies late, and a
//! provider that throttles, refuses, answers late or not at all and sends receipts early, late, twice. Then everything heals,
//! the batches are driven to their end, and an oracle that only watched the provider compares.
//!
//! What it cannot show: the store engine, the file formats, sockets and real time. Conformance and end-to-end tests own
//! those.

mod faults;
mod mutations;
mod network;
mod operators;
mod oracle;
mod process;
mod run;
mod scenes;
mod source;

use run::{Outcome, simulate};

/// Seeds that every test run explores. `SIMULATION_SEEDS=from..to` explores others.
const SEEDS: std::ops::Range<u64> = 0..150;

fn seeds() -> std::ops::Range<u64> {
    let wanted = std::env::var("SIMULATION_SEEDS").ok();
    let parsed =
        wanted.as_deref().and_then(|text| text.split_once("..")).and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    parsed.unwrap_or(SEEDS)
}

#[test]
fn nobody_is_lost_and_nobody_gets_it_twice() {
    let mut all = Outcome::default();
    for seed in seeds() {
        let outcome = std::panic::catch_unwind(|| simulate(seed));
        match outcome {
            Ok(Ok(outcome)) => all.add(&outcome),
            Ok(Err(story)) => panic!("seed {seed}: {story}\nagain: SIMULATION_SEEDS={seed}..{} cargo test simulation", seed + 1),
            Err(_) => panic!("seed {seed} panicked\nagain: SIMULATION_SEEDS={seed}..{} cargo test simulation", seed + 1),
        }
    }
    println!("{all:#?}");
    // A run that proved nothing fails: every kind of fault must have fired, and most people must have got their message.
    if seeds().end - seeds().start >= 100 {
        assert!(all.accepted > 10_000, "too few messages were accepted: {all:?}");
        for (fault, times) in &all.faults {
            assert!(*times > 0, "the fault {fault} never fired");
        }
        assert!(all.uncertain > 0 && all.canceled > 0, "no run was hard enough: {all:?}");
    }
}

#[test]
fn the_same_seed_makes_the_same_run() {
    for seed in [3, 8] {
        let first = simulate(seed).expect("the run ends well").trace;
        let second = simulate(seed).expect("the run ends well").trace;
        assert_eq!(first, second, "seed {seed}");
        assert_ne!(first, simulate(seed + 1).expect("the run ends well").trace);
    }
}
