//! The provider and the handsets: takes messages, answers or not, sends receipts; and remembers, as the oracle's witness.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use smsfleet::adapters::system::SeededChance;
use smsfleet::model::account::Account;
use smsfleet::model::answer::{Answer, NotNow};
use smsfleet::model::code::Code;
use smsfleet::model::id::{LaneKey, Msisdn, RecipientKey, WindowKey, WorkerId};
use smsfleet::model::limits::SEND_BY;
use smsfleet::model::receipt::{Ending, Report, Rung};
use smsfleet::model::text::split;
use smsfleet::model::time::Timestamp;
use smsfleet::model::window::Answered;
use smsfleet::ports::clock::{Chance, Clock};
use smsfleet::ports::provider::{Chunk, Health, Provider, ReportSink, Reports, Submit};
use smsfleet::ports::receipts::PartKey;
use smsfleet::runtime::task::Tasks;
use tokio::sync::oneshot;

use super::books::{Books, Place, Waiting};
use super::faults::{Fired, Trouble};
use super::known::{Handed, Known, Told, note};
use super::process::RECEIPTS_WAIT;

/// The provider. Shared by all processes.
pub struct Network {
    known: Mutex<Known>,
    chance: SeededChance,
    clock: Arc<dyn Clock>,
    /// Misbehaviour in a thousand messages.
    pub per_mille: Mutex<u64>,
    /// Milliseconds that a message takes at most to be written: a slow provider keeps windows open for long.
    slowness: u64,
    /// Until when, on the boot clock, its answers take seconds.
    slow_until: Mutex<Duration>,
    fired: Fired,
}

/// What becomes of one part at the provider.
enum Fate {
    Taken,
    TakenSilently,
    Refused(Answer),
}

impl Network {
    pub fn new(seed: u64, clock: Arc<dyn Clock>, fired: Fired) -> Arc<Network> {
        Arc::new(Network {
            known: Mutex::default(),
            chance: SeededChance::from_seed(seed),
            clock,
            per_mille: Mutex::new(60),
            slowness: [0, 0, 60, 400][(seed >> 4) as usize % 4],
            slow_until: Mutex::default(),
            fired,
        })
    }

    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("not poisoned")
    }

    /// What time it is by the calendar.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Where receipts may go from now on; sinks of dead processes are noticed by their answer.
    pub fn listen(&self, sink: ReportSink) {
        self.known().sinks.push(sink);
    }

    fn mixed(&self) -> bool {
        self.chance.next() % 1_000 < *self.per_mille.lock().expect("not poisoned")
    }

    fn mixed_again(&self) -> bool {
        self.chance.next().is_multiple_of(2)
    }

    /// Its answers take seconds from now on, for so long.
    pub fn slow_for(&self, time: Duration) {
        *self.slow_until.lock().expect("not poisoned") = self.clock.boot() + time;
    }

    /// How long an answer takes: some come when others would have given up nearly.
    fn latency(&self) -> Duration {
        let is_slow = self.clock.boot() < *self.slow_until.lock().expect("not poisoned");
        let late = self.mixed() || is_slow;
        if is_slow {
            self.fire("provider slow");
        }
        let takes = self.chance.next() % if late { 5_900 } else { 300 };
        if takes >= 2_000 {
            self.fire("answer late");
        }
        Duration::from_millis(takes)
    }

    fn fire(&self, name: &'static str) {
        self.fired.fire(name, self.clock.boot());
    }

    /// A window's answers can be read in the store from now on.
    pub fn written(&self, key: WindowKey, answers: &[Answered]) {
        self.known().again.written(key, answers, self.clock.now());
    }

    /// One part of a message arrives, of a window that is judged later than `due`.
    fn take(&self, submit: &Submit, sessions: &Sessions, (part, of): (u8, u8), due: Timestamp) -> (Fate, String) {
        let account = sessions.account.name.as_str();
        let now = self.clock.boot();
        let recipient = recipient_of(submit);
        let fate = if self.mixed() {
            match self.chance.next() % 5 {
                0 => Fate::Refused(not_now(NotNow::Throttled, "provider throttled", self)),
                1 => Fate::Refused(not_now(NotNow::QueueFull, "queue full", self)),
                2 => Fate::Refused(not_now(NotNow::Transient, "transient refusal", self)),
                3 => {
                    self.fire("permanent refusal");
                    Fate::Refused(Answer::Failed { code: Code::ProviderRefused, detail: "0x0B".into() })
                }
                _ => {
                    self.fire("answer lost");
                    Fate::TakenSilently
                }
            }
        } else {
            Fate::Taken
        };
        let mut known = self.known();
        let taken = matches!(fate, Fate::Taken | Fate::TakenSilently);
        let id = if taken && known.next_id > 0 && self.mixed() && self.chance.next().is_multiple_of(4) {
            // The provider's counter stands still: two messages have one id.
            self.fire("colliding id");
            let other = known.last_taken.clone();
            known.collided.extend([other, recipient.clone()]);
            known.next_id
        } else {
            known.next_id + 1
        };
        known.next_id = id;
        known.last_taken.clone_from(&recipient);
        known.arrivals += 1;
        known.arrived.entry(recipient.clone()).or_default().push(self.clock.now());
        known.last.clone_from(&recipient);
        let refused = matches!(&fate, Fate::Refused(Answer::Failed { .. }));
        if let Fate::Refused(answer) = &fate {
            let refusals = known.refused.entry(recipient.clone()).or_default();
            match answer {
                Answer::NotNow { kind: NotNow::Transient | NotNow::QueueFull, .. } => refusals.not_now += 1,
                Answer::NotNow { .. } => {}
                _ => refusals.for_good += 1,
            }
        }
        let place = place_of(submit, part);
        let excuses = known.again.comes(place, account, self.clock.now());
        let is_sent_again = excuses.as_ref().is_some_and(|excuses| excuses.refused);
        if let Err(wrong) = known.operators.arrives(&recipient, part, refused, is_sent_again, self.clock.now()) {
            known.wrong.push(format!("{now:?} {wrong}: {recipient} part {part} at {account}"));
        }
        if known.suppressed.get(&submit.number).is_some_and(|since| now > *since + SEND_BY + Duration::from_secs(1)) {
            known.wrong.push(format!("{now:?} long suppressed, and handed over: {recipient}"));
        }
        if matches!(fate, Fate::TakenSilently) {
            known.silent.insert(recipient.clone());
        }
        if taken {
            let ids = known.ids.entry(recipient.clone()).or_default();
            if ids.iter().any(|other| reads_like(id, *other) || reads_like(*other, id)) {
                known.collided.insert(recipient.clone());
            }
            known.ids.entry(recipient.clone()).or_default().insert(id);
            let got = known.got.entry(recipient.clone()).or_default();
            *got.parts.entry(part).or_default() += 1;
            got.of = of;
            got.last = now;
            got.last_at = self.clock.now();
            got.number = submit.number;
            got.text.clone_from(&submit.text);
            got.accounts.insert(account.to_owned());
            let (twice, mixed) = (got.repeated(), got.accounts.len() > 1);
            let is_excused = excuses.is_some_and(|excuses| excuses.taken);
            if (twice || mixed) && is_excused {
                self.fire("sent again");
            } else if twice || mixed {
                let wrong = if twice { "somebody got it twice" } else { "somebody got parts from two providers" };
                known.wrong.push(format!("{now:?} {wrong}: {recipient} part {part} at {account}"));
            }
        }
        if taken || refused {
            let (at, account, silent) = (self.clock.now(), account.to_owned(), matches!(fate, Fate::TakenSilently));
            let id = taken.then(|| format!("{id:X}"));
            known.again.handed(&recipient, place, Handed { at, due, account, of, id, silent });
        }
        known.follow(now.as_micros() as u64 ^ submit.number.0 ^ u64::from(part) << 56);
        (fate, format!("{id:X}"))
    }

    /// Sends the receipt of a part, again and again until somebody acknowledges it.
    fn receipt(self: &Arc<Self>, submit: &Submit, part: u8, account: &str, id: String, early: bool) {
        let (network, number, recipient) = (self.clone(), submit.number, recipient_of(submit));
        let draw = self.chance.next();
        let rung = match draw % 10 {
            0 => Rung::Ended(Ending::Failed),
            1 => Rung::Ended(Ending::Expired),
            _ => Rung::Delivered,
        };
        let times = if draw.is_multiple_of(16) { 2 } else { 1 };
        let on_its_way = (draw >> 40).is_multiple_of(8);
        if draw % 50 == 1 {
            self.fire("receipt never");
            return;
        }
        if times == 2 {
            self.fire("receipt twice");
        }
        if early {
            self.fire("receipt early");
        }
        // Some come when they are not waited for any more.
        let late = (draw >> 44).is_multiple_of(24);
        let delay = match (early, late) {
            (true, _) => 0,
            (false, false) => 20 + (draw >> 8) % 20_000,
            (false, true) => 45_000 + (draw >> 8) % 100_000,
        };
        let mut copies: Vec<(u64, Rung)> = (0..times).map(|copy| (delay + copy * 700, rung)).collect();
        if on_its_way {
            // That it is on its way is said when it has arrived long since, or before.
            let said = (draw >> 48) % 30_000;
            if said > delay {
                self.fire("receipt out of order");
            }
            copies.push((said, Rung::EnRoute));
        }
        for (delay, rung) in copies {
            let (network, id, recipient, account) = (network.clone(), id.clone(), recipient.clone(), account.to_owned());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(delay)).await;
                note(&mut network.known().said, &recipient, part, rung);
                if delay > RECEIPTS_WAIT.as_millis() as u64 {
                    network.fire("receipt late");
                }
                while !network.deliver(&account, number, &id, rung).await {
                    tokio::time::sleep(Duration::from_secs(2)).await;
                }
                let mut known = network.known();
                known.follow(network.clock.boot().as_micros() as u64 ^ number.0);
                known.first_acknowledged.entry(recipient.clone()).or_insert(network.clock.now());
                note(&mut known.acknowledged, &recipient, part, rung);
            });
        }
    }

    async fn deliver(&self, account: &str, number: Msisdn, id: &str, rung: Rung) -> bool {
        let sink = {
            let known = self.known();
            if known.sinks.is_empty() {
                return false;
            }
            known.sinks[(self.chance.next() % known.sinks.len() as u64) as usize].clone()
        };
        let (ack, acked) = oneshot::channel();
        // The receipt names the id in decimal: the fleet has to find that out.
        let decimal = u64::from_str_radix(id, 16).unwrap_or(0).to_string();
        let report = Report {
            message_id: decimal,
            number: Some(number),
            reference: None,
            rung,
            done: Some(self.clock.now().0 / 1_000),
            error: String::new(),
            raw: format!("{id} {}", rung.stat()),
            received: self.clock.now(),
        };
        if sink.send(Reports { account: account.to_owned(), reports: vec![report], inbound: vec![], ack }).await.is_err() {
            self.known().sinks.retain(|other| !other.is_closed());
            return false;
        }
        matches!(tokio::time::timeout(Duration::from_secs(20), acked).await, Ok(Ok(true)))
    }
}

/// Whether a receipt about one message, which has the id in decimal, names the other as its answer did, in hexadecimal.
fn reads_like(one: u64, other: u64) -> bool {
    one.to_string() == format!("{other:X}")
}

fn not_now(kind: NotNow, name: &'static str, network: &Network) -> Answer {
    network.fire(name);
    Answer::NotNow { kind, detail: "".into() }
}

/// The batch and the number: who gets what.
fn recipient_of(submit: &Submit) -> String {
    let batch = submit.key.split_once('-').map_or("", |(batch, _)| batch);
    format!("{batch}/+{}", submit.number.digits())
}

/// The lane of a message.
fn lane_of(submit: &Submit) -> LaneKey {
    let mut words = submit.key.split('-');
    let mut next = || words.next().unwrap_or_default();
    LaneKey { batch: next().parse().expect("a batch"), lane: next().parse().expect("a lane") }
}

/// The part of a message, by its place in its lane.
fn place_of(submit: &Submit, part: u8) -> PartKey {
    PartKey { recipient: RecipientKey { lane: lane_of(submit), seq: submit.seq }, part }
}

/// A process's sessions at the provider.
pub struct Sessions {
    pub books: Arc<Books>,
    pub network: Arc<Network>,
    pub trouble: Trouble,
    pub tasks: Tasks,
    pub account: Account,
    pub worker: WorkerId,
    /// Until when, on the boot clock, no session can be made.
    pub away_until: Mutex<Duration>,
}

impl Sessions {
    fn is_away(&self) -> bool {
        self.network.clock.boot() < *self.away_until.lock().expect("not poisoned")
    }

    /// What was handed over waits for a session as long as it may; or the account was closed meanwhile, and it is given back.
    async fn is_given_back(&self, chunk: &Chunk) -> bool {
        if !self.is_away() {
            return false;
        }
        self.network.fire("account away");
        let is_closed = self.network.chance.next().is_multiple_of(4);
        while self.is_away() && !is_closed && !chunk.stop.is_cancelled() && self.network.clock.boot() <= chunk.send_by {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        is_closed
    }

    /// The worker knows by itself that these were not sent, of each at least that its first part was not.
    fn give_back(&self, chunk: &Chunk) {
        self.network.fire("chunk given back");
        let (mut known, at) = (self.network.known(), self.network.clock.now());
        for submit in &chunk.messages {
            let asked = if submit.parts == 0 { 1 } else { submit.parts };
            let told = (0..32).filter(|part| asked & (1 << part) != 0);
            let told = told.map(|part| Told { worker: self.worker, at, part, answer: Answer::NotSent });
            known.told.entry(recipient_of(submit)).or_default().extend(told);
        }
    }
}

#[async_trait::async_trait]
impl Provider for Sessions {
    async fn submit(&self, chunk: Chunk) -> Result<(), Chunk> {
        let handing_over = chunk.messages.first().map(|first| self.books.wait(Place::HandOver(lane_of(first))));
        self.trouble.wait().await;
        if self.is_given_back(&chunk).await {
            self.give_back(&chunk);
            handing_over.into_iter().for_each(Waiting::end_well);
            return Err(chunk);
        }
        let mut answers: Vec<(Answered, Duration)> = Vec::new();
        // Where in the chunk the session is lost, if it is: what was written before is not answered, the rest is not written.
        let lost_at = (self.network.mixed() && self.network.mixed_again()).then(|| {
            self.network.fire("session dropped");
            self.network.chance.next() as usize % chunk.messages.len().max(1)
        });
        let clock = &self.network.clock;
        let due = clock.now().plus(chunk.send_by.saturating_sub(clock.boot())).plus(self.account.answer_timeout);
        for (at, submit) in chunk.messages.iter().enumerate() {
            // Each message is written on its own, takes its time, and a freeze may come in between.
            match self.network.chance.next() % 4 {
                0 => self.trouble.wait().await,
                _ if self.network.slowness > 0 => {
                    tokio::time::sleep(Duration::from_millis(self.network.chance.next() % self.network.slowness)).await;
                }
                _ => {}
            }
            let parts = split(&submit.text, self.account.capabilities.long_message).parts;
            let account = &self.account.name;
            for part in (0..parts).filter(|part| submit.parts == 0 || submit.parts & (1 << part) != 0) {
                let answered = |answer| Answered { seq: submit.seq, part, parts, answer };
                let is_lost = lost_at.is_some_and(|lost| at > lost);
                let too_late = self.network.clock.boot() > chunk.send_by;
                if too_late {
                    self.network.fire("woken too late to send");
                }
                if is_lost || chunk.stop.is_cancelled() || too_late {
                    answers.push((answered(Answer::NotSent), Duration::ZERO));
                    continue;
                }
                let (fate, id) = self.network.take(submit, self, (part, parts), due);
                let early = self.network.mixed();
                let latency = self.network.latency();
                match fate {
                    Fate::Taken => {
                        self.network.receipt(submit, part, account, id.clone(), early);
                        answers.push((answered(Answer::Accepted { id: id.into() }), latency));
                    }
                    Fate::TakenSilently => {
                        self.network.receipt(submit, part, account, id, early);
                        answers.push((answered(Answer::NoAnswer), Duration::from_secs(5)));
                    }
                    Fate::Refused(answer) => answers.push((answered(answer), latency)),
                }
            }
        }
        if lost_at.is_some() {
            // Some sessions are made anew at once, and some later.
            if self.network.mixed_again() {
                let time = Duration::from_millis(self.network.chance.next() % 8_000);
                *self.away_until.lock().expect("not poisoned") = self.network.clock.boot() + time;
            }
            for (answered, latency) in answers.iter_mut().filter(|(answered, _)| answered.answer != Answer::NotSent) {
                (answered.answer, *latency) = (Answer::NoAnswer, Duration::ZERO);
                let Some(submit) = chunk.messages.iter().find(|submit| submit.seq == answered.seq) else { continue };
                let mut known = self.network.known();
                known.silent.insert(recipient_of(submit));
                known.again.unanswered(place_of(submit, answered.part));
            }
        }
        let sender = chunk.answers;
        let (network, worker) = (self.network.clone(), self.worker);
        let recipients: BTreeMap<u32, String> = chunk.messages.iter().map(|submit| (submit.seq, recipient_of(submit))).collect();
        self.tasks.spawn("answers", async move {
            answers.sort_by_key(|(_, latency)| *latency);
            let mut passed = Duration::ZERO;
            for (answered, latency) in answers {
                if latency > passed {
                    tokio::time::sleep(latency - passed).await;
                    passed = latency;
                }
                if let Some(recipient) = recipients.get(&answered.seq) {
                    let told = Told { worker, at: network.clock.now(), part: answered.part, answer: answered.answer.clone() };
                    network.known().told.entry(recipient.clone()).or_default().push(told);
                }
                let _ = sender.send(vec![answered]);
            }
        });
        handing_over.into_iter().for_each(Waiting::end_well);
        Ok(())
    }

    fn health(&self) -> Health {
        let up = !self.is_away();
        Health { up, sessions: up.into(), ..Health::default() }
    }

    fn window(&self) -> u32 {
        100
    }

    async fn close(&self, _: Duration) {}
}
