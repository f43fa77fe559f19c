//! Events that were refused for too long: seen by people, and sent again when they say so.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::outbox::Webhooks;
use crate::model::code::{Code, Fault};
use crate::model::time::Timestamp;
use crate::ports::journal::{Direction, Entry, Place, Stream};
use crate::ports::{StoreError, Stores};
use crate::runtime::document;

/// Dead events sent again at once.
const AT_ONCE: usize = 500;
/// How far the places of replayed events are from each other: an erasure moves what it takes a person out of by one.
const APART: u64 = 16;
/// Why a damaged event is among the dead.
pub(super) const UNREADABLE: &str = "its row is damaged";

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
        // A damaged event is kept as a text, for people to see.
        let event = if is_event(&entry.body) { entry.body } else { serde_json::Value::String(entry.body).to_string() };
        let event = RawValue::from_string(event).map_err(corrupt)?;
        let buried = Buried { event, reason: reason.to_owned(), died: now };
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
            found.extend(page?.iter().map(read));
            if found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }

    /// Puts dead events of a webhook back into the outbox: one place, or all of a batch, or all. They are told in their order,
    /// behind what waits: a stream that goes on meanwhile is not read again where they stood. Answers how many. What cannot be
    /// read stays among the dead.
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
        // Nobody else's events have these places, and two replays at once do not share any.
        let mut id = 1 << 63 | self.world.chance.next() >> 1 & !u64::from(u32::MAX);
        loop {
            let page = self.stores.journal.list(Stream::Dead, &within, behind.as_ref(), AT_ONCE, Direction::Forward).await;
            let page = page?;
            let Some(last) = page.last() else { break };
            behind = Some(last.place.clone());
            let chosen = page.into_iter().filter(|entry| only.as_ref().is_none_or(|only| entry.place == *only));
            let (now, mut entries, mut places) = (self.world.clock.now(), vec![], vec![]);
            for entry in chosen {
                let Some(buried) = parse(&entry) else { continue };
                let place = Place { scope: entry.place.scope.clone(), at: now, id };
                id += APART;
                entries.push(Entry { place, body: buried.event.get().to_owned() });
                places.push(entry.place);
            }
            // In the outbox first: a crash between the two tells an event twice, and loses none.
            let free = self.stores.journal.append(Stream::Outbox, entries).await?;
            let moved: Vec<Place> = places.into_iter().zip(free).filter(|(_, free)| *free).map(|(place, _)| place).collect();
            replayed += moved.len() as u64;
            self.stores.journal.remove(Stream::Dead, moved).await?;
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

/// A dead event for people. One that cannot be read is shown by its place: those behind it are to be seen.
fn read(entry: &Entry) -> DeadEvent {
    let (reason, died, event) = match parse(entry) {
        // What is nested deeper than a reader goes is not shown.
        Some(buried) => (buried.reason, buried.died, serde_json::from_str(buried.event.get()).unwrap_or_default()),
        None => (UNREADABLE.to_owned(), entry.place.at, serde_json::Value::Null),
    };
    let mut parts = entry.place.scope.split('/');
    let webhook = parts.next().unwrap_or_default().to_owned();
    DeadEvent {
        place: format!("{}{}.{}", entry.place.scope, entry.place.at.0, entry.place.id),
        webhook,
        batch_id: parts.next().filter(|batch| *batch != "-").map(str::to_owned),
        reason,
        died: died.to_string(),
        event,
    }
}

fn parse(entry: &Entry) -> Option<Buried> {
    document::read("dead event", &entry.body).ok()
}

/// Whether a stored body is an event that can be told: an object. It is read to its end, texts included: one that its receiver
/// cannot read would have the whole call refused, and with it all that goes with it.
pub(super) fn is_event(body: &str) -> bool {
    document::read::<serde_json::Map<String, serde_json::Value>>("event", body).is_ok()
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
    StoreError::Corrupt(format!("dead event: {:?} error", error.classify()))
}
