//! Changing a control row: load, decide, compare-and-set, and settle an unknown answer by reading before anything else.

use std::time::Duration;

use super::metrics;
use super::mutation::{self, Bug};
use super::retry::Schedule;
use crate::ports::clock::Chance;
use crate::ports::control::{AfterUnknown, Cas, ControlRows, Versioned, after_unknown};
use crate::ports::{Retry, StoreError};

/// The first wait after a store did not do what it was asked, and the longest.
const WAIT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// Changes the row of `key` to what `decide` makes of it, and gives back the row as it is stored then.
///
/// `decide` sees the newest row and is called again whenever somebody else was faster; its refusal is the inner error and
/// nothing is changed. Answers of "later" and a full disk are waited out for as long as the caller keeps waiting: drop the
/// future to give up (whether the change in flight was applied is then open).
///
/// An unknown answer is settled by reading: applied, or sent again with the same nonce so that it is applied at most once.
///
/// # Errors
/// [`StoreError::Unknown`] comes out only when an unanswered change was followed by somebody else's: whether mine came
/// before theirs cannot be seen, and the caller holds nothing any more. [`StoreError::Corrupt`] when the row cannot be
/// read, or there is none.
pub async fn change<K, T, R>(
    rows: &dyn ControlRows<K, T>,
    key: K,
    chance: &dyn Chance,
    decide: impl FnMut(&Versioned<T>) -> Result<T, R> + Send,
) -> Result<Result<Versioned<T>, R>, StoreError>
where
    K: Send + Sync + Copy + 'static,
    T: Send + Sync + Clone + 'static,
    R: Send,
{
    change_from(rows, key, chance, None, decide).await
}

/// [`change`] by somebody who holds the row as it was after the last change and need not read it first: an owner changes
/// its own row many times in a row.
///
/// # Errors
/// As for [`change`].
pub async fn change_from<K, T, R>(
    rows: &dyn ControlRows<K, T>,
    key: K,
    chance: &dyn Chance,
    mut held: Option<Versioned<T>>,
    mut decide: impl FnMut(&Versioned<T>) -> Result<T, R> + Send,
) -> Result<Result<Versioned<T>, R>, StoreError>
where
    K: Send + Sync + Copy + 'static,
    T: Send + Sync + Clone + 'static,
    R: Send,
{
    let mut waiting = Waiting::new(chance);
    loop {
        let current = match held.take() {
            Some(held) => held,
            None => load(rows, key, &mut waiting).await?.ok_or_else(|| StoreError::Corrupt("there is no such row".into()))?,
        };
        let next = match decide(&current) {
            Ok(next) => next,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let nonce = chance.next();
        let mut version = current.version;
        if mutation::is_on(Bug::NoCondition) {
            version = load(rows, key, &mut waiting).await?.map_or(version, |row| row.version);
        }
        match replace(rows, key, version, &next, nonce, &mut waiting).await? {
            Cas::Applied => return Ok(Ok(Versioned { version: version + 1, nonce, row: next })),
            Cas::Refused => metrics::count(&metrics::STORE_CONFLICTS, &[], 1),
        }
    }
}

/// Creates the row of `key` if there is none. `Refused` means that there is a row, which may have been this caller's own
/// that somebody changed since.
///
/// # Errors
/// [`StoreError::Corrupt`] when the row cannot be read.
pub async fn create<K, T>(rows: &dyn ControlRows<K, T>, key: K, chance: &dyn Chance, row: &T) -> Result<Cas, StoreError>
where
    K: Send + Sync + Copy + 'static,
    T: Send + Sync + Clone + 'static,
{
    let mut waiting = Waiting::new(chance);
    let nonce = chance.next();
    let mut unsettled = false;
    loop {
        match rows.insert(key, row, nonce).await {
            Ok(Cas::Refused) if unsettled => {}
            Ok(answer) => return Ok(answer),
            Err(error) => {
                unsettled |= matches!(error, StoreError::Unknown(_));
                waiting.wait(error).await?;
            }
        }
        if unsettled {
            match after_unknown(load(rows, key, &mut waiting).await?.as_ref(), 0, nonce) {
                AfterUnknown::Applied => return Ok(Cas::Applied),
                AfterUnknown::SendAgain => {}
                AfterUnknown::Lost => return Ok(Cas::Refused),
            }
        }
    }
}

/// One change under one nonce, until it is known what became of it. `Refused` only while it was certainly not applied.
async fn replace<K, T>(
    rows: &dyn ControlRows<K, T>,
    key: K,
    expected: u64,
    next: &T,
    nonce: u64,
    waiting: &mut Waiting<'_>,
) -> Result<Cas, StoreError>
where
    K: Send + Sync + Copy + 'static,
    T: Send + Sync + Clone + 'static,
{
    let mut unsettled = false;
    loop {
        match rows.replace(key, expected, next, nonce).await {
            Ok(Cas::Applied) => return Ok(Cas::Applied),
            // After an unknown answer a refusal may be due to my own change, applied late.
            Ok(Cas::Refused) if unsettled => {}
            Ok(Cas::Refused) => return Ok(Cas::Refused),
            Err(error) => {
                let unknown = matches!(error, StoreError::Unknown(_));
                if unknown && mutation::is_on(Bug::UnknownIsApplied) {
                    return Ok(Cas::Applied);
                }
                waiting.wait(error).await?;
                // It certainly did not happen, and time has passed: the caller decides afresh.
                if !unknown && !unsettled || mutation::is_on(Bug::UnknownIsRefused) {
                    return Ok(Cas::Refused);
                }
                unsettled = true;
            }
        }
        match after_unknown(load(rows, key, waiting).await?.as_ref(), expected, nonce) {
            AfterUnknown::Applied => return Ok(Cas::Applied),
            AfterUnknown::SendAgain => {}
            AfterUnknown::Lost => {
                return Err(StoreError::Unknown("the row changed after a change of mine that was never answered".into()));
            }
        }
    }
}

/// The row, waited for.
pub async fn load_row<K, T>(rows: &dyn ControlRows<K, T>, key: K, chance: &dyn Chance) -> Result<Option<Versioned<T>>, StoreError>
where
    K: Send + Sync + Copy + 'static,
    T: Send + Sync + Clone + 'static,
{
    load(rows, key, &mut Waiting::new(chance)).await
}

async fn load<K, T>(rows: &dyn ControlRows<K, T>, key: K, waiting: &mut Waiting<'_>) -> Result<Option<Versioned<T>>, StoreError>
where
    K: Send + Sync + Copy + 'static,
    T: Send + Sync + Clone + 'static,
{
    loop {
        match rows.load(key).await {
            Ok(row) => return Ok(row),
            Err(error) => waiting.wait(error).await?,
        }
    }
}

/// The waits of one change. The seed is drawn at the first wait, so that a change without trouble draws only its nonce.
struct Waiting<'a> {
    chance: &'a dyn Chance,
    schedule: Option<Schedule>,
}

impl<'a> Waiting<'a> {
    fn new(chance: &'a dyn Chance) -> Waiting<'a> {
        Waiting { chance, schedule: None }
    }

    /// Waits as long as `error` asks for, or gives it back when waiting cannot help.
    async fn wait(&mut self, error: StoreError) -> Result<(), StoreError> {
        let least = match error.retry() {
            Retry::Never => return Err(error),
            Retry::Now => Duration::ZERO,
            Retry::After(least) => least,
        };
        metrics::count(&metrics::STORE_ERRORS, &[error.code().as_str()], 1);
        if self.schedule.is_none() {
            tracing::warn!(code = %error.code(), %error, "a control row has to wait for the store");
        }
        let schedule = self.schedule.get_or_insert_with(|| Schedule::new(WAIT.0, WAIT.1, self.chance.next()));
        let delay = schedule.next_delay().map_or(least, |delay| delay.max(least));
        tokio::time::sleep(delay).await;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A poisoned lock means that a test has failed already.
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::*;
    use crate::adapters::system::SeededChance;
    use crate::model::id::BatchId;

    /// What becomes of one conditional write.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Fate {
        Fine,
        Unavailable,
        Full,
        /// Unknown, and it was applied.
        Applied,
        /// Unknown, and it never happens.
        Dropped,
        /// Unknown, and it is applied just before the next write arrives.
        Late,
        /// Unknown, applied, and somebody else changed the row behind it.
        Overtaken,
        /// Somebody else changed the row first.
        Beaten,
        /// Unknown, not applied, and somebody else changed the row.
        DroppedAndBeaten,
        Corrupt,
    }

    /// One row whose writes meet their fates in order, then go well.
    #[derive(Default)]
    struct Row {
        row: Mutex<Option<Versioned<u64>>>,
        fates: Mutex<VecDeque<Fate>>,
        late: Mutex<Option<(u64, u64, u64)>>,
        applied: Mutex<Vec<u64>>,
    }

    impl Row {
        fn with(start: u64, fates: &[Fate]) -> Row {
            let row = Row { fates: Mutex::new(fates.iter().copied().collect()), ..Row::default() };
            *row.row.lock().unwrap() = (start > 0).then_some(Versioned { version: 1, nonce: 0, row: start });
            row
        }

        fn write(&self, expected: u64, value: u64, nonce: u64) -> Cas {
            let mut row = self.row.lock().unwrap();
            if row.as_ref().map_or(0, |row| row.version) != expected {
                return Cas::Refused;
            }
            *row = Some(Versioned { version: expected + 1, nonce, row: value });
            self.applied.lock().unwrap().push(nonce);
            Cas::Applied
        }

        fn somebody_else(&self) {
            let mut row = self.row.lock().unwrap();
            let (version, value) = row.as_ref().map_or((0, 0), |row| (row.version, row.row));
            *row = Some(Versioned { version: version + 1, nonce: 99, row: value + 1_000 });
        }

        fn meet(&self, expected: u64, value: u64, nonce: u64) -> Result<Cas, StoreError> {
            if let Some((expected, value, nonce)) = self.late.lock().unwrap().take() {
                self.write(expected, value, nonce);
            }
            let unknown = || Err(StoreError::Unknown("no answer".into()));
            match self.fates.lock().unwrap().pop_front().unwrap_or(Fate::Fine) {
                Fate::Fine => Ok(self.write(expected, value, nonce)),
                Fate::Unavailable => Err(StoreError::Unavailable("later".into())),
                Fate::Full => Err(StoreError::Full("no room".into())),
                Fate::Corrupt => Err(StoreError::Corrupt("unreadable".into())),
                Fate::Applied => {
                    self.write(expected, value, nonce);
                    unknown()
                }
                Fate::Dropped => unknown(),
                Fate::Late => {
                    *self.late.lock().unwrap() = Some((expected, value, nonce));
                    unknown()
                }
                Fate::Overtaken => {
                    self.write(expected, value, nonce);
                    self.somebody_else();
                    unknown()
                }
                Fate::Beaten => {
                    self.somebody_else();
                    Ok(self.write(expected, value, nonce))
                }
                Fate::DroppedAndBeaten => {
                    self.somebody_else();
                    unknown()
                }
            }
        }
    }

    #[async_trait::async_trait]
    impl ControlRows<u8, u64> for Row {
        async fn load(&self, _: u8) -> Result<Option<Versioned<u64>>, StoreError> {
            Ok(self.row.lock().unwrap().clone())
        }

        async fn insert(&self, _: u8, row: &u64, nonce: u64) -> Result<Cas, StoreError> {
            self.meet(0, *row, nonce)
        }

        async fn replace(&self, _: u8, expected: u64, row: &u64, nonce: u64) -> Result<Cas, StoreError> {
            self.meet(expected, *row, nonce)
        }

        async fn list(&self, _: BatchId) -> Result<Vec<(u8, Versioned<u64>)>, StoreError> {
            Ok(vec![])
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_applied_once_whatever_the_store_answers() {
        use Fate::*;
        // The fates, then the row's value (each change adds 1, somebody else adds 1,000) and how often it was decided.
        let cases: &[(&[Fate], u64, u32)] = &[
            (&[], 11, 1),
            (&[Unavailable, Full], 11, 3),
            (&[Applied], 11, 1),
            (&[Dropped], 11, 1),
            (&[Dropped, Dropped, Applied], 11, 1),
            (&[Late], 11, 1),
            (&[Late, Late], 11, 1),
            (&[Dropped, Unavailable, Late], 11, 1),
            (&[Beaten, Beaten], 2_011, 3),
            (&[Beaten, Applied], 1_011, 2),
        ];
        for &(fates, value, decisions) in cases {
            let row = Row::with(10, fates);
            let mut decided = 0;
            let changed = change(&row, 1, &SeededChance::from_seed(7), |current| {
                decided += 1;
                Ok::<u64, ()>(current.row + 1)
            })
            .await;
            let stored = row.row.lock().unwrap().clone().expect("the row is there");
            assert_eq!(changed, Ok(Ok(stored.clone())), "{fates:?}");
            assert_eq!((stored.row, decided), (value, decisions), "{fates:?}");
            assert_eq!(row.applied.lock().unwrap().len(), 1, "{fates:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_overtaken_while_unanswered_holds_nothing() {
        for fates in [&[Fate::Overtaken][..], &[Fate::DroppedAndBeaten], &[Fate::Dropped, Fate::Overtaken]] {
            let row = Row::with(10, fates);
            let changed = change(&row, 1, &SeededChance::from_seed(7), |current| Ok::<u64, ()>(current.row + 1)).await;
            assert!(matches!(changed, Err(StoreError::Unknown(_))), "{fates:?}: {changed:?}");
            assert!(row.applied.lock().unwrap().len() <= 1, "{fates:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_and_a_missing_or_broken_row_change_nothing() {
        let chance = SeededChance::from_seed(7);
        let row = Row::with(10, &[Fate::Beaten]);
        // The second decision sees what somebody else made of the row.
        let refused = change(&row, 1, &chance, |row| if row.row < 1_000 { Ok(row.row + 1) } else { Err(row.row) }).await;
        assert_eq!(refused, Ok(Err(1_010)));
        let missing = change(&Row::default(), 1, &chance, |row| Ok::<u64, ()>(row.row)).await;
        assert!(matches!(missing, Err(StoreError::Corrupt(_))));
        let broken = change(&Row::with(10, &[Fate::Corrupt]), 1, &chance, |row| Ok::<u64, ()>(row.row)).await;
        assert!(matches!(broken, Err(StoreError::Corrupt(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_row_is_created_once() {
        use Fate::*;
        let cases: &[(u64, &[Fate], Cas, u64)] = &[
            (0, &[], Cas::Applied, 5),
            (0, &[Unavailable, Applied], Cas::Applied, 5),
            (0, &[Dropped, Late], Cas::Applied, 5),
            (0, &[Beaten], Cas::Refused, 1_000),
            (0, &[DroppedAndBeaten], Cas::Refused, 1_000),
            (0, &[Overtaken], Cas::Refused, 1_005),
            (3, &[], Cas::Refused, 3),
        ];
        for &(start, fates, answer, value) in cases {
            let row = Row::with(start, fates);
            assert_eq!(create(&row, 1, &SeededChance::from_seed(7), &5).await, Ok(answer), "{fates:?}");
            assert_eq!(row.row.lock().unwrap().as_ref().map(|row| row.row), Some(value), "{fates:?}");
        }
    }
}
