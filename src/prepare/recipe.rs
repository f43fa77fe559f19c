//! What turns a record into a message: everything of a batch that is the same for all of its records.

use std::collections::BTreeSet;

use rlibphonenumber::Region;

use super::column::number_column;
use super::number;
use super::template::Template;
use crate::model::account::Capabilities;
use crate::model::batch::SmsBatch;
use crate::model::code::Fault;
use crate::model::limits::PARTS_MAX;
use crate::model::record::RangePlan;
use crate::runtime::short_code::Codes;

/// The compiled form of a batch, for one range.
pub struct Recipe {
    /// The column of the telephone number.
    pub number_column: usize,
    /// Region of numbers without a country code.
    pub region: Option<Region>,
    /// The text.
    pub template: Template,
    /// The signature without brackets.
    pub signature: String,
    /// What stands before a short code.
    pub link_base: String,
    /// What the account can do that would send it today.
    pub capabilities: Capabilities,
    /// The most parts a message may have.
    pub parts_max: u8,
    /// Number of the range's first record.
    pub first_record: u64,
    /// The short codes of the range's records, when the batch has links.
    pub codes: Option<Codes>,
}

impl Recipe {
    /// Names of the columns whose values it uses.
    pub fn needed(&self, columns: &[String]) -> Vec<String> {
        let places: BTreeSet<usize> = self.template.places().chain([self.number_column]).collect();
        places.into_iter().filter_map(|place| columns.get(place).cloned()).collect()
    }

    /// Compiles a batch for one range of its list. Short codes are added by the caller when
    /// [`Template::has_link`] asks for them.
    ///
    /// # Errors
    /// What [`super::plan::check`] finds.
    pub fn new(batch: &SmsBatch, columns: &[String], capabilities: Capabilities, range: &RangePlan) -> Result<Recipe, Fault> {
        Ok(Recipe {
            number_column: number_column(batch.number_column.as_deref(), columns)?,
            region: number::region(&batch.default_region)?,
            template: Template::compile(batch, columns)?,
            signature: batch.content_signature.clone(),
            link_base: batch.link_base.clone(),
            parts_max: capabilities.parts_max.min(PARTS_MAX as u8),
            capabilities,
            first_record: range.first_record,
            codes: None,
        })
    }
}
