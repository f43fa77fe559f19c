//! Saying the same thing again only after a while: a server that is away for an hour is one line a minute, not five a second.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long nothing is said again.
const EVERY: Duration = Duration::from_secs(30);

/// When something was last said.
#[derive(Debug, Default)]
pub struct Calm(Mutex<Option<Instant>>);

impl Calm {
    /// Whether it is said now: the first time, and then once in a while.
    pub fn speaks(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let speaks = last.is_none_or(|last| now.saturating_duration_since(last) >= EVERY);
        if speaks {
            *last = Some(now);
        }
        speaks
    }

    /// It is over: the next time it is said at once.
    pub fn is_over(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_trouble_is_told_once_in_a_while_and_a_new_one_at_once() {
        let calm = Calm::default();
        let mut told = 0;
        for _ in 0..300 {
            told += u32::from(calm.speaks());
            tokio::time::advance(Duration::from_millis(200)).await;
        }
        assert_eq!(told, 2, "in a minute");
        calm.is_over();
        assert!(calm.speaks() && !calm.speaks());
    }
}
