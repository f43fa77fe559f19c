//! Messages on their way into packs: a shelf for each lane, emptied into a pack when it is full, or earlier when there is much text
//! on all of them together.

use xxhash_rust::xxh3::Xxh3;

use crate::model::id::{BatchId, LaneKey};
use crate::model::lane::lane_of;
use crate::model::limits::{PACK_BYTES_MAX, PACK_RECIPIENTS_MAX, SHELVES_BYTES_MAX};
use crate::model::pack::{Message, PackKey, SmsDeliveryPack};

/// The messages of one attempt at one range that are not in a pack yet: [`PACK_RECIPIENTS_MAX`] or [`PACK_BYTES_MAX`] a lane, and
/// [`SHELVES_BYTES_MAX`] in all lanes, whichever is least.
pub struct Shelves {
    batch: BatchId,
    range: u32,
    attempt: u32,
    shelves: Vec<Shelf>,
    /// Bytes on all shelves.
    bytes: usize,
    packs: Vec<u32>,
    messages: u64,
    hash: Xxh3,
}

#[derive(Default)]
struct Shelf {
    messages: Vec<Message>,
    bytes: usize,
}

impl Shelves {
    /// Empty shelves for a batch of `lanes` lanes.
    pub fn new(batch: BatchId, range: u32, attempt: u32, lanes: u16) -> Shelves {
        let lanes = usize::from(lanes);
        Shelves {
            batch,
            range,
            attempt,
            shelves: (0..lanes).map(|_| Shelf::default()).collect(),
            bytes: 0,
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
            let (shelf, bytes) = (&mut self.shelves[usize::from(lane)], message.bytes());
            shelf.messages.push(message);
            shelf.bytes += bytes;
            self.bytes += bytes;
            self.messages += 1;
            if shelf.messages.len() == PACK_RECIPIENTS_MAX || shelf.bytes >= PACK_BYTES_MAX {
                full.push(self.pack(lane));
            } else if self.bytes >= SHELVES_BYTES_MAX {
                let fullest = (0..self.shelves.len()).max_by_key(|lane| self.shelves[*lane].bytes);
                full.push(self.pack(fullest.map_or(lane, |lane| lane as u8)));
            }
        }
    }

    /// What is left becomes the last packs, lane by lane.
    pub fn empty(&mut self, full: &mut Vec<(PackKey, SmsDeliveryPack)>) {
        for lane in 0..self.shelves.len() {
            if !self.shelves[lane].messages.is_empty() {
                full.push(self.pack(lane as u8));
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

    fn pack(&mut self, lane: u8) -> (PackKey, SmsDeliveryPack) {
        let Shelf { mut messages, bytes } = std::mem::take(&mut self.shelves[usize::from(lane)]);
        self.bytes -= bytes;
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

    fn message(record: u64, text: usize) -> Message {
        Message {
            number: Msisdn(8_613_800_000_000 + record),
            record,
            line: record + 2,
            body: "x".repeat(text),
            link: None,
            segments: 16,
            ucs2: false,
        }
    }

    #[test]
    fn packs_hold_many_whether_the_batch_is_large_or_small() {
        let packs = |messages: u32, lanes: u16| {
            let (mut shelves, mut full) = (Shelves::new(BatchId(1), 0, 1, lanes), vec![]);
            shelves.put((0..u64::from(messages)).map(|record| message(record, 0)), &mut full);
            shelves.empty(&mut full);
            full.iter().map(|(_, pack)| pack.messages.len()).collect::<Vec<_>>()
        };
        // A range of a batch with all lanes: were it ten times smaller, each of its packs would hold a few dozen.
        let large = packs(RANGE_RECORDS, LANES_MAX);
        assert!(large.len() <= 2 * usize::from(LANES_MAX), "{} packs", large.len());
        assert_eq!(large.iter().sum::<usize>(), RANGE_RECORDS as usize);
        assert_eq!(packs(3_000, 1), [1_024, 1_024, 952]);
    }

    #[test]
    fn a_range_of_long_texts_is_never_held_whole() {
        // Half a gigabyte goes through in one lane or in many; small texts fill their packs as ever.
        for (lanes, text, people, per_pack) in
            [(1, 2_400, 131_072, 200..=220), (128, 2_400, 131_072, 20..=220), (128, 160, 131_072, 500..=1_024)]
        {
            let mut shelves = Shelves::new(BatchId(7), 0, 0, lanes);
            let (mut full, mut packs, mut records) = (vec![], 0, vec![]);
            for chunk in 0..people / 1_024 {
                shelves.put((0..1_024).map(|n| message(chunk * 1_024 + n, text)), &mut full);
                assert!(shelves.bytes < SHELVES_BYTES_MAX, "{} bytes are held", shelves.bytes);
                packs += full.len();
                for (_, pack) in full.drain(..) {
                    assert!(pack.messages.iter().map(Message::bytes).sum::<usize>() < PACK_BYTES_MAX + (text + 200));
                    records.extend(pack.messages.iter().map(|message| message.record));
                }
            }
            shelves.empty(&mut full);
            packs += full.len();
            records.extend(full.iter().flat_map(|(_, pack)| &pack.messages).map(|message| message.record));
            records.sort_unstable();
            assert!(records.iter().copied().eq(0..people), "all of them come out, each once");
            assert_eq!((shelves.bytes, shelves.messages()), (0, people));
            assert_eq!(shelves.packs().iter().sum::<u32>() as usize, packs);
            assert!(per_pack.contains(&(people as usize / packs)), "{} in a pack", people as usize / packs);
        }
    }
}
