//! Messages of people over a store in memory: whom they answer, what they do, and what a repeat does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::campaigns::Campaigns;
use super::inbox::{self, InboxFilter};
use super::opt_out::{self, OptOut, Origin};
use crate::adapters::memory::clock::SimClock;
use crate::adapters::memory::store::MemoryStore;
use crate::adapters::system::SeededChance;
use crate::model::account::Account;
use crate::model::batch::{BatchRow, SmsBatch};
use crate::model::id::{BatchId, LaneKey, Msisdn};
use crate::model::inbound::{Inbound, Intent};
use crate::model::pack::{Manifest, ManifestPack, Message, PackKey, SmsDeliveryPack};
use crate::model::time::Timestamp;
use crate::ports::provider::{Chunk, Health, Provider, Route, Routes};
use crate::ports::{Stores, World};

const START: Timestamp = Timestamp(1_700_000_000_000);
const NUMBER: u64 = 8_613_800_138_000;

/// An account that takes nothing.
pub(super) struct Nobody;

#[async_trait::async_trait]
impl Provider for Nobody {
    async fn submit(&self, chunk: Chunk) -> Result<(), Chunk> {
        Err(chunk)
    }
    fn health(&self) -> Health {
        Health::default()
    }
    fn window(&self) -> u32 {
        1
    }
    async fn close(&self, _: Duration) {}
}

struct Bed {
    stores: Stores,
    world: World,
    routes: Routes,
    campaigns: Campaigns,
}

impl Bed {
    fn new() -> Bed {
        let chance = Arc::new(SeededChance::from_seed(1));
        let stores = MemoryStore::new(chance.clone()).stores();
        let world = World { clock: Arc::new(SimClock::new(START)), chance };
        let mut account: Account = crate::roles::config::AccountConfig::default().account("main");
        (account.sender, account.provider_type) = ("10690001".into(), "smpp".into());
        let routes: BTreeMap<String, Route> = [("main".into(), Route { account, provider: Arc::new(Nobody) })].into();
        Bed { stores, world, routes: Arc::new(routes), campaigns: Campaigns::default() }
    }

    /// A batch of one lane that was sent to `numbers`.
    async fn batch(&self, id: u128, created: i64, change: impl FnOnce(&mut SmsBatch), numbers: &[u64]) {
        let mut batch = SmsBatch { batch_id: BatchId(id), ..crate::model::batch::tests::batch() };
        batch.campaign_id = format!("c{id}");
        change(&mut batch);
        let mut row = BatchRow::created(
            batch,
            String::new(),
            START.minus(Duration::from_secs(1_000)).plus(Duration::from_secs(created as u64)),
        );
        row.lanes = 1;
        row.delivery.started = Some(START);
        self.stores.batches.insert(BatchId(id), &row, 1).await.expect("inserted");
        let lane = LaneKey { batch: BatchId(id), lane: 0 };
        let message = |number: &u64| Message {
            number: Msisdn(*number),
            record: 0,
            line: 1,
            body: "x".into(),
            link: None,
            segments: 1,
            ucs2: false,
        };
        let pack = SmsDeliveryPack { messages: numbers.iter().map(message).collect() };
        self.stores.packs.put(vec![(PackKey { lane, range: 0, attempt: 1, n: 0 }, pack)]).await.expect("put");
        let pack = ManifestPack { range: 0, attempt: 1, n: 0, first_seq: 0, count: numbers.len() as u32 };
        self.stores.manifests.put(lane, &Manifest { packs: vec![pack], ..Manifest::default() }).await.expect("put");
    }

    async fn take_in(&self, messages: &[Inbound]) {
        let messages: Vec<(&str, &Inbound)> = messages.iter().map(|message| ("main", message)).collect();
        inbox::take_in(&self.stores, &self.world, &self.routes, &self.campaigns, None, &messages).await.expect("it is stored");
    }

    async fn suppressed(&self, number: u64) -> bool {
        self.stores.suppressions.check(&[Msisdn(number)]).await.expect("checked")[0]
    }
}

fn message(from: u64, to: &str, text: &str, id: &str, after: u64) -> Inbound {
    let received = START.plus(Duration::from_secs(after));
    Inbound { from: format!("+{from}"), to: to.into(), text: text.into(), id: id.into(), received }
}

#[tokio::test]
async fn a_message_answers_the_newest_batch_that_was_sent_to_its_number() {
    let bed = Bed::new();
    bed.batch(1, 1, |batch| batch.ext_code = "007".into(), &[NUMBER, NUMBER + 1]).await;
    bed.batch(2, 2, |batch| batch.ext_code = "007".into(), &[NUMBER]).await;
    bed.batch(3, 3, |batch| batch.ext_code = "007".into(), &[NUMBER + 5]).await;
    bed.batch(4, 4, |batch| batch.ext_code = "7".into(), &[NUMBER]).await;
    bed.batch(5, 5, |batch| (batch.ext_code, batch.provider_type) = ("007".into(), "other".into()), &[NUMBER]).await;
    bed.batch(6, 6, |batch| batch.ext_code.clear(), &[NUMBER]).await;
    let cases = [
        (NUMBER, "10690001007", Some(2)),
        (NUMBER + 1, "10690001007", Some(1)),
        (NUMBER + 9, "10690001007", Some(3)),
        (NUMBER, "106900017", Some(4)),
        (NUMBER, "10690001", Some(6)),
        (NUMBER, "10690001999", None),
        (NUMBER, "95555007", Some(2)),
        (NUMBER + 1, "", Some(1)),
    ];
    for (after, (from, to, expected)) in cases.into_iter().enumerate() {
        bed.take_in(&[message(from, to, "hello", &after.to_string(), after as u64)]).await;
        let page = inbox::list(&bed.stores, &InboxFilter::default(), None, 1).await.expect("listed");
        let (_, row) = &page.rows[0];
        assert_eq!(row.batch, expected.map(BatchId), "{} to {to:?}", from - NUMBER);
        assert_eq!(row.campaign_id, expected.map_or(String::new(), |id: u128| format!("c{id}")));
    }
}

#[tokio::test]
async fn what_a_person_writes_is_never_given_to_a_tenant_by_guess() {
    let of = |tenant: &'static str, code: &'static str| {
        move |batch: &mut SmsBatch| (batch.tenant, batch.ext_code) = (tenant.into(), code.into())
    };
    let bed = Bed::new();
    // Both send under 007, acme alone under 008; under 009 other has a batch that was not sent.
    bed.batch(1, 1, of("acme", "007"), &[NUMBER]).await;
    bed.batch(2, 2, of("other", "007"), &[NUMBER + 1]).await;
    bed.batch(3, 3, of("acme", "008"), &[NUMBER]).await;
    bed.batch(4, 4, of("acme", "009"), &[NUMBER]).await;
    bed.batch(5, 5, of("other", "009"), &[NUMBER + 1]).await;
    let mut unsent = bed.stores.batches.load(BatchId(5)).await.expect("loaded").expect("there");
    unsent.row.delivery.started = None;
    let changed = bed.stores.batches.replace(BatchId(5), unsent.version, &unsent.row, 2).await;
    assert_eq!(changed, Ok(crate::ports::control::Cas::Applied));
    let cases = [
        (NUMBER, "10690001007", Some((1, "acme"))),
        (NUMBER + 1, "10690001007", Some((2, "other"))),
        (NUMBER + 9, "10690001007", None),
        (NUMBER + 9, "10690001008", Some((3, "acme"))),
        (NUMBER, "10690001009", Some((4, "acme"))),
        (NUMBER + 9, "10690001009", None),
        (NUMBER, "", Some((4, "acme"))),
        (NUMBER + 9, "", None),
    ];
    for (after, (from, to, expected)) in cases.into_iter().enumerate() {
        bed.take_in(&[message(from, to, "hello", &after.to_string(), after as u64)]).await;
        let page = inbox::list(&bed.stores, &InboxFilter::default(), None, 1).await.expect("listed");
        let (_, row) = &page.rows[0];
        let answers = row.batch.zip(row.tenant.as_deref());
        assert_eq!(answers, expected.map(|(id, tenant)| (BatchId(id), tenant)), "{} to {to:?}", from - NUMBER);
    }
}

#[tokio::test]
async fn the_last_word_counts_and_a_repeat_says_nothing() {
    let bed = Bed::new();
    bed.batch(1, 1, |batch| batch.ext_code = "007".into(), &[NUMBER]).await;
    let to = "10690001007";
    bed.take_in(&[message(NUMBER, to, "STOP", "a", 0)]).await;
    assert!(bed.suppressed(NUMBER).await);
    let why = opt_out::check(&bed.stores, &[Msisdn(NUMBER)]).await.expect("checked").remove(0).why.expect("a reason");
    assert_eq!((why.origin, why.since, why.batch, why.campaign_id.as_str()), (Origin::Person, START, Some(BatchId(1)), "c1"));
    bed.take_in(&[message(NUMBER, to, "start", "b", 1)]).await;
    assert!(!bed.suppressed(NUMBER).await);
    assert_eq!(bed.stores.documents.get(crate::ports::documents::Shelf::OptOut, &NUMBER.to_string()).await, Ok(None));
    // The same id again, also on the next day, is the old message.
    bed.take_in(&[message(NUMBER, to, "STOP", "a", 60), message(NUMBER, to, "STOP", "a", 80_000)]).await;
    assert!(!bed.suppressed(NUMBER).await);
    // Without an id every message is one of its own; within one intake the order counts.
    bed.take_in(&[
        message(NUMBER, to, "STOP", "", 61),
        message(NUMBER, to, "START", "", 62),
        message(NUMBER, to, "STOP", "", 63),
    ])
    .await;
    assert!(bed.suppressed(NUMBER).await);
    bed.take_in(&[message(NUMBER, to, "Why do I get this?", "c", 64)]).await;
    assert!(bed.suppressed(NUMBER).await, "other words change nothing");
    let rows = inbox::list(&bed.stores, &InboxFilter::default(), None, 100).await.expect("listed").rows;
    let texts: Vec<&str> = rows.iter().map(|(_, row)| row.text.as_str()).collect();
    assert_eq!(texts, ["Why do I get this?", "STOP", "START", "STOP", "start", "STOP"], "newest first, repeats once");
    let only = InboxFilter { intent: Some(Intent::OptIn), number: Some(Msisdn(NUMBER)), ..InboxFilter::default() };
    let first = inbox::list(&bed.stores, &only, None, 1).await.expect("listed");
    assert_eq!((first.rows.len(), first.rows[0].1.text.as_str()), (1, "START"));
    let second = inbox::list(&bed.stores, &only, first.next, 1).await.expect("listed");
    assert_eq!((second.rows.len(), second.rows[0].1.text.as_str()), (1, "start"));
}

#[tokio::test]
async fn reasons_stay_with_their_numbers() {
    let bed = Bed::new();
    let why = |note: &str| OptOut {
        origin: Origin::Operator,
        since: START,
        account: None,
        batch: None,
        tenant: None,
        campaign_id: String::new(),
        note: note.into(),
    };
    opt_out::suppress(&bed.stores, &[(Msisdn(1), why("first"))]).await.expect("stored");
    opt_out::suppress(&bed.stores, &[(Msisdn(1), why("second"))]).await.expect("stored");
    opt_out::suppress_all(&bed.stores, &[Msisdn(2)]).await.expect("stored");
    let seen = opt_out::check(&bed.stores, &[Msisdn(1), Msisdn(2), Msisdn(3)]).await.expect("checked");
    let seen: Vec<(bool, Option<String>)> = seen.into_iter().map(|one| (one.suppressed, one.why.map(|why| why.note))).collect();
    assert_eq!(seen, [(true, Some("first".into())), (true, None), (false, None)]);
    opt_out::release(&bed.stores, &[Msisdn(1), Msisdn(2)]).await.expect("stored");
    opt_out::suppress_all(&bed.stores, &[Msisdn(1)]).await.expect("stored");
    let again = opt_out::check(&bed.stores, &[Msisdn(1)]).await.expect("checked").remove(0);
    assert_eq!((again.suppressed, again.why), (true, None), "an old reason does not come back");
}
