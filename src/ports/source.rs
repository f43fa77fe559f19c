//! Where records come from.

use crate::model::code::Fault;
use crate::model::record::{RangePlan, Record, SourcePlan};

/// What a planner must know of the batch to read its source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceSpec {
    /// The address: `SmsBatch::table_name`.
    pub table_name: String,
    /// The dialect, when the caller names it; the source finds out what is left open.
    pub dialect: String,
    /// Names of the columns whose values are used; all when empty. A source may leave the fields of the others empty.
    pub needed: Vec<String>,
}

/// A source of records. Any storage that can be read by ranges, as often as asked, with the same result.
#[async_trait::async_trait]
pub trait Source: Send + Sync {
    /// Looks at the whole source once: what it is, which columns it has, and its ranges of about `range_records`. Bounded
    /// memory. A source that is no list, or is empty, is a fault that says what to do.
    async fn plan(&self, spec: &SourceSpec, range_records: u32) -> Result<SourcePlan, Fault>;

    /// Opens one range. A source that is not the planned one is [`crate::model::code::Code::SourceChanged`].
    async fn open(&self, spec: &SourceSpec, plan: &SourcePlan, range: &RangePlan) -> Result<Box<dyn RangeReader>, Fault>;
}

/// What became of copies of lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Copies removed.
    pub removed: u64,
    /// Copies kept because somebody needs them, or may.
    pub kept: u64,
}

/// Copies of lists that the fleet keeps for itself: uploads, spooled input, converted files.
#[async_trait::async_trait]
pub trait ListCopies: Send + Sync {
    /// Whether an address is a copy of the fleet's own, and not a list of the operator's.
    fn is_copy(&self, table_name: &str) -> bool;

    /// Removes all copies that no batch needs which is not prepared yet. `needed` are the `table_name`s of those batches;
    /// what was converted from them is kept too, and what was used just now.
    async fn remove_unneeded(&self, needed: &[String]) -> Result<Removed, Fault>;
}

/// Reads one range in bounded memory.
#[async_trait::async_trait]
pub trait RangeReader: Send {
    /// The next records, at most about `limit` and about [`crate::model::limits::READ_BYTES_MAX`] bytes of them, but one at least;
    /// empty at the end. A record that cannot be used comes with its reason, and
    /// reading goes on. At the end the range's content is checked against the plan.
    async fn read(&mut self, limit: usize) -> Result<Vec<Record>, Fault>;
}
