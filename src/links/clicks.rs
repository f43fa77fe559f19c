//! Openings on their way into the journal: in groups, through a channel that never makes a visitor wait.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_util::sync::CancellationToken;

use super::redirect::Visit;
use crate::model::click::{Click, Kind, SWEEP_CODES, SWEEP_SPAN, Sweep, scope_of, sweeps_of};
use crate::model::id::BatchId;
use crate::model::time::Timestamp;
use crate::ports::journal::{Entry, Place, Stream};
use crate::ports::{StoreError, Stores, World};
use crate::runtime::digest::{digest, hex};
use crate::runtime::metrics;
use crate::runtime::retry::{Schedule, store};

/// Openings that may wait for the store; more are counted and dropped.
const WAITING_MAX: usize = 65_536;
/// Openings in one commit at most.
const GROUP_MAX: usize = 4_096;
/// How long an opening waits for others to share a commit with.
const LINGER: Duration = Duration::from_millis(50);
/// Sources watched at once for sweeps.
const SOURCES_MAX: usize = 50_000;

/// An opening with the link it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The batch.
    pub batch: BatchId,
    /// The link's number.
    pub link: u64,
    /// When.
    pub at: Timestamp,
    /// The opening.
    pub click: Click,
}

/// A digest that tells one visitor's openings of one UTC day from another's, and nothing else: address and browser under the
/// store's own key, with the day. Empty when the address is not known.
pub fn source_of(key: &[u8; 16], at: Timestamp, visit: &Visit<'_>) -> String {
    if visit.address.is_empty() {
        return String::new();
    }
    let day = at.0.div_euclid(86_400_000).to_be_bytes();
    let digest = digest([&key[..], &day, visit.address.as_bytes(), visit.facts.agent.as_bytes()]);
    hex(&digest[..8])
}

/// Where openings are handed in.
#[derive(Clone)]
pub struct ClickLog(mpsc::Sender<Opening>);

/// The other end of a [`ClickLog`]: writes until it is stopped.
pub struct ClickWriter {
    stores: Stores,
    world: World,
    openings: mpsc::Receiver<Opening>,
    watch: Watch,
}

impl ClickLog {
    /// A log and its writer.
    pub fn new(stores: Stores, world: World) -> (ClickLog, ClickWriter) {
        let (sender, openings) = mpsc::channel(WAITING_MAX);
        (ClickLog(sender), ClickWriter { stores, world, openings, watch: Watch::default() })
    }

    /// Hands an opening in. Never waits: when too many wait for the store it is dropped and counted.
    pub fn keep(&self, opening: Opening) {
        match self.0.try_send(opening) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => metrics::count(&metrics::LINKS_CLICKS_DROPPED, &[], 1),
        }
    }
}

impl ClickWriter {
    /// Writes openings until `stop`, and then what still waits.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let first = tokio::select! {
                biased;
                opening = self.openings.recv() => opening,
                () = stop.cancelled() => None,
            };
            let Some(first) = first else { return };
            let mut group = vec![first];
            let until = tokio::time::Instant::now() + LINGER;
            while group.len() < GROUP_MAX {
                match tokio::time::timeout_at(until, self.openings.recv()).await {
                    Ok(Some(opening)) => group.push(opening),
                    Ok(None) | Err(_) => break,
                }
            }
            let count = group.len() as u64;
            if let Err(error) = self.write(group).await {
                tracing::warn!(code = %error.code(), openings = count, "openings of short links could not be kept");
                metrics::count(&metrics::LINKS_CLICKS_DROPPED, &[], count);
            }
        }
    }

    async fn write(&mut self, group: Vec<Opening>) -> Result<(), StoreError> {
        let text = |error: serde_json::Error| StoreError::Corrupt(error.to_string());
        let (mut entries, mut kinds) = (Vec::with_capacity(group.len()), [0u64; 2]);
        for opening in group {
            if let Some(sweep) = self.watch.opened(&opening) {
                let place = Place { scope: sweeps_of(opening.batch), at: opening.at, id: self.world.chance.next() };
                entries.push(Entry { place, body: serde_json::to_string(&sweep).map_err(text)? });
            }
            kinds[usize::from(opening.click.kind == Kind::Machine)] += 1;
            let scope = scope_of(opening.batch, opening.link);
            let place = Place { scope, at: opening.at, id: self.world.chance.next() };
            entries.push(Entry { place, body: serde_json::to_string(&opening.click).map_err(text)? });
        }
        let schedule = Schedule::new(Duration::from_millis(50), Duration::from_secs(1), self.world.chance.next()).up_to(8);
        store(schedule, || self.stores.journal.append(Stream::Click, entries.clone())).await?;
        for (kind, count) in ["person", "machine"].into_iter().zip(kinds).filter(|(_, count)| *count > 0) {
            metrics::count(&metrics::LINKS_CLICKS, &[kind], count);
        }
        Ok(())
    }
}

/// Watches for sources that open many codes of one batch within seconds.
#[derive(Default)]
struct Watch(HashMap<(BatchId, String), Seen>);

/// What a source opened lately: different codes, each with its instant; and the sweep it is in.
struct Seen {
    codes: Vec<(u64, Timestamp)>,
    swept: Option<Timestamp>,
}

impl Watch {
    /// Takes in an opening; gives a sweep to be written down when this makes or goes on with one.
    fn opened(&mut self, opening: &Opening) -> Option<Sweep> {
        let (at, source) = (opening.at, &opening.click.source);
        // Who is a machine by its own word needs no second reason, and nobody knows who comes from nowhere.
        if source.is_empty() || opening.click.kind == Kind::Machine {
            return None;
        }
        if self.0.len() >= SOURCES_MAX {
            self.0.retain(|_, seen| seen.codes.last().is_some_and(|(_, last)| at.since(*last) <= SWEEP_SPAN));
            if self.0.len() >= SOURCES_MAX {
                self.0.clear();
            }
        }
        let seen = self.0.entry((opening.batch, source.clone())).or_insert(Seen { codes: vec![], swept: None });
        seen.codes.retain(|(link, then)| *link != opening.link && at.since(*then) <= SWEEP_SPAN);
        seen.codes.push((opening.link, at));
        if seen.codes.len() > SWEEP_CODES {
            seen.codes.remove(0);
        }
        if seen.codes.len() < SWEEP_CODES {
            return None;
        }
        // Once for each span: a sweep of a million codes is not a million rows.
        if seen.swept.is_some_and(|last| at.since(last) < SWEEP_SPAN) {
            return None;
        }
        seen.swept = Some(at);
        Some(Sweep { source: source.clone(), from: seen.codes[0].1, to: at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::click::{Agent, RequestFacts};

    fn opening(link: u64, at: i64) -> Opening {
        let click = Click { kind: Kind::Person, why: None, agent: Agent::Phone, source: "s".into() };
        Opening { batch: BatchId(1), link, at: Timestamp(at), click }
    }

    #[test]
    fn many_codes_within_seconds_are_a_sweep_and_a_crowd_is_none() {
        let sweeps = |openings: Vec<Opening>| {
            let mut watch = Watch::default();
            openings.iter().filter_map(|opening| watch.opened(opening)).collect::<Vec<_>>()
        };
        let fast = sweeps((0..100).map(|n| opening(n, n as i64 * 100)).collect());
        assert_eq!((fast[0].from, fast[0].to), (Timestamp(0), Timestamp(900)), "from the first on");
        assert_eq!(fast.len(), 4, "once for each span");
        assert!(sweeps((0..100).map(|n| opening(n, n as i64 * 400)).collect()).is_empty(), "slowly");
        assert!(sweeps((0..100).map(|n| opening(n % 5, n as i64)).collect()).is_empty(), "the same few codes");
        let nowhere = |n: u64| Opening { click: Click { source: String::new(), ..opening(n, 0).click }, ..opening(n, 0) };
        assert!(sweeps((0..100).map(nowhere).collect()).is_empty(), "from nobody knows where");
    }

    #[test]
    fn a_source_is_one_visitor_on_one_day() {
        let visit = |address, agent| Visit { facts: RequestFacts { agent, ..RequestFacts::default() }, address };
        let of = |at, visit: Visit<'_>| source_of(&[7; 16], Timestamp(at), &visit);
        let base = of(0, visit("192.0.2.1", "a"));
        assert_eq!(base, of(86_399_999, visit("192.0.2.1", "a")));
        for other in [of(86_400_000, visit("192.0.2.1", "a")), of(0, visit("192.0.2.2", "a")), of(0, visit("192.0.2.1", "b"))] {
            assert_ne!(base, other);
        }
        assert!(!base.contains("192"));
        assert_eq!(of(0, visit("", "a")), "");
    }
}
