//! Neither numbers nor texts reach a log line, at the loudest level and with everything going wrong that is logged.

use super::fixture::{Place, Provider, list, number};

#[test]
fn logs_hold_no_number_and_no_text() {
    let provider = Provider::start();
    let mut faults = provider.get().config().faults;
    (faults.permanent_share, faults.rate) = (0.1, 150);
    faults.drop_session_every = 100;
    provider.get().set_faults(faults).expect("it makes sense");
    let place = Place::new(provider.port(), 1_000);
    let rejected = "+8613900999,name broken\nno-number-here,name broken\n";
    place.write("list.csv", list(200) + rejected);
    let template = "Sesame opens for {{name}}";
    let send = ["send", "--recipients", "list.csv", "--template", template, "--account", "main", "--wait-receipts", "2"];
    for level in ["-vv", "-vvv"] {
        let key = format!("--key={level}");
        let said = place.run(&[&send[..], &[level, &key]].concat());
        assert!(said.code.is_some_and(|code| code < 2), "{said:?}");
        assert!(said.err.contains("WARN") && said.err.contains("INFO"), "it logs: {}", said.err);
        let digits = (0..200).map(|row| number(row).to_string()[2..].to_owned());
        let words = ["Sesame", "name 1", "13900999", "no-number-here", "broken", "\"password\""].map(str::to_owned);
        for secret in digits.chain(words) {
            if let Some(line) = said.err.lines().find(|line| line.contains(&secret)) {
                panic!("{secret} is in a log line at {level}: {line}");
            }
        }
    }
}
