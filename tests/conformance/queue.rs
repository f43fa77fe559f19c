//! The queues: order, redelivery, and partitions that move between members.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use smsfleet::adapters::memory::queue::{MemberQueue, MemoryBroker};
use smsfleet::model::id::{BatchId, TaskCode};
use smsfleet::model::task::{PrepareTask, SmsBatchPartitionTask, TaskStatus};
use smsfleet::ports::queue::{QueueError, QueueEvent, TaskQueue};

type Member = Arc<MemberQueue<SmsBatchPartitionTask>>;

fn token(slice: u32) -> SmsBatchPartitionTask {
    SmsBatchPartitionTask {
        batch_primary_key: BatchId(1),
        partition_key: 0,
        slice,
        task_code: TaskCode { batch: BatchId(1), number: 1 },
        status: TaskStatus::Queued,
    }
}

async fn send(broker: &MemoryBroker, partition: u8, slices: std::ops::Range<u32>) {
    let tasks = slices.map(|slice| (partition, token(slice))).collect();
    broker.sender().send_delivery(tasks, None).await.expect("they are sent");
}

async fn next(member: &Member) -> QueueEvent<SmsBatchPartitionTask> {
    let event = tokio::time::timeout(Duration::from_secs(60), member.recv()).await;
    event.expect("something comes").expect("the queue is open")
}

async fn assigned(member: &Member) -> BTreeSet<u8> {
    match next(member).await {
        QueueEvent::Assigned(partitions) => partitions.into_iter().collect(),
        other => panic!("{other:?} instead of an assignment"),
    }
}

async fn revoked(member: &Member) -> Vec<u8> {
    match next(member).await {
        QueueEvent::Revoked(partitions) => partitions,
        other => panic!("{other:?} instead of a revocation"),
    }
}

async fn task(member: &Member) -> (u8, u64, u32) {
    match next(member).await {
        QueueEvent::Task { partition, offset, task, .. } => (partition, offset, task.slice),
        other => panic!("{other:?} instead of a token"),
    }
}

async fn nothing_comes(member: &Member) {
    // Less than the time after which partitions are taken away.
    assert!(tokio::time::timeout(Duration::from_secs(1), member.recv()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn tokens_of_a_partition_come_in_order_and_again_after_a_crash() {
    let broker = MemoryBroker::new();
    send(&broker, 7, 0..3).await;
    let first = broker.join_delivery();
    assert_eq!(assigned(&first).await.len(), 128);
    for n in 0..3 {
        assert_eq!(task(&first).await, (7, u64::from(n), n));
    }
    send(&broker, 7, 3..4).await;
    assert_eq!(task(&first).await, (7, 3, 3));
    nothing_comes(&first).await;
    first.commit(7, 2).await.expect("it is committed");
    first.commit(7, 1).await.expect("an older commit does nothing");
    assert_eq!((broker.committed()[7], broker.lag()), (2, (0, 2)));
    let second = broker.join_delivery();
    broker.expel(first.member());
    assert_eq!(first.recv().await, Err(QueueError::Closed));
    assert_eq!(first.commit(7, 4).await, Err(QueueError::Closed), "whoever is out commits nothing");
    assert_eq!(assigned(&second).await.len(), 128);
    assert_eq!((task(&second).await, task(&second).await), ((7, 2, 2), (7, 3, 3)), "from the committed offset on");
    second.commit(7, 99).await.expect("it is committed as far as there are tokens");
    assert_eq!((broker.committed()[7], broker.lag()), (4, (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn partitions_take_turns() {
    let broker = MemoryBroker::new();
    for partition in [3, 90, 120] {
        send(&broker, partition, 0..2).await;
    }
    let member = broker.join_delivery();
    assigned(&member).await;
    let mut order = Vec::new();
    for _ in 0..6 {
        order.push(task(&member).await.0);
    }
    assert_eq!(order, [3, 90, 120, 3, 90, 120]);
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_gets_its_share_once_the_old_owner_lets_go() {
    let broker = MemoryBroker::new();
    let first = broker.join_delivery();
    assigned(&first).await;
    let second = broker.join_delivery();
    let moving = revoked(&first).await;
    assert_eq!(moving.len(), 64, "only what moves is revoked");
    let (kept, moved) = (0, moving[0]);
    assert!(!moving.contains(&kept));
    send(&broker, kept, 0..1).await;
    send(&broker, moved, 0..3).await;
    assert_eq!(task(&first).await, (kept, 0, 0), "the rest goes on meanwhile");
    nothing_comes(&second).await;
    first.commit(moved, 1).await.expect("what was done before it lets go is committed");
    first.released(&moving).await;
    assert_eq!(assigned(&second).await, moving.iter().copied().collect());
    assert_eq!(task(&second).await, (moved, 1, 1));
    first.commit(moved, 3).await.expect("too late");
    assert_eq!(broker.committed()[usize::from(moved)], 1, "only the owner commits");
    second.leave().await;
    assert_eq!(second.recv().await, Err(QueueError::Closed));
    assert_eq!(assigned(&first).await, moving.iter().copied().collect());
    assert_eq!(task(&first).await, (moved, 1, 1), "what the other did not commit comes again");
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_does_not_let_go_is_not_waited_for_for_ever() {
    let broker = MemoryBroker::new();
    let first = broker.join_delivery();
    assigned(&first).await;
    let second = broker.join_delivery();
    // The first one is frozen: it never even hears of it.
    assert_eq!(assigned(&second).await.len(), 64);
    let third = broker.join_delivery();
    drop(first);
    assert_eq!(revoked(&second).await.len(), 21, "a third of what it had");
    drop(second);
    let mut owned = BTreeSet::new();
    while owned.len() < 128 {
        owned.extend(assigned(&third).await);
    }
}

#[tokio::test(start_paused = true)]
async fn no_member_is_given_what_another_still_has() {
    let broker = MemoryBroker::new();
    let mut members: Vec<(Member, BTreeSet<u8>)> = Vec::new();
    for round in 0..12 {
        match round {
            5 | 8 => drop(members.remove(0)),
            9 => members.remove(1).0.leave().await,
            _ => members.push((broker.join_delivery(), BTreeSet::new())),
        }
        let mut moved = true;
        while moved {
            moved = false;
            for (member, owned) in &mut members {
                while let Ok(event) = tokio::time::timeout(Duration::from_millis(1), member.recv()).await {
                    moved = true;
                    match event.expect("it is open") {
                        QueueEvent::Assigned(partitions) => owned.extend(partitions),
                        QueueEvent::Revoked(partitions) => {
                            owned.retain(|owned| !partitions.contains(owned));
                            member.released(&partitions).await;
                        }
                        QueueEvent::Task { .. } => panic!("nothing was sent"),
                    }
                }
            }
            let mut seen = BTreeSet::new();
            for (_, owned) in &members {
                assert!(owned.iter().all(|partition| seen.insert(*partition)), "round {round}: owned twice");
            }
        }
        let sizes: Vec<usize> = members.iter().map(|(_, owned)| owned.len()).collect();
        assert_eq!(sizes.iter().sum::<usize>(), 128, "round {round}");
        assert!(sizes.iter().max().zip(sizes.iter().min()).is_some_and(|(most, least)| most - least <= 1), "{sizes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn tasks_of_preparation_are_spread_and_nothing_is_lost_with_the_broker_alone() {
    let broker = MemoryBroker::new();
    let member = broker.join_prepare();
    let code = TaskCode { batch: BatchId(1), number: 1 };
    let tasks = (0..32).map(|range| PrepareTask::Range { task_code: code, range }).collect();
    broker.sender().send_prepare(tasks, None).await.expect("they are sent");
    assert!(matches!(member.recv().await, Ok(QueueEvent::Assigned(all)) if all.len() == 16));
    let (mut ranges, mut partitions) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..32 {
        let Ok(QueueEvent::Task { partition, task: PrepareTask::Range { range, .. }, .. }) = member.recv().await else {
            panic!("a range task");
        };
        ranges.insert(range);
        partitions.insert(partition);
    }
    assert_eq!((ranges.len(), partitions.len()), (32, 16));
    broker.lose_all();
    assert_eq!(broker.lag(), (0, 0));
    broker.sender().send_prepare(vec![PrepareTask::Seal { task_code: code, from: 0, to: 1 }], None).await.expect("it is sent");
    assert!(matches!(member.recv().await, Ok(QueueEvent::Task { offset: 2, .. })), "offsets go on");
}
