//! Events that were refused for too long: seen by people, and sent again when they say so.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::outbox::Webhooks;
use crate::model::code::{Code, Fault};
use crate::model::time::Timestamp;
use crate::ports::journal::{Direction, Entry, Place, Stream};
use crate::ports::{StoreError, Stores};

/// Dead events sent again at once.
const AT_ONCE: usize = 500;

/// A dead event, as it is stored.
#[derive(Serialize, Deserialize)]
pub(super) struct Buried {
    event: Box<RawValue>,
    reason: String,
    died: Timestamp,
}

/// A dead event, as people see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadEvent {
    /// Where it stands: the place to go on behind, and what a replay may name.
    pub place: String,
    /// The webhook.
    pub webhook: String,
    /// The batch; none for events that belong to none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub batch_id: Option<String>,
    /// What its last call came to.
    pub reason: String,
    /// When it was given up (RFC 3339).
    pub died: String,
    /// The event.
    pub event: serde_json::Value,
}

/// Moves entries of the outbox to the dead: first written there, then removed, so that a crash between the two loses none.
pub(super) async fn bury(stores: &Stores, entries: Vec<Entry>, reason: &str, now: Timestamp) -> Result<(), StoreError> {
    let places: Vec<Place> = entries.iter().map(|entry| entry.place.clone()).collect();
    let dead = entries.into_iter().map(|entry| {
        let event = RawValue::from_string(entry.body).or_else(|_| RawValue::from_string("null".into()));
        let buried = Buried { event: event.map_err(corrupt)?, reason: reason.to_owned(), died: now };
        Ok(Entry { place: entry.place, body: serde_json::to_string(&buried).map_err(corrupt)? })
    });
    let dead: Result<Vec<Entry>, StoreError> = dead.collect();
    stores.journal.append(Stream::Dead, dead?).await?;
    stores.journal.remove(Stream::Outbox, places).await
}

impl Webhooks {
    /// Dead events of a tenant's webhooks (`None`: everybody's), or of one webhook, behind a place of an earlier call.
    ///
    /// # Errors
    /// As for [`Webhooks::get`]; a place that is none; what the store says.
    pub async fn dead(
        &self,
        tenant: Option<&str>,
        webhook: Option<&str>,
        behind: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DeadEvent>, Fault> {
        let webhooks = match webhook {
            Some(id) => vec![self.get(tenant, id).await?],
            None => self.list(tenant).await?,
        };
        let behind = behind.map(place_of).transpose()?;
        let mut found = vec![];
        for webhook in webhooks {
            let within = format!("{}/", webhook.id);
            let behind = behind.as_ref().filter(|place| place.scope >= within);
            if behind.is_some_and(|place| !place.scope.starts_with(&within)) {
                continue;
            }
            let left = limit - found.len();
            let page = self.stores.journal.list(Stream::Dead, &within, behind, left, Direction::Forward).await;
            for entry in page? {
                found.push(read(&entry)?);
            }
            if found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }

    /// Puts dead events of a webhook back into the outbox: one place, or all of a batch, or all. They keep their places, so
    /// they go before what came later. Answers how many.
    ///
    /// # Errors
    /// As for [`Webhooks::get`]; [`Code::NotAllowed`] for a webhook that is not active.
    pub async fn replay(&self, tenant: Option<&str>, webhook: &str, what: &Replay) -> Result<u64, Fault> {
        let known = self.one(tenant, webhook).await?;
        if !known.active {
            return Err(Fault::new(Code::NotAllowed, "the webhook is not active: enable it first"));
        }
        let (within, only) = match what {
            Replay::All => (format!("{webhook}/"), None),
            Replay::Batch(batch) => (super::outbox::scope_of(webhook, Some(*batch)), None),
            Replay::Place(text) => {
                let place = place_of(text)?;
                if !place.scope.starts_with(&format!("{webhook}/")) {
                    return Err(Fault::new(Code::InputInvalid, "the place is not of this webhook"));
                }
                (place.scope.clone(), Some(place))
            }
        };
        let (mut replayed, mut behind) = (0, None);
        loop {
            let page = self.stores.journal.list(Stream::Dead, &within, behind.as_ref(), AT_ONCE, Direction::Forward).await;
            let page = page?;
            let Some(last) = page.last() else { break };
            behind = Some(last.place.clone());
            let chosen = page.into_iter().filter(|entry| only.as_ref().is_none_or(|only| entry.place == *only));
            let mut entries = vec![];
            for entry in chosen {
                let buried: Buried = parse(&entry)?;
                entries.push(Entry { place: entry.place, body: buried.event.get().to_owned() });
            }
            let places: Vec<Place> = entries.iter().map(|entry| entry.place.clone()).collect();
            replayed += places.len() as u64;
            // In the outbox first: a crash between the two tells an event twice, and loses none.
            self.stores.journal.append(Stream::Outbox, entries).await?;
            self.stores.journal.remove(Stream::Dead, places).await?;
        }
        self.wake.notify_one();
        Ok(replayed)
    }
}

/// Which dead events are sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replay {
    /// All of the webhook.
    All,
    /// Those of a batch.
    Batch(crate::model::id::BatchId),
    /// The one at a place.
    Place(String),
}

fn read(entry: &Entry) -> Result<DeadEvent, Fault> {
    let buried: Buried = parse(entry)?;
    let mut parts = entry.place.scope.split('/');
    let webhook = parts.next().unwrap_or_default().to_owned();
    Ok(DeadEvent {
        place: format!("{}{}.{}", entry.place.scope, entry.place.at.0, entry.place.id),
        webhook,
        batch_id: parts.next().filter(|batch| *batch != "-").map(str::to_owned),
        reason: buried.reason,
        died: buried.died.to_string(),
        event: serde_json::from_str(buried.event.get()).unwrap_or_default(),
    })
}

fn parse(entry: &Entry) -> Result<Buried, Fault> {
    serde_json::from_str(&entry.body).map_err(|error| corrupt(error).into())
}

/// Reads the place of a [`DeadEvent`].
fn place_of(text: &str) -> Result<Place, Fault> {
    let parsed = text.rfind('/').and_then(|at| {
        let (at_text, id) = text[at + 1..].split_once('.')?;
        Some(Place { scope: text[..=at].to_owned(), at: Timestamp(at_text.parse().ok()?), id: id.parse().ok()? })
    });
    let parsed = parsed.filter(|place| place.scope.len() <= 200 && !place.scope.contains('\0'));
    parsed.ok_or_else(|| Fault::new(Code::InputInvalid, "that is no place of a dead event"))
}

fn corrupt(error: serde_json::Error) -> StoreError {
    StoreError::Corrupt(format!("dead event: {error}"))
}
