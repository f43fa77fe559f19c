//! A fleet under test: its servers, its processes, and what can be done to them.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::conformance::redis::server::ask;
use crate::endtoend::fixture::{Place, Provider, Running, Said, count};
use crate::servers::{self, Own};

/// A condition that takes longer is a failure. Several processes share two cores with three servers here.
pub const DEADLINE: Duration = Duration::from_secs(240);

/// Every outcome that a record may end in.
const OUTCOMES: [&str; 8] = ["accepted", "failed", "uncertain", "rejected", "duplicate", "suppressed", "expired", "canceled"];

/// How many records of a report ended in one outcome.
pub fn ended_in(report: &Value, outcome: &str) -> u64 {
    count(report, &format!("/settlement/outcomes/{outcome}"))
}

/// How many records of a report ended in some outcome.
pub fn ended(report: &Value) -> u64 {
    OUTCOMES.map(|outcome| ended_in(report, outcome)).iter().sum()
}

/// Where the servers are.
pub struct Servers {
    /// Those that this test started for itself: it may stop them.
    own: Option<Own>,
    /// Addresses.
    pub cql: String,
    pub kafka: String,
    pub redis: String,
}

impl Servers {
    /// Those that all tests share.
    pub fn shared() -> Servers {
        Servers { own: None, cql: servers::cql(), kafka: servers::kafka(), redis: servers::redis() }
    }

    /// Servers of this test's own, so that it may restart them.
    pub fn own() -> Servers {
        let own = Own::start(&["kafka", "cassandra", "redis"]);
        let [cql, kafka, redis] =
            ["SMSFLEET_TEST_CQL", "SMSFLEET_TEST_KAFKA", "SMSFLEET_TEST_REDIS"].map(|name| own.address(name));
        Servers { own: Some(own), cql, kafka, redis }
    }

    /// Stops one of its own servers, as an operator does, and starts it again with its data.
    pub fn restart(&self, name: &str) {
        self.own.as_ref().expect("it has servers of its own").restart(name, Duration::from_secs(2));
    }

    /// Empties Redis.
    pub fn flush_redis(&self) {
        assert_eq!(ask(&self.redis, &["FLUSHALL"]), "OK");
    }
}

/// One process of the fleet.
pub struct Member {
    /// Its role, as the command is called.
    pub role: &'static str,
    running: Running,
    log: PathBuf,
}

/// A fleet of processes.
pub struct Fleet {
    /// Where it runs.
    pub place: Place,
    /// Its servers.
    pub servers: Servers,
    /// Its processes; those that were killed are not among them.
    pub members: Vec<Member>,
    /// What its keyspace is called, and what its topics and keys begin with.
    name: String,
    started: usize,
    /// What further processes are started from.
    pub binary: PathBuf,
    /// How long a condition may take.
    pub patience: Duration,
}

impl Fleet {
    /// A migrated fleet without processes, whose account `main` sends to this provider.
    pub fn new(servers: Servers, provider: &Provider, rate: u32) -> Fleet {
        let place = Place::new(provider.port(), rate);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is later than 1970");
        let name = format!("t{:x}", now.as_nanos());
        let text = format!(
            "{}\n[scylla]\nnodes = [\"{}\"]\nkeyspace = \"{name}\"\nflavour = \"cassandra\"\nreplication = 1\n\
             request_timeout = 10.0\n[kafka]\nbrokers = [\"{}\"]\ntopic_prefix = \"{name}\"\nreplication = 1\n\
             session_timeout = 6.0\n[redis]\nnodes = [\"{}\"]\nprefix = \"{name}\"\nresponse_timeout = 5.0\n\
             [log]\nlevel = \"info\"\nformat = \"json\"\n",
            std::fs::read_to_string(place.path("smsfleet.toml")).expect("the configuration"),
            servers.cql,
            servers.kafka,
            servers.redis,
        );
        place.write("smsfleet.toml", text);
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_smsfleet"));
        let fleet = Fleet { place, servers, members: vec![], name, started: 0, binary, patience: DEADLINE };
        let migrated = fleet.run(&["migrate", "--json"]).ended(0).json();
        assert_eq!(migrated["topics_made"].as_array().map(Vec::len), Some(3), "{migrated}");
        fleet
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Said {
        self.place.run(arguments)
    }

    /// Starts a process; its place in `members`.
    pub fn start(&mut self, role: &'static str) -> usize {
        self.started += 1;
        let log = self.place.path(&format!("{role}-{}.log", self.started));
        let mut command = self.place.command_of(&self.binary, &[role]);
        let file = std::fs::File::create(&log).expect("a log file");
        command.stderr(file.try_clone().expect("it is shared")).stdout(file).env("SMSFLEET_SERVE__LISTEN", "127.0.0.1:0");
        self.members.push(Member { role, running: Running::start(command), log });
        self.members.len() - 1
    }

    /// Starts several processes and waits until the fleet knows them.
    pub fn start_all(&mut self, roles: &[&'static str]) {
        for role in roles {
            self.start(role);
        }
        let wanted = self.members.len();
        self.until("all processes are alive", |fleet| fleet.alive().len() == wanted);
    }

    /// The answer of a command that only reads. It is asked again as long as it says that it may be: a server that was just
    /// restarted, or a busy machine, may be silent for longer than a command waits.
    pub fn ask(&self, arguments: &[&str]) -> Value {
        let begun = Instant::now();
        loop {
            let said = self.run(arguments);
            let answer = said.json();
            if answer["error"].is_null() {
                return answer;
            }
            assert!(answer["error"]["retryable"] == true && begun.elapsed() < self.patience, "{said:?}");
            eprintln!("asked again: {}", answer["error"]["detail"]);
        }
    }

    /// `smsfleet fleet`.
    pub fn view(&self) -> Value {
        self.ask(&["fleet", "--json"])
    }

    /// Sheets of the living.
    pub fn alive(&self) -> Vec<Value> {
        let view = self.view();
        let members = view["members"].as_array().cloned().unwrap_or_default();
        members.into_iter().filter(|member| member["alive"] == true).collect()
    }

    /// The process id of the leader, when one says that it leads.
    pub fn leader(&self) -> Option<u32> {
        let view = self.view();
        let leads = view["members"].as_array()?.iter().find(|member| member["worker"] == view["leader"])?;
        leads["pid"].as_u64().map(|pid| pid as u32)
    }

    /// The place of the process with this id, if it is one of ours.
    pub fn find(&mut self, pid: u32) -> Option<usize> {
        self.members.iter_mut().position(|member| member.running.id() == pid)
    }

    /// The place of the process with this id.
    pub fn place_of(&mut self, pid: u32) -> usize {
        self.find(pid).expect("it is one of ours")
    }

    /// The place of some process with this role.
    pub fn some(&self, role: &str) -> usize {
        self.members.iter().position(|member| member.role == role).unwrap_or_else(|| panic!("no {role} runs"))
    }

    /// Deletes all that this fleet has in Redis: whoever shares it keeps theirs. How many keys there were.
    pub fn forget_redis(&self) -> u64 {
        let script = "local keys = redis.call('KEYS', ARGV[1]) \
                      for _, key in ipairs(keys) do redis.call('DEL', key) end return #keys";
        let answer = ask(&self.servers.redis, &["EVAL", script, "0", &format!("{}:*", self.name)]);
        answer.parse().unwrap_or_else(|_| panic!("Redis answers {answer}"))
    }

    /// Kills a process without a word.
    pub fn kill(&mut self, at: usize) -> &'static str {
        let mut member = self.members.remove(at);
        member.running.kill();
        member.role
    }

    /// Kills a process of a role without a word, and starts another.
    pub fn replace(&mut self, role: &'static str) {
        let at = self.some(role);
        self.kill(at);
        self.start(role);
    }

    /// Ends a process in order; how long it took, and its exit code.
    pub fn terminate(&mut self, at: usize) -> (Duration, Option<i32>) {
        let mut member = self.members.remove(at);
        let begun = Instant::now();
        member.running.terminate();
        let said = member.running.wait();
        (begun.elapsed(), said.code)
    }

    /// Sends a signal to a process, such as STOP or CONT.
    pub fn signal(&mut self, at: usize, name: &str) {
        let id = self.members[at].running.id();
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {id}")).status();
        assert!(sent.expect("sh runs").success(), "the signal is sent");
    }

    /// Checks that nobody ended who was not told to.
    #[track_caller]
    pub fn all_live(&mut self) {
        for member in &mut self.members {
            let ended = member.running.ended();
            assert!(!ended, "{} ended by itself: {}", member.role, tail(&member.log));
        }
    }

    /// Waits until something holds.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Fleet) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            self.all_live();
            if begun.elapsed() > self.patience {
                let logs: Vec<String> =
                    self.members.iter().map(|member| format!("{}:\n{}", member.role, tail(&member.log))).collect();
                let view = self.run(&["fleet", "--json"]).out;
                panic!("it never happened: {what}\n{view}\n{}", logs.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Creates a batch over a list in the fleet's folder and starts it; its id.
    pub fn create(&self, list: &str, template: &str) -> String {
        self.created(list, template).0
    }

    /// The same, and what the command logged.
    pub fn created(&self, list: &str, template: &str) -> (String, String) {
        let create =
            ["batch", "create", "--recipients", list, "--template", template, "--account", "main", "--auto-trigger", "--json"];
        let said = self.run(&create).ended(0);
        let created = said.json();
        let id = created["batch"]["batch_id"].as_str().unwrap_or_else(|| panic!("no id in {created}"));
        (id.to_owned(), said.err)
    }

    /// The state of a batch's delivery; empty when it is not said.
    pub fn delivery(&self, batch: &str) -> String {
        self.state(batch, "delivery")
    }

    /// The state of one of a batch's steps; empty when it is not said.
    pub fn state(&self, batch: &str, step: &str) -> String {
        let said = self.run(&["batch", "show", batch, "--json"]).json();
        said[step]["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Where a process serves, by its log; waits until it does.
    pub fn address(&mut self, at: usize) -> String {
        let mut found = None;
        self.until("it says where it serves", |fleet| {
            let log = std::fs::read_to_string(&fleet.members[at].log).unwrap_or_default();
            let said = log.split_once("it serves ").and_then(|(_, rest)| rest.split_once(';'));
            found = said.map(|(address, _)| address.to_owned());
            found.is_some()
        });
        found.expect("it was found")
    }

    /// The process id of a process.
    pub fn pid(&mut self, at: usize) -> u32 {
        self.members[at].running.id()
    }

    /// When a process last began to lead, by the log.
    pub fn led_at(&self) -> Option<std::time::SystemTime> {
        let moment = |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            let at: jiff::Timestamp = line["timestamp"].as_str()?.parse().ok()?;
            (line["message"] == "this process leads")
                .then(|| std::time::UNIX_EPOCH + Duration::from_millis(at.as_millisecond().unsigned_abs()))
        };
        self.logs().lines().filter_map(moment).max()
    }

    /// All lines that the processes logged.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(self.place.path(".")).expect("the folder") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|extension| extension == "log") {
                // Of a line that a kill cut in two the rest still counts.
                text.push_str(&String::from_utf8_lossy(&std::fs::read(path).expect("a log is read")));
            }
        }
        text
    }
}

fn tail(log: &std::path::Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
