//! Ports that wait, fail, answer late and lie, as real servers do.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use smsfleet::adapters::system::SeededChance;
use smsfleet::ports::StoreError;
use smsfleet::ports::clock::Chance;
use tokio::sync::Notify;

/// How often a fault fired, over a whole run.
pub type Fired = Arc<Mutex<BTreeMap<&'static str, u64>>>;

/// Counts a fault that is carried out now. One that was only drawn has not fired.
pub fn fire(fired: &Fired, name: &'static str) {
    *fired.lock().expect("not poisoned").entry(name).or_default() += 1;
}

/// What a process's ports are behind: nothing passes while it is shut. Whoever waits goes on in the order they came, which a
/// watch channel of tokio would leave to chance, and one seed would make many runs.
#[derive(Default)]
pub struct Gate {
    is_shut: AtomicBool,
    opened: Notify,
}

impl Gate {
    pub fn shut(&self) {
        self.is_shut.store(true, Ordering::Relaxed);
    }

    pub fn open(&self) {
        self.is_shut.store(false, Ordering::Relaxed);
        self.opened.notify_waiters();
    }

    async fn pass(&self) {
        while self.is_shut.load(Ordering::Relaxed) {
            self.opened.notified().await;
        }
    }
}

/// The troubles of one process: its own chance, its own gate.
#[derive(Clone)]
pub struct Trouble {
    pub(super) chance: Arc<SeededChance>,
    /// Shut while the process is frozen.
    gate: Arc<Gate>,
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
    pub fn new(seed: u64, gate: Arc<Gate>, per_mille: Arc<Mutex<u64>>, fired: Fired, full: Arc<AtomicBool>) -> Trouble {
        Trouble { chance: Arc::new(SeededChance::from_seed(seed)), gate, per_mille, fired, full }
    }

    /// Waits while the process is frozen.
    pub async fn gate(&self) {
        self.gate.pass().await;
    }

    /// A short wait, sometimes only a yield, and the gate.
    pub async fn wait(&self) {
        match self.chance.next() % 8 {
            0 => tokio::task::yield_now().await,
            1 => tokio::time::sleep(Duration::from_millis(self.chance.next() % 40)).await,
            _ => tokio::time::sleep(Duration::from_micros(self.chance.next() % 3_000)).await,
        }
        self.gate().await;
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
        fire(&self.fired, name);
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
                self.gate().await;
                let answer = call().await;
                tokio::time::sleep(takes / 2).await;
                self.gate().await;
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

    /// One read with its fate. A read that is not answered changes nothing: it may simply be asked again.
    pub(super) async fn read<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        self.wait().await;
        match self.fate(1) {
            Fate::Fine => {
                let answer = call.await;
                self.gate().await;
                answer
            }
            Fate::Slow(takes) => {
                self.fire("store slow");
                let answer = call.await;
                tokio::time::sleep(takes).await;
                self.gate().await;
                answer
            }
            Fate::Unavailable => self.unavailable(),
            Fate::Dropped | Fate::Applied | Fate::Late(_) => {
                self.fire("read timed out");
                tokio::time::sleep(Duration::from_millis(200 + self.chance.next() % 3_000)).await;
                self.gate().await;
                Err(StoreError::Unavailable("no answer".into()))
            }
        }
    }
}
