//! Stored rows that cannot be read and are passed over: one of them must not stand in the way of all others. Each time is counted,
//! and it is said once in a while; never what is in them.

use super::calm::Calm;
use super::metrics;
use crate::ports::StoreError;

/// The rows of one table.
#[derive(Debug)]
pub struct PassedOver {
    table: &'static str,
    calm: Calm,
}

impl PassedOver {
    /// Of a table; its name is a label of the metric.
    pub fn of(table: &'static str) -> PassedOver {
        PassedOver { table, calm: Calm::default() }
    }

    /// What was read of a row; `None` for one that is damaged.
    ///
    /// # Errors
    /// All others: a store that does not answer has not said that a row is damaged.
    pub fn read<T>(&self, read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        let error = match read {
            Err(error @ StoreError::Corrupt(_)) => error,
            read => return read.map(Some),
        };
        metrics::count(&metrics::STORE_UNREADABLE, &[self.table], 1);
        if self.calm.speaks() {
            let table = self.table;
            tracing::error!(table, code = %error.code(), %error, "a stored row is passed over: it cannot be read");
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_damaged_is_passed_over() {
        let passed = PassedOver::of("parked");
        let text = String::new;
        assert_eq!((passed.read(Ok(5)), passed.read::<u8>(Err(StoreError::Corrupt(text())))), (Ok(Some(5)), Ok(None)));
        for error in [StoreError::Unavailable(text()), StoreError::Unknown(text()), StoreError::Full(text())] {
            assert_eq!(passed.read::<u8>(Err(error.clone())), Err(error));
        }
    }
}
