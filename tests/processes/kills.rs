//! One batch through everything that goes wrong in a night: processes killed, frozen and joining, servers restarted, Redis
//! emptied, a pause. The sum is exact, nobody gets it twice, and in doubt are only those who were in flight at a hard kill.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::endtoend::fixture::{Provider, count, list, number, taken_as_listed};

use super::fleet::{Fleet, Servers};

/// Valid numbers, rows that repeat one, and rows without any.
const REPEATED: u64 = 300;
const INVALID: u64 = 200;
/// Segments a second: slow enough that restarts of servers end long before the batch does.
const RATE: u32 = 2_000;
/// Kafka's session time-out here is six seconds: whoever is frozen for longer is thrown out.
const FROZEN: Duration = Duration::from_secs(9);
/// People that one hard kill of a deliverer may leave in doubt: its open windows, twice what its rate makes of the time an
/// answer takes, or two windows of the whole rate for 200 ms; and as much again for what its successor takes over meanwhile.
const IN_DOUBT_PER_KILL: u64 = 3 * RATE as u64;

fn numbers() -> u64 {
    std::env::var("SMSFLEET_TEST_RECIPIENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(200_000)
}

#[test]
fn a_batch_survives_kills_of_every_role_and_restarts_of_every_server() {
    let numbers = numbers();
    let provider = Provider::start();
    let mut fleet = Fleet::new(Servers::own(), &provider, RATE);
    fleet.start_all(&["coordinator", "coordinator", "prepare", "prepare", "deliver", "deliver", "deliver", "gateway"]);
    let repeated: String = (0..REPEATED).map(|row| format!("+{},again\n", number(row * 7))).collect();
    let invalid: String = (0..INVALID).map(|row| format!("12{row},nobody\n")).collect();
    fleet.place.write("list.csv", list(numbers) + &repeated + &invalid);
    let begun = Instant::now();
    let batch = fleet.create("list.csv", "Hello {{name}}, your table is ready");

    let mut fired: BTreeMap<&str, u32> = BTreeMap::new();
    let mut hit = |what| *fired.entry(what).or_default() += 1;
    // While it is prepared: both preparers, so that whoever holds a range is among them.
    fleet.until("a range is claimed", |fleet| {
        let lag = fleet.view()["lag"]["prepare"].as_u64();
        lag.is_some_and(|lag| lag > 0) || provider.messages() > 0
    });
    for _ in 0..2 {
        let at = fleet.some("prepare");
        fleet.kill(at);
        hit("preparer killed");
    }
    fleet.start("prepare");
    fleet.start("prepare");

    let mut doubted_kills = 0;
    let passed = |share: u64| numbers * share / 100;
    let sent = |fleet: &mut Fleet, share: u64| {
        fleet.until(&format!("{share} % were sent"), |_| provider.messages() >= passed(share));
    };
    sent(&mut fleet, 3);
    eprintln!("sending after {:.1} s", begun.elapsed().as_secs_f64());
    let leader = fleet.leader().expect("somebody leads");
    let at = fleet.place_of(leader);
    fleet.kill(at);
    hit("leading coordinator killed");
    fleet.start("coordinator");

    sent(&mut fleet, 12);
    let at = fleet.some("deliver");
    fleet.kill(at);
    doubted_kills += 1;
    hit("deliverer killed");
    fleet.start("deliver");

    sent(&mut fleet, 22);
    let at = fleet.some("gateway");
    fleet.kill(at);
    hit("gateway killed");
    fleet.start("gateway");

    sent(&mut fleet, 28);
    fleet.servers.flush_redis();
    hit("Redis emptied");

    sent(&mut fleet, 36);
    fleet.servers.restart("kafka");
    hit("Kafka restarted");

    sent(&mut fleet, 46);
    fleet.servers.restart("cassandra");
    hit("Cassandra restarted");

    sent(&mut fleet, 56);
    let at = fleet.some("deliver");
    fleet.signal(at, "STOP");
    let frozen = Instant::now();
    while frozen.elapsed() < FROZEN {
        std::thread::sleep(Duration::from_millis(100));
    }
    fleet.signal(at, "CONT");
    doubted_kills += 1;
    hit("deliverer frozen past its session and woken");

    sent(&mut fleet, 68);
    let paused = fleet.run(&["batch", "pause", &batch, "--wait", "30", "--json"]).ended(0).json();
    assert_eq!(paused["pause"]["still"], true, "{paused}");
    let at_pause = provider.messages();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(provider.messages(), at_pause, "nothing is sent while it is paused and nothing is in flight");
    fleet.run(&["batch", "resume", &batch, "--json"]).ended(0);
    hit("paused and resumed");

    sent(&mut fleet, 78);
    fleet.start("deliver");
    fleet.until("the newcomer has its share", |fleet| {
        let shares: Vec<usize> = fleet
            .alive()
            .iter()
            .filter(|member| member["role"] == "deliver")
            .filter_map(|member| Some(member["partitions"].as_array()?.len()))
            .collect();
        shares.len() == 4 && shares.iter().all(|share| *share >= 20)
    });
    hit("a fourth deliverer joined");

    fleet.until("the batch has ended", |fleet| {
        let said = fleet.run(&["batch", "show", &batch, "--json"]);
        said.code == Some(0) && said.json()["delivery"]["state"].as_str().is_some_and(|state| state.starts_with("COMPLETED"))
    });
    let took = begun.elapsed();

    let total = numbers + REPEATED + INVALID;
    let mut report = serde_json::Value::Null;
    fleet.until("the report can be read", |fleet| {
        let said = fleet.run(&["report", &batch, "--json"]);
        report = said.json();
        let is_there = count(&report, "/settlement/records") > 0;
        if !is_there {
            eprintln!("no report: {report}");
        }
        is_there
    });
    let of = |outcome: &str| count(&report, &format!("/settlement/outcomes/{outcome}"));
    let outcomes = ["accepted", "failed", "uncertain", "rejected", "duplicate", "suppressed", "expired", "canceled"];
    let counted = provider.get().report();
    eprintln!(
        "{numbers} recipients in {:.1} s; accepted {}, uncertain {}, repeated at the provider {}; fired: {fired:?}",
        took.as_secs_f64(),
        of("accepted"),
        of("uncertain"),
        counted.repeated_numbers
    );
    assert_eq!((counted.repeated_numbers, counted.complete_per_number_max), (0, 1), "{counted:?}");
    assert_eq!(count(&report, "/settlement/records"), total, "{report}");
    assert_eq!(outcomes.map(of).iter().sum::<u64>(), total, "nothing is lost: {report}");
    assert_eq!((of("duplicate"), of("rejected"), of("failed")), (REPEATED, INVALID, 0), "{report}");
    assert!(of("uncertain") <= doubted_kills * IN_DOUBT_PER_KILL, "{} in doubt", of("uncertain"));

    let (accepted, uncertain) = taken_as_listed(&fleet.place, &provider, &batch, total);
    assert_eq!((accepted.len() as u64, uncertain.len() as u64), (of("accepted"), of("uncertain")));
    assert_eq!(fired.values().sum::<u32>(), 11, "each fault fired: {fired:?}");
    fleet.all_live();
    let logs = fleet.logs();
    assert!(!logs.contains(&number(5).to_string()) && !logs.contains("your table is ready"), "numbers and texts are in no log");
}
