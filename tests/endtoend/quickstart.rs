//! The README's first command: ten thousand rows through a simulated provider, all of them accounted for.

use std::time::{Duration, Instant};

use super::fixture::{Place, count};

#[test]
fn the_quickstart_accounts_for_every_row() {
    let place = Place::new(1, 1);
    let begun = Instant::now();
    let report = place.run(&["quickstart", "--json"]).ended(0).json();
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let of = |outcome: &str| count(&report, &format!("/settlement/outcomes/{outcome}"));
    let names = ["accepted", "failed", "rejected", "duplicate", "suppressed"];
    assert_eq!(names.map(of).iter().sum::<u64>(), 10_000, "{report}");
    assert!(of("accepted") > 9_000 && names.iter().all(|name| of(name) > 0), "{report}");
    let rejected = |code: &str| count(&report, &format!("/settlement/rejected/{code}"));
    assert!(["SF-2001", "SF-2002", "SF-2003"].iter().all(|code| (1..=100).contains(&rejected(code))), "{report}");
    let deliveries = report["settlement"]["deliveries"].as_object().expect("deliveries").values();
    assert_eq!(deliveries.filter_map(serde_json::Value::as_u64).sum::<u64>(), of("accepted"));
    assert!(count(&report, "/settlement/segments") > of("accepted") && count(&report, "/batch/plan/ucs2") > 100);
    assert_eq!((report["settled"].as_bool(), count(&report, "/unaccounted")), (Some(true), 0));
}

#[test]
fn the_quickstart_shows_both_steps_and_what_the_provider_counted() {
    let place = Place::new(1, 1);
    let said = place.run(&["quickstart", "--recipients", "2000"]).ended(0);
    let accepted = said.out.lines().find_map(|line| line.trim().strip_prefix("accepted ")?.split_whitespace().next());
    let accepted = accepted.expect("the report says how many were accepted");
    let counted = format!("counted {accepted} messages by itself, and 0 numbers that got more than one");
    assert!(said.err.contains(&counted), "{said:?}");
    for step in ["PREPARATION ", "DELIVERY "] {
        assert!(said.err.lines().any(|line| line.starts_with(step)), "{said:?}");
    }
    assert!(place.path("smsfleet-quickstart/recipients.csv").exists());
}
