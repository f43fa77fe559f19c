//! The queues over Kafka: the same behaviours as in memory (`super::queue`), on a real broker and in real time.

mod bed;
mod frozen;
mod restarted;
mod secured;
mod topics;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use smsfleet::model::id::{BatchId, TaskCode};
use smsfleet::model::task::PrepareTask;
use smsfleet::model::trace::TraceParent;
use smsfleet::ports::meta::Left;
use smsfleet::ports::queue::{QueueError, QueueEvent};

use self::bed::{Bed, Queue, assigned, next, nothing_comes, revoked, send, task, token, until};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_come_in_order_and_again_from_the_committed_offset_on() {
    let bed = Bed::made().await;
    let kafka = bed.connect("first").await;
    send(&kafka, 7, 0..3).await;
    let first = kafka.join_delivery().expect("it joins");
    assigned(&first, 128).await;
    for n in 0..3 {
        assert_eq!(task(&first).await, (7, u64::from(n), n));
    }
    send(&kafka, 7, 3..4).await;
    assert_eq!(task(&first).await, (7, 3, 3));
    nothing_comes(&first, Duration::from_millis(500)).await;
    first.commit(7, 2).await.expect("it is committed");
    first.commit(7, 1).await.expect("an older commit does nothing");
    until(SOON, "the commit reaches the broker", || async { bed.committed("delivery", 128)[7] == Some(2) }).await;
    assert_eq!(kafka.lag().await.expect("the lag").by_partition[7], 2);
    first.leave().await;
    assert_eq!(first.recv().await, Err(QueueError::Closed));
    assert_eq!(first.commit(7, 4).await, Err(QueueError::Closed), "whoever is out commits nothing");
    let second = kafka.join_delivery().expect("it joins");
    assigned(&second, 128).await;
    assert_eq!([task(&second).await, task(&second).await], [(7, 2, 2), (7, 3, 3)]);
    second.commit(7, 99).await.expect("it is committed as far as there are tokens");
    second.leave().await;
    assert_eq!(bed.committed("delivery", 128)[7], Some(4), "leaving commits what is done");
    let lag = kafka.lag().await.expect("the lag");
    assert_eq!((lag.prepare, lag.delivery), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_take_turns() {
    let bed = Bed::made().await;
    let kafka = bed.connect("first").await;
    for partition in [3, 90, 120] {
        send(&kafka, partition, 0..2).await;
    }
    let member = kafka.join_delivery().expect("it joins");
    assigned(&member, 128).await;
    // All six are taken in before the first is handed out.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut order = Vec::new();
    for _ in 0..6 {
        order.push(task(&member).await.0);
    }
    assert_eq!(order, [3, 90, 120, 3, 90, 120]);
    member.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_gets_its_share_once_the_old_owner_lets_go() {
    let bed = Bed::made().await;
    let (kafka, other) = (bed.connect("first").await, bed.connect("second").await);
    let first = kafka.join_delivery().expect("it joins");
    assigned(&first, 128).await;
    let all = (0..128).flat_map(|partition| (0..3).map(move |slice| (partition, token(slice)))).collect();
    kafka.sender().send_delivery(all, None).await.expect("they are sent");
    for _ in 0..3 * 128 {
        task(&first).await;
    }
    let second = other.join_delivery().expect("it joins");
    let moving = revoked(&first).await;
    assert_eq!(moving.len(), 64, "only what moves is revoked");
    nothing_comes(&second, Duration::from_millis(300)).await;
    first.commit(moving[0], 1).await.expect("what was done before it lets go is committed");
    first.released(&moving).await;
    let at_second = assigned(&second, 64).await;
    assert_eq!(at_second, moving.iter().copied().collect());
    let mut came: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
    for _ in 0..3 * 64 - 1 {
        let (partition, offset, _) = task(&second).await;
        came.entry(partition).or_default().push(offset);
    }
    assert_eq!(came[&moving[0]], [1, 2], "from the committed offset on");
    assert!(moving[1..].iter().all(|partition| came[partition] == [0, 1, 2]), "{came:?}");
    first.commit(moving[0], 3).await.expect("too late");
    let kept = (0..128).find(|partition| !moving.contains(partition)).expect("half of them");
    first.commit(kept, 3).await.expect("the rest is still its own");
    until(SOON, "the commit of what was kept", || async { bed.committed("delivery", 128)[usize::from(kept)] == Some(3) }).await;
    assert_eq!(bed.committed("delivery", 128)[usize::from(moving[0])], Some(1), "only the owner commits");
    second.leave().await;
    assert_eq!(assigned(&first, 64).await, at_second);
    first.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_does_not_let_go_is_not_waited_for_for_ever() {
    let bed = Bed::made().await;
    let kafka = bed.connect("first").await;
    let first = kafka.join_delivery().expect("it joins");
    assigned(&first, 128).await;
    let joined = Instant::now();
    let second = kafka.join_delivery().expect("it joins");
    // The first one never even looks.
    assigned(&second, 64).await;
    let took = joined.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(6), "{took:?}");
    first.leave().await;
    second.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_member_is_given_what_another_still_has() {
    let bed = Bed::made().await;
    let kafka = bed.connect("many").await;
    let owners: Owners = Arc::default();
    let mut members: Vec<(u32, Queue, tokio::task::JoinHandle<()>)> = vec![];
    for round in 0..7 {
        match round {
            3 | 5 => {
                let (id, member, task) = members.remove(0);
                member.leave().await;
                task.await.expect("it ended well");
                // Whoever left stopped its work before.
                owners.lock().expect("the owners").retain(|_, owner| *owner != id);
            }
            _ => {
                let member = kafka.join_delivery().expect("it joins");
                let task = tokio::spawn(own(round, member.clone(), owners.clone()));
                members.push((round, member, task));
            }
        }
        let count = members.len();
        until(Duration::from_secs(30), "the partitions are spread", || async {
            let mut sizes: BTreeMap<u32, usize> = BTreeMap::new();
            owners.lock().expect("nobody owns what another has").values().for_each(|id| *sizes.entry(*id).or_default() += 1);
            let (most, least) = (sizes.values().max().copied().unwrap_or(0), sizes.values().min().copied().unwrap_or(0));
            sizes.len() == count && sizes.values().sum::<usize>() == 128 && most - least <= 1
        })
        .await;
    }
    for (id, member, task) in members {
        member.leave().await;
        task.await.expect("it ended well");
        owners.lock().expect("the owners").retain(|_, owner| *owner != id);
    }
}

type Owners = Arc<Mutex<BTreeMap<u8, u32>>>;

/// Keeps the books of one member, and takes a while to let go.
async fn own(id: u32, member: Queue, owners: Owners) {
    while let Ok(event) = member.recv().await {
        match event {
            QueueEvent::Assigned(partitions) => {
                let mut owners = owners.lock().expect("nobody owns what another has");
                for partition in partitions {
                    let before = owners.insert(partition, id);
                    assert_eq!(before, None, "{partition} is given to {id}");
                }
            }
            QueueEvent::Revoked(partitions) => {
                tokio::time::sleep(Duration::from_millis(u64::from(id) * 60)).await;
                owners.lock().expect("nobody owns what another has").retain(|partition, _| !partitions.contains(partition));
                member.released(&partitions).await;
            }
            QueueEvent::Task { .. } => panic!("nothing was sent"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_of_which_too_much_waits_is_paused_and_the_others_go_on() {
    let bed = Bed::made().await;
    let kafka = bed.connect("first").await;
    let member = kafka.join_delivery().expect("it joins");
    assigned(&member, 128).await;
    send(&kafka, 5, 0..1_500).await;
    for n in 0..1_000 {
        assert_eq!(task(&member).await, (5, u64::from(n), n));
    }
    nothing_comes(&member, Duration::from_millis(1_500)).await;
    send(&kafka, 6, 0..10).await;
    for n in 0..10 {
        assert_eq!(task(&member).await, (6, u64::from(n), n));
    }
    member.commit(5, 500).await.expect("it is committed");
    nothing_comes(&member, Duration::from_millis(1_500)).await;
    member.commit(5, 501).await.expect("it is committed");
    for n in 1_000..1_500 {
        assert_eq!(task(&member).await, (5, u64::from(n), n), "nothing is lost or comes twice");
    }
    member.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_are_over_do_not_keep_those_behind_them_while_one_before_them_lasts() {
    let bed = Bed::made().await;
    let kafka = bed.connect("first").await;
    let member = kafka.join_delivery().expect("it joins");
    assigned(&member, 128).await;
    send(&kafka, 5, 0..1).await;
    assert_eq!(task(&member).await, (5, 0, 0));
    // A lane that waits, and its token sent again and again: each is dropped as it comes, and none can be committed.
    for round in 0..3_u64 {
        let again = (0..500).map(|_| (5, token(0))).collect();
        kafka.sender().send_delivery(again, None).await.expect("they are sent");
        for n in 0..500 {
            assert_eq!(task(&member).await, (5, round * 500 + n + 1, 0));
            member.holds(5, 1);
        }
    }
    send(&kafka, 5, 7..8).await;
    assert_eq!(task(&member).await, (5, 1_501, 7), "another lane's token is read");
    assert_eq!(bed.committed("delivery", 128)[5], Some(0));
    member.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_cannot_be_read_are_passed_over_and_hold_nothing_up() {
    let bed = Bed::made().await;
    let kafka = bed.connect("first").await;
    let member = kafka.join_delivery().expect("it joins");
    assigned(&member, 128).await;
    send(&kafka, 9, 0..1).await;
    bed.write("delivery", 9, b"+8613800138000").await;
    send(&kafka, 9, 2..3).await;
    bed.write("delivery", 9, b"").await;
    bed.write("delivery", 10, &[0, 1, 2]).await;
    assert_eq!([task(&member).await, task(&member).await], [(9, 0, 0), (9, 2, 2)]);
    nothing_comes(&member, Duration::from_millis(500)).await;
    until(SOON, "a partition with nothing else is done", || async { bed.committed("delivery", 128)[10] == Some(1) }).await;
    assert_eq!(bed.committed("delivery", 128)[9], Some(0), "the token before it is not done");
    member.commit(9, 1).await.expect("it is committed");
    until(SOON, "the broken one ends with it", || async { bed.committed("delivery", 128)[9] == Some(2) }).await;
    member.commit(9, 3).await.expect("it is committed");
    until(SOON, "and so does the last", || async { kafka.lag().await.expect("the lag").delivery == 0 }).await;
    member.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trace_travels_in_the_header_of_the_standard() {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::message::{Headers, Message};
    let bed = Bed::made().await;
    let kafka = bed.connect("first").await;
    let parent = TraceParent::new(0xabc, 0xdef, true);
    kafka.sender().send_delivery(vec![(4, token(0))], parent).await.expect("it is sent");
    send(&kafka, 4, 1..2).await;
    let member = kafka.join_delivery().expect("it joins");
    assigned(&member, 128).await;
    for expected in [parent, None] {
        assert!(matches!(next(&member).await, QueueEvent::Task { trace, .. } if trace == expected));
    }
    member.leave().await;
    // As a program sees it that knows nothing of ours.
    let consumer: BaseConsumer = bed.bare().set("group.id", "bare").create().expect("a consumer");
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset(&bed.topic("delivery"), 4, rdkafka::Offset::Beginning).expect("a list");
    consumer.assign(&list).expect("it is assigned");
    let message = std::iter::repeat_with(|| consumer.poll(Duration::from_secs(1))).take(20).find_map(|polled| polled?.ok());
    let message = message.expect("a message");
    let header = message.headers().expect("headers").get(0);
    let text = b"00-00000000000000000000000000000abc-0000000000000def-01";
    assert_eq!((header.key, header.value), ("traceparent", Some(&text[..])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_of_preparation_are_spread() {
    let bed = Bed::made().await;
    let kafka = bed.connect("first").await;
    let code = TaskCode { batch: BatchId(1), number: 1 };
    let tasks = (0..32).map(|range| PrepareTask::Range { task_code: code, range }).collect();
    kafka.sender().send_prepare(tasks, None).await.expect("they are sent");
    assert_eq!(kafka.lag().await.expect("the lag").prepare, 32);
    let member = kafka.join_prepare().expect("it joins");
    let (mut ranges, mut partitions) = (BTreeSet::new(), BTreeSet::new());
    while ranges.len() < 32 {
        let event = tokio::time::timeout(Duration::from_secs(30), member.recv()).await.expect("something comes");
        match event.expect("the queue is open") {
            QueueEvent::Assigned(all) => assert_eq!(all.len(), 16),
            QueueEvent::Revoked(_) => panic!("nobody else is there"),
            QueueEvent::Task { partition, task: PrepareTask::Range { range, .. }, .. } => {
                ranges.insert(range);
                partitions.insert(partition);
            }
            QueueEvent::Task { .. } => panic!("a range task"),
        }
    }
    assert_eq!(partitions.len(), 16);
    member.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mark_is_what_was_left_last() {
    let bed = Bed::made().await;
    let (one, other) = (bed.connect("one").await, bed.connect("other").await);
    let mark = one.mark("keyspace-1");
    assert_eq!(mark.identity(), "keyspace-1");
    assert_eq!(mark.read().await, Ok(None));
    let left = |mark| Left { mark, identity: "keyspace-1".into() };
    for n in 1..20 {
        mark.write(left(n)).await.expect("it is left");
    }
    assert_eq!(other.mark("keyspace-2").read().await, Ok(Some(left(19))), "another process reads it");
    other.mark("keyspace-1").write(left(4)).await.expect("it is left");
    assert_eq!(mark.read().await, Ok(Some(left(4))), "a recovery sets it back");
    bed.write("mark", 0, b"?").await;
    assert!(mark.read().await.is_err(), "no mark is made up");
}
