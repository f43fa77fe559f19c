//! The service as people use it: `smsfleet all`, keys, and the command line over the network.

use std::io::{BufRead, BufReader};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use super::fixture::{Place, Provider, Running, Said, count, list, until};

/// A service over a place, and the ways to it.
pub struct Service {
    /// Its folder.
    pub place: Place,
    /// Its address.
    pub url: String,
    /// Its process id.
    pub id: u32,
    /// What it said so far on its standard error; held by this and by whoever reads it, until its end.
    pub log: Arc<Mutex<Vec<String>>>,
    running: Running,
}

impl Service {
    /// Starts `smsfleet all` on a free port.
    pub fn start(place: Place) -> Service {
        Service::with(place, &[])
    }

    /// The same with arguments.
    pub fn with(place: Place, arguments: &[&str]) -> Service {
        let text = std::fs::read_to_string(place.path("smsfleet.toml")).expect("a configuration");
        if !text.contains("[serve]") {
            place.write("smsfleet.toml", format!("{text}\n[serve]\nlisten = \"127.0.0.1:0\"\nrequests_per_second = 100000\n"));
        }
        let mut child = place.command(&[&["all"], arguments].concat()).spawn().expect("the binary starts");
        let mut lines = BufReader::new(child.stderr.take().expect("its standard error")).lines();
        let mut running = Running::of(child);
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let url = loop {
            let line = lines.next().expect("it says where it is").expect("it is text");
            log.lock().expect("not poisoned").push(line.clone());
            if let Some((_, rest)) = line.split_once("the API is at ") {
                break rest.split(';').next().expect("an address").to_owned();
            }
        };
        // Whoever does not read what it says makes it wait.
        let kept = log.clone();
        std::thread::spawn(move || {
            lines.for_each(|line| kept.lock().expect("not poisoned").push(line.expect("it is text")));
        });
        Service { id: running.id(), place, url, running, log }
    }

    /// A key for the network.
    pub fn key(&self, role: &str) -> String {
        let made = self.place.run(&["key", "create", "--name", "test", "--role", role, "--json"]).ended(0).json();
        made["key"].as_str().expect("a key").to_owned()
    }

    /// The command line over the network, from another folder.
    pub fn command(&self, key: &str, arguments: &[&str]) -> Command {
        let mut command = self.place.command(arguments);
        command.env("SMSFLEET_SERVER", &self.url).env("SMSFLEET_API_KEY", key).env("SMSFLEET_DATA_DIR", "/nonexistent");
        command
    }

    /// Runs it.
    pub fn run(&self, key: &str, arguments: &[&str]) -> Said {
        Running::start(self.command(key, arguments)).wait()
    }

    /// Stops the service in order.
    pub fn stop(mut self) -> Said {
        self.running.terminate();
        self.running.wait()
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer} in {value}"))
}

#[test]
fn a_batch_is_created_approved_paused_and_reported_over_the_network() {
    const ROWS: u64 = 2_000;
    let provider = Provider::start();
    let place = Place::new(provider.port(), 400);
    place.write("list.csv", list(ROWS));
    let service = Service::start(place);
    let (viewer, operator, admin) = (service.key("viewer"), service.key("operator"), service.key("admin"));

    let create =
        ["batch", "create", "--recipients", "list.csv", "--template", "Hello {{name}}", "--campaign-name", "spring", "--json"];
    service.run(&viewer, &create).ended(2);
    let created = service.run(&operator, &create).ended(0).json();
    let id = text(&created, "/batch/batch_id").to_owned();
    assert_eq!(service.run(&operator, &create).ended(0).json()["existed"], true, "the same command finds the same batch");

    let show = || service.run(&viewer, &["batch", "show", &id, "--json"]).ended(0).json();
    until("it is prepared", || show()["plan"].is_object());
    let plan = show();
    assert_eq!((count(&plan, "/plan/recipients"), provider.messages()), (ROWS, 0));
    let samples = |key: &str| {
        let view = service.run(key, &["batch", "show", &id, "--json"]).ended(0).json();
        view.pointer("/plan/samples").and_then(Value::as_array).map_or(0, Vec::len)
    };
    assert_eq!((samples(&viewer), samples(&operator) > 0), (0, true), "texts of people are not for viewers");
    service.run(&operator, &["batch", "approve", &id, "0123"]).ended(2);
    service.run(&operator, &["batch", "approve", &id, text(&plan, "/plan/plan_hash")]).ended(0);
    until("it sends", || provider.messages() > 50);

    let paused = service.run(&operator, &["batch", "pause", &id, "--wait", "20", "--json"]).ended(0).json();
    assert_eq!(paused.pointer("/pause/still"), Some(&Value::Bool(true)), "{paused}");
    let sent = provider.messages();
    assert!(sent < ROWS && text(&paused, "/pause/last_submit") <= text(&paused, "/pause/until"), "{paused}");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(provider.messages(), sent, "nothing goes out after a pause that says it is still");

    let rate = service.run(&admin, &["account", "rate", "main", "5000", "--json"]).ended(0).json();
    assert_eq!(rate["live_rate"], 5_000);
    service.run(&operator, &["account", "rate", "main", "1"]).ended(2);
    service.run(&operator, &["suppress", "add", &format!("+{}", super::fixture::number(ROWS - 1))]).ended(0);
    let resumed = service.run(&operator, &["batch", "resume", &id, "--idempotency-key", "r", "--json"]).ended(0).json();
    let again = service.run(&operator, &["batch", "resume", &id, "--idempotency-key", "r", "--json"]).ended(0).json();
    assert_eq!(resumed, again, "the same key gets the same answer");
    service.run(&operator, &["batch", "pause", &id, "--idempotency-key", "r"]).ended(2);
    let watched = service.run(&viewer, &["batch", "show", &id, "--watch", "--json"]).ended(0).json();
    assert_eq!(watched["over"], true);
    let report = service.run(&viewer, &["batch", "report", &id, "--json"]).ended(0).json();
    assert_eq!(
        (count(&report, "/settlement/outcomes/accepted"), count(&report, "/settlement/outcomes/suppressed")),
        (ROWS - 1, 1)
    );
    assert_eq!((provider.get().report().numbers, provider.get().report().repeated_numbers), (ROWS - 1, 0));
    let lines = service.run(&operator, &["batch", "recipients", &id]).ended(0);
    assert_eq!(lines.out.lines().count() as u64, ROWS);

    let trail = service.run(&admin, &["audit", "--batch", &id, "--json"]).ended(0).json();
    let done: Vec<&str> =
        trail.as_array().expect("entries").iter().filter(|e| e["came"] == "done").map(|e| text(e, "/action")).collect();
    for action in ["batch.create", "batch.approve", "batch.pause", "batch.resume"] {
        assert!(done.contains(&action), "{action} in {done:?}");
    }
    let keys = service.run(&admin, &["key", "list", "--json"]).ended(0).json();
    let id_of = keys["keys"]
        .as_array()
        .expect("keys")
        .iter()
        .find(|key| key["role"] == "operator")
        .map(|key| text(key, "/id").to_owned());
    service.run(&admin, &["key", "revoke", &id_of.expect("an operator's key")]).ended(0);
    until("the revoked key is refused", || service.run(&operator, &["batch", "list"]).code == Some(2));
    service.stop().ended(0);
}

#[test]
fn the_provider_is_changed_by_the_plan_that_was_shown_and_who_failed_is_tried_again() {
    const ROWS: u64 = 300;
    let (old, new) = (Provider::start(), Provider::start());
    let place = Place::new(old.port(), 50);
    let text_of = std::fs::read_to_string(place.path("smsfleet.toml")).expect("a configuration");
    let other = format!(
        "{text_of}\n[accounts.other]\nrate = 5000\nprice = 0.02\nanswer_timeout = 2.0\n\
         [accounts.other.smpp]\nport = {}\nsystem_id = \"smsfleet\"\npassword = \"password\"\nreconnect_min = 0.05\n",
        new.port()
    );
    place.write("smsfleet.toml", other);
    place.write("list.csv", list(ROWS));
    let service = Service::start(place);
    let key = service.key("operator");
    let create = [
        "batch",
        "create",
        "--recipients",
        "list.csv",
        "--template",
        "Hello {{name}}",
        "--account",
        "main",
        "--auto-trigger",
        "--json",
    ];
    let created = service.run(&key, &create).ended(0).json();
    let id = text(&created, "/batch/batch_id").to_owned();
    until("it sends", || old.messages() > 10);
    let change = ["batch", "change-provider", &id, "other", "--json"];
    assert_eq!(service.run(&key, &change).ended(2).json()["error"]["code"], "SF-3003", "pause it first");
    service.run(&key, &["batch", "pause", &id, "--wait", "20"]).ended(0);
    let sent = old.messages();
    let plan = service.run(&key, &change).ended(0).json();
    assert_eq!((count(&plan, "/change/counts/unsent"), &plan["committed"]), (ROWS - sent, &Value::Bool(false)), "{plan}");
    let hash = text(&plan, "/change/plan_hash").to_owned();
    let commit = |hash: &str| service.run(&key, &["batch", "change-provider", &id, "other", "--plan-hash", hash, "--json"]);
    assert_eq!(commit("00").ended(2).json()["error"]["code"], "SF-3004");
    assert_eq!(commit(&hash).ended(0).json().pointer("/done/batch/provider_type"), Some(&Value::from("other")));
    service.run(&key, &["batch", "resume", &id]).ended(0);
    service.run(&key, &["batch", "show", &id, "--watch"]).ended(0);
    assert_eq!((old.messages(), new.messages()), (sent, ROWS - sent));
    let none = service.run(&key, &["batch", "retry", &id, "--failed", "--json"]).ended(0).json();
    assert_eq!(count(&none, "/retry/recipients"), 0, "nobody was refused: {none}");
    service.stop().ended(0);
}

#[test]
fn the_network_is_encrypted_where_it_is_configured() {
    let provider = Provider::start();
    let place = Place::new(provider.port(), 100);
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    place.write("server.pem", made.cert.pem());
    place.write("server.key", made.signing_key.serialize_pem());
    let text = std::fs::read_to_string(place.path("smsfleet.toml")).expect("a configuration");
    let tls = "\n[serve]\nlisten = \"127.0.0.1:0\"\ntls = { certificate = \"server.pem\", key = \"server.key\" }\n";
    place.write("smsfleet.toml", format!("{text}{tls}"));
    let service = Service::start(place);
    assert!(service.url.starts_with("https://127.0.0.1:"), "{}", service.url);
    let key = service.key("viewer");
    let mut trusting = service.command(&key, &["batch", "list"]);
    trusting.env("SMSFLEET_CA_FILE", service.place.path("server.pem"));
    Running::start(trusting).wait().ended(0);
    let strange = service.run(&key, &["batch", "list", "--json"]).ended(3).json();
    assert_eq!(strange["error"]["code"], "SF-7012", "a certificate that nobody vouches for is not trusted: {strange}");
    let plain = service.url.replace("https", "http");
    let spoken = service.run(&key, &["--server", &plain, "batch", "list", "--json"]).ended(3).json();
    assert_eq!(spoken["error"]["code"], "SF-7012", "{spoken}");
    service.stop().ended(0);
}

#[test]
fn the_description_of_the_api_holds_for_whatever_is_sent() {
    let schemathesis = std::path::Path::new("tests/endtoend/openapi/.venv/bin/schemathesis");
    assert!(schemathesis.exists(), "tests/run installs it: python3 -m venv, then pip install -r requirements.txt");
    let provider = Provider::start();
    let place = Place::new(provider.port(), 1_000);
    place.write("list.csv", list(20));
    let service = Service::start(place);
    let key = service.key("admin");
    let create = ["batch", "create", "--recipients", "list.csv", "--template", "Hello {{name}}", "--auto-trigger", "--json"];
    let created = service.run(&key, &create).ended(0).json();
    until("it is over", || {
        let batch = text(&created, "/batch/batch_id").to_owned();
        service.run(&key, &["batch", "show", &batch, "--json"]).ended(0).json()["over"] == true
    });
    // Not tried: watching, which does not end; revoking keys, since it finds its own; and whether each well-formed wish is
    // granted, since a batch that does not exist, or words that are no template, are well formed.
    let mut command = Command::new(schemathesis.canonicalize().expect("a path"));
    command.current_dir(service.place.path("")).args([
        "run",
        &format!("{}/openapi.json", service.url),
        "--url",
        &service.url,
        "--header",
        &format!("Authorization: Bearer {key}"),
        "--exclude-path-regex",
        "/watch$|/keys/",
        "--checks",
        "all",
        "--exclude-checks",
        "positive_data_acceptance",
        "--phases",
        "coverage,fuzzing",
        "--max-examples",
        "12",
        "--seed",
        "1",
        "--generation-database",
        "none",
        "--no-color",
    ]);
    let output = command.output().expect("schemathesis runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.contains("passed") && !out.contains("Authentication failed"), "{out}");
    service.stop().ended(0);
}
