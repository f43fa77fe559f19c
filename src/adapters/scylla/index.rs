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

    /// The entries of some ids that share a partition, each with its head.
    async fn entries_of<'a>(&self, account: &str, head: &'a str, tails: Vec<&str>) -> Result<Vec<(&'a str, Found)>, StoreError> {
        let mut found = Vec::new();
        for some in tails.chunks(NAMES_AT_ONCE) {
            let entries: Vec<Found> = self.cql.rows(&FIND, (account, head, some)).await?;
            found.extend(entries.into_iter().map(|entry| (head, entry)));
        }
        Ok(found)
    }
}

/// The parts that an id stands for, the newest first; of `number` alone, where the report names one.
fn parts_of(entries: &[&Found], number: Option<Msisdn>) -> Result<Vec<PartKey>, StoreError> {
    let hash = number.map(hash_number);
    let mut fit: Vec<&Found> = entries.iter().copied().filter(|entry| hash.is_none_or(|hash| entry.1 == hash)).collect();
    fit.sort_by_key(|entry| std::cmp::Reverse((entry.7, entry.6)));
    let mut parts: Vec<PartKey> = Vec::with_capacity(fit.len());
    for (_, _, batch, lane, seq, part, _, _) in fit {
        let lane = LaneKey { batch: key::read_batch(batch)?, lane: key::read(*lane)? };
        let part = PartKey { recipient: RecipientKey { lane, seq: key::read(*seq)? }, part: key::read(*part)? };
        // An id with two numbers may name one part twice.
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    Ok(parts)
}

#[async_trait::async_trait]
impl ReceiptIndex for CqlStore {
    async fn find(&self, account: &str, ids: &[(String, Option<Msisdn>)]) -> Result<Vec<Vec<PartKey>>, StoreError> {
        // One read for the ids of a partition: receipts come back in about the order in which their messages went out.
        let mut partitions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (head, tail) in ids.iter().map(|(id, _)| halves(id)) {
            partitions.entry(head).or_default().insert(tail);
        }
        let reads: Vec<_> =
            partitions.into_iter().map(|(head, tails)| self.entries_of(account, head, tails.into_iter().collect())).collect();
        let answers: Vec<Vec<(&str, Found)>> = stream::iter(reads).buffer_unordered(PARTITIONS_AT_ONCE).try_collect().await?;
        let mut found: BTreeMap<(&str, &str), Vec<&Found>> = BTreeMap::new();
        for (head, entry) in answers.iter().flatten() {
            found.entry((head, &entry.0)).or_default().push(entry);
        }
        ids.iter().map(|(id, number)| parts_of(found.get(&halves(id)).map_or(&[], Vec::as_slice), *number)).collect()
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
    fn hashes_of_numbers_are_the_ones_that_are_stored() {
        assert_eq!(hash_number(Msisdn(0)) as u32, 0xe220_a839);
    }
}
