//! A deliverer's side of bind slots: sessions are open while a slot is lent, and closed before its time ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::adapters::lent::Lent;
use crate::coordinate::slots;
use crate::model::id::WorkerId;
use crate::model::slot::Slots;
use crate::ports::{Stores, World};

/// How often the slots are read.
const EVERY: Duration = Duration::from_secs(1);

/// Follows the slots of these accounts until `stop`. While the store does not answer, what was read last counts, up to the end
/// of its time.
pub async fn follow(
    lent: BTreeMap<String, Arc<Lent>>,
    worker: WorkerId,
    stores: Stores,
    world: World,
    grace: Duration,
    stop: CancellationToken,
) {
    let mut read: BTreeMap<String, Slots> = BTreeMap::new();
    while !lent.is_empty() {
        for (account, sessions) in &lent {
            match slots::read(&stores, account).await {
                Ok((slots, _)) => {
                    read.insert(account.clone(), slots);
                }
                Err(error) => tracing::warn!(account, code = %error.code(), "the bind slots cannot be read"),
            }
            let may = read.get(account).is_some_and(|slots| slots.holds(worker, world.clock.now()));
            match (may, sessions.is_open()) {
                (true, false) => match sessions.open() {
                    Ok(()) => tracing::info!(account, "a bind slot was lent to this worker"),
                    Err(fault) => tracing::error!(account, code = %fault.code, "sessions cannot be opened: {}", fault.context),
                },
                (false, true) => {
                    tracing::info!(account, "the bind slot goes back");
                    sessions.give_back(grace).await;
                }
                _ => {}
            }
        }
        if tokio::time::timeout(EVERY, stop.cancelled()).await.is_ok() {
            return;
        }
    }
    stop.cancelled().await;
}
