//! Windows' answers as columns, judgements, retry packs.

use serde::{Deserialize, Serialize};

use super::code::{code_of, number_of};
use super::column::{Texts, deltas, sums};
use super::frame::{block, corrupt, read_block, read_row_block};
use crate::model::answer::{Answer, NotNow};
use crate::model::id::WorkerId;
use crate::model::ledger::OpenWindow;
use crate::model::limits::WINDOW_RECIPIENTS_MAX;
use crate::model::time::Timestamp;
use crate::model::window::{Answered, Judgement, RetryEntry, RetryPack, WindowRow};
use crate::ports::StoreError;

const ROW: &str = "window";
const JUDGEMENT: &str = "judgement";
const RETRY: &str = "retry pack";
/// Parts are kept as bits of a `u32`, so no answer is about a later one. How many parts the message has is another matter: who is
/// asked for a part that its text does not have answers for that part all the same.
const PARTS_END: u8 = u32::BITS as u8;
/// A window with more answers than this was never written: two for each part of each recipient.
const ANSWERS_MAX: usize = 2 * PARTS_END as usize * WINDOW_RECIPIENTS_MAX as usize;

#[derive(Serialize, Deserialize)]
struct StoredWindow {
    window: u64,
    leg: u64,
    from: u32,
    to: u32,
    account: String,
    declarer: u64,
    declared_at: i64,
    send_by: i64,
}

#[derive(Serialize, Deserialize)]
struct StoredRow {
    window: StoredWindow,
    complete: bool,
    seqs: Vec<i64>,
    parts: Vec<u8>,
    of: Vec<u8>,
    /// See [`kind_of`].
    kinds: Vec<u8>,
    /// Ids of accepted ones, details of refused ones, in order.
    texts: Texts,
    /// Codes of those that failed, in order.
    codes: Vec<u16>,
}

#[derive(Serialize, Deserialize)]
struct StoredJudgement {
    window: StoredWindow,
    judged_at: i64,
    unanswered: Vec<i64>,
}

/// Writes a window's row.
pub fn write(row: &WindowRow) -> Vec<u8> {
    let answers = &row.answers;
    let (mut texts, mut codes) = (Texts::default(), Vec::new());
    for answered in answers {
        match &answered.answer {
            Answer::Accepted { id } => texts.push(id),
            Answer::Failed { code, detail } => {
                codes.push(number_of(*code));
                texts.push(detail);
            }
            Answer::NotNow { detail, .. } => texts.push(detail),
            Answer::NoAnswer | Answer::NotSent | Answer::Suppressed | Answer::Expired => {}
        }
    }
    block(&StoredRow {
        window: stored(&row.window),
        complete: row.complete,
        seqs: deltas(answers.iter().map(|answered| u64::from(answered.seq))),
        parts: answers.iter().map(|answered| answered.part).collect(),
        of: answers.iter().map(|answered| answered.parts).collect(),
        kinds: answers.iter().map(|answered| kind_of(&answered.answer)).collect(),
        texts,
        codes,
    })
}

/// Reads a window's row.
pub fn read(bytes: &[u8]) -> Result<WindowRow, StoreError> {
    let row: StoredRow = read_row_block(ROW, bytes)?;
    let count = row.seqs.len();
    if count > ANSWERS_MAX {
        return Err(corrupt(ROW, "it holds more answers than a window has"));
    }
    let seqs = sums(&row.seqs);
    if row.parts.iter().any(|part| *part >= PARTS_END) {
        return Err(corrupt(ROW, "it holds an answer about a part that no message has"));
    }
    if row.parts.len() != count || row.of.len() != count || row.kinds.len() != count {
        return Err(corrupt(ROW, "its columns differ in length"));
    }
    let (mut texts, mut codes) = (row.texts.iter(), row.codes.iter());
    let mut text = || texts.next().map(Box::from).ok_or_else(|| corrupt(ROW, "it lacks a text"));
    let mut answers = Vec::with_capacity(count);
    for (at, seq) in seqs.into_iter().enumerate() {
        let answer = match row.kinds[at] {
            0 => Answer::Accepted { id: text()? },
            1 => {
                let code = codes.next().ok_or_else(|| corrupt(ROW, "it lacks a code"))?;
                Answer::Failed { code: code_of(*code)?, detail: text()? }
            }
            2 => Answer::NoAnswer,
            3 => Answer::NotSent,
            4 => Answer::Suppressed,
            5 => Answer::Expired,
            16 => Answer::NotNow { kind: NotNow::Throttled, detail: text()? },
            17 => Answer::NotNow { kind: NotNow::QueueFull, detail: text()? },
            18 => Answer::NotNow { kind: NotNow::Transient, detail: text()? },
            19 => Answer::NotNow { kind: NotNow::Session, detail: text()? },
            _ => return Err(corrupt(ROW, "it holds an answer that this version does not know")),
        };
        let seq = u32::try_from(seq).map_err(|_| corrupt(ROW, "a place is too large"))?;
        answers.push(Answered { seq, part: row.parts[at], parts: row.of[at], answer });
    }
    Ok(WindowRow { window: opened(ROW, row.window)?, answers, complete: row.complete })
}

/// Writes a judgement.
pub fn write_judgement(judgement: &Judgement) -> Vec<u8> {
    block(&StoredJudgement {
        window: stored(&judgement.window),
        judged_at: judgement.judged_at.0,
        unanswered: deltas(judgement.unanswered.iter().map(|seq| u64::from(*seq))),
    })
}

/// Reads a judgement.
pub fn read_judgement(bytes: &[u8]) -> Result<Judgement, StoreError> {
    let row: StoredJudgement = read_block(JUDGEMENT, bytes)?;
    let unanswered: Result<Vec<u32>, _> = sums(&row.unanswered).into_iter().map(u32::try_from).collect();
    Ok(Judgement {
        window: opened(JUDGEMENT, row.window)?,
        judged_at: Timestamp(row.judged_at),
        unanswered: unanswered.map_err(|_| corrupt(JUDGEMENT, "a place is too large"))?,
    })
}

/// Writes a retry pack.
pub fn write_retry(pack: &RetryPack) -> Vec<u8> {
    let entries: Vec<(u32, u8, u32, u8)> =
        pack.entries.iter().map(|entry| (entry.seq, entry.tries, entry.parts, entry.round)).collect();
    block(&(entries,))
}

/// Reads a retry pack.
pub fn read_retry(bytes: &[u8]) -> Result<RetryPack, StoreError> {
    let (entries,): (Vec<(u32, u8, u32, u8)>,) = read_block(RETRY, bytes)?;
    Ok(RetryPack {
        entries: entries.into_iter().map(|(seq, tries, parts, round)| RetryEntry { seq, tries, parts, round }).collect(),
    })
}

/// The stored number of an answer's kind: part of the form, never given twice.
fn kind_of(answer: &Answer) -> u8 {
    match answer {
        Answer::Accepted { .. } => 0,
        Answer::Failed { .. } => 1,
        Answer::NoAnswer => 2,
        Answer::NotSent => 3,
        Answer::Suppressed => 4,
        Answer::Expired => 5,
        Answer::NotNow { kind: NotNow::Throttled, .. } => 16,
        Answer::NotNow { kind: NotNow::QueueFull, .. } => 17,
        Answer::NotNow { kind: NotNow::Transient, .. } => 18,
        Answer::NotNow { kind: NotNow::Session, .. } => 19,
    }
}

fn stored(window: &OpenWindow) -> StoredWindow {
    StoredWindow {
        window: window.window,
        leg: window.leg,
        from: window.from,
        to: window.to,
        account: window.account.clone(),
        declarer: window.declarer.0,
        declared_at: window.declared_at.0,
        send_by: window.send_by.0,
    }
}

fn opened(what: &str, window: StoredWindow) -> Result<OpenWindow, StoreError> {
    if window.to < window.from {
        return Err(corrupt(what, "it ends before it begins"));
    }
    Ok(OpenWindow {
        window: window.window,
        leg: window.leg,
        from: window.from,
        to: window.to,
        account: window.account,
        declarer: WorkerId(window.declarer),
        declared_at: Timestamp(window.declared_at),
        send_by: Timestamp(window.send_by),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::code::Code;

    fn window() -> OpenWindow {
        OpenWindow {
            window: 3,
            leg: 0,
            from: 10,
            to: 20,
            account: "a".into(),
            declarer: WorkerId(6),
            declared_at: Timestamp(1),
            send_by: Timestamp(2),
        }
    }

    fn row() -> WindowRow {
        let not_now = |kind| Answer::NotNow { kind, detail: "t".into() };
        let answers = [
            Answer::Accepted { id: "id1".into() },
            Answer::Failed { code: Code::ProviderRefused, detail: "0x0B".into() },
            Answer::NoAnswer,
            Answer::NotSent,
            Answer::Suppressed,
            Answer::Expired,
            not_now(NotNow::Throttled),
            not_now(NotNow::QueueFull),
            not_now(NotNow::Transient),
            not_now(NotNow::Session),
        ];
        let answered = |(at, answer)| Answered { seq: 19 - at as u32, part: 1, parts: 2, answer };
        WindowRow { window: window(), answers: answers.into_iter().enumerate().map(answered).collect(), complete: true }
    }

    #[test]
    fn windows_read_back_with_every_kind_of_answer() {
        assert_eq!(read(&write(&row())), Ok(row()));
        let judgement = Judgement { window: window(), judged_at: Timestamp(9), unanswered: vec![3, 1, 2] };
        assert_eq!(read_judgement(&write_judgement(&judgement)), Ok(judgement));
        let retry = RetryPack { entries: vec![RetryEntry { seq: 7, tries: 1, parts: 3, round: 2 }] };
        assert_eq!(read_retry(&write_retry(&retry)), Ok(retry));
    }

    #[test]
    fn a_window_that_ends_before_it_begins_is_damaged() {
        let damaged = || OpenWindow { from: 21, ..window() };
        assert!(matches!(read(&write(&WindowRow { window: damaged(), ..row() })), Err(StoreError::Corrupt(_))));
        let judgement = Judgement { window: damaged(), judged_at: Timestamp(9), unanswered: vec![] };
        assert!(matches!(read_judgement(&write_judgement(&judgement)), Err(StoreError::Corrupt(_))));
    }

    #[test]
    fn an_answer_about_a_part_that_no_message_has_is_damage() {
        let with = |part, parts| {
            let answered = Answered { seq: 10, part, parts, answer: Answer::NoAnswer };
            let row = WindowRow { answers: vec![answered], ..row() };
            read(&write(&row)).map(|read| assert_eq!(read, row))
        };
        // Who is asked for the third part of a text that another account made one of says that there is none.
        for (part, parts) in [(0, 1), (2, 1), (31, 32), (0, 0)] {
            assert_eq!(with(part, parts), Ok(()), "{part} of {parts}");
        }
        for part in [32, 33, 255] {
            assert!(matches!(with(part, 2), Err(StoreError::Corrupt(_))), "{part}");
        }
    }

    #[test]
    fn a_window_with_more_answers_than_any_is_damaged() {
        let of = |count: usize| {
            let answered = |at: usize| Answered { seq: at as u32 / 64, part: 0, parts: 1, answer: Answer::NoAnswer };
            WindowRow { answers: (0..count).map(answered).collect(), ..row() }
        };
        assert_eq!(read(&write(&of(ANSWERS_MAX))), Ok(of(ANSWERS_MAX)));
        assert!(matches!(read(&write(&of(ANSWERS_MAX + 1))), Err(StoreError::Corrupt(_))));
    }

    #[test]
    fn the_form_is_the_one_that_is_stored() {
        let bytes = write(&row());
        let golden = [
            &[0, 98, 0, 0, 0, 3, 0, 10, 20, 1, b'a', 6, 2, 4, 1][..],
            &[10, 38, 1, 1, 1, 1, 1, 1, 1, 1, 1],
            &[10, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
            &[10, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2],
            &[10, 0, 1, 2, 3, 4, 5, 16, 17, 18, 19],
            &[6, 3, 4, 1, 1, 1, 1, 11],
            b"id10x0Btttt",
            &[1, 137, 39],
        ];
        assert_eq!(bytes[14..], golden.concat()[5..]);
        assert_eq!(
            write_retry(&RetryPack { entries: vec![RetryEntry { seq: 300, tries: 1, parts: 3, round: 2 }] })[14..],
            [1, 172, 2, 1, 3, 2]
        );
    }
}
