//! Whom strikes may leave in doubt: the people of the windows that a sender has open when it is killed or frozen, read from the
//! store itself, so that nobody else's doubt is excused.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::plan::Blow;
use crate::coordinate::members;
use crate::model::code::{Code, Fault};
use crate::model::id::{BatchId, LaneKey, WorkerId};
use crate::ports::{StoreError, Stores, World};
use crate::roles::config::Config;
use crate::roles::opened::Opened;

/// A declare that is on its way to the store is carried out, whoever waits for it: windows are read until two readings so far
/// apart are the same.
const APART: Duration = Duration::from_millis(500);
/// They are not read for longer than this: somebody else judges them later, and closes them.
const WITHIN: Duration = Duration::from_secs(8);

/// Open windows of a batch, each by its lane and its name, with how many people it holds.
pub type Windows = BTreeMap<(LaneKey, u64), u32>;

/// What the strikes of a drill account for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Struck {
    counted: BTreeSet<(LaneKey, u64)>,
    /// People who may be in doubt.
    pub uncertain_most: u64,
    /// Of these, people who may be left unsent: those of a frozen sender, whose windows others judge while it stands.
    pub unsent_most: u64,
    /// Strikes of which the store did not say whom they met: as many people as a sender may have in open windows are in the sums
    /// for each.
    pub uncounted: u32,
}

/// How many people of open windows a strike met whom no strike before it accounts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// So many.
    Counted(u64),
    /// The store did not say; so many at most.
    AtMost(u64),
}

impl std::fmt::Display for Met {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Met::Counted(people) => write!(f, "{people} people in its open windows"),
            Met::AtMost(people) => write!(f, "at most {people} people in its open windows, for the store did not say"),
        }
    }
}

impl Struck {
    /// Counts whom a strike met: those of the windows that were open, or, when the store does not say which those were, `most`
    /// people.
    pub fn met(&mut self, blow: Blow, are_judged: bool, open: Option<&Windows>, most: u64) -> Met {
        match open {
            Some(open) => Met::Counted(self.windows(blow, are_judged, open)),
            None => {
                self.uncounted += 1;
                self.people(blow, are_judged, most);
                Met::AtMost(most)
            }
        }
    }

    /// Counts the windows that were open when a strike fell, each once however often it is struck; how many people are in those
    /// that were not counted before.
    fn windows(&mut self, blow: Blow, are_judged: bool, open: &Windows) -> u64 {
        let new = open.iter().filter(|(window, _)| self.counted.insert(**window));
        let people: u64 = new.map(|(_, people)| u64::from(*people)).sum();
        self.people(blow, are_judged, people);
        people
    }

    /// Counts people. Who is told to stop leaves nobody in doubt, and only who is frozen says later whom it did not send.
    fn people(&mut self, blow: Blow, are_judged: bool, people: u64) {
        match blow {
            Blow::Stopped => {}
            Blow::Killed => self.uncertain_most += people,
            Blow::Frozen => {
                self.uncertain_most += people;
                self.unsent_most += if are_judged { people } else { 0 };
            }
        }
    }
}

/// The name by which the process with this id declares, while its sheet says so.
pub async fn declarer(stores: &Stores, world: &World, pid: u32) -> Option<WorkerId> {
    let now = world.clock.now();
    let sheets = members::all(stores).await.ok()?;
    sheets.into_iter().rfind(|sheet| sheet.pid == pid && sheet.is_alive(now)).map(|sheet| sheet.worker)
}

/// The windows of a batch that are open in a store, of one declarer alone when it is named.
async fn open(stores: &Stores, batch: BatchId, of: Option<WorkerId>) -> Result<Windows, StoreError> {
    let ledgers = stores.ledgers.list(batch).await?;
    let windows = ledgers.into_iter().flat_map(|(lane, ledger)| ledger.row.open.into_iter().map(move |window| (lane, window)));
    let its_own = windows.filter(|(_, window)| of.is_none_or(|worker| worker == window.declarer));
    Ok(its_own.map(|(lane, window)| ((lane, window.window), window.len())).collect())
}

/// The windows of a process that does nothing any more, once no declare of it is on its way; `None` when the store does not
/// say so in time.
pub async fn at_rest(stores: &Stores, batch: BatchId, of: WorkerId) -> Option<Windows> {
    let until = Instant::now() + WITHIN;
    let mut before = None;
    loop {
        let read = tokio::time::timeout_at(until, open(stores, batch, Some(of))).await.ok()?.ok();
        if read.is_some() && read == before {
            return read;
        }
        before = read;
        if Instant::now() + APART >= until {
            return None;
        }
        tokio::time::sleep(APART).await;
    }
}

/// The windows in the folder of a process that stands still, or is dead. They are read from a copy in `place`: the folder is the
/// process's own, and whatever a crash left in it is for the next process to meet.
///
/// # Errors
/// What the disk says.
pub async fn in_folder(config: &Config, place: &Path, batch: BatchId) -> Result<Windows, Fault> {
    let copied = copy(&config.data_dir, place).await;
    let windows = match copied {
        Ok(()) => in_copy(&Config { data_dir: place.to_owned(), ..config.clone() }, batch).await,
        Err(error) => Err(Fault::new(Code::StoreUnavailable, format!("{}: {error}", place.display()))),
    };
    // It holds numbers and texts, and nobody needs it any more.
    let _ = tokio::fs::remove_dir_all(place).await;
    windows
}

async fn in_copy(config: &Config, batch: BatchId) -> Result<Windows, Fault> {
    let opened = Opened::open(config).await?;
    let windows = open(&opened.stores, batch, None).await;
    opened.close();
    Ok(windows?)
}

/// Copies the files of a folder that are no lock and no socket.
async fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    tokio::fs::create_dir_all(to).await?;
    let mut entries = tokio::fs::read_dir(from).await?;
    while let Some(entry) = entries.next_entry().await? {
        if entry.file_type().await?.is_file() && entry.file_name() != "lock" {
            tokio::fs::copy(entry.path(), to.join(entry.file_name())).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ledger::{Ledger, OpenWindow};
    use crate::model::time::Timestamp;
    use crate::roles::config_load::{Sources, load};

    const BATCH: BatchId = BatchId(7);

    fn lane(lane: u8) -> LaneKey {
        LaneKey { batch: BATCH, lane }
    }

    #[test]
    fn strikes_account_for_the_people_of_open_windows_each_once_and_for_nobody_behind_a_stop() {
        let mut struck = Struck::default();
        let killed = Windows::from([((lane(0), 3), 30), ((lane(1), 9), 37)]);
        assert_eq!(struck.windows(Blow::Killed, true, &killed), 67);
        assert_eq!((struck.uncertain_most, struck.unsent_most), (67, 0), "whoever is dead says nothing later");
        struck.people(Blow::Stopped, true, 500);
        assert_eq!((struck.uncertain_most, struck.unsent_most), (67, 0));
        // A window of the first is still open, since nobody has judged it yet.
        let frozen = Windows::from([((lane(1), 9), 37), ((lane(1), 12), 20)]);
        assert_eq!(struck.windows(Blow::Frozen, true, &frozen), 20);
        assert_eq!((struck.uncertain_most, struck.unsent_most), (87, 20));
        struck.windows(Blow::Frozen, false, &Windows::from([((lane(2), 1), 5)]));
        assert_eq!((struck.uncertain_most, struck.unsent_most), (92, 20), "embedded nobody judges what stands still");
    }

    #[test]
    fn a_strike_of_which_the_store_does_not_say_whom_it_met_is_told_from_one_that_was_counted() {
        let mut struck = Struck::default();
        let open = Windows::from([((lane(0), 3), 30)]);
        let counted = struck.met(Blow::Killed, true, Some(&open), 400);
        assert_eq!(counted, Met::Counted(30));
        assert_eq!(counted.to_string(), "30 people in its open windows");
        assert_eq!(struck.met(Blow::Killed, true, Some(&open), 400), Met::Counted(0), "they are accounted for");
        assert_eq!((struck.uncertain_most, struck.unsent_most, struck.uncounted), (30, 0, 0));
        let unknown = struck.met(Blow::Frozen, true, None, 400);
        assert_eq!(unknown, Met::AtMost(400));
        assert_eq!(unknown.to_string(), "at most 400 people in its open windows, for the store did not say");
        assert_eq!((struck.uncertain_most, struck.unsent_most, struck.uncounted), (430, 400, 1));
    }

    #[tokio::test]
    async fn windows_are_read_past_the_process_that_holds_the_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        let flags = vec![("data_dir".to_owned(), data.display().to_string())];
        let config = load(&Sources { flags, ..Sources::default() }).expect("it is valid").config;
        // The store stays open: it is the process that stands still.
        let opened = Opened::open(&config).await.expect("the folder opens");
        let (mine, other) = (WorkerId(1), WorkerId(2));
        for (at, worker) in [(0, mine), (1, other)] {
            let sealed = Ledger::sealed(100);
            opened.stores.ledgers.insert(lane(at), &sealed, 1).await.expect("stored");
            let claimed = sealed.claim(worker, 1).expect("claimed");
            opened.stores.ledgers.replace(lane(at), 1, &claimed, 2).await.expect("stored");
            let window = OpenWindow {
                window: 3,
                leg: 0,
                from: 0,
                to: 40,
                account: "main".into(),
                declarer: worker,
                declared_at: Timestamp(0),
                send_by: Timestamp(10_000),
            };
            let declared = claimed.declare(window, 1, Timestamp(0)).expect("declared");
            opened.stores.ledgers.replace(lane(at), 2, &declared, 3).await.expect("stored");
        }
        let of_one = at_rest(&opened.stores, BATCH, mine).await.expect("it is read");
        assert_eq!(of_one.values().collect::<Vec<_>>(), [&40]);
        let place = folder.path().join("looked-at");
        let all = in_folder(&config, &place, BATCH).await.expect("it is read");
        assert_eq!(all.keys().map(|(lane, _)| lane.lane).collect::<Vec<_>>(), [0, 1]);
        assert!(!place.exists(), "nothing of the copy is left");
        assert_eq!(in_folder(&config, &place, BatchId(8)).await, Ok(Windows::new()));
    }
}
