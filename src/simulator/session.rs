//! One SMPP connection: reads all that has come, answers it with one write, and sends receipts within a window.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::centre::{Body, Centre, Incoming, Shared, Verdict, Wants};
use super::pdu::{self, Header, command, status};
use super::reassembly;
use super::receipts::Due;
use super::unacknowledged::Unacknowledged;

/// Octets read at once.
const READ: usize = 256 * 1024;
/// Nothing more is read while this much waits to be written.
const WRITE_MAX: usize = 4 << 20;
/// How much later an answer comes whose early receipt has to take another session.
const EARLY_LEAD_US: u32 = 100_000;
/// How long a dropped session still takes what the client had sent, so that answers already written arrive.
const LINGER: Duration = Duration::from_millis(200);

/// A session as the rest of the simulator sees it.
pub(super) struct Handle {
    wake: Notify,
    order: AtomicU8,
    receives: AtomicBool,
}

/// What a session can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// End without a word.
    Drop = 1,
    /// Say `unbind` and take no more submits.
    Unbind = 2,
}

impl Handle {
    /// Whether receipts may go this way.
    pub fn receives(&self) -> bool {
        self.receives.load(Ordering::Relaxed)
    }

    /// Makes the session look for receipts and orders.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Tells it what to do.
    pub fn order(&self, order: Order) {
        self.order.store(order as u8, Ordering::Relaxed);
        self.wake();
    }
}

/// Serves one connection until it ends.
pub(super) async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    // Without it an answer waits for the client's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let handle = Arc::new(Handle { wake: Notify::new(), order: AtomicU8::new(0), receives: AtomicBool::new(false) });
    {
        let mut centre = shared.centre();
        centre.ledger.totals.sessions.connections += 1;
        centre.sessions.push(handle.clone());
    }
    let mut session = Session::new(handle, shared.now_us());
    let end = session.run(&mut stream, &shared).await;
    session.leave(&shared, end);
    if end == End::Dropped {
        let _ = stream.shutdown().await;
        let mut ignored = vec![0; READ];
        let drain = async { while stream.read(&mut ignored).await.is_ok_and(|octets| octets > 0) {} };
        let _ = tokio::time::timeout(LINGER, drain).await;
    }
}

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Unbound,
    Dropped,
    Lost,
    Stopped,
}

/// An answer that waits for its time; ordered by that, then by arrival.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Delayed {
    due_us: u64,
    order: u64,
    status: u32,
    id: u64,
    sequence: u32,
}

struct Session {
    handle: Arc<Handle>,
    bind: Option<u32>,
    input: BytesMut,
    out: Vec<u8>,
    written: usize,
    delayed: BinaryHeap<Reverse<Delayed>>,
    delayed_count: u64,
    unacknowledged: Unacknowledged,
    enquire_us: u64,
    said_unbind: bool,
    end: Option<End>,
}

impl Session {
    fn new(handle: Arc<Handle>, now_us: u64) -> Session {
        Session {
            handle,
            bind: None,
            input: BytesMut::with_capacity(READ),
            out: Vec::with_capacity(64 * 1024),
            written: 0,
            delayed: BinaryHeap::new(),
            delayed_count: 0,
            unacknowledged: Unacknowledged::default(),
            enquire_us: now_us,
            said_unbind: false,
            end: None,
        }
    }

    async fn run(&mut self, stream: &mut TcpStream, shared: &Shared) -> End {
        let (mut reader, writer) = stream.split();
        loop {
            if shared.stop.is_cancelled() {
                return End::Stopped;
            }
            let wake_us = self.turn(shared);
            match self.write(&writer) {
                Ok(()) => {}
                Err(_) => return self.end.unwrap_or(End::Lost),
            }
            if self.end.is_some() && self.out.is_empty() {
                return self.end.unwrap_or(End::Lost);
            }
            if self.input.capacity() - self.input.len() < READ / 2 {
                self.input.reserve(READ);
            }
            let may_read = self.out.len() - self.written < WRITE_MAX && self.end.is_none();
            tokio::select! {
                biased;
                () = self.handle.wake.notified() => {}
                read = reader.read_buf(&mut self.input), if may_read => match read {
                    Ok(0) | Err(_) => return End::Lost,
                    Ok(_) => {}
                },
                ready = writer.writable(), if !self.out.is_empty() => if ready.is_err() { return End::Lost },
                () = tokio::time::sleep_until(shared.instant(wake_us.unwrap_or(0))), if wake_us.is_some() => {}
            }
        }
    }

    /// Everything that can be done without waiting, under one hold of the centre. Answers when something is due next.
    fn turn(&mut self, shared: &Shared) -> Option<u64> {
        let now_us = shared.now_us();
        let mut centre = shared.centre();
        match self.handle.order.swap(0, Ordering::Relaxed) {
            order if order == Order::Drop as u8 => {
                // Not even what a client that never reads has left unwritten.
                self.out.truncate(self.written);
                self.end = Some(End::Dropped);
            }
            order if order == Order::Unbind as u8 => {
                self.said_unbind = true;
                let sequence = self.unacknowledged.next_other();
                pdu::write(&mut self.out, command::UNBIND, status::OK, sequence, |_| {});
            }
            _ => {}
        }
        self.read(&mut centre, shared, now_us);
        self.release(&mut centre, now_us);
        self.send_receipts(&mut centre, now_us);
        self.enquire(&centre, now_us);
        let resend_us = u64::from(centre.config.receipts.resend_ms) * 1_000;
        let delayed_us = self.delayed.peek().map(|Reverse(next)| next.due_us);
        let resend_us = self.unacknowledged.oldest_us().map(|sent_us| sent_us + resend_us);
        let enquire_us = (centre.config.enquire_link_ms > 0).then_some(self.enquire_us);
        [delayed_us, resend_us, enquire_us].into_iter().flatten().min()
    }

    fn read(&mut self, centre: &mut Centre, shared: &Shared, now_us: u64) {
        let mut input = std::mem::take(&mut self.input);
        let mut at = 0;
        while self.end.is_none()
            && let Some(header) = pdu::header(&input[at..])
        {
            if header.length < pdu::HEADER || header.length > pdu::PDU_MAX {
                centre.ledger.totals.malformed_requests += 1;
                self.refuse_unreadable(header.sequence, status::INVALID_COMMAND_LENGTH);
                self.end = Some(End::Dropped);
                break;
            }
            let Some(body) = input.get(at + pdu::HEADER..at + header.length) else { break };
            self.handle_pdu(centre, shared, header, body, now_us);
            at += header.length;
        }
        input.advance(at);
        self.input = input;
    }

    fn handle_pdu(&mut self, centre: &mut Centre, shared: &Shared, header: Header, body: &[u8], now_us: u64) {
        let Header { command, sequence, .. } = header;
        match command {
            command::SUBMIT_SM => self.handle_submit(centre, shared, sequence, body, now_us),
            command::ENQUIRE_LINK => {
                centre.ledger.totals.sessions.enquire_links += 1;
                pdu::write(&mut self.out, command | command::RESPONSE, status::OK, sequence, |_| {});
            }
            command::BIND_RECEIVER | command::BIND_TRANSMITTER | command::BIND_TRANSCEIVER => {
                self.handle_bind(centre, command, sequence, body);
            }
            command::UNBIND => {
                pdu::write(&mut self.out, command | command::RESPONSE, status::OK, sequence, |_| {});
                self.end = Some(End::Unbound);
            }
            _ if command == command::DELIVER_SM | command::RESPONSE => {
                self.unacknowledged.answered(centre, sequence, header.status, now_us, &shared.timer);
            }
            _ if command == command::UNBIND | command::RESPONSE && self.said_unbind => self.end = Some(End::Unbound),
            // Answers, a generic_nack among them, are never answered.
            _ if command & command::RESPONSE != 0 => {}
            _ => self.refuse_unreadable(sequence, status::INVALID_COMMAND),
        }
    }

    fn refuse_unreadable(&mut self, sequence: u32, status: u32) {
        pdu::write(&mut self.out, command::GENERIC_NACK, status, sequence, |_| {});
    }

    fn handle_bind(&mut self, centre: &mut Centre, command: u32, sequence: u32, body: &[u8]) {
        let config = &centre.config;
        let bound = centre.ledger.totals.sessions.bound;
        let status = match pdu::bind(body) {
            None => status::INVALID_COMMAND_LENGTH,
            Some(_) if centre.refuses_binds => status::BIND_FAILED,
            Some(_) if self.bind.is_some() => status::ALREADY_BOUND,
            Some(_) if config.sessions_max > 0 && bound >= config.sessions_max => status::ALREADY_BOUND,
            Some((name, _)) if !config.system_id.is_empty() && name != config.system_id.as_bytes() => status::INVALID_SYSTEM_ID,
            Some((_, word)) if !config.system_id.is_empty() && word != config.password.as_bytes() => status::INVALID_PASSWORD,
            Some(_) => status::OK,
        };
        let totals = &mut centre.ledger.totals.sessions;
        if status == status::OK {
            self.bind = Some(command);
            self.handle.receives.store(command != command::BIND_TRANSMITTER, Ordering::Relaxed);
            self.enquire_us += u64::from(config.enquire_link_ms) * 1_000;
            totals.binds += 1;
            totals.bound += 1;
            totals.bound_max = totals.bound_max.max(totals.bound);
        } else {
            totals.binds_refused += 1;
        }
        pdu::write_bind_answer(&mut self.out, command, status, sequence);
    }

    fn handle_submit(&mut self, centre: &mut Centre, shared: &Shared, sequence: u32, body: &[u8], now_us: u64) {
        match self.decide(centre, shared, body, now_us) {
            Ok(Verdict::Answer { status, id, latency_us, early }) => {
                let latency_us = match early {
                    Some(early) => self.deliver_early(centre, early, latency_us, now_us),
                    None => latency_us,
                };
                if latency_us == 0 {
                    self.answer(centre, status, id, sequence);
                } else {
                    let (due_us, order) = (now_us + u64::from(latency_us), self.delayed_count);
                    self.delayed_count += 1;
                    self.delayed.push(Reverse(Delayed { due_us, order, status, id, sequence }));
                }
            }
            Ok(Verdict::Silence { .. }) => {}
            Ok(Verdict::Lost { .. }) => self.end = Some(End::Dropped),
            Err(status) => self.answer(centre, status, 0, sequence),
        }
        if centre.is_drop_due() && self.end.is_none() {
            if centre.config.faults.drop_mid_answer {
                self.out.truncate(self.out.len().saturating_sub(pdu::HEADER / 2).max(self.written));
            }
            self.end = Some(End::Dropped);
        }
    }

    /// What becomes of a submit; the error is a status that needs no further thought.
    fn decide(&mut self, centre: &mut Centre, shared: &Shared, body: &[u8], now_us: u64) -> Result<Verdict, u32> {
        if self.bind.is_none_or(|bind| bind == command::BIND_RECEIVER) || self.said_unbind {
            return Err(status::NOT_BOUND);
        }
        let Some(submit) = pdu::submit(body) else {
            centre.ledger.totals.malformed_requests += 1;
            return Err(status::INVALID_COMMAND_LENGTH);
        };
        let segments = if submit.is_payload { payload_segments(submit.message.len(), submit.data_coding) } else { 1 };
        centre.ledger.received(segments, now_us);
        if centre.config.window > 0 && self.delayed.len() >= centre.config.window as usize {
            centre.ledger.totals.out_of_window += 1;
            return Err(status::THROTTLED);
        }
        if !centre.admits(segments, now_us) {
            return Err(status::THROTTLED);
        }
        let number = digits(submit.destination).ok_or(status::INVALID_DESTINATION)?;
        let part = reassembly::part(&submit)?;
        if !submit.is_payload && !reassembly::fits(&part, submit.data_coding) {
            centre.ledger.totals.oversize_parts += 1;
            if centre.config.refuse_oversize {
                return Err(status::INVALID_MESSAGE_LENGTH);
            }
        }
        let incoming = Incoming {
            number,
            sender: centre.sender(submit.source),
            segments,
            body: Body::Part(part, submit.data_coding),
            wants: Wants::of(submit.registered_delivery),
            http: None,
        };
        Ok(centre.submit(incoming, now_us, &shared.timer))
    }

    fn answer(&mut self, centre: &mut Centre, status: u32, id: u64, sequence: u32) {
        centre.count_answer(status);
        pdu::write(&mut self.out, command::SUBMIT_SM | command::RESPONSE, status, sequence, |out| {
            if status == status::OK {
                super::ids::answer(&centre.config.ids, id, out);
            }
            if status == status::OK || centre.config.refusal_body {
                out.push(0);
            }
        });
    }

    /// Sends a receipt ahead of its answer: in front of it on this session, or by another one with a head start.
    fn deliver_early(&mut self, centre: &mut Centre, early: Due, latency_us: u32, now_us: u64) -> u32 {
        if self.handle.receives() && self.unacknowledged.count() < centre.config.receipts.window as usize {
            self.unacknowledged.send(centre, early, now_us, &mut self.out);
            return latency_us;
        }
        centre.receipts.ready.push_front(early);
        centre.wake_receivers();
        latency_us.saturating_add(EARLY_LEAD_US)
    }

    fn release(&mut self, centre: &mut Centre, now_us: u64) {
        while self.delayed.peek().is_some_and(|Reverse(next)| next.due_us <= now_us)
            && let Some(Reverse(Delayed { status, id, sequence, .. })) = self.delayed.pop()
        {
            self.answer(centre, status, id, sequence);
        }
    }

    fn send_receipts(&mut self, centre: &mut Centre, now_us: u64) {
        if !self.handle.receives() || self.end.is_some() || self.said_unbind {
            return;
        }
        self.unacknowledged.take_back_old(centre, now_us);
        let window = centre.config.receipts.window as usize;
        let share = (centre.receipts.ready.len() / centre.receivers().max(1)).max(64);
        for _ in 0..share.min(window.saturating_sub(self.unacknowledged.count())) {
            let Some(due) = centre.receipts.ready.pop_front() else { break };
            self.unacknowledged.send(centre, due, now_us, &mut self.out);
        }
        if !centre.receipts.ready.is_empty() && self.unacknowledged.count() < window {
            self.handle.wake();
        }
    }

    fn enquire(&mut self, centre: &Centre, now_us: u64) {
        let every_us = u64::from(centre.config.enquire_link_ms) * 1_000;
        if every_us == 0 || now_us < self.enquire_us || self.end.is_some() {
            return;
        }
        self.enquire_us = now_us + every_us;
        if self.bind.is_some() {
            let sequence = self.unacknowledged.next_other();
            pdu::write(&mut self.out, command::ENQUIRE_LINK, status::OK, sequence, |_| {});
        }
    }

    /// Writes what the socket takes now.
    fn write(&mut self, writer: &tokio::net::tcp::WriteHalf<'_>) -> std::io::Result<()> {
        while self.written < self.out.len() {
            match writer.try_write(&self.out[self.written..]) {
                Ok(octets) => self.written += octets,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    /// Takes the session off the books; what it did not get acknowledged goes to others.
    fn leave(&mut self, shared: &Shared, end: End) {
        self.handle.receives.store(false, Ordering::Relaxed);
        let mut centre = shared.centre();
        centre.sessions.retain(|other| !Arc::ptr_eq(other, &self.handle));
        let totals = &mut centre.ledger.totals.sessions;
        totals.bound -= u32::from(self.bind.is_some());
        match end {
            End::Unbound => totals.unbound += 1,
            End::Dropped => totals.dropped += 1,
            End::Lost => totals.lost += 1,
            End::Stopped => {}
        }
        let is_accepted = |Reverse(answer): &&Reverse<Delayed>| answer.status == status::OK;
        centre.ledger.totals.lost_answers += self.delayed.iter().filter(is_accepted).count() as u64;
        self.unacknowledged.take_back_all(&mut centre);
        centre.wake_receivers();
    }
}

fn payload_segments(octets: usize, data_coding: u8) -> u32 {
    let (alone, each) = if data_coding <= 1 { (160, 153) } else { (140, 134) };
    if octets <= alone { 1 } else { octets.div_ceil(each) as u32 }
}

/// A number of up to 18 digits, with or without a plus sign.
pub(super) fn digits(address: &[u8]) -> Option<u64> {
    let digits = address.strip_prefix(b"+").unwrap_or(address);
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}
