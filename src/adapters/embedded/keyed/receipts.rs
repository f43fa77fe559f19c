//! Reports of recipients, each in a cell of its own; uncertain recipients by number; and the way from message ids.

use super::Keyed;
use crate::adapters::embedded::engine::{Batch, Op, Order, Table};
use crate::adapters::rows::key::{self, KeyBuilder, KeyReader};
use crate::adapters::rows::receipt;
use crate::model::id::{LaneKey, Msisdn, RecipientKey};
use crate::ports::StoreError;
use crate::ports::receipts::{MatchedReport, PartKey, ReceiptIndex, Receipts, UncertainEntry};

#[async_trait::async_trait]
impl Receipts for Keyed {
    async fn record(&self, reports: Vec<MatchedReport>) -> Result<Vec<bool>, StoreError> {
        let cell = |of: &MatchedReport| {
            Op::Insert(Table::Receipt, receipt::cell(of.part, &of.report), receipt::write(&of.account, &of.report))
        };
        let ops: Vec<Op> = reports.iter().map(cell).collect();
        if ops.is_empty() {
            return Ok(vec![]);
        }
        Ok(self.engine.write(Batch { ops, ..Batch::data() }).await?.inserted())
    }

    async fn list(&self, lane: LaneKey, from_seq: u32, limit: usize) -> Result<Vec<MatchedReport>, StoreError> {
        let mut found: Vec<MatchedReport> = Vec::new();
        let from = key::recipient(RecipientKey { lane, seq: from_seq });
        let end = key::behind(&key::lane(lane));
        self.engine.read()?.scan(Table::Receipt, &from, end.as_deref(), Order::Up, &mut |key, bytes| {
            let part = KeyReader(key).part()?;
            let begins = found.last().is_some_and(|last| last.part.recipient != part.recipient);
            if begins && found.len() >= limit {
                return Ok(false);
            }
            found.push(receipt::read(part, bytes)?);
            Ok(true)
        })?;
        Ok(found)
    }
}

#[async_trait::async_trait]
impl ReceiptIndex for Keyed {
    async fn find(&self, account: &str, ids: &[(String, Option<Msisdn>)]) -> Result<Vec<Vec<PartKey>>, StoreError> {
        self.index.find(account, ids)
    }

    async fn put_uncertain(&self, entries: Vec<UncertainEntry>) -> Result<(), StoreError> {
        let row = |entry: &UncertainEntry| {
            let RecipientKey { lane, seq } = entry.part.recipient;
            let key = KeyBuilder::new().name(&entry.account).u64(entry.number.0).lane(lane).u32(seq).u8(entry.part.part);
            Op::Put(Table::Uncertain, key.done(), receipt::write_uncertain(entry))
        };
        let ops: Vec<Op> = entries.iter().map(row).collect();
        if !ops.is_empty() {
            self.engine.write(Batch { ops, ..Batch::data() }).await?;
        }
        Ok(())
    }

    async fn uncertain(&self, account: &str, number: Msisdn) -> Result<Vec<UncertainEntry>, StoreError> {
        let prefix = key::uncertain(account, number);
        let mut found = Vec::new();
        self.engine.read()?.scan_prefix(Table::Uncertain, &prefix, &mut |key, bytes| {
            let part = KeyReader(&key[prefix.len()..]).part()?;
            let declared_at = receipt::read_uncertain(bytes)?;
            found.push(UncertainEntry { account: account.to_owned(), number, part, declared_at });
            Ok(true)
        })?;
        Ok(found)
    }
}
