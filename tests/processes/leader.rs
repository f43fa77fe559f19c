//! Leadership over Redis: it moves when a leader is killed, at once when it is told to stop, and two at once do no harm.

use std::time::{Duration, SystemTime};

use smsfleet::coordinate::leader::Terms;

use crate::endtoend::fixture::{Provider, list};

use super::fleet::{Fleet, Servers, ended_in};

/// Whoever is killed keeps its lease until it ends; another one leads within this time.
const AFTER_KILL: Duration = Duration::from_secs(10);
/// A busy machine may hold up a move: the best of so many counts.
const MOVES: usize = 3;

#[test]
fn another_coordinator_leads_when_the_leader_is_killed_or_stopped() {
    let provider = Provider::start();
    let mut fleet = Fleet::new(Servers::shared(), &provider, 1_000);
    fleet.start_all(&["coordinator", "coordinator"]);
    let after_kill = best(&mut fleet, AFTER_KILL, |fleet, at| {
        fleet.kill(at);
    });
    // A lease that is not given up lives on for at least its time less the pause between two renewals: who leads sooner than
    // that was given it.
    let terms = Terms::default();
    let given_up = terms.ttl - terms.ttl / 3;
    let after_stop = best(&mut fleet, given_up, |fleet, at| {
        let (_, code) = fleet.terminate(at);
        assert_eq!(code, Some(0), "it ends in order");
    });
    eprintln!("led again {after_kill:?} after kill -9, {after_stop:?} after SIGTERM; limits {AFTER_KILL:?} and {given_up:?}");
    assert!(after_kill < AFTER_KILL && after_stop < given_up);
}

/// The shortest of a few moves; the first that is short enough is the last.
fn best(fleet: &mut Fleet, enough: Duration, end: impl Fn(&mut Fleet, usize)) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..MOVES {
        best = best.min(moved(fleet, &end));
        if best < enough {
            break;
        }
        eprintln!("a move took {best:?}: once more");
    }
    best
}

/// How long nobody led when the leader ended so. A leader that the machine kept from renewing its lock may have lost it just
/// before: then the next one is ended.
fn moved(fleet: &mut Fleet, end: impl Fn(&mut Fleet, usize)) -> Duration {
    for _ in 0..5 {
        let mut leads = None;
        fleet.until("one of two leads", |fleet| {
            leads = fleet.leader().and_then(|leader| Some((leader, fleet.find(leader)?)));
            leads.is_some() && fleet.alive().len() == 2
        });
        let (leader, at) = leads.expect("one leads");
        let ended = SystemTime::now();
        end(fleet, at);
        fleet.until("the other one leads", |fleet| fleet.leader().is_some_and(|now| now != leader));
        let led = fleet.led_at();
        fleet.start("coordinator");
        if let Some(after) = led.and_then(|at| at.duration_since(ended).ok()) {
            return after;
        }
    }
    panic!("whoever is ended does not lead any more");
}

/// Segments a second while leaders freeze: so slow that the batch outlives all of it.
const SLOW: u32 = 20;

#[test]
fn two_leaders_at_once_do_no_harm() {
    let provider = Provider::start();
    let mut fleet = Fleet::new(Servers::shared(), &provider, SLOW);
    fleet.start_all(&["coordinator", "coordinator", "prepare", "deliver", "gateway"]);
    fleet.until("somebody leads", |fleet| fleet.leader().is_some());
    fleet.place.write("list.csv", list(3_000));
    let batch = fleet.create("list.csv", "Hello {{name}}");
    fleet.until("some were sent", |_| provider.messages() > 0);
    // A frozen leader wakes in the middle of its round and believes that it leads, while the other one does.
    for _ in 0..3 {
        let leader = fleet.leader().expect("somebody leads");
        let at = fleet.place_of(leader);
        assert_eq!(fleet.delivery(&batch), "RUNNING", "it is frozen in the middle of the batch");
        let sent = provider.messages();
        fleet.signal(at, "STOP");
        fleet.until("the other one leads", |fleet| fleet.leader().is_some_and(|now| now != leader));
        assert_eq!(fleet.delivery(&batch), "RUNNING", "it wakes in the middle of the batch");
        fleet.signal(at, "CONT");
        fleet.until("sending goes on", |_| provider.messages() > sent);
        eprintln!("a leader was frozen from {sent} to {} sent of 3,000", provider.messages());
    }
    assert_eq!(fleet.delivery(&batch), "RUNNING");
    fleet.run(&["account", "rate", "main", "4000"]).ended(0);
    fleet.until("the batch has ended", |fleet| fleet.delivery(&batch) == "COMPLETED_SUCCEEDED");
    let report = fleet.ask(&["report", &batch, "--json"]);
    assert_eq!(ended_in(&report, "accepted"), 3_000, "{report}");
    let counted = provider.get().report();
    assert_eq!((counted.complete_messages, counted.repeated_numbers), (3_000, 0), "{counted:?}");
}
