//! After a restore: whatever the lost part of the store may have handed over becomes uncertain, before anything is sent
//! (rule 9).
//!
//! The store is as it was at the backup. What was declared then is known and judged as ever; what was not declared then may
//! have been declared, sent and answered since. Nobody can tell, so those recipients are held as uncertain, findable by a
//! late receipt. Each lane is one judgement under the name that the ledger's next change gives it, and then that change, so
//! running it again after a crash does the same again.

use serde::{Deserialize, Serialize};

use crate::model::answer::Answer;
use crate::model::batch::BatchRow;
use crate::model::code::{Code, Fault};
use crate::model::id::{LaneKey, Msisdn, RecipientKey, WindowKey, WorkerId};
use crate::model::ledger::{Ledger, OpenWindow};
use crate::model::order::Work;
use crate::model::pack::PackKey;
use crate::model::state::StepEvent;
use crate::model::time::Timestamp;
use crate::model::window::Judgement;
use crate::ports::control::{Cas, Versioned};
use crate::ports::receipts::{PartKey, UncertainEntry};
use crate::ports::{StoreError, Stores, World};
use crate::runtime::control::change;
use crate::runtime::mutation::{self, Bug};

/// Batches read at once.
const PAGE: usize = 200;

/// What a recovery came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// Batches looked at.
    pub batches: u64,
    /// Batches that were not sealed yet, and therefore ended.
    pub ended: u64,
    /// Recipients that are uncertain now.
    pub uncertain: u64,
}

/// Recovers a store that was backed up at `since`, and accepts it. No fleet may run over it. `accounts` names each account
/// with its provider type, so that a late receipt finds its recipient.
///
/// # Errors
/// The store's; running it again is safe. A batch whose row cannot be read is left out of the list, and nobody sends it either.
pub async fn recover(
    stores: &Stores,
    world: &World,
    accounts: &[(String, String)],
    since: Timestamp,
) -> Result<Recovered, Fault> {
    let (mut recovered, mut behind) = (Recovered::default(), None);
    loop {
        let (page, next) = stores.batch_index.list(behind, PAGE).await?;
        for listed in page {
            recovered.batches += 1;
            if may_have_been_sent(&listed.row, world.clock.now()) {
                batch(stores, world, accounts, &listed.row, since, &mut recovered).await?;
            }
        }
        behind = next;
        if behind.is_none() {
            break;
        }
    }
    stores.meta.accept().await?;
    Ok(recovered)
}

/// Whether anything of a batch may have been handed over between the backup and now. A `not_after` that had passed at the backup
/// says nothing: the batch may send all the same, a person may have resumed it since, and a retry brings a limit of its own.
fn may_have_been_sent(row: &BatchRow, now: Timestamp) -> bool {
    row.batch.schedule_time.is_none_or(|at| at <= now)
}

async fn batch(
    stores: &Stores,
    world: &World,
    accounts: &[(String, String)],
    row: &BatchRow,
    since: Timestamp,
    recovered: &mut Recovered,
) -> Result<(), Fault> {
    if row.sealed.is_none() {
        if !row.preparation.state.is_final() {
            let why = "it was not sealed at the time of the backup, and may have been sent since".to_owned();
            let now = world.clock.now();
            let ended = change(&*stores.batches, row.batch.batch_id, &*world.chance, |current| {
                current.row.after(StepEvent::Fail, Some((Code::StoreStale, why.clone())), now)
            });
            recovered.ended += u64::from(ended.await?.is_ok());
        }
        return Ok(());
    }
    // Whatever it answers: a batch that is not there any more needs no mark.
    let _ = change(&*stores.batches, row.batch.batch_id, &*world.chance, |current| marked(&current.row, since)).await?;
    let mine: Vec<&str> =
        accounts.iter().filter(|(_, of)| *of == row.batch.provider_type).map(|(name, _)| name.as_str()).collect();
    for (key, ledger) in stores.ledgers.list(row.batch.batch_id).await? {
        recovered.uncertain += doubt_open(stores, key, &ledger.row, since).await?;
        if !ledger.row.closed && ledger.row.undeclared() > 0 {
            recovered.uncertain += lane(stores, world, (&mine, row.records), key, ledger, since).await?;
        }
    }
    Ok(())
}

/// The row of a restored batch, without the retry that was pending at the backup: it may have been carried out since, and a
/// new one is a person's to order.
fn marked(row: &BatchRow, since: Timestamp) -> Result<BatchRow, ()> {
    let retry = row.orders.pending.as_ref().filter(|order| matches!(order.work, Work::Retry { .. }));
    let row = retry.and_then(|order| row.order_carried(&order.id, Some(0))).unwrap_or_else(|| row.clone());
    Ok(BatchRow { restored_to: Some(since), ..row })
}

async fn lane(
    stores: &Stores,
    world: &World,
    (accounts, records): (&[&str], u64),
    key: LaneKey,
    ledger: Versioned<Ledger>,
    since: Timestamp,
) -> Result<u64, Fault> {
    let people = undeclared(stores, key, &ledger.row, records).await?;
    let name = ledger.version + 1;
    let window = OpenWindow {
        window: name,
        leg: 0,
        from: 0,
        to: ledger.row.len,
        account: accounts.first().map_or_else(String::new, |name| (*name).to_owned()),
        declarer: WorkerId(0),
        declared_at: since,
        send_by: since,
    };
    index(stores, accounts, key, &people, since).await?;
    let judgement = Judgement { window, judged_at: world.clock.now(), unanswered: people.clone() };
    stores.windows.put_judgement(WindowKey { lane: key, window: name }, &judgement).await?;
    let mut next = ledger.row.clone();
    next.legs.iter_mut().for_each(|leg| leg.declared = leg.len);
    // A leg stays while one of its windows is open: who judges the window reads it.
    next.legs.retain(|leg| next.open.iter().any(|open| open.leg == leg.id));
    next.totals.uncertain = next.totals.uncertain.saturating_add(people.len() as u64);
    match stores.ledgers.replace(key, ledger.version, &next, world.chance.next()).await? {
        Cas::Applied => Ok(people.len() as u64),
        Cas::Refused => Err(Fault::new(Code::StoreConflict, format!("lane {key} was changed while it was recovered"))),
    }
}

/// Whoever was not handed over, or told "not now", in a window that was open at the time of the backup may have been sent again
/// since: when the window is closed, they are in doubt like those without an answer. No fleet runs, so the row's one writer
/// is gone.
async fn doubt_open(stores: &Stores, lane: LaneKey, ledger: &Ledger, since: Timestamp) -> Result<u64, Fault> {
    let mut doubted = 0;
    if mutation::is_on(Bug::TrustOldAnswers) {
        return Ok(0);
    }
    for window in &ledger.open {
        let key = WindowKey { lane, window: window.window };
        let Some(mut row) = stores.windows.get(key).await?.and_then(|stored| stored.row) else { continue };
        let mut people = vec![];
        for answered in &mut row.answers {
            if matches!(answered.answer, Answer::NotSent | Answer::NotNow { .. }) {
                answered.answer = Answer::NoAnswer;
                people.push(answered.seq);
            }
        }
        people.sort_unstable();
        people.dedup();
        if !people.is_empty() {
            index(stores, &[&window.account], lane, &people, since).await?;
            stores.windows.put(key, &row, vec![]).await?;
            doubted += people.len() as u64;
        }
    }
    Ok(doubted)
}

/// Places of a lane that were not declared at the time of the backup, of all its legs. A lane has no more of them than its manifest,
/// or, where that is lost, than its batch has `records`: a ledger that says otherwise is damaged, and no room is made by it.
async fn undeclared(stores: &Stores, key: LaneKey, ledger: &Ledger, records: u64) -> Result<Vec<u32>, Fault> {
    let mut people = vec![];
    for leg in ledger.legs.iter().filter(|leg| leg.declared < leg.len) {
        if leg.id == 0 {
            let manifest = stores.manifests.get(key).await?;
            let most = manifest.as_ref().map_or(records, |manifest| u64::from(manifest.len()));
            if u64::from(leg.len) > most {
                let context = format!("the ledger of lane {key} has {} places, and the lane {most}", leg.len);
                return Err(Fault::new(Code::StoreCorrupt, context));
            }
            let manifest = manifest.unwrap_or_default();
            people.extend((leg.declared..leg.len).filter(|seq| !manifest.is_struck(*seq)));
        } else if let Some(pack) = stores.windows.retry(key, leg.id).await? {
            people.extend(pack.entries.iter().skip(leg.declared as usize).map(|entry| entry.seq));
        }
    }
    people.sort_unstable();
    people.dedup();
    Ok(people)
}

/// Makes people findable by number, at each of these accounts. Only those that may have taken them, for all the backup says, are
/// named: at others a receipt of another campaign, which is lost itself, would settle somebody who got nothing.
async fn index(stores: &Stores, accounts: &[&str], key: LaneKey, people: &[u32], since: Timestamp) -> Result<(), Fault> {
    let Some(manifest) = stores.manifests.get(key).await? else { return Ok(()) };
    for pack in &manifest.packs {
        let of_pack =
            people.partition_point(|seq| *seq < pack.first_seq)..people.partition_point(|seq| *seq < pack.first_seq + pack.count);
        let name = PackKey { lane: key, range: pack.range, attempt: pack.attempt, n: pack.n };
        let head = match stores.packs.head(name).await {
            Ok(head) => head.unwrap_or_default(),
            // Its people are uncertain all the same; only their numbers are gone.
            Err(StoreError::Corrupt(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        let entries = people[of_pack].iter().flat_map(|seq| {
            let number = head.numbers.get((seq - pack.first_seq) as usize).copied().filter(|number| *number != Msisdn::ERASED.0);
            let part = PartKey { recipient: RecipientKey { lane: key, seq: *seq }, part: 0 };
            accounts.iter().filter_map(move |account| {
                let account = (*account).to_owned();
                Some(UncertainEntry { account, number: Msisdn(number?), part, declared_at: since })
            })
        });
        let entries: Vec<UncertainEntry> = entries.collect();
        if !entries.is_empty() {
            stores.receipt_index.put_uncertain(entries).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::memory::clock::SimClock;
    use crate::adapters::memory::store::MemoryStore;
    use crate::adapters::system::SeededChance;
    use crate::model::answer::NotNow;
    use crate::model::batch::SealedPlan;
    use crate::model::batch::tests::batch as asked;
    use crate::model::pack::{Manifest, ManifestPack};
    use crate::model::schedule::LateStart;
    use crate::model::state::StepState;
    use crate::model::step::CurrentStep;
    use crate::model::window::{Answered, WindowRow};

    #[tokio::test]
    async fn who_was_not_handed_over_in_a_window_open_at_the_backup_is_in_doubt() {
        let stores = MemoryStore::new(std::sync::Arc::new(SeededChance::from_seed(1))).stores();
        let lane = LaneKey { batch: crate::model::id::BatchId(7), lane: 0 };
        let window = OpenWindow {
            window: 4,
            leg: 0,
            from: 0,
            to: 3,
            account: "main".into(),
            declarer: WorkerId(9),
            declared_at: Timestamp(50),
            send_by: Timestamp(60),
        };
        let not_now = Answer::NotNow { kind: NotNow::Throttled, detail: "".into() };
        let answers = [Answer::Accepted { id: "x".into() }, not_now, Answer::NotSent];
        let answers = answers.into_iter().enumerate();
        let answers = answers.map(|(seq, answer)| Answered { seq: seq as u32, part: 0, parts: 1, answer }).collect();
        let (key, row) = (WindowKey { lane, window: 4 }, WindowRow { window: window.clone(), answers, complete: true });
        stores.windows.put(key, &row, vec![]).await.expect("it is put");
        let ledger = Ledger { open: vec![window], ..Ledger::sealed(3) };
        assert_eq!(doubt_open(&stores, lane, &ledger, Timestamp(100)).await.expect("it works"), 2);
        let row = stores.windows.get(key).await.expect("it reads").and_then(|stored| stored.row).expect("a row");
        let answers: Vec<Answer> = row.answers.into_iter().map(|answered| answered.answer).collect();
        assert_eq!(answers, [Answer::Accepted { id: "x".into() }, Answer::NoAnswer, Answer::NoAnswer]);
        assert_eq!(doubt_open(&stores, lane, &ledger, Timestamp(100)).await.expect("it works"), 0, "once is enough");
    }

    /// A sealed batch with one lane of three, which nobody has declared, and whose limit was over before the backup.
    async fn restored(state: StepState, late_start: LateStart) -> (Stores, World, LaneKey) {
        let stores = MemoryStore::new(std::sync::Arc::new(SeededChance::from_seed(1))).stores();
        let clock = std::sync::Arc::new(SimClock::new(Timestamp(200)));
        let world = World { clock, chance: std::sync::Arc::new(SeededChance::from_seed(2)) };
        let mut row = BatchRow::created(asked(), String::new(), Timestamp(0));
        (row.batch.not_after, row.batch.late_start) = (Some(Timestamp(50)), late_start);
        (row.current_step, row.delivery.state, row.lanes) = (CurrentStep::Delivery, state, 1);
        row.sealed = Some(SealedPlan::default());
        let lane = LaneKey { batch: row.batch.batch_id, lane: 0 };
        let ledger = Ledger::sealed(if state.is_final() { 0 } else { 3 });
        stores.batches.insert(lane.batch, &row, 1).await.expect("inserted");
        let packs = vec![ManifestPack { range: 0, attempt: 1, n: 0, first_seq: 0, count: 3 }];
        stores.manifests.put(lane, &Manifest { packs, ..Manifest::default() }).await.expect("stored");
        stores.ledgers.insert(lane, &ledger, 1).await.expect("inserted");
        (stores, world, lane)
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_may_have_been_sent_behind_not_after_is_in_doubt() {
        // One goes on whatever the time, the other may have been resumed since.
        for (state, late_start) in [(StepState::Running, LateStart::Send), (StepState::Paused, LateStart::Hold)] {
            let (stores, world, lane) = restored(state, late_start).await;
            let recovered = recover(&stores, &world, &[], Timestamp(100)).await.expect("it works");
            assert_eq!(recovered.uncertain, 3, "{state:?} {late_start:?}");
            let ledger = stores.ledgers.load(lane).await.expect("read").expect("there").row;
            assert_eq!((ledger.undeclared(), ledger.totals.uncertain), (0, 3), "{state:?} {late_start:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_ledger_that_is_longer_than_its_lane_is_damaged_and_nobody_makes_room_for_it() {
        let (stores, world, lane) = restored(StepState::Running, LateStart::Send).await;
        stores.ledgers.replace(lane, 1, &Ledger::sealed(u32::MAX), 2).await.expect("replaced");
        let fault = recover(&stores, &world, &[], Timestamp(100)).await.expect_err("it is damaged");
        assert_eq!(fault.code, Code::StoreCorrupt);
        // Its manifest is lost: the batch's records are all that is known.
        let other = LaneKey { lane: 1, ..lane };
        assert!(undeclared(&stores, other, &Ledger::sealed(u32::MAX), 3).await.is_err());
        assert_eq!(undeclared(&stores, other, &Ledger::sealed(3), 3).await.expect("all of them"), [0, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_ended_before_its_not_after_is_marked_for_a_retry_may_be_lost() {
        let (stores, world, lane) = restored(StepState::CompletedSucceeded, LateStart::Hold).await;
        recover(&stores, &world, &[], Timestamp(100)).await.expect("it works");
        let row = stores.batches.load(lane.batch).await.expect("read").expect("there").row;
        assert_eq!(row.restored_to, Some(Timestamp(100)));
    }

    #[test]
    fn only_what_cannot_have_been_sent_is_left_alone() {
        for (schedule, may) in [(None, true), (Some(150), true), (Some(200), true), (Some(201), false)] {
            let mut batch = asked();
            batch.schedule_time = schedule.map(Timestamp);
            let row = BatchRow::created(batch, String::new(), Timestamp(0));
            assert_eq!(may_have_been_sent(&row, Timestamp(200)), may, "{schedule:?}");
        }
    }
}
