//! What can be known of a batch before any record is read.

use crate::model::batch::SmsBatch;
use crate::model::code::Fault;

use super::column::number_column;
use super::number::region;
use super::template::Template;

/// Whether a batch can be prepared from a list with these columns: the number column is found, the region exists, the
/// template compiles and names only columns that there are. To be asked before anything is sent or even read.
///
/// # Errors
/// What is wrong, for the operator.
pub fn check(batch: &SmsBatch, columns: &[String]) -> Result<(), Fault> {
    number_column(batch.number_column.as_deref(), columns)?;
    region(&batch.default_region)?;
    Template::compile(batch, columns).map(|_| ())
}
