//! Panics of whatever a run spawned: a task's panic ends the task and nobody hears of it, so it is noted where it happens.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static FIRST: RefCell<Option<String>> = const { RefCell::new(None) };
}

static LISTENING: Once = Once::new();

/// From here on panics of this thread are noted: a run has one thread.
pub fn begin() {
    LISTENING.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            FIRST.with(|first| first.borrow_mut().get_or_insert_with(|| panic.to_string()).len());
            before(panic);
        }));
    });
    FIRST.with(|first| first.take());
}

/// That nothing panicked since, or what did.
pub fn none() -> Result<(), String> {
    FIRST.with(|first| first.borrow().clone()).map_or(Ok(()), |panic| Err(format!("something panicked: {panic}")))
}
