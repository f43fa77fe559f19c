//! Killed without a word at random moments and run again: nobody gets it twice, and nobody is lost.

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::fixture::{Place, Provider, Running, count, list, number, taken_as_listed};

/// Valid numbers.
const NUMBERS: u64 = 5_000;
/// Rows that repeat a number, and rows that hold none.
const REPEATED: u64 = 40;
const INVALID: u64 = 25;

/// When a run is killed.
#[derive(Debug)]
enum Moment {
    /// So long after its start: during its opening, the preparation or the seal.
    After(Duration),
    /// When the provider has counted so many messages in all.
    Messages(u64),
}

#[test]
fn kills_at_random_moments_lose_nobody_and_repeat_nobody() {
    let provider = Provider::start();
    let place = Place::new(provider.port(), 1_500);
    let repeated: String = (0..REPEATED).map(|row| format!("+{},again\n", number(row * 7))).collect();
    let invalid: String = (0..INVALID).map(|row| format!("12{row},nobody\n")).collect();
    place.write("list.csv", list(NUMBERS) + &repeated + &invalid);
    let template = "Hello {{name}}, your table is ready";
    let send =
        ["send", "--recipients", "list.csv", "--template", template, "--account", "main", "--wait-receipts", "3", "--json"];

    for moment in moments(20_261_123) {
        let mut running = Running::start(place.command(&send));
        let begun = Instant::now();
        super::fixture::until("the moment comes, or the run ends", || {
            let come = match moment {
                Moment::After(time) => begun.elapsed() >= time,
                Moment::Messages(messages) => provider.messages() >= messages,
            };
            come || running.ended()
        });
        assert!(!running.ended(), "it was running at {moment:?}: {:?}", running.wait());
        running.kill();
        assert_eq!(running.wait().code, None, "it was killed");
    }
    let said = place.run(&send);
    let report = said.json();
    let of = |outcome: &str| count(&report, &format!("/settlement/outcomes/{outcome}"));
    let outcomes = ["accepted", "failed", "uncertain", "rejected", "duplicate", "suppressed"];
    assert_eq!(count(&report, "/settlement/records"), NUMBERS + REPEATED + INVALID);
    assert_eq!(outcomes.map(of).iter().sum::<u64>(), NUMBERS + REPEATED + INVALID, "nothing is lost: {report}");
    assert_eq!((of("duplicate"), of("rejected")), (REPEATED, INVALID), "{report}");
    assert_eq!(said.code, Some(i32::from(of("uncertain") + of("failed") > 0)), "{said:?}");

    let (accepted, uncertain) =
        taken_as_listed(&place, &provider, report["batch"]["batch_id"].as_str().expect("an id"), NUMBERS + REPEATED + INVALID);
    assert_eq!((accepted.len() as u64, uncertain.len() as u64), (of("accepted"), of("uncertain")));
    assert!((0..NUMBERS).all(|row| accepted.contains(&number(row)) || uncertain.contains(&number(row))), "{report}");
    // Who was declared counts as handed over, and a kill leaves less than a second of the rate declared.
    assert!(of("accepted") >= NUMBERS - 4 * 1_000, "{report}");
    let counted = provider.get().report();
    assert_eq!((counted.repeated_numbers, counted.complete_per_number_max), (0, 1), "{counted:?}");
}

/// Two kills early in a run, then four while it sends.
fn moments(seed: u64) -> Vec<Moment> {
    let mut random = ChaCha12Rng::seed_from_u64(seed);
    let mut moments = vec![];
    for (from, to) in [(20, 150), (150, 400)] {
        moments.push(Moment::After(Duration::from_millis(random.random_range(from..to))));
    }
    for (from, to) in [(1, 900), (1_000, 1_900), (2_000, 2_900), (3_000, 3_900)] {
        moments.push(Moment::Messages(random.random_range(from..to)));
    }
    moments
}
