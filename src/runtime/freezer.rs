//! SIGSTOP for a simulated process: while it is frozen none of its tasks is polled, and what happens meanwhile they find when they
//! wake: answers, timers that are over, a lease that is lost.
//!
//! Only `tests/simulation` freezes. Whoever spawns outside [`Freezer::within`], as every real process does, pays one look at a
//! variable of the thread.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

thread_local! {
    static CURRENT: RefCell<Option<Freezer>> = const { RefCell::new(None) };
}

/// A process that can be frozen: the tasks that were spawned [within](Freezer::within) it, and all that these spawn.
#[derive(Clone, Default)]
pub struct Freezer(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    is_frozen: bool,
    /// Tasks that would have gone on, in the order in which they would.
    waiting: Vec<Waker>,
}

impl Freezer {
    /// Runs something of the process: what it spawns belongs to it.
    pub fn within<T>(&self, run: impl FnOnce() -> T) -> T {
        let _back = Back(CURRENT.replace(Some(self.clone())));
        run()
    }

    /// From here on no task of the process goes on.
    pub fn freeze(&self) {
        self.state(|state| state.is_frozen = true);
    }

    /// The tasks go on, in the order in which they would have.
    pub fn wake(&self) {
        let waiting = self.state(|state| {
            state.is_frozen = false;
            std::mem::take(&mut state.waiting)
        });
        waiting.into_iter().for_each(Waker::wake);
    }

    /// The process that is running in this thread, if it is one that can be frozen.
    pub(super) fn current() -> Option<Freezer> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// A future that belongs to the process.
    pub(super) fn hold<T>(self, future: Pin<Box<dyn Future<Output = T> + Send>>) -> Held<T> {
        Held { freezer: self, future }
    }

    fn state<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the process stands; then the task is woken with it.
    fn stands(&self, ctx: &Context<'_>) -> bool {
        self.state(|state| {
            if state.is_frozen && !state.waiting.iter().any(|waker| waker.will_wake(ctx.waker())) {
                state.waiting.push(ctx.waker().clone());
            }
            state.is_frozen
        })
    }
}

/// The process that ran before, put back.
struct Back(Option<Freezer>);

impl Drop for Back {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

/// See [`Freezer::hold`].
pub(super) struct Held<T> {
    freezer: Freezer,
    future: Pin<Box<dyn Future<Output = T> + Send>>,
}

impl<T> Future for Held<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<T> {
        let Held { freezer, future } = &mut *self;
        if freezer.stands(ctx) { Poll::Pending } else { freezer.within(|| future.as_mut().poll(ctx)) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::runtime::task::spawn;

    #[tokio::test(start_paused = true)]
    async fn a_frozen_process_does_nothing_and_goes_on_where_it_stood() {
        let (freezer, ticks) = (Freezer::default(), Arc::new(AtomicU64::new(0)));
        let count = |ticks: &Arc<AtomicU64>| {
            let ticks = ticks.clone();
            async move {
                for _ in 0..4 {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    ticks.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let (child, other) = (count(&ticks), Arc::new(AtomicU64::new(0)));
        // What it spawns is its own too.
        let parent = freezer.within(|| spawn("parent", async move { spawn("child", child).await }));
        let outside = spawn("outside", count(&other));

        tokio::time::sleep(Duration::from_millis(1_500)).await;
        freezer.freeze();
        outside.await.expect("it ends");
        assert_eq!((ticks.load(Ordering::Relaxed), other.load(Ordering::Relaxed)), (1, 4));
        freezer.wake();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(ticks.load(Ordering::Relaxed), 2, "its timer was over");
        parent.await.expect("it ends").expect("its child ends");
        assert_eq!(ticks.load(Ordering::Relaxed), 4);
    }
}
