//! What cannot be sent is refused with its exit code, its error code and words that help; nothing reaches the provider.

use super::fixture::{Place, Provider, list};

#[test]
fn what_is_wrong_is_refused_with_words_that_help() {
    let provider = Provider::start();
    let place = Place::new(provider.port(), 1_000);
    place.write("good.csv", list(3));
    place.write("picture.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01");
    place.write("empty.csv", "");
    place.write("header.csv", "phone,name\n");
    place.write("nobody.csv", "city,name\nBerlin,Anna\n");
    let send = |list: &'static str, template: &'static str| {
        vec!["send", "--recipients", list, "--template", template, "--account", "main"]
    };
    let cases = [
        (send("missing.csv", "Hi"), "SF-1001", "missing.csv"),
        (send("picture.csv", "Hi"), "SF-1002", "PNG picture"),
        (send("empty.csv", "Hi"), "SF-1003", "empty.csv"),
        (send("header.csv", "Hi"), "SF-1003", "header.csv"),
        (send("nobody.csv", "Hi"), "SF-1004", "\"city\", \"name\""),
        (send("good.csv", "Hi {{nmae}}"), "SF-1005", "\"phone\", \"name\""),
        (send("good.csv", "Hi {{name"), "SF-1006", "line 1"),
        (send("good.csv", ""), "SF-1006", "empty"),
        ([send("good.csv", "Hi"), vec!["--number-column", "mobile"]].concat(), "SF-1004", "mobile"),
        ([send("good.csv", "Hi"), vec!["--schedule", "tomorrow"]].concat(), "SF-6002", "tomorrow"),
        (vec!["send", "--recipients", "good.csv", "--template", "Hi", "--account", "mian"], "SF-5008", "main"),
        (vec!["report", "00000000"], "SF-3002", "00000000"),
        (vec!["suppress", "import", "good.csv"], "SF-6002", "line 1"),
    ];
    for (arguments, code, words) in cases {
        let said = place.run(&arguments).ended(2);
        let first = said.err.find(&format!("error {code}: "));
        assert!(first.is_some() && said.err.contains(words) && said.err.contains("what to do: "), "{arguments:?}: {said:?}");
        assert_eq!(said.out, "", "{arguments:?}");
        let json = place.run(&[&arguments[..], &["--json"]].concat()).ended(2).json();
        assert_eq!(json["error"]["code"], code, "{arguments:?}: {json}");
        assert!(json["error"]["detail"].as_str().is_some_and(|detail| detail.contains(words)), "{arguments:?}: {json}");
    }
    assert_eq!(provider.get().report().submits, 0, "nothing was sent");

    // A corrected list is simply run again.
    place.write("empty.csv", list(3));
    place.run(&send("empty.csv", "Hi")).ended(0);
    assert_eq!(provider.messages(), 3);
}

#[test]
fn a_configuration_that_is_wrong_is_refused_with_the_nearest_key() {
    let place = Place::new(1, 1);
    place.write("list.csv", list(3));
    let good = std::fs::read_to_string(place.path("smsfleet.toml")).expect("it was written");
    place.write("wrong.toml", good.replace("window", "windwo").replace("rate = 1", "rate = 0"));
    let send = ["send", "--recipients", "list.csv", "--template", "Hi", "--account", "main", "--config", "wrong.toml"];
    for arguments in [&send[..], &["check-config", "wrong.toml"]] {
        let said = place.run(arguments).ended(2);
        let all = format!("{}{}", said.out, said.err);
        assert!(all.contains("windwo") && all.contains("window"), "{said:?}");
        assert!(!all.contains("\"password\""), "no secret is shown: {said:?}");
    }
    assert!(!place.path("smsfleet-data").exists(), "nothing was made");
    assert_eq!(place.run(&["send"]).code, Some(2));
    assert_eq!(place.run(&["check-config"]).code, Some(0));
    assert_eq!(place.run(&["--help"]).code, Some(0));
}

#[test]
fn a_provider_that_is_away_or_refuses_the_login_is_said_and_nothing_is_lost() {
    let provider = Provider::start();
    let place = Place::new(provider.port(), 1_000);
    place.write("list.csv", list(30));
    provider.get().refuse_binds(true);
    let send = ["send", "--recipients", "list.csv", "--template", "Hi {{name}}", "--account", "main", "--json"];
    let mut running = super::fixture::Running::start(place.command(&send));
    super::fixture::until("it tried", || provider.get().report().sessions.binds_refused > 0 || running.ended());
    let listed = || place.run(&["batches", "--json"]).ended(0).json();
    super::fixture::until("the batch is there", || listed()[0]["batch_id"].is_string() || running.ended());
    let batch = listed()[0]["batch_id"].as_str().expect("an id").to_owned();
    super::fixture::until("it says so", || {
        let said = place.run(&["explain", &batch]).ended(0);
        said.out.contains("SF-5006") || said.out.contains("login")
    });
    provider.get().refuse_binds(false);
    let report = running.wait().ended(0).json();
    assert_eq!(super::fixture::count(&report, "/settlement/outcomes/accepted"), 30, "{report}");
}
