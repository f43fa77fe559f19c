//! Packs and manifests: what was prepared, and what a lane will send.

use serde::{Deserialize, Serialize};

use super::id::{LaneKey, Msisdn};

/// The name of a pack. Keyed by the attempt, so that a frozen worker's late write can never overwrite another's pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PackKey {
    /// The lane.
    pub lane: LaneKey,
    /// The range it was read from.
    pub range: u32,
    /// The attempt that wrote it.
    pub attempt: u32,
    /// Its number within lane, range and attempt.
    pub n: u32,
}

/// Where a message's link stands: the code is put in at submit, in the form the account wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkSpot {
    /// Byte in the body before which the link goes.
    pub at: u32,
    /// The short code.
    pub code: String,
}

/// One prepared message. Signature and `ext_code` are the batch's and stay out of the body; encoding and splitting happen
/// at submit, by the account's capabilities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Whom it goes to.
    pub number: Msisdn,
    /// Number of the record in the source: decides which of two duplicates came first.
    pub record: u64,
    /// Line in the source.
    pub line: u64,
    /// The rendered text without signature and link.
    pub body: String,
    /// The recipient's own link, when the batch has one.
    pub link: Option<LinkSpot>,
    /// Segments at the account that was configured when it was prepared.
    pub segments: u8,
    /// Whether these segments are UCS-2.
    pub ucs2: bool,
}

impl Message {
    /// Bytes it takes in memory, about.
    pub fn bytes(&self) -> usize {
        size_of::<Message>() + self.body.len() + self.link.as_ref().map_or(0, |link| link.code.len())
    }
}

/// Prepared messages of one lane, sorted by number; written once, never overwritten.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmsDeliveryPack {
    /// The messages, sorted by number, then by record.
    pub messages: Vec<Message>,
}

/// The small columns of a pack, read without its texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackHead {
    /// The numbers, ascending.
    pub numbers: Vec<u64>,
    /// The record of each.
    pub records: Vec<u64>,
    /// Segments of each.
    pub segments: Vec<u8>,
    /// Whether each is UCS-2.
    pub ucs2: Vec<bool>,
}

impl SmsDeliveryPack {
    /// The small columns.
    pub fn head(&self) -> PackHead {
        PackHead {
            numbers: self.messages.iter().map(|m| m.number.0).collect(),
            records: self.messages.iter().map(|m| m.record).collect(),
            segments: self.messages.iter().map(|m| m.segments).collect(),
            ucs2: self.messages.iter().map(|m| m.ucs2).collect(),
        }
    }
}

/// One pack in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestPack {
    /// The range.
    pub range: u32,
    /// The attempt that won the range.
    pub attempt: u32,
    /// The pack's number.
    pub n: u32,
    /// Place of its first message in the lane.
    pub first_seq: u32,
    /// Messages in it, struck-out ones counted.
    pub count: u32,
}

/// Totals of a lane or a batch after the seal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealTotals {
    /// Recipients who will get a message.
    pub recipients: u64,
    /// Messages struck out because their number came before.
    pub duplicates: u64,
    /// Segments of the recipients' messages.
    pub segments: u64,
    /// Recipients whose message is GSM 03.38.
    pub gsm7: u64,
    /// Recipients whose message is UCS-2.
    pub ucs2: u64,
}

impl SealTotals {
    /// Adds another lane's totals.
    pub fn add(&mut self, other: &SealTotals) {
        self.recipients += other.recipients;
        self.duplicates += other.duplicates;
        self.segments += other.segments;
        self.gsm7 += other.gsm7;
        self.ucs2 += other.ucs2;
    }
}

/// What a lane will send: written once, when the lane is sealed, if there is none yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The packs, in order.
    pub packs: Vec<ManifestPack>,
    /// Places of the struck-out duplicates, ascending.
    pub strikes: Vec<u32>,
    /// What remains.
    pub totals: SealTotals,
    /// Hash over numbers, records and strikes, in order: the same packs give the same hash.
    pub hash: u64,
}

impl Manifest {
    /// Places in the lane, struck-out ones counted.
    pub fn len(&self) -> u32 {
        self.packs.last().map_or(0, |pack| pack.first_seq + pack.count)
    }

    /// Whether the lane has no message at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the message at `seq` was struck out.
    pub fn is_struck(&self, seq: u32) -> bool {
        self.strikes.binary_search(&seq).is_ok()
    }

    /// Which pack holds `seq`.
    pub fn pack_of(&self, seq: u32) -> Option<usize> {
        let index = self.packs.partition_point(|pack| pack.first_seq + pack.count <= seq);
        (index < self.packs.len()).then_some(index)
    }
}

/// One number of a lane as the seal sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SealEntry {
    /// The number.
    pub number: u64,
    /// Its record: the first wins.
    pub record: u64,
    /// Its place in the lane.
    pub seq: u32,
}

/// The places to strike out: of each number all but the one with the smallest record. Sorts `entries`.
pub fn strikes(entries: &mut [SealEntry]) -> Vec<u32> {
    entries.sort_unstable();
    let mut struck: Vec<u32> =
        entries.windows(2).filter(|pair| pair[0].number == pair[1].number).map(|pair| pair[1].seq).collect();
    struck.sort_unstable();
    struck
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_duplicates_the_first_record_stays() {
        let mut entries: Vec<SealEntry> = [(7, 30, 0), (7, 10, 1), (8, 5, 2), (7, 20, 3)]
            .into_iter()
            .map(|(number, record, seq)| SealEntry { number, record, seq })
            .collect();
        assert_eq!(strikes(&mut entries), vec![0, 3]);
    }

    #[test]
    fn a_place_is_found_in_its_pack() {
        let pack = |first_seq, count| ManifestPack { range: 0, attempt: 1, n: 0, first_seq, count };
        let manifest = Manifest { packs: vec![pack(0, 3), pack(3, 2)], ..Manifest::default() };
        assert_eq!(
            (0..6).map(|seq| manifest.pack_of(seq)).collect::<Vec<_>>(),
            [Some(0), Some(0), Some(0), Some(1), Some(1), None]
        );
        assert_eq!(manifest.len(), 5);
    }
}
