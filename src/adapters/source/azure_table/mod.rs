//! Azure Table Storage: a list that is a table, each entity a record and each property a column.
//!
//! A thin client of its own (`client`, `sign`), since there is none to be had that is kept up. Planning walks the keys once and
//! cuts them into ranges (`plan`); a range is read by queries over stretches of keys (`keys`), each of which the service answers
//! from its index, and proves at its end that its keys and their timestamps are those that were planned (`range`).
//!
//! Architecture invariant: nothing here writes to a table, and no error shows a key, a signature or a record.

mod client;
mod config;
mod keys;
mod page;
mod plan;
mod range;
mod sign;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::config::AzureTableConfig;

use self::client::{Client, Table};
use self::range::TableRange;
use super::address::TableAddress;
use super::changed;
use crate::model::code::{Code, Fault};
use crate::model::record::{Fingerprint, RangePlan, SourcePlan};
use crate::ports::World;
use crate::ports::source::{RangeReader, SourceSpec};

/// The storage accounts that the configuration names, and the lists in their tables. No address reaches any other account.
#[doc(alias = "TableStorageTemplate")]
#[derive(Clone, Debug, Default)]
pub struct AzureTables {
    accounts: BTreeMap<String, Arc<Client>>,
}

/// How a table was planned, for whoever reads its ranges: the plan's dialect, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// The only partition that is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
}

impl AzureTables {
    /// The clients of a configuration; nothing is asked of any server yet.
    ///
    /// # Errors
    /// [`Code::ConfigInvalid`] with the key.
    pub fn new(configs: &BTreeMap<String, AzureTableConfig>, world: &World) -> Result<AzureTables, Fault> {
        let client = |(name, config): (&String, &AzureTableConfig)| Ok((name.clone(), Client::new(name, config, world)?));
        Ok(AzureTables { accounts: configs.iter().map(client).collect::<Result<_, Fault>>()? })
    }

    /// The table of an address, if the configuration allows it.
    pub(super) fn table(&self, address: &TableAddress) -> Result<Table, Fault> {
        let refuse = |why: String| Fault::new(Code::SourceForbidden, format!("{address}: {why}"));
        let client = self.accounts.get(&address.store);
        let client = client.ok_or_else(|| refuse(format!("there is no azure_tables.{}", address.store)))?;
        if !client.may_read(&address.table) {
            return Err(refuse(format!("azure_tables.{}.tables does not name this table", address.store)));
        }
        Ok(Table { client: client.clone(), name: address.table.clone(), shown: address.to_string() })
    }

    /// Walks the table once: see [`crate::ports::source::Source::plan`].
    pub(super) async fn plan(&self, address: &TableAddress, spec: &SourceSpec, range_records: u32) -> Result<SourcePlan, Fault> {
        let table = self.table(address)?;
        if !spec.dialect.trim().is_empty() {
            let text = format!("{address}: a table has its columns and encoding by itself; leave the dialect out");
            return Err(Fault::new(Code::InputInvalid, text));
        }
        plan::plan(&table, range_records).await
    }

    /// Opens a range of a planned table.
    pub(super) fn open(
        &self,
        address: &TableAddress,
        spec: &SourceSpec,
        plan: &SourcePlan,
        range: &RangePlan,
    ) -> Result<Box<dyn RangeReader>, Fault> {
        let table = self.table(address)?;
        let scope = planned_scope(&table, &plan.dialect)?;
        Ok(Box::new(TableRange::new(table, &scope, &spec.needed, &plan.columns, range)))
    }

    /// Whether the table is still what was planned. It has no version of its own, so that its keys are walked once more.
    pub(super) async fn unchanged(&self, address: &TableAddress, planned: &Fingerprint, dialect: &str) -> Result<(), Fault> {
        let table = self.table(address)?;
        planned_scope(&table, dialect)?;
        if plan::fingerprint(&table).await? == *planned { Ok(()) } else { Err(changed(&table.shown)) }
    }
}

/// The scope of a plan, which must be the configured one still.
fn planned_scope(table: &Table, dialect: &str) -> Result<Scope, Fault> {
    let scope: Scope = serde_json::from_str(dialect)
        .map_err(|_| Fault::new(Code::Internal, format!("{}: the plan's dialect cannot be read", table.shown)))?;
    if scope != table.client.scope() {
        let text = format!("{}: {}.partition is not what it was when the table was planned", table.shown, table.client.setting());
        return Err(Fault::new(Code::SourceChanged, text));
    }
    Ok(scope)
}

#[cfg(test)]
mod tests;
