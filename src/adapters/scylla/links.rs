//! Numbers for short links, handed out in blocks by a counter that changes under conditions only.

use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::key;
use super::statement::Statement;
use super::store::CqlStore;
use crate::adapters::rows::frame::corrupt;
use crate::model::id::BatchId;
use crate::ports::StoreError;
use crate::ports::control::Cas;
use crate::ports::links::{LinkBlock, Links};

/// Numbers in one segment, as a power of two: a partition of blocks.
const SEGMENT_BITS: u32 = 26;
/// Segments of one block written at once.
const SEGMENTS_AT_ONCE: usize = 16;
/// How often a reservation is tried while others reserve, or while it is not known what became of it.
const TRIES: u32 = 100;
/// Of these, how many may be unknown.
const UNKNOWN_MAX: u32 = 3;
/// Between a try that is unknown and the next: servers that are busy with each other's conditions need a moment.
const PAUSE: Duration = Duration::from_millis(50);

const NEXT: &str = "next";
const KEY: &str = "key";

const GET: Statement = Statement::serial_read("SELECT value FROM link_state WHERE name = ?");
const INSERT: Statement = Statement::condition("INSERT INTO link_state (name, value) VALUES (?, ?) IF NOT EXISTS");
const REPLACE: Statement = Statement::condition("UPDATE link_state SET value = ? WHERE name = ? IF value = ?");
const PUT_BLOCK: Statement = Statement::write("INSERT INTO link_block (segment, first, len, batch_id) VALUES (?, ?, ?, ?)");
const BLOCK_OF: Statement =
    Statement::read("SELECT first, len, batch_id FROM link_block WHERE segment = ? AND first <= ? LIMIT 1");

fn segment_of(number: u64) -> i64 {
    (number >> SEGMENT_BITS) as i64
}

#[async_trait::async_trait]
impl Links for CqlStore {
    async fn reserve(&self, batch: BatchId, len: u64) -> Result<LinkBlock, StoreError> {
        let block = LinkBlock { first: self.count_links_up(len).await?, len, batch };
        // Before anybody learns of the numbers: whoever opens a link finds its block.
        if let Some(last) = (block.first + len).checked_sub(1).filter(|last| *last >= block.first) {
            let batch = key::batch(batch);
            stream::iter(segment_of(block.first)..=segment_of(last))
                .map(|segment| self.cql.write(&PUT_BLOCK, (segment, block.first as i64, len as i64, batch)))
                .buffer_unordered(SEGMENTS_AT_ONCE)
                .try_collect::<()>()
                .await?;
        }
        Ok(block)
    }

    async fn end(&self) -> Result<u64, StoreError> {
        Ok(self.next_link().await?.unwrap_or(0))
    }

    async fn block_of(&self, number: u64) -> Result<Option<LinkBlock>, StoreError> {
        let Ok(wanted) = i64::try_from(number) else { return Ok(None) };
        let row: Option<(i64, i64, Vec<u8>)> = self.cql.first(&BLOCK_OF, (segment_of(number), wanted)).await?;
        let Some((first, len, batch)) = row else { return Ok(None) };
        let block = LinkBlock { first: key::read(first)?, len: key::read(len)?, batch: key::read_batch(&batch)? };
        Ok(Some(block).filter(|block| number - block.first < block.len))
    }

    async fn key(&self) -> Result<[u8; 16], StoreError> {
        let mut tries = 0;
        loop {
            if let Some((key,)) = self.cql.first::<(Vec<u8>,), _>(&GET, (KEY,)).await? {
                return key.try_into().map_err(|_| corrupt("link key", "it has not sixteen bytes"));
            }
            let mut key = [0; 16];
            key[..8].copy_from_slice(&self.chance.next().to_be_bytes());
            key[8..].copy_from_slice(&self.chance.next().to_be_bytes());
            // Whoever loses reads the key of the one who won; so does whoever was not told.
            match self.cql.cas(&INSERT, (KEY, &key)).await {
                Err(StoreError::Unknown(error)) if tries == UNKNOWN_MAX => return Err(StoreError::Unknown(error)),
                Ok(_) | Err(StoreError::Unknown(_)) => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

impl CqlStore {
    /// The number behind all that were handed out, or none yet.
    async fn next_link(&self) -> Result<Option<u64>, StoreError> {
        let Some((value,)) = self.cql.first::<(Vec<u8>,), _>(&GET, (NEXT,)).await? else { return Ok(None) };
        let value = value.try_into().map_err(|_| corrupt("link counter", "it has not eight bytes"))?;
        Ok(Some(u64::from_be_bytes(value)))
    }

    /// Raises the counter by `len` and answers where it stood. One raise that was not answered may have happened: its
    /// numbers are left out, and no one else ever gets them either. One of a process at a time: they would only be in each
    /// other's way.
    async fn count_links_up(&self, len: u64) -> Result<u64, StoreError> {
        let _only_one = self.reserving.lock().await;
        let mut unknown = 0;
        for _ in 0..TRIES {
            let known = self.next_link().await?;
            let first = known.unwrap_or(0);
            let next = first.checked_add(len).filter(|next| i64::try_from(*next).is_ok());
            let next = next.ok_or_else(|| StoreError::Full("all link numbers are handed out".into()))?.to_be_bytes();
            let raised = match known {
                None => self.cql.cas(&INSERT, (NEXT, &next)).await,
                Some(first) => self.cql.cas(&REPLACE, (&next, NEXT, &first.to_be_bytes())).await,
            };
            match raised {
                Ok(Cas::Applied) => return Ok(first),
                Ok(Cas::Refused) => {}
                Err(StoreError::Unknown(error)) if unknown == UNKNOWN_MAX => return Err(StoreError::Unknown(error)),
                Err(StoreError::Unknown(_)) => {
                    unknown += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Unavailable("others reserve link numbers all the time".into()))
    }
}
