//! Messages of people: kept, matched to what they answer, and obeyed when they ask to be left alone.
//!
//! A message is in the journal only after what it asks for was done, so one that comes again is told by its row and does
//! nothing twice; one whose row was never written does everything again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::campaigns::Campaigns;
use super::opt_out::{self, OptOut, Origin};
use crate::model::account::Account;
use crate::model::id::{BatchId, Msisdn};
use crate::model::inbound::{Inbound, Intent, intent, number_of};
use crate::model::time::Timestamp;
use crate::ports::journal::{Direction, Entry, Place, Stream};
use crate::ports::provider::Routes;
use crate::ports::receipts::{Heard, ReportListener};
use crate::ports::{StoreError, Stores, World};
use crate::runtime::digest::digest;
use crate::runtime::document;
use crate::runtime::metrics;

/// Rows read at once while a list is filtered.
const PAGE: usize = 500;
/// Rows looked at for one page of a list: then the place reached is given back, so that no call takes for ever.
const LOOKED_AT: usize = 20_000;
/// Scopes of days begin so, those that tell repeats do not.
const DAYS: &str = "2";

/// A message as it is kept (personal data).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxRow {
    /// The account it came through.
    pub account: String,
    /// Who sent it, as the account has it.
    pub from: String,
    /// Where to.
    pub to: String,
    /// What it says.
    pub text: String,
    /// The account's own id of it; empty when it has none.
    pub id: String,
    /// Whose batch it answers.
    #[serde(default)]
    pub tenant: Option<String>,
    /// The batch it answers.
    pub batch: Option<BatchId>,
    /// That batch's campaign; empty without one.
    pub campaign_id: String,
    /// What it asks for.
    pub intent: Intent,
}

/// Messages of one intake on their way into the journal.
pub async fn take_in(
    stores: &Stores,
    world: &World,
    routes: &Routes,
    campaigns: &Campaigns,
    listener: Option<&dyn ReportListener>,
    messages: &[(&str, &Inbound)],
) -> Result<(), StoreError> {
    let mut wishes: BTreeMap<Msisdn, (Intent, OptOut)> = BTreeMap::new();
    let (mut entries, mut seen) = (Vec::new(), BTreeSet::new());
    let (mut counted, mut heard) = (Vec::new(), Vec::new());
    for (name, message) in messages {
        let key = key_of(name, message);
        if !message.id.is_empty() && (!seen.insert(key) || is_known(stores, key, message.received).await?) {
            metrics::count(&metrics::RECEIPTS_INBOUND_REPEATED, &[name], 1);
            continue;
        }
        let row = match routes.get(*name).map(|route| &route.account) {
            Some(account) => understood(stores, world, campaigns, account, message, &mut wishes).await?,
            None => row_of(name, message),
        };
        counted.push((*name, row.intent));
        let answers = row.batch.map(|batch| (batch, row.tenant.clone().unwrap_or_default(), row.campaign_id.clone()));
        heard.push(Heard { account: (*name).to_owned(), message: (*message).clone(), answers, intent: row.intent });
        let body = serde_json::to_string(&row).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let place = Place { scope: day(message.received), at: message.received, id: key };
        if !message.id.is_empty() {
            entries.push(Entry { place: known_place(key, message.received), body: String::new() });
        }
        entries.push(Entry { place, body });
    }
    // The last word of each number counts, and all of it is done before any of it is written down.
    let wants = |wanted: Intent| wishes.iter().filter(move |(_, (intent, _))| *intent == wanted);
    let out: Vec<(Msisdn, OptOut)> = wants(Intent::OptOut).map(|(number, (_, why))| (*number, why.clone())).collect();
    let back: Vec<Msisdn> = wants(Intent::OptIn).map(|(number, _)| *number).collect();
    if !out.is_empty() {
        opt_out::suppress(stores, &out).await?;
    }
    if !back.is_empty() {
        opt_out::release(stores, &back).await?;
    }
    if let Some(listener) = listener {
        listener.inbound(&heard).await?;
    }
    stores.journal.append(Stream::Inbox, entries).await?;
    for (account, intent) in counted {
        metrics::count(&metrics::RECEIPTS_INBOUND, &[account, intent.name()], 1);
    }
    Ok(())
}

fn row_of(account: &str, message: &Inbound) -> InboxRow {
    let Inbound { from, to, text, id, .. } = message.clone();
    let account = account.to_owned();
    InboxRow { account, from, to, text, id, tenant: None, batch: None, campaign_id: String::new(), intent: Intent::None }
}

/// The row of a message, with what it answers and asks for.
async fn understood(
    stores: &Stores,
    world: &World,
    campaigns: &Campaigns,
    account: &Account,
    message: &Inbound,
    wishes: &mut BTreeMap<Msisdn, (Intent, OptOut)>,
) -> Result<InboxRow, StoreError> {
    let number = number_of(&message.from, &account.opt_out);
    let mut row = row_of(&account.name, message);
    if let Some(campaign) = campaigns.answered(stores, world, account, message, number).await? {
        (row.batch, row.tenant, row.campaign_id) = (Some(campaign.batch), Some(campaign.tenant), campaign.campaign_id);
    }
    row.intent = intent(&message.text, &account.opt_out);
    match number {
        _ if row.intent == Intent::None => {}
        Some(number) => {
            let why = OptOut {
                origin: Origin::Person,
                since: message.received,
                account: Some(account.name.clone()),
                batch: row.batch,
                tenant: row.tenant.clone(),
                campaign_id: row.campaign_id.clone(),
                note: String::new(),
            };
            wishes.insert(number, (row.intent, why));
        }
        None => {
            metrics::count(&metrics::RECEIPTS_OPT_OUT_UNREADABLE, &[&account.name], 1);
            tracing::warn!(account = account.name, "somebody opts out or in whose number cannot be read");
        }
    }
    Ok(row)
}

/// The UTC day of an instant, as a scope.
fn day(at: Timestamp) -> String {
    let text = at.to_string();
    format!("{}/", text.get(..10).unwrap_or(&text))
}

fn key_of(account: &str, message: &Inbound) -> u64 {
    let fields = [account, &message.from, &message.text, &message.id];
    let digest = digest(fields.iter().map(|field| field.as_bytes()));
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}

/// Where it is written down that a message came: known without the instant it came at, for its day.
fn known_place(key: u64, received: Timestamp) -> Place {
    const DAY: i64 = 86_400_000;
    Place { scope: format!("seen/{}", day(received)), at: Timestamp(received.0.div_euclid(DAY) * DAY), id: key }
}

/// Whether a message with an id came before, on its day or the day before. Without an id a message that says the same again is
/// another one: people do write STOP, START and STOP.
async fn is_known(stores: &Stores, key: u64, received: Timestamp) -> Result<bool, StoreError> {
    for at in [received, received.minus(std::time::Duration::from_secs(86_400))] {
        let place = known_place(key, at);
        let before = key.checked_sub(1).map(|id| Place { id, ..place.clone() });
        let found = stores.journal.list(Stream::Inbox, &place.scope, before.as_ref(), 1, Direction::Forward).await?;
        if found.first().is_some_and(|entry| entry.place == place) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Which messages a list shows; what is left open allows all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InboxFilter {
    /// Only through this account.
    pub account: Option<String>,
    /// Only answers to this tenant's batches.
    pub tenant: Option<String>,
    /// Only answers to this batch.
    pub batch: Option<BatchId>,
    /// Only answers to this campaign.
    pub campaign_id: Option<String>,
    /// Only those that ask for this.
    pub intent: Option<Intent>,
    /// Only from this number.
    pub number: Option<Msisdn>,
    /// Only of this UTC day, as `YYYY-MM-DD`.
    pub day: Option<String>,
}

impl InboxFilter {
    fn allows(&self, row: &InboxRow) -> bool {
        let is = |wanted: &Option<String>, has: &str| wanted.as_deref().is_none_or(|wanted| wanted == has);
        is(&self.account, &row.account)
            && is(&self.campaign_id, &row.campaign_id)
            && self.tenant.as_ref().is_none_or(|tenant| row.tenant.as_ref() == Some(tenant))
            && self.batch.is_none_or(|batch| row.batch == Some(batch))
            && self.intent.is_none_or(|intent| row.intent == intent)
            && self.number.is_none_or(|number| is_from(&row.from, number))
    }
}

/// Whether a sender is this number, with or without its country code.
fn is_from(from: &str, number: Msisdn) -> bool {
    let digits: String = from.chars().filter(char::is_ascii_digit).collect();
    let digits = digits.trim_start_matches('0');
    digits.len() >= 7 && number.digits().ends_with(digits)
}

/// One page of messages, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InboxPage {
    /// The messages with their places.
    pub rows: Vec<(Place, InboxRow)>,
    /// Where the next page begins; `None` on the last. A page may hold fewer rows than asked for, even none, and not be the last.
    pub next: Option<Place>,
}

/// Messages of people, newest first, behind the place of an earlier page. One that is damaged is left out, and the log says so.
pub async fn list(stores: &Stores, filter: &InboxFilter, behind: Option<Place>, limit: usize) -> Result<InboxPage, StoreError> {
    let within = filter.day.as_ref().map_or_else(|| DAYS.to_owned(), |day| format!("{day}/"));
    let (mut page, mut behind, mut looked_at) = (InboxPage::default(), behind, 0);
    loop {
        let entries = stores.journal.list(Stream::Inbox, &within, behind.as_ref(), PAGE, Direction::Backward).await?;
        let last = entries.len() < PAGE;
        for entry in entries {
            looked_at += 1;
            behind = Some(entry.place.clone());
            match document::read::<InboxRow>("a message", &entry.body) {
                Ok(row) => page.rows.extend(filter.allows(&row).then_some((entry.place, row))),
                // What it asked for was done before it was written; a list of the others is better than none.
                Err(error) => {
                    let (day, code) = (&entry.place.scope, error.code());
                    tracing::error!(day, id = entry.place.id, %code, "a message of a person is damaged and left out");
                }
            }
            if page.rows.len() >= limit || looked_at >= LOOKED_AT {
                page.next = behind;
                return Ok(page);
            }
        }
        if last {
            return Ok(page);
        }
    }
}
