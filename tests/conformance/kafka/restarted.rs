//! A broker that is restarted: every member finds back to its group, and soon.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smsfleet::ports::queue::{DeliveryQueue, QueueEvent};
use tokio::sync::watch;

use super::bed::{Bed, SESSION, assigned, send, task};
use crate::servers::Own;

/// Members of the group.
const MEMBERS: usize = 8;
/// Restarts of the broker.
const RESTARTS: usize = 2;
/// A session of six seconds has to end, and two rounds of the group's have to be gone through. Who looks for its topic again only
/// when the client library does so by itself is not back for five minutes.
const BACK_WITHIN: Duration = Duration::from_secs(90);

/// Follows a member: how many partitions it has.
fn follow(member: Arc<DeliveryQueue>) -> watch::Receiver<usize> {
    let (tell, held) = watch::channel(0);
    tokio::spawn(async move {
        while let Ok(event) = member.recv().await {
            match event {
                QueueEvent::Assigned(partitions) => tell.send_modify(|held| *held += partitions.len()),
                QueueEvent::Revoked(partitions) => {
                    tell.send_modify(|held| *held -= partitions.len());
                    member.released(&partitions).await;
                }
                QueueEvent::Task { .. } => {}
            }
        }
    });
    held
}

async fn until_shared(held: &[watch::Receiver<usize>]) -> Duration {
    let begun = Instant::now();
    loop {
        let shares: Vec<usize> = held.iter().map(|held| *held.borrow()).collect();
        if shares.iter().all(|share| *share == 128 / MEMBERS) {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < BACK_WITHIN, "some have not found back: {shares:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_has_its_share_again_after_the_broker_was_restarted() {
    let servers = Own::start(&["kafka"]);
    let bed = Bed::made_at(&servers.address("SMSFLEET_TEST_KAFKA")).await;
    let (mut connections, mut members, mut held) = (vec![], vec![], vec![]);
    for n in 0..MEMBERS {
        let kafka = bed.connect(&format!("member{n}")).await;
        let member = kafka.join_delivery().expect("it joins");
        held.push(follow(member.clone()));
        members.push(member);
        connections.push(kafka);
    }
    until_shared(&held).await;
    for restart in 0..RESTARTS {
        tokio::task::block_in_place(|| servers.restart("kafka", 2 * SESSION));
        println!("restart {restart}: everybody has a share again after another {:?}", until_shared(&held).await);
        // By these names a member that the client library forgot would learn that it is not among them.
        let named: BTreeSet<String> = (0..MEMBERS).map(|n| format!("member{n}")).collect();
        assert_eq!(bed.members("delivery"), named);
    }
    for member in members {
        member.leave().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_was_paused_when_it_was_lost_is_read_again_when_it_comes_back() {
    let servers = Own::start(&["kafka"]);
    let bed = Bed::made_at(&servers.address("SMSFLEET_TEST_KAFKA")).await;
    let kafka = bed.connect("first").await;
    let member = kafka.join_delivery().expect("it joins");
    assigned(&member, 128).await;
    send(&kafka, 5, 0..1_500).await;
    for n in 0..1_000 {
        assert_eq!(task(&member).await, (5, u64::from(n), n));
    }
    // Nothing was committed: the partition is paused. Its session ends while the broker is away.
    tokio::task::block_in_place(|| servers.restart("kafka", 2 * SESSION));
    let (mut lost, mut back, mut offsets) = (0, 0, vec![]);
    let until = tokio::time::Instant::now() + BACK_WITHIN;
    while offsets.len() < 1_000 {
        let event = tokio::time::timeout_at(until, member.recv()).await;
        let event = event.unwrap_or_else(|_| panic!("lost {lost}, back {back}, and then {} tokens", offsets.len()));
        match event.expect("the queue is open") {
            QueueEvent::Revoked(partitions) => {
                lost += partitions.len();
                member.released(&partitions).await;
            }
            QueueEvent::Assigned(partitions) => back += partitions.len(),
            QueueEvent::Task { partition, offset, .. } => {
                assert_eq!(partition, 5);
                offsets.push(offset);
            }
        }
    }
    assert_eq!((lost, back), (128, 128), "the session ended");
    assert_eq!(offsets, (0..1_000).collect::<Vec<u64>>(), "from the committed offset on");
    member.leave().await;
}
