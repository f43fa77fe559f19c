//! Receipts and messages of people on their way to the store, and their acknowledgements on the way back.
//!
//! What was read together travels together. It is held until the store's word comes; a session that holds
//! [`HELD_MAX`] of them stops reading, and so slows the SMSC instead of filling memory.

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
        }
    }

    /// Adds a receipt to those of this reading.
    pub fn gather(&mut self, key: Key, report: Report) {
        self.gathered.push(report);
        self.keys.push(key);
        self.held += 1;
        if self.gathered.len() >= REPORTS_PER_INTAKE {
            self.pass_on();
        }
    }

    /// Adds a message of a person, with the PDUs that brought it.
    pub fn gather_inbound(&mut self, keys: Vec<Key>, inbound: Inbound) {
        self.held += keys.len();
        self.keys.extend(keys);
        self.inbound.push(inbound);
    }

    /// Passes on what was gathered in this reading.
    pub fn pass_on(&mut self) {
        if self.keys.is_empty() {
            return;
        }
        let (ack, told) = oneshot::channel();
        let keys = std::mem::take(&mut self.keys);
        self.acks.push(Ack { keys, told });
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

    /// Passes on what waits, until some receipts are settled. Nothing is lost when it is dropped half-way.
    pub async fn settled(&mut self) -> Settled {
        loop {
            tokio::select! {
                biased;
                Some(settled) = self.acks.next(), if !self.acks.is_empty() => {
                    self.held -= settled.keys.len();
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
    told: oneshot::Receiver<bool>,
}

impl Future for Ack {
    type Output = Settled;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Settled> {
        Pin::new(&mut self.told).poll(context).map(|told| {
            let keys = std::mem::take(&mut self.keys);
            Settled { keys, durable: told.unwrap_or(false) }
        })
    }
}
