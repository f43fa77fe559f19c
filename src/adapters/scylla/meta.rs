//! Facts about the store: the growing mark inside and outside, and small facts under names.

use super::schema::READ_META;
use super::statement::Statement;
use super::store::CqlStore;
use crate::adapters::rows::frame::corrupt;
use crate::ports::StoreError;
use crate::ports::control::Cas;
use crate::ports::meta::{Left, Meta, left_mark};

const MARK: &str = "mark";

const FIRST_MARK: Statement = Statement::condition("INSERT INTO meta (name, value) VALUES (?, ?) IF NOT EXISTS");
const NEXT_MARK: Statement = Statement::condition("UPDATE meta SET value = ? WHERE name = ? IF value = ?");
const GET_FACT: Statement = Statement::read("SELECT value FROM fact WHERE name = ?");
const PUT_FACT: Statement = Statement::write("INSERT INTO fact (name, value) VALUES (?, ?)");

impl CqlStore {
    async fn mark(&self) -> Result<Option<u64>, StoreError> {
        let row: Option<(String,)> = self.cql.first(&READ_META, (MARK,)).await?;
        row.map(|(value,)| value.parse().map_err(|_| corrupt(MARK, "it is no number"))).transpose()
    }

    /// Raises the mark in the store beyond its own and `least`, then leaves it outside.
    async fn leave_next(&self, least: u64) -> Result<u64, StoreError> {
        loop {
            let before = self.mark().await?;
            let mark = next_mark(before, least)?;
            let answer = match before {
                None => self.cql.cas(&FIRST_MARK, (MARK, mark.to_string())).await,
                Some(before) => self.cql.cas(&NEXT_MARK, (mark.to_string(), MARK, before.to_string())).await,
            };
            match answer {
                // A mark that may have been raised was at least never used: the next one is higher.
                Ok(Cas::Refused) | Err(StoreError::Unknown(_)) => {}
                Ok(Cas::Applied) => {
                    self.outside.write(Left { mark, identity: self.incarnation.clone() }).await?;
                    return Ok(mark);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// The mark behind the store's and another. One that began again at 0 would make every restored store look new.
fn next_mark(before: Option<u64>, least: u64) -> Result<u64, StoreError> {
    before.unwrap_or_default().max(least).checked_add(1).ok_or_else(|| corrupt(MARK, "it is at its end"))
}

#[async_trait::async_trait]
impl Meta for CqlStore {
    async fn raise_mark(&self) -> Result<u64, StoreError> {
        // Raising the mark of a restored store would wipe out the only trace of it.
        if let Err(differs) = self.check_mark().await? {
            return Err(StoreError::Unavailable(differs));
        }
        self.leave_next(0).await
    }

    async fn check_mark(&self) -> Result<Result<(), String>, StoreError> {
        // What lies outside is read first: a mark that somebody raises between the two reads is in the store by then.
        // Nothing outside says nothing: the queue may be lost, and is made anew.
        let Some(left) = self.outside.read().await? else { return Ok(Ok(())) };
        let mark = self.mark().await?.unwrap_or_default();
        Ok(if left.identity != self.incarnation {
            Err("the mark outside was left for another store: this keyspace was made anew, or is another one".into())
        } else if left.mark > mark {
            Err(format!("the store stands at mark {mark}, but had reached {}: it was restored from a backup", left.mark))
        } else {
            Ok(())
        })
    }

    async fn accept(&self) -> Result<(), StoreError> {
        self.leave_next(left_mark(self.outside.read().await)?).await?;
        Ok(())
    }

    async fn get(&self, name: &str) -> Result<Option<String>, StoreError> {
        let row: Option<(String,)> = self.cql.first(&GET_FACT, (name,)).await?;
        Ok(row.map(|(value,)| value))
    }

    async fn put(&self, name: &str, value: &str) -> Result<(), StoreError> {
        self.cql.write(&PUT_FACT, (name, value)).await
    }

    /// CQL has no answer that says "full": a node without room stops taking writes, or leaves the cluster, and then writes fail
    /// as those of a server that is away do.
    async fn room(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_at_its_end_does_not_begin_again() {
        assert_eq!((next_mark(None, 0), next_mark(Some(7), 0)), (Ok(1), Ok(8)));
        assert_eq!((next_mark(None, 9), next_mark(Some(7), 9), next_mark(Some(9), 7)), (Ok(10), Ok(10), Ok(10)));
        assert!(matches!(next_mark(Some(u64::MAX), 0), Err(StoreError::Corrupt(_))));
    }
}
