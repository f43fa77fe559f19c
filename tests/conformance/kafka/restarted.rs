//! A broker that is restarted: every member finds back to its group, and soon.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smsfleet::ports::queue::{DeliveryQueue, QueueEvent};
use tokio::sync::watch;

use super::bed::{Bed, SESSION};
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
    }
    for member in members {
        member.leave().await;
    }
}
