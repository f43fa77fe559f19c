//! Members of other processes that are frozen, wake up, and are killed: who has what, and how soon.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use smsfleet::ports::queue::QueueEvent;

use super::bed::{Bed, SESSION, assigned, nothing_comes, revoked, send, task};

/// Names the topics, in the process that is frozen.
const CHILD_OF: &str = "SMSFLEET_TEST_MEMBER_OF";

/// The other process. It is this test, told to be a member.
struct Other {
    child: Child,
    lines: Receiver<String>,
}

impl Other {
    fn start(bed: &Bed) -> Other {
        let test = "conformance::kafka::frozen::a_frozen_member_is_replaced_in_time_and_finds_out_when_it_wakes";
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", test, "--nocapture", "--test-threads", "1"])
            .env(CHILD_OF, &bed.config.topic_prefix)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let (tell, lines) = channel();
        let output = BufReader::new(child.stdout.take().expect("its output"));
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).filter(|line| line.starts_with("member ")).for_each(|line| {
                let _ = tell.send(line);
            });
        });
        Other { child, lines }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(sent.expect("it is sent").success());
    }

    async fn says(&self, what: &str) {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            match self.lines.try_recv() {
                Ok(line) => return assert_eq!(line, format!("member {what}")),
                Err(_) => assert!(Instant::now() < end, "it never says {what}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other process's life: says what it is told, and commits every token.
async fn be_a_member(bed: &Bed) {
    let kafka = bed.connect("other").await;
    let member = kafka.join_delivery().expect("it joins");
    while let Ok(event) = member.recv().await {
        match event {
            QueueEvent::Assigned(partitions) => println!("\nmember has {}", partitions.len()),
            QueueEvent::Revoked(partitions) => {
                println!("\nmember lost {}", partitions.len());
                member.released(&partitions).await;
            }
            QueueEvent::Task { partition, offset, .. } => {
                println!("\nmember got {partition} {offset}");
                member.commit(partition, offset + 1).await.expect("it is open");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_member_is_replaced_in_time_and_finds_out_when_it_wakes() {
    if let Ok(prefix) = std::env::var(CHILD_OF) {
        return be_a_member(&Bed::of(&prefix)).await;
    }
    let bed = Bed::made().await;
    let kafka = bed.connect("mine").await;
    let other = Other::start(&bed);
    other.says("has 128").await;
    send(&kafka, 8, 0..1).await;
    other.says("got 8 0").await;
    // Its commit is on its way.
    tokio::time::sleep(Duration::from_secs(1)).await;
    other.signal("-STOP");
    let stopped = Instant::now();
    let mine = kafka.join_delivery().expect("it joins");
    assigned(&mine, 128).await;
    let took = stopped.elapsed();
    println!("a frozen member was replaced after {took:?}");
    assert!(took < SESSION + Duration::from_secs(2), "{took:?}");
    send(&kafka, 8, 1..2).await;
    assert_eq!(task(&mine).await, (8, 1, 1), "behind what the frozen one committed");
    mine.commit(8, 2).await.expect("it is committed");
    nothing_comes(&mine, Duration::from_secs(2)).await;
    other.signal("-CONT");
    other.says("lost 128").await;
    let moving = revoked(&mine).await;
    mine.released(&moving).await;
    other.says("has 64").await;
    for partition in 0..128 {
        send(&kafka, partition, 9..10).await;
    }
    // Each has its half, and nobody has one of the other's.
    let mut got = BTreeSet::new();
    for _ in 0..64 {
        let (partition, _, slice) = task(&mine).await;
        assert!(slice == 9 && got.insert(partition) && !moving.contains(&partition), "{partition}");
    }
    nothing_comes(&mine, Duration::from_secs(1)).await;
    other.signal("-KILL");
    let killed = Instant::now();
    let back = assigned(&mine, 64).await;
    let took = killed.elapsed();
    println!("a killed member was replaced after {took:?}");
    assert!(took < SESSION + Duration::from_secs(2), "{took:?}");
    assert_eq!(back, moving.into_iter().collect());
    mine.leave().await;
}
