//! What some recipients of a batch would come to at some accounts: composed and split exactly as they would be sent, pack by
//! pack, so that memory is bounded by a pack and a lane's retry entries.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::model::account::{Account, Capabilities};
use crate::model::batch::SmsBatch;
use crate::model::code::Code;
use crate::model::id::LaneKey;
use crate::model::ledger::Ledger;
use crate::model::outgoing::outgoing;
use crate::model::pack::{Message, PackKey};
use crate::model::window::RetryEntry;
use crate::ports::{StoreError, Stores};

/// An account as it could be used now.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// What it is.
    pub account: Account,
    /// Segments a second it is sent at now, when somebody knows; else its configured rate is taken.
    pub rate: Option<f64>,
}

/// An amount in one currency.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Price {
    /// The currency.
    pub currency: String,
    /// The amount, in the currency's own unit.
    pub amount: f64,
}

/// What messages come to at a provider type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Segments at the account that makes most of them: never too low.
    pub segments: u64,
    /// What they cost at the dearest account, by currency; empty when no price is known.
    pub price: Vec<Price>,
}

/// What stands against messages at accounts of the same abilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Against {
    /// The message has a link, and the account takes none.
    pub links: u64,
    /// It would take more parts than the account allows.
    pub parts: u64,
    /// It begins with a signature, and the account puts one before it.
    pub signed_twice: u64,
}

/// Accounts of the same abilities, and what the messages come to there.
pub(super) struct Bill {
    /// What they can do.
    pub can: Capabilities,
    /// The accounts.
    pub accounts: Vec<Account>,
    segments: u64,
    /// What stands against some messages.
    pub against: Against,
}

/// One bill for each set of abilities among the accounts of a provider type.
pub(super) fn bills(offers: &[Offer], provider_type: &str) -> Vec<Bill> {
    let mut bills: Vec<Bill> = Vec::new();
    for offer in offers.iter().filter(|offer| offer.account.provider_type == provider_type) {
        let account = offer.account.clone();
        match bills.iter_mut().find(|bill| bill.can == account.capabilities) {
            Some(bill) => bill.accounts.push(account),
            None => {
                let can = account.capabilities.clone();
                bills.push(Bill { can, accounts: vec![account], segments: 0, against: Against::default() });
            }
        }
    }
    bills
}

/// The bills as one estimate.
pub(super) fn estimate(bills: &[Bill]) -> Estimate {
    let mut dearest: BTreeMap<&str, f64> = BTreeMap::new();
    for bill in bills {
        for account in &bill.accounts {
            let Some(price) = account.price else { continue };
            let amount = dearest.entry(&account.currency).or_default();
            *amount = amount.max(price * bill.segments as f64);
        }
    }
    Estimate {
        segments: bills.iter().map(|bill| bill.segments).max().unwrap_or(0),
        price: dearest.into_iter().map(|(currency, amount)| Price { currency: currency.to_owned(), amount }).collect(),
    }
}

/// Segments a second of all accounts of a provider type.
pub(super) fn rate(offers: &[Offer], provider_type: &str) -> f64 {
    let mine = offers.iter().filter(|offer| offer.account.provider_type == provider_type);
    mine.map(|offer| offer.rate.unwrap_or_else(|| offer.account.rate.map_or(0.0, f64::from))).sum()
}

/// Recipients of a lane that are to be counted.
#[derive(Default)]
pub(super) struct Places {
    /// Places of the manifest.
    pub manifest: Range<u32>,
    /// Others, ascending.
    pub entries: Vec<RetryEntry>,
}

impl Places {
    /// What a lane's ledger has not declared yet.
    pub async fn undeclared(stores: &Stores, key: LaneKey, ledger: &Ledger) -> Result<Places, StoreError> {
        let mut places = Places::default();
        for leg in ledger.legs.iter().filter(|leg| leg.declared < leg.len) {
            if leg.id == 0 {
                places.manifest = leg.declared..leg.len;
                continue;
            }
            let pack = stores.windows.retry(key, leg.id).await?;
            let pack = pack.ok_or_else(|| StoreError::Corrupt(format!("retry pack {:x} of a lane is missing", leg.id)))?;
            places.entries.extend(pack.entries.into_iter().skip(leg.declared as usize));
        }
        places.entries.sort_by_key(|entry| entry.seq);
        Ok(places)
    }
}

/// Adds a lane's places to groups of bills. Returns how many recipients they are, and how many of them have had some parts taken.
pub(super) async fn add(
    stores: &Stores,
    batch: &SmsBatch,
    key: LaneKey,
    places: &Places,
    groups: &mut [&mut [Bill]],
) -> Result<(u64, u64), StoreError> {
    let Some(manifest) = stores.manifests.get(key).await? else { return Ok((0, 0)) };
    let (mut recipients, mut partly) = (0, 0);
    let mut rest = &places.entries[..];
    for pack in &manifest.packs {
        let end = pack.first_seq + pack.count;
        let (mine, behind) = rest.split_at(rest.partition_point(|entry| entry.seq < end));
        rest = behind;
        let whole = |seq| RetryEntry { seq, tries: 0, parts: 0, round: 0 };
        let undeclared = places.manifest.start.max(pack.first_seq)..places.manifest.end.min(end);
        let unstruck = undeclared.filter(|seq| !manifest.is_struck(*seq)).map(whole);
        let here: Vec<RetryEntry> = unstruck.chain(mine.iter().copied()).collect();
        if here.is_empty() {
            continue;
        }
        recipients += here.len() as u64;
        partly += here.iter().filter(|entry| entry.parts != 0).count() as u64;
        let name = PackKey { lane: key, range: pack.range, attempt: pack.attempt, n: pack.n };
        // Recipients of a damaged one will fail with that, wherever they are sent.
        let Some(read) = StoreError::unless_damaged(stores.packs.get(name).await)? else { continue };
        for entry in &here {
            let Some(message) = read.messages.get((entry.seq - pack.first_seq) as usize) else { continue };
            groups.iter_mut().flat_map(|bills| bills.iter_mut()).for_each(|bill| bill.add(batch, message, entry.parts));
        }
    }
    Ok((recipients, partly))
}

impl Bill {
    fn add(&mut self, batch: &SmsBatch, message: &Message, parts: u32) {
        match outgoing(batch, &self.can, message, parts) {
            Ok(made) => self.segments += u64::from(made.segments),
            Err((Code::RowLinkForbidden, _)) => self.against.links += 1,
            // The rest of a message that another account has begun is told apart from what is left whole.
            Err((Code::PartiallySent, _)) => {}
            // A long ext_code is said once for all.
            Err(_) if batch.ext_code.len() > usize::from(self.can.ext_code_max) => {}
            Err(_) => self.against.parts += 1,
        }
        if !self.can.add_signature && message.body.trim_start().starts_with('【') {
            self.against.signed_twice += 1;
        }
    }
}
