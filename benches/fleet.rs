//! The fleet as processes over real servers on this machine: Kafka, Cassandra in ScyllaDB's place, Redis, the simulator, and one
//! or two processes of each role. Prints messages a second, the processor time of each process, and conditional writes.
//!
//! Needs what `tests/servers/up` needs. `cargo bench -- fleet 500000`; with several sizes, `SMSFLEET_BENCH_SIZES=100000,2000000`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support;

/// Processes of the fleet, and how many of each.
const ROLES: [(&str, usize); 4] = [("coordinator", 1), ("prepare", 1), ("deliver", 2), ("gateway", 1)];
/// Clock ticks a second of `/proc/PID/stat`, as Linux has them everywhere (`getconf CLK_TCK`).
const TICKS: f64 = 100.0;
/// A run that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(3_000);

/// A process that ends with the bench.
struct Process {
    name: String,
    child: Child,
    metrics: Option<String>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// Recipients that warm up the servers before sizes are compared: theirs are just-in-time compiled.
const WARM_UP: u64 = 300_000;

/// Runs every size, one after another, on one fleet.
pub fn run(size: Option<u64>) {
    let sizes = std::env::var("SMSFLEET_BENCH_SIZES").ok();
    let sizes: Vec<u64> = match &sizes {
        Some(text) => text.split(',').map(|size| size.trim().parse().expect("sizes are numbers")).collect(),
        None => vec![size.unwrap_or(500_000)],
    };
    let bed = Bed::start();
    if sizes.len() > 1 {
        println!("  warming up:");
        bed.batch(WARM_UP);
    }
    let costs: Vec<(u64, f64)> = sizes.into_iter().map(|size| (size, bed.batch(size))).collect();
    if let (Some((small, first)), Some((large, last))) = (costs.first(), costs.last())
        && small != large
    {
        println!("  processor time a recipient, {large} against {small}: {:.3}", last / first);
    }
}

/// Servers and a fleet. What comes first in it ends first.
struct Bed {
    processes: Vec<Process>,
    servers: Servers,
    folder: tempfile::TempDir,
}

impl Bed {
    fn start() -> Bed {
        let folder = tempfile::tempdir().expect("a folder");
        let servers = Servers::start(folder.path());
        let port = free_port();
        let mut processes = vec![Process {
            name: "simulator".into(),
            child: smsfleet(folder.path())
                .args(["simulate-provider", "--set", &format!("smpp_listen=127.0.0.1:{port}"), "--set", "http_listen=off"])
                .args(["--set", "receipts.delay=[{share=1.0,min_ms=20,max_ms=200}]"])
                .spawn()
                .expect("the simulator starts"),
            metrics: None,
        }];
        configure(folder.path(), &servers, port);
        assert!(ask(folder.path(), &["migrate"]).is_some(), "tables and topics are made");
        for (role, count) in ROLES {
            for n in 1..=count {
                let listen = format!("127.0.0.1:{}", free_port());
                let log = std::fs::File::create(folder.path().join(format!("{role}{n}.log"))).expect("a log");
                let child = smsfleet(folder.path()).arg(role).env("SMSFLEET_SERVE__LISTEN", &listen).stderr(log).spawn();
                let child = child.expect("it starts");
                processes.push(Process { name: format!("{role} {n}"), child, metrics: Some(listen) });
            }
        }
        wait(folder.path(), "all are alive", &["fleet"], |view| {
            view["members"].as_array().is_some_and(|all| all.len() == processes.len() - 1) && !view["leader"].is_null()
        });
        Bed { processes, servers, folder }
    }

    /// One batch of this size; the processor time of everything, in seconds for 1,000 messages.
    fn batch(&self, recipients: u64) -> f64 {
        let Bed { processes, servers, folder } = self;
        let list = support::list(folder.path(), recipients);
        let before = servers.cpu(processes);
        let list = list.display().to_string();
        let create = [
            "batch",
            "create",
            "--source",
            &list,
            "--template",
            "Dear {{name}}, your parcel has arrived. Your pickup code is {{code}}.",
        ];
        let created = ask(folder.path(), &[&create[..], &["--account", "sim"]].concat()).expect("created");
        let batch = created["batch"]["batch_id"].as_str().expect("an id").to_owned();
        let began = Instant::now();
        wait(folder.path(), "sealed", &["batch", "show", &batch], |view| !view["plan"].is_null());
        let prepared_in = began.elapsed();
        let after_prepare = servers.cpu(processes);
        let conditional_before = conditional(processes);
        let began = Instant::now();
        ask(folder.path(), &["batch", "start", &batch]).expect("started");
        wait(folder.path(), "delivered", &["batch", "show", &batch], |view| {
            view["delivery"]["state"].as_str().is_some_and(|state| state.starts_with("COMPLETED"))
        });
        let sent_in = began.elapsed();
        let after_delivery = servers.cpu(processes);
        let conditional = conditional(processes) - conditional_before;
        let began = Instant::now();
        let report = wait(folder.path(), "every receipt counted", &["report", &batch], |report| {
            let count = |pointer| report.pointer(pointer).and_then(Value::as_u64);
            count("/settlement/deliveries/delivered") == count("/settlement/outcomes/accepted")
        });
        let settled_in = began.elapsed();
        let at_end = servers.cpu(processes);
        let accepted = report.pointer("/settlement/outcomes/accepted").and_then(Value::as_u64).unwrap_or(0);

        let thousands = recipients as f64 / 1_000.0;
        println!("  {recipients} recipients, accepted {accepted}");
        println!(
            "  preparation {:>10.0} recipients/s ({:.1} s)",
            recipients as f64 / prepared_in.as_secs_f64(),
            prepared_in.as_secs_f64()
        );
        println!("  delivery    {:>10.0} messages/s ({:.1} s)", recipients as f64 / sent_in.as_secs_f64(), sent_in.as_secs_f64());
        println!("  its last receipt was counted {:.1} s later", settled_in.as_secs_f64());
        println!("  conditional writes for 1,000 messages: {:.2}", conditional as f64 / thousands);
        println!("  processor seconds for 1,000 messages: preparation, delivery, the receipts still to come");
        let mut total = 0.0;
        for name in at_end.keys() {
            let spent = |from: &BTreeMap<String, f64>, to: &BTreeMap<String, f64>| {
                (to.get(name).copied().unwrap_or(0.0) - from.get(name).copied().unwrap_or(0.0)) / thousands
            };
            total += spent(&before, &at_end);
            let (delivered, settled) = (spent(&after_prepare, &after_delivery), spent(&after_delivery, &at_end));
            println!("    {name:<16} {:>8.4} {delivered:>8.4} {settled:>8.4}", spent(&before, &after_prepare));
        }
        println!("    {:<16} {total:>8.4}", "all of it");
        total
    }
}

fn configure(folder: &Path, servers: &Servers, port: u16) {
    let text = format!(
        "data_dir = \"{0}/data\"\ndefault_region = \"CN\"\n[sources]\nfolders = [\"{0}\"]\n\
         [scylla]\nnodes = [\"{1}\"]\nflavour = \"cassandra\"\nreplication = 1\nrequest_timeout = 10.0\n\
         [kafka]\nbrokers = [\"{2}\"]\nreplication = 1\n[redis]\nnodes = [\"{3}\"]\nresponse_timeout = 5.0\n\
         [accounts.sim]\nrate = 20000\nprovider_type = \"sim\"\n[accounts.sim.smpp]\nport = {port}\nsystem_id = \"smsfleet\"\n\
         password = \"password\"\nbinds = 2\nwindow = 500\n",
        folder.display(),
        servers.address("CQL"),
        servers.address("KAFKA"),
        servers.address("REDIS"),
    );
    std::fs::write(folder.join("smsfleet.toml"), text).expect("written");
}

fn smsfleet(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smsfleet"));
    // Settings of whoever runs the benches are none of the fleet's.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SMSFLEET_")) {
        command.env_remove(name);
    }
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn ask(folder: &Path, arguments: &[&str]) -> Option<Value> {
    let output =
        smsfleet(folder).args(arguments).arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("it runs");
    // 1 says that not everybody got it yet.
    if !matches!(output.status.code(), Some(0 | 1)) {
        // In JSON an error stands where the answer would.
        let said = [output.stdout, output.stderr].concat();
        eprintln!("{arguments:?}: {}", String::from_utf8_lossy(&said));
        return None;
    }
    serde_json::from_slice(&output.stdout).ok()
}

/// The first answer of which something holds.
fn wait(folder: &Path, what: &str, arguments: &[&str], holds: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        if let Some(value) = ask(folder, arguments).filter(|value| holds(value)) {
            return value;
        }
        assert!(began.elapsed() < DEADLINE, "it never was: {what}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port()
}

/// Conditional writes of all processes so far.
fn conditional(processes: &[Process]) -> u64 {
    use std::io::{Read, Write};
    let mut sum = 0.0;
    for address in processes.iter().filter_map(|process| process.metrics.as_ref()) {
        let mut text = String::new();
        let mut stream = std::net::TcpStream::connect(address).expect("its metrics are served");
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("asked");
        stream.read_to_string(&mut text).expect("read");
        let line = text.lines().find(|line| line.starts_with("smsfleet_store_requests_total{kind=\"conditional\"}"));
        sum += line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0);
    }
    sum as u64
}

/// The servers of one run, in a folder of their own.
struct Servers {
    folder: PathBuf,
    settings: BTreeMap<String, String>,
}

impl Servers {
    fn start(folder: &Path) -> Servers {
        let folder = folder.join("servers");
        std::fs::create_dir_all(&folder).expect("a folder");
        script("up", &folder, &["kafka", "cassandra", "redis"]);
        let text = std::fs::read_to_string(folder.join("env")).expect("their addresses");
        let settings =
            text.lines().filter_map(|line| line.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned()));
        Servers { settings: settings.collect(), folder }
    }

    fn address(&self, name: &str) -> &str {
        self.settings.get(&format!("SMSFLEET_TEST_{name}")).map_or("", String::as_str)
    }

    /// Processor seconds of every process so far.
    fn cpu(&self, processes: &[Process]) -> BTreeMap<String, f64> {
        let mut all: BTreeMap<String, f64> =
            processes.iter().map(|process| (process.name.clone(), seconds(process.child.id()))).collect();
        for name in ["kafka", "cassandra", "redis"] {
            let pid = std::fs::read_to_string(self.folder.join(name).join("pid")).ok().and_then(|pid| pid.trim().parse().ok());
            all.insert(name.to_owned(), pid.map_or(0.0, seconds));
        }
        all
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        script("down", &self.folder, &[]);
    }
}

fn script(name: &str, folder: &Path, arguments: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(root.join("tests/servers").join(name));
    command.args(arguments).env("SMSFLEET_SERVERS", folder).env("SMSFLEET_JARS", root.join("target/servers"));
    assert!(command.status().expect("it runs").success(), "{name} {arguments:?}");
}

/// User and system time of a process, with all its threads.
fn seconds(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / TICKS
}
