//! One lane read from the store: what each of its recipients came to, folded over the windows it was in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::account::{Account, LongMessage, ReceiptRules};
use crate::model::answer::Answer;
use crate::model::code::Code;
use crate::model::id::LaneKey;
use crate::model::ledger::Ledger;
use crate::model::outcome::{Fold, Outcome};
use crate::model::pack::{Manifest, PackKey};
use crate::model::receipt::{Delivery, Report, Rung, delivery, stands};
use crate::model::time::Timestamp;
use crate::model::window::{Answered, all_parts};
use crate::ports::receipts::{MatchedReport, UNKNOWN_PART};
use crate::ports::windows::StoredWindow;
use crate::ports::{StoreError, Stores};

/// Windows read at once: each holds up to 2,000 recipients, and a store in the process reads them without waiting for anything.
const WINDOWS_PER_PAGE: usize = 8;
/// Reports read at once.
pub const REPORTS_PER_PAGE: usize = 4_096;
/// Different protocol details kept for a lane; a provider that invents texts must not fill memory.
const DETAILS_MAX: usize = 512;

/// A recipient while its lane is read; small, so that a whole lane fits in memory.
#[derive(Clone, Debug, Default)]
pub struct Person {
    /// The fold over its windows.
    pub fold: Fold,
    /// The last account it was declared for, as an index into [`Lane::accounts`]; meaningless while `declared` is `None`.
    pub account: u16,
    /// What the protocol said when it refused, as an index into [`Lane::details`].
    detail: u16,
    /// When its last window was declared.
    pub declared: Option<Timestamp>,
    /// The last account that took a part of it, as an index into [`Lane::accounts`]; meaningless while none did.
    taken: u16,
    /// Whether it is in a window that is still open: its end is not known, even if the lane was closed.
    pub in_flight: bool,
}

/// Something that happened to a recipient in a window; kept only when history is asked for.
#[derive(Clone, Debug)]
pub struct WindowEvent {
    /// The recipient's place.
    pub seq: u32,
    /// When the window was declared, or judged.
    pub at: Timestamp,
    /// The account, as an index into [`Lane::accounts`].
    pub account: u16,
    /// The part and its answer; `None` when the window was judged and nobody had answered.
    pub answered: Option<(u8, Answer)>,
}

/// Of whom a lane keeps what happened. It is several times as much as what they came to.
pub enum History {
    /// Of nobody.
    None,
    /// Of everybody.
    All,
    /// Of the recipients at these places.
    Of(BTreeSet<u32>),
}

impl History {
    /// Whether it is kept of this one.
    pub fn keeps(&self, seq: u32) -> bool {
        match self {
            History::None => false,
            History::All => true,
            History::Of(places) => places.contains(&seq),
        }
    }
}

/// A lane as the store has it.
pub struct Lane {
    /// Which lane.
    pub key: LaneKey,
    /// Its ledger, read before the windows: what is closed in it is complete in them.
    pub ledger: Option<Ledger>,
    /// Its manifest.
    pub manifest: Option<Arc<Manifest>>,
    /// Its recipients by place, struck-out ones included.
    pub people: Vec<Person>,
    /// Accounts that its windows name.
    pub accounts: Vec<String>,
    rules: Vec<AccountRules>,
    /// Protocol details; the first is empty.
    pub details: Vec<Box<str>>,
    /// Segments taken, by account; those of `payload` are not in it.
    pub segments: Vec<u64>,
    /// Messages taken whole by accounts that split themselves: their segments are known from the pack alone.
    pub payload: Vec<(u32, u16)>,
    /// What happened, by place and then by time, when it was asked for.
    pub events: Vec<WindowEvent>,
    /// Parts that uncertain recipients' messages were prepared with, where there are several.
    prepared: BTreeMap<u32, u8>,
}

impl Lane {
    /// Reads a lane, and the events of whom `history` names.
    pub async fn load(
        stores: &Stores,
        accounts: &BTreeMap<String, Account>,
        key: LaneKey,
        history: &History,
    ) -> Result<Lane, StoreError> {
        let ledger = stores.ledgers.load(key).await?.map(|stored| stored.row);
        let manifest = stores.manifests.get(key).await?;
        let len = manifest.as_ref().map_or(0, |manifest| manifest.len());
        let mut lane = Lane {
            key,
            ledger,
            manifest,
            people: vec![Person::default(); len as usize],
            accounts: vec![],
            rules: vec![],
            details: vec!["".into()],
            segments: vec![],
            payload: vec![],
            events: vec![],
            prepared: BTreeMap::new(),
        };
        let mut from = 0;
        loop {
            let page = stores.windows.list(key, from, WINDOWS_PER_PAGE).await?;
            let Some(last) = page.last().map(|window| window.key.window) else { break };
            let is_full = page.len() == WINDOWS_PER_PAGE;
            for window in page {
                lane.fold_window(window, accounts, history);
            }
            // Behind the last name there can be there is nothing.
            let Some(next) = last.checked_add(1) else { break };
            from = next;
            if is_full {
                // Others on this thread have a turn before more of a long lane is read.
                tokio::task::yield_now().await;
            }
        }
        lane.mark_in_flight(stores).await?;
        lane.read_prepared(stores).await?;
        lane.events.sort_by_key(|event| event.seq);
        Ok(lane)
    }

    /// Where a recipient ends, and why when it failed.
    pub fn outcome(&self, seq: u32) -> (Outcome, Option<Code>) {
        if self.manifest.as_ref().is_some_and(|manifest| manifest.is_struck(seq)) {
            return (Outcome::Duplicate, None);
        }
        match self.people.get(seq as usize) {
            Some(person) if person.in_flight => match person.fold.outcome(false) {
                (Outcome::Accepted, code) => (Outcome::Accepted, code),
                // What an earlier try came to is not the end while another is in flight.
                _ => (Outcome::Open, None),
            },
            Some(person) => person.fold.outcome(self.is_closed()),
            None => (Outcome::Open, None),
        }
    }

    /// What is not there of the lane, by which it would be known who was sent: whoever was declared is in a window that is
    /// open, or in the rows of one that was closed. `None` when all of it is.
    pub fn missing(&self) -> Option<&'static str> {
        let ledger = self.ledger.as_ref().filter(|ledger| ledger.len > 0)?;
        let Some(manifest) = &self.manifest else { return Some("its manifest is not there") };
        let untold = |(seq, person): (u32, &Person)| person.declared.is_none() && !person.in_flight && !manifest.is_struck(seq);
        let declared = self.people.iter().take(ledger.first_pass() as usize);
        (0u32..).zip(declared).any(untold).then_some("what happened to people who were declared is not there")
    }

    /// Whether the lane was fenced for good.
    pub fn is_closed(&self) -> bool {
        self.ledger.as_ref().is_some_and(|ledger| ledger.closed)
    }

    /// Whether nothing will happen in the lane any more but by late answers and receipts.
    pub fn is_done(&self) -> bool {
        self.ledger.as_ref().is_some_and(Ledger::is_done)
    }

    /// The account a recipient was last declared for.
    pub fn account_of(&self, person: &Person) -> Option<&str> {
        person.declared.and_then(|_| self.accounts.get(usize::from(person.account))).map(String::as_str)
    }

    /// The last account that took a part of a recipient's message; meaningless when none did.
    pub fn taken_by(&self, person: &Person) -> Option<&str> {
        self.accounts.get(usize::from(person.taken)).map(String::as_str)
    }

    /// What the protocol said when it refused a recipient; empty when it said nothing.
    pub fn detail_of(&self, person: &Person) -> &str {
        self.details.get(usize::from(person.detail)).map_or("", |detail| detail)
    }

    /// Whether a receipt may still settle where a recipient ends.
    pub fn is_in_doubt(&self, seq: u32) -> bool {
        let in_doubt = |person: &Person| person.fold.outcome(self.is_closed() && !person.in_flight).0 == Outcome::Uncertain;
        self.people.get(seq as usize).is_some_and(in_doubt)
    }

    /// Takes in a recipient's reports: settles what was uncertain, and says what they mean together. `reports` may be
    /// empty. `None` for a recipient that no account took.
    pub fn take_reports(
        &mut self,
        accounts: &BTreeMap<String, Account>,
        seq: u32,
        reports: &[MatchedReport],
        now: Timestamp,
    ) -> Option<Delivery> {
        let (closed, in_doubt) = (self.is_closed(), self.is_in_doubt(seq));
        let person = self.people.get(seq as usize)?;
        let index = match (person.declared, reports.first()) {
            (Some(_), _) => person.account,
            (None, Some(report)) => self.account_index(accounts, &report.account),
            (None, None) => return None,
        };
        let rules = self.rules.get(usize::from(index))?;
        let person = self.people.get_mut(seq as usize)?;
        let ended = closed && !person.in_flight;
        let receipts = &rules.receipts;
        let prepared = if rules.payload { 1 } else { self.prepared.get(&seq).copied().unwrap_or(1) };
        // Once a part was taken, the account has said how many there are; another may have split the message otherwise.
        let guessed = in_doubt && person.fold.accepted_parts() == 0;
        let parts = if guessed { person.fold.parts.max(prepared) } else { person.fold.parts };
        let told = by_part(&person.fold, reports, parts, receipts.one_per_message);
        if in_doubt && !told.is_empty() {
            // A late receipt proves that the network took the part; one that stands for the whole message proves it for all.
            let before = person.fold.accepted_parts();
            person.fold.parts = told.iter().map(|(part, _)| part + 1).max().unwrap_or(0).max(parts).clamp(1, 32);
            // A part that no receipt is about stays in doubt, unless it was refused.
            person.fold.in_doubt(all_parts(person.fold.parts) & !person.fold.refused_parts());
            for part in 0..person.fold.parts {
                if receipts.one_per_message || told.iter().any(|(told, _)| *told == part) {
                    person.fold.receipt(part);
                }
            }
            let taken = (person.fold.accepted_parts() & !before).count_ones();
            if rules.payload {
                self.payload.push((seq, index));
            } else {
                self.segments[usize::from(index)] += u64::from(taken);
            }
        }
        if person.fold.outcome(ended).0 != Outcome::Accepted {
            return None;
        }
        let waited = !receipts.wanted || person.declared.is_some_and(|at| now >= at.plus(receipts.wait));
        Some(delivery(person.fold.parts, &standing(&told), receipts.one_per_message, receipts.acceptd_is_final, waited))
    }

    fn account_index(&mut self, accounts: &BTreeMap<String, Account>, name: &str) -> u16 {
        let at = self.accounts.iter().position(|known| known == name).unwrap_or_else(|| {
            self.accounts.push(name.to_owned());
            self.segments.push(0);
            self.rules.push(AccountRules::of(accounts, name));
            self.accounts.len() - 1
        });
        u16::try_from(at).unwrap_or(u16::MAX)
    }

    fn detail_index(&mut self, detail: &str) -> u16 {
        let at = self.details.iter().position(|known| &**known == detail).unwrap_or_else(|| {
            if self.details.len() < DETAILS_MAX {
                self.details.push(detail.into());
            } else if self.details.len() == DETAILS_MAX {
                self.details.push("another detail".into());
            }
            self.details.len() - 1
        });
        u16::try_from(at).unwrap_or(0)
    }

    fn fold_window(&mut self, stored: StoredWindow, accounts: &BTreeMap<String, Account>, history: &History) {
        let StoredWindow { row, judgement, .. } = stored;
        // The declarer's own answers, however late, win over the judgement.
        let mut answered: HashMap<u32, (u32, u8, Option<Code>)> = HashMap::new();
        for answer in row.iter().filter(|_| judgement.is_some()).flat_map(|row| &row.answers) {
            let (bits, parts, unsent) = answered.entry(answer.seq).or_default();
            *bits |= 1u32.checked_shl(u32::from(answer.part)).unwrap_or(0);
            *parts = answer.parts;
            match answer.answer {
                Answer::NotNow { .. } => *unsent = Some(Code::ProviderTransient),
                Answer::NotSent => *unsent = Some(Code::BatchUnsent),
                _ => {}
            }
        }
        if let Some(row) = row {
            let account = self.account_index(accounts, &row.window.account);
            for answered in row.answers {
                self.fold_answer(answered, account, row.window.declared_at, history);
            }
        }
        let Some(judgement) = judgement else { return };
        let account = self.account_index(accounts, &judgement.window.account);
        // One part refused ends a recipient; what of it was never answered may have been sent all the same.
        for (seq, (bits, parts, _)) in &answered {
            if let Some(person) = self.people.get_mut(*seq as usize) {
                person.fold.in_doubt(all_parts(*parts) & !bits);
            }
        }
        for &seq in &judgement.unanswered {
            let Some(person) = self.people.get_mut(seq as usize) else { continue };
            // What was taken before was not asked for again.
            let taken = person.fold.accepted_parts();
            let late = answered.get(&seq).filter(|(bits, parts, _)| (bits | taken) & all_parts(*parts) == all_parts(*parts));
            let whole = late.is_some();
            if whole {
                // The window was judged and closed, so what its declarer found out too late is not tried again.
                if let Some(code) = late.and_then(|(_, _, unsent)| *unsent) {
                    person.fold.left_unsent(code);
                }
                continue;
            }
            person.fold.unanswered();
            person.account = account;
            person.declared = Some(judgement.window.declared_at);
            if history.keeps(seq) {
                self.events.push(WindowEvent { seq, at: judgement.judged_at, account, answered: None });
            }
        }
    }

    fn fold_answer(&mut self, answered: Answered, account: u16, at: Timestamp, history: &History) {
        // A place or part that cannot be is a damaged row; what it says about others still counts.
        if answered.seq as usize >= self.people.len() || answered.part >= 32 {
            return;
        }
        let detail = match &answered.answer {
            Answer::Failed { detail, .. } => Some(self.detail_index(detail)),
            _ => None,
        };
        if matches!(answered.answer, Answer::Accepted { .. }) {
            if self.rules[usize::from(account)].payload {
                self.payload.push((answered.seq, account));
            } else {
                self.segments[usize::from(account)] += 1;
            }
        }
        let person = &mut self.people[answered.seq as usize];
        person.fold.answer(&answered);
        if matches!(answered.answer, Answer::Accepted { .. }) {
            person.taken = account;
        }
        person.account = account;
        person.declared = Some(at);
        if let Some(detail) = detail {
            person.detail = detail;
        }
        if history.keeps(answered.seq) {
            let answered_part = Some((answered.part, answered.answer));
            self.events.push(WindowEvent { seq: answered.seq, at, account, answered: answered_part });
        }
    }

    /// Reads how many parts the messages of uncertain recipients have: no answer said so.
    async fn read_prepared(&mut self, stores: &Stores) -> Result<(), StoreError> {
        let Some(manifest) = self.manifest.clone() else { return Ok(()) };
        for pack in &manifest.packs {
            let places = pack.first_seq as usize..(pack.first_seq + pack.count) as usize;
            let people = self.people.get(places).unwrap_or_default();
            let in_doubt = |person: &Person| person.fold.outcome(false).0 == Outcome::Uncertain;
            if !people.iter().any(in_doubt) {
                continue;
            }
            let key = PackKey { lane: self.key, range: pack.range, attempt: pack.attempt, n: pack.n };
            let head = match stores.packs.head(key).await {
                Ok(head) => head.unwrap_or_default(),
                Err(StoreError::Corrupt(_)) => continue,
                Err(error) => return Err(error),
            };
            let parts = people.iter().zip(head.segments).enumerate();
            let several = parts.filter(|(_, (person, parts))| in_doubt(person) && *parts > 1);
            self.prepared.extend(several.map(|(at, (_, parts))| (pack.first_seq + at as u32, parts)));
        }
        Ok(())
    }

    async fn mark_in_flight(&mut self, stores: &Stores) -> Result<(), StoreError> {
        let open = self.ledger.as_ref().map(|ledger| ledger.open.clone()).unwrap_or_default();
        for window in open {
            if window.leg == 0 {
                for person in self.people.iter_mut().take(window.to as usize).skip(window.from as usize) {
                    person.in_flight = true;
                }
                continue;
            }
            let Some(pack) = stores.windows.retry(self.key, window.leg).await? else { continue };
            for entry in pack.entries.iter().take(window.to as usize).skip(window.from as usize) {
                if let Some(person) = self.people.get_mut(entry.seq as usize) {
                    person.in_flight = true;
                }
            }
        }
        Ok(())
    }
}

/// What counting must know of an account. One that is no longer configured has the default rules.
#[derive(Clone, Debug, Default)]
struct AccountRules {
    receipts: ReceiptRules,
    /// Whether it splits long messages itself, so that one answer stands for several segments.
    payload: bool,
}

impl AccountRules {
    fn of(accounts: &BTreeMap<String, Account>, name: &str) -> AccountRules {
        accounts.get(name).map_or_else(AccountRules::default, |account| AccountRules {
            receipts: account.receipts.clone(),
            payload: account.capabilities.long_message == LongMessage::Payload,
        })
    }
}

/// The reports of a recipient with the part each is about. A report that was found by its number alone does not say which: each
/// different one stands for a part that has no report yet: parts that are known to be taken first, then those in doubt. A part that
/// was refused has none.
fn by_part<'a>(fold: &Fold, reports: &'a [MatchedReport], parts: u8, one_per_message: bool) -> Vec<(u8, &'a Report)> {
    let known = |matched: &&MatchedReport| one_per_message || matched.part.part != UNKNOWN_PART;
    let mut assigned: Vec<(u8, &Report)> = reports
        .iter()
        .filter(known)
        .map(|matched| (if one_per_message { 0 } else { matched.part.part.min(31) }, &matched.report))
        .collect();
    let mut places: BTreeMap<&str, u8> = assigned.iter().map(|(part, report)| (report.message_id.as_str(), *part)).collect();
    for matched in reports.iter().filter(|matched| !known(matched)) {
        let free = |part: &u8| !assigned.iter().any(|(taken, _)| taken == part);
        let rank = |part: &u8| {
            let is_in = |parts: u32| parts & (1 << part) != 0;
            (!is_in(fold.accepted_parts()), !is_in(fold.uncertain_parts()), *part)
        };
        let next = (0..parts.clamp(1, 32)).filter(free).min_by_key(rank);
        let id = matched.report.message_id.as_str();
        let Some(part) = places.get(id).copied().or(next) else { continue };
        places.insert(id, part);
        assigned.push((part, &matched.report));
    }
    assigned
}

/// The standing rung of each part.
fn standing(reports: &[(u8, &Report)]) -> Vec<(u8, Rung)> {
    let mut best: BTreeMap<u8, &Report> = BTreeMap::new();
    for (part, report) in reports {
        best.entry(*part).and_modify(|known| *known = stands(known, report)).or_insert(report);
    }
    best.into_iter().map(|(part, report)| (part, report.rung)).collect()
}
