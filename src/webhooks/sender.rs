//! Telling: one call at a time for each stream, streams side by side, each failing on its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::dead::{UNREADABLE, bury, is_event};
use super::outbox::Webhooks;
use super::signature::sign;
use super::stream;
use super::told::{LOOK_BACK, Told};
use crate::model::code::{Code, Fault};
use crate::model::time::Timestamp;
use crate::model::webhook::{EVENTS_PER_CALL, StreamState, Webhook};
use crate::ports::StoreError;
use crate::ports::caller::{Call, Called};
use crate::ports::documents::Shelf;
use crate::ports::journal::{Entry, Place, Stream};
use crate::runtime::digest::{digest, hex};
use crate::runtime::document;
use crate::runtime::metrics;
use crate::runtime::retry::Schedule;

/// Batches of one webhook told at once: a slow target has these and no more.
const STREAMS_AT_ONCE: usize = 4;
/// Streams of one webhook looked at in a round.
const STREAMS_SEEN: usize = 1_000;
/// Calls of a stream before others of its webhook have their turn.
const CALLS_PER_TURN: usize = 10;
/// How often streams are looked for when nobody says that there is something.
const LOOK: Duration = Duration::from_millis(500);
/// How often what waits is counted, and streams of removed webhooks are swept away.
const COUNT_EVERY: Duration = Duration::from_secs(30);
/// Events counted at most.
const COUNTED_MAX: usize = 100_000;
/// How long calls in flight are waited for at the end of a term.
const FAREWELL: Duration = Duration::from_secs(2);
/// Delays between calls of the same events: 5 s, doubling up to 4 h, about a day in all.
const DELAYS: (Duration, Duration, u32) = (Duration::from_secs(5), Duration::from_secs(4 * 3_600), 20);
/// A stream that failed this long gives up at the next failure what waited as long.
const PATIENCE: Duration = Duration::from_secs(86_400);
/// The longest that a target may ask to be left alone.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(6 * 3_600);

/// Tells events of the outbox while its process leads.
pub struct Sender {
    webhooks: Arc<Webhooks>,
    turns: Mutex<Turns>,
}

#[derive(Default)]
struct Turns {
    busy: BTreeSet<String>,
    /// Streams that fail, and when they go on.
    due: BTreeMap<String, Timestamp>,
    /// By webhook: how many are being told, and behind which scope the next is looked for.
    of: BTreeMap<String, (usize, String)>,
    /// How far each stream was told.
    told: Told,
    /// By webhook: when all its streams were last looked for from their beginning.
    looked: BTreeMap<String, Instant>,
}

/// How a turn of a stream ended.
enum End {
    /// Nothing waits, or others have their turn.
    Yielded,
    /// It goes on then.
    Later(Timestamp),
}

impl Sender {
    /// A sender for these webhooks.
    pub fn new(webhooks: Arc<Webhooks>) -> Arc<Sender> {
        Arc::new(Sender { webhooks, turns: Mutex::default() })
    }

    /// Tells until the term ends; calls in flight are waited for a moment then.
    pub async fn term(self: Arc<Self>, term: CancellationToken) {
        *self.turns() = Turns::default();
        let mut running: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
        let mut counted: Option<Instant> = None;
        while !term.is_cancelled() {
            if let Err(error) = self.start(&term, &mut running).await {
                tracing::warn!(code = %error.code(), %error, "the webhooks' outbox cannot be read now");
            }
            if counted.is_none_or(|at| at.elapsed() >= COUNT_EVERY) {
                counted = Some(Instant::now());
                if let Err(error) = self.count().await {
                    tracing::warn!(code = %error.code(), %error, "events of webhooks cannot be counted now");
                }
            }
            tokio::select! {
                biased;
                () = term.cancelled() => {}
                Some(()) = running.next() => {}
                () = self.webhooks.wake.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        let _ = tokio::time::timeout(FAREWELL, async { while running.next().await.is_some() {} }).await;
    }

    fn turns(&self) -> std::sync::MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives free places to streams that wait.
    async fn start(
        self: &Arc<Self>,
        term: &CancellationToken,
        running: &mut FuturesUnordered<BoxFuture<'static, ()>>,
    ) -> Result<(), StoreError> {
        let now = self.webhooks.world.clock.now();
        for webhook in self.webhooks.current().await?.iter().filter(|webhook| webhook.active) {
            let (telling, last) = self.turns().of.get(&webhook.id).cloned().unwrap_or_default();
            if telling >= STREAMS_AT_ONCE {
                continue;
            }
            let mut waiting = match self.waiting(&webhook.id).await {
                Ok(waiting) => waiting,
                Err(error) => {
                    // The others' streams can be read all the same.
                    tracing::warn!(webhook = webhook.id, code = %error.code(), %error, "a webhook's outbox cannot be read now");
                    continue;
                }
            };
            let behind = waiting.partition_point(|scope| *scope <= last);
            waiting.rotate_left(behind);
            let mut turns = self.turns();
            for scope in waiting {
                let (telling, _) = turns.of.get(&webhook.id).cloned().unwrap_or_default();
                if telling >= STREAMS_AT_ONCE {
                    break;
                }
                if turns.busy.contains(&scope) || turns.due.get(&scope).is_some_and(|due| *due > now) {
                    continue;
                }
                turns.busy.insert(scope.clone());
                turns.of.insert(webhook.id.clone(), (telling + 1, scope.clone()));
                let (sender, webhook, term) = (self.clone(), webhook.clone(), term.clone());
                running.push(Box::pin(async move { sender.turn(webhook, scope, term).await }));
            }
        }
        Ok(())
    }

    /// The streams of a webhook that wait.
    async fn waiting(&self, webhook: &str) -> Result<Vec<String>, StoreError> {
        let (journal, within, now) = (&self.webhooks.stores.journal, format!("{webhook}/"), Instant::now());
        let (long, looks_back) = {
            let mut turns = self.turns();
            let long = turns.told.long(&within);
            let looked = turns.looked.entry(webhook.to_owned()).or_insert(now);
            let looks_back = !long.is_empty() && now.duration_since(*looked) >= LOOK_BACK;
            if looks_back {
                *looked = now;
            }
            (long, looks_back)
        };
        let mut found = None;
        if looks_back {
            match journal.waiting(Stream::Outbox, &within, &BTreeMap::new(), STREAMS_SEEN).await {
                Ok(all) => found = Some(all),
                Err(error) => tracing::info!(webhook, %error, "a webhook's streams are looked over from their beginning later"),
            }
        }
        let found = match found {
            Some(found) => found,
            None => journal.waiting(Stream::Outbox, &within, &long, STREAMS_SEEN).await?,
        };
        let mut turns = self.turns();
        found.iter().for_each(|first| turns.told.waits(first));
        Ok(found.into_iter().map(|place| place.scope).collect())
    }

    /// One turn of a stream.
    async fn turn(&self, webhook: Webhook, scope: String, term: CancellationToken) {
        let end = match self.tell(&webhook, &scope, &term).await {
            Ok(end) => end,
            Err(error) => {
                tracing::warn!(webhook = webhook.id, code = %error.code, error = error.context, "a webhook's stream waits for the store");
                End::Later(self.webhooks.world.clock.now().plus(Duration::from_secs(1)))
            }
        };
        let mut turns = self.turns();
        turns.busy.remove(&scope);
        match end {
            End::Yielded => turns.due.remove(&scope),
            End::Later(due) => turns.due.insert(scope, due),
        };
        if let Some((telling, _)) = turns.of.get_mut(&webhook.id) {
            *telling = telling.saturating_sub(1);
        }
    }

    async fn tell(&self, webhook: &Webhook, scope: &str, term: &CancellationToken) -> Result<End, Fault> {
        let (stores, clock) = (&self.webhooks.stores, &self.webhooks.world.clock);
        let name = scope.trim_end_matches('/');
        let kept = stores.documents.get(Shelf::WebhookStream, name).await?;
        let (mut is_kept, mut state) =
            (kept.is_some(), kept.map_or_else(StreamState::default, |body| state_of(&body, clock.now())));
        if state.next_due > clock.now() {
            return Ok(End::Later(state.next_due));
        }
        let mut from_start = false;
        for _ in 0..CALLS_PER_TURN {
            if term.is_cancelled() {
                return Ok(End::Yielded);
            }
            let count = if state.attempts > 0 && state.count > 0 { state.count } else { EVENTS_PER_CALL };
            let behind = if from_start { None } else { self.turns().told.behind(scope) };
            let mut entries = stream::behind(stores, Stream::Outbox, scope, behind.as_ref(), count).await?;
            if entries.is_empty() && behind.is_some() && (self.turns().told.looks_back(scope, Instant::now()) || is_kept) {
                match stream::behind(stores, Stream::Outbox, scope, None, count).await {
                    Ok(late) => (entries, from_start) = (late, true),
                    Err(error) => {
                        tracing::info!(webhook = webhook.id, %error, "a stream is looked over from its beginning later");
                        return Ok(End::Yielded);
                    }
                }
            }
            if entries.is_empty() {
                if is_kept {
                    stores.documents.delete(Shelf::WebhookStream, name).await?;
                }
                return Ok(End::Yielded);
            }
            let (entries, damaged): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(|entry| is_event(&entry.body));
            if !damaged.is_empty() {
                // Nobody can be told what they said; people see that they were.
                metrics::count(&metrics::WEBHOOKS_EVENTS, &["dead"], damaged.len() as u64);
                tracing::error!(
                    webhook = webhook.id,
                    events = damaged.len(),
                    "events of a webhook are damaged and were given up"
                );
                self.bury(damaged, UNREADABLE).await?;
                continue;
            }
            let answer = match call_of(webhook, scope, &entries, clock.now()) {
                Some(call) => self.webhooks.caller.post(call).await,
                None => Err("its secret cannot sign: remove the webhook, and add it again".into()),
            };
            match answer {
                Ok(Called { status: 200..=299, .. }) => {
                    metrics::count(&metrics::WEBHOOKS_EVENTS, &["sent"], entries.len() as u64);
                    let places: Vec<Place> = entries.into_iter().map(|entry| entry.place).collect();
                    stores.journal.remove(Stream::Outbox, places.clone()).await?;
                    self.turns().told.removed(&places, Instant::now());
                    if is_kept {
                        stores.documents.delete(Shelf::WebhookStream, name).await?;
                        (is_kept, state) = (false, StreamState::default());
                    }
                }
                Ok(Called { status: 410, .. }) => {
                    tracing::warn!(webhook = webhook.id, "a webhook's target is gone (HTTP 410): the webhook is ended");
                    self.webhooks.end(&webhook.id, "its target answered HTTP 410").await?;
                    self.give_up_all(&webhook.id).await?;
                    return Ok(End::Yielded);
                }
                other => {
                    let due = self.failed(webhook, name, &mut state, entries, other).await?;
                    is_kept = true;
                    if due > clock.now() {
                        return Ok(End::Later(due));
                    }
                }
            }
        }
        Ok(End::Yielded)
    }

    /// Notes a call that failed. Answers when the stream goes on: at once after its events were given up.
    async fn failed(
        &self,
        webhook: &Webhook,
        name: &str,
        state: &mut StreamState,
        entries: Vec<Entry>,
        answer: Result<Called, String>,
    ) -> Result<Timestamp, StoreError> {
        let (stores, now) = (&self.webhooks.stores, self.webhooks.world.clock.now());
        let (what, asked) = match answer {
            Ok(called) => (format!("HTTP {}", called.status), called.retry_after),
            Err(what) => (what, None),
        };
        let seed = digest([name.as_bytes()]);
        let seed = u64::from(seed[0]) << 8 | u64::from(seed[1]);
        let mut schedule = Schedule::new(DELAYS.0, DELAYS.1, seed).up_to(DELAYS.2).from_attempt(state.attempts);
        let since = *state.failing_since.get_or_insert(now);
        let stale = |entry: &Entry| now.since(entry.place.at) > PATIENCE;
        let delay = if now.since(since) > PATIENCE && entries.iter().all(stale) { None } else { schedule.next_delay() };
        state.stored = now;
        state.last_error.clone_from(&what);
        match delay {
            Some(delay) => {
                metrics::count(&metrics::WEBHOOKS_EVENTS, &["failed"], entries.len() as u64);
                state.attempts += 1;
                state.count = entries.len();
                state.next_due = now.plus(delay.max(asked.unwrap_or_default().min(RETRY_AFTER_MAX)));
                tracing::info!(webhook = webhook.id, attempts = state.attempts, error = what, "a webhook's call failed");
            }
            None => {
                metrics::count(&metrics::WEBHOOKS_EVENTS, &["dead"], entries.len() as u64);
                tracing::warn!(webhook = webhook.id, events = entries.len(), error = what, "events of a webhook were given up");
                self.bury(entries, &what).await?;
                (state.attempts, state.count, state.next_due) = (0, 0, now);
            }
        }
        let body = serde_json::to_string(state).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        stores.documents.put(Shelf::WebhookStream, name, &body).await?;
        Ok(state.next_due)
    }

    /// Gives up everything that waits for a webhook.
    async fn give_up_all(&self, webhook: &str) -> Result<(), StoreError> {
        let stores = &self.webhooks.stores;
        let mut last: Option<Place> = None;
        loop {
            let page = stream::behind(stores, Stream::Outbox, &format!("{webhook}/"), last.as_ref(), 500).await?;
            let Some(entry) = page.last() else { return stream::purge_states(stores, webhook).await };
            last = Some(entry.place.clone());
            metrics::count(&metrics::WEBHOOKS_EVENTS, &["dead"], page.len() as u64);
            bury(stores, page, "HTTP 410", self.webhooks.world.clock.now()).await?;
        }
    }

    /// Moves events of one stream to the dead.
    async fn bury(&self, entries: Vec<Entry>, reason: &str) -> Result<(), StoreError> {
        let places: Vec<Place> = entries.iter().map(|entry| entry.place.clone()).collect();
        bury(&self.webhooks.stores, entries, reason, self.webhooks.world.clock.now()).await?;
        self.turns().told.removed(&places, Instant::now());
        Ok(())
    }

    /// Counts for the metrics, and removes what is left of webhooks that are gone.
    pub(super) async fn count(&self) -> Result<(), StoreError> {
        self.turns().told.tidy(Instant::now());
        let stores = &self.webhooks.stores;
        let stored = self.webhooks.stored().await?;
        for webhook in &stored.damaged {
            let code = Code::StoreCorrupt;
            tracing::error!(webhook, %code, "the row of a webhook is damaged: it is told nothing until it is removed and added again");
        }
        // What waits for a damaged one is its own still.
        let known: BTreeSet<String> = stored.readable.into_iter().map(|webhook| webhook.id).chain(stored.damaged).collect();
        for (stream, gauge) in [(Stream::Outbox, &metrics::WEBHOOKS_WAITING), (Stream::Dead, &metrics::WEBHOOKS_DEAD)] {
            let mut behind = None;
            loop {
                let next = stores.journal.list(stream, "", behind.as_ref(), 1, crate::ports::journal::Direction::Forward).await?;
                let Some(webhook) = next.first().and_then(|entry| entry.place.scope.split('/').next()) else { break };
                if !known.contains(webhook) {
                    stream::purge(stores, stream, webhook).await?;
                    stream::purge_states(stores, webhook).await?;
                }
                behind = Some(stream::end_of_webhook(webhook));
            }
            metrics::set(gauge, &[], stream::count(stores, stream, COUNTED_MAX).await? as f64);
        }
        Ok(())
    }
}

/// How far a stream that failed has come. What is told is in the outbox, not here: a state that is damaged loses only how often
/// and how long the stream failed, so it begins with its first failure again. To believe it could make the stream wait for ever,
/// read without end, or give events up before their time.
fn state_of(body: &str, now: Timestamp) -> StreamState {
    let sound = |state: &StreamState| {
        // Clocks of two leaders may differ, but not by hours.
        let latest = now.plus(RETRY_AFTER_MAX * 2);
        state.count <= EVENTS_PER_CALL && state.attempts <= DELAYS.2 && state.next_due <= latest
    };
    document::read("stream", body).ok().filter(sound).unwrap_or_else(|| {
        tracing::warn!(code = %Code::StoreCorrupt, "what was known of a webhook's stream is damaged: it is tried anew");
        StreamState::default()
    })
}

/// The call that tells these events; `None` when nothing can be signed with the webhook's secret.
fn call_of(webhook: &Webhook, scope: &str, entries: &[Entry], now: Timestamp) -> Option<Call> {
    let ids = entries.iter().map(|entry| entry.body.as_bytes());
    // The same events make the same call, however often it is tried.
    let id = format!("msg_{}", hex(&digest(std::iter::once(webhook.id.as_bytes()).chain(ids))[..16]));
    let batch = scope.split('/').nth(1).filter(|batch| *batch != "-");
    let events = entries.iter().map(|entry| RawValue::from_string(entry.body.clone()).unwrap_or_default());
    let payload = Payload { kind: "events", batch_id: batch, events: events.collect() };
    let body = serde_json::to_vec(&payload).unwrap_or_default();
    let seconds = now.0.div_euclid(1_000);
    let signature = sign(&webhook.secret, &id, seconds, &body)?;
    let headers = vec![("webhook-id", id), ("webhook-timestamp", seconds.to_string()), ("webhook-signature", signature)];
    Some(Call { url: webhook.url.clone(), headers, body })
}

/// The body of a call.
#[derive(serde::Serialize)]
struct Payload<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    batch_id: Option<&'a str>,
    events: Vec<Box<RawValue>>,
}
