//! What a span is about: its name, and its id, which follows from what it is about.

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::model::id::{BatchId, RangeKey, RecipientKey, TaskCode, WindowKey};
use crate::model::pack::PackKey;

/// A piece of work on a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Its creation: the root of its trace.
    Create(BatchId),
    /// Looking at its list.
    Plan(BatchId),
    /// An attempt at a range.
    Range(RangeKey, u32),
    /// Making a pack durable.
    Pack(PackKey),
    /// Queueing the tokens of a dispatch.
    Dispatch(TaskCode),
    /// A window, from its declare to its last answer.
    Window(WindowKey),
    /// Handing a chunk of a window over to its account, by its number in the window.
    Submit(WindowKey, u32),
    /// The first try at a recipient, from its hand-over to its last answer.
    Message(RecipientKey),
    /// A later try at a recipient, in another window.
    Again(RecipientKey, u64),
    /// A report about a recipient: which part, and the word for how far it got.
    Receipt(RecipientKey, u8, &'static str),
}

impl Piece {
    /// The name that collectors show.
    pub fn name(&self) -> &'static str {
        match self {
            Piece::Create(_) => "batch.create",
            Piece::Plan(_) => "batch.plan",
            Piece::Range(..) => "range.prepare",
            Piece::Pack(_) => "pack.put",
            Piece::Dispatch(_) => "batch.dispatch",
            Piece::Window(_) => "lane.window",
            Piece::Submit(..) => "submit",
            Piece::Message(_) | Piece::Again(..) => "submit.message",
            Piece::Receipt(..) => "receipt",
        }
    }

    /// The batch whose trace it belongs to.
    pub fn batch(&self) -> BatchId {
        match self {
            Piece::Create(batch) | Piece::Plan(batch) => *batch,
            Piece::Range(key, _) => key.batch,
            Piece::Pack(key) => key.lane.batch,
            Piece::Dispatch(task) => task.batch,
            Piece::Window(key) | Piece::Submit(key, _) => key.lane.batch,
            Piece::Message(recipient) | Piece::Again(recipient, _) | Piece::Receipt(recipient, ..) => recipient.lane.batch,
        }
    }

    /// The span's id, which is never 0.
    pub fn id(&self) -> u64 {
        let lane = |lane: u8| u64::from(lane);
        let (kind, parts): (u64, [u64; 4]) = match self {
            Piece::Create(_) => (1, [0; 4]),
            Piece::Plan(_) => (2, [0; 4]),
            Piece::Range(key, attempt) => (3, [u64::from(key.range), u64::from(*attempt), 0, 0]),
            Piece::Pack(key) => (4, [lane(key.lane.lane), u64::from(key.range), u64::from(key.attempt), u64::from(key.n)]),
            Piece::Dispatch(task) => (5, [task.number, 0, 0, 0]),
            Piece::Window(key) => (6, [lane(key.lane.lane), key.window, 0, 0]),
            Piece::Submit(key, chunk) => (7, [lane(key.lane.lane), key.window, u64::from(*chunk), 0]),
            Piece::Message(key) => (8, [lane(key.lane.lane), u64::from(key.seq), 0, 0]),
            Piece::Again(key, window) => (9, [lane(key.lane.lane), u64::from(key.seq), *window, 0]),
            Piece::Receipt(key, part, rung) => {
                (10, [lane(key.lane.lane), u64::from(key.seq), u64::from(*part), xxh3_64(rung.as_bytes())])
            }
        };
        let mut hash = Xxh3::new();
        hash.update(&self.batch().0.to_be_bytes());
        hash.update(&kind.to_be_bytes());
        parts.iter().for_each(|part| hash.update(&part.to_be_bytes()));
        hash.digest().max(1)
    }
}

/// By which batches are chosen. Batch ids are hashes already; those of tests may not be.
pub(super) fn hash_of_batch(batch: BatchId) -> u64 {
    xxh3_64(&batch.0.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::LaneKey;

    #[test]
    fn ids_are_the_same_in_every_process_and_version_and_all_different() {
        let batch = BatchId(0x0123_4567_89ab_cdef);
        let lane = LaneKey { batch, lane: 3 };
        let (window, recipient) = (WindowKey { lane, window: 7 }, RecipientKey { lane, seq: 7 });
        let pieces = [
            Piece::Create(batch),
            Piece::Plan(batch),
            Piece::Range(RangeKey { batch, range: 3 }, 7),
            Piece::Pack(PackKey { lane, range: 3, attempt: 7, n: 0 }),
            Piece::Dispatch(TaskCode { batch, number: 3 }),
            Piece::Window(window),
            Piece::Submit(window, 0),
            Piece::Message(recipient),
            Piece::Again(recipient, 0),
            Piece::Receipt(recipient, 0, "DELIVRD"),
            Piece::Receipt(recipient, 0, "UNDELIV"),
        ];
        let ids: std::collections::BTreeSet<u64> = pieces.iter().map(Piece::id).collect();
        assert_eq!(ids.len(), pieces.len());
        assert!(pieces.iter().all(|piece| piece.batch() == batch));
        // Another version must find the span that this one made (made with Python's xxhash).
        assert_eq!(format!("{:016x}", Piece::Create(batch).id()), "4395005bc1181784");
        assert_eq!(format!("{:016x}", Piece::Message(recipient).id()), "6b9fbd2941436a32");
    }
}
