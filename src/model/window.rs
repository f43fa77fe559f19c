//! A send window's data row: the answers, written by the declarer alone; and what happens to each recipient when it ends.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::answer::{Answer, NotNow};
use super::code::Code;
use super::ledger::{LaneTotals, OpenWindow};
use super::limits::{QUEUE_FULL_TRIES_MAX, TRANSIENT_TRIES_MAX};
use super::time::Timestamp;

/// The answer to one part of one recipient's message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// The recipient's place in the lane.
    pub seq: u32,
    /// Which part, from 0.
    pub part: u8,
    /// How many parts the message has.
    pub parts: u8,
    /// What came back.
    pub answer: Answer,
}

/// The data row of a window. One writer; a later write holds all that an earlier one held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowRow {
    /// The window as it was declared.
    pub window: OpenWindow,
    /// Answers so far.
    pub answers: Vec<Answered>,
    /// Whether every recipient of the window has an answer.
    pub complete: bool,
}

/// What a new owner wrote when it judged a dead declarer's window: these recipients were handed over, for all anybody
/// knows, and never answered. The declarer's own answers, however late, still win over it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// The window as it was declared.
    pub window: OpenWindow,
    /// When it was judged.
    pub judged_at: Timestamp,
    /// Recipients without an answer then.
    pub unanswered: Vec<u32>,
}

/// One recipient of a retry pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryEntry {
    /// The recipient's place in the lane.
    pub seq: u32,
    /// Attempts that count, so far.
    pub tries: u8,
    /// The parts still to send, as bits; 0 stands for all of them.
    pub parts: u32,
    /// How often an operator ordered the recipient to be sent again: part of the key by which an account removes repeats.
    pub round: u8,
}

/// A retry pack: recipients of a lane to be sent again. Written once, under a random name, before the ledger names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPack {
    /// The recipients, in order.
    pub entries: Vec<RetryEntry>,
}

/// What becomes of an answer that was not final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is final as it is.
    Final,
    /// Again, not before the delay has passed, with this many attempts counted.
    Again(Duration, u8),
    /// It was tried often enough: it fails.
    GiveUp,
}

/// Whether, when and how often an answer leads to another try. Throttling and broken sessions are not attempts.
pub fn next_try(answer: &Answer, tries: u8) -> Next {
    match answer {
        Answer::NotSent => Next::Again(Duration::ZERO, tries),
        Answer::NotNow { kind: NotNow::Throttled, .. } => Next::Again(Duration::from_millis(500), tries),
        Answer::NotNow { kind: NotNow::Session, .. } => Next::Again(Duration::from_secs(1), tries),
        Answer::NotNow { kind: NotNow::Transient, .. } if tries < TRANSIENT_TRIES_MAX => {
            Next::Again(Duration::from_secs(5 * 3u64.pow(u32::from(tries))), tries + 1)
        }
        Answer::NotNow { kind: NotNow::QueueFull, .. } if tries < QUEUE_FULL_TRIES_MAX => {
            Next::Again(Duration::from_secs(20 * 3u64.pow(u32::from(tries))), tries + 1)
        }
        Answer::NotNow { kind: NotNow::Transient | NotNow::QueueFull, .. } => Next::GiveUp,
        Answer::Accepted { .. } | Answer::Failed { .. } | Answer::NoAnswer | Answer::Suppressed | Answer::Expired => Next::Final,
    }
}

/// Whether, when and how often who was not answered is sent again where the batch asks for it: as after a transient refusal. Each
/// such try may be one more message to a person, so an account that takes everything and never says so must find an end.
fn next_resend(tries: u8) -> Option<(Duration, u8)> {
    (tries < TRANSIENT_TRIES_MAX).then(|| (Duration::from_secs(5 * 3u64.pow(u32::from(tries))), tries + 1))
}

/// The answer that is stored when a recipient was tried often enough.
pub fn gave_up(answer: &Answer) -> Answer {
    let detail = match answer {
        Answer::NotNow { detail, .. } => detail.clone(),
        _ => "".into(),
    };
    Answer::Failed { code: Code::ProviderTransient, detail }
}

/// What a batch wants done with uncertain recipients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUncertain {
    /// List them and wait for a receipt that settles them.
    #[default]
    Hold,
    /// Send again, knowing that some get it more than once; as often as after transient refusals, then they are held.
    Resend,
    /// Ask the provider where the protocol can (SMPP `query_sm` needs a message id, so only answers that were lost after
    /// they were durable can be asked for); the others are held.
    Query,
}

/// How the recipients of a window are told apart when it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sorted {
    /// What is counted.
    pub totals: LaneTotals,
    /// Who is tried again, with the delay each asked for.
    pub again: Vec<(RetryEntry, Duration)>,
}

/// Sorts a window's recipients by what their parts' answers mean together. `entries` are the window's recipients in order;
/// `answers` the answers to their parts, in any order, already final where [`Next::GiveUp`] applied. A recipient with no
/// answer at all, or with some part unanswered, is uncertain; `resend` puts the unanswered parts into `again` instead, a few times.
pub fn sort_out(entries: &[RetryEntry], answers: &[Answered], resend: bool) -> Sorted {
    let mut by_seq: Vec<&Answered> = answers.iter().collect();
    by_seq.sort_by_key(|answered| (answered.seq, answered.part));
    let mut sorted = Sorted::default();
    for entry in entries {
        let start = by_seq.partition_point(|answered| answered.seq < entry.seq);
        let mine: Vec<&Answered> = by_seq[start..].iter().copied().take_while(|answered| answered.seq == entry.seq).collect();
        sort_recipient(entry, &mine, resend, &mut sorted);
    }
    sorted
}

fn sort_recipient(entry: &RetryEntry, mine: &[&Answered], resend: bool, sorted: &mut Sorted) {
    let resend = next_resend(entry.tries).filter(|_| resend);
    let Some(first) = mine.first() else {
        match resend {
            Some((delay, tries)) => sorted.again.push((RetryEntry { tries, ..*entry }, delay)),
            None => sorted.totals.uncertain += 1,
        }
        return;
    };
    let asked = if entry.parts == 0 { all_parts(first.parts) } else { entry.parts };
    let (mut accepted, mut failed, mut uncertain, mut again) = (0u32, false, 0u32, 0u32);
    let (mut suppressed, mut expired) = (false, false);
    let (mut delay, mut tries) = (Duration::ZERO, entry.tries);
    for answered in mine {
        let bit = 1u32 << answered.part;
        match &answered.answer {
            Answer::Accepted { .. } => accepted |= bit,
            Answer::Failed { .. } => failed = true,
            Answer::NoAnswer => uncertain |= bit,
            Answer::Suppressed => suppressed = true,
            Answer::Expired => expired = true,
            not_now @ (Answer::NotNow { .. } | Answer::NotSent) => match next_try(not_now, entry.tries) {
                Next::Again(after, counted) => {
                    again |= bit;
                    delay = delay.max(after);
                    tries = tries.max(counted);
                }
                Next::GiveUp | Next::Final => failed = true,
            },
        }
    }
    sorted.totals.segments += u64::from(accepted.count_ones());
    let missing = if suppressed || expired { 0 } else { asked & !(accepted | uncertain | again) };
    if failed {
        sorted.totals.failed += 1;
    } else if suppressed {
        sorted.totals.suppressed += 1;
    } else if expired {
        sorted.totals.expired += 1;
    } else if uncertain | missing != 0 && resend.is_none() {
        sorted.totals.uncertain += 1;
    } else if again | uncertain | missing != 0 {
        if let Some((after, counted)) = resend.filter(|_| uncertain | missing != 0) {
            (delay, tries) = (delay.max(after), tries.max(counted));
        }
        // With no part taken the whole message goes again, whatever number of parts the next account makes of it.
        let parts = if accepted == 0 { entry.parts } else { again | uncertain | missing };
        sorted.again.push((RetryEntry { seq: entry.seq, tries, parts, round: entry.round }, delay));
    } else {
        sorted.totals.accepted += 1;
    }
}

/// The bits of all of `parts` parts.
pub fn all_parts(parts: u8) -> u32 {
    if parts >= 32 { u32::MAX } else { (1u32 << parts) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u32) -> RetryEntry {
        RetryEntry { seq, tries: 0, parts: 0, round: 0 }
    }

    fn answered(seq: u32, part: u8, parts: u8, answer: Answer) -> Answered {
        Answered { seq, part, parts, answer }
    }

    fn accepted() -> Answer {
        Answer::Accepted { id: "x".into() }
    }

    fn not_now(kind: NotNow) -> Answer {
        Answer::NotNow { kind, detail: "".into() }
    }

    #[test]
    fn each_recipient_counts_once() {
        let entries: Vec<RetryEntry> = (0..6).map(entry).collect();
        let answers = vec![
            answered(1, 0, 1, Answer::Failed { code: Code::ProviderRefused, detail: "".into() }),
            answered(0, 0, 2, accepted()),
            answered(0, 1, 2, accepted()),
            answered(2, 0, 1, Answer::NoAnswer),
            answered(3, 0, 1, not_now(NotNow::Throttled)),
            answered(4, 0, 1, Answer::Suppressed),
        ];
        let sorted = sort_out(&entries, &answers, false);
        assert_eq!(sorted.totals, LaneTotals { accepted: 1, failed: 1, uncertain: 2, suppressed: 1, expired: 0, segments: 2 });
        assert_eq!(sorted.again.len(), 1);
        assert_eq!(sorted.again[0].0, RetryEntry { seq: 3, tries: 0, parts: 0, round: 0 });
    }

    #[test]
    fn only_the_parts_that_were_not_taken_are_sent_again() {
        let answers = vec![
            answered(0, 0, 3, accepted()),
            answered(0, 1, 3, not_now(NotNow::Throttled)),
            answered(0, 2, 3, Answer::NotSent),
        ];
        let sorted = sort_out(&[entry(0)], &answers, false);
        assert_eq!(sorted.again, vec![(RetryEntry { seq: 0, tries: 0, parts: 0b110, round: 0 }, Duration::from_millis(500))]);
    }

    #[test]
    fn resend_sends_the_unanswered_again_and_hold_does_not() {
        let answers = vec![answered(0, 0, 2, accepted())];
        assert_eq!(sort_out(&[entry(0)], &answers, false).totals.uncertain, 1);
        let resent = sort_out(&[entry(0), entry(1)], &answers, true);
        assert_eq!(resent.again.iter().map(|(entry, _)| (entry.seq, entry.parts)).collect::<Vec<_>>(), [(0, 0b10), (1, 0)]);
    }

    #[test]
    fn who_is_never_answered_is_sent_again_a_few_times_and_not_at_once() {
        for silent in [vec![], vec![answered(0, 0, 1, Answer::NoAnswer)], vec![answered(0, 0, 2, accepted())]] {
            let (mut person, mut waited) = (entry(0), vec![]);
            for _ in 0..20 {
                let sorted = sort_out(&[person], &silent, true);
                let Some((next, delay)) = sorted.again.first() else {
                    assert_eq!(sorted.totals.uncertain, 1);
                    break;
                };
                person = RetryEntry { parts: 0, ..*next };
                waited.push(delay.as_secs());
            }
            assert_eq!(waited, [5, 15, 45], "{silent:?}");
        }
        let throttled = [answered(0, 0, 2, Answer::NoAnswer), answered(0, 1, 2, not_now(NotNow::Throttled))];
        let again = sort_out(&[entry(0)], &throttled, true).again;
        assert_eq!(again, [(RetryEntry { tries: 1, ..entry(0) }, Duration::from_secs(5))]);
        let last = RetryEntry { tries: TRANSIENT_TRIES_MAX, ..entry(0) };
        assert_eq!(sort_out(&[last], &throttled, true).totals.uncertain, 1);
    }

    #[test]
    fn transient_refusals_end_and_throttling_does_not() {
        assert_eq!(next_try(&not_now(NotNow::Transient), TRANSIENT_TRIES_MAX), Next::GiveUp);
        assert!(matches!(next_try(&not_now(NotNow::Throttled), 200), Next::Again(_, 200)));
        assert!(matches!(next_try(&not_now(NotNow::Transient), 0), Next::Again(_, 1)));
    }
}
