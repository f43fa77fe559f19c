//! The statements of this adapter: text that is known when the program is built, and how each is sent.

use scylla::client::execution_profile::ExecutionProfileHandle;
use scylla::policies::retry::FallthroughRetryPolicy;
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::{Consistency, SerialConsistency};
use std::sync::Arc;

/// Rows of a page where rows are small.
const PAGE_ROWS: i32 = 1_000;

/// A statement: prepared when it is first used, so one that is never used costs nothing.
#[derive(Debug)]
pub struct Statement {
    pub(super) text: &'static str,
    pub(super) kind: Kind,
    page_rows: i32,
}

/// Rows that one read asks for by name: ScyllaDB refuses more than a hundred.
pub(super) const NAMES_AT_ONCE: usize = 100;

/// How a statement is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// QUORUM; repeated as the driver likes.
    Read,
    /// SERIAL: sees every conditional write that was answered, and settles those that were not.
    SerialRead,
    /// QUORUM; repeating it changes nothing.
    Write,
    /// SERIAL, decided at QUORUM; sent once.
    Condition,
}

impl Statement {
    /// A read of data.
    pub const fn read(text: &'static str) -> Statement {
        Statement { text, kind: Kind::Read, page_rows: PAGE_ROWS }
    }

    /// A read of rows that are changed under conditions.
    pub const fn serial_read(text: &'static str) -> Statement {
        Statement { text, kind: Kind::SerialRead, page_rows: PAGE_ROWS }
    }

    /// A write that may be repeated.
    pub const fn write(text: &'static str) -> Statement {
        Statement { text, kind: Kind::Write, page_rows: PAGE_ROWS }
    }

    /// A write with a condition, read by [`super::session::Cql::cas`].
    pub const fn condition(text: &'static str) -> Statement {
        Statement { text, kind: Kind::Condition, page_rows: PAGE_ROWS }
    }

    /// The same with pages of so many rows: fewer where rows are large.
    pub const fn by(self, page_rows: i32) -> Statement {
        Statement { page_rows, ..self }
    }

    /// Its text with the table's keyspace: prepared statements that rest on the connection's keyspace are warned of by Cassandra.
    pub(super) fn text_in(&self, keyspace: &str) -> String {
        let behind = |word: &&str| self.text.find(*word).map(|at| at + word.len());
        match ["FROM ", "INTO ", "UPDATE "].iter().filter_map(behind).min() {
            Some(at) if !self.text[at..].starts_with("system") => {
                format!("{}{keyspace}.{}", &self.text[..at], &self.text[at..])
            }
            _ => self.text.to_owned(),
        }
    }

    /// Tells the driver how to send it. `reads` is the profile that may ask a second node.
    pub fn dress(&self, prepared: &mut PreparedStatement, reads: &ExecutionProfileHandle) {
        prepared.set_page_size(self.page_rows);
        prepared.set_serial_consistency(Some(SerialConsistency::Serial));
        prepared.set_consistency(match self.kind {
            Kind::SerialRead => Consistency::Serial,
            Kind::Read | Kind::Write | Kind::Condition => Consistency::Quorum,
        });
        prepared.set_is_idempotent(self.kind != Kind::Condition);
        match self.kind {
            Kind::Read => prepared.set_execution_profile_handle(Some(reads.clone())),
            // Repeated by the reader's caller.
            Kind::SerialRead => {}
            // Repeated by the session, which remembers whether an earlier try may have happened; a condition never is.
            Kind::Write | Kind::Condition => prepared.set_retry_policy(Some(Arc::new(FallthroughRetryPolicy::new()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_named_with_its_keyspace() {
        for (text, wanted) in [
            ("SELECT a FROM t WHERE b = ?", "SELECT a FROM k.t WHERE b = ?"),
            ("INSERT INTO t (a) VALUES (?) IF NOT EXISTS", "INSERT INTO k.t (a) VALUES (?) IF NOT EXISTS"),
            ("UPDATE t SET a = ? WHERE b = ?", "UPDATE k.t SET a = ? WHERE b = ?"),
            ("DELETE FROM t USING TIMESTAMP ? WHERE b = ?", "DELETE FROM k.t USING TIMESTAMP ? WHERE b = ?"),
            ("SELECT a FROM system_schema.tables", "SELECT a FROM system_schema.tables"),
        ] {
            assert_eq!(Statement::read(text).text_in("k"), wanted);
        }
    }
}
