//! What each process of a fleet says of itself, every few seconds, and what can be told from it.
//!
//! A sheet is for people, and for the leader's choice of who holds sessions. No rule rests on it: who owns a lane stands in
//! the lane's ledger, and a process that falls silent loses nothing but its sessions.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::id::{LaneKey, WorkerId};
use super::time::Timestamp;

/// How often a process writes its sheet.
pub const SHEET_EVERY: Duration = Duration::from_secs(2);
/// A process whose sheet is older than this is silent.
pub const SILENT_AFTER: Duration = Duration::from_secs(10);
/// A sheet of a process that has been silent for so long is taken away.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(3_600);

/// What a process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FleetRole {
    /// Leads, or waits to lead.
    Coordinator,
    /// Reads ranges and seals lanes.
    Prepare,
    /// Sends.
    Deliver,
    /// Serves the API, takes receipts, redirects short links.
    Gateway,
}

/// All roles with their names, as commands and sheets have them.
pub const ROLES: [(FleetRole, &str); 4] = [
    (FleetRole::Coordinator, "coordinator"),
    (FleetRole::Prepare, "prepare"),
    (FleetRole::Deliver, "deliver"),
    (FleetRole::Gateway, "gateway"),
];

impl FleetRole {
    /// Its name.
    pub fn name(self) -> &'static str {
        ROLES.iter().find(|(role, _)| *role == self).map_or("", |(_, name)| name)
    }
}

impl std::fmt::Display for FleetRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// An account as a process that sends sees it now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LiveAccount {
    /// Its name.
    pub account: String,
    /// Whether messages can be handed over.
    pub up: bool,
    /// Sessions bound.
    pub sessions: u32,
    /// Parts handed over and not answered.
    pub outstanding: u64,
    /// Parts that may be outstanding at once.
    pub window: u32,
    /// Segments a second the governor allows.
    pub rate: f64,
    /// The configured ceiling.
    pub ceiling: Option<u32>,
    /// "Slow down" answers so far.
    pub throttled: u64,
    /// The last error.
    pub last_error: Option<String>,
}

impl LiveAccount {
    /// Takes in what another process says of the same account: sessions add up, the rate is the whole fleet's already. A damaged
    /// sheet may say anything.
    pub fn add(&mut self, other: &LiveAccount) {
        self.up |= other.up;
        self.sessions = self.sessions.saturating_add(other.sessions);
        self.outstanding = self.outstanding.saturating_add(other.outstanding);
        self.window = self.window.saturating_add(other.window);
        self.rate = self.rate.max(other.rate);
        self.ceiling = self.ceiling.or(other.ceiling);
        self.throttled = self.throttled.max(other.throttled);
        self.last_error = self.last_error.take().or_else(|| other.last_error.clone());
    }
}

/// Tokens that wait in the queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lag {
    /// Tasks of preparation.
    pub prepare: u64,
    /// Tokens of delivery, about 5,000 recipients each.
    pub delivery: u64,
}

/// A worker by its name: a number of 64 bits is more than many readers of JSON can hold.
mod named {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::WorkerId;

    pub fn serialize<S: Serializer>(worker: &WorkerId, into: S) -> Result<S::Ok, S::Error> {
        into.collect_str(worker)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<WorkerId, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// What one process says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sheet {
    /// This life of the process.
    #[serde(with = "named")]
    pub worker: WorkerId,
    /// What it is for.
    pub role: FleetRole,
    /// The machine it runs on.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// When it began.
    pub started: Timestamp,
    /// When it wrote this.
    pub at: Timestamp,
    /// Since when it leads, if it does.
    #[serde(default)]
    pub leads_since: Option<Timestamp>,
    /// What waits in the queues, if it leads.
    #[serde(default)]
    pub lag: Option<Lag>,
    /// Partitions that it owns: a deliverer's of the delivery topic, a preparer's of the preparation topic.
    #[serde(default)]
    pub partitions: Vec<u8>,
    /// Lanes that it serves now.
    #[serde(default)]
    pub lanes: Vec<LaneKey>,
    /// Its accounts.
    #[serde(default)]
    pub accounts: Vec<LiveAccount>,
    /// Accounts that its lanes wait for, or are sent through.
    #[serde(default)]
    pub wanted: Vec<String>,
    /// Milliseconds that its sheet before this one took to be stored: one conditional write among all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_ms: Option<f64>,
}

impl Sheet {
    /// Whether it was written a short while ago. Clocks of two machines may differ by a few seconds.
    pub fn is_alive(&self, now: Timestamp) -> bool {
        now.since(self.at) <= SILENT_AFTER
    }
}

/// The fleet's accounts, put together from what each process of it says, by name.
pub fn together<'a>(said: impl IntoIterator<Item = &'a LiveAccount>) -> Vec<LiveAccount> {
    let mut all: BTreeMap<&str, LiveAccount> = BTreeMap::new();
    for account in said {
        all.entry(&account.account)
            .or_insert_with(|| LiveAccount { account: account.account.clone(), ..LiveAccount::default() })
            .add(account);
    }
    all.into_values().collect()
}

/// What the fleet's processes say together of their accounts and their store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// The accounts; empty when nobody sends.
    pub accounts: Vec<LiveAccount>,
    /// Milliseconds that a commit takes, when anybody knows.
    pub store_latency_ms: Option<f64>,
}

impl Seen {
    /// From the sheets of those alive. A commit takes what the middle one of those who send says, so that one slow machine is
    /// not taken for a slow store.
    pub fn of(sheets: &[Sheet], now: Timestamp) -> Seen {
        let alive: Vec<&Sheet> = sheets.iter().filter(|sheet| sheet.is_alive(now)).collect();
        let sending = alive.iter().filter(|sheet| sheet.role == FleetRole::Deliver);
        let mut took: Vec<f64> = sending.filter_map(|sheet| sheet.commit_ms).collect();
        took.sort_by(f64::total_cmp);
        Seen {
            accounts: together(alive.iter().flat_map(|sheet| &sheet.accounts)),
            store_latency_ms: took.get(took.len() / 2).copied(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A sheet that says nothing but who wrote it, and when.
    pub(crate) fn sheet(worker: u64, role: FleetRole, at: Timestamp) -> Sheet {
        Sheet {
            worker: WorkerId(worker),
            role,
            host: "one".into(),
            pid: 1,
            version: "1".into(),
            started: Timestamp(0),
            at,
            leads_since: None,
            lag: None,
            partitions: vec![],
            lanes: vec![],
            accounts: vec![],
            wanted: vec![],
            commit_ms: None,
        }
    }

    #[test]
    fn sessions_add_up_and_the_silent_do_not_count() {
        let account = |up, sessions, rate| LiveAccount { account: "main".into(), up, sessions, rate, ..LiveAccount::default() };
        let now = Timestamp(0).plus(Duration::from_secs(100));
        let fresh = now.minus(Duration::from_secs(3)).0;
        let said = |at, accounts| Sheet { accounts, ..sheet(1, FleetRole::Deliver, Timestamp(at)) };
        let sheets = [
            said(fresh, vec![account(true, 2, 100.0)]),
            said(fresh, vec![account(false, 1, 90.0)]),
            said(0, vec![account(true, 7, 500.0)]),
        ];
        let all = Seen::of(&sheets, now).accounts;
        assert_eq!((all.len(), all[0].up, all[0].sessions, all[0].rate), (1, true, 3, 100.0));
    }

    #[test]
    fn a_commit_takes_what_the_middle_one_of_those_who_send_says() {
        let said = |role, commit_ms| Sheet { commit_ms, ..sheet(1, role, Timestamp(0)) };
        let of = |sheets: &[Sheet]| Seen::of(sheets, Timestamp(0)).store_latency_ms;
        assert_eq!(of(&[said(FleetRole::Deliver, None), said(FleetRole::Gateway, Some(7.0))]), None);
        let three = [Some(900.0), Some(9.0), Some(11.0)].map(|took| said(FleetRole::Deliver, took));
        assert_eq!(of(&three), Some(11.0));
        let silent = Timestamp(0).plus(SILENT_AFTER * 2);
        assert_eq!(Seen::of(&three, silent), Seen::default());
    }

    #[test]
    fn a_sheet_of_an_older_version_is_read() {
        let old = r#"{"worker":"w0000000000000007","role":"gateway","host":"h","pid":3,"version":"0","started":0,"at":5}"#;
        let read: Sheet = serde_json::from_str(old).expect("what was added later has defaults");
        assert_eq!((read.worker, read.role, read.partitions.len()), (WorkerId(7), FleetRole::Gateway, 0));
        assert!(serde_json::to_string(&read).is_ok_and(|written| written.starts_with(r#"{"worker":"w0000000000000007","#)));
    }
}
