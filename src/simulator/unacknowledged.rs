//! Receipts on their way on one session: sent, not acknowledged yet, and sent again when they never are.

use std::collections::VecDeque;

use tokio::sync::Notify;

use super::centre::Centre;
use super::fate::State;
use super::pdu::status;
use super::receipts::{Due, Kind, write};

/// How long after a refusal a receipt comes again.
const AFTER_REFUSAL_US: u64 = 1_000_000;

/// What one session has sent. Sequence numbers grow by one, so a place in the queue is a sequence number.
#[derive(Default)]
pub(super) struct Unacknowledged {
    first: u32,
    sent: VecDeque<Option<(Due, u64)>>,
    count: usize,
}

impl Unacknowledged {
    /// How many are not acknowledged.
    pub fn count(&self) -> usize {
        self.count
    }

    /// When the oldest was sent.
    pub fn oldest_us(&self) -> Option<u64> {
        self.sent.front().and_then(|sent| sent.as_ref()).map(|(_, sent_us)| *sent_us)
    }

    /// A sequence number for something else than a receipt.
    pub fn next_other(&mut self) -> u32 {
        let sequence = self.next();
        self.sent.push_back(None);
        self.forget_answered();
        sequence
    }

    /// Writes a receipt and remembers it.
    pub fn send(&mut self, centre: &mut Centre, due: Due, now_us: u64, out: &mut Vec<u8>) {
        let sequence = self.next();
        write(out, &due, centre.sender_address(due.sender), sequence, &centre.config.receipts, &centre.config.ids);
        let totals = &mut centre.ledger.totals.receipts;
        totals.sent += 1;
        totals.resent += u64::from(due.is_repeat);
        totals.unacknowledged += 1;
        self.sent.push_back(Some((due, now_us)));
        self.count += 1;
    }

    /// The client answered one: with an error it comes again.
    pub fn answered(&mut self, centre: &mut Centre, sequence: u32, answer: u32, now_us: u64, timer: &Notify) {
        let place = sequence.wrapping_sub(self.first) as usize;
        let Some((due, _)) = self.sent.get_mut(place).and_then(Option::take) else { return };
        self.count -= 1;
        self.forget_answered();
        let totals = &mut centre.ledger.totals.receipts;
        totals.unacknowledged -= 1;
        match due.kind {
            _ if answer != status::OK => {
                totals.refused += 1;
                if centre.receipts.put(now_us + AFTER_REFUSAL_US, Due { is_repeat: true, ..due }) {
                    timer.notify_one();
                }
            }
            Kind::Inbound(_) => totals.inbound_acknowledged += 1,
            Kind::Intermediate(_) => totals.acknowledged += 1,
            Kind::Final(state) => {
                totals.acknowledged += 1;
                totals.acknowledged_delivered += u64::from(state == State::Delivered);
            }
        }
    }

    /// Puts back what has waited for its acknowledgement for too long.
    pub fn take_back_old(&mut self, centre: &mut Centre, now_us: u64) {
        let limit_us = u64::from(centre.config.receipts.resend_ms) * 1_000;
        let mut old = Vec::new();
        while self.oldest_us().is_some_and(|sent_us| sent_us + limit_us <= now_us) {
            old.extend(self.sent.pop_front().flatten());
            self.first = self.first.wrapping_add(1);
            self.forget_answered();
        }
        self.put_back(centre, old);
    }

    /// Puts everything back, because the session has ended.
    pub fn take_back_all(&mut self, centre: &mut Centre) {
        let all: Vec<_> = self.sent.drain(..).flatten().collect();
        self.put_back(centre, all);
    }

    fn put_back(&mut self, centre: &mut Centre, receipts: Vec<(Due, u64)>) {
        self.count -= receipts.len();
        centre.ledger.totals.receipts.unacknowledged -= receipts.len() as u64;
        centre.receipts.take_back(receipts.into_iter().map(|(due, _)| due));
    }

    fn next(&mut self) -> u32 {
        // Sequence numbers begin at 1 (SMPP 3.4, 5.1.4).
        self.first = self.first.max(1);
        self.first.wrapping_add(self.sent.len() as u32)
    }

    fn forget_answered(&mut self) {
        while self.sent.front().is_some_and(Option::is_none) {
            self.sent.pop_front();
            self.first = self.first.wrapping_add(1);
        }
    }
}
