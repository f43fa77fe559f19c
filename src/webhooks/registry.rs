//! Adding, listing, enabling and removing webhooks.

use super::outbox::{Webhooks, read};
use super::signature::secret_of;
use super::stream;
use crate::model::code::{Code, Fault};
use crate::model::webhook::{EventKind, Webhook, WebhookSecret, WebhookView};
use crate::ports::control::Cas;
use crate::ports::documents::Shelf;
use crate::ports::journal::Stream;

/// Webhooks of a fleet at most: each may have some connections of its own.
pub const WEBHOOKS_MAX: usize = 64;

/// A webhook that was just added, with its secret: it is shown this once.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Added {
    /// The webhook.
    #[serde(flatten)]
    pub webhook: WebhookView,
    /// What its calls are signed with.
    pub secret: WebhookSecret,
}

impl Webhooks {
    /// Adds a webhook. `tenant` `None` is told of everybody's batches.
    ///
    /// # Errors
    /// [`Code::InputInvalid`] for a URL that the rules do not allow, or no event; what the store says.
    pub async fn add(&self, tenant: Option<String>, url: &str, mut events: Vec<EventKind>) -> Result<Added, Fault> {
        events.sort_unstable();
        events.dedup();
        if events.is_empty() {
            return Err(Fault::new(Code::InputInvalid, "a webhook is told of at least one of batch, receipt, inbound"));
        }
        if url.len() > 2_000 {
            return Err(Fault::new(Code::InputInvalid, "the webhook's url is longer than 2,000 bytes"));
        }
        self.caller.check(url).await?;
        let stored = self.stored().await?;
        if stored.readable.len() + stored.damaged.len() >= WEBHOOKS_MAX {
            return Err(Fault::new(Code::InputInvalid, format!("there are {WEBHOOKS_MAX} webhooks already: remove one")));
        }
        let random = |words: usize| -> Vec<u8> { (0..words).flat_map(|_| self.world.chance.next().to_be_bytes()).collect() };
        let webhook = Webhook {
            id: format!("wh_{}", crate::runtime::digest::hex(&random(2))),
            tenant,
            url: url.to_owned(),
            secret: secret_of(&random(4)),
            events,
            active: true,
            created: self.world.clock.now(),
            ended: None,
        };
        let body = write(&webhook)?;
        if self.stores.documents.insert(Shelf::Webhook, &webhook.id, &body).await? == Cas::Refused {
            return Err(Fault::new(Code::StoreConflict, "a webhook of this name was there"));
        }
        self.forget();
        Ok(Added { secret: webhook.secret.clone(), webhook: WebhookView::from(&webhook) })
    }

    /// All webhooks of a tenant; with `None` everybody's, and those whose rows are damaged: nobody knows whose they were.
    ///
    /// # Errors
    /// What the store says.
    pub async fn list(&self, tenant: Option<&str>) -> Result<Vec<WebhookView>, Fault> {
        let all = self.stored().await?;
        let mine = all.readable.iter().filter(|webhook| is_of(webhook, tenant)).map(WebhookView::from);
        let damaged = all.damaged.into_iter().filter(|_| tenant.is_none()).map(WebhookView::damaged);
        Ok(mine.chain(damaged).collect())
    }

    /// One webhook.
    ///
    /// # Errors
    /// [`Code::InputInvalid`] when the tenant has none of this name.
    pub async fn get(&self, tenant: Option<&str>, id: &str) -> Result<WebhookView, Fault> {
        self.one(tenant, id).await.map(|webhook| WebhookView::from(&webhook))
    }

    /// Begins or stops telling a webhook. What waits for one that is stopped goes on waiting; what happens meanwhile is not
    /// told.
    ///
    /// # Errors
    /// As for [`Webhooks::get`]; a URL that the rules do not allow any more.
    pub async fn enable(&self, tenant: Option<&str>, id: &str, active: bool) -> Result<WebhookView, Fault> {
        let mut webhook = self.one(tenant, id).await?;
        if active {
            self.caller.check(&webhook.url).await?;
            webhook.ended = None;
        }
        webhook.active = active;
        self.put(&webhook).await?;
        Ok(WebhookView::from(&webhook))
    }

    /// Removes a webhook with everything that waits for it, the dead included. One whose row is damaged is removed by whoever
    /// sees everybody's.
    ///
    /// # Errors
    /// As for [`Webhooks::get`].
    pub async fn remove(&self, tenant: Option<&str>, id: &str) -> Result<(), Fault> {
        match self.one(tenant, id).await {
            Err(fault) if fault.code == Code::StoreCorrupt && tenant.is_none() => {}
            one => drop(one?),
        }
        self.stores.documents.delete(Shelf::Webhook, id).await?;
        self.forget();
        for stream in [Stream::Outbox, Stream::Dead] {
            stream::purge(&self.stores, stream, id).await?;
        }
        stream::purge_states(&self.stores, id).await.map_err(Fault::from)
    }

    /// Ends a webhook because its target said so.
    pub(super) async fn end(&self, id: &str, why: &str) -> Result<(), Fault> {
        let mut webhook = self.one(None, id).await?;
        (webhook.active, webhook.ended) = (false, Some(why.to_owned()));
        self.put(&webhook).await
    }

    pub(super) async fn one(&self, tenant: Option<&str>, id: &str) -> Result<Webhook, Fault> {
        let found = self.stores.documents.get(Shelf::Webhook, id).await?;
        let found = found.map(|body| read(id, &body)).transpose()?;
        // Somebody else's is as little there as one that never was.
        found
            .filter(|webhook| is_of(webhook, tenant))
            .ok_or_else(|| Fault::new(Code::InputInvalid, format!("there is no webhook {id:.40}")))
    }

    async fn put(&self, webhook: &Webhook) -> Result<(), Fault> {
        self.stores.documents.put(Shelf::Webhook, &webhook.id, &write(webhook)?).await?;
        self.forget();
        Ok(())
    }
}

fn is_of(webhook: &Webhook, tenant: Option<&str>) -> bool {
    tenant.is_none_or(|tenant| webhook.tenant.as_deref() == Some(tenant))
}

fn write(webhook: &Webhook) -> Result<String, Fault> {
    serde_json::to_string(webhook).map_err(|error| Fault::new(Code::Internal, error.to_string()))
}
