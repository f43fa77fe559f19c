//! Events on their way into the outbox.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::model::id::{BatchId, Msisdn, RecipientKey};
use crate::model::pack::PackKey;
use crate::model::time::Timestamp;
use crate::model::webhook::{EventKind, Webhook};
use crate::ports::caller::Caller;
use crate::ports::documents::Shelf;
use crate::ports::journal::{Entry, Place, Stream};
use crate::ports::receipts::{Heard, MatchedReport, ReportListener, UNKNOWN_PART};
use crate::ports::{StoreError, Stores, World};
use crate::runtime::digest::{digest, hex};
use crate::runtime::document;

/// How long a list of webhooks is used before it is read again: another process may have changed it.
const LIST_USED: Duration = Duration::from_secs(1);
/// Entries stored in one write.
const ENTRIES_PER_WRITE: usize = 1_000;
/// Tenants of batches kept in memory.
const TENANTS_KEPT: usize = 1_000;

/// Something to be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Telling {
    /// Whose it is.
    pub tenant: String,
    /// The batch it belongs to; what belongs to none is told in an order of its own.
    pub batch: Option<BatchId>,
    /// What kind of event.
    pub kind: EventKind,
    /// When it happened.
    pub at: Timestamp,
    /// When it is written down: events of a batch are told in the order of this. Not when it happened, which may be a while ago:
    /// what was written down since may have been told, and a stream that is told much is not read again before that.
    pub placed: Timestamp,
    /// What makes it this event and no other: the same facts are the same event, told once.
    pub facts: Vec<Vec<u8>>,
    /// Tells events of one instant apart, in their order; `None` derives it from the facts.
    pub order: Option<u64>,
    /// What is told, as an object; `id`, `type` and `at` are added.
    pub event: Value,
}

/// The webhooks of a store. One whose row is damaged is stopped, as if it were not active: what waits for it goes on waiting,
/// what happens meanwhile is not told to it, and a person removes it. It must not stop the others, and not the receipts, which
/// are told of before they are acknowledged.
#[derive(Default)]
pub(super) struct Stored {
    pub readable: Vec<Webhook>,
    /// Names of those that cannot be read.
    pub damaged: Vec<String>,
}

/// The webhooks of a fleet: the way into the outbox, and the list of who wants what.
pub struct Webhooks {
    pub(super) stores: Stores,
    pub(super) world: World,
    pub(super) caller: Arc<dyn Caller>,
    list: Mutex<Option<(Instant, Arc<Vec<Webhook>>)>>,
    tenants: Mutex<BTreeMap<BatchId, String>>,
    /// Told when something was put into the outbox.
    pub(super) wake: Notify,
}

impl Webhooks {
    /// The webhooks of a store, called by `caller`.
    pub fn new(stores: Stores, world: World, caller: Arc<dyn Caller>) -> Arc<Webhooks> {
        let (list, tenants, wake) = (Mutex::default(), Mutex::default(), Notify::new());
        Arc::new(Webhooks { stores, world, caller, list, tenants, wake })
    }

    /// All webhooks, as they were at most a second ago.
    pub(super) async fn current(&self) -> Result<Arc<Vec<Webhook>>, StoreError> {
        let known = self.list.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, list)) = known.filter(|(read, _)| read.elapsed() < LIST_USED) {
            return Ok(list);
        }
        let began = Instant::now();
        let list = Arc::new(self.stored().await?.readable);
        *self.list.lock().unwrap_or_else(PoisonError::into_inner) = Some((began, list.clone()));
        Ok(list)
    }

    /// All webhooks as they are now.
    pub(super) async fn stored(&self) -> Result<Stored, StoreError> {
        let mut stored = Stored::default();
        for document in self.stores.documents.list(Shelf::Webhook, "", None, 1_000).await? {
            match read(&document.name, &document.body) {
                Ok(webhook) => stored.readable.push(webhook),
                Err(_) => stored.damaged.push(document.name),
            }
        }
        Ok(stored)
    }

    /// Lets the list be read again at once.
    pub(super) fn forget(&self) {
        *self.list.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.wake.notify_one();
    }

    /// Whether any webhook wants such events.
    pub async fn wanted(&self, kind: EventKind) -> Result<bool, StoreError> {
        Ok(self.current().await?.iter().any(|webhook| webhook.active && webhook.events.contains(&kind)))
    }

    /// Puts events into the outbox of every webhook that wants them, durably. An event from before a webhook's creation is
    /// not told to it. Telling the same again while it waits is harmless.
    pub async fn tell(&self, tellings: &[Telling]) -> Result<(), StoreError> {
        let webhooks = self.current().await?;
        let mut entries = Vec::new();
        for telling in tellings {
            let mut body = None;
            for webhook in webhooks.iter().filter(|webhook| webhook.wants(telling.kind, &telling.tenant)) {
                if telling.at < webhook.created {
                    continue;
                }
                let (id, text) = body.get_or_insert_with(|| event_of(telling)).clone();
                let scope = scope_of(&webhook.id, telling.batch);
                entries.push(Entry { place: Place { scope, at: telling.placed, id: telling.order.unwrap_or(id) }, body: text });
            }
        }
        if entries.is_empty() {
            return Ok(());
        }
        while !entries.is_empty() {
            let rest = entries.split_off(entries.len().min(ENTRIES_PER_WRITE));
            self.stores.journal.append(Stream::Outbox, std::mem::replace(&mut entries, rest)).await?;
        }
        self.wake.notify_one();
        Ok(())
    }

    async fn tenant_of(&self, batch: BatchId) -> Result<String, StoreError> {
        if let Some(known) = self.tenants.lock().unwrap_or_else(PoisonError::into_inner).get(&batch) {
            return Ok(known.clone());
        }
        let row = match self.stores.batches.load(batch).await {
            Ok(row) => row,
            // Whoever sees all tenants is told all the same, and no other report waits for it.
            Err(StoreError::Corrupt(_)) => return Ok(String::new()),
            Err(error) => return Err(error),
        };
        let tenant = row.map(|row| row.row.batch.tenant).unwrap_or_default();
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if tenants.len() >= TENANTS_KEPT {
            tenants.pop_first();
        }
        tenants.insert(batch, tenant.clone());
        Ok(tenant)
    }

    /// The number of a report's recipient, from the pack when the report has none.
    async fn number_of(&self, recipient: RecipientKey, heads: &mut Heads) -> Result<Option<Msisdn>, StoreError> {
        let manifest = StoreError::unless_damaged(self.stores.manifests.get(recipient.lane).await)?;
        let Some(manifest) = manifest else { return Ok(None) };
        let Some(pack) = manifest.pack_of(recipient.seq).map(|at| &manifest.packs[at]) else { return Ok(None) };
        let key = PackKey { lane: recipient.lane, range: pack.range, attempt: pack.attempt, n: pack.n };
        if let std::collections::btree_map::Entry::Vacant(unread) = heads.entry(key) {
            let head = StoreError::unless_damaged(self.stores.packs.head(key).await)?.unwrap_or_default();
            unread.insert(head.numbers);
        }
        let number = heads.get(&key).and_then(|numbers| numbers.get((recipient.seq - pack.first_seq) as usize));
        Ok(number.map(|number| Msisdn(*number)).filter(|number| !number.is_erased()))
    }
}

type Heads = BTreeMap<PackKey, Vec<u64>>;

#[async_trait::async_trait]
impl ReportListener for Webhooks {
    async fn wanted(&self) -> Result<bool, StoreError> {
        Webhooks::wanted(self, EventKind::Receipt).await
    }

    async fn reports(&self, reports: &[MatchedReport]) -> Result<(), StoreError> {
        // What it says alone makes its id.
        let (now, mut heads, mut tellings) = (self.world.clock.now(), Heads::new(), Vec::with_capacity(reports.len()));
        for matched in reports {
            let (report, recipient) = (&matched.report, matched.part.recipient);
            let number = match report.number {
                Some(number) => Some(number),
                None => self.number_of(recipient, &mut heads).await?,
            };
            let batch = recipient.lane.batch;
            tellings.push(Telling {
                tenant: self.tenant_of(batch).await?,
                batch: Some(batch),
                kind: EventKind::Receipt,
                at: now,
                placed: now,
                facts: vec![
                    batch.0.to_be_bytes().to_vec(),
                    vec![recipient.lane.lane, matched.part.part],
                    recipient.seq.to_be_bytes().to_vec(),
                    report.rung.stat().into(),
                    report.raw.clone().into_bytes(),
                ],
                order: None,
                event: json!({
                    "batch_id": batch,
                    "number": number.map(|number| format!("+{}", number.digits())),
                    "part": if matched.part.part == UNKNOWN_PART { 0 } else { matched.part.part + 1 },
                    "rung": report.rung.stat(),
                    "account": matched.account,
                    "message_id": report.message_id,
                    "error": report.error,
                    "done": report.done,
                    "received": report.received.to_string(),
                }),
            });
        }
        self.tell(&tellings).await
    }

    async fn inbound(&self, heard: &[Heard]) -> Result<(), StoreError> {
        if !Webhooks::wanted(self, EventKind::Inbound).await? {
            return Ok(());
        }
        let placed = self.world.clock.now();
        let telling = |heard: &Heard| {
            let Heard { account, message, answers, intent } = heard;
            let (batch, tenant, campaign) = match answers {
                Some((batch, tenant, campaign)) => (Some(*batch), tenant.clone(), campaign.clone()),
                None => (None, String::new(), String::new()),
            };
            let said = [account, &message.id, &message.from, &message.text];
            let mut facts: Vec<Vec<u8>> = said.iter().map(|text| text.as_bytes().to_vec()).collect();
            if message.id.is_empty() {
                // Without a name of its own a message is told apart by when it came.
                facts.push(message.received.0.to_be_bytes().to_vec());
            }
            let event = json!({
                "batch_id": batch, "campaign_id": campaign, "account": account, "from": message.from, "to": message.to,
                "text": message.text, "message_id": message.id, "intent": intent.name(),
            });
            Telling { tenant, batch, kind: EventKind::Inbound, at: message.received, placed, facts, order: None, event }
        };
        self.tell(&heard.iter().map(telling).collect::<Vec<_>>()).await
    }
}

/// The id's leading bits, and the event with its id, as it is stored and told.
fn event_of(telling: &Telling) -> (u64, String) {
    let kind = telling.kind.name().as_bytes();
    let digest = digest(std::iter::once(kind).chain(telling.facts.iter().map(Vec::as_slice)));
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    let mut event = telling.event.clone();
    if let Value::Object(fields) = &mut event {
        fields.insert("id".into(), format!("evt_{}", hex(&digest[..16])).into());
        let name = match telling.kind {
            EventKind::Batch => "batch.state",
            EventKind::Receipt => "receipt",
            EventKind::Inbound => "inbound",
        };
        fields.insert("type".into(), name.into());
        fields.insert("at".into(), telling.at.to_string().into());
    }
    (u64::from_be_bytes(first), event.to_string())
}

/// Reads a webhook's row.
pub(super) fn read(id: &str, body: &str) -> Result<Webhook, StoreError> {
    document::read_named(&format!("webhook {id:.40}"), id, body, |webhook: &Webhook| &webhook.id)
}

/// The scope of a stream: `webhook/batch/`, or `webhook/-/` for what belongs to no batch.
pub fn scope_of(webhook: &str, batch: Option<BatchId>) -> String {
    match batch {
        Some(batch) => format!("{webhook}/{batch}/"),
        None => format!("{webhook}/-/"),
    }
}
