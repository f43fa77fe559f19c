//! Messages of several parts, and accounts of one type that split them otherwise: who had a part taken by one account gets the
//! others through it, or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::fakes::{Bed, WINDOW, not_now, taken};
use crate::batch::RetryRequest;
use crate::model::account::LongMessage;
use crate::model::answer::{Answer, NotNow};
use crate::model::batch::BatchRow;
use crate::model::code::Code;
use crate::model::order::RetryWhat;
use crate::model::outcome::Outcome;
use crate::model::state::StepState;

/// Texts of three parts, and two accounts of the batch's type: one takes them part by part, the other whole.
async fn two_accounts(people: u32) -> Bed {
    Bed::with_both(&[people], |batch, main, other| {
        batch.content = "x".repeat(400);
        (main.capabilities.long_message, other.capabilities.long_message) = (LongMessage::Udh8, LongMessage::Payload);
        other.provider_type.clone_from(&main.provider_type);
    })
    .await
}

/// The account that takes messages part by part answers to the second part so, once; all else is taken.
fn second_part_is(bed: &Bed, answer: Answer) {
    let mut told = BTreeSet::new();
    bed.answers(move |submit| {
        let second = submit.parts == 0b10 && told.insert(submit.number);
        (Duration::from_millis(20), if second { answer.clone() } else { taken(submit) })
    });
}

/// What each person was sent, by account, in order.
fn sent(bed: &Bed) -> BTreeMap<u64, Vec<(String, u32)>> {
    let mut sent: BTreeMap<u64, Vec<(String, u32)>> = BTreeMap::new();
    bed.got().into_iter().for_each(|got| sent.entry(got.submit.number.0).or_default().push((got.account, got.submit.parts)));
    sent
}

/// Everybody got all parts of one account once, the second one in a second try, or the whole message from the other.
#[track_caller]
fn nobody_got_more(bed: &Bed, people: u32) {
    let of = |account: &str, parts: &[u32]| parts.iter().map(|parts| (account.to_owned(), *parts)).collect::<Vec<_>>();
    let (in_parts, whole) = (of("main", &[0b1, 0b10, 0b100, 0b10]), of("other", &[0]));
    let sent = sent(bed);
    let wrong: Vec<_> = sent.iter().filter(|(_, sent)| **sent != in_parts && **sent != whole).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(sent.len() as u32, people);
    assert!(sent.values().any(|sent| *sent == in_parts), "nobody was told to wait");
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_message_waits_for_the_account_that_took_the_other_parts() {
    let bed = two_accounts(10 * WINDOW).await;
    second_part_is(&bed, not_now(NotNow::Throttled));
    let worker = bed.worker(1).await;
    bed.until("somebody waits for the second part", |ledger| ledger.legs.iter().any(|leg| leg.id != 0)).await;
    bed.is_up(false);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let ledger = bed.ledger().await;
    assert_eq!((ledger.first_pass(), ledger.open.len()), (10 * WINDOW, 0), "nobody else waits with them");
    assert!(ledger.legs.iter().all(|leg| leg.account.as_deref() == Some("main")) && ledger.undeclared() > 0, "{ledger:?}");
    bed.is_up(true);
    let ledger = bed.until_done().await;
    assert_eq!((ledger.totals.accepted, ledger.totals.uncertain), (u64::from(10 * WINDOW), 0));
    nobody_got_more(&bed, 10 * WINDOW);
    let settlement = bed.recount().await;
    assert_eq!(settlement.of(Outcome::Accepted), u64::from(10 * WINDOW), "{settlement:?}");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_message_fails_when_the_account_that_took_the_other_parts_is_gone() {
    let mut bed = two_accounts(WINDOW).await;
    second_part_is(&bed, not_now(NotNow::Throttled));
    let first = bed.worker(1).await;
    let ledger = bed.until("they wait for the second part", |ledger| ledger.legs.iter().any(|leg| leg.id != 0)).await;
    assert_eq!((ledger.undeclared(), ledger.open.len()), (u64::from(WINDOW), 0));
    first.kill();
    let mut routes = (*bed.routes).clone();
    routes.remove("main");
    bed.routes = Arc::new(routes);
    let second = bed.worker(2).await;
    let ledger = bed.until_done().await;
    assert_eq!((ledger.totals.failed, ledger.totals.accepted), (u64::from(WINDOW), 0));
    assert!(sent(&bed).values().all(|sent| sent.len() == 3), "nothing went through the other account");
    let settlement = bed.recount().await;
    assert_eq!((settlement.of(Outcome::Failed), settlement.unaccounted()), (u64::from(WINDOW), 0), "{settlement:?}");
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_message_that_is_ordered_goes_through_the_account_that_took_the_other_parts() {
    let bed = two_accounts(WINDOW).await;
    second_part_is(&bed, Answer::Failed { code: Code::ProviderRefused, detail: "".into() });
    let worker = bed.worker(1).await;
    let ledger = bed.until_done().await;
    assert_eq!(ledger.totals.failed, u64::from(WINDOW));
    let is_now = async |state: StepState| {
        let with = |row: &BatchRow| {
            let mut row = row.clone();
            row.delivery.state = state;
            row
        };
        bed.change_row(with).await;
    };
    is_now(StepState::CompletedSucceeded).await;
    bed.is_up(false);
    let request = RetryRequest { what: RetryWhat::Failed, not_after: None };
    let answer = bed.service.retry(super::fakes::BATCH, &request, None, "order").await.expect("ordered");
    assert_eq!(answer.ordered, Some(u64::from(WINDOW)));
    is_now(StepState::Running).await;
    bed.give_all(&worker).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(bed.got().len() as u32, 3 * WINDOW, "the other account took none of it");
    bed.is_up(true);
    bed.until_done().await;
    nobody_got_more(&bed, WINDOW);
    worker.stop().await;
}
