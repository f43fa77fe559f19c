//! What a change of provider is shown to come to, on a lane made by hand.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::*;
use crate::adapters::memory::clock::SimClock;
use crate::adapters::memory::store::MemoryStore;
use crate::adapters::system::SeededChance;
use crate::model::account::{Account, Capabilities, ReceiptRules};
use crate::model::batch::{BatchRow, SealedPlan, SmsBatch};
use crate::model::code::Code;
use crate::model::id::{BatchId, LaneKey, Msisdn};
use crate::model::ledger::{Ledger, Leg};
use crate::model::order::{Named, RetryWhat};
use crate::model::pack::{LinkSpot, Manifest, ManifestPack, Message, PackKey, SmsDeliveryPack};
use crate::model::schedule::SendingHours;
use crate::model::state::StepState;
use crate::model::step::CurrentStep;
use crate::model::time::Timestamp;
use crate::model::window::{RetryEntry, RetryPack};
use crate::ports::{StoreError, Stores, World};

const BATCH: BatchId = BatchId(7);
const LANE: LaneKey = LaneKey { batch: BATCH, lane: 0 };
/// Eight in the morning, UTC.
const NOW: Timestamp = Timestamp(1_800_000_000_000);

struct Nobody;

#[async_trait::async_trait]
impl Select for Nobody {
    async fn select(&self, _: &BatchRow, _: LaneKey, _: &RetryWhat, _: u8) -> Result<Vec<Named>, StoreError> {
        Ok(vec![])
    }
}

fn message(seq: u64, body: &str, link: bool) -> Message {
    let link = link.then(|| LinkSpot { at: 0, code: "abcdefgh".into() });
    Message { number: Msisdn(100 + seq), record: seq, line: seq, body: body.into(), link, segments: 1, ucs2: false }
}

/// A paused batch with one lane: place 0 was sent, 1 is struck out, 2 has a link, 3 is long, 4 signs itself; 0 and 5 wait in a
/// retry pack, 5 with one part taken.
async fn paused(state: StepState) -> (Stores, SmsBatchService) {
    let stores = MemoryStore::new(Arc::new(SeededChance::from_seed(1))).stores();
    let asked = SmsBatch {
        batch_id: BATCH,
        content_signature: "Shop".into(),
        ext_code: "12345".into(),
        link_base: "https://s.example/".into(),
        ..SmsBatch::new("l", "c", "old")
    };
    let mut row = BatchRow::created(asked, String::new(), NOW);
    (row.current_step, row.delivery.state, row.lanes, row.sealed) =
        (CurrentStep::Delivery, state, 1, Some(SealedPlan::default()));
    let long = "x".repeat(300);
    let messages = vec![
        message(0, "short", false),
        message(1, "short", false),
        message(2, "short", true),
        message(3, &long, false),
        message(4, "【Shop】short", false),
        message(5, &long, false),
    ];
    let packs = vec![ManifestPack { range: 0, attempt: 1, n: 0, first_seq: 0, count: 6 }];
    let manifest = Manifest { packs, strikes: vec![1], ..Manifest::default() };
    let entry = |seq, parts| RetryEntry { seq, tries: 1, parts, round: 0 };
    let mut ledger = Ledger { len: 6, ..Ledger::sealed(5) };
    ledger.legs[0].declared = 1;
    ledger.legs.push(Leg::new(9, 2, NOW));
    stores.batches.insert(BATCH, &row, 1).await.expect("a batch");
    stores.ledgers.insert(LANE, &ledger, 1).await.expect("a ledger");
    stores.manifests.put(LANE, &manifest).await.expect("a manifest");
    stores
        .packs
        .put(vec![(PackKey { lane: LANE, range: 0, attempt: 1, n: 0 }, SmsDeliveryPack { messages })])
        .await
        .expect("a pack");
    let pack = RetryPack { entries: vec![entry(0, 0), entry(5, 0b10)] };
    stores.windows.put_retry(LANE, 9, &pack).await.expect("a retry pack");
    let world = World { clock: Arc::new(SimClock::new(NOW)), chance: Arc::new(SeededChance::from_seed(2)) };
    let service = SmsBatchService::new(stores.clone(), world, Arc::new(Notify::new()), Arc::new(Nobody));
    (stores, service)
}

fn offer(name: &str, provider_type: &str, price: f64, currency: &str, capabilities: Capabilities) -> Offer {
    let account = Account {
        name: name.into(),
        provider_type: provider_type.into(),
        rate: Some(10),
        capabilities,
        receipts: ReceiptRules::default(),
        price: Some(price),
        currency: currency.into(),
        hours: None,
        answer_timeout: Duration::from_secs(1),
        opt_out: Default::default(),
        sender: String::new(),
    };
    Offer { account, rate: None }
}

/// The old type signs here; of the new one's accounts one signs itself and takes little, the other is as the old.
fn offers() -> Vec<Offer> {
    let little = Capabilities { add_signature: false, links: false, ext_code_max: 5, parts_max: 1, ..Capabilities::default() };
    let mut night = offer("night", "new", 0.1, "EUR", Capabilities::default());
    night.account.hours = Some(SendingHours { from: 22 * 60, to: 6 * 60, zone: "UTC".into() });
    night.rate = Some(5.0);
    vec![offer("old", "old", 0.1, "EUR", Capabilities::default()), offer("little", "new", 2.0, "USD", little), night]
}

#[tokio::test]
async fn a_plan_counts_what_is_left_and_says_what_stands_against_it() {
    let (_, service) = paused(StepState::Paused).await;
    let plan = service.plan_change(BATCH, "new", &offers()).await.expect("a plan");
    let counts = plan.counts.expect("it is sealed");
    // Places 2, 3 and 4 of the manifest, 0 and 5 of the retry pack. With a signature all are UCS-2: 1 + 5 + 1 + 1, and one
    // part of 5.
    assert_eq!((counts.unsent, counts.now.segments, counts.then.segments), (5, 9, 9));
    assert_eq!(counts.now.price, [Price { currency: "EUR".into(), amount: 0.9 }]);
    // The little account takes the two short ones only.
    let amounts: Vec<_> = counts.then.price.iter().map(|price| (price.currency.as_str(), price.amount)).collect();
    assert_eq!(amounts, [("EUR", 0.9), ("USD", 4.0)]);
    assert_eq!((plan.rate, counts.eta_seconds), (15.0, Some(9.0 / 15.0)));
    let found: Vec<_> = plan.conflicts.iter().map(|found| (found.account.as_str(), found.kind, found.recipients)).collect();
    use ConflictKind::{Hours, Links, Parts, Signature};
    assert_eq!(
        found,
        [
            ("little", Signature, Some(5)),
            ("little", Signature, Some(1)),
            ("little", Links, Some(1)),
            ("little", Parts, Some(2)),
            ("little", Parts, Some(1)),
            ("night", Parts, Some(1)),
            ("night", Hours, Some(5)),
        ]
    );
}

#[tokio::test]
async fn a_long_ext_code_stands_against_everybody() {
    let (_, service) = paused(StepState::Paused).await;
    let short = vec![offer("short", "new", 1.0, "EUR", Capabilities { ext_code_max: 4, ..Capabilities::default() })];
    let plan = service.plan_change(BATCH, "new", &short).await.expect("a plan");
    assert_eq!((plan.conflicts[0].kind, plan.conflicts[0].recipients), (ConflictKind::ExtCode, Some(5)));
    assert!(!plan.conflicts.iter().any(|found| found.kind == ConflictKind::Parts && found.recipients != Some(1)));
}

#[tokio::test]
async fn any_change_of_what_is_left_is_another_plan() {
    let (stores, service) = paused(StepState::Ready).await;
    let hash = service.plan_change(BATCH, "new", &offers()).await.expect("a plan").plan_hash;
    let mut ledger = stores.ledgers.load(LANE).await.expect("read").expect("there");
    ledger.row.legs[0].declared = 2;
    stores.ledgers.replace(LANE, ledger.version, &ledger.row, 5).await.expect("written");
    let refused = service.change_provider(BATCH, "new", &hash, &offers(), "o").await.expect_err("more was declared");
    let now = service.plan_change(BATCH, "new", &offers()).await.expect("a plan").plan_hash;
    assert!(refused.code == Code::PlanChanged && refused.context.ends_with(&now), "{refused}");
    service.change_provider(BATCH, "new", &now, &offers(), "o").await.expect("changed");
    let changed = stores.ledgers.load(LANE).await.expect("read").expect("there").row;
    assert_eq!((changed.legs[0].foreign, changed.legs[1].foreign, changed.task_number), (false, true, 1));
}
