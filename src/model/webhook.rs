//! Webhooks: where users want to be told of events, and how far a stream of events has come.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::time::Timestamp;

/// Events told in one call at most.
pub const EVENTS_PER_CALL: usize = 100;

/// What a webhook may be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// Changes of a batch's state.
    Batch,
    /// Delivery reports that are new.
    Receipt,
    /// Messages from people.
    Inbound,
}

/// All kinds of events.
pub const EVENT_KINDS: [EventKind; 3] = [EventKind::Batch, EventKind::Receipt, EventKind::Inbound];

impl EventKind {
    /// The word that people and other programs use.
    pub fn name(self) -> &'static str {
        match self {
            EventKind::Batch => "batch",
            EventKind::Receipt => "receipt",
            EventKind::Inbound => "inbound",
        }
    }

    /// The kind of a word.
    pub fn from_name(name: &str) -> Option<EventKind> {
        EVENT_KINDS.into_iter().find(|kind| kind.name() == name)
    }
}

/// What calls are signed with, in the form `whsec_` and base64 (Standard Webhooks 1.0). Its `Debug` shows nothing; it is
/// serialised as it is, because it has to be stored to be used.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WebhookSecret(pub String);

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a user wants events sent, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// Its name: `wh_` and random digits.
    pub id: String,
    /// Whose batches it is told of; `None` stands for everybody's.
    pub tenant: Option<String>,
    /// Where calls go.
    pub url: String,
    /// What they are signed with.
    pub secret: WebhookSecret,
    /// What it is told of.
    pub events: Vec<EventKind>,
    /// Whether it is told anything now.
    pub active: bool,
    /// When it was created: it is told of nothing that happened before.
    pub created: Timestamp,
    /// Why it was ended, when its target asked for that (HTTP 410).
    #[serde(default)]
    pub ended: Option<String>,
}

impl Webhook {
    /// Whether it is told of such an event now.
    pub fn wants(&self, kind: EventKind, tenant: &str) -> bool {
        self.active && self.events.contains(&kind) && self.tenant.as_deref().is_none_or(|mine| mine == tenant)
    }
}

/// A webhook as people see it: without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookView {
    /// Its name.
    pub id: String,
    /// Whose batches it is told of; everybody's without it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tenant: Option<String>,
    /// Where calls go.
    pub url: String,
    /// What it is told of.
    pub events: Vec<EventKind>,
    /// Whether it is told anything now.
    pub active: bool,
    /// When it was created (RFC 3339).
    pub created: String,
    /// Why it was ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended: Option<String>,
}

impl WebhookView {
    /// One whose row is damaged: it is told nothing, and can only be removed.
    pub fn damaged(id: String) -> WebhookView {
        let ended = Some("its row is damaged: remove it, and add it again".to_owned());
        WebhookView { id, tenant: None, url: String::new(), events: vec![], active: false, created: String::new(), ended }
    }
}

impl From<&Webhook> for WebhookView {
    fn from(webhook: &Webhook) -> WebhookView {
        WebhookView {
            id: webhook.id.clone(),
            tenant: webhook.tenant.clone(),
            url: webhook.url.clone(),
            events: webhook.events.clone(),
            active: webhook.active,
            created: webhook.created.to_string(),
            ended: webhook.ended.clone(),
        }
    }
}

/// How far a stream that fails has come; there is none for a stream that works.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamState {
    /// When this was written.
    pub stored: Timestamp,
    /// Calls of the same events so far.
    pub attempts: u32,
    /// Not before this instant.
    pub next_due: Timestamp,
    /// Since when no call of the stream succeeded.
    pub failing_since: Option<Timestamp>,
    /// Events of the call that failed: the same ones go again.
    pub count: usize,
    /// What the last call came to; never the URL.
    pub last_error: String,
}
