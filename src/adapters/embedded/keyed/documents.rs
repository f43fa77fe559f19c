//! Small documents under a shelf and a name.

use super::Keyed;
use crate::adapters::embedded::engine::{Batch, Expect, Order, Table, Written};
use crate::adapters::rows::frame::{corrupt, read_small, small};
use crate::adapters::rows::key::KeyBuilder;
use crate::ports::StoreError;
use crate::ports::control::Cas;
use crate::ports::documents::{Document, Documents, Shelf};

fn key_of(shelf: Shelf, name: &str) -> Vec<u8> {
    let mut key = KeyBuilder::new().u8(shelf.number()).done();
    key.extend_from_slice(name.as_bytes());
    key
}

fn read(bytes: &[u8]) -> Result<String, StoreError> {
    read_small::<(String,)>("document", bytes).map(|(body,)| body)
}

#[async_trait::async_trait]
impl Documents for Keyed {
    async fn get(&self, shelf: Shelf, name: &str) -> Result<Option<String>, StoreError> {
        self.engine.read()?.get(Table::Document, &key_of(shelf, name))?.map(|bytes| read(&bytes)).transpose()
    }

    async fn insert(&self, shelf: Shelf, name: &str, body: &str) -> Result<Cas, StoreError> {
        let key = key_of(shelf, name);
        let change = Batch::control().check(Table::Document, key.clone(), Expect::Absent);
        Ok(match self.engine.write(change.put(Table::Document, key, small(&(body,)))).await? {
            Written::Applied(_) => Cas::Applied,
            Written::Refused => Cas::Refused,
        })
    }

    async fn replace(&self, shelf: Shelf, name: &str, expected: &str, body: &str) -> Result<Cas, StoreError> {
        let key = key_of(shelf, name);
        // The row's beginning is compared, which is the whole row: a text's length stands before it.
        let was = Expect::Bytes(0, small(&(expected,)));
        let change = Batch::control().check(Table::Document, key.clone(), was);
        Ok(match self.engine.write(change.put(Table::Document, key, small(&(body,)))).await? {
            Written::Applied(_) => Cas::Applied,
            Written::Refused => Cas::Refused,
        })
    }

    async fn put(&self, shelf: Shelf, name: &str, body: &str) -> Result<(), StoreError> {
        self.engine.write(Batch::control().put(Table::Document, key_of(shelf, name), small(&(body,)))).await?;
        Ok(())
    }

    async fn delete(&self, shelf: Shelf, name: &str) -> Result<(), StoreError> {
        self.engine.write(Batch::control().delete(Table::Document, key_of(shelf, name))).await?;
        Ok(())
    }

    async fn list(&self, shelf: Shelf, prefix: &str, behind: Option<&str>, limit: usize) -> Result<Vec<Document>, StoreError> {
        let first = key_of(shelf, prefix);
        let end = crate::adapters::rows::key::behind(&first);
        // The smallest key behind a name is the name and a NUL, which no name has.
        let from = behind.map(|name| key_of(shelf, &format!("{name}\0"))).filter(|key| *key > first).unwrap_or(first);
        let mut found = Vec::new();
        if limit == 0 {
            return Ok(found);
        }
        self.engine.read()?.scan(Table::Document, &from, end.as_deref(), Order::Up, &mut |key, bytes| {
            let name = std::str::from_utf8(&key[1..]).map_err(|_| corrupt("document", "its name is no text"))?;
            found.push(Document { name: name.to_owned(), body: read(bytes)? });
            Ok(found.len() < limit)
        })?;
        Ok(found)
    }
}
