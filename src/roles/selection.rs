//! Whom an order to send again names, as the statistics of a lane tell it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::batch::Select;
use crate::model::account::Account;
use crate::model::batch::BatchRow;
use crate::model::id::LaneKey;
use crate::model::order::{Named, RetryWhat};
use crate::ports::{StoreError, Stores};
use crate::statistics::select;

/// Selects over a store.
pub struct Selection {
    stores: Stores,
    accounts: BTreeMap<String, Account>,
}

impl Selection {
    /// Over this store, whose windows name these accounts.
    pub fn new(stores: Stores, accounts: BTreeMap<String, Account>) -> Arc<Selection> {
        Arc::new(Selection { stores, accounts })
    }
}

#[async_trait::async_trait]
impl Select for Selection {
    async fn select(&self, row: &BatchRow, lane: LaneKey, what: &RetryWhat, round: u8) -> Result<Vec<Named>, StoreError> {
        select(&self.stores, &self.accounts, &row.batch.provider_type, lane, what, round).await
    }
}
