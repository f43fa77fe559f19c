//! Watching a batch: its progress as a stream of events, read once for all who watch.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::{Stream, StreamExt};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

use super::batches::{find, progress_of};
use super::{Answer, OneBatch, Refusals, Shared};
use crate::model::id::BatchId;
use crate::runtime::task;
use crate::serve::access::Viewer;
use crate::serve::extract::Named;
use crate::serve::fleet::Surface;

/// How often a batch that somebody watches is looked at.
const EVERY: Duration = Duration::from_millis(500);
/// How often a silent stream says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

type Said = Option<Arc<str>>;

/// The batches that somebody watches.
#[derive(Default)]
pub struct Watched(Mutex<BTreeMap<BatchId, watch::Receiver<Said>>>);

impl Watched {
    /// What is said of a batch. The first watcher begins the looking; it ends with the last, or with the batch.
    fn join(self: &Arc<Self>, surface: &Arc<Surface>, batch: BatchId) -> watch::Receiver<Said> {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(said) = watched.get(&batch).filter(|said| said.has_changed().is_ok()) {
            return said.clone();
        }
        let (say, said) = watch::channel(None);
        watched.insert(batch, said.clone());
        let (me, surface) = (self.clone(), surface.clone());
        task::spawn("watch", async move {
            look(&surface, batch, &say, &me).await;
        });
        said
    }

    /// Forgets a batch that nobody watches any more. The map holds one receiver itself.
    fn leave(&self, batch: BatchId, say: &watch::Sender<Said>) -> bool {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = say.receiver_count() <= 1;
        if last {
            watched.remove(&batch);
        }
        last
    }
}

async fn look(surface: &Surface, batch: BatchId, say: &watch::Sender<Said>, watched: &Watched) {
    while !watched.leave(batch, say) {
        let stored = surface.stores.batches.load(batch).await;
        let mut over = false;
        match stored {
            Ok(Some(row)) => {
                if let Ok(progress) = progress_of(surface, &row.row).await {
                    over = progress.over;
                    let text: Arc<str> = serde_json::to_string(&progress).unwrap_or_default().into();
                    say.send_if_modified(|said| {
                        let news = said.as_ref() != Some(&text);
                        *said = Some(text);
                        news
                    });
                }
            }
            Ok(None) => over = true,
            // The store does not answer: it is asked again.
            Err(_) => {}
        }
        if over {
            watched.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&batch);
            return;
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Watches a batch: an event whenever its progress changes, until it is over
#[utoipa::path(get, path = "/v1/batches/{id}/watch", tag = "batches", params(OneBatch),
    responses((status = 200, body = String, content_type = "text/event-stream"), Refusals))]
pub async fn watch(
    State(surface): Shared,
    Viewer(caller): Viewer,
    Named(id): Named,
) -> Answer<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    let row = find(&surface, &caller, &id).await?;
    let said = surface.watched.join(&surface, row.batch.batch_id);
    let events =
        WatchStream::new(said).filter_map(async |said| said.map(|text| Ok(Event::default().event("progress").data(&*text))));
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}
