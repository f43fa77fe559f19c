//! Simulation: the real roles over in-memory ports, time and chance from a seed.
//!
//! One seed makes one run: some batches, a few processes (with all roles, or each with one, as in a cluster), and a schedule of
//! crashes, freezes, stops, lost queues, lost leases and operators at bad moments, over a store that is unavailable, times out,
//! times out but applies, applies late, and is full, and a provider that throttles, refuses, answers late or not at all and sends
//! receipts early, late, twice, and is away at times. Operators meet the same store, and may go away before they are answered, also in
//! the middle of a recovery. Some batches wait for a person who starts them, some may be sent until some time only, some ask to be
//! sent again where an answer is missing. Then everything heals, the batches are driven to their end, and an oracle that only watched the
//! provider, and what kept each worker waiting (`books`), compares. Nobody is in doubt, or left unsent, by what befell a worker before
//! or after it mattered (`doubts`); nobody is sent again whose answer was there when it had to be (`again`).
//!
//! What must hold all the time is looked at all the time: every change of a control row at its write (`laws`), every committed
//! token at its commit (`queues`), every message as it arrives (`network`), panics where they happen (`panics`). The run ends with
//! the first of them.
//!
//! A frozen process stands: none of its tasks is polled, its session ends soon, later or not at all, and when it wakes it goes on
//! where it stood, is told of what it lost a little later, joins again and works on.
//!
//! What it cannot show: the store engine, the file formats, sockets and real time; rates that several processes share and bind
//! slots; sending hours, of which there are scenes alone; links, erasure, messages from people, webhooks' calls and old data that is
//! let go, which have nothing to do here. Conformance, end-to-end tests and those of `tests/processes` own those.

mod again;
mod books;
mod doubts;
mod faults;
mod known;
mod lanes;
mod laws;
mod limit;
#[cfg(debug_assertions)]
mod mutations;
pub mod network;
mod operators;
pub mod oracle;
mod panics;
mod ports;
pub mod process;
mod queues;
mod restore;
pub mod run;
mod scenes;
mod source;
mod troubles;

use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use faults::Fired;
use run::{Outcome, simulate, simulate_telling};

/// Seeds that every test run explores. `SIMULATION_SEEDS=from..to` explores others, `SIMULATION_MINUTES=n` ends after a time.
const SEEDS: std::ops::Range<u64> = 0..300;
/// From so many seeds on every kind of fault must have fired: have hit something, that is.
const ENOUGH: u64 = 150;

fn seeds() -> std::ops::Range<u64> {
    let wanted = std::env::var("SIMULATION_SEEDS").ok();
    let parsed =
        wanted.as_deref().and_then(|text| text.split_once("..")).and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    parsed.unwrap_or(SEEDS)
}

/// Calls `run` with each of `all` on all cores; each call is a run of its own.
fn on_all_cores<T: Send>(all: impl Iterator<Item = T> + Send, run: impl Fn(T) + Sync) {
    let all = Mutex::new(all);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |cores| cores.get()) {
            scope.spawn(|| {
                loop {
                    let next = all.lock().expect("not poisoned").next();
                    let Some(next) = next else { return };
                    run(next);
                }
            });
        }
    });
}

/// What a seed came to, or the story of what went wrong.
fn explore(seed: u64) -> Result<Outcome, String> {
    let fired = Fired::default();
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| simulate_telling(seed, &fired)));
    ended.unwrap_or_else(|_| Err("it panicked".into())).map_err(|wrong| format!("{wrong}{fired}"))
}

#[test]
fn nobody_is_lost_and_nobody_gets_it_twice() {
    let (seeds, all, wrong) = (seeds(), Mutex::new(Outcome::default()), Mutex::new(Vec::new()));
    let done = AtomicU64::new(0);
    let begun = std::time::Instant::now();
    let minutes = std::env::var("SIMULATION_MINUTES").ok().map(|minutes| minutes.parse::<u64>().expect("a number of minutes"));
    let in_time = |_: &u64| minutes.is_none_or(|minutes| begun.elapsed().as_secs() < minutes * 60);
    on_all_cores(seeds.clone().take_while(in_time), |seed| {
        match explore(seed) {
            Ok(outcome) => {
                // So that what two machines made of the same seeds can be compared.
                println!("seed {seed}: trace {:016x}", outcome.trace);
                all.lock().expect("not poisoned").add(&outcome);
            }
            Err(story) => {
                eprintln!("seed {seed}: {story}\nagain: SIMULATION_SEEDS={seed}..{} cargo test simulation::nobody", seed + 1);
                wrong.lock().expect("not poisoned").push(seed);
            }
        }
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(1_000) {
            println!("{done} seeds after {} s", begun.elapsed().as_secs());
        }
    });
    let (all, mut wrong) = (all.into_inner().expect("not poisoned"), wrong.into_inner().expect("not poisoned"));
    wrong.sort_unstable();
    println!("{all:#?}");
    println!("{} seeds in {} s", all.runs, begun.elapsed().as_secs());
    assert!(wrong.is_empty(), "these seeds went wrong: {wrong:?}");
    // A run that proved nothing fails: every kind of fault must have fired, and most people must have got their message.
    if seeds.end - seeds.start >= ENOUGH {
        assert!(all.accepted > 10_000, "too few messages were accepted: {all:?}");
        assert!(all.quiet * 4 < all.runs, "in too many runs nobody was sent to: {all:?}");
        for (fault, times) in &all.faults {
            assert!(*times > 0, "the fault {fault} never fired");
        }
        assert!(all.uncertain > 0 && all.canceled > 0 && all.expired > 0, "no run was hard enough: {all:?}");
    }
}

#[test]
fn the_same_seed_makes_the_same_run() {
    // In each of them a process is frozen and woken, a queue lost, partitions moved.
    on_all_cores([0, 3, 10, 14, 17, 21, 28, 29].into_iter(), |seed| {
        let traces = [seed, seed, seed + 1].map(|seed| simulate(seed).expect("the run ends well").trace);
        assert_eq!(traces[0], traces[1], "seed {seed}");
        assert_ne!(traces[0], traces[2], "seed {seed}");
    });
}
