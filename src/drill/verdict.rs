//! The verdict: what the store says of every record, against what the simulator saw by number.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use crate::model::outcome::Outcome;
use crate::simulator::NumberRecord;
use crate::statistics::RecipientLine;

/// What was found. All but the outcomes must be 0; of those, only so many may be uncertain as were struck.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// Records by outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// Records without an outcome, and those called accepted that the simulator never saw whole.
    pub lost: u64,
    /// Numbers that got their message, or a part of it, more than once.
    pub duplicated: u64,
    /// Records that are listed twice, and numbers that got a message although the store says that they got none.
    pub contradicted: u64,
}

impl Findings {
    /// Whether nobody was lost and nobody got anything twice.
    pub fn are_clean(&self) -> bool {
        (self.lost, self.duplicated, self.contradicted) == (0, 0, 0)
    }
}

/// Gathers what the store says, record by record.
pub struct Judge {
    records: u64,
    listed: HashSet<u64>,
    lines: Vec<(Option<u64>, Outcome)>,
    twice: u64,
}

impl Judge {
    /// Of a list of so many records.
    pub fn new(records: u64) -> Judge {
        Judge { records, listed: HashSet::new(), lines: vec![], twice: 0 }
    }

    /// Takes one record.
    pub fn take(&mut self, line: &RecipientLine) {
        if line.record >= self.records || !self.listed.insert(line.record) {
            self.twice += 1;
            return;
        }
        let number = line.number.strip_prefix('+').and_then(|digits| digits.parse().ok());
        self.lines.push((number, line.outcome));
    }

    /// Compares with what the simulator saw.
    pub fn findings(self, seen: &[NumberRecord]) -> Findings {
        let seen: HashMap<u64, &NumberRecord> = seen.iter().map(|record| (record.number, record)).collect();
        let complete = |number: Option<u64>| number.and_then(|number| seen.get(&number)).map_or(0, |record| record.complete);
        let mut findings = Findings { contradicted: self.twice, ..Findings::default() };
        findings.lost = self.records - self.listed.len() as u64;
        let mut may_have_got: HashSet<u64> = HashSet::new();
        for (number, outcome) in &self.lines {
            *findings.outcomes.entry(outcome.name().to_owned()).or_default() += 1;
            match outcome {
                Outcome::Open => findings.lost += 1,
                Outcome::Accepted if complete(*number) == 0 => findings.lost += 1,
                Outcome::Accepted | Outcome::Uncertain => may_have_got.extend(*number),
                // Its number got the message as another record's.
                Outcome::Duplicate => {}
                Outcome::Rejected | Outcome::Suppressed | Outcome::Failed | Outcome::Expired | Outcome::Canceled => {}
            }
        }
        for record in seen.values() {
            let parts_repeated = record.complete == 1 && record.accepted_parts > record.parts;
            findings.duplicated += u64::from(record.complete > 1 || parts_repeated);
            findings.contradicted += u64::from(record.complete > 0 && !may_have_got.contains(&record.number));
        }
        findings
    }
}

/// The longest time, in milliseconds, in which no number got its first message, between the first of all and the last.
pub fn longest_gap_ms(seen: &[NumberRecord]) -> u32 {
    let mut moments: Vec<u32> = seen.iter().map(|record| record.first_ms).collect();
    moments.sort_unstable();
    moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(record: u64, outcome: Outcome) -> RecipientLine {
        serde_json::from_value(serde_json::json!({
            "number": format!("+{}", 100 + record), "record": record, "line": record + 2, "outcome": outcome, "segments": 1,
        }))
        .expect("a line")
    }

    fn seen(record: u64, complete: u16, accepted_parts: u16) -> NumberRecord {
        let parts = complete.min(1);
        NumberRecord {
            number: 100 + record,
            submits: accepted_parts,
            accepted_parts,
            complete,
            parts,
            text_hash: 0,
            first_ms: record as u32 * record as u32 * 10,
            last_ms: 0,
        }
    }

    fn findings(lines: &[RecipientLine], seen: &[NumberRecord]) -> Findings {
        let mut judge = Judge::new(4);
        lines.iter().for_each(|line| judge.take(line));
        judge.findings(seen)
    }

    /// Lost, duplicated, contradicted.
    fn told(lines: &[RecipientLine], seen: &[NumberRecord]) -> (u64, u64, u64) {
        let found = findings(lines, seen);
        (found.lost, found.duplicated, found.contradicted)
    }

    #[test]
    fn a_clean_run_is_clean_and_each_thing_that_can_be_wrong_is_counted() {
        let good = [
            line(0, Outcome::Accepted),
            line(1, Outcome::Uncertain),
            line(2, Outcome::Failed),
            RecipientLine { number: "+100".into(), ..line(3, Outcome::Duplicate) },
        ];
        let witness = [seen(0, 1, 1), seen(1, 1, 1), seen(2, 0, 0)];
        let clean = findings(&good, &witness);
        assert!(clean.are_clean(), "{clean:?}");
        assert_eq!((clean.outcomes["accepted"], clean.outcomes.values().sum::<u64>()), (1, 4));
        assert_eq!(told(&good, &[seen(0, 1, 1)]), (0, 0, 0), "whoever is uncertain may have got it or not");

        assert_eq!(told(&good[..3], &witness), (1, 0, 0), "a record that is not listed");
        assert_eq!(told(&good, &witness[1..]), (1, 0, 0), "accepted, and never seen");
        assert_eq!(told(&good, &[seen(0, 0, 1)]), (1, 0, 0), "accepted, and seen in part");
        let open = [line(0, Outcome::Accepted), line(1, Outcome::Open), good[2].clone(), good[3].clone()];
        assert_eq!(told(&open, &[seen(0, 1, 1)]), (1, 0, 0), "a record without an outcome");

        assert_eq!(told(&good, &[seen(0, 2, 2), seen(1, 1, 1)]), (0, 1, 0), "a message twice");
        assert_eq!(told(&good, &[seen(0, 1, 2), seen(1, 1, 1)]), (0, 1, 0), "a part twice");
        assert_eq!(told(&good, &[seen(0, 1, 1), seen(1, 2, 2)]), (0, 1, 0), "twice although nobody knows of once");

        assert_eq!(told(&good, &[seen(0, 1, 1), seen(2, 1, 1)]), (0, 0, 1), "refused for good, and seen");
        assert_eq!(told(&good, &[seen(0, 1, 1), seen(9, 1, 1)]), (0, 0, 1), "a number that nobody listed");
        let again = [&good[..], &good[..1]].concat();
        assert_eq!(told(&again, &witness), (0, 0, 1), "a record that is listed twice");
    }

    #[test]
    fn the_longest_gap_is_between_two_first_messages() {
        assert_eq!(longest_gap_ms(&[seen(3, 1, 1), seen(0, 1, 1), seen(1, 1, 1)]), 80);
        assert_eq!(longest_gap_ms(&[seen(3, 1, 1)]), 0);
    }
}
