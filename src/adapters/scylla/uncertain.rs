//! Recipients that were handed over and never answered, by account and number; each is let go after a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use futures::stream::{self, StreamExt, TryStreamExt};

use super::key;
use super::statement::Statement;
use super::store::CqlStore;
use crate::model::id::{LaneKey, Msisdn, RecipientKey};
use crate::model::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::receipts::{PartKey, UncertainEntry};

/// Partitions that one call works on at once.
const PARTITIONS_AT_ONCE: usize = 32;
/// Bytes of a row, about.
const ROW_BYTES: usize = 80;
/// Entries deleted at once.
const DELETES_AT_ONCE: usize = 20_000;

const INSERT: Statement = Statement::write(
    "INSERT INTO uncertain (account, number, batch_id, lane, seq, part, declared_at) VALUES (?, ?, ?, ?, ?, ?, ?) USING TTL ?",
);
const READ: Statement =
    Statement::read("SELECT batch_id, lane, seq, part, declared_at FROM uncertain WHERE account = ? AND number = ?");
const ALL: Statement = Statement::read("SELECT account, number, batch_id, lane, seq, part, declared_at FROM uncertain");
const DELETE: Statement = Statement::write(
    "DELETE FROM uncertain WHERE account = ? AND number = ? AND batch_id = ? AND lane = ? AND seq = ? AND part = ?",
);
const DELETE_NUMBER: Statement = Statement::write("DELETE FROM uncertain WHERE account = ? AND number = ?");
const NOTE_ACCOUNT: Statement = Statement::write("INSERT INTO uncertain_account (one, account) VALUES (0, ?)");
const ACCOUNTS: Statement = Statement::read("SELECT account FROM uncertain_account WHERE one = 0");

/// What names a row within its partition.
type Name = (Vec<u8>, i32, i64, i32);
/// A row without its partition's key.
type Row = (Vec<u8>, i32, i64, i32, i64);

/// Accounts that this process has noted.
#[derive(Default)]
pub(super) struct Accounts(Mutex<BTreeSet<String>>);

impl CqlStore {
    /// See [`crate::ports::receipts::ReceiptIndex::put_uncertain`].
    pub(super) async fn note_uncertain(&self, entries: Vec<UncertainEntry>) -> Result<(), StoreError> {
        let mut partitions: BTreeMap<(String, Msisdn), Vec<(PartKey, Timestamp)>> = BTreeMap::new();
        for entry in entries {
            self.note_account(&entry.account).await?;
            partitions.entry((entry.account, entry.number)).or_default().push((entry.part, entry.declared_at));
        }
        stream::iter(partitions)
            .map(|((account, number), parts)| async move {
                let rows = parts.into_iter().map(|(PartKey { recipient, part }, at)| {
                    let RecipientKey { lane, seq } = recipient;
                    let batch = key::batch(lane.batch);
                    (&account, number.0 as i64, batch, key::lane(lane), i64::from(seq), i32::from(part), at.0, self.index_ttl)
                });
                self.cql.write_rows(&INSERT, rows.collect(), |_| ROW_BYTES + account.len()).await
            })
            .buffer_unordered(PARTITIONS_AT_ONCE)
            .try_collect()
            .await
    }

    /// Notes an account before its first entry is stored.
    async fn note_account(&self, account: &str) -> Result<(), StoreError> {
        if !self.accounts.0.lock().unwrap_or_else(PoisonError::into_inner).contains(account) {
            self.cql.write(&NOTE_ACCOUNT, (account,)).await?;
            self.accounts.0.lock().unwrap_or_else(PoisonError::into_inner).insert(account.to_owned());
        }
        Ok(())
    }

    /// See [`crate::ports::receipts::ReceiptIndex::uncertain`].
    pub(super) async fn uncertain_of(&self, account: &str, number: Msisdn) -> Result<Vec<UncertainEntry>, StoreError> {
        let rows: Vec<Row> = self.cql.rows(&READ, (account, number.0 as i64)).await?;
        let entry = |row| entry_of(account.to_owned(), number, row);
        let mut found = rows.into_iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        found.sort_by_key(|entry| entry.part);
        Ok(found)
    }

    /// Those of a number at all accounts.
    pub(super) async fn uncertain_of_number(&self, number: Msisdn) -> Result<Vec<UncertainEntry>, StoreError> {
        let accounts: Vec<(String,)> = self.cql.rows(&ACCOUNTS, ()).await?;
        let mut found = Vec::new();
        for (account,) in accounts {
            found.extend(self.uncertain_of(&account, number).await?);
        }
        Ok(found)
    }

    /// Removes those of a number at all accounts; answers how many.
    pub(super) async fn erase_uncertain(&self, number: Msisdn) -> Result<u64, StoreError> {
        let found = self.uncertain_of_number(number).await?;
        let accounts: BTreeSet<&str> = found.iter().map(|entry| entry.account.as_str()).collect();
        for account in accounts {
            self.cql.write(&DELETE_NUMBER, (account, number.0 as i64)).await?;
        }
        Ok(found.len() as u64)
    }

    /// Removes entries that were declared before an instant and whose time to live has not passed: reads the whole table,
    /// a page at a time.
    pub(super) async fn drop_uncertain_before(&self, before: Timestamp) -> Result<(), StoreError> {
        loop {
            let mut old: Vec<(String, i64, Vec<u8>, i32, i64, i32)> = Vec::new();
            self.cql
                .scan(&ALL, (), |(account, number, batch, lane, seq, part, at): (String, i64, Vec<u8>, i32, i64, i32, i64)| {
                    if at < before.0 {
                        old.push((account, number, batch, lane, seq, part));
                    }
                    Ok(old.len() < DELETES_AT_ONCE)
                })
                .await?;
            let is_last = old.len() < DELETES_AT_ONCE;
            let mut partitions: BTreeMap<(String, i64), Vec<Name>> = BTreeMap::new();
            for (account, number, batch, lane, seq, part) in old {
                partitions.entry((account, number)).or_default().push((batch, lane, seq, part));
            }
            stream::iter(partitions)
                .map(|((account, number), parts)| async move {
                    let rows = parts.into_iter().map(|(batch, lane, seq, part)| (&account, number, batch, lane, seq, part));
                    self.cql.write_rows(&DELETE, rows.collect(), |_| ROW_BYTES + account.len()).await
                })
                .buffer_unordered(PARTITIONS_AT_ONCE)
                .try_collect::<()>()
                .await?;
            if is_last {
                return Ok(());
            }
        }
    }
}

fn entry_of(account: String, number: Msisdn, row: Row) -> Result<UncertainEntry, StoreError> {
    let (batch, lane, seq, part, declared_at) = row;
    let lane = LaneKey { batch: key::read_batch(&batch)?, lane: key::read(lane)? };
    let part = PartKey { recipient: RecipientKey { lane, seq: key::read(seq)? }, part: key::read(part)? };
    Ok(UncertainEntry { account, number, part, declared_at: Timestamp(declared_at) })
}
