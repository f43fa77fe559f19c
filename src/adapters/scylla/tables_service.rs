//! The tables of what stands around the fleet: receipts, lists, documents, journals.

use super::tables::Table;

/// See [`super::tables`].
pub(super) const SERVICE: &[Table] = &[];
