//! Orders: commands of an operator that take more than one write. The batch's row carries a pending one until it is carried out
//! in every lane, so that whoever began it may die: anybody can finish it, and the batch is not dispatched before.

use serde::{Deserialize, Serialize};

use super::batch::{BatchRow, Command};
use super::code::Code;
use super::id::Msisdn;
use super::limits::ORDERS_KEPT;
use super::outcome::Outcome;
use super::schedule::LateStart;
use super::state::{Refusal, StepEvent};
use super::step::CurrentStep;
use super::time::Timestamp;
use super::window::RetryEntry;

/// Whom an operator wants to be sent again. Nobody whom an account took, or may have taken, is ever named by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryWhat {
    /// Everybody whose outcome is "failed".
    Failed,
    /// Everybody who was never taken and whom no account refused for good: expired, left unsent, given up after transient
    /// refusals.
    Unsent,
    /// Those of both whom a filter lets through.
    Filter(RetryFilter),
}

/// A filter of recipients; what is empty lets everybody through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RetryFilter {
    /// Codes they failed with.
    pub codes: Vec<Code>,
    /// Accounts they were declared for last.
    pub accounts: Vec<String>,
    /// The protocol's own codes they were refused with.
    pub details: Vec<String>,
    /// Their numbers.
    pub numbers: Vec<Msisdn>,
}

impl RetryWhat {
    /// Whether a recipient is named by everything but its number. `code` is why it failed.
    pub fn names(&self, outcome: Outcome, code: Option<Code>, account: Option<&str>, detail: &str) -> bool {
        let failed = outcome == Outcome::Failed;
        let unsent = match outcome {
            Outcome::Expired | Outcome::Canceled => true,
            Outcome::Failed => matches!(code, Some(Code::BatchUnsent | Code::ProviderTransient)),
            Outcome::Open
            | Outcome::Accepted
            | Outcome::Uncertain
            | Outcome::Rejected
            | Outcome::Duplicate
            | Outcome::Suppressed => false,
        };
        match self {
            RetryWhat::Failed => failed,
            RetryWhat::Unsent => unsent,
            RetryWhat::Filter(filter) => {
                (failed || unsent)
                    && (filter.codes.is_empty() || code.is_some_and(|code| filter.codes.contains(&code)))
                    && (filter.accounts.is_empty() || account.is_some_and(|name| filter.accounts.iter().any(|one| one == name)))
                    && (filter.details.is_empty() || filter.details.iter().any(|one| one == detail))
            }
        }
    }

    /// The only numbers it names; `None` when it names people by other things.
    pub fn numbers(&self) -> Option<&[Msisdn]> {
        match self {
            RetryWhat::Filter(filter) if !filter.numbers.is_empty() => Some(&filter.numbers),
            RetryWhat::Failed | RetryWhat::Unsent | RetryWhat::Filter(_) => None,
        }
    }
}

/// A recipient that an order to send again names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Who, and which parts.
    pub entry: RetryEntry,
    /// The account that took the other parts, through which alone these may go; `None` when the whole message is sent.
    pub account: Option<String>,
}

/// What an order does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// What is left goes through another provider type.
    ChangeProvider {
        /// The type before.
        from: String,
        /// The type after.
        to: String,
    },
    /// Some recipients are sent again.
    Retry {
        /// Whom.
        what: RetryWhat,
        /// Counts the batch's orders of this kind, from 1.
        round: u8,
        /// Until when they may be sent; `None` leaves it as it was.
        not_after: Option<Timestamp>,
    },
}

/// An order that is being carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The key its caller chose for it.
    pub id: String,
    /// Digest of what was asked for: the same key with another request is refused.
    pub digest: String,
    /// When it was given.
    pub at: Timestamp,
    /// The dispatch it made out of date is the one before this.
    pub task_number: u64,
    /// What it does.
    pub work: Work,
}

/// An order that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Its key.
    pub id: String,
    /// Its digest.
    pub digest: String,
    /// When it was given.
    pub at: Timestamp,
    /// Recipients it named; `None` for a change of provider.
    pub recipients: Option<u64>,
}

/// The orders of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Orders {
    /// The one that is being carried out.
    pub pending: Option<Order>,
    /// The newest that were carried out, oldest first.
    pub carried: Vec<Carried>,
    /// Orders to send again so far.
    pub retries: u8,
    /// Provider types before it was changed, each once: their receipts still come.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<String>,
}

/// Why an order changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderRefusal {
    /// It was given before: it is pending, or was carried out.
    Already,
    /// Another order was given with its key.
    OtherRequest,
    /// Another order, with this key, is being carried out.
    Busy(String),
    /// The batch's state does not allow it.
    State(Refusal),
    /// There were as many orders to send again as there may be.
    TooMany,
}

impl Orders {
    /// Whether an order may be given under a key.
    pub fn check(&self, id: &str, digest: &str) -> Result<(), OrderRefusal> {
        let known = self.pending.iter().map(|order| (&order.id, &order.digest));
        let mut known = known.chain(self.carried.iter().map(|carried| (&carried.id, &carried.digest)));
        match known.find(|(other, _)| *other == id) {
            Some((_, other)) if other == digest => return Err(OrderRefusal::Already),
            Some(_) => return Err(OrderRefusal::OtherRequest),
            None => {}
        }
        self.pending.as_ref().map_or(Ok(()), |order| Err(OrderRefusal::Busy(order.id.clone())))
    }
}

impl BatchRow {
    /// The row after an order to send what is left through the provider type `to`. At the delivery step it is pending: the
    /// lanes are still to be fenced.
    pub fn order_change(&self, id: &str, digest: &str, to: &str, now: Timestamp) -> Result<BatchRow, OrderRefusal> {
        self.orders.check(id, digest)?;
        self.can(Command::ChangeProvider).map_err(OrderRefusal::State)?;
        let mut next = self.clone();
        next.task_number += 1;
        let from = std::mem::replace(&mut next.batch.provider_type, to.to_owned());
        if !next.orders.before.contains(&from) {
            next.orders.before.push(from.clone());
        }
        let work = Work::ChangeProvider { from, to: to.to_owned() };
        let (id, digest, task_number) = (id.to_owned(), digest.to_owned(), next.task_number);
        next.orders.pending = Some(Order { id: id.clone(), digest, at: now, task_number, work });
        if self.current_step == CurrentStep::Preparation {
            next = next.order_carried(&id, None).unwrap_or(next);
        }
        Ok(next)
    }

    /// The row after an order to send some recipients again, which is pending: the lanes are still to name them.
    pub fn order_retry(
        &self,
        id: &str,
        digest: &str,
        what: RetryWhat,
        not_after: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<BatchRow, OrderRefusal> {
        self.orders.check(id, digest)?;
        self.can(Command::Retry).map_err(OrderRefusal::State)?;
        let round = self.orders.retries.checked_add(1).ok_or(OrderRefusal::TooMany)?;
        let mut next = self.after(StepEvent::Retry, None, now).map_err(OrderRefusal::State)?;
        if not_after.is_some() {
            next.batch.not_after = not_after;
            if next.batch.late_start == LateStart::Send {
                // Said of the limit before, by whoever created or resumed the batch. This one counts.
                next.batch.late_start = LateStart::Hold;
            }
        }
        next.orders.retries = round;
        let work = Work::Retry { what, round, not_after };
        let (id, digest, task_number) = (id.to_owned(), digest.to_owned(), next.task_number);
        next.orders.pending = Some(Order { id, digest, at: now, task_number, work });
        Ok(next)
    }

    /// The row after its pending order was carried out; `None` when it is not pending any more.
    pub fn order_carried(&self, id: &str, recipients: Option<u64>) -> Option<BatchRow> {
        let mut next = self.clone();
        let order = next.orders.pending.take_if(|order| order.id == id)?;
        next.orders.carried.push(Carried { id: order.id, digest: order.digest, at: order.at, recipients });
        let too_many = next.orders.carried.len().saturating_sub(ORDERS_KEPT);
        next.orders.carried.drain(..too_many);
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::batch::tests::batch;
    use crate::model::state::StepState;

    const NOW: Timestamp = Timestamp(5);

    fn row(state: StepState) -> BatchRow {
        let mut row = BatchRow::created(batch(), String::new(), Timestamp(0));
        row.current_step = CurrentStep::Delivery;
        row.delivery.state = state;
        row
    }

    #[test]
    fn an_order_is_given_once_whatever_became_of_it() {
        let retry = |row: &BatchRow, id, digest| row.order_retry(id, digest, RetryWhat::Failed, None, NOW);
        let ordered = retry(&row(StepState::CompletedSucceeded), "k", "d").expect("ordered");
        assert_eq!((ordered.delivery.state, ordered.task_number, ordered.orders.retries), (StepState::Ready, 1, 1));
        assert_eq!(retry(&ordered, "k", "d"), Err(OrderRefusal::Already));
        assert_eq!(retry(&ordered, "k", "e"), Err(OrderRefusal::OtherRequest));
        assert_eq!(retry(&ordered, "l", "d"), Err(OrderRefusal::Busy("k".into())));
        let carried = ordered.order_carried("k", Some(3)).expect("carried out");
        assert_eq!(carried.order_carried("k", Some(3)), None);
        assert_eq!(retry(&carried, "k", "d"), Err(OrderRefusal::Already));
        assert_eq!(retry(&carried, "l", "d"), Err(OrderRefusal::State(Refusal::NotFrom)), "it is READY now");
    }

    #[test]
    fn a_limit_that_a_retry_brings_counts_whatever_was_said_of_the_one_before() {
        let retried = |late_start, not_after| {
            let mut row = row(StepState::CompletedSucceeded);
            (row.batch.not_after, row.batch.late_start) = (Some(Timestamp(2)), late_start);
            let row = row.order_retry("k", "d", RetryWhat::Unsent, not_after, NOW).expect("ordered");
            (row.batch.not_after, row.batch.late_start)
        };
        use LateStart::{Cancel, Hold, Send};
        assert_eq!(retried(Send, Some(Timestamp(9))), (Some(Timestamp(9)), Hold));
        assert_eq!(retried(Send, None), (Some(Timestamp(2)), Send));
        assert_eq!(retried(Cancel, Some(Timestamp(9))), (Some(Timestamp(9)), Cancel));
    }

    #[test]
    fn the_states_that_allow_an_order() {
        let changed = |state| row(state).order_change("k", "d", "other", NOW).map(|row| row.batch.provider_type);
        let retried = |state| row(state).order_retry("k", "d", RetryWhat::Unsent, None, NOW).map(|row| row.delivery.state);
        use StepState::{Canceled, CompletedFailed, CompletedSucceeded, Initial, Paused, Ready, Running};
        for state in [Initial, Ready, Paused] {
            assert_eq!(changed(state), Ok("other".into()));
            assert_eq!(retried(state), Err(OrderRefusal::State(Refusal::NotFrom)));
        }
        assert_eq!(changed(Running), Err(OrderRefusal::State(Refusal::NotFrom)));
        assert_eq!(retried(Canceled), Err(OrderRefusal::State(Refusal::Final)));
        for state in [CompletedSucceeded, CompletedFailed] {
            assert_eq!(changed(state), Err(OrderRefusal::State(Refusal::Final)));
            assert_eq!(retried(state), Ok(Ready));
        }
        let mut preparing = BatchRow::created(batch(), String::new(), Timestamp(0));
        let changed = preparing.order_change("k", "d", "other", NOW).expect("nothing is prepared yet");
        assert!(changed.orders.pending.is_none(), "there is no lane to fence");
        preparing.preparation.state = Ready;
        assert_eq!(preparing.order_change("k", "d", "other", NOW), Err(OrderRefusal::State(Refusal::NotFrom)));
    }

    #[test]
    fn nobody_is_named_whom_an_account_took_or_may_have_taken() {
        let filter = |codes: &[Code], accounts: &[&str], details: &[&str]| {
            RetryWhat::Filter(RetryFilter {
                codes: codes.to_vec(),
                accounts: accounts.iter().map(ToString::to_string).collect(),
                details: details.iter().map(ToString::to_string).collect(),
                numbers: vec![],
            })
        };
        let all = [RetryWhat::Failed, RetryWhat::Unsent, filter(&[], &[], &[])];
        for outcome in [Outcome::Accepted, Outcome::Uncertain, Outcome::Suppressed, Outcome::Rejected, Outcome::Duplicate] {
            assert!(!all.iter().any(|what| what.names(outcome, None, Some("a"), "")), "{outcome:?}");
        }
        let refused = |what: &RetryWhat| what.names(Outcome::Failed, Some(Code::ProviderRefused), Some("a"), "0x0B");
        assert_eq!(all.each_ref().map(refused), [true, false, true]);
        let given_up = |what: &RetryWhat| what.names(Outcome::Failed, Some(Code::ProviderTransient), Some("a"), "");
        assert_eq!(all.each_ref().map(given_up), [true, true, true]);
        let cases = [
            (filter(&[Code::ProviderRefused], &["a"], &["0x0B"]), true),
            (filter(&[Code::NotEncodable], &[], &[]), false),
            (filter(&[], &["b"], &[]), false),
            (filter(&[], &[], &["0x45"]), false),
        ];
        for (what, expected) in cases {
            assert_eq!(refused(&what), expected, "{what:?}");
        }
    }
}
