//! Whose report is it: by our own reference, by message id in one of its forms, or as the only uncertain recipient it fits.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::reference::References;
use crate::model::account::Account;
use crate::model::id::Msisdn;
use crate::model::idform::{FORMS, IdForm, indexed};
use crate::model::receipt::Report;
use crate::ports::receipts::{PartKey, UNKNOWN_PART};
use crate::ports::{StoreError, Stores};

/// Matches of one form, with none of another, after which an account's form counts as learned.
const LEARNED_AFTER: u32 = 20;

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

/// Finds the recipients of an account's reports; `None` where there is none. `now` is a clock that only grows.
pub async fn find(
    stores: &Stores,
    known: &Known,
    now: Duration,
    account: &Account,
    reports: &[&Report],
) -> Result<Vec<Option<PartKey>>, StoreError> {
    let forms = &known.forms;
    let mut found: Vec<Option<PartKey>> = vec![None; reports.len()];
    for (found, report) in found.iter_mut().zip(reports) {
        if let Some(reference) = &report.reference {
            *found = known.references.find(stores, now, account, reference).await?;
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
        let open: Vec<(usize, String, Option<Msisdn>)> = reports
            .iter()
            .enumerate()
            .filter(|(at, report)| found[*at].is_none() && (!needs_number || report.number.is_some()))
            .filter_map(|(at, report)| Some((at, indexed(&report.message_id, form)?, report.number)))
            .collect();
        if open.is_empty() {
            continue;
        }
        let ids: Vec<(String, Option<Msisdn>)> = open.iter().map(|(_, id, number)| (id.clone(), *number)).collect();
        let candidates = stores.receipt_index.find(&account.name, &ids).await?;
        let mut matches = 0;
        for ((at, ..), candidates) in open.into_iter().zip(candidates) {
            if let Some(newest) = candidates.first() {
                found[at] = Some(*newest);
                matches += 1;
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

/// The one uncertain recipient that a report without a known id fits: same account and number, handed over before the
/// report came and not longer ago than receipts are waited for. None when it fits several.
pub async fn only_uncertain(stores: &Stores, account: &Account, report: &Report) -> Result<Option<PartKey>, StoreError> {
    let Some(number) = report.number else { return Ok(None) };
    let slack = Duration::from_secs(60);
    let fits = stores
        .receipt_index
        .uncertain(&account.name, number)
        .await?
        .into_iter()
        .filter(|entry| {
            entry.declared_at <= report.received.plus(slack)
                && report.received.since(entry.declared_at) <= account.receipts.wait + slack
        })
        .map(|entry| entry.part.recipient);
    let mut recipients: Vec<_> = fits.collect();
    recipients.sort_unstable();
    recipients.dedup();
    let only = if recipients.len() == 1 { recipients.pop() } else { None };
    Ok(only.map(|recipient| PartKey { recipient, part: UNKNOWN_PART }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_learned_only_when_nothing_speaks_against_it() {
        let forms = Forms::default();
        assert_eq!(forms.vote("a", IdForm::HexThenDecimal, LEARNED_AFTER - 1), None);
        assert_eq!(forms.vote("a", IdForm::HexThenDecimal, 1), Some(IdForm::HexThenDecimal));
        assert_eq!(forms.vote("b", IdForm::Same, 1), None);
        assert_eq!(forms.vote("b", IdForm::HexThenDecimal, 100), None, "ids of both forms came");
    }
}
