//! Ports that wait, fail, answer late and lie, as real servers do.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use smsfleet::adapters::system::SeededChance;
use smsfleet::ports::StoreError;
use smsfleet::ports::clock::{Chance, Clock};

use super::process::Shared;

/// What fired in a run, and what was told of it.
#[derive(Default)]
pub struct Story {
    /// How often each fault was carried out. One that was only drawn, or met nothing, has not fired.
    counts: BTreeMap<&'static str, u64>,
    /// When, and what: troubles and commands, all of them.
    told: Vec<(Duration, String)>,
    /// The last faults of single calls, which nobody told of.
    last: VecDeque<(Duration, &'static str)>,
}

/// Faults of single calls that a story ends with.
const LAST: usize = 60;

/// The story of a run: it outlives the run, so that one that hangs or panics has it too.
#[derive(Clone, Default)]
pub struct Fired(Arc<Mutex<Story>>);

impl Fired {
    fn story(&self) -> MutexGuard<'_, Story> {
        self.0.lock().expect("not poisoned")
    }

    /// Counts a fault that is carried out now, since the run began so long ago.
    pub fn fire(&self, name: &'static str, now: Duration) {
        let mut story = self.story();
        *story.counts.entry(name).or_default() += 1;
        if story.last.len() == LAST {
            story.last.pop_front();
        }
        story.last.push_back((now, name));
    }

    /// Tells what happens now.
    pub fn tell(&self, what: String, now: Duration) {
        self.story().told.push((now, what));
    }

    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.story().counts.clone()
    }
}

impl fmt::Display for Fired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let story = self.story();
        let told = story.told.iter().map(|(at, what)| (*at, what.as_str()));
        let mut lines: Vec<(Duration, &str)> = told.chain(story.last.iter().copied()).collect();
        lines.sort_by_key(|(at, _)| *at);
        lines.iter().try_for_each(|(at, what)| write!(f, "\n  {at:>9.3?} {what}"))
    }
}

/// The troubles of one process, by its own chance.
#[derive(Clone)]
pub struct Trouble {
    pub(super) chance: Arc<SeededChance>,
    clock: Arc<dyn Clock>,
    /// Troubles in a thousand calls; shared by all processes, so that everything can heal.
    pub per_mille: Arc<Mutex<u64>>,
    fired: Fired,
    /// True while the disk is full: data is refused, control rows are not.
    pub full: Arc<AtomicBool>,
}

/// What becomes of a call.
pub(super) enum Fate {
    Fine,
    Unavailable,
    /// No answer, and it never happened.
    Dropped,
    /// No answer, and it happened.
    Applied,
    /// No answer, and it happens later.
    Late(Duration),
    /// An answer, after long.
    Slow(Duration),
}

impl Trouble {
    pub fn new(seed: u64, shared: &Shared) -> Trouble {
        let Shared { clock, per_mille, fired, full, .. } = shared;
        let (clock, per_mille, fired, full) = (clock.clone(), per_mille.clone(), fired.clone(), full.clone());
        Trouble { chance: Arc::new(SeededChance::from_seed(seed)), clock, per_mille, fired, full }
    }

    /// A short wait, sometimes only a yield.
    pub async fn wait(&self) {
        match self.chance.next() % 8 {
            0 => tokio::task::yield_now().await,
            1 => tokio::time::sleep(Duration::from_millis(self.chance.next() % 40)).await,
            _ => tokio::time::sleep(Duration::from_micros(self.chance.next() % 3_000)).await,
        }
    }

    /// What becomes of a call that meets trouble so many times as often as others.
    pub(super) fn fate(&self, times: u64) -> Fate {
        if !self.is_mixed(times) {
            return Fate::Fine;
        }
        match self.chance.next() % 6 {
            0 => Fate::Unavailable,
            1 => Fate::Slow(Duration::from_millis(500 + self.chance.next() % 12_000)),
            2 => Fate::Dropped,
            3 => Fate::Applied,
            _ => Fate::Late(Duration::from_millis(50 + self.chance.next() % 3_000)),
        }
    }

    pub fn fire(&self, name: &'static str) {
        self.fired.fire(name, self.clock.boot());
    }

    /// "Not now" of a server that did nothing.
    pub(super) fn unavailable<T>(&self) -> Result<T, StoreError> {
        self.fire("store unavailable");
        Err(StoreError::Unavailable("not now".into()))
    }

    /// A write that gets no answer, and that nobody ever sees.
    pub(super) async fn dropped<T>(&self) -> Result<T, StoreError> {
        self.fire("timed out, not applied");
        tokio::time::sleep(Duration::from_millis(200)).await;
        Err(StoreError::Unknown("no answer".into()))
    }

    /// Whether this call meets trouble.
    pub(super) fn is_mixed(&self, times: u64) -> bool {
        self.chance.next() % 1_000 < times * *self.per_mille.lock().expect("not poisoned")
    }

    /// One write with its fate. `call` may be called later than this returns.
    pub(super) async fn write<T, F, Fut>(&self, times: u64, call: F) -> Result<T, StoreError>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, StoreError>> + Send,
        T: Send,
    {
        self.wait().await;
        match self.fate(times) {
            Fate::Fine => {
                let answer = call().await;
                self.wait().await;
                answer
            }
            Fate::Slow(takes) => {
                self.fire("store slow");
                // Before it happens or after, as long as it takes in all.
                tokio::time::sleep(takes / 2).await;
                let answer = call().await;
                tokio::time::sleep(takes / 2).await;
                answer
            }
            Fate::Unavailable => self.unavailable(),
            Fate::Dropped => self.dropped().await,
            Fate::Applied => {
                self.fire("timed out, applied");
                let _ = call().await;
                self.wait().await;
                Err(StoreError::Unknown("no answer".into()))
            }
            Fate::Late(after) => {
                self.fire("timed out, applied late");
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    let _ = call().await;
                });
                tokio::time::sleep(Duration::from_millis(200)).await;
                Err(StoreError::Unknown("no answer".into()))
            }
        }
    }

    /// Whether there is room for data.
    pub(super) fn room(&self) -> Result<(), StoreError> {
        if self.full.load(Ordering::Relaxed) { Err(StoreError::Full("no room".into())) } else { Ok(()) }
    }

    /// Data is written, if there is room for it.
    pub(super) fn takes_room(&self, fault: &'static str) -> Result<(), StoreError> {
        self.room().inspect_err(|_| self.fire(fault))
    }

    /// One read with its fate. A read that is not answered changes nothing: it may simply be asked again.
    pub(super) async fn read<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        self.wait().await;
        match self.fate(1) {
            Fate::Fine => call.await,
            Fate::Slow(takes) => {
                self.fire("store slow");
                let answer = call.await;
                tokio::time::sleep(takes).await;
                answer
            }
            Fate::Unavailable => self.unavailable(),
            Fate::Dropped | Fate::Applied | Fate::Late(_) => {
                self.fire("read timed out");
                tokio::time::sleep(Duration::from_millis(200 + self.chance.next() % 3_000)).await;
                Err(StoreError::Unavailable("no answer".into()))
            }
        }
    }
}
