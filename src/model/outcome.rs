//! What became of each recipient: the fold over the windows it was in. This is the truth that recounts are made of.

use serde::{Deserialize, Serialize};

use super::answer::Answer;
use super::code::Code;
use super::window::{Answered, all_parts};

/// Where a record ends. Exactly one of these (rule 1); `Open` is a recipient that is not there yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It cannot be sent; the reason is kept.
    Rejected,
    /// Its number came before.
    Duplicate,
    /// Its number is on the suppression list.
    Suppressed,
    /// An account took it.
    Accepted,
    /// An account refused it for good, or too often.
    Failed,
    /// Handed over and never answered.
    Uncertain,
    /// Its validity ended before it was sent.
    Expired,
    /// The batch was canceled before it was sent.
    Canceled,
    /// Not ended yet.
    Open,
}

/// All outcomes, in the order of reports.
pub const OUTCOMES: [Outcome; 9] = [
    Outcome::Accepted,
    Outcome::Failed,
    Outcome::Uncertain,
    Outcome::Expired,
    Outcome::Canceled,
    Outcome::Rejected,
    Outcome::Duplicate,
    Outcome::Suppressed,
    Outcome::Open,
];

impl Outcome {
    /// The name that people and other programs see.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Rejected => "rejected",
            Outcome::Duplicate => "duplicate",
            Outcome::Suppressed => "suppressed",
            Outcome::Accepted => "accepted",
            Outcome::Failed => "failed",
            Outcome::Uncertain => "uncertain",
            Outcome::Expired => "expired",
            Outcome::Canceled => "canceled",
            Outcome::Open => "open",
        }
    }
}

/// The fold of one recipient: small, so that a whole lane fits in memory. Windows are folded in the order of their names;
/// within a recipient a part that was taken stays taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fold {
    /// Parts of the message; 0 while no answer said so.
    pub parts: u8,
    accepted: u32,
    uncertain: u32,
    failed: u32,
    ending: Ending,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Ending {
    #[default]
    None,
    Failed(Code),
    Suppressed,
    Expired,
}

impl Fold {
    /// Takes in one answer of a later window than all before.
    pub fn answer(&mut self, answered: &Answered) {
        // What was never handed over was never split either: it says only which parts were asked for. And once a part was taken it
        // is known how many there are: what is refused here, before any account, knows no more than that either.
        match answered.answer {
            Answer::NotSent | Answer::Suppressed | Answer::Expired => {}
            Answer::Failed { .. } if self.accepted != 0 => self.parts = self.parts.max(answered.parts),
            _ => self.parts = answered.parts,
        }
        let bit = 1u32 << answered.part;
        match &answered.answer {
            Answer::Accepted { .. } => {
                self.accepted |= bit;
                self.uncertain &= !bit;
                self.take_back(bit);
                if self.accepted == all_parts(self.parts) {
                    self.ending = Ending::None;
                }
            }
            // A refusal of a later try says nothing about an earlier one that was never answered.
            Answer::Failed { code, .. } => {
                self.failed |= bit;
                self.ending = Ending::Failed(*code);
            }
            Answer::NoAnswer => self.uncertain |= bit,
            // "Not now" says nothing about an earlier try either, but it takes back a refusal of this part that an operator
            // ordered to be tried again: the try is still going on.
            Answer::NotNow { .. } | Answer::NotSent => self.take_back(bit),
            Answer::Suppressed => self.ending = Ending::Suppressed,
            Answer::Expired => self.ending = Ending::Expired,
        }
    }

    /// Takes back the refusal of a part; the last one takes the ending with it.
    fn take_back(&mut self, bit: u32) {
        self.failed &= !bit & all_parts(self.parts);
        if self.failed == 0 {
            self.ending = Ending::None;
        }
    }

    /// Takes in that the recipient was in a judged window and had no answer.
    pub fn unanswered(&mut self) {
        if self.parts == 0 {
            self.uncertain = u32::MAX;
        } else {
            self.uncertain |= all_parts(self.parts) & !self.accepted;
        }
    }

    /// Takes in that these parts were handed over, for all anybody knows, and never answered, while others were. Those that
    /// were taken before are not in doubt.
    pub fn in_doubt(&mut self, parts: u32) {
        self.uncertain |= parts & !self.accepted;
    }

    /// Takes in that a judged window's late answers say that the recipient was not sent, and that nobody will try again: what
    /// it fails with.
    pub fn left_unsent(&mut self, code: Code) {
        // Whichever of its parts a later try leaves in doubt, this ending does not speak for it.
        self.failed = u32::MAX;
        self.ending = Ending::Failed(code);
    }

    /// Takes in that a receipt proves that the network took the part: a late receipt settles an uncertain one.
    pub fn receipt(&mut self, part: u8) {
        if self.parts == 0 {
            self.parts = 1;
            self.uncertain = 0;
        }
        let bit = 1u32 << part;
        self.accepted |= bit;
        self.uncertain &= !bit;
        // It was refused once, was ordered again, and arrived: the refusal says nothing of the other parts.
        self.take_back(bit);
    }

    /// Parts that were taken, as bits.
    pub fn accepted_parts(&self) -> u32 {
        self.accepted
    }

    /// Parts that were handed over and never answered, as bits.
    pub fn uncertain_parts(&self) -> u32 {
        self.uncertain
    }

    /// Parts that were refused, and not handed over again since, as bits.
    pub fn refused_parts(&self) -> u32 {
        self.failed
    }

    /// Which parts an operator may order to be sent again, as bits, 0 standing for the whole message: those that were neither
    /// taken nor left in doubt. `None` when there is none.
    pub fn again(&self) -> Option<u32> {
        if self.accepted == 0 && self.uncertain == 0 {
            return Some(0);
        }
        let rest = all_parts(self.parts) & !self.accepted & !self.uncertain;
        (rest != 0).then_some(rest)
    }

    /// Where the recipient ends, and why when it failed. `ended` says that the lane is closed: who is still open then was
    /// canceled.
    pub fn outcome(&self, ended: bool) -> (Outcome, Option<Code>) {
        let whole = self.parts > 0 && self.accepted & all_parts(self.parts) == all_parts(self.parts);
        match self.ending {
            _ if whole => (Outcome::Accepted, None),
            Ending::Failed(_) if self.uncertain & self.failed != 0 => (Outcome::Uncertain, None),
            Ending::Failed(_) if self.accepted != 0 => (Outcome::Failed, Some(Code::PartiallySent)),
            Ending::Failed(code) => (Outcome::Failed, Some(code)),
            _ if self.uncertain != 0 => (Outcome::Uncertain, None),
            Ending::Suppressed if self.accepted == 0 => (Outcome::Suppressed, None),
            Ending::Expired if self.accepted == 0 => (Outcome::Expired, None),
            Ending::Suppressed | Ending::Expired => (Outcome::Failed, Some(Code::PartiallySent)),
            Ending::None if ended && self.accepted != 0 => (Outcome::Failed, Some(Code::PartiallySent)),
            Ending::None if ended => (Outcome::Canceled, None),
            Ending::None => (Outcome::Open, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::answer::NotNow;

    fn fold(answers: &[(u8, u8, Answer)]) -> Fold {
        let mut fold = Fold::default();
        for (part, parts, answer) in answers {
            fold.answer(&Answered { seq: 0, part: *part, parts: *parts, answer: answer.clone() });
        }
        fold
    }

    fn ok() -> Answer {
        Answer::Accepted { id: "1".into() }
    }

    fn failed() -> Answer {
        Answer::Failed { code: Code::ProviderRefused, detail: "".into() }
    }

    #[test]
    fn outcomes_are_as_the_answers_say() {
        let throttled = || Answer::NotNow { kind: NotNow::Throttled, detail: "".into() };
        type Answers = Vec<(u8, u8, Answer)>;
        let cases: Vec<(Answers, Outcome)> = vec![
            (vec![], Outcome::Open),
            (vec![(0, 1, ok())], Outcome::Accepted),
            (vec![(0, 2, ok())], Outcome::Open),
            (vec![(0, 2, ok()), (1, 2, failed())], Outcome::Failed),
            (vec![(0, 1, throttled()), (0, 1, ok())], Outcome::Accepted),
            (vec![(0, 1, Answer::NoAnswer)], Outcome::Uncertain),
            (vec![(0, 1, Answer::NoAnswer), (0, 1, ok())], Outcome::Accepted),
            (vec![(0, 1, Answer::NoAnswer), (0, 1, throttled())], Outcome::Uncertain),
            (vec![(0, 1, Answer::NoAnswer), (0, 1, failed())], Outcome::Uncertain),
            (vec![(0, 2, Answer::NoAnswer), (1, 2, failed())], Outcome::Failed),
            (vec![(0, 1, failed()), (0, 1, throttled())], Outcome::Open),
            // A refusal of one part stands, whatever the others come to; sent again and taken, it leaves what was in doubt.
            (vec![(0, 2, failed()), (1, 2, throttled())], Outcome::Failed),
            (vec![(0, 2, ok()), (1, 2, failed()), (1, 2, throttled())], Outcome::Open),
            (vec![(0, 3, ok()), (1, 3, failed()), (2, 3, Answer::NoAnswer), (1, 3, ok())], Outcome::Uncertain),
            (vec![(0, 1, Answer::Suppressed)], Outcome::Suppressed),
            (vec![(0, 1, Answer::Expired)], Outcome::Expired),
        ];
        for (answers, outcome) in cases {
            assert_eq!(fold(&answers).outcome(false).0, outcome, "{answers:?}");
        }
        assert_eq!(fold(&[]).outcome(true).0, Outcome::Canceled);
    }

    #[test]
    fn a_part_that_a_dead_sender_left_unanswered_is_not_sent_again_with_a_refused_one() {
        let mut left = fold(&[(3, 4, failed()), (1, 4, ok())]);
        left.in_doubt(0b0111);
        assert_eq!(left.outcome(true), (Outcome::Failed, Some(Code::PartiallySent)));
        assert_eq!(left.again(), Some(0b1000), "parts 1 and 3 may have been sent");
    }

    #[test]
    fn only_what_was_neither_taken_nor_left_in_doubt_may_be_sent_again() {
        type Answers = Vec<(u8, u8, Answer)>;
        let cases: Vec<(Answers, Option<u32>)> = vec![
            (vec![(0, 1, failed())], Some(0)),
            (vec![(0, 2, failed()), (1, 2, failed())], Some(0)),
            (vec![(0, 3, ok()), (1, 3, failed()), (2, 3, failed())], Some(0b110)),
            (vec![(0, 2, Answer::NoAnswer), (1, 2, failed())], Some(0b10)),
            (vec![(0, 2, ok()), (1, 2, Answer::NoAnswer)], None),
            (vec![(0, 1, ok())], None),
        ];
        for (answers, expected) in cases {
            assert_eq!(fold(&answers).again(), expected, "{answers:?}");
        }
    }

    #[test]
    fn what_is_kept_back_of_a_message_does_not_say_how_many_parts_it_has() {
        for kept in [Answer::Suppressed, Answer::Expired, Answer::Failed { code: Code::PartiallySent, detail: "".into() }] {
            let mut rest = fold(&[(0, 4, ok()), (1, 4, ok()), (2, 4, failed()), (3, 4, Answer::NoAnswer), (2, 3, kept.clone())]);
            rest.receipt(2);
            assert_ne!(rest.outcome(true).0, Outcome::Accepted, "of the last part nobody knows: {kept:?}");
            rest.receipt(3);
            assert_eq!(rest.outcome(true).0, Outcome::Accepted, "{kept:?}");
        }
    }

    #[test]
    fn a_try_without_an_answer_leaves_in_doubt_who_was_left_unsent_before() {
        let mut retried = fold(&[(0, 1, Answer::NotSent)]);
        retried.left_unsent(Code::BatchUnsent);
        assert_eq!(retried.outcome(true).0, Outcome::Failed);
        retried.unanswered();
        assert_eq!(retried.outcome(true).0, Outcome::Uncertain);
    }

    #[test]
    fn a_receipt_for_a_refused_part_that_was_sent_again_leaves_the_others_in_doubt() {
        let again =
            || fold(&[(0, 3, failed()), (1, 3, ok()), (2, 3, failed()), (0, 3, Answer::NoAnswer), (2, 3, Answer::NoAnswer)]);
        assert_eq!(again().outcome(true).0, Outcome::Uncertain);
        let mut one = again();
        one.receipt(0);
        assert_eq!(one.outcome(true).0, Outcome::Uncertain, "of the last part nobody knows");
        one.receipt(2);
        assert_eq!(one.outcome(true).0, Outcome::Accepted);
    }

    #[test]
    fn a_late_receipt_settles_an_uncertain_recipient() {
        let mut judged = Fold::default();
        judged.unanswered();
        assert_eq!(judged.outcome(false).0, Outcome::Uncertain);
        judged.receipt(0);
        assert_eq!(judged.outcome(false).0, Outcome::Accepted);
    }
}
