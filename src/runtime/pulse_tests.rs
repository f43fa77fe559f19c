//! Loops that stop, and loops that only wait. Time is passed by hand.

use std::sync::mpsc;

use futures::FutureExt;
use tokio::sync::oneshot;

use super::*;

const LIMIT: u64 = 120;

fn pulses() -> Pulses {
    Pulses::of_test(LIMIT)
}

fn stalled(name: &'static str, seconds: u64) -> Option<Stall> {
    Some(Stall { name, seconds })
}

/// Polls once, as the runtime would.
fn poll<F: Future>(work: &mut Watched<F>) -> bool {
    work.poll_unpin(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[test]
fn a_loop_with_a_timer_that_nothing_wakes_any_more_stands_still_and_one_that_is_woken_does_not() {
    let pulses = pulses();
    let (answer, asked) = oneshot::channel::<()>();
    let mut stuck = pulses.watch("deliverer", Turns::Always, asked);
    let mut waiting = pulses.watch("preparer", Turns::WhenWoken, std::future::pending::<()>());
    assert!(!poll(&mut stuck) && !poll(&mut waiting));
    pulses.pass(LIMIT - 1);
    assert_eq!(pulses.stall(), None);
    pulses.pass(1);
    assert_eq!(pulses.stall(), stalled("deliverer", LIMIT));
    drop(answer);
    assert_eq!(pulses.stall(), None, "it was woken: it has the limit's time to take its turn");
    assert!(poll(&mut stuck));
    pulses.pass(LIMIT);
    assert_eq!(pulses.stall(), stalled("deliverer", LIMIT));
    drop(stuck);
    assert_eq!((pulses.stall(), pulses.longest_silence()), (None, 0), "what has ended owes nothing");
}

#[test]
fn a_loop_that_was_woken_and_is_not_polled_stands_still() {
    let pulses = pulses();
    let (answer, asked) = oneshot::channel::<()>();
    let mut starved = pulses.watch("preparer", Turns::WhenWoken, asked);
    assert!(!poll(&mut starved));
    pulses.pass(10 * LIMIT);
    assert_eq!(pulses.stall(), None, "it waits");
    drop(answer);
    pulses.pass(LIMIT);
    assert_eq!(pulses.stall(), stalled("preparer", LIMIT));
    assert!(poll(&mut starved));
    assert_eq!(pulses.stall(), None);
}

#[test]
fn polls_that_a_neighbour_in_the_same_task_brings_are_no_sign() {
    let pulses = pulses();
    let mut stuck = pulses.watch("leader's jobs", Turns::Always, std::future::pending::<()>());
    for _ in 0..LIMIT {
        assert!(!poll(&mut stuck));
        pulses.pass(1);
    }
    assert_eq!(pulses.stall(), stalled("leader's jobs", LIMIT));
}

/// A server that is away: every call ends with its time-out, for hours.
#[tokio::test(start_paused = true)]
async fn a_loop_whose_calls_all_time_out_does_not_stand_still() {
    let pulses = pulses();
    let retrying = async {
        loop {
            let _ = tokio::time::timeout(Duration::from_secs(60), std::future::pending::<()>()).await;
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
    };
    let task = tokio::spawn(pulses.watch("deliverer", Turns::Always, retrying));
    for second in 0..3_600 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        pulses.pass(1);
        assert_eq!(pulses.stall(), None, "after {second} seconds");
    }
    assert!(pulses.longest_silence() > 0, "it was counted");
    task.abort();
}

/// A real runtime with one thread, and a task on it that does not come back.
#[test]
fn a_poll_that_does_not_end_is_found_with_the_runtime_that_it_holds_up() {
    let pulses = pulses();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().expect("a runtime");
    let ticking = async { while tokio::time::timeout(Duration::from_millis(1), std::future::pending::<()>()).await.is_err() {} };
    runtime.spawn(pulses.watch("runtime", Turns::Always, ticking));
    let ((begun, has_begun), (release, released)) = (mpsc::channel::<()>(), mpsc::channel::<()>());
    let blocking = runtime.spawn(pulses.watch("lane", Turns::WhenWoken, async move {
        let _ = begun.send(());
        let _ = released.recv();
    }));
    has_begun.recv().expect("it runs");
    pulses.pass(LIMIT);
    let mut silent: Vec<&str> =
        pulses.silent().into_iter().filter(|stall| stall.seconds >= LIMIT).map(|stall| stall.name).collect();
    silent.sort_unstable();
    assert_eq!(silent, ["lane", "runtime"]);
    release.send(()).expect("it waits");
    runtime.block_on(blocking).expect("it ends");
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while pulses.stall().is_some() && std::time::Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(pulses.stall(), None, "the runtime turns again");
}

#[test]
fn a_thread_may_wait_for_others_and_not_for_itself() {
    let pulses = pulses();
    let pulse = pulses.thread("store");
    pulse.waits(|| {
        pulses.pass(10 * LIMIT);
        assert_eq!(pulses.stall(), None);
    });
    assert_eq!(pulses.stall(), None, "it has come back");
    pulses.pass(LIMIT);
    assert_eq!(pulses.stall(), stalled("store", LIMIT));
    pulse.turns();
    assert_eq!(pulses.stall(), None);
}
