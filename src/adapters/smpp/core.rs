//! What the sessions of one account share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::config::SmppConfig;
use super::pdu::Template;
use crate::adapters::waiting::Queue;
use crate::model::account::Account;
use crate::model::code::{Code, Fault};
use crate::ports::clock::{Chance, Clock};
use crate::ports::provider::{Health, ReportSink};

/// What the sessions of one account share.
pub struct Core {
    /// The account.
    pub account: Account,
    /// How it is reached.
    pub config: SmppConfig,
    /// What all its submits have in common.
    pub template: Template,
    /// TLS, when it is on.
    pub tls: Option<TlsConnector>,
    /// Messages that wait for a session.
    pub queue: Queue,
    /// Where receipts go.
    pub sink: ReportSink,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub chance: Arc<dyn Chance>,
    /// Until when answers are waited for, once the account closes.
    pub closing: watch::Sender<Option<Instant>>,
    /// What happened.
    pub counters: Counters,
    pub(super) bound: AtomicU64,
    pub(super) bound_to_send: AtomicU64,
    pub(super) outstanding: Vec<AtomicU64>,
    pub(super) last_error: Mutex<Option<(Code, String)>>,
}

/// What happened on an account since it was started, for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    /// Answers to parts that were answered as unknown before, or were never sent.
    pub answers_late: AtomicU64,
    /// Receipts that came in.
    pub receipts: AtomicU64,
    /// Receipts and messages of people that were not acknowledged because they did not become durable.
    pub receipts_refused: AtomicU64,
    /// Messages of people, or parts of them, that came in.
    pub inbound: AtomicU64,
    /// PDUs of kinds that nobody asked for.
    pub strange: AtomicU64,
    /// Sessions that ended without being told to.
    pub sessions_lost: AtomicU64,
}

impl Counters {
    /// Counts one more.
    pub fn count(counter: &AtomicU64) -> u64 {
        counter.fetch_add(1, Ordering::Relaxed)
    }
}

impl Core {
    /// Keeps an error for people, and logs it once when it is another than before.
    pub fn failed(&self, fault: &Fault) {
        let error = (fault.code, fault.context.clone());
        let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref() != Some(&error) {
            tracing::warn!(account = %self.account.name, code = %fault.code, error = %fault.context, "a session ended");
        }
        *last = Some(error);
    }

    /// How the account is doing.
    pub fn health(&self) -> Health {
        Health {
            up: self.bound_to_send.load(Ordering::Relaxed) > 0 && self.closing.borrow().is_none(),
            sessions: self.bound.load(Ordering::Relaxed) as u32,
            outstanding: self.outstanding.iter().map(|session| session.load(Ordering::Relaxed)).sum(),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
