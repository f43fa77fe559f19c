//! Erasing one number everywhere.
//!
//! The order makes it safe to stop anywhere and begin again: the recipients are written down first, without the number; then
//! their packs are emptied; then, from what was written down, everything that hangs on them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::account::Account;
use crate::model::batch::BatchRow;
use crate::model::click::scope_of;
use crate::model::code::{Code, Fault};
use crate::model::id::{BatchId, LaneKey, Msisdn, RecipientKey};
use crate::model::lane::lane_of;
use crate::model::limits::{BATCH_READING_MAX, ERASURE_READING_MAX};
use crate::model::record::{RangeState, Sample};
use crate::model::time::Timestamp;
use crate::ports::documents::Shelf;
use crate::ports::journal::{Direction, Entry, Place, Stream};
use crate::ports::source::ListCopies;
use crate::ports::{StoreError, Stores, World};
use crate::runtime::control::change;
use crate::runtime::document;
use crate::runtime::erased::{name_of, raise, recipient_of};
use crate::runtime::mention::Person;
use crate::runtime::short_code::Permutation;

/// Batches looked at at once.
const BATCHES_AT_ONCE: usize = 100;
/// Entries and documents read at once.
const AT_ONCE: usize = 1_000;

/// What an erasure did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasureReport {
    /// Batches looked through.
    pub batches: u64,
    /// Messages emptied: number, text and link; copies that attempts left behind are counted.
    pub messages: u64,
    /// Records that never became a message, emptied.
    pub rejects: u64,
    /// Sample texts of plans emptied.
    pub samples: u64,
    /// Delivery reports emptied: number and raw text.
    pub reports: u64,
    /// Parked and unmatched reports removed.
    pub parked: u64,
    /// Entries of unanswered recipients removed: a late receipt without a known id cannot settle them any more.
    pub uncertain: u64,
    /// Inbound messages removed.
    pub inbound: u64,
    /// Clicks removed.
    pub clicks: u64,
    /// Events of webhooks, waiting or dead, that name the number no more.
    pub webhook_events: u64,
    /// Stored answers to commands that name the number no more.
    pub answers: u64,
    /// Whether a document about its opt-out was removed.
    pub opt_out: bool,
    /// Copies of lists removed.
    pub copies: u64,
    /// Whether the number stays on the suppression list: that keeps the promise that it gets nothing.
    pub still_suppressed: bool,
    /// What was not, or could not be, erased.
    pub left: Vec<Left>,
}

/// Something that was not erased.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// What: `batch`, `list`, `copies`, `audit`, `index`, `clicks`.
    pub what: String,
    /// Where, and what to do about it. Names no number.
    pub why: String,
}

/// What is written down about a recipient while its number is erased.
#[derive(Debug, Serialize, Deserialize)]
struct Noted {
    stored: Timestamp,
    /// Whether everything that hangs on it was erased.
    done: bool,
    /// Codes of its links, until it is done.
    codes: Vec<String>,
}

/// Erases numbers.
pub struct Eraser {
    stores: Stores,
    world: World,
    copies: Vec<Arc<dyn ListCopies>>,
    accounts: Arc<BTreeMap<String, Account>>,
    in_fleet: bool,
}

impl Eraser {
    /// Erases from this store, and from these copies of lists. The accounts tell who a sender is that one of them passed on.
    pub fn new(
        stores: Stores,
        world: World,
        copies: Vec<Arc<dyn ListCopies>>,
        accounts: Arc<BTreeMap<String, Account>>,
    ) -> Eraser {
        Eraser { stores, world, copies, accounts, in_fleet: false }
    }

    /// Whether other machines make copies of lists of their own, which this one does not reach.
    pub fn in_fleet(self, in_fleet: bool) -> Eraser {
        Eraser { in_fleet, ..self }
    }

    /// Erases a number everywhere. Repeating it is harmless, and finishes what an earlier call did not. When it answers,
    /// nobody is sent anything any more whose number was erased before it was handed over. Takes a second or two longer when a
    /// batch has the number.
    ///
    /// # Errors
    /// [`Code::InputInvalid`] for no number; what the store says: then call again.
    pub async fn erase(&self, number: Msisdn) -> Result<ErasureReport, Fault> {
        if number.is_erased() {
            return Err(Fault::new(Code::InputInvalid, "0 is no number"));
        }
        self.all(number).await.map_err(|error| Fault::new(error.code(), format!("the erasure has to be repeated: {error}")))
    }

    async fn all(&self, number: Msisdn) -> Result<ErasureReport, StoreError> {
        let stores = &self.stores;
        let mut report = ErasureReport::default();
        let (mut behind, mut needed) = (None, vec![]);
        loop {
            let (batches, next) = stores.batch_index.list(behind, BATCHES_AT_ONCE).await?;
            for listed in batches {
                report.batches += 1;
                if !listed.row.preparation.state.is_final() {
                    needed.push(listed.row.batch.table_name.clone());
                    let why = format!("batch {} is not prepared yet: repeat the erasure when it is", listed.batch);
                    report.left.push(Left { what: "batch".into(), why });
                    continue;
                }
                self.batch(&listed.row, number, &mut report).await?;
            }
            match next {
                Some(next) => behind = Some(next),
                None => break,
            }
        }
        let (noted, codes) = self.noted(&mut report).await?;
        if !noted.is_empty() {
            // A declare rests on a reading of the batch no older than the first, behind which the mark was asked for, which may
            // be as old as the second. Reports that come in are compared with a mark as old as the second at most.
            tokio::time::sleep(BATCH_READING_MAX + ERASURE_READING_MAX + Duration::from_millis(100)).await;
        }
        report.clicks = self.clicks(&codes).await?;
        let codes = codes.into_iter().map(|(_, code)| code).collect();
        for recipient in &noted {
            report.reports += stores.erasure.erase_reports(*recipient).await?;
        }
        (report.uncertain, report.parked) = stores.erasure.erase_of_number(number).await?;
        let person = Person::new(number, codes).through(self.accounts.clone());
        report.inbound = self.journal(Stream::Inbox, &person, false).await?;
        for stream in [Stream::Outbox, Stream::Dead] {
            report.webhook_events += self.journal(stream, &person, true).await?;
        }
        report.answers = self.answers(&person).await?;
        report.opt_out = stores.documents.get(Shelf::OptOut, &number.digits()).await?.is_some();
        stores.documents.delete(Shelf::OptOut, &number.digits()).await?;
        for recipient in noted {
            self.note(recipient, true, vec![]).await?;
        }
        report.still_suppressed = stores.suppressions.check(&[number]).await?.first() == Some(&true);
        self.copies(&needed, &mut report).await;
        if self.in_fleet && report.batches > 0 {
            let why = "plain copies of compressed or recoded lists on the coordinators and preparers are not reached: they go by \
                       themselves within two hours of their last use";
            report.left.push(Left { what: "copies".into(), why: why.into() });
        }
        self.audit(&person, &mut report).await?;
        if report.messages > 0 {
            let why = "the index of message ids keeps a 32-bit hash of the number until retention.index_days have passed";
            report.left.push(Left { what: "index".into(), why: why.into() });
        }
        Ok(report)
    }

    /// Erases from a batch that was prepared.
    async fn batch(&self, row: &BatchRow, number: Msisdn, report: &mut ErasureReport) -> Result<(), StoreError> {
        let (stores, batch) = (&self.stores, row.batch.batch_id);
        let mut found = vec![];
        if row.lanes.is_power_of_two() {
            let lane = LaneKey { batch, lane: lane_of(number, row.lanes) };
            found = stores.erasure.messages(lane, number).await?;
            if !found.is_empty() {
                let manifest = stores.manifests.get(lane).await?;
                for message in &found {
                    let key = message.pack;
                    let pack = manifest.iter().flat_map(|manifest| &manifest.packs);
                    let mut pack = pack.filter(|pack| (pack.range, pack.attempt, pack.n) == (key.range, key.attempt, key.n));
                    // A place behind the pack's end would be somebody else's.
                    if let Some(pack) = pack.next().filter(|pack| message.index < pack.count) {
                        let recipient = RecipientKey { lane, seq: pack.first_seq + message.index };
                        self.note(recipient, false, message.code.iter().cloned().collect()).await?;
                    }
                }
                let lines: BTreeSet<u64> = found.iter().map(|message| message.line).collect();
                report.samples += self.samples(batch, &lines).await?;
                report.messages += stores.erasure.erase_messages(lane, number).await?;
                raise(stores, &format!("{:016x}", self.world.chance.next())).await?;
            }
        }
        let rejects = stores.erasure.erase_rejects(batch, number).await?;
        report.rejects += rejects;
        let own = self.copies.iter().any(|copies| copies.is_copy(&row.batch.table_name));
        if !own && (rejects > 0 || !found.is_empty()) {
            let lines: Vec<String> = found.iter().map(|message| message.line.to_string()).collect();
            let lines = if lines.is_empty() { "?".into() } else { lines.join(", ") };
            let why = format!("the list {} of batch {batch} is not ours (line {lines})", row.batch.table_name);
            report.left.push(Left { what: "list".into(), why });
        }
        Ok(())
    }

    /// Empties the samples of these lines, in the plan and in the ranges it was made of.
    async fn samples(&self, batch: BatchId, lines: &BTreeSet<u64>) -> Result<u64, StoreError> {
        let is_mine = |sample: &&mut Sample| lines.contains(&sample.line) && !sample.text.is_empty();
        let chance = &*self.world.chance;
        let mut emptied = 0;
        // A refusal says that there is nothing to do.
        let _: Result<_, ()> = change(&*self.stores.batches, batch, chance, |current| {
            let mut row = current.row.clone();
            emptied = 0;
            for sample in row.sealed.iter_mut().flat_map(|plan| plan.samples.iter_mut()).filter(is_mine) {
                sample.text.clear();
                emptied += 1;
            }
            if emptied > 0 { Ok(row) } else { Err(()) }
        })
        .await?;
        for (key, range) in self.stores.ranges.list(batch).await? {
            let RangeState::Done(totals) = &range.row.state else { continue };
            if !totals.samples.iter().any(|sample| lines.contains(&sample.line) && !sample.text.is_empty()) {
                continue;
            }
            let _: Result<_, ()> = change(&*self.stores.ranges, key, chance, |current| {
                let mut row = current.row.clone();
                let RangeState::Done(totals) = &mut row.state else { return Err(()) };
                totals.samples.iter_mut().filter(is_mine).for_each(|sample| sample.text.clear());
                Ok(row)
            })
            .await?;
        }
        Ok(emptied)
    }

    async fn note(&self, recipient: RecipientKey, done: bool, codes: Vec<String>) -> Result<(), StoreError> {
        let noted = Noted { stored: self.world.clock.now(), done, codes };
        let body = serde_json::to_string(&noted).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        self.stores.documents.put(Shelf::Erased, &name_of(recipient), &body).await
    }

    /// Recipients that are not done, of this erasure or one that was broken off, and the codes of their links. A damaged note is
    /// taken for one that is not done: to erase again is harmless, and its name says who it was.
    async fn noted(&self, report: &mut ErasureReport) -> Result<(Vec<RecipientKey>, Vec<(BatchId, String)>), StoreError> {
        let (mut recipients, mut codes, mut behind) = (vec![], vec![], None::<String>);
        loop {
            let page = self.stores.documents.list(Shelf::Erased, "", behind.as_deref(), AT_ONCE).await?;
            let Some(last) = page.last() else { return Ok((recipients, codes)) };
            behind = Some(last.name.clone());
            for document in page {
                let Some(recipient) = recipient_of(&document.name) else { continue };
                let batch = recipient.lane.batch;
                match document::read::<Noted>("a note of an erasure", &document.body) {
                    Ok(noted) if noted.done => continue,
                    Ok(noted) => codes.extend(noted.codes.into_iter().map(|code| (batch, code))),
                    Err(_) => {
                        let why = format!(
                            "a note of an erasure is damaged: clicks of batch {batch} may be kept until retention.clicks_days"
                        );
                        report.left.push(Left { what: "clicks".into(), why });
                    }
                }
                recipients.push(recipient);
            }
        }
    }

    /// Removes the openings of these links.
    async fn clicks(&self, codes: &[(BatchId, String)]) -> Result<u64, StoreError> {
        if codes.is_empty() {
            return Ok(0);
        }
        let (permutation, mut removed) = (Permutation::new(&self.stores.links.key().await?), 0);
        for (batch, code) in codes {
            let Some(link) = permutation.number_of(code) else { continue };
            loop {
                let journal = &self.stores.journal;
                let scope = scope_of(*batch, link);
                let page = journal.list(Stream::Click, &scope, None, AT_ONCE, Direction::Forward).await?;
                if page.is_empty() {
                    break;
                }
                removed += page.len() as u64;
                journal.remove(Stream::Click, page.into_iter().map(|entry| entry.place).collect()).await?;
            }
        }
        Ok(removed)
    }

    /// Removes the entries that name the person, or (`kept`) takes the person out of them. A journal is written once: an entry
    /// without the person takes the next free place, and only then the one with it goes.
    async fn journal(&self, stream: Stream, person: &Person, kept: bool) -> Result<u64, StoreError> {
        let (journal, mut changed, mut behind) = (&self.stores.journal, 0, None::<Place>);
        loop {
            let page = journal.list(stream, "", behind.as_ref(), AT_ONCE, Direction::Forward).await?;
            let Some(last) = page.last() else { return Ok(changed) };
            behind = Some(last.place.clone());
            let named: Vec<Entry> = page.into_iter().filter(|entry| person.is_in(&entry.body)).collect();
            if named.is_empty() {
                continue;
            }
            let places: Vec<Place> = named.iter().map(|entry| entry.place.clone()).collect();
            changed += places.len() as u64;
            if kept {
                let without = named.into_iter().filter_map(|entry| {
                    let place = Place { id: entry.place.id.wrapping_add(1), ..entry.place };
                    Some(Entry { body: person.taken_out(&entry.body)?, place })
                });
                journal.append(stream, without.collect()).await?;
            }
            journal.remove(stream, places).await?;
        }
    }

    async fn answers(&self, person: &Person) -> Result<u64, StoreError> {
        let (mut changed, mut behind) = (0, None::<String>);
        loop {
            let page = self.stores.documents.list(Shelf::Answer, "", behind.as_deref(), AT_ONCE).await?;
            let Some(last) = page.last() else { return Ok(changed) };
            behind = Some(last.name.clone());
            for document in &page {
                if let Some(body) = person.taken_out(&document.body) {
                    self.stores.documents.put(Shelf::Answer, &document.name, &body).await?;
                    changed += 1;
                }
            }
        }
    }

    async fn copies(&self, needed: &[String], report: &mut ErasureReport) {
        let mut kept = 0;
        for copies in &self.copies {
            match copies.remove_unneeded(needed).await {
                Ok(done) => {
                    report.copies += done.removed;
                    kept += done.kept;
                }
                Err(fault) => {
                    let why = format!("copies of lists could not be removed: {}", fault.context);
                    report.left.push(Left { what: "copies".into(), why });
                }
            }
        }
        if kept > 0 {
            let why = format!(
                "{kept} copies of lists are kept, because a batch that is not prepared yet needs them, or they were used in the \
                 last minutes: repeat the erasure later"
            );
            report.left.push(Left { what: "copies".into(), why });
        }
    }

    /// Who did what is kept as it is; how often it names the number is said.
    async fn audit(&self, person: &Person, report: &mut ErasureReport) -> Result<(), StoreError> {
        let (mut named, mut behind) = (0u64, None::<Place>);
        loop {
            let page = self.stores.journal.list(Stream::Audit, "", behind.as_ref(), AT_ONCE, Direction::Forward).await?;
            let Some(last) = page.last() else { break };
            behind = Some(last.place.clone());
            named += page.iter().filter(|entry| person.is_in(&entry.body)).count() as u64;
        }
        if named > 0 {
            let why = format!("{named} entries of the audit name the number until retention.audit_days have passed");
            report.left.push(Left { what: "audit".into(), why });
        }
        Ok(())
    }
}
