//! What a lookup asks for, and what it has found: each question once, and no more candidates than anybody looks at.
//!
//! A provider may give all its messages one id. The entries of an id are gone through once for all that is asked of it, whatever
//! numbers the questions have, and are not copied: only the newest that fit are kept.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::Entry;
use super::state::Batches;
use crate::model::limits::CANDIDATES_MAX;
use crate::ports::receipts::PartKey;

/// The hash of an id, and of the number that narrows it.
pub(super) type Question = (u64, Option<u32>);

/// All questions of a lookup.
pub(super) struct Asked(BTreeMap<u64, Answers>);

/// What is asked of one hash, by number.
#[derive(Default)]
pub(super) struct Answers {
    by_number: BTreeMap<u32, Candidates>,
    /// Of whatever number, when that is asked for.
    any: Option<Candidates>,
    /// Questions that have fewer candidates than are kept.
    open: usize,
}

/// The parts that a question has found, the newest first. A window that was written twice has its entries twice: each part is
/// named once, where it is newest.
#[derive(Default)]
struct Candidates {
    parts: Vec<PartKey>,
    known: BTreeSet<PartKey>,
}

impl Asked {
    /// The questions, each once.
    pub(super) fn new(questions: &[Question]) -> Asked {
        let mut asked: BTreeMap<u64, Answers> = BTreeMap::new();
        for (hash, number) in questions {
            let answers = asked.entry(*hash).or_default();
            match number {
                Some(number) => {
                    answers.by_number.entry(*number).or_default();
                }
                None => {
                    answers.any.get_or_insert_default();
                }
            }
            answers.open = answers.by_number.len() + usize::from(answers.any.is_some());
        }
        Asked(asked)
    }

    /// The hashes that are asked for, in order, with what they have found.
    pub(super) fn hashes(&mut self) -> impl Iterator<Item = (u64, &mut Answers)> {
        self.0.iter_mut().map(|(hash, answers)| (*hash, answers))
    }

    /// What a question has found.
    pub(super) fn answer(&self, (hash, number): &Question) -> Vec<PartKey> {
        let answers = self.0.get(hash);
        let found = answers.and_then(|answers| match number {
            Some(number) => answers.by_number.get(number),
            None => answers.any.as_ref(),
        });
        found.map(|candidates| candidates.parts.clone()).unwrap_or_default()
    }
}

impl Answers {
    /// Whether no older entry is looked at any more.
    pub(super) fn are_full(&self) -> bool {
        self.open == 0
    }

    /// Takes in entries of the hash, the newest first, older than all before. Those of batches that were let go are nobody's, and
    /// take no other's place.
    pub(super) fn take(&mut self, batches: &Batches, entries: impl Iterator<Item = Entry>) {
        for entry in entries {
            if self.open == 0 {
                return;
            }
            let fits = self.by_number.get_mut(&entry.number).into_iter().chain(&mut self.any);
            let mut fits = fits.filter(|candidates| candidates.parts.len() < CANDIDATES_MAX).peekable();
            if fits.peek().is_none() {
                continue;
            }
            let Some(part) = batches.part_of(&entry) else { continue };
            let filled = fits.map(|candidates| candidates.add(part)).filter(|is_full| *is_full).count();
            self.open -= filled;
        }
    }
}

impl Candidates {
    /// Whether the part was the last that is kept.
    fn add(&mut self, part: PartKey) -> bool {
        let is_new = self.known.insert(part);
        if is_new {
            self.parts.push(part);
        }
        is_new && self.parts.len() == CANDIDATES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::BatchId;

    fn entry(number: u32, batch: u32, seq: u32) -> Entry {
        Entry { hash: 5, number, batch, seq, lane: 0, part: 0 }
    }

    fn batches() -> Batches {
        let mut batches = Batches::default();
        batches.stored(BatchId(1), 1);
        batches
    }

    #[test]
    fn an_id_that_all_share_is_gone_through_once_and_no_further_than_it_is_looked_at() {
        // As many receipts as come in at once, all with one id, half of them with the number of nobody.
        let questions: Vec<Question> = (0..4_096).map(|n| (5, (n % 2 == 1).then_some(77))).collect();
        let mut asked = Asked::new(&questions);
        assert_eq!(asked.hashes().count(), 1);
        let (_, answers) = asked.hashes().next().expect("one hash");
        let mut seen = 0u32;
        let entries = (0..1_000_000).map(|seq| entry(u32::from(seq == 300_000) * 77, 1, seq)).inspect(|_| seen += 1);
        answers.take(&batches(), entries);
        assert_eq!(seen, 1_000_000, "one has the number, and might have had others behind it");
        let (any, numbered) = (asked.answer(&(5, None)), asked.answer(&(5, Some(77))));
        assert_eq!(
            any.iter().map(|part| part.recipient.seq).collect::<Vec<_>>(),
            (0..CANDIDATES_MAX as u32).collect::<Vec<_>>(),
            "the newest"
        );
        assert_eq!(numbered.iter().map(|part| part.recipient.seq).collect::<Vec<_>>(), [300_000], "a number looks behind them");

        let mut asked = Asked::new(&questions[..1]);
        let (_, answers) = asked.hashes().next().expect("one hash");
        let mut seen = 0;
        answers.take(&batches(), (0..1_000_000).map(|seq| entry(0, 1, seq)).inspect(|_| seen += 1));
        assert!(answers.are_full() && seen <= CANDIDATES_MAX + 1, "{seen} were looked at");
    }

    #[test]
    fn neither_what_was_written_twice_nor_what_was_let_go_takes_a_place() {
        let mut asked = Asked::new(&[(5, None)]);
        let (_, answers) = asked.hashes().next().expect("one hash");
        let twice = (0..1_000).map(|_| entry(0, 1, 7)).chain((0..1_000).map(|seq| entry(0, 2, seq)));
        answers.take(&batches(), twice.chain([entry(0, 1, 8)]));
        assert_eq!(asked.answer(&(5, None)).iter().map(|part| part.recipient.seq).collect::<Vec<_>>(), [7, 8]);
    }
}
