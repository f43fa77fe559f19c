//! Answers, judgements and retry packs; the index entries of the answers go into the same commit.

use super::Keyed;
use crate::adapters::embedded::engine::{Batch, Order, Table};
use crate::adapters::rows::frame::corrupt;
use crate::adapters::rows::key::{self, KeyBuilder, KeyReader};
use crate::adapters::rows::window;
use crate::model::id::{LaneKey, WindowKey};
use crate::model::window::{Judgement, RetryPack, WindowRow};
use crate::ports::StoreError;
use crate::ports::receipts::IndexEntry;
use crate::ports::windows::{StoredWindow, Windows};

#[async_trait::async_trait]
impl Windows for Keyed {
    async fn put(&self, key: WindowKey, row: &WindowRow, index: Vec<IndexEntry>) -> Result<(), StoreError> {
        // What was handed over is stored with the last of the disk: see the declare in `control`.
        let mut batch = Batch::control().put(Table::Window, key::window(key, false), window::write(row));
        let noted = self.index.note(&index, row.window.declared_at, &mut batch).await?;
        let is_full = noted.is_full;
        self.engine.write(batch).await?;
        self.index.stored(noted);
        match &self.maintainer {
            _ if !is_full => {}
            Some(maintainer) => maintainer(),
            None => while self.index.maintain().await? {},
        }
        Ok(())
    }

    async fn put_judgement(&self, key: WindowKey, judgement: &Judgement) -> Result<(), StoreError> {
        let row = window::write_judgement(judgement);
        self.engine.write(Batch::control().put(Table::Window, key::window(key, true), row)).await?;
        Ok(())
    }

    async fn get(&self, key: WindowKey) -> Result<Option<StoredWindow>, StoreError> {
        let found = self.windows(key.lane, key.window, 1)?.pop();
        Ok(found.filter(|stored| stored.key == key))
    }

    async fn list(&self, lane: LaneKey, from: u64, limit: usize) -> Result<Vec<StoredWindow>, StoreError> {
        self.windows(lane, from, limit)
    }

    async fn put_retry(&self, lane: LaneKey, name: u64, pack: &RetryPack) -> Result<(), StoreError> {
        self.engine.write(Batch::control().put(Table::Retry, retry_key(lane, name), window::write_retry(pack))).await?;
        Ok(())
    }

    async fn retry(&self, lane: LaneKey, name: u64) -> Result<Option<RetryPack>, StoreError> {
        let row = self.engine.read()?.get(Table::Retry, &retry_key(lane, name))?;
        row.map(|bytes| window::read_retry(&bytes)).transpose()
    }
}

impl Keyed {
    /// A window's answers and its judgement stand side by side.
    fn windows(&self, lane: LaneKey, from: u64, limit: usize) -> Result<Vec<StoredWindow>, StoreError> {
        let mut found: Vec<StoredWindow> = Vec::new();
        let (from, end) = (key::window(WindowKey { lane, window: from }, false), key::behind(&key::lane(lane)));
        self.engine.read()?.scan(Table::Window, &from, end.as_deref(), Order::Up, &mut |key, bytes| {
            let mut fields = KeyReader(key);
            let key = WindowKey { lane: fields.lane()?, window: fields.u64()? };
            // A window is named by its ledger's version, which was counted up. Whoever lists goes on behind it.
            if key.window == u64::MAX {
                return Err(corrupt("window", "its name is at its end"));
            }
            if found.last().is_none_or(|last| last.key != key) {
                if found.len() == limit {
                    return Ok(false);
                }
                found.push(StoredWindow { key, row: None, judgement: None });
            }
            if let Some(stored) = found.last_mut() {
                match fields.u8()? {
                    0 => stored.row = Some(window::read(bytes)?),
                    _ => stored.judgement = Some(window::read_judgement(bytes)?),
                }
            }
            Ok(true)
        })?;
        Ok(found)
    }
}

fn retry_key(lane: LaneKey, name: u64) -> Vec<u8> {
    KeyBuilder::new().lane(lane).u64(name).done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::embedded::engine::Engine;
    use crate::adapters::memory::store::MemoryStore;
    use crate::adapters::system::SeededChance;
    use crate::model::id::{BatchId, WorkerId};
    use crate::model::ledger::OpenWindow;
    use crate::model::time::Timestamp;

    #[tokio::test]
    async fn a_window_behind_whose_name_nobody_could_go_on_is_damaged() {
        let store = MemoryStore::new(std::sync::Arc::new(SeededChance::from_seed(1)));
        let (windows, lane) = (store.stores().windows, LaneKey { batch: BatchId(1), lane: 2 });
        let window = OpenWindow {
            window: 1,
            leg: 0,
            from: 0,
            to: 1,
            account: "a".into(),
            declarer: WorkerId(1),
            declared_at: Timestamp(1),
            send_by: Timestamp(2),
        };
        let row = window::write(&WindowRow { window, answers: vec![], complete: true });
        for (name, is_read) in [(u64::MAX - 1, true), (u64::MAX, false)] {
            let key = key::window(WindowKey { lane, window: name }, false);
            store.engine().write(Batch::control().put(Table::Window, key, row.clone())).await.expect("it is put");
            let read = windows.list(lane, 0, 8).await;
            assert!(if is_read { read.is_ok() } else { matches!(read, Err(StoreError::Corrupt(_))) }, "{name}");
        }
    }
}
