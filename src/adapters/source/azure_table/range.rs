//! Reading one range: its stretches of keys one after the other, and at the end the proof that they are the planned ones.

use std::collections::VecDeque;

use serde_json::value::RawValue;
use xxhash_rust::xxh3::Xxh3;

use super::Scope;
use super::client::{Query, Table};
use super::keys;
use super::page::{SYSTEM, key};
use super::plan::add_to;
use crate::adapters::source::changed;
use crate::adapters::source::json_fields::{JsonFields, Unusable};
use crate::model::code::{Code, Fault};
use crate::model::limits::READ_BYTES_MAX;
use crate::model::record::{RangePlan, Record, RowFault};
use crate::ports::source::RangeReader;

/// Characters of a `$select` at most: an address has its limit. What would be longer is not selected but read whole.
const SELECT_CHARS_MAX: usize = 8_000;

/// The records of a range. Holds one page.
pub(super) struct TableRange {
    table: Table,
    fields: JsonFields,
    range: RangePlan,
    /// Filters that are still to be asked for.
    filters: VecDeque<String>,
    query: Query,
    /// Entities that came and were not given yet, as they came: their fields may take many times as much.
    ready: VecDeque<Box<RawValue>>,
    ended: bool,
    /// Entities that came, and those that were given.
    count: u64,
    given: u64,
    hash: Xxh3,
}

impl TableRange {
    /// A reader that fetches the `needed` columns (all when empty); the others' fields stay empty.
    pub fn new(table: Table, scope: &Scope, needed: &[String], columns: &[String], range: &RangePlan) -> TableRange {
        let ends = range.keys.as_deref().cloned().unwrap_or_default();
        let filters = keys::filters(scope.partition.as_deref(), ends.after.as_ref(), ends.upto.as_ref());
        let mut filters = VecDeque::from(filters);
        let filter = filters.pop_front().unwrap_or_default();
        TableRange {
            query: Query { filter, select: select(needed, columns), next: None },
            table,
            fields: JsonFields::new(columns),
            range: range.clone(),
            filters,
            ready: VecDeque::new(),
            ended: false,
            count: 0,
            given: 0,
            hash: Xxh3::new(),
        }
    }

    /// Fetches the next page; at the end of the last stretch checks the whole.
    async fn fetch(&mut self) -> Result<(), Fault> {
        let page = self.table.page(&self.query).await?;
        self.count += page.entities.len() as u64;
        if self.count > self.range.records {
            return Err(changed(&self.table.shown));
        }
        for entity in &page.entities {
            let (key, written) = key(entity).ok_or_else(|| self.table.no_keys())?;
            add_to(&mut self.hash, &key, &written);
        }
        self.ready.extend(page.entities);
        match (page.next, self.filters.pop_front()) {
            (Some(next), waiting) => {
                self.query.next = Some(next);
                waiting.into_iter().for_each(|filter| self.filters.push_front(filter));
            }
            (None, Some(filter)) => (self.query.filter, self.query.next) = (filter, None),
            (None, None) if (self.count, self.hash.digest()) != (self.range.records, self.range.content) => {
                return Err(changed(&self.table.shown));
            }
            (None, None) => self.ended = true,
        }
        Ok(())
    }

    fn record(&mut self, entity: &RawValue) -> Record {
        let record = self.range.first_record + self.given;
        self.given += 1;
        let unusable = |Unusable(detail)| RowFault { code: Code::RowMalformed, detail };
        Record { record, line: record + 1, fields: self.fields.values(entity.get()).map_err(unusable) }
    }
}

/// What is fetched: the keys and the time of every entity, and the needed columns. Empty is everything.
fn select(needed: &[String], columns: &[String]) -> String {
    if needed.is_empty() {
        return String::new();
    }
    // A name that is no column of the plan is nothing that the service should be asked for.
    let more = needed.iter().filter(|name| columns.contains(name) && !SYSTEM.contains(&name.as_str()));
    let names: Vec<&str> = SYSTEM.into_iter().chain(more.map(String::as_str)).collect();
    let select = names.join(",");
    if select.len() > SELECT_CHARS_MAX { String::new() } else { select }
}

#[async_trait::async_trait]
impl RangeReader for TableRange {
    async fn read(&mut self, limit: usize) -> Result<Vec<Record>, Fault> {
        while self.ready.is_empty() && !self.ended {
            self.fetch().await?;
        }
        let (mut records, mut bytes) = (vec![], 0);
        while records.len() < limit.max(1)
            && bytes < READ_BYTES_MAX
            && let Some(entity) = self.ready.pop_front()
        {
            let record = self.record(&entity);
            bytes += record.bytes();
            records.push(record);
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_is_selected() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let columns = names(&["PartitionKey", "RowKey", "Timestamp", "phone", "name", "notes"]);
        assert_eq!(select(&[], &columns), "");
        assert_eq!(select(&names(&["phone", "RowKey", "gone"]), &columns), "PartitionKey,RowKey,Timestamp,phone");
        let long: Vec<String> = (0..100).map(|n| format!("{n:0>200}")).collect();
        assert_eq!(select(&long, &long), "", "an address has its limit");
    }
}
