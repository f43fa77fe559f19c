//! Short links: answers a second for codes that lead somewhere and for guesses, alone and over the network, and what guesses
//! cost the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use smsfleet::adapters::embedded::{EmbeddedStore, StoreOptions};
use smsfleet::adapters::system::{SeededChance, SystemClock};
use smsfleet::links::{ClickLog, Opened, Redirector, Settings, Visit};
use smsfleet::model::batch::{BatchRow, SmsBatch};
use smsfleet::model::click::RequestFacts;
use smsfleet::model::id::BatchId;
use smsfleet::ports::World;
use smsfleet::ports::links::{LinkBlock, Links};
use smsfleet::ports::{StoreError, Stores};
use smsfleet::runtime::short_code::{NUMBERS, Permutation};
use tokio_util::sync::CancellationToken;

/// Links handed out before.
const LINKS: u64 = 10_000_000;

/// Links whose reads are counted.
struct Counted(Arc<dyn Links>, AtomicU64);

#[async_trait::async_trait]
impl Links for Counted {
    async fn reserve(&self, batch: BatchId, len: u64) -> Result<LinkBlock, StoreError> {
        self.0.reserve(batch, len).await
    }
    async fn end(&self) -> Result<u64, StoreError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.end().await
    }
    async fn block_of(&self, number: u64) -> Result<Option<LinkBlock>, StoreError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.block_of(number).await
    }
    async fn key(&self) -> Result<[u8; 16], StoreError> {
        self.0.key().await
    }
}

/// Opens `answers` codes of each kind.
pub fn run(answers: Option<u64>) {
    let answers = answers.unwrap_or(1_000_000);
    super::support::runtime().block_on(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = EmbeddedStore::open(folder.path(), StoreOptions::default()).await.expect("it opens");
        let mut stores: Stores = store.stores();
        let counted = Arc::new(Counted(stores.links.clone(), AtomicU64::new(0)));
        stores.links = counted.clone();
        let world = World { clock: Arc::new(SystemClock), chance: Arc::new(SeededChance::from_seed(1)) };
        let batch = SmsBatch {
            content: "Look: {{url}}".into(),
            url: Some("https://shop.example/sale?x=1".into()),
            link_base: "https://s.example/".into(),
            ..super::support::batch(folder.path())
        };
        let row = BatchRow::created(batch, String::new(), world.clock.now());
        stores.batches.insert(BatchId(7), &row, 1).await.expect("inserted");
        for _ in 0..LINKS / 131_072 {
            counted.reserve(BatchId(7), 131_072).await.expect("reserved");
        }
        let end = counted.end().await.expect("read");
        let codes = Permutation::new(&counted.key().await.expect("a key"));
        let (log, writer) = ClickLog::new(stores.clone(), world.clone());
        let stop = CancellationToken::new();
        let writing = tokio::spawn(writer.run(stop.clone()));
        let settings = Settings { expire: Duration::from_secs(86_400), ..Settings::default() };
        let redirector = Arc::new(Redirector::new(stores.clone(), world, settings, log));
        let visit = Visit {
            facts: RequestFacts { method: "GET", purpose: "", agent: "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X)" },
            address: "192.0.2.1",
        };
        for (kind, first, step) in [("known", 0, end / 1_000_003), ("guessed", end, (NUMBERS - end) / (answers + 1))] {
            let codes: Vec<String> =
                (0..answers).filter_map(|n| codes.code_of(if kind == "known" { n * step.max(1) % end } else { first + n * step })).collect();
            let before = counted.1.load(Ordering::Relaxed);
            let began = Instant::now();
            let mut found = 0u64;
            for code in &codes {
                found += u64::from(matches!(redirector.resolve(code, &visit).await, Ok(Opened::Redirect { .. })));
            }
            let took = began.elapsed().as_secs_f64();
            let reads = counted.1.load(Ordering::Relaxed) - before;
            println!(
                "  {kind:<8} {:>9.0} answers/s on one core, {found} of {answers} lead somewhere, {reads} reads of the store in {took:.1} s",
                answers as f64 / took
            );
        }
        stop.cancel();
        let _ = writing.await;
        store.close();
    });
}
