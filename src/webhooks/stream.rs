//! Streams of events: finding those that wait, and removing them.

use crate::model::time::Timestamp;
use crate::ports::documents::Shelf;
use crate::ports::journal::{Direction, Entry, Place, Stream};
use crate::ports::{StoreError, Stores};

/// Entries read or removed at once.
const AT_ONCE: usize = 1_000;

/// A place behind all entries of a webhook, whatever the rest of their scopes is: `0` is the sign behind `/`.
pub fn end_of_webhook(webhook: &str) -> Place {
    Place { scope: format!("{webhook}0"), at: Timestamp(i64::MIN), id: 0 }
}

/// The entries below `within` behind a place.
pub async fn behind(
    stores: &Stores,
    stream: Stream,
    within: &str,
    behind: Option<&Place>,
    limit: usize,
) -> Result<Vec<Entry>, StoreError> {
    stores.journal.list(stream, within, behind, limit, Direction::Forward).await
}

/// How many entries a stream has; at most about `most` are counted.
pub async fn count(stores: &Stores, stream: Stream, most: usize) -> Result<usize, StoreError> {
    let (mut counted, mut behind) = (0, None);
    while counted < most {
        let page = stores.journal.list(stream, "", behind.as_ref(), AT_ONCE, Direction::Forward).await?;
        counted += page.len();
        match page.into_iter().last() {
            Some(last) => behind = Some(last.place),
            None => break,
        }
    }
    Ok(counted)
}

/// Removes everything of a webhook from a stream.
pub async fn purge(stores: &Stores, stream: Stream, webhook: &str) -> Result<(), StoreError> {
    // Behind what it removed, not over it again.
    let mut last: Option<Place> = None;
    loop {
        let page = behind(stores, stream, &format!("{webhook}/"), last.as_ref(), AT_ONCE).await?;
        let Some(entry) = page.last() else { return Ok(()) };
        last = Some(entry.place.clone());
        stores.journal.remove(stream, page.into_iter().map(|entry| entry.place).collect()).await?;
    }
}

/// Removes what is known of a webhook's streams.
pub async fn purge_states(stores: &Stores, webhook: &str) -> Result<(), StoreError> {
    loop {
        let page = stores.documents.list(Shelf::WebhookStream, &format!("{webhook}/"), None, AT_ONCE).await?;
        if page.is_empty() {
            return Ok(());
        }
        for document in page {
            stores.documents.delete(Shelf::WebhookStream, &document.name).await?;
        }
    }
}
