//! One bound session: fills its window, reads answers and receipts, and keeps the link alive.
//!
//! Shape: a loop that waits for whichever comes first (the connection takes octets or has some, messages or
//! acknowledgements arrive, time passes) and applies it without waiting.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, WriteHalf};
use tokio::time::{Instant, MissedTickBehavior};

use super::config::Role;
use super::connect::{Io, Link, READ};
use super::core::{Core, Counters};
use super::inbound::Parts;
use super::incoming::{Incoming, Settled};
use super::lenient::{self, Frame, next_frame};
use super::outgoing::Outgoing;
use super::pdu::{self, ANSWER, HEADER};
use super::receipt;
use super::window::Window;
use crate::model::answer::{Answer, Class};
use crate::model::code::{Code, Fault};

/// Why a session ended.
pub enum End {
    /// The account was closed.
    Closed,
    /// The connection, or the SMSC's goodwill, was lost.
    Lost(Fault),
}

/// How long answers are waited for after the SMSC said good-bye, and its own answer to ours.
const FAREWELL: Duration = Duration::from_secs(1);

/// Octets of answers, to receipts and to questions of the SMSC's own, that wait to be written at most, about (one reading may exceed
/// it): then nothing is read until the SMSC has taken some. These are sixty thousand answers, more than an SMSC leaves unread that
/// has a window of its own. Submits do not count: an SMSC may take the next of them only once its answers to others were read.
const ANSWERS_MAX: usize = 1 << 20;
/// Readings in a row after which time is looked at all the same: an SMSC that never stops talking must not stop it.
const READINGS_MAX: u32 = 512;
/// A session that did not look at the time for so long, and for half the time an answer has, stood still.
const STANDSTILL: Duration = Duration::from_secs(1);

/// Runs a session to its end. When it returns, everything it took is answered or back in the queue.
pub async fn run(core: &Core, index: usize, role: Role, link: Link) -> End {
    let (mut reader, mut writer) = tokio::io::split(link.io);
    let mut input = link.input;
    let mut session = Session::new(core, index, role);
    let mut put = core.queue.watch();
    let mut closing = core.closing.subscribe();
    let mut tick = tokio::time::interval(session.period());
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut flush = false;
    let mut readings = 0;
    // Octets behind the bind's answer may be whole PDUs already.
    if let Err(end) = session.read(&mut input) {
        return end;
    }
    loop {
        put.borrow_and_update();
        if let Some(end) = session.turn() {
            return end;
        }
        input.reserve(READ);
        let event = tokio::select! {
            biased;
            pushed = push(&mut writer, &mut session.window.out), if flush || !session.window.out.is_empty() => pushed,
            read = reader.read_buf(&mut input), if session.may_read() => Event::Read(read),
            settled = session.incoming.settled(), if session.incoming.held() > 0 => Event::Settled(settled),
            _ = put.changed(), if session.wants_messages() => Event::Put,
            deadline = closing_at(&mut closing), if session.is_open() => Event::Close(deadline),
            _ = tick.tick() => Event::Tick,
        };
        let applied = match event {
            Event::Written(Ok(0)) => Err(session.write_failed("the connection takes nothing any more")),
            Event::Written(Ok(octets)) => {
                session.window.written(octets);
                flush = true;
                Ok(())
            }
            Event::Written(Err(error)) | Event::Flushed(Err(error)) => Err(session.write_failed(&error.to_string())),
            Event::Flushed(Ok(())) => {
                flush = false;
                Ok(())
            }
            Event::Read(Ok(0)) => Err(session.ended("the connection was closed")),
            Event::Read(Ok(_)) => {
                readings += 1;
                let read = session.read(&mut input);
                if readings < READINGS_MAX {
                    read
                } else {
                    readings = 0;
                    read.and_then(|()| session.tick())
                }
            }
            Event::Read(Err(error)) => Err(session.ended(&error.to_string())),
            Event::Settled(settled) => {
                session.settled(&settled);
                Ok(())
            }
            Event::Put => Ok(()),
            Event::Close(deadline) => {
                session.close(deadline);
                Ok(())
            }
            Event::Tick => {
                readings = 0;
                session.tick()
            }
        };
        if let Err(end) = applied {
            return end;
        }
    }
}

/// Writes as much as the connection takes, or what lies between us and it (TLS keeps a buffer).
async fn push(writer: &mut WriteHalf<Box<dyn Io>>, out: &mut BytesMut) -> Event {
    if out.is_empty() { Event::Flushed(writer.flush().await) } else { Event::Written(writer.write_buf(out).await) }
}

/// Waits until the account closes, and says until when answers are waited for.
async fn closing_at(closing: &mut tokio::sync::watch::Receiver<Option<Instant>>) -> Instant {
    match closing.wait_for(Option::is_some).await {
        Ok(deadline) => deadline.unwrap_or_else(Instant::now),
        Err(_) => Instant::now(),
    }
}

enum Event {
    Written(std::io::Result<usize>),
    Flushed(std::io::Result<()>),
    Read(std::io::Result<usize>),
    Settled(Settled),
    Put,
    Close(Instant),
    Tick,
}

/// Where a session is in its life.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    /// Submitting.
    Open,
    /// Submitting no more, and connecting again when all is answered or at this time.
    Draining(Instant),
    /// The account closes: waiting for answers until this time.
    Closing(Instant),
    /// Good-bye was said: waiting for the SMSC's own until this time.
    Unbinding(Instant),
}

struct Session<'a> {
    core: &'a Core,
    index: usize,
    role: Role,
    window: Window,
    incoming: Incoming,
    parts: Parts,
    phase: Phase,
    outgoing: Outgoing,
    heard: Instant,
    enquired: Option<Instant>,
    /// Nothing is judged unanswered before this: the session did not read for a while.
    judge_from: Instant,
    /// Until when the session did not read because it was full of receipts, or stood still: the SMSC may take nothing meanwhile.
    full_until: Instant,
    /// When time was looked at.
    looked: Instant,
    last_words: &'static str,
}

impl<'a> Session<'a> {
    fn new(core: &'a Core, index: usize, role: Role) -> Session<'a> {
        let now = Instant::now();
        Session {
            core,
            index,
            role,
            // The bind had number 1.
            window: Window::new(core.config.window, 2),
            incoming: Incoming::new(&core.account.name, core.sink.clone()),
            parts: Parts::default(),
            phase: Phase::Open,
            outgoing: Outgoing::default(),
            heard: now,
            enquired: None,
            judge_from: now,
            full_until: now,
            looked: now,
            last_words: "",
        }
    }

    fn period(&self) -> Duration {
        let shortest = self.core.account.answer_timeout.min(self.core.config.enquire_link) / 8;
        shortest.clamp(Duration::from_millis(5), Duration::from_millis(100))
    }

    fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Draining(_))
    }

    fn sends(&self) -> bool {
        self.role.sends() && self.phase == Phase::Open
    }

    fn wants_messages(&self) -> bool {
        self.sends() && self.window.out.is_empty() && self.window.room() > 0
    }

    /// Whether more may be read: what waits for the store is bounded, and so is what the SMSC does not take.
    fn may_read(&self) -> bool {
        !self.incoming.is_full() && self.window.others() < ANSWERS_MAX
    }

    /// What is due before waiting: end, say good-bye, withdraw what is late, fill the window.
    fn turn(&mut self) -> Option<End> {
        let now = Instant::now();
        if !self.window.out.is_empty() {
            let boot = self.core.clock.boot();
            self.window.withdraw(|ticket| ticket.may_send(boot));
        }
        let idle = self.window.len() == 0 && self.window.out.is_empty();
        match self.phase {
            Phase::Open => {}
            Phase::Draining(until) if idle || now >= until => return Some(self.ended(self.last_words)),
            Phase::Closing(until) if idle && self.incoming.held() == 0 || now >= until => {
                let sequence = self.window.sequence();
                self.put_header_only(pdu::UNBIND, 0, sequence);
                self.phase = Phase::Unbinding(now + FAREWELL);
            }
            Phase::Unbinding(until) if now >= until => return Some(End::Closed),
            Phase::Draining(_) | Phase::Closing(_) | Phase::Unbinding(_) => {}
        }
        if self.wants_messages() {
            self.outgoing.fill(self.core, &mut self.window, now);
        }
        self.window.hand_back();
        self.core.outstanding[self.index].store(self.window.len() as u64, Ordering::Relaxed);
        None
    }

    fn put_header_only(&mut self, command: u32, status: u32, sequence: u32) {
        pdu::put_header_only(&mut self.window.out, command, status, sequence);
        self.window.add_other(HEADER, Instant::now());
    }

    /// Applies all whole PDUs that were read.
    fn read(&mut self, input: &mut BytesMut) -> Result<(), End> {
        self.heard = Instant::now();
        self.enquired = None;
        let applied = self.frames(input);
        self.incoming.pass_on();
        self.window.hand_back();
        applied
    }

    fn frames(&mut self, input: &mut BytesMut) -> Result<(), End> {
        loop {
            match next_frame(input, self.core.config.max_command_length) {
                Ok(Some(frame)) => self.frame(&frame)?,
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.ended(&error.to_string())),
            }
        }
    }

    fn frame(&mut self, frame: &Frame) -> Result<(), End> {
        match frame.command {
            pdu::SUBMIT_SM_RESP => self.answered(frame, self.core.config.class(frame.status)),
            // A "not understood" that says "no error" says nothing.
            pdu::GENERIC_NACK if frame.status == 0 => self.answered(frame, Class::Unknown),
            pdu::GENERIC_NACK => self.answered(frame, self.core.config.class(frame.status)),
            pdu::DELIVER_SM => self.delivered(frame, lenient::deliver_sm(&frame.body)),
            pdu::DATA_SM => self.delivered(frame, lenient::data_sm(&frame.body)),
            pdu::ENQUIRE_LINK => self.put_header_only(pdu::ENQUIRE_LINK | ANSWER, 0, frame.sequence),
            pdu::UNBIND => {
                self.put_header_only(pdu::UNBIND | ANSWER, 0, frame.sequence);
                self.drain("the SMSC ended the session");
            }
            command if command == pdu::UNBIND | ANSWER => {
                if let Phase::Unbinding(_) = self.phase {
                    return Err(End::Closed);
                }
            }
            pdu::ALERT_NOTIFICATION | pdu::OUTBIND => {}
            command if command == pdu::ENQUIRE_LINK | ANSWER => {}
            command => {
                Counters::count(&self.core.counters.strange);
                if command & ANSWER == 0 {
                    self.put_header_only(pdu::GENERIC_NACK, pdu::INVALID_COMMAND, frame.sequence);
                }
            }
        }
        Ok(())
    }

    fn answered(&mut self, frame: &Frame, class: Class) {
        let detail = || format!("0x{:08X}", frame.status).into();
        let answer = match class {
            Class::Accepted => Answer::Accepted { id: lenient::message_id(&frame.body) },
            Class::NotNow(kind) => Answer::NotNow { kind, detail: detail() },
            Class::Permanent => Answer::Failed { code: Code::ProviderRefused, detail: detail() },
            Class::Unknown => Answer::NoAnswer,
        };
        if !self.window.answer(frame.sequence, answer) {
            Counters::count(&self.core.counters.answers_late);
        } else if frame.status == pdu::INVALID_BIND_STATE {
            self.drain("the SMSC says that the session is not bound");
        }
    }

    fn delivered(&mut self, frame: &Frame, delivered: lenient::Delivered) {
        if delivered.is_receipt() {
            Counters::count(&self.core.counters.receipts);
            let report = receipt::report(&delivered, self.core.clock.now());
            self.incoming.gather((frame.command, frame.sequence), report);
        } else {
            Counters::count(&self.core.counters.inbound);
            let key = (frame.command, frame.sequence);
            let whole = self.parts.take(key, delivered, self.core.clock.now(), Instant::now());
            whole.into_iter().for_each(|(keys, inbound)| self.incoming.gather_inbound(keys, inbound));
        }
    }

    fn put_taken(&mut self, command: u32, sequence: u32) {
        let before = self.window.out.len();
        pdu::put_taken(&mut self.window.out, command, sequence);
        self.window.add_other(self.window.out.len() - before, Instant::now());
    }

    fn settled(&mut self, settled: &Settled) {
        if settled.durable {
            for (command, sequence) in &settled.keys {
                self.put_taken(*command, *sequence);
            }
        } else {
            self.core.counters.receipts_refused.fetch_add(settled.keys.len() as u64, Ordering::Relaxed);
        }
    }

    /// Time passed: judge what is unanswered, and the link itself.
    fn tick(&mut self) -> Result<(), End> {
        let now = Instant::now();
        let patience = self.core.account.answer_timeout;
        let alone = self.parts.expired(now);
        alone.into_iter().for_each(|(keys, inbound)| self.incoming.gather_inbound(keys, inbound));
        self.incoming.pass_on();
        let stood_still = now.duration_since(self.looked) >= STANDSTILL.max(patience / 2);
        self.looked = now;
        if stood_still || !self.may_read() {
            // Answers may lie unread: behind receipts that wait for the store, or behind questions whose answers are not taken.
            self.judge_from = now + patience.min(Duration::from_secs(5));
            self.heard = now;
        }
        if stood_still || self.incoming.is_full() {
            self.full_until = now;
        }
        if now >= self.judge_from
            && let Some(limit) = now.checked_sub(patience)
        {
            self.window.expire(limit);
        }
        self.outgoing.drop_late(self.core, &mut self.window);
        self.window.hand_back();
        // As long as one that says nothing has: enquiring, and waiting for the answer.
        let longest = self.core.config.enquire_link.saturating_add(patience);
        if let Some(since) = self.window.waits_since()
            && now.duration_since(since.max(self.full_until)) >= longest
        {
            return Err(self.ended("the SMSC takes nothing of what it is sent"));
        }
        match self.enquired {
            Some(at) if now >= at + patience && now >= self.judge_from => Err(self.ended("no sign of life from the SMSC")),
            None if now >= self.heard + self.core.config.enquire_link => {
                let sequence = self.window.sequence();
                self.put_header_only(pdu::ENQUIRE_LINK, 0, sequence);
                self.enquired = Some(now);
                Ok(())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Stops submitting on this session: it is to be bound again.
    fn drain(&mut self, why: &'static str) {
        if self.phase == Phase::Open {
            self.phase = Phase::Draining(Instant::now() + FAREWELL);
            self.last_words = why;
            self.give_back();
        }
    }

    /// The account closes: what is not handed over goes back, answers are waited for.
    fn close(&mut self, deadline: Instant) {
        self.phase = Phase::Closing(deadline);
        self.give_back();
        self.window.hand_back();
    }

    fn give_back(&mut self) {
        self.window.withdraw_all();
        self.outgoing.give_back(&mut self.window);
    }

    /// Nobody knows how much of the write buffer the other side got: all of it may have been handed over.
    fn write_failed(&mut self, why: &str) -> End {
        self.window.lose();
        self.ended(why)
    }

    fn ended(&self, why: &str) -> End {
        match self.phase {
            Phase::Closing(_) | Phase::Unbinding(_) => End::Closed,
            Phase::Open | Phase::Draining(_) => End::Lost(Fault::new(Code::ProviderDown, why)),
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}
