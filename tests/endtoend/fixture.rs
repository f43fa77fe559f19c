//! A place to run the binary in: its own folder, configuration and lists, and children that end with the test.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;
use smsfleet::simulator::{Delay, Simulator, SimulatorConfig};
use tempfile::TempDir;

/// A condition that takes longer is a failure.
pub const DEADLINE: Duration = Duration::from_secs(150);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// A folder with a configuration in it.
pub struct Place {
    folder: TempDir,
    /// How long a command of [`Place::run`] may take: whoever has a batch of millions counted and listed makes it longer.
    pub patience: Duration,
}

/// What a run of the binary said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; none when it was killed.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    fn of(output: Output) -> Said {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the output is text");
        Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// The JSON document on standard output.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Checks the exit code.
    #[track_caller]
    pub fn ended(self, code: i32) -> Said {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }
}

impl Place {
    /// A folder whose account `main` sends to `port` with `rate` segments a second.
    pub fn new(port: u16, rate: u32) -> Place {
        let place = Place { folder: TempDir::new().expect("a temporary folder"), patience: DEADLINE };
        let text = format!(
            "default_region = \"CN\"\n\
             [batch]\nmin_recipients_per_lane = 500\n\
             [limits]\ndrain = 5.0\n\
             [accounts.main]\nrate = {rate}\nprice = 0.05\nanswer_timeout = 2.0\n\
             [accounts.main.smpp]\nport = {port}\nsystem_id = \"smsfleet\"\npassword = \"password\"\n\
             binds = 2\nwindow = 50\nreconnect_min = 0.05\nsource_addr = \"10690001\"\n"
        );
        place.write("smsfleet.toml", text);
        place
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).expect("the file is written");
    }

    /// The binary with arguments, in the folder, untouched by the environment of who runs the tests.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_smsfleet")), arguments)
    }

    /// The same with another build of the binary.
    pub fn command_of(&self, binary: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SMSFLEET_")) {
            command.env_remove(name);
        }
        command.current_dir(self.folder.path()).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the binary to its end.
    pub fn run(&self, arguments: &[&str]) -> Said {
        Running::start(self.command(arguments)).wait_within(self.patience)
    }

    /// The recipients of a batch as `recipients … --format jsonl` lists them.
    pub fn recipients(&self, batch: &str) -> Vec<Value> {
        let said = self.listed(batch);
        said.out.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    }

    fn listed(&self, batch: &str) -> Said {
        self.run(&["recipients", batch, "--format", "jsonl"]).ended(0)
    }
}

/// A child that is killed when the test leaves it behind.
pub struct Running {
    child: Option<Child>,
}

impl Running {
    /// Starts a command.
    pub fn start(mut command: Command) -> Running {
        Running::of(command.spawn().expect("the binary starts"))
    }

    /// Takes over a child.
    pub fn of(child: Child) -> Running {
        Running { child: Some(child) }
    }

    fn child(&mut self) -> &mut Child {
        self.child.as_mut().expect("it was not waited for")
    }

    /// Its process id.
    pub fn id(&mut self) -> u32 {
        self.child().id()
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        self.child().try_wait().expect("its state is known").is_some()
    }

    /// Sends SIGTERM to it alone.
    pub fn terminate(&mut self) {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -TERM {}", self.child().id())).status();
        assert!(sent.expect("sh runs").success(), "the signal is sent");
    }

    /// Kills it without a word.
    pub fn kill(&mut self) {
        self.child().kill().expect("it is killed");
    }

    /// Waits for its end.
    pub fn wait(self) -> Said {
        self.wait_within(DEADLINE)
    }

    /// Waits for its end so long. Both outputs are read as they come, so that it never waits for a reader.
    pub fn wait_within(mut self, most: Duration) -> Said {
        let mut child = self.child.take().expect("it was not waited for");
        let reader = |pipe: Option<Box<dyn Read + Send>>| {
            std::thread::spawn(move || {
                let mut bytes = vec![];
                if let Some(mut pipe) = pipe {
                    pipe.read_to_end(&mut bytes).expect("its output is read");
                }
                bytes
            })
        };
        let out = reader(child.stdout.take().map(|pipe| Box::new(pipe) as _));
        let err = reader(child.stderr.take().map(|pipe| Box::new(pipe) as _));
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("its state is known") {
                break Some(status);
            }
            if begun.elapsed() > most {
                child.kill().and_then(|()| child.wait()).expect("it is killed");
                break None;
            }
            std::thread::sleep(LOOK);
        };
        let (stdout, stderr) = (out.join().expect("it was read"), err.join().expect("it was read"));
        let Some(status) = status else { panic!("it did not end: {}", String::from_utf8_lossy(&stderr)) };
        Said::of(Output { status, stdout, stderr })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}

/// Waits until `holds`, or fails after [`DEADLINE`].
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < DEADLINE, "it never happened: {what}");
        std::thread::sleep(LOOK);
    }
}

/// A simulated provider in this process.
pub struct Provider {
    runtime: tokio::runtime::Runtime,
    /// The provider.
    pub simulator: Option<Simulator>,
}

impl Provider {
    /// One that answers in 5 to 30 ms and gives every message its receipt.
    pub fn start() -> Provider {
        let mut config = SimulatorConfig::local();
        config.faults.latency = Delay::always(5, 30);
        config.receipts.delay = Delay::always(20, 300);
        Provider::with(config)
    }

    /// One that behaves as configured.
    pub fn with(config: SimulatorConfig) -> Provider {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let simulator = runtime.block_on(Simulator::start(config)).expect("the simulator starts");
        Provider { runtime, simulator: Some(simulator) }
    }

    /// It.
    pub fn get(&self) -> &Simulator {
        self.simulator.as_ref().expect("it was not stopped")
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.get().smpp_addr().expect("it speaks SMPP").port()
    }

    /// Complete messages so far.
    pub fn messages(&self) -> u64 {
        self.get().report().complete_messages
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        if let Some(simulator) = self.simulator.take() {
            self.runtime.block_on(simulator.stop());
        }
    }
}

/// An account `web` of the simulator's HTTP, as the configuration describes it: messages in batches under a key, receipts called
/// back with the token. `rate` is in messages a second.
pub fn web_account(http: SocketAddr, token: &str, rate: Option<u32>) -> String {
    let rate = rate.map(|rate| format!("rate = {rate}\n")).unwrap_or_default();
    format!(
        r#"
[accounts.web]
protocol = "http"
answer_timeout = 5.0
{rate}[accounts.web.capabilities]
long_message = "payload"
[accounts.web.receipts]
one_per_message = true
[accounts.web.http]
url = "http://{http}/messages"
body = '[{{{{items}}}}]'
item = '{{"to":"{{{{number}}}}","text":"{{{{text}}}}","key":"{{{{key}}}}"}}'
batch = 20
[accounts.web.http.answer]
items = ""
id = "/id"
success = {{ pointer = "/status", equals = "accepted" }}
[accounts.web.http.receipts]
token = "{token}"
id = "/id"
reference = "/key"
number = "/to"
status = "/status"
error = "/error"
"#
    )
}

/// The number of a row, in E.164 without its sign.
pub fn number(row: u64) -> u64 {
    8_613_900_000_000 + row
}

/// A list of `rows` valid rows with a name each.
pub fn list(rows: u64) -> String {
    let rows = (0..rows).map(|row| format!("+{},name {row}\n", number(row)));
    std::iter::once("phone,name\n".to_owned()).chain(rows).collect()
}

/// What of a recipient's line the comparison needs.
#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(borrow)]
    number: Cow<'a, str>,
    #[serde(borrow)]
    outcome: Cow<'a, str>,
}

/// Compares, person by person, what is listed of a batch with what the provider took: whoever is called accepted was taken, and
/// whoever was taken is accepted or in doubt. Gives back the accepted and those in doubt.
#[track_caller]
pub fn taken_as_listed(place: &Place, provider: &Provider, batch: &str, total: u64) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let seen: BTreeSet<u64> = provider.get().numbers().iter().filter(|n| n.complete > 0).map(|n| n.number).collect();
    let said = place.listed(batch);
    // Of each line these two alone are kept: there may be millions.
    let lines: Vec<Listed<'_>> =
        said.out.lines().map(|line| serde_json::from_str(line).expect("a line is a recipient")).collect();
    assert_eq!(lines.len() as u64, total);
    let with = |outcome: &str| -> BTreeSet<u64> {
        let lines = lines.iter().filter(|line| line.outcome == outcome);
        lines.filter_map(|line| line.number.strip_prefix('+')?.parse().ok()).collect()
    };
    let (accepted, uncertain) = (with("accepted"), with("uncertain"));
    assert!(accepted.is_subset(&seen), "who is called accepted was taken by the provider");
    assert!(seen.iter().all(|n| accepted.contains(n) || uncertain.contains(n)), "who was taken is accepted or in doubt");
    (accepted, uncertain)
}

/// A number in a report, such as `/settlement/records`.
#[track_caller]
pub fn count(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).map_or(0, |found| found.as_u64().unwrap_or_else(|| panic!("{pointer} is {found}")))
}
