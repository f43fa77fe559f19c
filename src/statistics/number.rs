//! One number over all batches: what it was sent, what came back, and everything else that is stored about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::line::{RecipientFilter, RecipientLine};
use super::recipients::{RecipientPages, places_of};
use crate::model::account::Account;
use crate::model::batch::BatchRow;
use crate::model::click::scope_of;
use crate::model::id::{BatchId, LaneKey, Msisdn, RecipientKey};
use crate::model::lane::lane_of;
use crate::model::record::RangeState;
use crate::model::time::Timestamp;
use crate::ports::documents::Shelf;
use crate::ports::journal::{Direction, Place, Stream};
use crate::ports::receipts::MatchedReport;
use crate::ports::{StoreError, Stores};
use crate::runtime::mention::Person;
use crate::runtime::short_code::Permutation;

/// Inbound messages looked through for a history, the newest first.
const INBOX_LOOKED: usize = 20_000;
/// Entries of a journal read at once.
const ENTRIES_AT_ONCE: usize = 1_000;
/// Batches looked at in one step of an export.
const BATCHES_AT_ONCE: usize = 20;

/// What one batch has about a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchOfNumber {
    /// The batch.
    pub batch_id: String,
    /// Whose it is.
    pub tenant: String,
    /// The campaign.
    pub campaign_id: String,
    /// The campaign's name.
    pub campaign_name: String,
    /// When it was created (RFC 3339).
    pub created: String,
    /// The number's records in it, with texts and history.
    pub records: Vec<RecipientLine>,
}

/// A page of a number's history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NumberHistory {
    /// Batches that have the number, newest first.
    pub batches: Vec<BatchOfNumber>,
    /// What was received from the number, newest first, as it was stored; on the first page only.
    pub inbound: Vec<Value>,
    /// Whether the number is suppressed now.
    pub suppressed: bool,
    /// Why and since when, when that is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub opt_out: Option<Value>,
    /// Batches looked at for this page.
    pub looked_at: usize,
    /// Where to go on; none at the end. A page may be empty and still have one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<String>,
}

/// A page of the history of a number: at most `most` batches of a tenant (`None`: everybody's) are looked at, newest first,
/// behind the `next` of an earlier page. A batch without the number costs the heads of one lane's packs, and the records of it that
/// never became a message: those have no place by which a number is found.
///
/// # Errors
/// What the store says.
pub async fn number_history(
    stores: &Stores,
    accounts: &Arc<BTreeMap<String, Account>>,
    number: Msisdn,
    tenant: Option<&str>,
    behind: Option<String>,
    most: usize,
    now: Timestamp,
) -> Result<NumberHistory, StoreError> {
    let mut page = NumberHistory {
        suppressed: stores.suppressions.check(&[number]).await?.first() == Some(&true),
        opt_out: opt_out(stores, number).await?,
        ..NumberHistory::default()
    };
    if behind.is_none() {
        page.inbound = inbound(stores, accounts, number).await?;
    }
    let (batches, next) = stores.batch_index.list(behind, most.clamp(1, 200)).await?;
    page.next = next;
    page.looked_at = batches.len();
    for listed in batches.iter().filter(|listed| tenant.is_none_or(|tenant| listed.row.batch.tenant == tenant)) {
        let records = records_of(stores, accounts, &listed.row, number, now).await?;
        if !records.is_empty() {
            page.batches.push(batch_of(&listed.row, records));
        }
    }
    Ok(page)
}

fn batch_of(row: &BatchRow, records: Vec<RecipientLine>) -> BatchOfNumber {
    BatchOfNumber {
        batch_id: row.batch.batch_id.to_string(),
        tenant: row.batch.tenant.clone(),
        campaign_id: row.batch.campaign_id.clone(),
        campaign_name: row.batch.campaign_name.clone(),
        created: row.created.to_string(),
        records,
    }
}

/// The records of a number in a batch. Looks into the small columns first: most batches do not have it.
async fn records_of(
    stores: &Stores,
    accounts: &Arc<BTreeMap<String, Account>>,
    row: &BatchRow,
    number: Msisdn,
    now: Timestamp,
) -> Result<Vec<RecipientLine>, StoreError> {
    let messages = !recipients_of(stores, row, number).await?.is_empty();
    let rejects = has_rejects(stores, row).await?;
    if !messages && !rejects {
        return Ok(vec![]);
    }
    let filter = RecipientFilter { number: Some(number), text: true, ..RecipientFilter::default() };
    let mut pages = RecipientPages::new(stores.clone(), row.clone(), accounts.clone(), filter, now).await?;
    pages.narrow(messages, rejects);
    let mut lines = vec![];
    while let Some(mut page) = pages.next().await? {
        lines.append(&mut page);
    }
    Ok(lines)
}

/// The places of a number in a batch that was sealed.
async fn recipients_of(stores: &Stores, row: &BatchRow, number: Msisdn) -> Result<Vec<RecipientKey>, StoreError> {
    if row.sealed.is_none() || !row.lanes.is_power_of_two() {
        return Ok(vec![]);
    }
    let lane = LaneKey { batch: row.batch.batch_id, lane: lane_of(number, row.lanes) };
    let places = places_of(stores, lane, number).await?;
    Ok(places.into_iter().map(|seq| RecipientKey { lane, seq }).collect())
}

async fn has_rejects(stores: &Stores, row: &BatchRow) -> Result<bool, StoreError> {
    let ranges = stores.ranges.list(row.batch.batch_id).await?;
    Ok(ranges.iter().any(|(_, range)| match &range.row.state {
        RangeState::Done(totals) => totals.suppressed > 0 || !totals.rejected.is_empty(),
        RangeState::Waiting | RangeState::Claimed | RangeState::Failed(_) => false,
    }))
}

async fn opt_out(stores: &Stores, number: Msisdn) -> Result<Option<Value>, StoreError> {
    let body = stores.documents.get(Shelf::OptOut, &number.digits()).await?;
    Ok(body.map(|body| as_stored(&body)))
}

/// What is stored, for the person it is about: a damaged text as it stands, so that nothing is kept from them.
fn as_stored(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()))
}

async fn inbound(stores: &Stores, accounts: &Arc<BTreeMap<String, Account>>, number: Msisdn) -> Result<Vec<Value>, StoreError> {
    let person = Person::new(number, vec![]).through(accounts.clone());
    let (mut found, mut looked, mut behind) = (vec![], 0, None::<Place>);
    while looked < INBOX_LOOKED {
        let page = stores.journal.list(Stream::Inbox, "", behind.as_ref(), ENTRIES_AT_ONCE, Direction::Backward).await?;
        let Some(last) = page.last() else { break };
        behind = Some(last.place.clone());
        looked += page.len();
        found.extend(page.iter().filter(|entry| person.is_in(&entry.body)).map(|entry| as_stored(&entry.body)));
    }
    Ok(found)
}

/// Everything that is stored about a number, piece by piece: each piece some JSON objects with a `kind`.
pub struct NumberExport {
    stores: Stores,
    accounts: Arc<BTreeMap<String, Account>>,
    number: Msisdn,
    now: Timestamp,
    codes: Vec<String>,
    step: Step,
}

enum Step {
    Facts,
    Batches(Option<String>),
    Journal(usize, Option<Place>),
    End,
}

/// The journals of an export, and what their entries are called.
const JOURNALS: [(Stream, &str); 4] = [
    (Stream::Inbox, "inbound"),
    (Stream::Outbox, "webhook_event_waiting"),
    (Stream::Dead, "webhook_event_dead"),
    (Stream::Audit, "audit"),
];

impl NumberExport {
    /// Begins an export.
    pub fn new(stores: Stores, accounts: Arc<BTreeMap<String, Account>>, number: Msisdn, now: Timestamp) -> NumberExport {
        NumberExport { stores, accounts, number, now, codes: vec![], step: Step::Facts }
    }

    /// The next objects; `None` at the end. A piece may be empty. Kinds: `suppression`, `opt_out`, `uncertain`, `parked`,
    /// `record` (with texts and history), `receipt` (as it came in), `inbound`, `click`, `webhook_event_waiting`,
    /// `webhook_event_dead`, `audit`.
    ///
    /// # Errors
    /// What the store says.
    pub async fn next(&mut self) -> Result<Option<Vec<Value>>, StoreError> {
        let mut piece = vec![];
        self.step = match std::mem::replace(&mut self.step, Step::End) {
            Step::Facts => {
                self.facts(&mut piece).await?;
                Step::Batches(None)
            }
            Step::Batches(behind) => match self.batches(behind, &mut piece).await? {
                Some(next) => Step::Batches(Some(next)),
                None => Step::Journal(0, None),
            },
            Step::Journal(at, behind) => match JOURNALS.get(at) {
                Some((stream, kind)) => {
                    let last = self.journal(*stream, kind, behind, &mut piece).await?;
                    if last.is_some() { Step::Journal(at, last) } else { Step::Journal(at + 1, None) }
                }
                None => return Ok(None),
            },
            Step::End => return Ok(None),
        };
        Ok(Some(piece))
    }

    async fn facts(&self, piece: &mut Vec<Value>) -> Result<(), StoreError> {
        let (stores, number) = (&self.stores, self.number);
        let suppressed = stores.suppressions.check(&[number]).await?.first() == Some(&true);
        piece.push(json!({ "kind": "suppression", "number": format!("+{}", number.digits()), "suppressed": suppressed }));
        piece.extend(opt_out(stores, number).await?.map(|opt_out| json!({ "kind": "opt_out", "document": opt_out })));
        let found = stores.erasure.of_number(number).await?;
        for entry in found.uncertain {
            piece.push(json!({
                "kind": "uncertain",
                "batch_id": entry.part.recipient.lane.batch,
                "account": entry.account,
                "declared_at": entry.declared_at.to_string(),
            }));
        }
        for parked in found.parked {
            piece.push(report_of("parked", &parked.account, &parked.report));
        }
        Ok(())
    }

    async fn batches(&mut self, behind: Option<String>, piece: &mut Vec<Value>) -> Result<Option<String>, StoreError> {
        let (batches, next) = self.stores.batch_index.list(behind, BATCHES_AT_ONCE).await?;
        for listed in batches {
            let row = listed.row;
            for record in records_of(&self.stores, &self.accounts, &row, self.number, self.now).await? {
                let mut value = serde_json::to_value(record).map_err(|error| StoreError::Corrupt(error.to_string()))?;
                value["kind"] = "record".into();
                value["batch_id"] = listed.batch.to_string().into();
                piece.push(value);
            }
            let mut recipients = recipients_of(&self.stores, &row, self.number).await?;
            if let Some(recipient) = recipients.first() {
                let messages = self.stores.erasure.messages(recipient.lane, self.number).await?;
                let codes: Vec<String> = messages.into_iter().filter_map(|message| message.code).collect();
                self.clicks(listed.batch, &codes, piece).await?;
                self.codes.extend(codes);
            }
            recipients.sort_unstable();
            for recipient in recipients {
                let reports = self.stores.receipts.list(recipient.lane, recipient.seq, 1).await?;
                for matched in reports.iter().filter(|matched: &&MatchedReport| matched.part.recipient == recipient) {
                    let mut value = report_of("receipt", &matched.account, &matched.report);
                    value["batch_id"] = listed.batch.to_string().into();
                    piece.push(value);
                }
            }
        }
        Ok(next)
    }

    async fn clicks(&self, batch: BatchId, codes: &[String], piece: &mut Vec<Value>) -> Result<(), StoreError> {
        if codes.is_empty() {
            return Ok(());
        }
        let permutation = Permutation::new(&self.stores.links.key().await?);
        for (code, link) in codes.iter().filter_map(|code| Some((code, permutation.number_of(code)?))) {
            let (scope, journal, mut behind) = (scope_of(batch, link), &self.stores.journal, None::<Place>);
            loop {
                let page = journal.list(Stream::Click, &scope, behind.as_ref(), ENTRIES_AT_ONCE, Direction::Forward).await?;
                let Some(last) = page.last() else { break };
                behind = Some(last.place.clone());
                piece.extend(page.iter().map(|entry| {
                    let (at, entry) = (entry.place.at.to_string(), as_stored(&entry.body));
                    json!({ "kind": "click", "batch_id": batch, "code": code, "at": at, "entry": entry })
                }));
            }
        }
        Ok(())
    }

    async fn journal(
        &self,
        stream: Stream,
        kind: &str,
        behind: Option<Place>,
        piece: &mut Vec<Value>,
    ) -> Result<Option<Place>, StoreError> {
        let person = Person::new(self.number, self.codes.clone()).through(self.accounts.clone());
        let page = self.stores.journal.list(stream, "", behind.as_ref(), ENTRIES_AT_ONCE, Direction::Forward).await?;
        for entry in page.iter().filter(|entry| person.is_in(&entry.body)) {
            piece.push(json!({ "kind": kind, "at": entry.place.at.to_string(), "entry": as_stored(&entry.body) }));
        }
        Ok(page.into_iter().last().map(|entry| entry.place))
    }
}

fn report_of(kind: &str, account: &str, report: &crate::model::receipt::Report) -> Value {
    json!({
        "kind": kind,
        "account": account,
        "message_id": report.message_id,
        "rung": report.rung.stat(),
        "error": report.error,
        "received": report.received.to_string(),
        "raw": report.raw,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::memory::store::MemoryStore;
    use crate::adapters::system::SeededChance;
    use crate::ports::journal::Entry;

    #[tokio::test]
    async fn all_openings_of_a_link_are_exported() {
        let stores = MemoryStore::new(Arc::new(SeededChance::from_seed(1))).stores();
        let (batch, link) = (BatchId(7), 42);
        let code = Permutation::new(&stores.links.key().await.expect("read")).code_of(link).expect("a code");
        let openings = 2 * ENTRIES_AT_ONCE as u64 + 1;
        let opening = |id: u64| {
            let place = Place { scope: scope_of(batch, link), at: Timestamp(1_000 + (id / 7) as i64), id };
            Entry { place, body: format!("{{\"n\":{id}}}") }
        };
        stores.journal.append(Stream::Click, (0..openings).map(opening).collect()).await.expect("stored");
        let export = NumberExport::new(stores, Arc::default(), Msisdn(8_613_800_000_001), Timestamp(2_000));
        let mut piece = vec![];
        export.clicks(batch, &[code], &mut piece).await.expect("read");
        let found: Vec<Option<u64>> = piece.iter().map(|click| click["entry"]["n"].as_u64()).collect();
        assert!(found.into_iter().eq((0..openings).map(Some)), "each once, in order");
    }
}
