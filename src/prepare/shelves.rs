//! Messages on their way into packs: a shelf for each lane, emptied into a pack when it is full.

use xxhash_rust::xxh3::Xxh3;

use crate::model::id::{BatchId, LaneKey};
use crate::model::lane::lane_of;
use crate::model::limits::PACK_RECIPIENTS_MAX;
use crate::model::pack::{Message, PackKey, SmsDeliveryPack};

/// The messages of one attempt at one range that are not in a pack yet. At most a range, or
/// [`PACK_RECIPIENTS_MAX`] a lane, whichever is less.
pub struct Shelves {
    batch: BatchId,
    range: u32,
    attempt: u32,
    shelves: Vec<Vec<Message>>,
    packs: Vec<u32>,
    messages: u64,
    hash: Xxh3,
}

impl Shelves {
    /// Empty shelves for a batch of `lanes` lanes.
    pub fn new(batch: BatchId, range: u32, attempt: u32, lanes: u16) -> Shelves {
        let lanes = usize::from(lanes);
        Shelves {
            batch,
            range,
            attempt,
            shelves: (0..lanes).map(|_| vec![]).collect(),
            packs: vec![0; lanes],
            messages: 0,
            hash: Xxh3::new(),
        }
    }

    /// Puts messages on their shelves; `full` gets the packs that are full.
    pub fn put(&mut self, messages: impl IntoIterator<Item = Message>, full: &mut Vec<(PackKey, SmsDeliveryPack)>) {
        let lanes = self.shelves.len() as u16;
        for message in messages {
            let lane = lane_of(message.number, lanes);
            let shelf = &mut self.shelves[usize::from(lane)];
            shelf.push(message);
            self.messages += 1;
            if shelf.len() == PACK_RECIPIENTS_MAX {
                let shelf = std::mem::replace(shelf, Vec::with_capacity(PACK_RECIPIENTS_MAX));
                full.push(self.pack(lane, shelf));
            }
        }
    }

    /// What is left becomes the last packs, lane by lane.
    pub fn empty(&mut self, full: &mut Vec<(PackKey, SmsDeliveryPack)>) {
        for lane in 0..self.shelves.len() {
            let shelf = std::mem::take(&mut self.shelves[lane]);
            if !shelf.is_empty() {
                full.push(self.pack(lane as u8, shelf));
            }
        }
    }

    /// Packs made for each lane.
    pub fn packs(&self) -> &[u32] {
        &self.packs
    }

    /// Messages so far.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// XXH3-64 over the packs made so far, in the order they were made: their keys, numbers, records and texts.
    pub fn hash(&self) -> u64 {
        self.hash.digest()
    }

    fn pack(&mut self, lane: u8, mut messages: Vec<Message>) -> (PackKey, SmsDeliveryPack) {
        messages.sort_unstable_by_key(|message| (message.number, message.record));
        let n = self.packs[usize::from(lane)];
        self.packs[usize::from(lane)] += 1;
        self.hash.update(&[lane]);
        self.hash.update(&n.to_le_bytes());
        for message in &messages {
            let mut head = [0u8; 24];
            head[..8].copy_from_slice(&message.number.0.to_le_bytes());
            head[8..16].copy_from_slice(&message.record.to_le_bytes());
            head[16..].copy_from_slice(&(message.body.len() as u64).to_le_bytes());
            self.hash.update(&head);
            self.hash.update(message.body.as_bytes());
            if let Some(link) = &message.link {
                self.hash.update(&link.at.to_le_bytes());
                self.hash.update(link.code.as_bytes());
            }
        }
        let key = PackKey { lane: LaneKey { batch: self.batch, lane }, range: self.range, attempt: self.attempt, n };
        (key, SmsDeliveryPack { messages })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::Msisdn;
    use crate::model::limits::{LANES_MAX, RANGE_RECORDS};

    /// The packs of one range with so many messages.
    fn packs(messages: u32, lanes: u16) -> Vec<(PackKey, SmsDeliveryPack)> {
        let message = |record: u64| Message {
            number: Msisdn(8_613_800_000_000 + record),
            record,
            line: record + 2,
            body: String::new(),
            link: None,
            segments: 1,
            ucs2: false,
        };
        let (mut shelves, mut full) = (Shelves::new(BatchId(1), 0, 1, lanes), vec![]);
        shelves.put((0..u64::from(messages)).map(message), &mut full);
        shelves.empty(&mut full);
        full
    }

    #[test]
    fn packs_hold_many_whether_the_batch_is_large_or_small() {
        // A range of a batch with all lanes: were it ten times smaller, each of its packs would hold a few dozen.
        let large = packs(RANGE_RECORDS, LANES_MAX);
        assert!(large.len() <= 2 * usize::from(LANES_MAX), "{} packs", large.len());
        assert_eq!(large.iter().map(|(_, pack)| pack.messages.len()).sum::<usize>(), RANGE_RECORDS as usize);
        let small = packs(3_000, 1);
        assert_eq!(small.iter().map(|(_, pack)| pack.messages.len()).collect::<Vec<_>>(), [1_024, 1_024, 952]);
    }
}
