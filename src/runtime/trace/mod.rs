//! Following a message from end to end: spans for a collector (OpenTelemetry, OTLP over HTTP), and the same ids in log lines.
//!
//! Nothing about a trace is stored. A batch's trace has the batch's own id, the ids of its spans are derived from what they are
//! about ([`Piece`]), and whether a batch or a recipient is followed is a hash of its name: every process decides alike, and any
//! of them can name the span that another one made, such as the one of the message that a receipt is about. What caused a
//! piece of work travels beside its token all the same.
//!
//! Off, which is the default, each call costs the look at one atomic. Attributes are counts, places, names of accounts and codes:
//! no number and no text of a person ever gets here.
//!
//! Architecture invariant: only this folder knows the collector's libraries, and nothing waits for them.

mod config;
mod export;
mod lines;
mod piece;
mod span;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use config::TraceConfig;
pub use lines::{KeepIds, WithIds};
pub use piece::Piece;
pub use span::{Span, Value};

use self::export::Exporter;
use crate::model::code::Fault;
use crate::model::id::{BatchId, RecipientKey};
use crate::model::trace::TraceParent;

/// Looked at before anything else.
static ON: AtomicBool = AtomicBool::new(false);
static RECORDER: OnceLock<Recorder> = OnceLock::new();

/// What a process that follows anything has.
struct Recorder {
    exporter: Exporter,
    batches: Share,
    recipients: Share,
}

/// A share of all names, by their hash.
#[derive(Clone, Copy)]
struct Share(f64);

impl Share {
    fn has(self, hash: u64) -> bool {
        // The upper 53 bits are a number in [0, 1) without rounding, so that a share of 1 has all and one of 0 none.
        ((hash >> 11) as f64 / (1u64 << 53) as f64) < self.0
    }
}

/// Begins to follow, when the configuration names a collector. A second call in one process changes nothing. The process's
/// cryptography must be named before.
///
/// # Errors
/// [`crate::model::code::Code::ConfigInvalid`]. A collector that is away is none.
pub fn start(config: &TraceConfig) -> Result<(), Fault> {
    if config.endpoint.is_none() || RECORDER.get().is_some() {
        return Ok(());
    }
    let recorder =
        Recorder { exporter: Exporter::start(config)?, batches: Share(config.sample), recipients: Share(config.recipients) };
    if RECORDER.set(recorder).is_ok() {
        ON.store(true, Ordering::Release);
    }
    Ok(())
}

/// Hands over what was recorded, for at most `limit`, and records nothing any more.
pub fn stop(limit: Duration) {
    if ON.swap(false, Ordering::AcqRel)
        && let Some(recorder) = RECORDER.get()
    {
        recorder.exporter.stop(limit);
    }
}

fn recorder() -> Option<&'static Recorder> {
    if ON.load(Ordering::Acquire) { RECORDER.get() } else { None }
}

/// Whether anything is followed in this process.
pub fn is_on() -> bool {
    recorder().is_some()
}

/// The place of a piece of a batch's work in its trace, whoever did it and wherever; `None` when the batch is not followed.
pub fn place(piece: Piece) -> Option<TraceParent> {
    let recorder = recorder()?;
    let batch = piece.batch();
    if !recorder.batches.has(piece::hash_of_batch(batch)) {
        return None;
    }
    TraceParent::new(batch.0, piece.id(), true)
}

/// Whether a recipient of a batch that is followed has spans of its own.
pub fn follows(recipient: RecipientKey) -> bool {
    recorder().is_some_and(|recorder| recorder.recipients.has(Piece::Message(recipient).id()))
}

/// Tokens of several batches by the trace they belong to; in one heap when nothing is followed.
pub fn grouped<T>(tokens: Vec<T>, batch: impl Fn(&T) -> BatchId) -> Vec<(Option<TraceParent>, Vec<T>)> {
    if !is_on() || tokens.is_empty() {
        return vec![(None, tokens)];
    }
    let mut groups: BTreeMap<BatchId, (Option<TraceParent>, Vec<T>)> = BTreeMap::new();
    for token in tokens {
        let batch = batch(&token);
        let place = place(Piece::Create(batch));
        // What is not followed needs no heap of its own.
        let group = if place.is_some() { batch } else { BatchId::default() };
        groups.entry(group).or_insert_with(|| (place, vec![])).1.push(token);
    }
    groups.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_share() {
        let hashes = (0..10_000u128).map(|n| piece::hash_of_batch(BatchId(n)));
        let counted = |share: f64| hashes.clone().filter(|hash| Share(share).has(*hash)).count();
        assert_eq!((counted(0.0), counted(1.0)), (0, 10_000));
        assert!((400..600).contains(&counted(0.05)), "{}", counted(0.05));
        assert!(!Share(0.0).has(0) && Share(1.0).has(u64::MAX));
    }

    #[test]
    fn a_process_without_a_collector_follows_nothing() {
        start(&TraceConfig::default()).expect("nothing to do");
        assert!(!is_on() && place(Piece::Create(BatchId(7))).is_none());
        assert_eq!(grouped(vec![1, 2], |_| BatchId(1)), [(None, vec![1, 2])]);
        stop(Duration::ZERO);
    }
}
