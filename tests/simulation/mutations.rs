//! The proof of the proof: deliberate bugs, each of which the simulation must find.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use smsfleet::runtime::mutation::{Bug, switch_on};

use super::run::simulate;
use super::{on_all_cores, seeds};

/// Seeds that found the rarer bugs before: they are tried first, so that this takes seconds and not a quarter of an hour. A
/// change of the program moves them; then the others are tried.
const FIRST: [(Bug, u64); 17] = [
    (Bug::UnknownIsRefused, 3),
    (Bug::NoSuppression, 7),
    (Bug::NoSendBy, 114),
    (Bug::ConditionalAnswers, 118),
    (Bug::ForgetNotNow, 8),
    (Bug::UnknownIsApplied, 19),
    (Bug::NoFenceOnCancel, 200),
    (Bug::LostWakeUp, 2),
    (Bug::ForgetGivenBack, 42),
    (Bug::LeaveDeclared, 233),
    (Bug::NoFenceOnPause, 189),
    (Bug::NoFenceOnProvider, 157),
    (Bug::FinishOpen, 8),
    (Bug::TrustOldAnswers, 116),
    (Bug::PlanAgain, 7),
    (Bug::KeepRevoked, 8),
    (Bug::RetryRestored, 53),
];

/// The first seed that fails with a bug and not without it, and what it says. A panic of the test itself is no finding.
fn found(bug: Bug) -> Option<(u64, String)> {
    let first = FIRST.iter().filter(|(of, _)| *of == bug).map(|(_, seed)| *seed);
    first.chain(seeds()).find_map(|seed| {
        let story = {
            let _on = switch_on(bug);
            catch_unwind(AssertUnwindSafe(|| simulate(seed))).ok()?.err()?
        };
        simulate(seed).is_ok().then(|| (seed, story.lines().next().unwrap_or_default().chars().take(120).collect()))
    })
}

#[test]
fn every_deliberate_bug_is_found() {
    // `SIMULATION_BUGS=NoIndex,LostWakeUp` looks at some alone, `SIMULATION_SEEDS=250..900` at other seeds.
    let wanted = std::env::var("SIMULATION_BUGS").ok();
    let is_wanted = |bug: &Bug| wanted.as_ref().is_none_or(|names| names.split(',').any(|name| name == format!("{bug:?}")));
    let bugs: Vec<Bug> = Bug::ALL.iter().copied().filter(is_wanted).collect();
    let survivors = Mutex::new(vec![]);
    on_all_cores(bugs.iter().copied(), |bug| match found(bug) {
        Some((seed, story)) => println!("{bug:?}: seed {seed}: {story}"),
        None => survivors.lock().expect("not poisoned").push(bug),
    });
    let survivors = survivors.into_inner().expect("not poisoned");
    println!("{} of {} deliberate bugs were found", bugs.len() - survivors.len(), bugs.len());
    assert!(!bugs.is_empty(), "no bug has such a name: {wanted:?}");
    assert!(survivors.is_empty(), "{survivors:?} survive the seeds {:?}: the simulation has to be improved", seeds());
}
