//! Letting go of lists that were handed in: the leader plans from them, so it reaches the place where they are kept.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::model::step::CurrentStep;
use crate::ports::uploads::Uploads;
use crate::ports::{StoreError, Stores, World};
use crate::runtime::job::{Every, Job};

/// How often old uploads are looked for.
const EVERY: Duration = Duration::from_secs(3_600);

/// The uploads that batches may still read: those whose preparation is not over.
///
/// # Errors
/// What the store says, also of a single batch: what cannot be read may be in use.
pub async fn uploads_in_use(stores: &Stores) -> Result<BTreeSet<String>, StoreError> {
    let mut in_use = BTreeSet::new();
    for batch in stores.batch_index.active().await? {
        let Some(row) = stores.batches.load(batch).await? else { continue };
        let row = row.row;
        let is_read = row.current_step == CurrentStep::Preparation && !row.preparation.state.is_final();
        if is_read && let Some(upload) = row.batch.table_name.strip_prefix("upload:") {
            in_use.insert(upload.to_owned());
        }
    }
    Ok(in_use)
}

/// The job that lets go of old uploads that nobody needs.
pub struct UploadSweeper {
    uploads: Arc<dyn Uploads>,
    stores: Stores,
    world: World,
    keep: Duration,
    looks: Every,
}

impl UploadSweeper {
    /// Keeps uploads for this long after they were last handed in.
    pub fn new(uploads: Arc<dyn Uploads>, stores: Stores, world: World, keep: Duration) -> UploadSweeper {
        UploadSweeper { uploads, stores, world, keep, looks: Every::new(EVERY) }
    }
}

#[async_trait::async_trait]
impl Job for UploadSweeper {
    fn name(&self) -> &'static str {
        "uploads"
    }

    async fn run_once(&self) -> Result<bool, StoreError> {
        if !self.looks.is_due(&*self.world.clock) {
            return Ok(false);
        }
        let in_use = uploads_in_use(&self.stores).await?;
        match self.uploads.expire(self.world.clock.now().minus(self.keep), &in_use).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "old uploads were let go"),
            // The place of uploads, not the store: said here, as the round has no word for it.
            Err(fault) => tracing::warn!(code = %fault.code, %fault, "old uploads could not be removed"),
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::adapters::memory::clock::SimClock;
    use crate::adapters::memory::store::MemoryStore;
    use crate::adapters::system::SeededChance;
    use crate::model::batch::{BatchRow, Command, SmsBatch};
    use crate::model::code::{Code, Fault};
    use crate::model::id::BatchId;
    use crate::model::time::Timestamp;
    use crate::ports::uploads::{Content, Uploaded};

    const START: Timestamp = Timestamp(1_800_000_000_000);

    /// A place that only remembers what it was told to let go of.
    #[derive(Default)]
    struct Told(Mutex<Vec<(Timestamp, BTreeSet<String>)>>);

    #[async_trait::async_trait]
    impl Uploads for Told {
        async fn put(&self, _: Content, _: Option<&str>, _: Option<u64>) -> Result<Uploaded, Fault> {
            Err(Fault::new(Code::Internal, "nobody hands anything in here"))
        }
        async fn get(&self, _: &str) -> Result<Option<Uploaded>, Fault> {
            Ok(None)
        }
        async fn list(&self) -> Result<Vec<Uploaded>, Fault> {
            Ok(vec![])
        }
        async fn delete(&self, _: &str) -> Result<bool, Fault> {
            Ok(false)
        }
        async fn expire(&self, before: Timestamp, in_use: &BTreeSet<String>) -> Result<u64, Fault> {
            self.0.lock().expect("not poisoned").push((before, in_use.clone()));
            Err(Fault::new(Code::StoreUnavailable, "away"))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn old_uploads_go_every_hour_but_for_those_that_a_batch_may_still_read() {
        let stores = MemoryStore::new(Arc::new(SeededChance::from_seed(1))).stores();
        for (id, list, command) in
            [(1, "upload:aa", Command::EntryProcess), (2, "upload:bb", Command::Cancel), (3, "/a/file", Command::EntryProcess)]
        {
            let asked = SmsBatch { batch_id: BatchId(id), ..SmsBatch::new(list, "Hello", "main") };
            let row = BatchRow::created(asked, String::new(), START).command(command, START).expect("it may be told so");
            stores.batches.insert(BatchId(id), &row, 1).await.expect("inserted");
        }
        let world = World { clock: Arc::new(SimClock::new(START)), chance: Arc::new(SeededChance::from_seed(2)) };
        let (told, keep) = (Arc::new(Told::default()), Duration::from_secs(86_400));
        let sweeper = UploadSweeper::new(told.clone(), stores, world, keep);
        for _ in 0..90 {
            sweeper.run_once().await.expect("a place that is away is no failure of the store");
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        let told = told.0.lock().expect("not poisoned");
        let expected = |hours: u64| (START.plus(Duration::from_secs(hours * 3_600)).minus(keep), ["aa".to_owned()].into());
        assert_eq!(*told, [expected(0), expected(1)]);
    }
}
