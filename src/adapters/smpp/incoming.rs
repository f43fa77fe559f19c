//! Receipts and messages of people on their way to the store, and their acknowledgements on the way back.
//!
//! What was read together travels together. It is held until the store's word comes; a session that holds [`HELD_MAX`] of them, or
//! [`HELD_OCTETS_MAX`], stops reading, and so slows the SMSC instead of filling memory.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;

use crate::model::inbound::Inbound;
use crate::model::limits::REPORTS_PER_INTAKE;
use crate::model::receipt::Report;
use crate::ports::provider::{ReportSink, Reports};

/// Receipts held at once, about (one reading may exceed it).
pub const HELD_MAX: usize = 2 * REPORTS_PER_INTAKE;

/// Octets of all that is held at once, about: three times what so many ordinary receipts have, and less than as many of the longest
/// that are kept would.
pub const HELD_OCTETS_MAX: usize = 16 << 20;

/// The PDU that brought a receipt: its command id and its sequence number.
pub type Key = (u32, u32);

/// The receipts of one session that are not acknowledged yet.
pub struct Incoming {
    account: String,
    sink: ReportSink,
    gathered: Vec<Report>,
    inbound: Vec<Inbound>,
    keys: Vec<Key>,
    waiting: VecDeque<Reports>,
    acks: FuturesUnordered<Ack>,
    held: usize,
    /// Octets of what was gathered in this reading.
    gathered_octets: usize,
    held_octets: usize,
}

/// Receipts whose fate is known.
#[derive(Debug, PartialEq, Eq)]
pub struct Settled {
    /// The PDUs that brought them.
    pub keys: Vec<Key>,
    /// Whether they are durable.
    pub durable: bool,
}

impl Incoming {
    /// Nothing yet.
    pub fn new(account: &str, sink: ReportSink) -> Incoming {
        Incoming {
            account: account.to_owned(),
            sink,
            gathered: Vec::new(),
            inbound: Vec::new(),
            keys: Vec::new(),
            waiting: VecDeque::new(),
            acks: FuturesUnordered::new(),
            held: 0,
            gathered_octets: 0,
            held_octets: 0,
        }
    }

    /// Adds a receipt to those of this reading.
    pub fn gather(&mut self, key: Key, report: Report) {
        let texts = [&report.message_id, &report.error, &report.raw].map(String::len).iter().sum::<usize>();
        self.hold(size_of::<Report>() + texts, &[key]);
        self.gathered.push(report);
        if self.gathered.len() >= REPORTS_PER_INTAKE {
            self.pass_on();
        }
    }

    /// Adds a message of a person, with the PDUs that brought it.
    pub fn gather_inbound(&mut self, keys: Vec<Key>, inbound: Inbound) {
        let texts = [&inbound.from, &inbound.to, &inbound.text, &inbound.id].map(String::len).iter().sum::<usize>();
        self.hold(size_of::<Inbound>() + texts, &keys);
        self.inbound.push(inbound);
    }

    fn hold(&mut self, octets: usize, keys: &[Key]) {
        let octets = octets + size_of_val(keys);
        self.held += keys.len();
        self.held_octets += octets;
        self.gathered_octets += octets;
        self.keys.extend(keys);
    }

    /// Passes on what was gathered in this reading.
    pub fn pass_on(&mut self) {
        if self.keys.is_empty() {
            return;
        }
        let (ack, told) = oneshot::channel();
        let keys = std::mem::take(&mut self.keys);
        self.acks.push(Ack { keys, octets: std::mem::take(&mut self.gathered_octets), told });
        let (reports, inbound) = (std::mem::take(&mut self.gathered), std::mem::take(&mut self.inbound));
        let reports = Reports { account: self.account.clone(), reports, inbound, ack };
        if !self.waiting.is_empty() {
            self.waiting.push_back(reports);
            return;
        }
        match self.sink.try_send(reports) {
            Ok(()) => {}
            Err(TrySendError::Full(reports)) => self.waiting.push_back(reports),
            // Nobody takes receipts any more: they are not acknowledged, and come again.
            Err(TrySendError::Closed(reports)) => drop(reports),
        }
    }

    /// Receipts that are not settled.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Whether so much is held that nothing more may be read.
    pub fn is_full(&self) -> bool {
        self.held >= HELD_MAX || self.held_octets >= HELD_OCTETS_MAX
    }

    /// Passes on what waits, until some receipts are settled. Nothing is lost when it is dropped half-way.
    pub async fn settled(&mut self) -> Settled {
        loop {
            tokio::select! {
                biased;
                Some((settled, octets)) = self.acks.next(), if !self.acks.is_empty() => {
                    self.held -= settled.keys.len();
                    self.held_octets -= octets;
                    return settled;
                }
                room = self.sink.reserve(), if !self.waiting.is_empty() => match (room, self.waiting.pop_front()) {
                    (Ok(room), Some(reports)) => room.send(reports),
                    (Ok(_) | Err(_), _) => self.waiting.clear(),
                },
                else => std::future::pending().await,
            }
        }
    }
}

/// Waits for the store's word on some receipts; no word is a no.
struct Ack {
    keys: Vec<Key>,
    /// What they hold.
    octets: usize,
    told: oneshot::Receiver<bool>,
}

impl Future for Ack {
    type Output = (Settled, usize);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<(Settled, usize)> {
        Pin::new(&mut self.told).poll(context).map(|told| {
            let keys = std::mem::take(&mut self.keys);
            (Settled { keys, durable: told.unwrap_or(false) }, self.octets)
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::model::receipt::Rung;
    use crate::model::time::Timestamp;

    #[tokio::test]
    async fn long_receipts_and_messages_fill_a_session_before_many_do_and_go_with_the_stores_word() {
        let (sink, mut store) = mpsc::channel(1);
        let mut incoming = Incoming::new("test", sink);
        let mut pdus = 0;
        while !incoming.is_full() {
            if pdus % 2 == 0 {
                let (message_id, error, raw) = ("7".repeat(64), "0".repeat(64), "x".repeat(8_192));
                let rung = Rung::Delivered;
                let report =
                    Report { message_id, number: None, reference: None, rung, done: None, error, raw, received: Timestamp(1) };
                incoming.gather((5, pdus), report);
            } else {
                let (from, to, text, id) = ("1".repeat(64), "2".repeat(64), "x".repeat(8_192), "7".repeat(64));
                incoming.gather_inbound(vec![(5, pdus)], Inbound { from, to, text, id, received: Timestamp(1) });
            }
            pdus += 1;
            if pdus % 100 == 0 {
                incoming.pass_on();
            }
        }
        assert!(incoming.held() < HELD_MAX / 4, "{} are held", incoming.held());
        incoming.pass_on();
        tokio::spawn(async move {
            while let Some(reports) = store.recv().await {
                let _ = reports.ack.send(true);
            }
        });
        while incoming.held() > 0 {
            assert!(incoming.settled().await.durable);
        }
        assert_eq!(incoming.held_octets, 0);
        assert!(!incoming.is_full());
    }
}
