//! The provider simulator: an SMPP 3.4 message centre and an HTTP provider in one, which can misbehave in every way that
//! users must survive, and which counts what it received apart from the fleet: the independent witness of the tests.
//!
//! Used inside a process by `quickstart`, tests and benches, and on its own as `smsfleet simulate-provider`.
//!
//! Architecture invariant: nothing of the fleet's model, text layer or protocol crates is used here (only its error codes
//! and named tasks), because a witness that shares code with the accused proves nothing.

mod callback;
mod centre;
mod check;
mod config;
mod decode;
mod fate;
mod http;
mod ids;
mod ledger;
mod pdu;
mod reassembly;
mod receipts;
mod report;
mod session;
#[cfg(test)]
mod tests;
mod unacknowledged;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

pub use config::{Delay, Faults, Http, IdStyle, Ids, ReceiptForm, Receipts, SimulatorConfig};
pub use fate::{AnswerFate, Fate, ReceiptFate, State, fate};
pub use ledger::text_hash;
pub use report::{HttpTotals, NumberRecord, ReceiptTotals, SessionTotals, SimulatorReport};

use crate::model::code::{Code, Fault};
use crate::runtime::task;
use centre::Shared;
use session::Order;

/// How long tasks are waited for when the simulator stops.
const STOP: Duration = Duration::from_secs(5);

/// A running simulator. It ends when it is stopped or dropped.
pub struct Simulator {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    smpp: Option<SocketAddr>,
    http: Option<SocketAddr>,
}

impl Simulator {
    /// Listens where `config` says. Fails when that makes no sense or an address cannot be had.
    pub async fn start(config: SimulatorConfig) -> Result<Simulator, Fault> {
        config.check()?;
        let smpp = listen(config.smpp_listen).await?;
        let http = listen(config.http_listen).await?;
        let unix_us = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_micros() as u64);
        let callbacks = config.http.callback_connections;
        let simulator = Simulator {
            shared: Arc::new(Shared::new(config, unix_us)),
            tasks: TaskTracker::new(),
            smpp: smpp.as_ref().map(|(_, address)| *address),
            http: http.as_ref().map(|(_, address)| *address),
        };
        let shared = || simulator.shared.clone();
        let tracked = &simulator.tasks;
        task::spawn("simulator timer", tracked.track_future(keep_time(shared())));
        if let Some((listener, _)) = smpp {
            task::spawn("simulator smpp", tracked.track_future(accept(listener, shared(), tracked.clone())));
        }
        if let Some((listener, _)) = http {
            task::spawn("simulator http", tracked.track_future(serve_http(listener, shared())));
            for _ in 0..callbacks {
                task::spawn("simulator callback", tracked.track_future(callback::push(shared())));
            }
        }
        Ok(simulator)
    }

    /// Where the SMPP server listens.
    pub fn smpp_addr(&self) -> Option<SocketAddr> {
        self.smpp
    }

    /// Where the HTTP provider listens.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Its configuration as it stands now, with the addresses it took: starting again with it gives the same ports.
    pub fn config(&self) -> SimulatorConfig {
        let config = self.shared.centre().config.clone();
        SimulatorConfig { smpp_listen: self.smpp, http_listen: self.http, ..config }
    }

    /// What it counted since its start.
    pub fn report(&self) -> SimulatorReport {
        self.shared.report()
    }

    /// What came for one number; `None` when nothing did or numbers are not counted.
    pub fn number(&self, number: u64) -> Option<NumberRecord> {
        self.shared.centre().ledger.number(number)
    }

    /// What came for every number, in their order.
    pub fn numbers(&self) -> Vec<NumberRecord> {
        self.shared.centre().ledger.numbers()
    }

    /// Texts accepted for a number in order of completion, when `keep_texts` is set.
    pub fn texts(&self, number: u64) -> Vec<String> {
        self.shared.centre().ledger.texts(number)
    }

    /// Changes how submits go wrong, from the next one on.
    pub fn set_faults(&self, faults: Faults) -> Result<(), Fault> {
        self.change(|config| config.faults = faults)
    }

    /// Changes how receipts behave, from the next submit on.
    pub fn set_receipts(&self, receipts: Receipts) -> Result<(), Fault> {
        self.change(|config| config.receipts = receipts)
    }

    /// Sets where HTTP receipts are pushed to, for callers that learn their own address late.
    pub fn set_callback(&self, url: &str, token: &str) -> Result<(), Fault> {
        self.change(|config| (config.http.callback_url, config.http.callback_token) = (url.to_owned(), token.to_owned()))?;
        self.shared.callbacks.notify_one();
        Ok(())
    }

    /// Sets where people's own texts are pushed to, when their message came over HTTP.
    pub fn set_inbound(&self, url: &str, token: &str) -> Result<(), Fault> {
        self.change(|config| (config.http.inbound_url, config.http.inbound_token) = (url.to_owned(), token.to_owned()))
    }

    fn change(&self, change: impl FnOnce(&mut SimulatorConfig)) -> Result<(), Fault> {
        let mut centre = self.shared.centre();
        let mut config = centre.config.clone();
        change(&mut config);
        config.check()?;
        centre.config = config;
        Ok(())
    }

    /// Drops all SMPP sessions without a word.
    pub fn drop_sessions(&self) {
        self.shared.centre().order(Order::Drop);
    }

    /// Says `unbind` on all SMPP sessions; submits behind it get ESME_RINVBNDSTS.
    pub fn unbind_sessions(&self) {
        self.shared.centre().order(Order::Unbind);
    }

    /// Refuses new binds with ESME_RBINDFAIL, or takes them again.
    pub fn refuse_binds(&self, refuse: bool) {
        self.shared.centre().refuses_binds = refuse;
    }

    /// Behaves as after a restart: drops all sessions and begins ids again if `ids.repeat_after_restart`. What it counted
    /// and the receipts that wait stay.
    pub fn restart(&self) {
        self.shared.centre().restart();
    }

    /// Ends all sessions and waits for them; answers what was counted.
    pub async fn stop(self) -> SimulatorReport {
        self.end();
        self.tasks.close();
        if tokio::time::timeout(STOP, self.tasks.wait()).await.is_err() {
            tracing::warn!("the simulator's tasks did not end in time");
        }
        self.report()
    }

    fn end(&self) {
        self.shared.stop.cancel();
        self.shared.centre().sessions.iter().for_each(|session| session.wake());
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.end();
    }
}

async fn listen(address: Option<SocketAddr>) -> Result<Option<(TcpListener, SocketAddr)>, Fault> {
    let Some(address) = address else { return Ok(None) };
    let fault = |error| Fault::new(Code::ConfigInvalid, format!("the simulator cannot listen on {address}: {error}"));
    let listener = TcpListener::bind(address).await.map_err(fault)?;
    let address = listener.local_addr().map_err(fault)?;
    Ok(Some((listener, address)))
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, tasks: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                task::spawn("simulator session", tasks.track_future(session::serve(stream, shared.clone())));
            }
            Err(error) => {
                tracing::warn!(%error, "the simulator could not take a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve_http(listener: TcpListener, shared: Arc<Shared>) {
    let listener = listener.tap_io(|stream| {
        // An answer must not wait for the client's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
    });
    let stop = shared.stop.clone();
    let served = axum::serve(listener, http::router(shared.clone())).with_graceful_shutdown(stop.clone().cancelled_owned());
    let give_up = async {
        stop.cancelled().await;
        tokio::time::sleep(STOP / 5).await;
    };
    tokio::select! {
        served = async { served.await } => if let Err(error) = served {
            tracing::warn!(%error, "the simulator's HTTP side ended");
        },
        () = give_up => {}
    }
}

/// Moves receipts whose time has come to where sessions and callbacks take them: one task, a bucket at a time.
async fn keep_time(shared: Arc<Shared>) {
    while !shared.stop.is_cancelled() {
        let now_us = shared.now_us();
        let is_idle = {
            let mut centre = shared.centre();
            let (for_sessions, for_callbacks) = centre.receipts.advance(now_us);
            if for_sessions {
                centre.wake_receivers();
            }
            if for_callbacks {
                shared.callbacks.notify_one();
            }
            centre.receipts.is_idle()
        };
        let next = async {
            if is_idle {
                shared.timer.notified().await;
            } else {
                tokio::time::sleep(Duration::from_micros(receipts::TICK_US)).await;
            }
        };
        tokio::select! {
            () = next => {}
            () = shared.stop.cancelled() => {}
        }
    }
}
