//! An account whose sessions are in other processes: what a coordinator, a preparer or a gateway knows of it.

use std::time::Duration;

use crate::ports::provider::{Chunk, Health, Provider};

/// Never up, so that nothing is declared for it here; whatever is handed to it comes back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Elsewhere;

#[async_trait::async_trait]
impl Provider for Elsewhere {
    async fn submit(&self, chunk: Chunk) -> Result<(), Chunk> {
        Err(chunk)
    }

    fn health(&self) -> Health {
        Health::default()
    }

    fn window(&self) -> u32 {
        0
    }

    async fn close(&self, _grace: Duration) {}
}
