//! Whose report is it: by our own reference, by message id in one of its forms, or as the only uncertain recipient it fits.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::reference::References;
use crate::model::account::Account;
use crate::model::id::Msisdn;
use crate::model::idform::{FORMS, IdForm, indexed};
use crate::model::inbound::meanings;
use crate::model::receipt::Report;
use crate::ports::receipts::{MatchedReport, PartKey, UNKNOWN_PART};
use crate::ports::{StoreError, Stores};

/// Matches of one form, with none of another, after which an account's form counts as learned.
const LEARNED_AFTER: u32 = 20;

/// Of somebody who was in doubt more often than so many times, the earlier reports of the last times are looked at.
const IN_DOUBT_MAX: usize = 16;

/// What is known of the accounts' id forms.
#[derive(Default)]
pub struct Forms(Mutex<BTreeMap<String, Learning>>);

#[derive(Clone, Default)]
struct Learning {
    learned: Option<IdForm>,
    votes: BTreeMap<IdForm, u32>,
}

impl Forms {
    /// The form to try first, and whether others are tried too.
    fn first(&self, account: &Account) -> (IdForm, bool) {
        match account.receipts.id_form {
            IdForm::Learn => {
                let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                let learning = all.get(&account.name).cloned().unwrap_or_default();
                let leader = learning.votes.iter().max_by_key(|(form, votes)| (**votes, std::cmp::Reverse(**form)));
                let first = learning.learned.or(leader.map(|(form, _)| *form)).unwrap_or(IdForm::Same);
                (first, learning.learned.is_none())
            }
            configured => (configured, false),
        }
    }

    /// Takes in matches of a form. Returns the form once it counts as learned.
    fn vote(&self, account: &str, form: IdForm, matches: u32) -> Option<IdForm> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let learning = all.entry(account.to_owned()).or_default();
        *learning.votes.entry(form).or_default() += matches;
        let alone = learning.votes.len() == 1;
        if learning.learned.is_none() && alone && learning.votes[&form] >= LEARNED_AFTER {
            learning.learned = Some(form);
            return Some(form);
        }
        None
    }

    /// Takes over what an earlier life learned.
    pub async fn load(&self, stores: &Stores, account: &str) -> Result<(), StoreError> {
        let stored = stores.meta.get(&name_of(account)).await?;
        if let Some(form) = stored.and_then(|name| FORMS.into_iter().find(|form| form.name() == name)) {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(account.to_owned()).or_default().learned = Some(form);
        }
        Ok(())
    }
}

fn name_of(account: &str) -> String {
    format!("id_form/{account}")
}

/// What helps to find recipients.
#[derive(Default)]
pub struct Known {
    /// The accounts' id forms.
    pub forms: Forms,
    /// The batches that references name.
    pub references: References,
}

/// Whom a report is about, and the number it names, as the whole number it turned out to be.
pub type Found = (PartKey, Option<Msisdn>);

/// Finds the recipients of an account's reports; `None` where there is none. `now` is a clock that only grows.
pub async fn find(
    stores: &Stores,
    known: &Known,
    now: Duration,
    account: &Account,
    reports: &[&Report],
) -> Result<Vec<Option<Found>>, StoreError> {
    let forms = &known.forms;
    let mut found: Vec<Option<Found>> = vec![None; reports.len()];
    for (found, report) in found.iter_mut().zip(reports) {
        if let Some(reference) = &report.reference {
            let part = known.references.find(stores, now, account, reference).await?;
            *found = part.map(|part| (part, report.number));
        }
    }
    let (first, others) = forms.first(account);
    let mut order = vec![first];
    if others {
        order.extend(FORMS.into_iter().filter(|form| *form != first));
    }
    for form in order {
        // Another form than the likely one may meet somebody else's id by chance: only with the number to prove it.
        let needs_number = form != first;
        // Many receipts may ask for the same: it is looked up once. What a number means as it is comes before what it means
        // with a country code: that is the longer.
        let mut reports_of: BTreeMap<(String, Option<Msisdn>), Vec<usize>> = BTreeMap::new();
        for (at, report) in reports.iter().enumerate().filter(|(at, _)| found[*at].is_none()) {
            let Some(id) = indexed(&report.message_id, form) else { continue };
            match report.number {
                Some(number) => meanings(number, &account.opt_out)
                    .for_each(|number| reports_of.entry((id.clone(), Some(number))).or_default().push(at)),
                None if needs_number => {}
                None => reports_of.entry((id, None)).or_default().push(at),
            }
        }
        if reports_of.is_empty() {
            continue;
        }
        let (ids, reports_of): (Vec<_>, Vec<_>) = reports_of.into_iter().unzip();
        let candidates = stores.receipt_index.find(&account.name, &ids).await?;
        let mut matches = 0;
        for (((_, number), places), candidates) in ids.iter().zip(reports_of).zip(candidates) {
            let Some(newest) = candidates.first() else { continue };
            for at in places {
                if found[at].is_none() {
                    matches += 1;
                    found[at] = Some((*newest, *number));
                }
            }
        }
        if others
            && matches > 0
            && let Some(learned) = forms.vote(&account.name, form, matches)
        {
            tracing::info!(account = account.name, form = learned.name(), "the form of message ids in receipts was learned");
            stores.meta.put(&name_of(&account.name), learned.name()).await?;
        }
    }
    Ok(found)
}

/// The one uncertain recipient that a report without a known id fits. First whom an earlier report of the same message was about, however
/// long ago: its answer, which would have named the id, never came. Else the only one with the same account and number who was
/// handed over before the report came and not longer ago than receipts are waited for. None when it fits several.
pub async fn only_uncertain(stores: &Stores, account: &Account, report: &Report) -> Result<Option<Found>, StoreError> {
    for number in report.number.into_iter().flat_map(|number| meanings(number, &account.opt_out)) {
        if let Some(part) = uncertain_with(stores, account, report, number).await? {
            return Ok(Some((part, Some(number))));
        }
    }
    Ok(None)
}

async fn uncertain_with(
    stores: &Stores,
    account: &Account,
    report: &Report,
    number: Msisdn,
) -> Result<Option<PartKey>, StoreError> {
    let slack = Duration::from_secs(60);
    // What is damaged tells nothing about this report, and keeps none of the others from being looked for.
    let mut entries = StoreError::unless_damaged(stores.receipt_index.uncertain(&account.name, number).await)?;
    entries.sort_unstable_by_key(|entry| std::cmp::Reverse((entry.declared_at, entry.part)));
    entries.dedup_by_key(|entry| entry.part.recipient);
    for recipient in entries.iter().take(IN_DOUBT_MAX).map(|entry| entry.part.recipient) {
        let told = StoreError::unless_damaged(stores.receipts.list(recipient.lane, recipient.seq, 1).await)?;
        let same = |told: &MatchedReport| {
            told.part.recipient == recipient
                && told.account == account.name
                && !report.message_id.is_empty()
                && told.report.message_id == report.message_id
        };
        if let Some(told) = told.iter().find(|told| same(told)) {
            return Ok(Some(told.part));
        }
    }
    let fits = entries.into_iter().filter(|entry| {
        entry.declared_at <= report.received.plus(slack)
            && report.received.since(entry.declared_at) <= account.receipts.wait + slack
    });
    let mut recipients: Vec<_> = fits.map(|entry| entry.part.recipient).collect();
    recipients.sort_unstable();
    recipients.dedup();
    let only = if recipients.len() == 1 { recipients.pop() } else { None };
    Ok(only.map(|recipient| PartKey { recipient, part: UNKNOWN_PART }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::memory::store::MemoryStore;
    use crate::adapters::system::SeededChance;
    use crate::model::id::{BatchId, LaneKey, RecipientKey, WindowKey, WorkerId};
    use crate::model::ledger::OpenWindow;
    use crate::model::limits::{CANDIDATES_MAX, REPORTS_PER_INTAKE};
    use crate::model::receipt::Rung;
    use crate::model::time::Timestamp;
    use crate::model::window::WindowRow;
    use crate::ports::receipts::IndexEntry;

    #[tokio::test]
    async fn of_messages_that_all_have_one_id_the_number_says_which_however_many_there_are() {
        let stores = MemoryStore::new(std::sync::Arc::new(SeededChance::from_seed(1))).stores();
        let lane = LaneKey { batch: BatchId(1), lane: 0 };
        let part = |seq| PartKey { recipient: RecipientKey { lane, seq }, part: 0 };
        let people = 4 * CANDIDATES_MAX as u32;
        let entry = |seq: u32| IndexEntry {
            account: "a".into(),
            message_id: "same".into(),
            number: Msisdn(8_613_800_000_000 + u64::from(seq)),
            part: part(seq),
        };
        let window = OpenWindow {
            window: 1,
            leg: 0,
            from: 0,
            to: people,
            account: "a".into(),
            declarer: WorkerId(1),
            declared_at: Timestamp(1),
            send_by: Timestamp(2),
        };
        let row = WindowRow { window, answers: vec![], complete: true };
        stores.windows.put(WindowKey { lane, window: 1 }, &row, (0..people).map(entry).collect()).await.expect("stored");
        // Everybody's report, the oldest's too, and many that have no number.
        let report = |at: u32| Report {
            message_id: "same".into(),
            number: (at < people).then(|| entry(at).number),
            reference: None,
            rung: Rung::Delivered,
            done: None,
            error: String::new(),
            raw: String::new(),
            received: Timestamp(3),
        };
        let reports: Vec<Report> = (0..REPORTS_PER_INTAKE as u32).map(report).collect();
        let account = crate::roles::config::AccountConfig::default().account("a");
        let reports: Vec<&Report> = reports.iter().collect();
        let found = find(&stores, &Known::default(), Duration::ZERO, &account, &reports).await.expect("the store answers");
        for (at, found) in (0u32..).zip(&found) {
            let seq = if at < people { at } else { people - 1 };
            assert_eq!(found.map(|found| found.0), Some(part(seq)), "report {at}");
        }
    }

    #[test]
    fn a_form_is_learned_only_when_nothing_speaks_against_it() {
        let forms = Forms::default();
        assert_eq!(forms.vote("a", IdForm::HexThenDecimal, LEARNED_AFTER - 1), None);
        assert_eq!(forms.vote("a", IdForm::HexThenDecimal, 1), Some(IdForm::HexThenDecimal));
        assert_eq!(forms.vote("b", IdForm::Same, 1), None);
        assert_eq!(forms.vote("b", IdForm::HexThenDecimal, 100), None, "ids of both forms came");
    }
}
