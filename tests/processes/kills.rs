//! A batch through everything that goes wrong in a night: processes killed, frozen and joining, servers restarted, Redis
//! emptied, pauses. The sum is exact, nobody gets it twice, and in doubt are only those who were in flight at a hard kill.
//!
//! The order of the faults and the moments are drawn from a seed, which is printed. As it stands every fault comes once.
//! `SMSFLEET_KILLS_SEED=7` repeats a schedule; `SMSFLEET_KILLS_MINUTES=30` sends for about so long, with the faults again and again.
//!
//! How long it takes is the sum of what cannot be hurried: servers and eight processes start, the ranges of the killed preparers
//! are given away only once they are held to be dead, the people are sent at the account's rate, and restarts of Kafka and Cassandra
//! stop all of it for a while. Of these the people are chosen here: as few as leave every fault its place while they are sent.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use smsfleet::adapters::system::SeededChance;
use smsfleet::model::turn::open_most;
use smsfleet::ports::clock::Chance;

use crate::endtoend::fixture::{Provider, count, list, number, taken_as_listed};

use super::fleet::{Fleet, Servers, ended, ended_in};
use super::stood::Stood;

/// Valid numbers, rows that repeat one, and rows without any.
const REPEATED: u64 = 300;
const INVALID: u64 = 200;
/// People of a batch in which every fault comes once.
const NUMBERS: u64 = 100_000;
/// Segments a second: slow enough that restarts of servers end long before the batch does, and that two cores, which have three
/// servers and nine processes to run, keep up with it.
const RATE: u32 = 1_250;
/// Of so many seconds such a fleet sends in one at its rate: in the others it has just been struck.
const SENDS: u64 = 2;
/// People that are sent behind the last fault, which is held up by those before it.
const BEHIND: u64 = NUMBERS / 5;
/// How much longer a report, or a list of all recipients, may take for each person of a batch of millions.
const EACH: Duration = Duration::from_micros(250);
/// Kafka's session time-out here is six seconds: whoever is frozen for longer is thrown out.
const FROZEN: Duration = Duration::from_secs(9);
/// A number without its country's code.
const NATIONAL: u64 = 100_000_000_000;
const NATIONAL_DIGITS: usize = 11;
/// People sent between two faults, at the least, when there is time for more than one of each.
const BETWEEN: u64 = 6 * RATE as u64;

/// What goes wrong while it is sent. Preparers have nothing to do any more then, and are killed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    LeaderKilled,
    DelivererKilled,
    GatewayKilled,
    RedisEmptied,
    KafkaRestarted,
    CassandraRestarted,
    DelivererFrozen,
    Paused,
    DelivererJoins,
    DelivererLeaves,
}

const FAULTS: [Fault; 10] = [
    Fault::LeaderKilled,
    Fault::DelivererKilled,
    Fault::GatewayKilled,
    Fault::RedisEmptied,
    Fault::KafkaRestarted,
    Fault::CassandraRestarted,
    Fault::DelivererFrozen,
    Fault::Paused,
    Fault::DelivererJoins,
    Fault::DelivererLeaves,
];

fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|n| n.parse().ok())
}

/// All faults once in an order of chance, as often as there is room for, each with the people who are sent before it.
fn schedule(seed: u64, numbers: u64) -> Vec<(u64, Fault)> {
    let chance = SeededChance::from_seed(seed);
    // Of a batch with fewer people than usual the last fifth is left.
    let room = (numbers - BEHIND.min(numbers / 5)).saturating_sub(numbers / 50);
    let rounds = (room / (BETWEEN * FAULTS.len() as u64)).max(1);
    let step = room / (rounds * FAULTS.len() as u64);
    let mut faults = Vec::new();
    for _ in 0..rounds {
        let mut round = FAULTS.to_vec();
        for at in (1..round.len()).rev() {
            round.swap(at, (chance.next() % (at as u64 + 1)) as usize);
        }
        faults.extend(round);
    }
    let place = |(at, fault)| (numbers / 50 + at as u64 * step + chance.next() % (step / 2).max(1), fault);
    faults.into_iter().enumerate().map(place).collect()
}

#[test]
fn every_fault_has_its_place_while_people_are_sent() {
    for seed in 0..100 {
        for numbers in [NUMBERS, 10 * NUMBERS] {
            let faults = schedule(seed, numbers);
            assert!(faults.is_sorted_by_key(|(sent, _)| *sent), "seed {seed}: {faults:?}");
            let times = |fault: &Fault| faults.iter().filter(|(_, other)| other == fault).count();
            let rounds = times(&Fault::Paused);
            assert!(rounds > 0 && FAULTS.iter().all(|fault| times(fault) == rounds), "seed {seed}: {faults:?}");
            assert!(faults.iter().all(|(sent, _)| *sent > 0 && *sent <= numbers - BEHIND), "seed {seed}: {faults:?}");
        }
    }
}

#[test]
fn a_batch_survives_kills_of_every_role_and_restarts_of_every_server() {
    let minutes = asked("SMSFLEET_KILLS_MINUTES").map(|minutes| minutes * 60 * u64::from(RATE) / SENDS);
    let numbers = asked("SMSFLEET_TEST_RECIPIENTS").or(minutes).unwrap_or(NUMBERS);
    let seed = asked("SMSFLEET_KILLS_SEED").unwrap_or_else(|| SeededChance::from_system().next() % 1_000_000);
    eprintln!("SMSFLEET_KILLS_SEED={seed}");
    let provider = Provider::start();
    let mut fleet = Fleet::new(Servers::own(), &provider, RATE);
    fleet.start_all(&["coordinator", "coordinator", "prepare", "prepare", "deliver", "deliver", "deliver", "gateway"]);
    let repeated: String = (0..REPEATED).map(|row| format!("+{},again\n", number(row * 7))).collect();
    let invalid: String = (0..INVALID).map(|row| format!("12{row},nobody\n")).collect();
    fleet.place.write("list.csv", list(numbers) + &repeated + &invalid);
    let begun = Instant::now();
    let batch = fleet.create("list.csv", "Hello {{name}}, your table is ready");

    // While it is prepared: both preparers, so that whoever holds a range is among them.
    let stood = Stood::of(&fleet);
    fleet.until("a range is claimed", |_| stood.ranges(&batch).is_some_and(|(claimed, _)| claimed > 0));
    for _ in 0..2 {
        let at = fleet.some("prepare");
        fleet.kill(at);
    }
    let (claimed, undone) = stood.ranges(&batch).expect("the store answers");
    eprintln!("{:7.1} s: preparers killed, {undone} ranges undone, {claimed} of them held", begun.elapsed().as_secs_f64());
    assert!(claimed > 0, "they were killed in the middle of a range");
    let mut fired: BTreeMap<Fault, u32> = BTreeMap::new();
    fleet.start("prepare");
    fleet.start("prepare");
    let mut doubted = 0;
    for (sent, fault) in schedule(seed, numbers) {
        let from = provider.messages();
        fleet.until(&format!("{sent} were sent, from {from} on, before {fault:?}"), |_| provider.messages() >= sent);
        eprint!("{:7.1} s, {} sent: {fault:?}", begun.elapsed().as_secs_f64(), provider.messages());
        let open = happen(&mut fleet, &stood, &provider, &batch, fault);
        eprintln!("{}", if open > 0 { format!(", {open} people in its open windows") } else { String::new() });
        doubted += open;
        // What befalls a batch that is over proves nothing.
        assert!(provider.messages() < numbers, "{fault:?} came too late");
        *fired.entry(fault).or_default() += 1;
    }
    fleet.until("the batch has ended", |fleet| fleet.delivery(&batch).starts_with("COMPLETED"));
    let took = begun.elapsed();

    let total = numbers + REPEATED + INVALID;
    if minutes.is_some() {
        // Everybody is read twice for a report, and once for the list, by servers that were struck a moment ago; and all of that
        // once more, when somebody's receipt comes in between.
        let more = EACH * u32::try_from(total).expect("a batch that somebody waits for");
        fleet.place.patience += more;
        fleet.patience += 6 * more;
    }
    // A late receipt may settle somebody who is in doubt between two looks: both are taken until nobody was.
    let mut looked = None;
    fleet.until("the report stays as it is while recipients are listed", |fleet| {
        let report = fleet.ask(&["report", &batch, "--json"]);
        let listed = taken_as_listed(&fleet.place, &provider, &batch, total);
        let after = fleet.ask(&["report", &batch, "--json"]);
        let is_same = report["settlement"]["outcomes"] == after["settlement"]["outcomes"];
        looked = is_same.then_some((report, listed));
        is_same
    });
    let (report, (accepted, uncertain)) = looked.expect("both were seen");
    let of = |outcome: &str| ended_in(&report, outcome);
    let counted = provider.get().report();
    eprintln!(
        "seed {seed}: {numbers} recipients in {:.1} s; accepted {}, uncertain {} and unsent {} of {doubted} who may be, repeated at \
         the provider {}; preparers killed before: 2; fired: {fired:?}",
        took.as_secs_f64(),
        of("accepted"),
        of("uncertain"),
        of("failed"),
        counted.repeated_numbers
    );
    assert_eq!((counted.repeated_numbers, counted.complete_per_number_max), (0, 1), "{counted:?}");
    assert_eq!(count(&report, "/settlement/records"), total, "{report}");
    assert_eq!(ended(&report), total, "nothing is lost: {report}");
    // Whom a frozen deliverer had not handed over yet is known to be unsent when it wakes; when others have judged its window by
    // then, nobody sends them by itself any more.
    let unsent = report["settlement"]["failed"]["SF-3007"].as_u64().unwrap_or(0);
    assert_eq!((of("duplicate"), of("rejected"), of("failed")), (REPEATED, INVALID, unsent), "{report}");
    // Rule 4, in sum. That a stop in order leaves nobody in doubt is for `starts` to show.
    let left = of("uncertain") + unsent;
    assert!(left <= doubted, "{left} in doubt or unsent, and {doubted} were in open windows of who was struck");

    assert_eq!((accepted.len() as u64, uncertain.len() as u64), (of("accepted"), of("uncertain")));
    assert!(FAULTS.iter().all(|fault| fired.contains_key(fault)), "each fault fired: {fired:?}");
    fleet.all_live();
    let logs = fleet.logs();
    assert!(logs.lines().count() > fleet.members.len(), "they log: {logs}");
    let told = logs.lines().find(|line| names_somebody(line, numbers) || line.contains("your table is ready"));
    assert_eq!(told, None, "numbers and texts are in no log");
}

/// Whether a line has the number of somebody of the list, with or without the country's code.
fn names_somebody(line: &str, numbers: u64) -> bool {
    let national = number(0) % NATIONAL;
    let is_one = |digits: &str| {
        let digits = digits.strip_prefix("00").unwrap_or(digits);
        let digits = digits.strip_prefix("86").unwrap_or(digits);
        let is_listed = |number: u64| (national..national + numbers).contains(&number);
        digits.len() == NATIONAL_DIGITS && digits.parse().is_ok_and(is_listed)
    };
    line.split(|c: char| !c.is_ascii_digit()).any(is_one)
}

#[test]
fn whoever_is_named_in_a_line_is_seen_whoever_it_is() {
    for row in [0, 5, 77_777, NUMBERS - 1] {
        let number = number(row).to_string();
        let national = &number[2..];
        for line in [
            format!("WARN number={number} left without an answer"),
            format!("to:+{number}"),
            format!("%2B{number}&x"),
            format!("{{\"to\":\"00{number}\"}}"),
            format!("Msisdn({number})"),
            format!("nobody answered for {national}"),
            national.to_owned(),
        ] {
            assert!(names_somebody(&line, NUMBERS), "{line}");
        }
    }
    let others = [
        "2026-11-27T18:19:09.139000123456Z INFO a window was judged took_us=13900",
        "worker=13900000005123456789 batch=0139000000051390",
        "id:8613899999999 13900",
    ];
    assert!(others.iter().all(|line| !names_somebody(line, NUMBERS)));
    assert!(!names_somebody(&number(NUMBERS).to_string(), NUMBERS), "whoever is not of the list");
}

/// Stops a deliverer where it stands, and counts the people in the windows that it has open: nobody else may come into doubt by
/// what befalls it. Its place, and their number.
fn stop_deliverer(fleet: &mut Fleet, stood: &Stood, batch: &str) -> (usize, u64) {
    let at = fleet.some("deliver");
    let pid = fleet.pid(at);
    let mut worker = None;
    fleet.until("the deliverer is known", |fleet| {
        let sheet = fleet.alive().into_iter().find(|member| member["pid"] == pid);
        worker = sheet.and_then(|sheet| sheet["worker"].as_str().map(str::to_owned));
        worker.is_some()
    });
    let worker = worker.expect("it was found");
    fleet.signal(at, "STOP");
    // A declare that is on its way to the store is carried out, whoever waits for it: counted until nothing changes any more.
    let (mut before, mut open) = (None, None);
    fleet.until("its windows are counted", |_| {
        std::thread::sleep(Duration::from_millis(500));
        before = std::mem::replace(&mut open, stood.open(batch, &worker));
        open.is_some() && open == before
    });
    let open = open.expect("they were counted");
    let people: u64 = open.iter().copied().map(u64::from).sum();
    assert!(people <= open_most(RATE.into()), "more than any worker may have open: {open:?}");
    (at, people)
}

/// Waits until every deliverer has its share of the partitions.
fn shared_out(fleet: &mut Fleet, what: &str) {
    let deliverers = fleet.members.iter().filter(|member| member.role == "deliver").count();
    fleet.until(what, |fleet| {
        let shares: Vec<usize> = fleet
            .alive()
            .iter()
            .filter(|member| member["role"] == "deliver")
            .filter_map(|member| Some(member["partitions"].as_array()?.len()))
            .collect();
        shares.len() == deliverers && shares.iter().all(|share| *share >= 80 / deliverers)
    });
}

/// Makes a fault happen, and waits for what must follow. How many people were in open windows of whoever it struck.
fn happen(fleet: &mut Fleet, stood: &Stood, provider: &Provider, batch: &str, fault: Fault) -> u64 {
    let mut doubted = 0;
    match fault {
        Fault::LeaderKilled => {
            let mut killed = None;
            fleet.until("a leader is killed", |fleet| {
                killed = fleet.leader().and_then(|leader| Some((leader, fleet.find(leader)?)));
                killed.map(|(_, at)| fleet.kill(at)).is_some()
            });
            fleet.start("coordinator");
            let (leader, _) = killed.expect("one was");
            fleet.until("another one leads", |fleet| fleet.leader().is_some_and(|now| now != leader));
        }
        Fault::DelivererKilled => {
            let (at, open) = stop_deliverer(fleet, stood, batch);
            fleet.kill(at);
            fleet.start("deliver");
            doubted = open;
        }
        Fault::GatewayKilled => fleet.replace("gateway"),
        Fault::RedisEmptied => fleet.servers.flush_redis(),
        Fault::KafkaRestarted => {
            fleet.servers.restart("kafka");
            shared_out(fleet, "every deliverer has its share again");
        }
        Fault::CassandraRestarted => fleet.servers.restart("cassandra"),
        Fault::DelivererFrozen => {
            let (at, open) = stop_deliverer(fleet, stood, batch);
            std::thread::sleep(FROZEN);
            fleet.signal(at, "CONT");
            doubted = open;
        }
        Fault::Paused => {
            // Whom a deliverer that was killed just before had in flight is judged after the resume: asked is what may still go.
            fleet.until("nothing may go any more", |fleet| {
                fleet.ask(&["batch", "pause", batch, "--json"])["pause"]["may_still_go"] == 0
            });
            // What was handed over in time may be on its way to the provider.
            std::thread::sleep(Duration::from_secs(1));
            let at_pause = provider.messages();
            std::thread::sleep(Duration::from_secs(2));
            assert_eq!(provider.messages(), at_pause, "nothing is sent while it is paused");
            fleet.ask(&["batch", "resume", batch, "--json"]);
        }
        Fault::DelivererJoins => {
            fleet.start("deliver");
            shared_out(fleet, "the newcomer has its share");
        }
        Fault::DelivererLeaves => {
            if fleet.members.iter().filter(|member| member.role == "deliver").count() < 3 {
                fleet.start("deliver");
            }
            let at = fleet.some("deliver");
            let (_, code) = fleet.terminate(at);
            assert_eq!(code, Some(0), "it ends in order");
        }
    }
    doubted
}
