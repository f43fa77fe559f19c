//! Accounts at providers: messages out, answers and reports in.
//!
//! The port takes chunks of a window and gives back answers as they come, so that a session may live in this process or,
//! later, in another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::model::account::Account;
use crate::model::code::Code;
use crate::model::id::Msisdn;
use crate::model::inbound::Inbound;
use crate::model::receipt::Report;
use crate::model::window::Answered;

/// One message of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submit {
    /// The recipient's place in its lane: comes back in the answers.
    pub seq: u32,
    /// To whom.
    pub number: Msisdn,
    /// Digits behind the account's own sender number.
    pub ext_code: String,
    /// The whole text, signature and link included.
    pub text: String,
    /// Parts to hand over, as bits; 0 stands for all.
    pub parts: u32,
    /// Reference for the concatenation of its parts: the same on every try.
    pub reference: u16,
    /// A key that the account may use to remove repeats, and our own reference where the protocol carries one back:
    /// `batch-lane-seq` and what tells a resend apart.
    pub key: String,
}

/// Some messages of one window.
#[derive(Debug)]
pub struct Chunk {
    /// The messages.
    pub messages: Vec<Submit>,
    /// Nothing of it is handed over when the boot clock is past this; it is answered `NotSent`.
    pub send_by: Duration,
    /// Cancelled when what was not handed over must go back at once, as `NotSent`.
    pub stop: CancellationToken,
    /// Where the answers go: one for each part asked for, in any order, in batches. An account that loses its session
    /// answers what was written as `NoAnswer` and the rest as `NotSent`; it never keeps silent. The sender is dropped when
    /// all are given.
    pub answers: mpsc::UnboundedSender<Vec<Answered>>,
}

/// How an account is doing, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Whether messages can be handed over now.
    pub up: bool,
    /// Sessions bound (SMPP) or 1 (HTTP).
    pub sessions: u32,
    /// Parts handed over and not answered yet.
    pub outstanding: u64,
    /// The last error, with its code.
    pub last_error: Option<(Code, String)>,
}

/// An account at a provider.
#[async_trait::async_trait]
pub trait Provider: Send + Sync {
    /// Hands over a chunk: returns as soon as the account has room to queue it, and waits while it has none (that is the
    /// back-pressure). Everything in it is answered through the chunk's channel. Gives the chunk back when the account was
    /// closed.
    async fn submit(&self, chunk: Chunk) -> Result<(), Chunk>;

    /// How it is doing.
    fn health(&self) -> Health;

    /// Parts that may be outstanding at once over all sessions: bounds how much is declared.
    fn window(&self) -> u32;

    /// Stops: gives back what was not written, waits for answers up to `grace`, then says good-bye.
    async fn close(&self, grace: Duration);
}

/// Reports, and messages of people, that came in together from one account.
#[derive(Debug)]
pub struct Reports {
    /// The account.
    pub account: String,
    /// The reports, in order of arrival.
    pub reports: Vec<Report>,
    /// What people wrote, in order of arrival.
    pub inbound: Vec<Inbound>,
    /// Told `true` once all of them are durable: only then the provider gets its acknowledgement. Dropped or `false`: it
    /// gets none, and sends them again.
    pub ack: oneshot::Sender<bool>,
}

/// Where accounts put reports; bounded, so that a slow store slows the intake instead of filling memory.
pub type ReportSink = mpsc::Sender<Reports>;

/// An account and the way to it.
#[derive(Clone)]
pub struct Route {
    /// What it can do.
    pub account: Account,
    /// The way to it.
    pub provider: Arc<dyn Provider>,
}

/// All routes by the account's name.
pub type Routes = Arc<BTreeMap<String, Route>>;
