//! The gateway of a cluster as those meet it who are outside: operators with a key, a provider that calls back, people who open
//! their short link.

use serde_json::Value;
use smsfleet::simulator::{Delay, SimulatorConfig};

use crate::endtoend::fixture::{Place, Provider, Running, Said, count, list, number, web_account};
use crate::endtoend::inside::request;

use super::fleet::{Fleet, Servers, ended_in};

const RECIPIENTS: u64 = 900;
/// The token that the provider calls back with.
const TOKEN: &str = "push-me";

/// An account `web` that speaks HTTP, whose receipts come by callback alone.
fn web(fleet: &Fleet, provider: &Provider) {
    let http = provider.get().http_addr().expect("the simulator speaks HTTP");
    let text = std::fs::read_to_string(fleet.place.path("smsfleet.toml")).expect("the configuration");
    // So slow that the batch can be paused in its middle.
    let account = web_account(http, TOKEN, Some(150));
    fleet.place.write("smsfleet.toml", text + &account);
}

/// The command line as somebody has it who knows the gateway's address and a key, and nothing else of the cluster.
struct Outside {
    url: String,
    key: String,
    place: Place,
}

impl Outside {
    fn run(&self, arguments: &[&str]) -> Said {
        self.run_with(&self.key, arguments)
    }

    fn run_with(&self, key: &str, arguments: &[&str]) -> Said {
        let mut command = self.place.command(arguments);
        command.env("SMSFLEET_SERVER", &self.url).env("SMSFLEET_API_KEY", key);
        Running::start(command).wait()
    }

    fn ask(&self, arguments: &[&str]) -> Value {
        self.run(arguments).ended(0).json()
    }

    /// One request past the command line: its status, head and body.
    fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String, String) {
        let at = self.url.strip_prefix("http://").and_then(|at| at.parse().ok()).expect("an address");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(request(at, method, path, headers, body))
    }
}

fn says_that_nobody_sends(explained: &Value) -> bool {
    explained["limits"].to_string().contains("no process is sending")
}

#[test]
fn a_batch_goes_through_the_gateway_from_its_list_to_receipts_called_back_and_links_opened() {
    let mut config = SimulatorConfig { keep_texts: true, ..SimulatorConfig::local() };
    config.receipts.delay = Delay::always(20, 300);
    let provider = Provider::with(config);
    let mut fleet = Fleet::new(Servers::shared(), &provider, 100);
    web(&fleet, &provider);
    fleet.start_all(&["coordinator", "prepare", "deliver", "gateway"]);
    let at = fleet.some("gateway");
    let url = fleet.address(at);
    provider.get().set_callback(&format!("{url}/v1/receipts/web"), TOKEN).expect("a callback");
    let made = fleet.run(&["key", "create", "--name", "desk", "--role", "operator", "--json"]).ended(0).json();
    let key = made["key"].as_str().expect("a key").to_owned();
    let outside = Outside { url, key, place: Place::new(1, 1) };
    outside.place.write("smsfleet.toml", "");
    outside.place.write("list.csv", list(RECIPIENTS));

    // The list is uploaded, prepared, and sent when somebody who may says so.
    let create = [
        "batch",
        "create",
        "--recipients",
        "list.csv",
        "--template",
        "Dear {{name}}, look at {{url}} today",
        "--account",
        "web",
        "--url",
        "https://shop.example/sale",
        "--link-base",
        "https://s.example/",
        "--json",
    ];
    outside.run_with("sfk_guessed", &create).ended(2);
    let created = outside.ask(&create);
    let batch = created["batch"]["batch_id"].as_str().expect("an id").to_owned();
    fleet.until("it is prepared", |_| outside.ask(&["batch", "show", &batch, "--json"])["plan"].is_object());
    assert_eq!(provider.messages(), 0, "nobody asked for it yet");
    outside.run(&["batch", "start", &batch]).ended(0);
    fleet.until("it sends", |_| provider.messages() > 50);

    // What limits it is the same whoever asks: the gateway, or a machine that only reads the store.
    fleet.until("both ways tell of the account that sends", |fleet| {
        let direct = fleet.ask(&["explain", &batch, "--json"]);
        let through = outside.ask(&["explain", &batch, "--json"]);
        [direct, through].iter().all(|said| said["accounts"][0]["up"] == true && !says_that_nobody_sends(said))
    });
    let alive = fleet.alive();
    let sheet = alive.iter().find(|member| member["role"] == "deliver").expect("a deliverer");
    assert!(sheet["commit_ms"].as_f64().is_some_and(|took| took > 0.0), "{sheet}");

    let paused = outside.ask(&["batch", "pause", &batch, "--wait", "20", "--json"]);
    assert_eq!(paused["pause"]["still"], true, "{paused}");
    let sent = provider.messages();
    assert!(sent < RECIPIENTS, "it was paused in the middle");
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(provider.messages(), sent, "nothing goes out after a pause that says it is still");
    // With nobody left who sends, both say so.
    let at = fleet.some("deliver");
    assert_eq!(fleet.terminate(at).1, Some(0));
    outside.run(&["batch", "resume", &batch]).ended(0);
    fleet.until("both ways tell that nobody sends", |fleet| {
        let direct = fleet.ask(&["explain", &batch, "--json"]);
        says_that_nobody_sends(&direct) && says_that_nobody_sends(&outside.ask(&["explain", &batch, "--json"]))
    });
    fleet.start("deliver");
    fleet.until("it is over", |_| outside.ask(&["batch", "show", &batch, "--json"])["over"] == true);

    // Receipts reach the gateway alone, and only with the token.
    let (status, ..) = outside.request("POST", "/v1/receipts/web?token=guessed", "Content-Type: application/json\r\n", "[]");
    assert_eq!(status, 422, "a stranger's callback");
    let mut report = Value::Null;
    fleet.until("all receipts are counted", |_| {
        report = outside.ask(&["report", &batch, "--json"]);
        count(&report, "/settlement/deliveries/delivered") == RECIPIENTS
    });
    assert_eq!(ended_in(&report, "accepted"), RECIPIENTS, "{report}");
    let seen = provider.get().report();
    assert_eq!((seen.numbers, seen.repeated_numbers), (RECIPIENTS, 0));

    // One person opens the link.
    let text = provider.get().texts(number(7)).pop().expect("it was sent");
    let code = text.split_once("https://s.example/").and_then(|(_, rest)| rest.split(' ').next()).expect("a code").to_owned();
    let phone = "User-Agent: Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X)\r\n";
    let (status, head, _) = outside.request("GET", &format!("/{code}"), phone, "");
    assert!(status == 302 && head.contains("location: https://shop.example/sale?"), "{status} {head}");
    assert_eq!(outside.request("GET", "/zzzzzzz9", phone, "").0, 404, "a code that nobody was given");
    let mut clicks = Value::Null;
    fleet.until("the click is counted", |_| {
        clicks = outside.ask(&["report", &batch, "--json"])["clicks"].clone();
        count(&clicks, "/clicks") == 1
    });
    assert_eq!((count(&clicks, "/people"), count(&clicks, "/machine_clicks")), (1, 0), "{clicks}");
    eprintln!("{RECIPIENTS} recipients through the gateway, paused after {sent}; receipts by callback, one link opened");
    fleet.all_live();
}
