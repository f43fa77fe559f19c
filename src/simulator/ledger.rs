//! What the simulator received: the independent witness that tests compare the fleet's own account with.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use super::report::{NumberRecord, SimulatorReport};

/// Seconds of history kept: a day.
const SECONDS_MAX: usize = 86_400;

/// The ledger.
#[derive(Default)]
pub(super) struct Ledger {
    numbers: Option<HashMap<u64, Entry, FastHash>>,
    texts: Option<HashMap<u64, Vec<String>, FastHash>>,
    seconds: Vec<(u32, u32)>,
    refusals: BTreeMap<u32, u64>,
    occurrences: u32,
    /// Counters that need no arithmetic, as the report shows them.
    pub totals: SimulatorReport,
}

/// A number's row: 32 octets beside its key.
#[derive(Clone, Copy, Default)]
struct Entry {
    text_hash: u64,
    first_ms: u32,
    last_ms: u32,
    submits: u16,
    accepted_parts: u16,
    complete: u16,
    parts: u16,
    refused: u16,
}

impl Ledger {
    /// An empty ledger that keeps what it is told to.
    pub fn new(count_numbers: bool, keep_texts: bool) -> Ledger {
        Ledger { numbers: count_numbers.then(HashMap::default), texts: keep_texts.then(HashMap::default), ..Ledger::default() }
    }

    /// Whether anybody looks at texts.
    pub fn wants_texts(&self) -> bool {
        self.numbers.is_some() || self.texts.is_some()
    }

    /// Counts a submit for `number` and answers how many there were before: of this number, or of all when numbers are not
    /// counted.
    pub fn occurrence(&mut self, number: u64, now_us: u64) -> u32 {
        let Some(numbers) = &mut self.numbers else {
            self.occurrences = self.occurrences.wrapping_add(1);
            return self.occurrences.wrapping_sub(1);
        };
        let now_ms = (now_us / 1_000) as u32;
        let entry = numbers.entry(number).or_insert_with(|| Entry { first_ms: now_ms, ..Entry::default() });
        let before = entry.submits;
        entry.submits = before.saturating_add(1);
        entry.last_ms = now_ms;
        u32::from(before)
    }

    /// Counts an accepted submit.
    pub fn accepted(&mut self, number: u64, segments: u32, now_us: u64) {
        self.totals.accepted_segments += u64::from(segments);
        if let Some(second) = second(&mut self.seconds, now_us) {
            second.1 += segments;
        }
        if let Some(entry) = self.numbers.as_mut().and_then(|numbers| numbers.get_mut(&number)) {
            entry.accepted_parts = entry.accepted_parts.saturating_add(segments.min(u32::from(u16::MAX)) as u16);
        }
    }

    /// Counts that a number was refused for good.
    pub fn refused_for_good(&mut self, number: u64) {
        if let Some(entry) = self.numbers.as_mut().and_then(|numbers| numbers.get_mut(&number)) {
            entry.refused = entry.refused.saturating_add(1);
        }
    }

    /// Counts a complete message.
    pub fn complete(&mut self, number: u64, parts: u32, text: &str, is_malformed: bool) {
        self.totals.complete_messages += 1;
        self.totals.malformed_texts += u64::from(is_malformed);
        if let Some(numbers) = &mut self.numbers {
            let entry = numbers.entry(number).or_default();
            entry.complete = entry.complete.saturating_add(1);
            entry.parts = parts.min(u32::from(u16::MAX)) as u16;
            entry.text_hash = text_hash(text);
            self.totals.numbers += u64::from(entry.complete == 1);
            self.totals.repeated_numbers += u64::from(entry.complete == 2);
            self.totals.complete_per_number_max = self.totals.complete_per_number_max.max(entry.complete);
        }
        if let Some(texts) = &mut self.texts {
            texts.entry(number).or_default().push(text.to_owned());
        }
    }

    /// Counts segments as they come in, before anything is decided.
    pub fn received(&mut self, segments: u32, now_us: u64) {
        self.totals.submits += 1;
        if let Some(second) = second(&mut self.seconds, now_us) {
            second.0 += segments;
        }
    }

    /// Counts a refusal.
    pub fn refused(&mut self, status: u32) {
        *self.refusals.entry(status).or_default() += 1;
    }

    /// What is known of a number.
    pub fn number(&self, number: u64) -> Option<NumberRecord> {
        let entry = self.numbers.as_ref()?.get(&number)?;
        Some(record(number, entry))
    }

    /// What is known of all numbers, in their order.
    pub fn numbers(&self) -> Vec<NumberRecord> {
        let mut rows: Vec<NumberRecord> = self.numbers.iter().flatten().map(|(&number, entry)| record(number, entry)).collect();
        rows.sort_unstable_by_key(|row| row.number);
        rows
    }

    /// Texts that were accepted for a number, in order of completion.
    pub fn texts(&self, number: u64) -> Vec<String> {
        self.texts.as_ref().and_then(|texts| texts.get(&number)).cloned().unwrap_or_default()
    }

    /// The totals.
    pub fn report(&self) -> SimulatorReport {
        let mut report = self.totals.clone();
        report.statuses = self.refusals.iter().map(|(status, count)| (format!("0x{status:08X}"), *count)).collect();
        report.received_per_second_max = self.seconds.iter().map(|second| second.0).max().unwrap_or(0);
        report.accepted_per_second_max = self.seconds.iter().map(|second| second.1).max().unwrap_or(0);
        report.accepted_per_second = self.seconds.iter().map(|second| second.1).collect();
        report
    }
}

fn record(number: u64, entry: &Entry) -> NumberRecord {
    NumberRecord {
        number,
        submits: entry.submits,
        accepted_parts: entry.accepted_parts,
        refused: entry.refused,
        complete: entry.complete,
        parts: entry.parts,
        text_hash: entry.text_hash,
        first_ms: entry.first_ms,
        last_ms: entry.last_ms,
    }
}

fn second(seconds: &mut Vec<(u32, u32)>, now_us: u64) -> Option<&mut (u32, u32)> {
    let nth = (now_us / 1_000_000) as usize;
    if nth < SECONDS_MAX && nth >= seconds.len() {
        seconds.resize(nth + 1, (0, 0));
    }
    seconds.get_mut(nth)
}

/// The hash by which the ledger knows a text: XXH3-64 of its UTF-8.
pub fn text_hash(text: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(text.as_bytes())
}

/// Builds [`Fold`].
pub(super) type FastHash = BuildHasherDefault<Fold>;

/// A hasher for numbers: one multiplication each, because the maps of the simulator are on the path of every submit.
#[derive(Default)]
pub(super) struct Fold(u64);

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        for &octet in octets {
            self.write_u64(u64::from(octet));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        let product = u128::from(self.0 ^ value ^ 0x9E37_79B9_7F4A_7C15) * 0xD6E8_FEB8_6659_FD93;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_seen() {
        let mut ledger = Ledger::new(true, true);
        for (nth, number) in [5, 6, 5, 5].into_iter().enumerate() {
            assert_eq!(ledger.occurrence(number, nth as u64 * 1_000_000), [0, 0, 1, 2][nth]);
            ledger.received(1, nth as u64 * 1_000_000);
            ledger.accepted(number, 1, nth as u64 * 1_000_000);
            ledger.complete(number, 1, "text", false);
        }
        let report = ledger.report();
        assert_eq!((report.numbers, report.repeated_numbers, report.complete_per_number_max), (2, 1, 3));
        assert_eq!(report.accepted_per_second, [1, 1, 1, 1]);
        let five = ledger.number(5).expect("it is known");
        assert_eq!((five.complete, five.first_ms, five.last_ms, five.text_hash), (3, 0, 3_000, text_hash("text")));
        assert_eq!((ledger.texts(6), ledger.number(7)), (vec!["text".to_owned()], None));
    }
}
