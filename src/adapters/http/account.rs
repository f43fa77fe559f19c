//! An HTTP account: the provider port over requests.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::answer;
use super::config::HttpConfig;
use super::inbound;
use super::receipt;
use super::request::{Requests, Try};
use crate::adapters::secret::Secret;
use crate::adapters::waiting::{self, Queue, Ticket, asked};
use crate::model::account::{Account, LongMessage};
use crate::model::answer::Answer;
use crate::model::code::{Code, Fault};
use crate::model::inbound::Inbound;
use crate::model::receipt::Report;
use crate::model::window::Answered;
use crate::ports::clock::{Chance, Clock};
use crate::ports::provider::{Chunk, Health, Provider, Submit};
use crate::runtime::retry::Schedule;
use crate::runtime::task;

/// Repeats of one request under its idempotency key at most.
const REPEATS_MAX: u32 = 4;
/// How long requests get beyond the grace period to end by themselves.
const FAREWELL: Duration = Duration::from_millis(200);

/// An account that speaks HTTP. Dropping it closes it without grace.
pub struct HttpAccount {
    core: Arc<Core>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

struct Core {
    account: Account,
    config: HttpConfig,
    requests: Requests,
    queue: Queue,
    clock: Arc<dyn Clock>,
    closing: watch::Sender<Option<Instant>>,
    outstanding: AtomicU64,
    /// The last try found no connection, and its back-off is not over. Whoever declares for this account asks for it, so it may
    /// not stay set while nothing waits that could find out: then nothing would ever be tried again.
    unreachable: AtomicBool,
    last_error: Mutex<Option<(Code, String)>>,
}

impl HttpAccount {
    /// Checks the configuration and starts to serve; connections are made as they are needed. Fails with `ConfigInvalid` or
    /// `ProviderTls` only for what no later try could mend.
    pub fn start(
        account: Account,
        config: HttpConfig,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
    ) -> Result<Arc<HttpAccount>, Fault> {
        if account.capabilities.long_message != LongMessage::Payload {
            let what = format!("http account {}: long_message is \"payload\": the provider splits", account.name);
            return Err(Fault::new(Code::ConfigInvalid, what));
        }
        if let Some(receipts) = &config.receipts {
            receipt::check(receipts)?;
        }
        if let Some(inbound) = &config.inbound {
            inbound::check(inbound)?;
        }
        let core = Arc::new(Core {
            requests: Requests::new(&config, account.answer_timeout)?,
            queue: Queue::new(2 * (config.concurrency * config.batch) as usize, LongMessage::Payload),
            clock,
            closing: watch::Sender::new(None),
            outstanding: AtomicU64::new(0),
            unreachable: AtomicBool::new(false),
            last_error: Mutex::new(None),
            account,
            config,
        });
        let mut tasks = vec![task::spawn("http sweep", {
            let core = core.clone();
            async move { waiting::sweep(&core.queue, &*core.clock, core.closing.subscribe()).await }
        })];
        for _ in 0..core.config.concurrency {
            let (core, seed) = (core.clone(), chance.next());
            tasks.push(task::spawn("http requests", async move { core.serve(seed).await }));
        }
        Ok(Arc::new(HttpAccount { core, tasks: Mutex::new(tasks) }))
    }

    /// What a push of receipts must know at present; `None` when the account takes none.
    pub fn receipts_token(&self) -> Option<Secret> {
        self.core.config.receipts.as_ref().map(|receipts| receipts.token.now())
    }

    /// The receipts of one push, all or none. `InputInvalid` when any of them cannot be read, or the account takes none.
    pub fn parse_receipts(&self, body: &[u8], content_type: &str) -> Result<Vec<Report>, Fault> {
        match &self.core.config.receipts {
            Some(receipts) => receipt::read(receipts, body, content_type, self.core.clock.now()),
            None => Err(Fault::new(Code::InputInvalid, format!("account {} takes no receipts", self.core.account.name))),
        }
    }

    /// What a push is answered with once its receipts are durable: the kind of body, and the body.
    pub fn receipt_reply(&self) -> (&str, &str) {
        let receipts = self.core.config.receipts.as_ref();
        receipts.map_or(("text/plain", ""), |receipts| (&receipts.reply_type, &receipts.reply))
    }

    /// What a push of messages of people must know at present; `None` when the account takes none.
    pub fn inbound_token(&self) -> Option<Secret> {
        self.core.config.inbound.as_ref().map(|inbound| inbound.token.now())
    }

    /// The messages of one push, all or none. `InputInvalid` when any of them cannot be read, or the account takes none.
    pub fn parse_inbound(&self, body: &[u8], content_type: &str) -> Result<Vec<Inbound>, Fault> {
        match &self.core.config.inbound {
            Some(config) => inbound::read(config, body, content_type, self.core.clock.now()),
            None => Err(Fault::new(Code::InputInvalid, format!("account {} takes no messages", self.core.account.name))),
        }
    }

    /// What a push is answered with once its messages are durable: the kind of body, and the body.
    pub fn inbound_reply(&self) -> (&str, &str) {
        let inbound = self.core.config.inbound.as_ref();
        inbound.map_or(("text/plain", ""), |inbound| (&inbound.reply_type, &inbound.reply))
    }

    fn stop(&self, grace: Duration) {
        self.core.queue.close();
        let deadline = Instant::now() + grace;
        self.core.closing.send_modify(|closing| *closing = Some(closing.map_or(deadline, |earlier| earlier.min(deadline))));
    }
}

#[async_trait::async_trait]
impl Provider for HttpAccount {
    async fn submit(&self, chunk: Chunk) -> Result<(), Chunk> {
        self.core.queue.put(chunk, &*self.core.clock).await
    }

    fn health(&self) -> Health {
        let up = !self.core.unreachable.load(Ordering::Relaxed) && self.core.closing.borrow().is_none();
        Health {
            up,
            sessions: u32::from(up),
            outstanding: self.core.outstanding.load(Ordering::Relaxed),
            last_error: self.core.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    fn window(&self) -> u32 {
        self.core.config.concurrency * self.core.config.batch
    }

    async fn close(&self, grace: Duration) {
        self.stop(grace);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let limit = Instant::now() + grace + FAREWELL;
        for mut task in tasks {
            if tokio::time::timeout_at(limit, &mut task).await.is_err() {
                // What it handed over is answered when it is dropped.
                task.abort();
                let _ = task.await;
            }
        }
    }
}

impl Drop for HttpAccount {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }
}

/// What became of a request.
enum Outcome {
    /// An answer for each message.
    Answers(Vec<Answer>),
    /// Nothing was handed over.
    NotConnected(Fault),
}

impl Core {
    /// One request after another, until the account closes.
    async fn serve(&self, seed: u64) {
        let mut put = self.queue.watch();
        let mut closing = self.closing.subscribe();
        let mut waits = self.waits(seed);
        let mut has_failed = false;
        loop {
            put.borrow_and_update();
            let mut flight = Flight::new(self);
            self.queue.take(self.config.batch as usize, self.clock.boot(), &mut flight.messages);
            flight.leave_one_to_a_number();
            flight.answer_unfit();
            if flight.messages.is_empty() {
                if has_failed && self.outstanding.load(Ordering::Relaxed) == 0 {
                    // What waited is gone, and the last back-off is over: the next that comes is the probe. While another
                    // has a request under way, or waits, it is for that one to say.
                    self.unreachable.store(false, Ordering::Relaxed);
                }
                tokio::select! {
                    biased;
                    _ = closing.wait_for(Option::is_some) => return,
                    _ = put.changed() => continue,
                }
            }
            match self.hand_over(&mut flight, seed).await {
                Outcome::Answers(answers) => {
                    waits.begin_again();
                    has_failed = false;
                    self.unreachable.store(false, Ordering::Relaxed);
                    flight.settle(answers);
                }
                Outcome::NotConnected(fault) => {
                    has_failed = true;
                    self.unreachable.store(true, Ordering::Relaxed);
                    self.failed(&fault);
                    self.queue.put_back(std::mem::take(&mut flight.messages).into_iter());
                    let delay = waits.delay_for_ever();
                    tokio::select! {
                        biased;
                        _ = closing.wait_for(Option::is_some) => return,
                        () = tokio::time::sleep(delay) => {}
                    }
                }
            }
        }
    }

    /// Sends the request of a flight; again under the same key while nobody can know whether it arrived.
    async fn hand_over(&self, flight: &mut Flight<'_>, seed: u64) -> Outcome {
        let messages: Vec<&Submit> = flight.messages.iter().map(|(_, message)| message).collect();
        let all = |answer: Answer| Outcome::Answers(vec![answer; messages.len()]);
        let request = match self.requests.request(&messages) {
            Ok(request) => request,
            Err(why) => return all(Answer::Failed { code: Code::NotEncodable, detail: why.into() }),
        };
        let started = Instant::now();
        let mut closing = self.closing.subscribe();
        let mut waits = self.waits(seed).up_to(REPEATS_MAX);
        for repeat in 0.. {
            let Some(again) = request.try_clone() else { return all(Answer::NoAnswer) };
            let boot = self.clock.boot();
            let left = flight.messages.iter().map(|(ticket, _)| ticket.left(boot)).min().unwrap_or_default();
            flight.handed_over = true;
            match self.requests.send(again, left).await {
                Try::NotConnected(fault) if repeat == 0 => {
                    flight.handed_over = false;
                    return Outcome::NotConnected(fault);
                }
                Try::NotConnected(fault) => self.failed(&fault),
                Try::Unknown => {}
                Try::Answered(reply) => {
                    self.unreachable.store(false, Ordering::Relaxed);
                    if matches!(reply.status, 401 | 403) {
                        self.failed(&Fault::new(Code::ProviderLogin, format!("HTTP {}", reply.status)));
                    }
                    let answers = answer::answers(&self.config.answer, &reply, &messages);
                    if clear(reply.status, &answers, repeat > 0) {
                        return Outcome::Answers(answers);
                    }
                }
            }
            let Some(delay) = waits.next_delay() else { return all(Answer::NoAnswer) };
            let lifetime = self.config.idempotency.as_ref().map_or(Duration::ZERO, |key| key.lifetime);
            let in_time = started.elapsed() + delay < lifetime
                && flight.messages.iter().all(|(ticket, _)| ticket.in_time(self.clock.boot() + delay));
            if !in_time {
                return all(Answer::NoAnswer);
            }
            tokio::select! {
                biased;
                _ = closing.wait_for(Option::is_some) => return all(Answer::NoAnswer),
                () = tokio::time::sleep(delay) => {}
            }
        }
        all(Answer::NoAnswer)
    }

    /// Waits between tries.
    fn waits(&self, seed: u64) -> Schedule {
        Schedule::new(self.config.retry_min, self.config.retry_max, seed)
    }

    fn failed(&self, fault: &Fault) {
        let error = (fault.code, fault.context.clone());
        let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref() != Some(&error) {
            tracing::warn!(account = %self.account.name, code = %fault.code, error = %fault.context, "a request failed");
        }
        *last = Some(error);
    }
}

/// Whether an answer ends the doubt. When an earlier try may have arrived, "not now" and "conflict" are said of the repeat and
/// not of that one.
fn clear(status: u16, answers: &[Answer], in_doubt: bool) -> bool {
    let success = (200..300).contains(&status);
    if !success && answers.contains(&Answer::NoAnswer) {
        return false;
    }
    let said_of_repeat = status == 409 || answers.iter().any(|answer| matches!(answer, Answer::NotNow { .. }));
    !(in_doubt && said_of_repeat)
}

/// Messages that one request carries. Dropped before they are settled, they are answered all the same.
struct Flight<'a> {
    core: &'a Core,
    messages: VecDeque<(Arc<Ticket>, Submit)>,
    handed_over: bool,
    counted: u64,
}

impl<'a> Flight<'a> {
    fn new(core: &'a Core) -> Flight<'a> {
        Flight { core, messages: VecDeque::new(), handed_over: false, counted: 0 }
    }

    /// Leaves each number its first message and puts the others back, for a request of their own. A provider may name the
    /// messages of a request by their numbers, fold two to one number into one, or give a request one id, to which the number
    /// is added when a receipt comes: in all three one of two messages would get what was said of the other.
    fn leave_one_to_a_number(&mut self) {
        if self.messages.len() < 2 {
            return;
        }
        let mut numbers = HashSet::with_capacity(self.messages.len());
        let taken = std::mem::take(&mut self.messages);
        let (first, others): (VecDeque<_>, VecDeque<_>) =
            taken.into_iter().partition(|(_, message)| numbers.insert(message.number));
        self.messages = first;
        self.core.queue.put_back(others.into_iter());
    }

    /// Answers messages that want parts an HTTP account does not have, and counts the others.
    fn answer_unfit(&mut self) {
        self.messages.retain(|(ticket, message)| {
            let part = asked(message, 1).next().unwrap_or(0);
            if part != 0 {
                let answer = Answer::Failed { code: Code::NotEncodable, detail: "no such part".into() };
                ticket.answer(vec![Answered { seq: message.seq, part, parts: 1, answer }]);
            }
            part == 0
        });
        self.counted = self.messages.len() as u64;
        self.core.outstanding.fetch_add(self.counted, Ordering::Relaxed);
    }

    fn settle(&mut self, answers: Vec<Answer>) {
        let mut given: Vec<(Arc<Ticket>, Vec<Answered>)> = Vec::new();
        for ((ticket, message), answer) in self.messages.drain(..).zip(answers) {
            let answered = Answered { seq: message.seq, part: 0, parts: 1, answer };
            match given.iter_mut().find(|(other, _)| Arc::ptr_eq(other, &ticket)) {
                Some((_, answers)) => answers.push(answered),
                None => given.push((ticket, vec![answered])),
            }
        }
        for (ticket, answers) in given {
            ticket.answer(answers);
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.core.outstanding.fetch_sub(self.counted, Ordering::Relaxed);
        let answer = if self.handed_over { Answer::NoAnswer } else { Answer::NotSent };
        let count = self.messages.len();
        self.settle(vec![answer; count]);
    }
}
