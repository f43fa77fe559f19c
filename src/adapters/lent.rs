//! An account that allows only a few workers: its sessions are opened while this worker has a slot, and closed before the
//! slot's time ends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::model::code::{Code, Fault};
use crate::ports::provider::{Chunk, Health, Provider};

/// Opens the account's sessions.
pub type Open = Box<dyn Fn() -> Result<Arc<dyn Provider>, Fault> + Send + Sync>;

/// The account, with sessions or without.
pub struct Lent {
    open: Open,
    inside: Mutex<Option<Arc<dyn Provider>>>,
}

impl Lent {
    /// An account without sessions yet; `open` opens them.
    pub fn new(open: Open) -> Arc<Lent> {
        Arc::new(Lent { open, inside: Mutex::default() })
    }

    fn inside(&self) -> Option<Arc<dyn Provider>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it has sessions now.
    pub fn is_open(&self) -> bool {
        self.inside().is_some()
    }

    /// A slot was lent: opens the sessions, if they are not open.
    ///
    /// # Errors
    /// What is wrong with the account's settings.
    pub fn open(&self) -> Result<(), Fault> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.is_none() {
            *inside = Some((self.open)()?);
        }
        Ok(())
    }

    /// The slot goes back: nothing more is handed over, answers are waited for up to `grace`, the sessions are closed.
    pub async fn give_back(&self, grace: Duration) {
        let taken = self.inside.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(provider) = taken {
            provider.close(grace).await;
        }
    }
}

#[async_trait::async_trait]
impl Provider for Lent {
    async fn submit(&self, chunk: Chunk) -> Result<(), Chunk> {
        match self.inside() {
            Some(provider) => provider.submit(chunk).await,
            None => Err(chunk),
        }
    }

    fn health(&self) -> Health {
        match self.inside() {
            Some(provider) => provider.health(),
            None => Health {
                last_error: Some((Code::ProviderDown, "this worker has no bind slot of the account".to_owned())),
                ..Health::default()
            },
        }
    }

    fn window(&self) -> u32 {
        self.inside().map_or(0, |provider| provider.window())
    }

    async fn close(&self, grace: Duration) {
        self.give_back(grace).await;
    }
}
