//! Live counts and the write budget, between processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use smsfleet::adapters::memory::budget::BudgetedPacks;
use smsfleet::adapters::redis::budget::RedisBudget;
use smsfleet::adapters::redis::tallies::RedisTallies;
use smsfleet::model::id::BatchId;
use smsfleet::model::pack::{PackHead, PackKey, SmsDeliveryPack};
use smsfleet::model::throughput::{Load, WriteBudget};
use smsfleet::ports::StoreError;
use smsfleet::ports::budget::Budget;
use smsfleet::ports::packs::Packs;
use smsfleet::ports::tallies::{Tallies, Tally};
use smsfleet::runtime::task::Tasks;

use super::server::ask;
use super::{config, connect, until, world};
use crate::conformance::fixture::lane;
use crate::conformance::packs::pack;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_of_all_processes_add_up_and_are_forgotten_together() {
    let config = config(&crate::servers::redis());
    let tasks = Tasks::default();
    let here: Arc<dyn Tallies> = RedisTallies::new(connect(&config).await, &tasks);
    let there: Arc<dyn Tallies> = RedisTallies::new(connect(&config).await, &tasks);
    let (batch, other) = (BatchId(7), BatchId(8));
    here.increase_delivery_batch_num(batch, 5, 0);
    here.increase_prepare_batch_num(other, 9);
    assert_eq!(here.read(batch, Tally::Accepted), 5, "its own are seen at once");
    there.add(batch, Tally::Accepted, 6);
    there.add(batch, Tally::DeliveredReceipts, 1);
    there.add(other, Tally::Accepted, 100);
    let mut seen = 0;
    until("all are seen by both", || {
        let now = here.read(batch, Tally::Accepted);
        assert!(now >= seen, "a count does not go back: {seen}, then {now}");
        seen = now;
        now == 11 && there.read(batch, Tally::Accepted) == 11 && here.read(batch, Tally::DeliveredReceipts) == 1
    })
    .await;
    assert_eq!(here.read(batch, Tally::Failed), 0);
    let names = ask(&crate::servers::redis(), &["HGET", &format!("{}:statistics:{batch}", config.prefix), "delivery_batch_num"]);
    assert_eq!(names, "11", "under the original's name");
    here.clear(batch);
    until("it is forgotten", || there.read(batch, Tally::Accepted) == 0 && here.read(batch, Tally::Accepted) == 0).await;
    until("the other is not", || here.read(other, Tally::Accepted) == 100).await;
    until("prepared records are seen", || there.read(other, Tally::Prepared) == 9).await;

    here.set_running(3, 2);
    assert_eq!(here.running(), (3, 2));
    until("what the leader says", || there.running() == (3, 2)).await;
    assert!(there.has_running_prepare_step() && there.has_running_delivery_step());
    here.set_running(0, 1);
    until("what it says next", || there.running() == (0, 1)).await;
    assert!(!there.has_running_prepare_step() && there.has_running_delivery_step());
    tasks.abort_all();
}

/// A store that can be full.
struct Store(AtomicBool);

#[async_trait::async_trait]
impl Packs for Store {
    async fn put(&self, _packs: Vec<(PackKey, SmsDeliveryPack)>) -> Result<(), StoreError> {
        tokio::time::sleep(Duration::from_millis(3)).await;
        if self.0.load(Ordering::Relaxed) { Err(StoreError::Unavailable("overloaded".into())) } else { Ok(()) }
    }

    async fn head(&self, _key: PackKey) -> Result<Option<PackHead>, StoreError> {
        Ok(None)
    }

    async fn get(&self, _key: PackKey) -> Result<Option<Arc<SmsDeliveryPack>>, StoreError> {
        Ok(None)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_share_the_leaders_budget_and_tell_it_what_they_met() {
    let config = config(&crate::servers::redis());
    let (tasks, leaving) = (Tasks::default(), Tasks::default());
    let store = Arc::new(Store(AtomicBool::new(false)));
    let (one, two) = (BudgetedPacks::new(store.clone()), BudgetedPacks::new(store.clone()));
    RedisBudget::new(connect(&config).await, world(), &tasks).writer(one.clone());
    RedisBudget::new(connect(&config).await, world(), &leaving).writer(two.clone());
    let leader = RedisBudget::new(connect(&config).await, world(), &tasks).leader();
    let standby = RedisBudget::new(connect(&config).await, world(), &tasks).leader();
    let half = WriteBudget::default().share(2);
    until("half of what everything begins with", || one.current() == half && two.current() == half).await;
    leader.publish(WriteBudget { capacity: 1_000.0, packs_per_second: 600.0 });
    until("half of what is published", || one.current().packs_per_second == 300.0 && two.current() == one.current()).await;
    until("a standby knows it", || standby.current().capacity == 1_000.0).await;

    // Once the leader asks it is told; the standby, who does not ask, takes nothing away.
    leader.load();
    tokio::time::sleep(Duration::from_millis(600)).await;
    let key = |n| PackKey { lane: lane(1, 1), range: 0, attempt: 1, n };
    one.put(vec![(key(0), pack(0, 1)), (key(1), pack(1, 1))]).await.expect("it is stored");
    two.put(vec![(key(2), pack(2, 1))]).await.expect("it is stored");
    store.0.store(true, Ordering::Relaxed);
    two.put(vec![(key(3), pack(3, 1))]).await.expect_err("it is full");
    let mut met = Load::default();
    until("what both met", || {
        met.add(leader.load());
        met.packs >= 3 && met.overloads >= 1
    })
    .await;
    assert_eq!((met.packs, met.overloads), (3, 1));
    assert!(met.slowest >= Duration::from_millis(3) && met.slowest < Duration::from_secs(5) && met.over > Duration::ZERO);

    leaving.abort_all();
    until("who is left has all of it", || one.current().packs_per_second == 600.0).await;
    tasks.abort_all();
}
