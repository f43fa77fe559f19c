//! Whether this process still turns: its long-lived loops leave a sign of life, and one that has left none for too long stands
//! still. `/healthz` says which, so that whoever started the process can end it and start another.
//!
//! Waiting for somebody else is no standstill: a store that is away must not restart the fleet. So a loop on the runtime is not
//! asked what it does; it is looked at from outside. Whatever waits is woken (by an answer, a time-out, the next try), and
//! whatever is woken is polled. A loop stands still when a poll does not end, when it was woken and is not polled, and, where it
//! has a timer of its own, when nothing wakes it any more, which is what a deadlock looks like. Calls to servers have time-outs,
//! and the limit is longer than all of them.
//!
//! Time is counted by a thread outside the runtime, in seconds that it was there for: a machine that slept for an hour, or a
//! process that was frozen, does not stand still when it wakes up.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio_util::sync::CancellationToken;

/// What a loop is expected to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// It has a timer: something wakes it all the time.
    Always,
    /// It may wait for as long as nothing comes.
    WhenWoken,
}

/// A loop that stands still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// Its name.
    pub name: &'static str,
    /// For how long.
    pub seconds: u64,
}

/// The loops of a process.
#[derive(Clone, Default)]
pub struct Pulses(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Seconds that were counted.
    now: AtomicU64,
    /// Seconds without a sign after which a loop stands still.
    limit: AtomicU64,
    next: AtomicU64,
    beats: Mutex<BTreeMap<u64, Arc<Beat>>>,
    is_counting: AtomicBool,
}

static OF_PROCESS: LazyLock<Pulses> = LazyLock::new(Pulses::default);

/// The loops of this process. There is one list for all of them, as there is of metrics.
pub fn of_process() -> &'static Pulses {
    &OF_PROCESS
}

/// Watches a loop of this process; see [`Pulses::watch`].
pub fn watch<F: Future>(name: &'static str, turns: Turns, work: F) -> Watched<F> {
    of_process().watch(name, turns, work)
}

/// Watches the thread that calls; see [`Pulses::thread`].
pub fn thread(name: &'static str) -> ThreadPulse {
    of_process().thread(name)
}

/// Begins to count, and turns once a second on the runtime, which shows that the runtime does, until `stop`.
pub async fn keep(limit: Duration, stop: CancellationToken) {
    of_process().begin(limit);
    let turning = async { while tokio::time::timeout(Duration::from_secs(1), stop.cancelled()).await.is_err() {} };
    watch("runtime", Turns::Always, turning).await;
}

impl Pulses {
    /// A list with this limit, whose time passes by hand.
    #[cfg(test)]
    pub fn of_test(limit: u64) -> Pulses {
        let pulses = Pulses::default();
        pulses.0.limit.store(limit, Ordering::Relaxed);
        pulses
    }

    /// Watches a loop for as long as it is not dropped.
    pub fn watch<F: Future>(&self, name: &'static str, turns: Turns, work: F) -> Watched<F> {
        let entry = self.enter(name, turns);
        entry.beat.woken.store(true, Ordering::Relaxed);
        Watched { entry, work: Box::pin(work) }
    }

    /// Watches a thread for as long as the answer is not dropped.
    pub fn thread(&self, name: &'static str) -> ThreadPulse {
        let entry = self.enter(name, Turns::WhenWoken);
        entry.beat.busy.store(true, Ordering::Relaxed);
        ThreadPulse(entry)
    }

    /// The loop that stands still for longest, if one does.
    pub fn stall(&self) -> Option<Stall> {
        let limit = self.0.limit.load(Ordering::Relaxed);
        let stalls = self.silent().into_iter().filter(|stall| limit > 0 && stall.seconds >= limit);
        stalls.max_by_key(|stall| stall.seconds)
    }

    /// How long the loop that owes a sign for longest has owed it, in seconds.
    pub fn longest_silence(&self) -> u64 {
        self.silent().into_iter().map(|stall| stall.seconds).max().unwrap_or(0)
    }

    /// Loops that owe a sign, and for how long.
    fn silent(&self) -> Vec<Stall> {
        let now = self.0.now.load(Ordering::Relaxed);
        let owing = |beat: &Arc<Beat>| beat.turns == Turns::Always || beat.has_work();
        let stall = |beat: &Arc<Beat>| Stall { name: beat.name, seconds: now.saturating_sub(beat.since.load(Ordering::Relaxed)) };
        self.beats().values().filter(|beat| owing(beat)).map(stall).collect()
    }

    /// Sets the limit, and starts the thread that counts, once.
    fn begin(&self, limit: Duration) {
        self.0.limit.store(limit.as_secs().max(1), Ordering::Relaxed);
        if self.0.is_counting.swap(true, Ordering::Relaxed) {
            return;
        }
        let pulses = self.clone();
        let count = move || {
            let mut said: Option<&'static str> = None;
            loop {
                std::thread::sleep(Duration::from_secs(1));
                pulses.pass(1);
                let stall = pulses.stall();
                if let Some(stall) = stall.as_ref().filter(|stall| said != Some(stall.name)) {
                    tracing::error!(part = stall.name, seconds = stall.seconds, "a part of this process stands still");
                }
                said = stall.map(|stall| stall.name);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("smsfleet-pulse".into()).spawn(count) {
            tracing::warn!(%error, "nobody notices when this process stands still");
        }
    }

    /// Seconds pass.
    pub fn pass(&self, seconds: u64) {
        self.0.now.fetch_add(seconds, Ordering::Relaxed);
    }

    fn enter(&self, name: &'static str, turns: Turns) -> Entry {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let beat = Arc::new(Beat {
            name,
            turns,
            pulses: self.clone(),
            since: AtomicU64::new(self.0.now.load(Ordering::Relaxed)),
            woken: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            outer: AtomicWaker::new(),
        });
        self.beats().insert(id, beat.clone());
        Entry { id, beat }
    }

    fn beats(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Beat>>> {
        self.0.beats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of a loop.
struct Beat {
    name: &'static str,
    turns: Turns,
    pulses: Pulses,
    /// When it last gave a sign, or was given work.
    since: AtomicU64,
    /// It was woken and not polled since.
    woken: AtomicBool,
    /// It is being polled.
    busy: AtomicBool,
    /// Who polls it.
    outer: AtomicWaker,
}

impl Beat {
    fn sign(&self) {
        self.since.store(self.pulses.0.now.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    fn has_work(&self) -> bool {
        self.woken.load(Ordering::Relaxed) || self.busy.load(Ordering::Relaxed)
    }
}

impl Wake for Beat {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::AcqRel) && !self.busy.load(Ordering::Relaxed) {
            self.sign();
        }
        self.outer.wake();
    }
}

/// A place in the list; dropped, it is taken out.
struct Entry {
    id: u64,
    beat: Arc<Beat>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.beat.pulses.beats().remove(&self.id);
    }
}

/// A loop that is watched. It has a waker of its own, because what it is joined with in one task is polled as often as it is.
pub struct Watched<F> {
    entry: Entry,
    work: Pin<Box<F>>,
}

impl<F: Future> Future for Watched<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, outer: &mut Context<'_>) -> Poll<F::Output> {
        let beat = self.entry.beat.clone();
        beat.outer.register(outer.waker());
        let was_woken = beat.woken.swap(false, Ordering::AcqRel);
        if was_woken {
            beat.sign();
        }
        beat.busy.store(true, Ordering::Relaxed);
        let polled = self.work.as_mut().poll(&mut Context::from_waker(&Waker::from(beat.clone())));
        beat.busy.store(false, Ordering::Relaxed);
        if was_woken {
            beat.sign();
        }
        polled
    }
}

/// A thread that is watched: it works, but for what it says that it waits for.
pub struct ThreadPulse(Entry);

impl ThreadPulse {
    /// A sign of life.
    pub fn turns(&self) {
        self.0.beat.sign();
    }

    /// Waits for something from outside, which may take as long as it likes.
    pub fn waits<R>(&self, outside: impl FnOnce() -> R) -> R {
        self.0.beat.busy.store(false, Ordering::Relaxed);
        let answer = outside();
        self.0.beat.sign();
        self.0.beat.busy.store(true, Ordering::Relaxed);
        answer
    }
}

#[cfg(test)]
#[path = "pulse_tests.rs"]
mod tests;
