//! Codes that are opened: by people, machines and nobody, over a store whose reads are counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::adapters::memory::clock::SimClock;
use crate::adapters::memory::store::MemoryStore;
use crate::adapters::system::SeededChance;
use crate::model::batch::{BatchRow, SmsBatch};
use crate::model::click::{Click, Kind, RequestFacts, Why, scope_of};
use crate::model::id::BatchId;
use crate::model::time::Timestamp;
use crate::ports::journal::{Direction, Stream};
use crate::ports::links::{LinkBlock, Links};
use crate::ports::{StoreError, Stores, World};
use crate::runtime::short_code::Permutation;

/// A batch with a link.
pub fn batch() -> SmsBatch {
    SmsBatch {
        batch_id: BatchId(7),
        tenant: "t".into(),
        campaign_id: "c1".into(),
        url: Some("https://shop.example/a".into()),
        link_base: "https://s.example/".into(),
        auto_trigger: true,
        ..SmsBatch::new("list.csv", "Look: {{url}}", "smpp")
    }
}

/// Links whose calls are counted.
struct Counted {
    inner: Arc<dyn Links>,
    reads: AtomicU64,
    /// Milliseconds that the end takes to be read.
    takes: AtomicU64,
}

#[async_trait::async_trait]
impl Links for Counted {
    async fn reserve(&self, batch: BatchId, len: u64) -> Result<LinkBlock, StoreError> {
        self.inner.reserve(batch, len).await
    }
    async fn end(&self) -> Result<u64, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(self.takes.load(Ordering::Relaxed))).await;
        self.inner.end().await
    }
    async fn block_of(&self, number: u64) -> Result<Option<LinkBlock>, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.inner.block_of(number).await
    }
    async fn key(&self) -> Result<[u8; 16], StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.inner.key().await
    }
}

struct Bed {
    stores: Stores,
    links: Arc<Counted>,
    redirector: Redirector,
    writer: Option<ClickWriter>,
    codes: Permutation,
}

impl Bed {
    /// A batch of ten links, numbers 100 to 109.
    async fn new(settings: Settings) -> Bed {
        let chance = Arc::new(SeededChance::from_seed(1));
        let mut stores = MemoryStore::new(chance.clone()).stores();
        let links = Arc::new(Counted { inner: stores.links.clone(), reads: AtomicU64::new(0), takes: AtomicU64::new(0) });
        stores.links = links.clone();
        let world = World { clock: Arc::new(SimClock::new(Timestamp(1_700_000_000_000))), chance };
        stores.links.reserve(BatchId(1), 100).await.expect("reserved");
        stores.links.reserve(BatchId(7), 10).await.expect("reserved");
        let row = BatchRow::created(batch(), String::new(), world.clock.now());
        stores.batches.insert(BatchId(7), &row, 1).await.expect("inserted");
        let codes = Permutation::new(&links.inner.key().await.expect("a key"));
        let (log, writer) = ClickLog::new(stores.clone(), world.clone());
        let redirector = Redirector::new(stores.clone(), world, settings, log);
        Bed { stores, links, redirector, writer: Some(writer), codes }
    }

    fn code(&self, number: u64) -> String {
        self.codes.code_of(number).expect("below the limit")
    }

    async fn open(&self, code: &str) -> Opened {
        self.redirector.resolve(code, &visit("GET", "Mozilla/5.0 (iPhone)")).await.expect("the store answers")
    }
}

fn visit<'a>(method: &'a str, agent: &'a str) -> Visit<'a> {
    Visit { facts: RequestFacts { method, purpose: "", agent }, address: "192.0.2.1" }
}

fn settings() -> Settings {
    let parameters = vec![("utm_source".to_owned(), "sms".to_owned())];
    Settings { expire: Duration::from_secs(90 * 86_400), parameters, ..Settings::default() }
}

fn page() -> Opened {
    Opened::Redirect { to: "https://shop.example/a?utm_source=sms".into() }
}

#[tokio::test(start_paused = true)]
async fn only_stored_links_lead_anywhere_and_guesses_cost_no_read() {
    let bed = Bed::new(settings()).await;
    assert_eq!(bed.open(&bed.code(100)).await, page());
    assert_eq!(bed.open(&bed.code(109)).await, page());
    assert_eq!(bed.open(&bed.code(5)).await, Opened::Unknown, "its batch is not there");
    let before = bed.links.reads.load(Ordering::Relaxed);
    for number in 0..10_000 {
        assert_eq!(bed.open(&bed.code(1_000 + number * 7_919_111)).await, Opened::Unknown);
    }
    for text in ["", "short", "too-long-to-be-one", "1234-678", "../../..", "https://evil.example/"] {
        assert_eq!(bed.open(text).await, Opened::Unknown, "{text}");
    }
    for number in 0..1_000 {
        assert_eq!(bed.open(&bed.code(100 + number % 10)).await, page());
    }
    let reads = bed.links.reads.load(Ordering::Relaxed) - before;
    assert!(reads <= 1, "{reads} reads");
    // What is handed out later is found within a second or so.
    bed.stores.links.reserve(BatchId(7), 10).await.expect("reserved");
    tokio::time::advance(Duration::from_millis(1_100)).await;
    assert_eq!(bed.open(&bed.code(115)).await, page());
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_first_after_a_start_is_led_to_the_page_and_so_are_all_who_come_with_them() {
    let bed = Bed::new(settings()).await;
    bed.links.takes.store(200, Ordering::Relaxed);
    let (one, other) = (bed.code(100), bed.code(101));
    assert_eq!(tokio::join!(bed.open(&one), bed.open(&other)), (page(), page()));
    // A new link, whose first visitor hangs up while it is looked for.
    bed.stores.links.reserve(BatchId(7), 10).await.expect("reserved");
    tokio::time::advance(Duration::from_millis(1_100)).await;
    let new = bed.code(115);
    let hung_up = tokio::time::timeout(Duration::from_millis(100), bed.open(&new)).await;
    assert!(hung_up.is_err(), "{hung_up:?}");
    assert_eq!(bed.open(&new).await, page());
}

#[tokio::test(start_paused = true)]
async fn links_expire_and_may_have_a_fallback() {
    let day = Duration::from_secs(86_400);
    let fallback = Some("https://shop.example/".to_owned());
    for (fallback, unknown, expired) in [
        (None, Opened::Unknown, Opened::Expired),
        (
            fallback,
            Opened::Fallback { to: "https://shop.example/".into() },
            Opened::Fallback { to: "https://shop.example/".into() },
        ),
    ] {
        let bed = Bed::new(Settings { fallback, ..settings() }).await;
        tokio::time::advance(day * 89).await;
        assert_eq!(bed.open(&bed.code(100)).await, page());
        assert_eq!(bed.open(&bed.code(999)).await, unknown);
        tokio::time::advance(day).await;
        assert_eq!(bed.open(&bed.code(100)).await, expired);
    }
}

#[tokio::test(start_paused = true)]
async fn openings_are_kept_without_an_address() {
    let mut bed = Bed::new(settings()).await;
    let code = bed.code(103);
    for (method, agent) in [("GET", "Mozilla/5.0 (iPhone)"), ("HEAD", "Mozilla/5.0 (iPhone)"), ("GET", "WhatsApp/2"), ("GET", "")]
    {
        bed.redirector.resolve(&code, &visit(method, agent)).await.expect("the store answers");
    }
    bed.open(&bed.code(500)).await;
    let stop = CancellationToken::new();
    stop.cancel();
    bed.writer.take().expect("it was not used").run(stop).await;
    let scope = scope_of(BatchId(7), 103);
    let kept = bed.stores.journal.list(Stream::Click, &scope, None, 100, Direction::Forward).await.expect("listed");
    let mut whys: Vec<Option<Why>> = Vec::new();
    for entry in &kept {
        assert!(!entry.body.contains("192.0.2") && !entry.body.contains("iPhone"), "{}", entry.body);
        let click: Click = serde_json::from_str(&entry.body).expect("a click");
        assert_eq!(click.kind == Kind::Person, click.why.is_none());
        whys.push(click.why);
    }
    whys.sort();
    assert_eq!(whys, [None, Some(Why::Method), Some(Why::Agent), Some(Why::NoAgent)]);
    let all = bed.stores.journal.list(Stream::Click, "", None, 100, Direction::Forward).await.expect("listed");
    assert_eq!(all.len(), 4, "an unknown code leaves nothing");
}
