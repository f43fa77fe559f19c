//! The receipt index: from an account's message id to a part of a recipient.
//!
//! Ids that differ in their last two characters share a partition. Most accounts count their ids up, so the answers of a
//! window go into a few partitions, by a few unlogged batches; ids that are random get a partition each. An entry lives
//! for a set time, longer than receipts are waited for. The number is kept as a hash: it narrows, and names nobody.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt, TryStreamExt};

use super::key;
use super::statement::{NAMES_AT_ONCE, Statement};
use super::store::CqlStore;
use crate::model::id::{LaneKey, Msisdn, RecipientKey};
use crate::model::lane::mix;
use crate::model::limits::CANDIDATES_MAX;
use crate::ports::StoreError;
use crate::ports::receipts::{IndexEntry, PartKey, ReceiptIndex, UncertainEntry};

/// Characters at the end of an id that stand in the row instead of the partition. Part of the stored form.
const TAIL: usize = 2;
/// Partitions that one call reads or writes at once.
const PARTITIONS_AT_ONCE: usize = 64;
/// Bytes of an entry beside its texts, about.
const ENTRY_BYTES: usize = 64;

// The entry's time is the statement's own timestamp; `place` tells entries of one statement apart.
const NOTE: Statement = Statement::write(
    "INSERT INTO provider_message (account, id_head, id_tail, number_hash, batch_id, lane, seq, part, place) \
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) USING TTL ?",
);
const FIND: Statement = Statement::read(
    "SELECT id_tail, number_hash, batch_id, lane, seq, part, place, WRITETIME(place) FROM provider_message \
     WHERE account = ? AND id_head = ? AND id_tail IN ?",
);

/// An entry as it is written, within its partition.
type Note = (String, i32, [u8; 16], i32, i64, i32, i32);
/// An entry as it is read.
type Found = (String, i32, Vec<u8>, i32, i64, i32, i32, i64);

/// An id in its two halves.
fn halves(id: &str) -> (&str, &str) {
    let at = id.char_indices().rev().nth(TAIL - 1).map_or(0, |(at, _)| at);
    id.split_at(at)
}

/// The hash of a number. Part of the stored form.
fn hash_number(number: Msisdn) -> i32 {
    (mix(number.0) >> 32) as u32 as i32
}

impl CqlStore {
    /// Makes message ids findable, durably.
    pub(super) async fn note_messages(&self, entries: Vec<IndexEntry>) -> Result<(), StoreError> {
        let mut partitions: BTreeMap<(String, String), Vec<Note>> = BTreeMap::new();
        for (place, entry) in entries.into_iter().enumerate() {
            let RecipientKey { lane, seq } = entry.part.recipient;
            let (head, tail) = halves(&entry.message_id);
            partitions.entry((entry.account, head.to_owned())).or_default().push((
                tail.to_owned(),
                hash_number(entry.number),
                key::batch(lane.batch),
                key::lane(lane),
                seq.into(),
                entry.part.part.into(),
                i32::try_from(place).unwrap_or(i32::MAX),
            ));
        }
        stream::iter(partitions)
            .map(|((account, head), notes)| self.note_partition(account, head, notes))
            .buffer_unordered(PARTITIONS_AT_ONCE)
            .try_for_each(async |()| Ok(()))
            .await
    }

    async fn note_partition(&self, account: String, head: String, notes: Vec<Note>) -> Result<(), StoreError> {
        let row = |(tail, hash, batch, lane, seq, part, place): Note| {
            (&account, &head, tail, hash, batch, lane, seq, part, place, self.index_ttl)
        };
        let key_bytes = account.len() + head.len();
        self.cql.write_rows(&NOTE, notes.into_iter().map(row).collect(), |_| ENTRY_BYTES + key_bytes).await
    }

    /// Answers what is asked of some ids that share a partition. Entries are taken in as they come: an id that all messages share
    /// has as many as there are messages.
    async fn answer_in(&self, account: &str, head: &str, mut asked: Asked) -> Result<Asked, StoreError> {
        let tails: Vec<String> = asked.keys().cloned().collect();
        for some in tails.chunks(NAMES_AT_ONCE) {
            self.cql.scan(&FIND, (account, head, some), |entry: Found| take(&mut asked, &entry).map(|()| true)).await?;
        }
        Ok(asked)
    }
}

/// What is asked of one partition: by the end of the id, then by the hash of the number that narrows it.
type Asked = BTreeMap<String, BTreeMap<Option<i32>, Newest>>;

/// The newest parts that an id stands for, by when they were written.
#[derive(Default)]
struct Newest {
    written: BTreeMap<PartKey, (i64, i32)>,
    in_order: BTreeSet<((i64, i32), PartKey)>,
}

impl Newest {
    fn take(&mut self, part: PartKey, at: (i64, i32)) {
        // An id with two numbers may name one part twice.
        if self.written.get(&part).is_some_and(|known| *known >= at) {
            return;
        }
        if let Some(known) = self.written.insert(part, at) {
            self.in_order.remove(&(known, part));
        }
        self.in_order.insert((at, part));
        if self.in_order.len() > CANDIDATES_MAX
            && let Some((_, oldest)) = self.in_order.pop_first()
        {
            self.written.remove(&oldest);
        }
    }

    fn parts(&self) -> Vec<PartKey> {
        self.in_order.iter().rev().map(|(_, part)| *part).collect()
    }
}

/// Takes in an entry where it is asked for: whatever its number is, and under its own.
fn take(asked: &mut Asked, (tail, number, batch, lane, seq, part, place, written): &Found) -> Result<(), StoreError> {
    let Some(by_number) = asked.get_mut(tail) else { return Ok(()) };
    let lane = LaneKey { batch: key::read_batch(batch)?, lane: key::read(*lane)? };
    let part = PartKey { recipient: RecipientKey { lane, seq: key::read(*seq)? }, part: key::read(*part)? };
    for question in [None, Some(*number)] {
        if let Some(newest) = by_number.get_mut(&question) {
            newest.take(part, (*written, *place));
        }
    }
    Ok(())
}

#[async_trait::async_trait]
impl ReceiptIndex for CqlStore {
    async fn find(&self, account: &str, ids: &[(String, Option<Msisdn>)]) -> Result<Vec<Vec<PartKey>>, StoreError> {
        // One read for the ids of a partition: receipts come back in about the order in which their messages went out.
        let mut partitions: BTreeMap<&str, Asked> = BTreeMap::new();
        for (id, number) in ids {
            let (head, tail) = halves(id);
            let of_id = partitions.entry(head).or_default().entry(tail.to_owned()).or_default();
            of_id.entry(number.map(hash_number)).or_default();
        }
        let answer = |(head, asked)| async move { Ok::<_, StoreError>((head, self.answer_in(account, head, asked).await?)) };
        let reads: Vec<_> = partitions.into_iter().map(answer).collect();
        let answers: BTreeMap<&str, Asked> = stream::iter(reads).buffer_unordered(PARTITIONS_AT_ONCE).try_collect().await?;
        let parts_of = |(id, number): &(String, Option<Msisdn>)| {
            let (head, tail) = halves(id);
            let newest = answers.get(head)?.get(tail)?.get(&number.map(hash_number))?;
            Some(newest.parts())
        };
        Ok(ids.iter().map(|asked| parts_of(asked).unwrap_or_default()).collect())
    }

    async fn put_uncertain(&self, entries: Vec<UncertainEntry>) -> Result<(), StoreError> {
        self.note_uncertain(entries).await
    }

    async fn uncertain(&self, account: &str, number: Msisdn) -> Result<Vec<UncertainEntry>, StoreError> {
        self.uncertain_of(account, number).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_split_between_characters_and_consecutive_ids_share_a_head() {
        assert_eq!(halves("00001a2b"), ("00001a", "2b"));
        assert_eq!(halves("00001aff").0, halves("00001a00").0);
        assert_eq!((halves("x"), halves("xy"), halves("")), (("", "x"), ("", "xy"), ("", "")));
        assert_eq!(halves("aé数"), ("a", "é数"));
    }

    #[test]
    fn of_an_id_that_all_share_the_newest_are_kept_and_a_number_looks_behind_them() {
        let mut asked: Asked =
            BTreeMap::from([("2b".to_owned(), BTreeMap::from([(None, Newest::default()), (Some(77), Newest::default())]))]);
        let found = |number: i32, seq: u32, written| ("2b".to_owned(), number, vec![1; 16], 0, i64::from(seq), 0, 0, written);
        for seq in 0..10_000u32 {
            // As the server gives them: in the order of the numbers, whenever they were written.
            take(&mut asked, &found(i32::from(seq == 7) * 77, seq, i64::from(seq * 7 % 10_000))).expect("it is read");
        }
        // The same part under another number, older and then newer.
        take(&mut asked, &found(5, 7, 0)).expect("it is read");
        let seqs = |number| asked["2b"][&number].parts().iter().map(|part| part.recipient.seq).collect::<Vec<_>>();
        let mut newest: Vec<u32> = (0..10_000).collect();
        newest.sort_by_key(|seq| std::cmp::Reverse(seq * 7 % 10_000));
        assert_eq!((seqs(None), seqs(Some(77))), (newest[..CANDIDATES_MAX].to_vec(), vec![7]));
        take(&mut asked, &found(5, 7, 20_000)).expect("it is read");
        take(&mut asked, &found(5, 7, 3)).expect("it is read");
        let first = asked["2b"][&None].parts();
        assert_eq!((first[0].recipient.seq, first.len()), (7, CANDIDATES_MAX));
    }

    #[test]
    fn hashes_of_numbers_are_the_ones_that_are_stored() {
        assert_eq!(hash_number(Msisdn(0)) as u32, 0xe220_a839);
    }
}
