//! A list of recipients in memory, with duplicates and rows that cannot be sent, which somebody may change under the batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use smsfleet::adapters::system::SeededChance;
use smsfleet::model::code::{Code, Fault};
use smsfleet::model::record::{Fingerprint, RangePlan, Record, SourcePlan};
use smsfleet::ports::clock::Chance;
use smsfleet::ports::source::{RangeReader, Source, SourceSpec};

use super::faults::Trouble;

/// Lists by the number that is their address.
pub struct SimSource {
    /// True once they were changed.
    pub changed: Arc<AtomicBool>,
    pub trouble: Trouble,
}

/// The version of all lists before they are changed, and after.
pub const VERSIONS: [&str; 2] = ["1", "2"];

/// The records of the list `seed:records`: a number and a name each. The changed list has the same people in another order, under
/// other names: a batch made of both is seen by whoever compares record by record.
pub fn records(table_name: &str, version: &str) -> Vec<(String, String)> {
    let (seed, records) = table_name.split_once(':').expect("an address of this source");
    let chance = SeededChance::from_seed(seed.parse().expect("a seed"));
    let mut rows: Vec<(String, String)> = Vec::new();
    for n in 0..records.parse::<u64>().expect("a number") {
        let draw = chance.next() % 100;
        let number = match draw {
            0..3 => "not a number".to_owned(),
            3..8 if !rows.is_empty() => rows[(chance.next() % rows.len() as u64) as usize].0.clone(),
            _ => format!("+86138{:08}", (seed.parse::<u64>().expect("a seed") % 1_000) * 100_000 + n),
        };
        // Some texts take two parts.
        let name = if draw >= 95 { "x".repeat(200) } else { format!("n{n}") };
        rows.push((number, name));
    }
    if version != VERSIONS[0] {
        rows.reverse();
        rows.iter_mut().for_each(|(_, name)| name.push_str(version));
    }
    rows
}

#[async_trait::async_trait]
impl Source for SimSource {
    async fn plan(&self, spec: &SourceSpec, range_records: u32) -> Result<SourcePlan, Fault> {
        away(&self.trouble).await?;
        let version = self.version();
        let all = records(&spec.table_name, version).len() as u64;
        let step = u64::from(range_records);
        let ranges = (0..all.div_ceil(step))
            .map(|n| RangePlan {
                from: n * step,
                to: ((n + 1) * step).min(all),
                first_record: n * step,
                first_line: n * step + 2,
                records: step.min(all - n * step),
                content: 0,
                part: None,
                keys: None,
            })
            .collect();
        let fingerprint = Fingerprint { size: all, version: version.into(), content: 1 };
        let columns = vec!["phone".into(), "name".into()];
        Ok(SourcePlan { fingerprint, dialect: String::new(), columns, ranges, records: all })
    }

    async fn open(&self, spec: &SourceSpec, plan: &SourcePlan, range: &RangePlan) -> Result<Box<dyn RangeReader>, Fault> {
        away(&self.trouble).await?;
        let version = self.version();
        if plan.fingerprint.version != version {
            return Err(changed(&self.trouble));
        }
        let rows = records(&spec.table_name, version);
        let (list, trouble) = (self.changed.clone(), self.trouble.clone());
        Ok(Box::new(Reader { rows, at: range.from, to: range.to, version, changed: list, trouble }))
    }
}

impl SimSource {
    fn version(&self) -> &'static str {
        version(&self.changed)
    }
}

fn version(changed: &AtomicBool) -> &'static str {
    VERSIONS[usize::from(changed.load(Ordering::Relaxed))]
}

/// A change that somebody met: only then did it matter.
fn changed(trouble: &Trouble) -> Fault {
    trouble.fire("source changed");
    Fault::new(Code::SourceChanged, "it was changed since it was planned")
}

/// The way to the list takes its time, and is closed sometimes.
async fn away(trouble: &Trouble) -> Result<(), Fault> {
    trouble.wait().await;
    if !trouble.is_mixed(1) {
        return Ok(());
    }
    trouble.fire("source away");
    Err(Fault::new(Code::SourceUnavailable, "it does not answer"))
}

struct Reader {
    rows: Vec<(String, String)>,
    at: u64,
    to: u64,
    version: &'static str,
    changed: Arc<AtomicBool>,
    trouble: Trouble,
}

#[async_trait::async_trait]
impl RangeReader for Reader {
    async fn read(&mut self, limit: usize) -> Result<Vec<Record>, Fault> {
        away(&self.trouble).await?;
        if version(&self.changed) != self.version {
            return Err(changed(&self.trouble));
        }
        let end = self.to.min(self.at + limit.min(40) as u64);
        let read = (self.at..end)
            .map(|n| {
                let (number, name) = &self.rows[n as usize];
                Record { record: n, line: n + 2, fields: Ok(vec![number.clone(), name.clone()]) }
            })
            .collect();
        self.at = end;
        Ok(read)
    }
}
