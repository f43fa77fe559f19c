//! The planning pass: a look at the first records for the columns, then one walk over all keys, in bounded memory.

use xxhash_rust::xxh3::Xxh3;

use super::client::{Query, Table};
use super::keys;
use super::page::{SYSTEM, each_property, key};
use crate::adapters::source::columns::Names;
use crate::model::code::{Code, Fault};
use crate::model::record::{Fingerprint, KeyRange, RangePlan, RecordKey, SourcePlan};

/// Records whose properties become columns. A property that comes up later is no column and is left out.
const SAMPLE_RECORDS: usize = 1_000;

/// Plans a table.
pub async fn plan(table: &Table, range_records: u32) -> Result<SourcePlan, Fault> {
    let columns = columns(table).await?;
    let mut cutter = Cutter::new(range_records);
    walk(table, |key, written| cutter.add(key, written)).await?;
    let (ranges, fingerprint) = cutter.finish();
    if ranges.is_empty() {
        return Err(empty(table));
    }
    let dialect = serde_json::to_string(&table.client.scope())
        .map_err(|error| Fault::new(Code::Internal, format!("a scope cannot be written: {error}")))?;
    let records = fingerprint.size;
    Ok(SourcePlan { fingerprint, dialect, columns, ranges, records })
}

/// What a plan would be made of now, without one.
pub async fn fingerprint(table: &Table) -> Result<Fingerprint, Fault> {
    let mut whole = Whole::default();
    walk(table, |key, written| whole.add(key, written)).await?;
    Ok(whole.fingerprint())
}

/// The names of the columns: what every entity has, then the properties of the first records in their order.
async fn columns(table: &Table) -> Result<Vec<String>, Fault> {
    let mut names = Names::of(&SYSTEM.map(str::to_string))?;
    let mut records = 0;
    let mut query = Query { filter: whole_scope(table), select: String::new(), next: None };
    while records < SAMPLE_RECORDS {
        let page = table.page(&query).await?;
        for entity in page.entities.iter().take(SAMPLE_RECORDS - records) {
            records += 1;
            let mut added = Ok(false);
            each_property(entity, |name| {
                if added.is_ok() {
                    added = names.add(name);
                }
            });
            added.map_err(|fault| Fault::new(fault.code, format!("{}: {}", table.shown, fault.context)))?;
        }
        match page.next {
            Some(next) => query.next = Some(next),
            None => break,
        }
    }
    if records == 0 { Err(empty(table)) } else { Ok(names.into_all()) }
}

/// All keys of the table in their order.
async fn walk(table: &Table, mut each: impl FnMut(RecordKey, &str)) -> Result<(), Fault> {
    let mut query = Query { filter: whole_scope(table), select: SYSTEM.join(","), next: None };
    loop {
        let page = table.page(&query).await?;
        for entity in &page.entities {
            let (key, written) = key(entity).ok_or_else(|| table.no_keys())?;
            each(key, &written);
        }
        match page.next {
            Some(next) => query.next = Some(next),
            None => return Ok(()),
        }
    }
}

fn whole_scope(table: &Table) -> String {
    keys::filters(table.client.scope().partition.as_deref(), None, None).concat()
}

fn empty(table: &Table) -> Fault {
    let within = match table.client.scope().partition {
        Some(_) => format!(" in the partition that {}.partition names", table.client.setting()),
        None => String::new(),
    };
    Fault::new(Code::SourceEmpty, format!("{}: there is no record{within}", table.shown))
}

/// Adds a record to a hash: its key, and when it was last written.
pub fn add_to(hash: &mut Xxh3, key: &RecordKey, written: &str) {
    for text in [&key.partition, &key.row, written] {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
}

/// What tells one state of a table from another.
#[derive(Default)]
struct Whole {
    records: u64,
    hash: Xxh3,
}

impl Whole {
    fn add(&mut self, key: RecordKey, written: &str) {
        add_to(&mut self.hash, &key, written);
        self.records += 1;
    }

    /// A table has no version of its own, and no size but its records.
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint { size: self.records, version: String::new(), content: self.hash.digest() }
    }
}

/// Cuts keys into ranges as they come. A range ends where a partition ends when it is half full, so that most ranges lie in one
/// partition; it ends within one when it is full. The first begins before all keys and the last ends behind all keys.
struct Cutter {
    full: u64,
    ranges: Vec<RangePlan>,
    /// Records of the range that is being filled, and the hash over them.
    records: u64,
    hash: Xxh3,
    /// The last record of the range before, and the last record.
    after: Option<RecordKey>,
    last: Option<RecordKey>,
    whole: Whole,
}

impl Cutter {
    fn new(range_records: u32) -> Cutter {
        Cutter {
            full: u64::from(range_records.max(1)),
            ranges: vec![],
            records: 0,
            hash: Xxh3::new(),
            after: None,
            last: None,
            whole: Whole::default(),
        }
    }

    fn add(&mut self, key: RecordKey, written: &str) {
        if let Some(last) = &self.last {
            let ends = last.partition != key.partition && self.records >= self.full.div_ceil(2);
            if ends || self.records >= self.full {
                let last = last.clone();
                self.cut(Some(last));
            }
        }
        add_to(&mut self.hash, &key, written);
        self.records += 1;
        self.last = Some(key.clone());
        self.whole.add(key, written);
    }

    fn cut(&mut self, upto: Option<RecordKey>) {
        let first_record = self.whole.records - self.records;
        self.ranges.push(RangePlan {
            from: first_record,
            to: self.whole.records,
            first_record,
            first_line: first_record + 1,
            records: self.records,
            content: self.hash.digest(),
            part: None,
            keys: Some(Box::new(KeyRange { after: self.after.take(), upto: upto.clone() })),
        });
        self.records = 0;
        self.hash.reset();
        self.after = upto;
    }

    fn finish(mut self) -> (Vec<RangePlan>, Fingerprint) {
        if self.records > 0 {
            self.cut(None);
        }
        (self.ranges, self.whole.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ranges of partitions of these sizes: `records: after < … <= upto`.
    fn cut(sizes: &[(&str, usize)], range_records: u32) -> Vec<String> {
        let mut cutter = Cutter::new(range_records);
        for (partition, size) in sizes {
            for row in 0..*size {
                cutter.add(RecordKey { partition: (*partition).to_string(), row: format!("{row}") }, "t");
            }
        }
        let (ranges, fingerprint) = cutter.finish();
        assert_eq!(fingerprint.size, sizes.iter().map(|(_, size)| *size as u64).sum::<u64>());
        let mut next = 0;
        let shown = |range: &RangePlan| {
            assert_eq!((range.first_record, range.first_line, range.to), (next, next + 1, next + range.records));
            next = range.to;
            let keys = range.keys.as_ref().expect("keys");
            let end =
                |key: &Option<RecordKey>| key.as_ref().map_or("*".to_string(), |key| format!("{}{}", key.partition, key.row));
            format!("{}: {} {}", range.records, end(&keys.after), end(&keys.upto))
        };
        ranges.iter().map(shown).collect()
    }

    #[test]
    fn ranges_end_with_partitions_where_they_can() {
        assert_eq!(cut(&[], 4), Vec::<String>::new());
        assert_eq!(cut(&[("a", 3)], 4), ["3: * *"]);
        assert_eq!(cut(&[("a", 4)], 4), ["4: * *"]);
        assert_eq!(cut(&[("a", 9)], 4), ["4: * a3", "4: a3 a7", "1: a7 *"]);
        assert_eq!(cut(&[("a", 3), ("b", 4)], 4), ["3: * a2", "4: a2 *"]);
        // Small ones come together.
        assert_eq!(cut(&[("a", 1), ("b", 1), ("c", 1), ("d", 1)], 4), ["2: * b0", "2: b0 *"]);
        assert_eq!(cut(&[("a", 5), ("b", 2), ("c", 1)], 4), ["4: * a3", "3: a3 b1", "1: b1 *"]);
    }

    #[test]
    fn hashes_tell_keys_and_times_apart() {
        let hash = |records: &[(&str, &str, &str)]| {
            let mut hash = Xxh3::new();
            for (partition, row, written) in records {
                add_to(&mut hash, &RecordKey { partition: (*partition).into(), row: (*row).into() }, written);
            }
            hash.digest()
        };
        let first = hash(&[("a", "b", "t")]);
        for other in [("ab", "", "t"), ("", "ab", "t"), ("a", "b", "u"), ("a", "bt", "")] {
            assert_ne!(first, hash(&[other]));
        }
    }
}
