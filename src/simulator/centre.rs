//! The message centre behind both protocols: takes a submit, decides its fate, counts it and arranges its receipts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::config::SimulatorConfig;
use super::decode;
use super::fate::{self, AnswerFate, State};
use super::http::Keys;
use super::ledger::{FastHash, Ledger};
use super::pdu::status;
use super::reassembly::{Joined, Part, Reassembly};
use super::receipts::{Due, HttpOrigin, Kind, ReceiptQueue, TICK_US};
use super::report::SimulatorReport;
use super::session::{Handle, Order};

/// What all tasks of a simulator share.
pub(super) struct Shared {
    centre: Mutex<Centre>,
    started: Instant,
    /// Cancelled when the simulator stops.
    pub stop: CancellationToken,
    /// Told when something waits for its time and nothing did before.
    pub timer: Notify,
    /// Told when there is something to push to the callback.
    pub callbacks: Notify,
}

impl Shared {
    /// A centre that starts now; `unix_us` is the wall clock.
    pub fn new(config: SimulatorConfig, unix_us: u64) -> Shared {
        Shared {
            centre: Mutex::new(Centre::new(config, unix_us)),
            started: Instant::now(),
            stop: CancellationToken::new(),
            timer: Notify::new(),
            callbacks: Notify::new(),
        }
    }

    /// The centre. It is held for one batch of PDUs at a time and never across a wait.
    pub fn centre(&self) -> MutexGuard<'_, Centre> {
        self.centre.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Microseconds since the start.
    pub fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// The instant `us` microseconds after the start.
    pub fn instant(&self, us: u64) -> Instant {
        self.started + std::time::Duration::from_micros(us)
    }

    /// What was counted so far.
    pub fn report(&self) -> SimulatorReport {
        let now_us = self.now_us();
        let mut report = self.centre().report();
        report.seconds = now_us as f64 / 1e6;
        report
    }
}

/// The message centre.
pub(super) struct Centre {
    pub config: SimulatorConfig,
    pub ledger: Ledger,
    pub receipts: ReceiptQueue,
    pub sessions: Vec<Arc<Handle>>,
    pub refuses_binds: bool,
    pub keys: Keys,
    reassembly: Reassembly,
    bucket: Bucket,
    senders: Senders,
    full_until: HashMap<u64, u64, FastHash>,
    next_id: u64,
    until_drop: u64,
    started_unix_us: u64,
}

/// A submit, whatever protocol it came by.
pub(super) struct Incoming<'a> {
    pub number: u64,
    pub sender: u32,
    /// Segments it stands for.
    pub segments: u32,
    pub body: Body<'a>,
    pub wants: Wants,
    pub http: Option<HttpOrigin>,
}

/// What a submit carries.
pub(super) enum Body<'a> {
    /// A part, or a whole message, in this `data_coding`.
    Part(Part<'a>, u8),
    /// A whole text.
    Text(&'a str),
}

/// Which receipts a submit asks for (SMPP 3.4, 5.2.17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    Nothing,
    All,
    Failures,
}

impl Wants {
    /// Read from `registered_delivery`.
    pub fn of(registered_delivery: u8) -> Wants {
        match registered_delivery & 3 {
            1 => Wants::All,
            2 => Wants::Failures,
            _ => Wants::Nothing,
        }
    }
}

/// How a submit is answered.
pub(super) enum Verdict {
    /// With this status and id, after this long.
    Answer { status: u32, id: u64, latency_us: u32, early: Option<Due> },
    /// Not at all, although it was accepted.
    Silence { id: u64 },
    /// Accepted, and the session is dropped (HTTP: 500).
    Lost { id: u64 },
}

impl Centre {
    fn new(config: SimulatorConfig, unix_us: u64) -> Centre {
        Centre {
            ledger: Ledger::new(config.count_numbers, config.keep_texts),
            receipts: ReceiptQueue::default(),
            sessions: Vec::new(),
            refuses_binds: false,
            keys: Keys::new(config.http.key_lifetime_s),
            reassembly: Reassembly::default(),
            bucket: Bucket::default(),
            senders: Senders::default(),
            full_until: HashMap::default(),
            next_id: if config.ids.repeat_after_restart { 1 } else { unix_us },
            until_drop: config.faults.drop_session_every,
            started_unix_us: unix_us,
            config,
        }
    }

    /// The place of a sender's address in the list.
    pub fn sender(&mut self, address: &[u8]) -> u32 {
        self.senders.place(address)
    }

    /// The address at a place.
    pub fn sender_address(&self, place: u32) -> &[u8] {
        self.senders.addresses.get(place as usize).map_or(&[], Vec::as_slice)
    }

    /// Whether `segments` may come now; takes them from the rate when they may.
    pub fn admits(&mut self, segments: u32, now_us: u64) -> bool {
        let faults = &self.config.faults;
        let admitted = self.bucket.take(faults.rate, faults.burst_ms, segments, now_us);
        if !admitted {
            self.ledger.totals.throttled += 1;
        }
        admitted
    }

    /// Whether the session that brought this submit is to be dropped behind it.
    pub fn is_drop_due(&mut self) -> bool {
        let every = self.config.faults.drop_session_every;
        if every == 0 {
            return false;
        }
        self.until_drop = self.until_drop.clamp(1, every) - 1;
        let is_due = self.until_drop == 0;
        if is_due {
            self.until_drop = every;
        }
        is_due
    }

    /// Takes a submit that was admitted: decides, counts, arranges receipts. Tells `timer` when it has to wake up.
    pub fn submit(&mut self, incoming: Incoming<'_>, now_us: u64, timer: &Notify) -> Verdict {
        let number = incoming.number;
        let occurrence = self.ledger.occurrence(number, now_us);
        let latency_us = fate::latency_us(&self.config, number, occurrence);
        let refusal = |status| Verdict::Answer { status, id: 0, latency_us, early: None };
        let answer = match fate::answer(&self.config, number, occurrence) {
            AnswerFate::QueueFull if !self.is_full(number, now_us) => {
                fate::answer_of_a_good_handset(&self.config, number, occurrence)
            }
            answer => answer,
        };
        match answer {
            AnswerFate::Permanent(status) => {
                self.ledger.refused_for_good(number);
                return refusal(status);
            }
            AnswerFate::Transient(status) => return refusal(status),
            AnswerFate::QueueFull => return refusal(status::QUEUE_FULL),
            AnswerFate::Accepted | AnswerFate::NoAnswer | AnswerFate::LostAnswer => {}
        }
        let id = self.next_id;
        self.next_id += 1;
        self.ledger.accepted(number, incoming.segments, now_us);
        let receipt_id = self.join(&incoming, id);
        let early = match receipt_id {
            Some(id) => self.arrange(&incoming, id, occurrence, now_us, latency_us, timer),
            None => None,
        };
        match answer {
            AnswerFate::NoAnswer => {
                self.ledger.totals.unanswered += 1;
                self.put_off(early, now_us, timer);
                Verdict::Silence { id }
            }
            AnswerFate::LostAnswer => {
                self.ledger.totals.lost_answers += 1;
                self.put_off(early, now_us, timer);
                Verdict::Lost { id }
            }
            _ => Verdict::Answer { status: status::OK, id, latency_us, early },
        }
    }

    /// An early receipt without an answer is as any other.
    fn put_off(&mut self, early: Option<Due>, now_us: u64, timer: &Notify) {
        if early.is_some_and(|early| self.receipts.put(now_us, early)) {
            timer.notify_one();
        }
    }

    /// Tells all sessions what to do.
    pub fn order(&self, order: Order) {
        self.sessions.iter().for_each(|session| session.order(order));
    }

    /// Begins again as after a restart: sessions are dropped, and ids repeat when they are told to. What was counted and what
    /// waits stays, as on a centre's disk.
    pub fn restart(&mut self) {
        self.order(Order::Drop);
        if self.config.ids.repeat_after_restart {
            self.next_id = 1;
        }
    }

    /// Counts a refusal as it is written, or an answer that says "accepted".
    pub fn count_answer(&mut self, status: u32) {
        if status == status::OK {
            self.ledger.totals.answered_accepted += 1;
        } else {
            self.ledger.refused(status);
        }
    }

    /// Wakes all sessions that take receipts.
    pub fn wake_receivers(&self) {
        for session in self.sessions.iter().filter(|session| session.receives()) {
            session.wake();
        }
    }

    /// How many sessions take receipts.
    pub fn receivers(&self) -> usize {
        self.sessions.iter().filter(|session| session.receives()).count()
    }

    fn is_full(&mut self, number: u64, now_us: u64) -> bool {
        let for_us = u64::from(self.config.faults.queue_full_ms) * 1_000;
        now_us < *self.full_until.entry(number).or_insert(now_us + for_us)
    }

    /// Puts the part to its others and counts the message when it is whole. Answers the id that a receipt is due for.
    fn join(&mut self, incoming: &Incoming<'_>, id: u64) -> Option<u64> {
        let number = incoming.number;
        let with_text = self.ledger.wants_texts();
        match &incoming.body {
            Body::Text(text) => self.ledger.complete(number, incoming.segments, text, false),
            Body::Part(part, data_coding) if part.concatenation.is_none() => {
                let shown = decode::decode(*data_coding, if with_text { part.octets } else { &[] });
                self.ledger.complete(number, incoming.segments, &shown.text, shown.is_malformed);
            }
            Body::Part(part, data_coding) => {
                let one_receipt = self.config.receipts.one_per_message;
                match self.reassembly.add(number, incoming.sender, id, part, *data_coding, with_text) {
                    Joined::Whole(whole) => {
                        self.ledger.complete(number, u32::from(whole.parts), &whole.text, whole.is_malformed);
                        return Some(if one_receipt { whole.first_id } else { id });
                    }
                    Joined::Repeated => self.ledger.totals.repeated_parts += 1,
                    Joined::Waiting => {}
                }
                return (!one_receipt).then_some(id);
            }
        }
        Some(id)
    }

    /// Puts the receipts of a message where they wait; answers the one that is to come before the answer.
    fn arrange(
        &mut self,
        incoming: &Incoming<'_>,
        id: u64,
        occurrence: u32,
        now_us: u64,
        latency_us: u32,
        timer: &Notify,
    ) -> Option<Due> {
        let number = incoming.number;
        let unix_s = |us: u64| ((self.started_unix_us + us) / 1_000_000) as u32;
        let answered_us = now_us + u64::from(latency_us);
        let (submitted_s, answered_s) = (unix_s(now_us), unix_s(answered_us));
        let due = |kind, done_s| Due {
            number,
            id,
            sender: incoming.sender,
            kind,
            submitted_s,
            done_s,
            is_repeat: false,
            http: incoming.http.clone().map(Box::new),
        };
        let mut later = Later { queue: &mut self.receipts, was_idle: false };
        let can_write = incoming.http.is_none() || !self.config.http.inbound_url.is_empty();
        if can_write && let Some(text) = fate::inbound(&self.config, number, occurrence) {
            self.ledger.totals.receipts.inbound_made += 1;
            let delay_us = u64::from(self.config.receipts.inbound_delay_ms) * 1_000;
            later.put(answered_us + delay_us, due(Kind::Inbound(text), answered_s));
        }
        let receipt = fate::receipt(&self.config, number, occurrence);
        let is_wanted = match incoming.wants {
            Wants::Nothing => false,
            Wants::All => true,
            Wants::Failures => receipt.state != State::Delivered,
        };
        let mut early = None;
        let totals = &mut self.ledger.totals.receipts;
        if is_wanted && receipt.times == 0 {
            totals.never += 1;
        } else if is_wanted {
            let delay_us = u64::from(receipt.delay_us);
            let done_us = answered_us + delay_us;
            let done = due(Kind::Final(receipt.state), unix_s(done_us));
            let behind_us = done_us + delay_us / 2 + TICK_US;
            totals.made += u64::from(receipt.times) + u64::from(receipt.accepted_first) + u64::from(receipt.out_of_order);
            if receipt.accepted_first {
                later.put(answered_us + delay_us / 2, due(Kind::Intermediate(State::Accepted), answered_s));
            }
            if receipt.times == 2 {
                later.put(behind_us, done.clone());
            }
            if receipt.out_of_order {
                later.put(behind_us, due(Kind::Intermediate(State::EnRoute), answered_s));
            }
            if receipt.early {
                early = Some(done);
            } else {
                later.put(done_us + if receipt.accepted_first { TICK_US } else { 0 }, done);
            }
        }
        if later.was_idle {
            timer.notify_one();
        }
        early
    }

    fn report(&self) -> SimulatorReport {
        let mut report = self.ledger.report();
        report.incomplete_messages = self.reassembly.incomplete();
        report.receipts.waiting = self.receipts.waiting();
        report
    }
}

struct Later<'a> {
    queue: &'a mut ReceiptQueue,
    was_idle: bool,
}

impl Later<'_> {
    fn put(&mut self, at_us: u64, due: Due) {
        self.was_idle |= self.queue.put(at_us, due);
    }
}

/// A token bucket that starts full.
#[derive(Default)]
struct Bucket {
    tokens: f64,
    filled_us: Option<u64>,
}

impl Bucket {
    fn take(&mut self, rate: u32, burst_ms: u32, segments: u32, now_us: u64) -> bool {
        if rate == 0 {
            self.filled_us = None;
            return true;
        }
        let most = (f64::from(rate) * f64::from(burst_ms) / 1_000.0).max(1.0);
        self.tokens = match self.filled_us {
            None => most,
            Some(filled_us) => (self.tokens + now_us.saturating_sub(filled_us) as f64 * f64::from(rate) / 1e6).min(most),
        };
        self.filled_us = Some(now_us);
        // What is larger than the bucket is taken when the bucket is full, on credit.
        let admitted = self.tokens >= f64::from(segments).min(most);
        if admitted {
            self.tokens -= f64::from(segments);
        }
        admitted
    }
}

/// Addresses that messages were sent from: few, so that a number stands for each.
#[derive(Default)]
struct Senders {
    places: HashMap<Vec<u8>, u32>,
    addresses: Vec<Vec<u8>>,
    last: u32,
}

impl Senders {
    fn place(&mut self, address: &[u8]) -> u32 {
        if self.addresses.get(self.last as usize).is_some_and(|last| last == address) {
            return self.last;
        }
        self.last = match self.places.get(address) {
            Some(&place) => place,
            None => {
                let place = self.addresses.len() as u32;
                self.addresses.push(address.to_vec());
                self.places.insert(address.to_vec(), place);
                place
            }
        };
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_lets_the_rate_through_and_no_more() {
        for (rate, every_us, segments) in [(1_000, 100, 1), (5_000, 37, 1), (1_000, 100, 3), (250, 1_000, 1)] {
            let mut bucket = Bucket::default();
            let (mut passed, seconds) = (0u64, 10);
            for now_us in (0..seconds * 1_000_000).step_by(every_us) {
                passed += u64::from(bucket.take(rate, 100, segments, now_us)) * u64::from(segments);
            }
            let allowed = u64::from(rate) * seconds;
            assert!(passed >= allowed * 99 / 100 && passed <= allowed * 102 / 100, "{passed} of {allowed}");
        }
    }

    #[test]
    fn a_drop_is_due_at_every_nth_submit() {
        let mut config = SimulatorConfig::local();
        config.faults.drop_session_every = 3;
        let mut centre = Centre::new(config, 0);
        let due: Vec<bool> = (0..7).map(|_| centre.is_drop_due()).collect();
        assert_eq!(due, [false, false, true, false, false, true, false]);
    }
}
