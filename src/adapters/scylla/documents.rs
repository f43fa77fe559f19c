//! Small documents under a shelf and a name.
//!
//! Every change of a row is conditional, since a plain write beside conditional ones is ordered by another clock than
//! theirs and may lose against an older one. A row carries random bits of its last change, and a change is only ever applied
//! on the row that it saw: one that got lost on the way and is carried out after all can never undo a later one.

use std::cmp::Ordering;
use std::time::Duration;

use futures::FutureExt;
use xxhash_rust::xxh3::xxh3_64;

use super::merge::{behind_texts, merged};
use super::statement::Statement;
use super::store::CqlStore;
use crate::adapters::rows::frame::text;
use crate::ports::StoreError;
use crate::ports::control::Cas;
use crate::ports::documents::{Document, Documents, Shelf};

/// Partitions of a shelf. Part of the stored form.
const BUCKETS: u16 = 32;
/// How often a change is tried while it is not known whether it happened.
const TRIES: u32 = 5;
/// Between two of them: servers that are busy with each other's conditions, or connections, need a moment.
const PAUSE: Duration = Duration::from_millis(50);

const GET: Statement = Statement::serial_read("SELECT body, nonce FROM document WHERE shelf = ? AND bucket = ? AND name = ?");
const INSERT: Statement =
    Statement::condition("INSERT INTO document (shelf, bucket, name, body, nonce) VALUES (?, ?, ?, ?, ?) IF NOT EXISTS");
const REPLACE: Statement =
    Statement::condition("UPDATE document SET body = ?, nonce = ? WHERE shelf = ? AND bucket = ? AND name = ? IF nonce = ?");
const DELETE: Statement = Statement::condition("DELETE FROM document WHERE shelf = ? AND bucket = ? AND name = ? IF nonce = ?");
const LIST_FROM: Statement =
    Statement::read("SELECT name, body FROM document WHERE shelf = ? AND bucket = ? AND name >= ? LIMIT ?");
const LIST: Statement =
    Statement::read("SELECT name, body FROM document WHERE shelf = ? AND bucket = ? AND name >= ? AND name < ? LIMIT ?");

fn shelf_of(shelf: Shelf) -> i32 {
    i32::from(shelf.number())
}

fn bucket_of(name: &str) -> i32 {
    (xxh3_64(name.as_bytes()) % u64::from(BUCKETS)) as i32
}

/// An error behind tries of which one may have happened.
fn after(error: StoreError, unknown: &Option<String>) -> StoreError {
    unknown.clone().map_or(error, StoreError::Unknown)
}

impl CqlStore {
    /// A document's text and the bits of its last change.
    async fn document(&self, shelf: Shelf, name: &str) -> Result<Option<(String, i64)>, StoreError> {
        self.cql.first(&GET, (shelf_of(shelf), bucket_of(name), name)).await
    }

    /// The same between the tries of a change.
    async fn document_after(
        &self,
        shelf: Shelf,
        name: &str,
        unknown: &Option<String>,
    ) -> Result<Option<(String, i64)>, StoreError> {
        self.document(shelf, name).await.map_err(|error| after(error, unknown))
    }

    async fn insert_document(&self, shelf: Shelf, name: &str, body: &str, nonce: i64) -> Result<Cas, StoreError> {
        self.cql.cas(&INSERT, (shelf_of(shelf), bucket_of(name), name, body, nonce)).await
    }
}

#[async_trait::async_trait]
impl Documents for CqlStore {
    async fn get(&self, shelf: Shelf, name: &str) -> Result<Option<String>, StoreError> {
        Ok(self.document(shelf, name).await?.map(|(body, _)| body))
    }

    async fn insert(&self, shelf: Shelf, name: &str, body: &str) -> Result<Cas, StoreError> {
        self.insert_document(shelf, name, &text(body.to_owned()), self.chance.next() as i64).await
    }

    /// Read first: a replacement that is lost on the way may only ever replace the very text that was seen, not the same text
    /// put there again later.
    async fn replace(&self, shelf: Shelf, name: &str, expected: &str, body: &str) -> Result<Cas, StoreError> {
        match self.document(shelf, name).await? {
            Some((there, last)) if there == expected => {
                let nonce = self.chance.next() as i64;
                self.cql.cas(&REPLACE, (text(body.to_owned()), nonce, shelf_of(shelf), bucket_of(name), name, last)).await
            }
            _ => Ok(Cas::Refused),
        }
    }

    /// A put that somebody else's change overtakes between its read and its write has happened just before that change.
    async fn put(&self, shelf: Shelf, name: &str, body: &str) -> Result<(), StoreError> {
        let (nonce, body) = (self.chance.next() as i64, text(body.to_owned()));
        let (body, mut unknown) = (body.as_str(), None);
        for _ in 0..TRIES {
            let done = match self.document_after(shelf, name, &unknown).await? {
                Some((_, last)) if last == nonce => return Ok(()),
                Some((_, last)) => {
                    let key = (shelf_of(shelf), bucket_of(name), name);
                    self.cql.cas(&REPLACE, (body, nonce, key.0, key.1, key.2, last)).await.map(|_| Cas::Applied)
                }
                // Refused: somebody inserted, and was told that nobody was before. This put comes behind it.
                None => self.insert_document(shelf, name, body, nonce).await,
            };
            match done {
                Ok(Cas::Applied) => return Ok(()),
                Ok(Cas::Refused) => {}
                Err(StoreError::Unknown(error)) => unknown = Some(error),
                Err(error) => return Err(after(error, &unknown)),
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(after(StoreError::Unavailable("others change this document all the time".into()), &unknown))
    }

    /// What was put in after this began to look stays.
    async fn delete(&self, shelf: Shelf, name: &str) -> Result<(), StoreError> {
        let (mut unknown, mut seen) = (None, None);
        for _ in 0..TRIES {
            let Some((_, last)) = self.document_after(shelf, name, &unknown).await? else { return Ok(()) };
            if *seen.get_or_insert(last) != last {
                return Ok(());
            }
            match self.cql.cas(&DELETE, (shelf_of(shelf), bucket_of(name), name, last)).await {
                Ok(_) => return Ok(()),
                Err(StoreError::Unknown(error)) => unknown = Some(error),
                Err(error) => return Err(after(error, &unknown)),
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(StoreError::Unknown(unknown.unwrap_or_default()))
    }

    async fn list(&self, shelf: Shelf, prefix: &str, behind: Option<&str>, limit: usize) -> Result<Vec<Document>, StoreError> {
        // The smallest name behind another is the name and a NUL, which no name has.
        let from = behind.map(|name| format!("{name}\0")).filter(|from| from.as_str() > prefix).unwrap_or_else(|| prefix.into());
        let end = behind_texts(prefix);
        if end.as_ref().is_some_and(|end| from >= *end) {
            return Ok(vec![]);
        }
        let order = |a: &Document, b: &Document| -> Ordering { a.name.cmp(&b.name) };
        let page = |bucket: u16, last: Option<Document>, limit: usize| {
            let from = last.map_or_else(|| from.clone(), |last| format!("{}\0", last.name));
            let end = end.clone();
            async move {
                let (shelf, bucket, limit) = (shelf_of(shelf), i32::from(bucket), limit.min(i32::MAX as usize) as i32);
                let rows: Vec<(String, String)> = match end {
                    Some(end) => self.cql.rows(&LIST, (shelf, bucket, from, end, limit)).await?,
                    None => self.cql.rows(&LIST_FROM, (shelf, bucket, from, limit)).await?,
                };
                Ok(rows.into_iter().map(|(name, body)| Document { name, body }).collect())
            }
            .boxed()
        };
        merged(BUCKETS, limit, order, page).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_may_have_happened_in_an_earlier_try_stays_unknown() {
        let away = || StoreError::Unavailable("away".into());
        assert_eq!(after(away(), &None), away());
        assert_eq!(after(away(), &Some("lost".into())), StoreError::Unknown("lost".into()));
    }

    #[test]
    fn names_lie_where_they_are_stored() {
        assert_eq!(["", "a", "491511234567", "字"].map(bucket_of), [2, 31, 23, 1]);
        let mut names = vec![0u32; usize::from(BUCKETS)];
        (0..3_000u64).for_each(|n| names[bucket_of(&format!("{}", 4_915_110_000_000 + n)) as usize] += 1);
        assert!(names.iter().all(|names| (60..130).contains(names)), "about 94 each: {names:?}");
    }
}
