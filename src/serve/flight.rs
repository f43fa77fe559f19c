//! Bodies in flight: all that requests carry together has a bound, however many callers with a key there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;

/// Bytes of a request that are not counted: a command is taken also while others hand in much. There are as many such requests as
/// there are places for connections.
const FREE: usize = 64 << 10;

/// What the requests of one listener may hold in memory together.
pub struct Bodies {
    left: AtomicUsize,
}

impl Bodies {
    /// So many bytes.
    pub fn new(bytes: usize) -> Arc<Bodies> {
        Arc::new(Bodies { left: AtomicUsize::new(bytes) })
    }
}

/// What one request holds; it is given back with the last copy of this.
#[derive(Clone)]
pub struct Held(Arc<Share>);

struct Share {
    bodies: Arc<Bodies>,
    read: AtomicUsize,
}

impl Held {
    fn of(bodies: Arc<Bodies>) -> Held {
        Held(Arc::new(Share { bodies, read: AtomicUsize::new(0) }))
    }

    /// Takes so many more bytes, if there is room for them. A request that is told no is refused: if it waited with what it has,
    /// all of them might wait for each other.
    pub fn more(&self, bytes: usize) -> bool {
        let before = self.0.read.load(Ordering::Relaxed);
        let counted = (before + bytes).saturating_sub(FREE) - before.saturating_sub(FREE);
        let taken = self.0.bodies.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(counted));
        if taken.is_ok() {
            self.0.read.fetch_add(bytes, Ordering::Relaxed);
        }
        taken.is_ok()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let counted = self.read.load(Ordering::Relaxed).saturating_sub(FREE);
        self.bodies.left.fetch_add(counted, Ordering::Relaxed);
    }
}

/// Lets a request read its body out of what is left, and holds that until it is answered or its caller hangs up.
pub async fn bounded(bodies: Arc<Bodies>, mut request: Request, next: Next) -> Response {
    let held = Held::of(bodies);
    request.extensions_mut().insert(held.clone());
    let response = next.run(request).await;
    drop(held);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_shared_and_comes_back() {
        let bodies = Bodies::new(100);
        let (one, other) = (Held::of(bodies.clone()), Held::of(bodies.clone()));
        assert!(one.more(FREE) && one.more(60));
        assert!(other.more(FREE - 1) && !other.more(42), "one of them is free, 41 are too many");
        assert!(other.more(41) && !other.more(1));
        assert!(Held::of(bodies.clone()).more(FREE), "a small request is always taken");
        let copy = one.clone();
        drop(one);
        assert!(!other.more(1));
        drop(copy);
        assert!(other.more(60) && !other.more(1));
        drop(other);
        assert_eq!(bodies.left.load(Ordering::Relaxed), 100);
    }
}
