//! What one session has handed over and not heard of yet.
//!
//! Every part that enters leaves with exactly one answer: by the SMSC's word, by time, or when the window is dropped with
//! its session. What lies in the write buffer and was not begun is told apart from what the connection took: the first was
//! never sent, the second nobody can know of.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::time::Instant;

use crate::adapters::waiting::Ticket;
use crate::model::answer::Answer;
use crate::model::window::Answered;

/// The largest sequence number (SMPP 3.4, 5.1.4).
pub const SEQUENCE_MAX: u32 = 0x7FFF_FFFF;

/// A part that was handed over.
pub struct Part {
    /// Where its answer goes.
    pub ticket: Arc<Ticket>,
    /// The recipient's place in its lane.
    pub seq: u32,
    /// Which part.
    pub part: u8,
    /// How many there are.
    pub parts: u8,
}

/// A PDU in the write buffer, or several that are no submits: their octets that are not written yet.
struct Unwritten {
    sequence: Option<u32>,
    left: usize,
    begun: bool,
    since: Instant,
}

/// PDUs that are no submits, and come within this time behind each other, are counted as one: an SMSC that asks for a sign of life
/// again and again, and takes no answer, must not cost more than the answers' octets.
const TOGETHER: Duration = Duration::from_secs(1);

/// The window of one session, with its write buffer.
pub struct Window {
    room: usize,
    outstanding: HashMap<u32, Part, BuildHasherDefault<SequenceHasher>>,
    /// Sequence numbers in the order they were written, with those that are answered still among them.
    order: VecDeque<(u32, Instant)>,
    /// The next sequence number.
    next: u32,
    /// What waits to be written.
    pub out: BytesMut,
    unwritten: VecDeque<Unwritten>,
    /// Octets of it that are no submits.
    others: usize,
    /// Answers of this turn, by chunk.
    answers: Vec<(Arc<Ticket>, Vec<Answered>)>,
}

impl Window {
    /// A window with room for `room` parts, whose first sequence number is `first`.
    pub fn new(room: u32, first: u32) -> Window {
        Window {
            room: room as usize,
            outstanding: HashMap::default(),
            order: VecDeque::new(),
            next: first.clamp(1, SEQUENCE_MAX),
            out: BytesMut::with_capacity(64 * 1024),
            unwritten: VecDeque::new(),
            others: 0,
            answers: Vec::new(),
        }
    }

    /// Parts that may be added now.
    pub fn room(&self) -> usize {
        self.room.saturating_sub(self.outstanding.len())
    }

    /// Parts without an answer.
    pub fn len(&self) -> usize {
        self.outstanding.len()
    }

    /// The next sequence number that is not in use.
    pub fn sequence(&mut self) -> u32 {
        loop {
            let sequence = self.next;
            self.next = if sequence == SEQUENCE_MAX { 1 } else { sequence + 1 };
            if !self.outstanding.contains_key(&sequence) {
                return sequence;
            }
        }
    }

    /// Adds a part whose PDU of `length` octets was just put into the write buffer.
    pub fn add(&mut self, sequence: u32, part: Part, length: usize, now: Instant) {
        self.outstanding.insert(sequence, part);
        self.order.push_back((sequence, now));
        self.unwritten.push_back(Unwritten { sequence: Some(sequence), left: length, begun: false, since: now });
    }

    /// Counts a PDU of another kind that was just put into the write buffer.
    pub fn add_other(&mut self, length: usize, now: Instant) {
        self.others += length;
        match self.unwritten.back_mut() {
            Some(last) if last.sequence.is_none() && !last.begun && now.duration_since(last.since) < TOGETHER => {
                last.left += length
            }
            _ => self.unwritten.push_back(Unwritten { sequence: None, left: length, begun: false, since: now }),
        }
    }

    /// Octets of the write buffer that are no submits: answers that the SMSC does not take.
    pub fn others(&self) -> usize {
        self.others
    }

    /// Since when the first of the write buffer has been waiting for the connection to take it.
    pub fn waits_since(&self) -> Option<Instant> {
        self.unwritten.front().map(|first| first.since)
    }

    /// The connection took so many octets.
    pub fn written(&mut self, mut octets: usize) {
        while octets > 0
            && let Some(front) = self.unwritten.front_mut()
        {
            let step = front.left.min(octets);
            octets -= step;
            front.left -= step;
            if front.sequence.is_none() {
                self.others -= step;
            }
            front.begun = true;
            if front.left == 0 {
                self.unwritten.pop_front();
            }
        }
    }

    /// The SMSC's answer to a PDU. `false` when nothing waits for it: it came too late, or was never asked for.
    pub fn answer(&mut self, sequence: u32, answer: Answer) -> bool {
        let Some(part) = self.outstanding.remove(&sequence) else { return false };
        self.give(part, answer);
        true
    }

    /// Takes back what was not begun to be written, when any of it may no longer be sent: nothing is handed over after its
    /// time because the connection was slow.
    pub fn withdraw(&mut self, may_send: impl Fn(&Ticket) -> bool) {
        let late = |unwritten: &Unwritten, outstanding: &HashMap<u32, Part, _>| {
            let part = unwritten.sequence.and_then(|sequence| outstanding.get(&sequence));
            !unwritten.begun && part.is_some_and(|part| !may_send(&part.ticket))
        };
        if self.unwritten.iter().any(|unwritten| late(unwritten, &self.outstanding)) {
            self.withdraw_all();
        }
    }

    /// Takes back all submits that were not begun to be written; other PDUs stay in the write buffer.
    pub fn withdraw_all(&mut self) {
        let mut kept = BytesMut::new();
        for unwritten in std::mem::take(&mut self.unwritten) {
            let octets = self.out.split_to(unwritten.left.min(self.out.len()));
            match unwritten.sequence {
                Some(sequence) if !unwritten.begun => {
                    if let Some(part) = self.outstanding.remove(&sequence) {
                        self.give(part, Answer::NotSent);
                    }
                }
                _ => {
                    kept.extend_from_slice(&octets);
                    self.unwritten.push_back(unwritten);
                }
            }
        }
        self.out = kept;
    }

    /// Answers what was put in before `limit` and is still without an answer. What the connection did not begin to take in all
    /// that time was never sent; it is taken back, so that it is not sent later either.
    pub fn expire(&mut self, limit: Instant) {
        let not_begun = |unwritten: &Unwritten| unwritten.sequence.is_some() && !unwritten.begun && unwritten.since <= limit;
        if self.unwritten.iter().any(not_begun) {
            self.withdraw_all();
        }
        while let Some(&(sequence, at)) = self.order.front() {
            if at > limit && self.outstanding.contains_key(&sequence) {
                break;
            }
            self.order.pop_front();
            if let Some(part) = self.outstanding.remove(&sequence) {
                self.give(part, Answer::NoAnswer);
            }
        }
        // One PDU that is never answered must not keep all that were answered behind it.
        if self.order.len() > 4 * self.outstanding.len() + 1_024 {
            let outstanding = &self.outstanding;
            self.order.retain(|(sequence, _)| outstanding.contains_key(sequence));
        }
    }

    /// When everything in the window must be answered as unknown: a write failed, and nobody knows how much of the buffer
    /// the other side got.
    pub fn lose(&mut self) {
        self.unwritten.clear();
        self.others = 0;
        self.out.advance(self.out.len());
        self.order.clear();
        for (_, part) in std::mem::take(&mut self.outstanding) {
            self.give(part, Answer::NoAnswer);
        }
        self.hand_back();
    }

    /// Keeps an answer for [`Window::hand_back`].
    pub fn give(&mut self, part: Part, answer: Answer) {
        let answered = Answered { seq: part.seq, part: part.part, parts: part.parts, answer };
        match self.answers.iter_mut().rev().find(|(ticket, _)| Arc::ptr_eq(ticket, &part.ticket)) {
            Some((_, answers)) => answers.push(answered),
            None => self.answers.push((part.ticket, vec![answered])),
        }
    }

    /// Hands the answers of this turn back, one batch a chunk.
    pub fn hand_back(&mut self) {
        for (ticket, answers) in self.answers.drain(..) {
            ticket.answer(answers);
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.withdraw_all();
        self.lose();
    }
}

/// Sequence numbers are our own and grow by one: multiplying by an odd constant spreads them well enough.
#[derive(Default)]
struct SequenceHasher(u64);

impl Hasher for SequenceHasher {
    fn write(&mut self, octets: &[u8]) {
        for &octet in octets {
            self.0 = (self.0 << 8) ^ u64::from(octet);
        }
    }

    fn write_u32(&mut self, sequence: u32) {
        self.0 = u64::from(sequence).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;

    use super::*;

    struct Rig {
        window: Window,
        ticket: Arc<Ticket>,
        given: mpsc::UnboundedReceiver<Vec<Answered>>,
    }

    fn rig(room: u32, first: u32) -> Rig {
        let (answers, given) = mpsc::unbounded_channel();
        let ticket = Ticket::new(Duration::from_secs(1), CancellationToken::new(), answers);
        Rig { window: Window::new(room, first), ticket: Arc::new(ticket), given }
    }

    impl Rig {
        /// Adds a PDU of ten octets for each recipient.
        fn add(&mut self, seqs: std::ops::Range<u32>, now: Instant) -> Vec<u32> {
            seqs.map(|seq| {
                let sequence = self.window.sequence();
                self.window.out.extend_from_slice(&[seq as u8; 10]);
                let part = Part { ticket: self.ticket.clone(), seq, part: 0, parts: 1 };
                self.window.add(sequence, part, 10, now);
                sequence
            })
            .collect()
        }

        fn write(&mut self, octets: usize) {
            self.window.out.advance(octets);
            self.window.written(octets);
        }

        fn given(&mut self) -> Vec<(u32, Answer)> {
            self.window.hand_back();
            let mut all = Vec::new();
            while let Ok(answers) = self.given.try_recv() {
                all.extend(answers.into_iter().map(|answered| (answered.seq, answered.answer)));
            }
            all.sort_by_key(|(seq, _)| *seq);
            all
        }
    }

    #[tokio::test]
    async fn only_what_was_not_begun_is_withdrawn() {
        let mut rig = rig(10, 1);
        rig.add(0..3, Instant::now());
        rig.window.out.extend_from_slice(b"other");
        rig.window.add_other(5, Instant::now());
        rig.add(3..4, Instant::now());
        rig.write(13);
        rig.window.withdraw(|_| true);
        assert_eq!(rig.given(), [], "nothing is late");
        rig.window.withdraw(|_| false);
        assert_eq!(rig.given(), [(2, Answer::NotSent), (3, Answer::NotSent)]);
        assert_eq!(&rig.window.out[..], [&[1u8; 7][..], b"other"].concat(), "the begun one and other PDUs go on");
        rig.write(12);
        assert_eq!(rig.window.len(), 2);
        drop(rig.window);
        let mut rest: Vec<_> = rig.given.try_recv().expect("dropping answers").into_iter().map(|a| (a.seq, a.answer)).collect();
        rest.sort_by_key(|(seq, _)| *seq);
        assert_eq!(rest, [(0, Answer::NoAnswer), (1, Answer::NoAnswer)]);
    }

    #[tokio::test]
    async fn answers_that_nobody_takes_cost_their_octets_and_are_counted() {
        let mut rig = rig(10, 1);
        let start = Instant::now();
        rig.add(0..1, start);
        for turn in 0..100_000u32 {
            rig.window.out.extend_from_slice(&[b'o'; 16]);
            rig.window.add_other(16, start + Duration::from_millis(u64::from(turn) / 10));
        }
        rig.add(1..2, start);
        assert!(rig.window.unwritten.len() <= 13, "{} entries", rig.window.unwritten.len());
        assert_eq!((rig.window.others(), rig.window.waits_since()), (1_600_000, Some(start)));
        // A submit is no answer; behind it the answers of the first second wait, then those of the next.
        rig.write(10);
        assert_eq!(rig.window.others(), 1_600_000);
        rig.write(160_000 + 1);
        assert_eq!(rig.window.others(), 1_440_000 - 1);
        assert_eq!(rig.window.waits_since(), Some(start + Duration::from_secs(1)));
        rig.window.withdraw_all();
        assert_eq!(rig.given(), [(1, Answer::NotSent)]);
        assert_eq!((rig.window.others(), rig.window.out.len()), (1_440_000 - 1, 1_440_000 - 1));
        // One that is begun takes nothing more in: it would be told older than it is.
        rig.write(1_440_000 - 17);
        rig.window.out.extend_from_slice(&[b'o'; 16]);
        rig.window.add_other(16, start + Duration::from_secs(60));
        rig.write(16);
        assert_eq!((rig.window.others(), rig.window.waits_since()), (16, Some(start + Duration::from_secs(60))));
        rig.window.lose();
        assert_eq!((rig.window.others(), rig.window.waits_since()), (0, None));
    }

    #[tokio::test]
    async fn a_failed_write_leaves_everything_in_doubt() {
        let mut rig = rig(10, 1);
        rig.add(0..3, Instant::now());
        rig.write(10);
        rig.window.lose();
        assert_eq!(rig.given(), [0, 1, 2].map(|seq| (seq, Answer::NoAnswer)));
        rig.window.withdraw_all();
        assert_eq!((rig.given(), rig.window.len(), rig.window.out.len()), (vec![], 0, 0));
    }

    #[tokio::test]
    async fn numbers_wrap_and_are_not_used_twice() {
        let mut rig = rig(10, SEQUENCE_MAX - 1);
        assert_eq!(rig.add(0..3, Instant::now()), [SEQUENCE_MAX - 1, SEQUENCE_MAX, 1]);
        rig.window.next = SEQUENCE_MAX;
        assert_eq!(rig.add(3..4, Instant::now()), [2], "the numbers in use are skipped");
        assert!(!rig.window.answer(7, Answer::NoAnswer), "nobody waits for it");
        assert!(rig.window.answer(1, Answer::NoAnswer));
        assert!(!rig.window.answer(1, Answer::NoAnswer), "an answer counts once");
        assert_eq!(rig.given(), [(2, Answer::NoAnswer)]);
    }

    #[tokio::test]
    async fn time_runs_out_for_the_oldest_and_memory_stays_small() {
        let mut rig = rig(10, 1);
        let start = Instant::now();
        rig.add(0..1, start);
        for turn in 0..5_000 {
            let now = start + Duration::from_millis(turn);
            let sequence = rig.add(1..2, now)[0];
            rig.window.answer(sequence, Answer::NotSent);
            rig.window.expire(start - Duration::from_millis(1));
            rig.write(if turn == 0 { 20 } else { 10 });
        }
        assert!(rig.window.order.len() < 1_100, "{}", rig.window.order.len());
        rig.given();
        rig.window.expire(start);
        assert_eq!(rig.given(), [(0, Answer::NoAnswer)]);
        assert_eq!(rig.window.room(), 10);
    }
}
