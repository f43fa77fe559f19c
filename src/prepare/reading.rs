//! One attempt at a range, from its first record to its last pack.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::chunk::{self, Found};
use super::recipe::Recipe;
use super::shelves::Shelves;
use super::tools::Tools;
use super::writes::Writes;
use crate::model::batch::BatchRow;
use crate::model::code::{Code, Fault};
use crate::model::id::{Msisdn, RangeKey};
use crate::model::record::{RangePlan, RangeTotals, Reject, SourcePlan};
use crate::model::trace::TraceParent;
use crate::ports::StoreError;
use crate::ports::source::{RangeReader, SourceSpec};
use crate::runtime::retry::Schedule;
use crate::runtime::short_code::Codes;

/// Records worked on without a pause: about a millisecond, so that other tasks get their turn.
const CHUNK_RECORDS: usize = 1_000;
/// The same where a record may cost about a millisecond itself.
const COSTLY_RECORDS: usize = 10;

/// Why an attempt did not come to its end.
#[derive(Debug)]
pub enum Trouble {
    /// The range, or the batch.
    Fault(Fault),
    /// The store, for good.
    Store(StoreError),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Trouble {
        Trouble::Fault(fault)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Trouble {
        Trouble::Store(error)
    }
}

/// Reads the range and writes its packs under `attempt`; all of them are durable when the totals come back. `progress`
/// counts the records read; `trace` is the attempt's place.
///
/// # Errors
/// What keeps the range from being read. A fault whose code says so may pass: then a new attempt is worth while.
pub async fn read_range(
    tools: &Tools,
    row: &BatchRow,
    plan: &RangePlan,
    key: RangeKey,
    attempt: u32,
    progress: &AtomicU64,
    trace: Option<TraceParent>,
) -> Result<RangeTotals, Trouble> {
    if row.lanes == 0 {
        // Who runs was planned, and who was planned has lanes.
        return Err(StoreError::Corrupt(format!("batch {} is prepared and has no lanes", key.batch)).into());
    }
    let recipe = recipe(tools, row, plan).await?;
    let mut reader = open(tools, row, plan, recipe.needed(&row.columns)).await?;
    let mut shelves = Shelves::new(key.batch, key.range, attempt, row.lanes);
    let mut writes = Writes::new(tools, key, attempt, trace);
    let mut counts = Counts::default();
    let (mut found, mut full) = (Found::default(), vec![]);
    loop {
        let records = reader.read(CHUNK_RECORDS).await?;
        if records.is_empty() {
            break;
        }
        let read = records.len() as u64;
        let candidates = chunk::candidates(&recipe, records, &mut found);
        let numbers: Vec<Msisdn> = candidates.iter().map(|candidate| candidate.number).collect();
        let suppressed = tools.patiently("checking suppressions", || tools.suppressions.check(&numbers)).await?;
        if recipe.template.may_cost() {
            let mut rest = candidates.into_iter();
            for suppressed in suppressed.chunks(COSTLY_RECORDS) {
                chunk::messages(&recipe, rest.by_ref().take(COSTLY_RECORDS).collect(), suppressed, &mut found);
                tokio::task::yield_now().await;
            }
        } else {
            chunk::messages(&recipe, candidates, &suppressed, &mut found);
        }
        shelves.put(found.messages.drain(..), &mut full);
        counts.add(read, &found.rejects);
        name_file(plan, &mut found.rejects);
        writes.add(&mut full, &mut found.rejects).await?;
        progress.store(counts.records, Ordering::Relaxed);
        tools.tallies.increase_prepare_batch_num(key.batch, read);
        tokio::task::yield_now().await;
    }
    if counts.records != plan.records {
        let context = format!("range {} has {} records; it was planned with {}", key.range, counts.records, plan.records);
        return Err(Fault::new(Code::SourceChanged, context).into());
    }
    shelves.empty(&mut full);
    writes.add(&mut full, &mut found.rejects).await?;
    writes.finish().await?;
    Ok(RangeTotals {
        records: counts.records,
        rejected: counts.rejected.into_iter().collect(),
        suppressed: counts.suppressed,
        messages: shelves.messages(),
        packs: shelves.packs().to_vec(),
        hash: shelves.hash(),
        samples: found.samples.into_vec(),
    })
}

/// In a folder of files a line says little without its file.
fn name_file(plan: &RangePlan, rejects: &mut [Reject]) {
    let Some(part) = &plan.part else { return };
    for reject in rejects {
        let detail = std::mem::take(&mut reject.detail);
        reject.detail = if detail.is_empty() { part.name.clone() } else { format!("{}: {detail}", part.name) };
    }
}

async fn recipe(tools: &Tools, row: &BatchRow, plan: &RangePlan) -> Result<Recipe, Trouble> {
    let provider_type = &row.batch.provider_type;
    let capabilities = (tools.accounts)(provider_type)
        .ok_or_else(|| Fault::new(Code::AccountUnknown, format!("no account of provider type {provider_type:?}")))?;
    let mut recipe = Recipe::new(&row.batch, &row.columns, capabilities, plan)?;
    if recipe.template.has_link() && recipe.capabilities.links {
        let (batch, records) = (row.batch.batch_id, plan.records);
        let key = tools.patiently("reading the key of links", || tools.links.key()).await?;
        let block = tools.patiently("reserving short links", || tools.links.reserve(batch, records)).await?;
        recipe.codes = Some(Codes::new(&key, block)?);
    }
    Ok(recipe)
}

/// Opens the range, and tries again while the fault is one that may pass.
async fn open(tools: &Tools, row: &BatchRow, plan: &RangePlan, needed: Vec<String>) -> Result<Box<dyn RangeReader>, Fault> {
    let spec = SourceSpec { table_name: row.batch.table_name.clone(), dialect: row.batch.dialect.clone(), needed };
    let source_plan = SourcePlan {
        fingerprint: row.fingerprint.clone().unwrap_or_default(),
        dialect: row.dialect.clone(),
        columns: row.columns.clone(),
        ranges: vec![],
        records: row.records,
    };
    let mut schedule = Schedule::new(Duration::from_millis(100), Duration::from_secs(5), tools.world.chance.next()).up_to(20);
    loop {
        match tools.source.open(&spec, &source_plan, plan).await {
            Err(fault) if fault.code.retryable() => match schedule.next_delay() {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Err(fault),
            },
            answer => return answer,
        }
    }
}

/// What was read so far.
#[derive(Default)]
struct Counts {
    records: u64,
    rejected: BTreeMap<Code, u64>,
    suppressed: u64,
}

impl Counts {
    fn add(&mut self, records: u64, rejects: &[Reject]) {
        self.records += records;
        for reject in rejects {
            match reject.code {
                Some(code) => *self.rejected.entry(code).or_default() += 1,
                None => self.suppressed += 1,
            }
        }
    }
}
