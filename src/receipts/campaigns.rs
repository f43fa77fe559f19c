//! Which batch a person answers: by the `ext_code` behind the number they wrote to, and by who was sent to.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::model::account::Account;
use crate::model::batch::BatchRow;
use crate::model::id::{BatchId, LaneKey, Msisdn};
use crate::model::inbound::{Inbound, ext_code_among, ext_code_behind};
use crate::model::lane::lane_of;
use crate::model::pack::PackKey;
use crate::ports::{StoreError, Stores, World};

/// Batches that are looked at, the newest first; who answers an older one is kept without a batch.
const BATCHES_MAX: usize = 2_000;
/// Batches read at once.
const PAGE: usize = 200;
/// The list of batches is read again after this long, about as fast as a person can answer; or after this many times as long as
/// reading it took, so that people who write do not slow the receipts.
const FRESH: (Duration, u32) = (Duration::from_millis(200), 20);
/// Batches of one `ext_code` whose recipients are looked at.
const LOOKED_AT: usize = 16;

/// What an answer needs to know of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Campaign {
    /// The batch.
    pub batch: BatchId,
    /// Its tenant.
    pub tenant: String,
    /// Its campaign.
    pub campaign_id: String,
    provider_type: String,
    ext_code: String,
    lanes: u16,
    sent: bool,
}

/// The newest batches, read again now and then and only while people write.
#[derive(Default)]
pub struct Campaigns(Mutex<Option<Found>>);

#[derive(Clone)]
struct Found {
    until: Duration,
    batches: Arc<Vec<Campaign>>,
}

impl Campaigns {
    async fn all(&self, stores: &Stores, world: &World) -> Result<Arc<Vec<Campaign>>, StoreError> {
        let now = world.clock.boot();
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = held.filter(|known| now < known.until) {
            return Ok(known.batches);
        }
        let (mut found, mut behind) = (Vec::new(), None);
        loop {
            let (page, next) = stores.batch_index.list(behind, PAGE).await?;
            found.extend(page.iter().map(|listed| Campaign::of(listed.batch, &listed.row)));
            behind = next;
            if behind.is_none() || found.len() >= BATCHES_MAX {
                break;
            }
        }
        let found = Arc::new(found);
        let read = world.clock.boot();
        let until = read + FRESH.0.max(read.saturating_sub(now) * FRESH.1);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Found { until, batches: found.clone() });
        Ok(found)
    }

    /// The batch that a message answers: among those of the account's provider type with the `ext_code` it was sent to, the
    /// newest that was sent to this number; else the newest, if all of them are one tenant's. Tenants who share an `ext_code` on
    /// an account would otherwise be shown people whom they never wrote to.
    pub async fn answered(
        &self,
        stores: &Stores,
        world: &World,
        account: &Account,
        message: &Inbound,
        number: Option<Msisdn>,
    ) -> Result<Option<Campaign>, StoreError> {
        let all = self.all(stores, world).await?;
        let of_type = || all.iter().filter(|campaign| campaign.provider_type == account.provider_type);
        let code = ext_code_behind(&message.to, &account.sender)
            .or_else(|| ext_code_among(&message.to, of_type().map(|campaign| campaign.ext_code.as_str())));
        // An account that does not say where people wrote to leaves only the number.
        let fits = |campaign: &&Campaign| message.to.is_empty() || code == Some(campaign.ext_code.as_str());
        let fitting: Vec<&Campaign> = of_type().filter(fits).collect();
        let mut candidates: Vec<&Campaign> = fitting.iter().copied().filter(|campaign| campaign.sent).collect();
        if candidates.is_empty() {
            candidates = fitting.clone();
        }
        let Some(newest) = candidates.first().copied() else { return Ok(None) };
        // Also of those that were not sent: who else has the code may have sent under it before what is looked at here.
        let of_one = fitting.iter().all(|campaign| campaign.tenant == newest.tenant);
        if let (Some(number), false) = (number, of_one && candidates.len() == 1) {
            for campaign in candidates.iter().take(LOOKED_AT) {
                if holds(stores, campaign, number).await? {
                    return Ok(Some((*campaign).clone()));
                }
            }
        }
        Ok(of_one.then(|| newest.clone()))
    }
}

impl Campaign {
    fn of(batch: BatchId, row: &BatchRow) -> Campaign {
        Campaign {
            batch,
            tenant: row.batch.tenant.clone(),
            campaign_id: row.batch.campaign_id.clone(),
            provider_type: row.batch.provider_type.clone(),
            ext_code: row.batch.ext_code.clone(),
            lanes: row.lanes,
            sent: row.delivery.started.is_some(),
        }
    }
}

/// Whether a number is among a batch's recipients: looked up in the small columns of its lane's packs.
async fn holds(stores: &Stores, campaign: &Campaign, number: Msisdn) -> Result<bool, StoreError> {
    if !campaign.lanes.is_power_of_two() {
        return Ok(false);
    }
    let lane = LaneKey { batch: campaign.batch, lane: lane_of(number, campaign.lanes) };
    // A damaged manifest says nothing about the number, as a damaged pack does not.
    let Some(manifest) = StoreError::unless_damaged(stores.manifests.get(lane).await)? else { return Ok(false) };
    for pack in &manifest.packs {
        let key = PackKey { lane, range: pack.range, attempt: pack.attempt, n: pack.n };
        let head = StoreError::unless_damaged(stores.packs.head(key).await)?.unwrap_or_default();
        if head.numbers.contains(&number.0) {
            return Ok(true);
        }
    }
    Ok(false)
}
