//! The verdict: what the store says of every record, against what the list implies and what the simulator saw by number.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use crate::model::code::Code;
use crate::model::limits::TRANSIENT_TRIES_MAX;
use crate::model::outcome::Outcome;
use crate::simulator::NumberRecord;
use crate::statistics::RecipientLine;

/// What the list implies of a record, whatever the fleet makes of it. Numbers are the digits of E.164.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Implied {
    /// Its number is none, or a value is missing: it is rejected.
    Rejected,
    /// This number came before.
    Duplicate(u64),
    /// This number is one of those that get nothing.
    Suppressed(u64),
    /// This number gets a message, unless the simulator refuses it, or nobody can tell.
    Sent(u64),
}

impl Implied {
    /// Its number.
    fn number(self) -> Option<u64> {
        match self {
            Implied::Rejected => None,
            Implied::Duplicate(number) | Implied::Suppressed(number) | Implied::Sent(number) => Some(number),
        }
    }
}

/// What was found. All but the outcomes and those left unsent must be 0; only so many may be uncertain or unsent as were struck.
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
    /// Records called failed because their windows were judged while their sender stood still, and it said later that it had not
    /// sent them, or not all of their parts: `batch retry` sends them.
    pub unsent: u64,
    /// Records called failed that the simulator never refused for good nor often enough, and those that ended otherwise, or under
    /// another number, than the list implies: of a list that everybody knows nobody may expire, be canceled, or be left out for a
    /// reason of the fleet's own.
    pub wrongly_ended: u64,
}

impl Findings {
    /// Whether nobody was lost or wrongly ended, and nobody got anything twice.
    pub fn are_clean(&self) -> bool {
        (self.lost, self.duplicated, self.contradicted, self.wrongly_ended) == (0, 0, 0, 0)
    }
}

/// Gathers what the store says, record by record.
pub struct Judge<'a> {
    implied: &'a [Implied],
    listed: HashSet<u64>,
    lines: Vec<Line>,
    twice: u64,
}

/// What the store says of a record.
struct Line {
    implied: Implied,
    /// The number under which it is listed; what was left out stands there as it was written.
    named: Option<u64>,
    outcome: Outcome,
    code: Option<Code>,
}

/// Whether the simulator refused a number for good, or said "not now" as often as it takes to give somebody up.
fn was_refused(record: &NumberRecord) -> bool {
    record.refused > 0 || record.not_now() > u16::from(TRANSIENT_TRIES_MAX)
}

/// Whether it can be that a window was judged while its sender stood still, and that the sender said later that this record was
/// not sent, or not in all its parts: the code must fit what the simulator saw.
fn was_left(code: Option<Code>, record: Option<&NumberRecord>) -> bool {
    let (taken, put_off) = record.map_or((0, 0), |record| (record.accepted_parts, record.not_now()));
    let is_whole = record.is_some_and(|record| record.complete > 0);
    match code {
        Some(Code::BatchUnsent) => taken == 0,
        Some(Code::ProviderTransient) => taken == 0 && put_off > 0,
        Some(Code::PartiallySent) => taken > 0 && !is_whole,
        _ => false,
    }
}

impl Judge<'_> {
    /// Of a list that implies this of its records.
    pub fn new(implied: &[Implied]) -> Judge<'_> {
        Judge { implied, listed: HashSet::new(), lines: vec![], twice: 0 }
    }

    /// Takes one record.
    pub fn take(&mut self, line: &RecipientLine) {
        let implied = usize::try_from(line.record).ok().and_then(|record| self.implied.get(record));
        let Some(&implied) = implied.filter(|_| self.listed.insert(line.record)) else {
            self.twice += 1;
            return;
        };
        let named = line.number.strip_prefix('+').and_then(|digits| digits.parse().ok());
        self.lines.push(Line { implied, named, outcome: line.outcome, code: line.code });
    }

    /// Compares with what the simulator saw.
    pub fn findings(self, seen: &[NumberRecord]) -> Findings {
        let seen: HashMap<u64, &NumberRecord> = seen.iter().map(|record| (record.number, record)).collect();
        let mut findings = Findings { contradicted: self.twice, ..Findings::default() };
        findings.lost = (self.implied.len() - self.listed.len()) as u64;
        let mut may_have_got: HashSet<u64> = HashSet::new();
        for Line { implied, named, outcome, code } in self.lines {
            *findings.outcomes.entry(outcome.name().to_owned()).or_default() += 1;
            let number = implied.number();
            let record = number.and_then(|number| seen.get(&number)).copied();
            if matches!(outcome, Outcome::Accepted | Outcome::Uncertain) {
                may_have_got.extend(number);
            }
            let is_right = match (implied, outcome) {
                (_, Outcome::Open) => {
                    findings.lost += 1;
                    continue;
                }
                (Implied::Sent(_), Outcome::Accepted) if record.is_none_or(|record| record.complete == 0) => {
                    findings.lost += 1;
                    continue;
                }
                (Implied::Sent(_), Outcome::Failed) if record.is_some_and(was_refused) => true,
                (Implied::Sent(_), Outcome::Failed) if was_left(code, record) => {
                    findings.unsent += 1;
                    true
                }
                (Implied::Sent(_), Outcome::Accepted | Outcome::Uncertain)
                | (Implied::Rejected, Outcome::Rejected)
                // Its number got the message as another record's.
                | (Implied::Duplicate(_), Outcome::Duplicate)
                | (Implied::Suppressed(_), Outcome::Suppressed) => true,
                _ => false,
            };
            let is_itself = named.is_none() || named == number;
            findings.wrongly_ended += u64::from(!(is_right && is_itself));
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

    /// A list of five records: two that are sent, one that repeats the first, one that is suppressed, one that is none.
    const LIST: [Implied; 5] =
        [Implied::Sent(100), Implied::Sent(101), Implied::Duplicate(100), Implied::Suppressed(103), Implied::Rejected];
    /// As it ends when all goes well.
    const GOOD: [Outcome; 5] =
        [Outcome::Accepted, Outcome::Uncertain, Outcome::Duplicate, Outcome::Suppressed, Outcome::Rejected];

    fn line(record: u64, outcome: Outcome) -> RecipientLine {
        // What never became a message is listed as it was written.
        let number = match LIST[record as usize] {
            Implied::Sent(number) | Implied::Duplicate(number) => format!("+{number}"),
            Implied::Suppressed(_) | Implied::Rejected => "0103".to_owned(),
        };
        serde_json::from_value(serde_json::json!({
            "number": number, "record": record, "line": record + 2, "outcome": outcome, "segments": 1,
        }))
        .expect("a line")
    }

    /// The list as it ends, with another outcome for one record.
    fn with(record: u64, outcome: Outcome) -> Vec<RecipientLine> {
        let mut lines: Vec<RecipientLine> = (0..).zip(GOOD).map(|(record, outcome)| line(record, outcome)).collect();
        lines[record as usize].outcome = outcome;
        lines
    }

    fn good() -> Vec<RecipientLine> {
        with(0, Outcome::Accepted)
    }

    fn seen(number: u64, complete: u16, accepted_parts: u16) -> NumberRecord {
        NumberRecord {
            number,
            submits: accepted_parts,
            accepted_parts,
            refused: 0,
            complete,
            parts: complete.min(1),
            text_hash: 0,
            first_ms: ((number - 100) * (number - 100)) as u32 * 10,
            last_ms: 0,
        }
    }

    fn refused(number: u64) -> NumberRecord {
        NumberRecord { submits: 1, refused: 1, ..seen(number, 0, 0) }
    }

    fn put_off(number: u64, times: u16) -> NumberRecord {
        NumberRecord { submits: times, ..seen(number, 0, 0) }
    }

    fn findings(lines: &[RecipientLine], seen: &[NumberRecord]) -> Findings {
        let mut judge = Judge::new(&LIST);
        lines.iter().for_each(|line| judge.take(line));
        judge.findings(seen)
    }

    /// Lost, duplicated, contradicted, wrongly ended.
    fn told(lines: &[RecipientLine], seen: &[NumberRecord]) -> (u64, u64, u64, u64) {
        let found = findings(lines, seen);
        assert_eq!(found.are_clean(), found.lost + found.duplicated + found.contradicted + found.wrongly_ended == 0);
        (found.lost, found.duplicated, found.contradicted, found.wrongly_ended)
    }

    #[test]
    fn a_clean_run_is_clean_and_each_thing_that_can_be_wrong_is_counted() {
        let witness = [seen(100, 1, 1), seen(101, 1, 1)];
        let clean = findings(&good(), &witness);
        assert!(clean.are_clean(), "{clean:?}");
        assert_eq!((clean.outcomes["accepted"], clean.outcomes.values().sum::<u64>()), (1, 5));
        assert_eq!(told(&good(), &witness[..1]), (0, 0, 0, 0), "whoever is uncertain may have got it or not");

        assert_eq!(told(&good()[..4], &witness), (1, 0, 0, 0), "a record that is not listed");
        assert_eq!(told(&good(), &witness[1..]), (1, 0, 0, 0), "accepted, and never seen");
        assert_eq!(told(&good(), &[seen(100, 0, 1)]), (1, 0, 0, 0), "accepted, and seen in part");
        assert_eq!(told(&with(1, Outcome::Open), &witness[..1]), (1, 0, 0, 0), "a record without an outcome");

        assert_eq!(told(&good(), &[seen(100, 2, 2), seen(101, 1, 1)]), (0, 1, 0, 0), "a message twice");
        assert_eq!(told(&good(), &[seen(100, 1, 2), seen(101, 1, 1)]), (0, 1, 0, 0), "a part twice");
        assert_eq!(told(&good(), &[seen(100, 1, 1), seen(101, 2, 2)]), (0, 1, 0, 0), "twice although nobody knows of once");

        let after_refusal = NumberRecord { submits: 2, refused: 1, ..seen(101, 1, 1) };
        assert_eq!(told(&with(1, Outcome::Failed), &[witness[0], after_refusal]), (0, 0, 1, 0), "failed, and seen");
        assert_eq!(told(&good(), &[seen(100, 1, 1), seen(109, 1, 1)]), (0, 0, 1, 0), "a number that nobody listed");
        let again = [&good()[..], &good()[..1]].concat();
        assert_eq!(told(&again, &witness), (0, 0, 1, 0), "a record that is listed twice");
        let beyond = RecipientLine { record: 5, ..line(0, Outcome::Accepted) };
        assert_eq!(told(&[&good()[..], &[beyond]].concat(), &witness), (0, 0, 1, 0), "a record that the list does not have");
    }

    #[test]
    fn a_failure_is_believed_when_the_simulator_refused() {
        let failed = with(1, Outcome::Failed);
        assert_eq!(told(&failed, &[seen(100, 1, 1), refused(101)]), (0, 0, 0, 0), "refused for good");
        let in_part = NumberRecord { submits: 2, refused: 1, ..seen(101, 0, 1) };
        assert_eq!(told(&failed, &[seen(100, 1, 1), in_part]), (0, 0, 0, 0), "one part taken, the other refused");
        let most = u16::from(TRANSIENT_TRIES_MAX);
        assert_eq!(told(&failed, &[seen(100, 1, 1), put_off(101, most + 1)]), (0, 0, 0, 0), "tried as often as is said");
        assert_eq!(told(&failed, &[seen(100, 1, 1), put_off(101, most)]), (0, 0, 0, 1), "given up one try too early");
        assert_eq!(told(&failed, &[seen(100, 1, 1), put_off(101, 1)]), (0, 0, 0, 1), "given up at once");
        let put_off_in_part = NumberRecord { submits: most + 2, ..seen(101, 0, 1) };
        assert_eq!(told(&failed, &[seen(100, 1, 1), put_off_in_part]), (0, 0, 0, 0), "one part taken, the other tried often");
        assert_eq!(told(&failed, &[seen(100, 1, 1)]), (0, 0, 0, 1), "never handed over");
        assert_eq!(told(&failed, &[seen(100, 1, 1), seen(101, 0, 1)]), (0, 0, 0, 1), "taken in part, and never refused");
    }

    #[test]
    fn whom_a_frozen_sender_did_not_send_is_counted_apart_when_the_simulator_agrees() {
        let left = |code, record: Option<NumberRecord>| {
            let mut lines = with(1, Outcome::Failed);
            lines[1].code = Some(code);
            let found = findings(&lines, &[&[seen(100, 1, 1)], record.as_slice()].concat());
            (found.unsent, found.wrongly_ended)
        };
        for (code, record) in [
            (Code::BatchUnsent, None),
            // It had said "not now" before, and was not tried again.
            (Code::BatchUnsent, Some(put_off(101, 1))),
            (Code::ProviderTransient, Some(put_off(101, 1))),
            (Code::PartiallySent, Some(seen(101, 0, 1))),
        ] {
            assert_eq!(left(code, record), (1, 0), "{code:?} {record:?}");
        }
        for (code, record) in [
            (Code::BatchUnsent, Some(seen(101, 0, 1))),
            (Code::ProviderTransient, None),
            (Code::PartiallySent, None),
            (Code::ProviderRefused, None),
            (Code::ProviderRefused, Some(put_off(101, 1))),
        ] {
            assert_eq!(left(code, record), (0, 1), "{code:?} {record:?}");
        }
        assert_eq!(left(Code::BatchUnsent, Some(refused(101))), (0, 0), "it was refused in a try before");
    }

    #[test]
    fn a_record_ends_as_the_list_implies() {
        use Outcome::{Accepted, Canceled, Duplicate, Expired, Failed, Rejected, Suppressed, Uncertain};
        let witness = [seen(100, 1, 1), refused(101)];
        for (record, never) in [
            (1, &[Rejected, Duplicate, Suppressed, Expired, Canceled][..]),
            (2, &[Rejected, Suppressed, Failed, Uncertain, Expired, Canceled, Accepted]),
            (3, &[Rejected, Duplicate, Failed, Uncertain, Expired, Canceled, Accepted]),
            (4, &[Duplicate, Suppressed, Failed, Uncertain, Expired, Canceled, Accepted]),
        ] {
            for outcome in never {
                let told = told(&with(record, *outcome), &witness);
                assert_eq!(told, (0, 0, 0, 1), "{:?} ended {outcome:?}", LIST[record as usize]);
            }
        }
        // To whom a message went that was to get none is no contradiction of the store's, and wrong all the same.
        let told_of = |seen: NumberRecord| told(&with(3, Accepted), &[witness[0], seen]);
        assert_eq!(told_of(seen(103, 1, 1)), (0, 0, 0, 1));
        let other = RecipientLine { number: "+103".into(), ..line(1, Uncertain) };
        let lines = [&good()[..1], &[other], &good()[2..]].concat();
        assert_eq!(told(&lines, &witness), (0, 0, 0, 1), "a record under another's number");
    }

    #[test]
    fn the_longest_gap_is_between_two_first_messages() {
        assert_eq!(longest_gap_ms(&[seen(103, 1, 1), seen(100, 1, 1), seen(101, 1, 1)]), 80);
        assert_eq!(longest_gap_ms(&[seen(103, 1, 1)]), 0);
    }
}
