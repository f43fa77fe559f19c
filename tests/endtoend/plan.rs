//! A dry run shows a plan, and its hash sends exactly that plan.

use super::fixture::{Place, Provider, count, list, number};

const SEND: [&str; 8] = ["send", "--recipients", "list.csv", "--template", "Hello {{name}}", "--account", "main", "--json"];

#[test]
fn an_approved_plan_is_sent_and_no_other() {
    let provider = Provider::start();
    let place = Place::new(provider.port(), 1_000);
    let suppressed = number(3);
    place.write("list.csv", list(100) + &format!("12,nobody\n+{},again\n", number(5)));
    place.write("nothing.txt", format!("# asked for it\n+{suppressed}\n"));
    assert_eq!(count(&place.run(&["suppress", "import", "nothing.txt", "--json"]).ended(0).json(), "/suppressed"), 1);

    let planned = place.run(&[&SEND[..], &["--dry-run"]].concat()).ended(0).json();
    let plan = &planned["plan"];
    let hash = plan["plan_hash"].as_str().expect("a hash").to_owned();
    assert_eq!((count(plan, "/records"), count(plan, "/recipients"), count(plan, "/segments")), (102, 99, 99), "{plan}");
    assert_eq!((count(plan, "/duplicates"), count(plan, "/suppressed"), count(plan, "/rejected/SF-2002")), (1, 1, 1), "{plan}");
    let cost = plan["cost"][0]["amount"].as_f64().expect("an amount");
    assert!((cost - 99.0 * 0.05).abs() < 1e-6, "{plan}");
    let again = place.run(&[&SEND[..], &["--dry-run"]].concat()).ended(0).json();
    assert_eq!(again["plan"]["plan_hash"], hash.as_str(), "the same list has the same plan");

    let wrong = place.run(&[&SEND[..], &["--approve", "0123456789abcdef"]].concat()).ended(2).json();
    assert_eq!(wrong["error"]["code"], "SF-3004", "{wrong}");
    assert_eq!(provider.get().report().submits, 0, "nothing was sent so far");

    let report = place.run(&[&SEND[..], &["--approve", &hash]].concat()).ended(0).json();
    assert_eq!(report["batch"]["plan"]["plan_hash"], hash.as_str());
    assert_eq!(count(&report, "/settlement/outcomes/accepted"), 99, "{report}");
    let numbers = provider.get().numbers();
    assert!(numbers.len() == 99 && numbers.iter().all(|n| n.complete == 1 && n.number != suppressed), "{numbers:?}");
}

#[test]
fn a_list_that_changed_after_its_plan_is_not_sent() {
    let provider = Provider::start();
    let place = Place::new(provider.port(), 1_000);
    place.write("list.csv", list(20));
    let planned = place.run(&[&SEND[..], &["--dry-run"]].concat()).ended(0).json();
    let hash = planned["plan"]["plan_hash"].as_str().expect("a hash").to_owned();
    place.write("list.csv", list(21));
    for extra in [&["--approve", &hash][..], &[]] {
        let refused = place.run(&[&SEND[..], extra].concat()).ended(2).json();
        assert_eq!(refused["error"]["code"], "SF-3004", "{refused}");
    }
    assert_eq!(provider.get().report().submits, 0);
    let report = place.run(&[&SEND[..], &["--key", "the new list"]].concat()).ended(0).json();
    assert_eq!(count(&report, "/settlement/outcomes/accepted"), 21, "{report}");
}
