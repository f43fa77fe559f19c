//! Leadership over Redis: it moves when a leader is killed, at once when it is told to stop, and two at once do no harm.

use std::time::{Duration, SystemTime};

use crate::endtoend::fixture::{Provider, list};

use super::fleet::{Fleet, Servers, ended_in};

/// Times are printed; what is asserted leaves a busy machine room.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn another_coordinator_leads_when_the_leader_is_killed_or_stopped() {
    let provider = Provider::start();
    let mut fleet = Fleet::new(Servers::shared(), &provider, 1_000);
    fleet.start_all(&["coordinator", "coordinator"]);
    let after_kill = moved(&mut fleet, |fleet, at| {
        fleet.kill(at);
    });
    let after_stop = moved(&mut fleet, |fleet, at| {
        let (_, code) = fleet.terminate(at);
        assert_eq!(code, Some(0), "it ends in order");
    });
    eprintln!("led again {after_kill:?} after kill -9, {after_stop:?} after SIGTERM");
    assert!(after_kill < PATIENCE && after_stop < PATIENCE);
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

#[test]
fn two_leaders_at_once_do_no_harm() {
    let provider = Provider::start();
    let mut fleet = Fleet::new(Servers::shared(), &provider, 2_000);
    fleet.start_all(&["coordinator", "coordinator", "prepare", "deliver", "gateway"]);
    fleet.until("somebody leads", |fleet| fleet.leader().is_some());
    fleet.place.write("list.csv", list(3_000));
    let batch = fleet.create("list.csv", "Hello {{name}}");
    // A frozen leader wakes in the middle of its round and believes that it leads, while the other one does.
    for _ in 0..3 {
        let leader = fleet.leader().expect("somebody leads");
        let at = fleet.place_of(leader);
        fleet.signal(at, "STOP");
        fleet.until("the other one leads", |fleet| fleet.leader().is_some_and(|now| now != leader));
        fleet.signal(at, "CONT");
    }
    fleet.until("the batch has ended", |fleet| fleet.delivery(&batch) == "COMPLETED_SUCCEEDED");
    let report = fleet.ask(&["report", &batch, "--json"]);
    assert_eq!(ended_in(&report, "accepted"), 3_000, "{report}");
    let counted = provider.get().report();
    assert_eq!((counted.complete_messages, counted.repeated_numbers), (3_000, 0), "{counted:?}");
}
