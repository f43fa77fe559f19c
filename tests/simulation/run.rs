//! One run: a world, batches, a schedule of troubles, healing, the end, the verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use smsfleet::adapters::memory::clock::SimClock;
use smsfleet::adapters::memory::store::MemoryStore;
use smsfleet::adapters::system::SeededChance;
use smsfleet::batch::SmsBatchService;
use smsfleet::model::batch::{BatchRow, Command, SmsBatch};
use smsfleet::model::code::Code;
use smsfleet::model::fleet::{FleetRole, ROLES};
use smsfleet::model::id::BatchId;
use smsfleet::model::state::StepState;
use smsfleet::model::step::CurrentStep;
use smsfleet::model::time::Timestamp;
use smsfleet::model::window::OnUncertain;
use smsfleet::ports::World;
use smsfleet::ports::clock::{Chance, Clock};
use smsfleet::roles::selection::Selection;
use tokio::sync::Notify;

use super::faults::{Fired, Trouble};
use super::network::Network;
use super::operators::PATIENCE;
use super::oracle;
use super::process::{Process, Shared, accounts};
use super::restore::Backup;

/// The kinds of faults that must have fired over all runs.
const FAULTS: [&str; 63] = [
    "account away",
    "answer late",
    "answer lost",
    "cancel",
    "cancel interrupted",
    "change of provider",
    "change of provider interrupted",
    "change of provider in vain",
    "chunk given back",
    "colliding id",
    "commit lost",
    "crash",
    "create interrupted",
    "declare refused on a full disk",
    "disk full",
    "freeze",
    "lease flushed",
    "lease without an answer",
    "pause",
    "pause interrupted",
    "permanent refusal",
    "provider slow",
    "provider throttled",
    "queue away",
    "queue full",
    "queue lost",
    "read timed out",
    "receipt early",
    "receipt late",
    "receipt never",
    "receipt out of order",
    "receipt twice",
    "rebalance of some",
    "recovery interrupted",
    "restore",
    "restored store refused",
    "resume",
    "resume interrupted",
    "retry of numbers",
    "retry of the failed",
    "retry of the unsent",
    "retry interrupted",
    "sent again",
    "session dropped",
    "source away",
    "source changed",
    "stale read",
    "start",
    "start by a person",
    "start interrupted",
    "stop",
    "store slow",
    "store unavailable",
    "suppressed during the run",
    "timed out, applied",
    "timed out, applied late",
    "timed out, not applied",
    "token late",
    "token not sent",
    "token sent, with an error",
    "token twice",
    "transient refusal",
    "woken too late to send",
];

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub runs: u64,
    /// Runs in which nobody was sent to: the batch was canceled first, its list changed, or nobody in it had a number.
    pub quiet: u64,
    pub accepted: u64,
    pub failed: u64,
    pub uncertain: u64,
    pub canceled: u64,
    pub expired: u64,
    pub faults: BTreeMap<&'static str, u64>,
    pub trace: u64,
}

impl Outcome {
    pub fn add(&mut self, other: &Outcome) {
        self.runs += 1;
        self.quiet += other.quiet;
        self.accepted += other.accepted;
        self.failed += other.failed;
        self.uncertain += other.uncertain;
        self.canceled += other.canceled;
        self.expired += other.expired;
        for fault in FAULTS {
            *self.faults.entry(fault).or_default() += other.faults.get(fault).copied().unwrap_or(0);
        }
    }
}

/// Runs a seed to its verdict; the error is the story of what went wrong.
pub fn simulate(seed: u64) -> Result<Outcome, String> {
    let fired = Fired::default();
    simulate_telling(seed, &fired).map_err(|wrong| format!("{wrong}{fired}"))
}

/// The same; the story is told to `fired`, so that it is there whatever becomes of the run.
pub fn simulate_telling(seed: u64, fired: &Fired) -> Result<Outcome, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    super::panics::begin();
    runtime.block_on(async {
        // A deadlock in paused time waits for ever: under a simulated deadline it fails at once.
        match tokio::time::timeout(Duration::from_secs(30 * 86_400), run(seed, fired.clone())).await {
            Ok(outcome) => outcome,
            Err(_) => Err("it never ends".into()),
        }
    })
}

pub(super) struct Run {
    pub(super) shared: Shared,
    pub(super) store: MemoryStore,
    /// What a restore will bring back, if one was taken.
    pub(super) backup: Option<Backup>,
    pub(super) chance: SeededChance,
    pub(super) processes: Vec<Process>,
    pub(super) frozen: Vec<(tokio::time::Instant, Process)>,
    next_process: u64,
    pub(super) batches: Vec<(BatchId, SmsBatch)>,
    pub(super) service: SmsBatchService,
    pub(super) world: World,
    pub(super) canceled: BTreeMap<BatchId, Duration>,
    /// Batches that somebody wanted to cancel, whether that was answered or not.
    pub(super) attempted: BTreeSet<BatchId>,
    /// When somebody let a batch go on and did not wait for the answer.
    pub(super) unheard: BTreeMap<BatchId, Timestamp>,
    /// The commands of an operator whose store has troubles, and who may be interrupted.
    pub(super) shaky: SmsBatchService,
    pub(super) orders: u64,
    /// Nobody dies and nobody commands: whatever goes wrong then has no excuse.
    pub(super) is_calm: bool,
    /// Each process has one role alone, as in a cluster.
    is_cluster: bool,
}

async fn run(seed: u64, fired: Fired) -> Result<Outcome, String> {
    let clock: Arc<dyn Clock> = Arc::new(SimClock::new(Timestamp(1_800_000_000_000)));
    let store = MemoryStore::new(Arc::new(SeededChance::from_seed(seed ^ 1)));
    let chance = SeededChance::from_seed(seed);
    let network = Network::new(seed ^ 2, clock.clone(), fired.clone());
    let per_mille = Arc::new(Mutex::new([0, 5, 30, 80][(seed % 4) as usize]));
    let shared = Shared { per_mille, fired, ..Shared::new(&store.stores(), network, clock.clone()) };
    let world = World { clock, chance: Arc::new(SeededChance::from_seed(seed ^ 3)) };
    let [service, shaky] = services(&shared, &world, seed ^ 4);
    let mut run = Run {
        shared,
        store,
        backup: None,
        chance,
        processes: vec![],
        frozen: vec![],
        next_process: seed << 16,
        batches: vec![],
        service,
        world,
        canceled: BTreeMap::new(),
        attempted: BTreeSet::new(),
        unheard: BTreeMap::new(),
        shaky,
        orders: 0,
        is_calm: seed % 5 == 3,
        is_cluster: seed % 3 == 1,
    };
    for _ in 0..1 + run.chance.next() % 3 {
        run.start_process();
    }
    run.start_missing();
    for n in 0..1 + run.chance.next() % 3 {
        run.create(seed, n).await?;
    }
    run.troubles().await?;
    run.heal().await;
    run.finish().await
}

/// What operators speak to: one over a healthy store, because what is tested are the workers, and one over a store with troubles.
pub(super) fn services(shared: &Shared, world: &World, seed: u64) -> [SmsBatchService; 2] {
    let trouble = Trouble::new(seed, shared);
    [shared.stores.clone(), trouble.stores(&shared.stores, &shared.raised)].map(|stores| {
        let select = Selection::new(stores.clone(), accounts());
        SmsBatchService::new(stores, world.clone(), Arc::new(Notify::new()), select)
    })
}

impl Run {
    pub(super) fn start_process(&mut self) {
        let role = self.is_cluster.then(|| {
            let missing = self.missing();
            let of = if missing.is_empty() { ROLES.map(|(role, _)| role).to_vec() } else { missing };
            of[(self.chance.next() % of.len() as u64) as usize]
        });
        self.next_process += 1;
        self.fire("start");
        self.processes.push(Process::start(&self.shared, self.next_process, role));
    }

    /// Starts whatever it takes that somebody works in every role.
    pub(super) fn start_missing(&mut self) {
        while !self.missing().is_empty() {
            self.start_process();
        }
    }

    /// The roles in which nobody works.
    fn missing(&self) -> Vec<FleetRole> {
        let works = |role| self.processes.iter().any(|process| process.role.is_none_or(|its| its == role));
        ROLES.into_iter().map(|(role, _)| role).filter(|role| !works(*role)).collect()
    }

    /// No more are started when there are so many.
    pub(super) fn most_processes(&self) -> usize {
        if self.is_cluster { 7 } else { 3 }
    }

    pub(super) fn tell(&mut self, what: String) {
        let now = self.shared.clock.boot();
        let mut known = self.shared.network.known();
        known.follow(now.as_micros() as u64);
        what.bytes().for_each(|byte| known.follow(u64::from(byte)));
        drop(known);
        self.shared.fired.tell(what, now);
    }

    pub(super) fn fire(&self, fault: &'static str) {
        self.shared.fired.fire(fault, self.shared.clock.boot());
    }

    /// What must hold after every step: nothing arrived that may not, no control row changed against the laws, and nothing of ours
    /// panicked or ended by itself.
    pub(super) fn nothing_wrong(&self) -> Result<(), String> {
        self.shared.network.known().nothing_wrong()?;
        if self.processes.iter().any(Process::died) {
            return Err("a role ended that nobody stopped".into());
        }
        super::panics::none()
    }

    async fn create(&mut self, seed: u64, n: u64) -> Result<(), String> {
        // Most lists are short: what goes wrong goes wrong between few people too, and more seeds fit into a minute.
        let longest = if self.chance.next().is_multiple_of(4) { 300 } else { 60 };
        let records = 20 + self.chance.next() % longest;
        // Some wait for a person, some end by their time, some ask to be sent again where an answer is missing.
        let wish = self.chance.next();
        let auto_trigger = !wish.is_multiple_of(4);
        // Half of them begin later: what goes wrong then has something to go wrong with. Who waits for a person waits less.
        let later = self.chance.next();
        let begins = Duration::from_millis(later >> 8 & if auto_trigger { 0x3fff } else { 0xfff });
        let schedule_time = later.is_multiple_of(2).then(|| self.shared.clock.now().plus(begins));
        let limit = schedule_time.unwrap_or(self.shared.clock.now()).plus(Duration::from_millis(4_000 + (wish >> 32) % 30_000));
        let batch = SmsBatch {
            tenant: format!("t{}", n % 2),
            content_signature: "Sim".into(),
            auto_trigger,
            schedule_time,
            not_after: (wish >> 8).is_multiple_of(5).then_some(limit),
            on_uncertain: if (wish >> 16).is_multiple_of(5) { OnUncertain::Resend } else { OnUncertain::Hold },
            ext_code: "01".into(),
            min_recipients_per_lane: [0, 10, 50, 5_000][(self.chance.next() % 4) as usize],
            ..SmsBatch::new(&format!("{}:{records}", seed * 8 + n), "Hello {{name}}", "sim")
        };
        let key = format!("key{n}");
        let draw = self.chance.next();
        // Who creates it may go away, and asks again: it is one batch.
        if draw.is_multiple_of(2) {
            let most = Duration::from_millis(PATIENCE[(draw >> 1) as usize % 3]);
            let first = async {
                let created = self.shaky.create(&key, batch.clone()).await?;
                self.shaky.entry_process(created.batch).await
            };
            if !matches!(tokio::time::timeout(most, first).await, Ok(Ok(_))) {
                self.fire("create interrupted");
            }
        }
        let created = self.service.create(&key, batch.clone()).await.map_err(|fault| fault.to_string())?;
        self.service.entry_process(created.batch).await.map_err(|fault| fault.to_string())?;
        {
            let mut known = self.shared.network.known();
            let starts = if batch.auto_trigger { Timestamp(0) } else { Timestamp(i64::MAX) };
            known.operators.waits(created.batch, batch.schedule_time.unwrap_or(Timestamp(0)).max(starts));
            if batch.on_uncertain == OnUncertain::Resend {
                known.again.asks(created.batch);
            }
            if batch.not_after.is_some() {
                known.limited.insert(created.batch);
            }
        }
        let wishes = (batch.auto_trigger, batch.on_uncertain, batch.not_after);
        self.tell(format!("batch {n} of {records} records, {}, {wishes:?}", created.batch));
        self.batches.push((created.batch, batch));
        Ok(())
    }

    async fn heal(&mut self) {
        self.shared.full.store(false, Ordering::Relaxed);
        *self.shared.per_mille.lock().expect("not poisoned") = 0;
        *self.shared.network.per_mille.lock().expect("not poisoned") = 0;
        for (_, process) in std::mem::take(&mut self.frozen) {
            process.thaw(&self.shared, Duration::ZERO);
            self.processes.push(process);
        }
        self.start_missing();
        self.tell("all is well from here".into());
    }

    /// Preparation ends without a seal when somebody canceled, when the list was changed under it, or when a restore
    /// took away what was known of it; and says so.
    fn may_end_unsealed(&self, row: &BatchRow) -> Result<(), String> {
        let (id, step) = (row.batch.batch_id, &row.preparation);
        let is_canceled = step.state == StepState::Canceled && self.canceled.contains_key(&id);
        let failed_with = |code: Code| {
            step.state == StepState::CompletedFailed && step.reason.as_ref().is_some_and(|(reason, _)| *reason == code)
        };
        let is_changed = self.shared.changed.load(Ordering::Relaxed) && failed_with(Code::SourceChanged);
        let is_restored = self.shared.network.known().restored.is_some() && failed_with(Code::StoreStale);
        if is_canceled || is_changed || is_restored {
            Ok(())
        } else {
            Err(format!("batch {id} was not prepared, for no reason: {step:?}"))
        }
    }

    async fn finish(&mut self) -> Result<Outcome, String> {
        let mut outcome = Outcome { trace: 0, ..Outcome::default() };
        for (which, (id, batch)) in self.batches.clone().into_iter().enumerate() {
            let draw = self.chance.next();
            let (mut again, mut losing) = (draw.is_multiple_of(2), (draw >> 1).is_multiple_of(4));
            let row = loop {
                self.nothing_wrong()?;
                let row = self.service.load(id).await.map_err(|fault| fault.to_string())?.row;
                if row.step().state == StepState::Paused {
                    let now = self.shared.clock.now();
                    self.shared.network.known().operators.goes_on(id, now);
                    let _ = self.service.command(id, Command::Resume).await;
                }
                if row.current_step == CurrentStep::Delivery && row.delivery.state == StepState::Initial {
                    let begins = batch.schedule_time.unwrap_or(Timestamp(0));
                    self.shared.network.known().operators.waits(id, begins);
                    let _ = self.service.start(id, None).await;
                }
                if row.step().state == StepState::Canceled && self.attempted.contains(&id) && !self.canceled.contains_key(&id) {
                    // A cancel that nobody waited for was carried out: the same again is answered, and counts from then on.
                    let again = self.service.command(id, Command::Cancel).await.map_err(|fault| fault.to_string())?;
                    if !again.already {
                        return Err(format!("batch {id} was canceled twice: {again:?}"));
                    }
                    self.canceled.insert(id, self.shared.clock.boot());
                }
                let prepared_in_vain = row.sealed.is_none() && row.preparation.state.is_final();
                if prepared_in_vain {
                    self.may_end_unsealed(&row)?;
                }
                if prepared_in_vain || row.settlement.as_ref().is_some_and(|settlement| settlement.settled) {
                    // The store is lost when whoever was refused has got it.
                    if std::mem::take(&mut losing) && self.back_up_and_lose_a_retry(which).await? {
                        again = false;
                        continue;
                    }
                    // Once more, in peace: whoever was refused gets it, and nobody else.
                    if std::mem::take(&mut again) && self.retry_failed_in_peace(id).await? {
                        continue;
                    }
                    break row;
                }
                if self.shared.clock.boot() > Duration::from_secs(20 * 60) {
                    let ledgers = self.shared.stores.ledgers.list(id).await.unwrap_or_default();
                    let open: Vec<_> = ledgers.iter().filter(|(_, ledger)| !ledger.row.is_done()).collect();
                    let settlement = &row.settlement;
                    return Err(format!(
                        "batch {id} does not end: {:?} {:?} {settlement:?} lag {:?} {open:?}",
                        row.current_step,
                        row.step(),
                        self.shared.broker.lag(),
                    ));
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            };
            oracle::until_looked_over(&self.shared).await?;
            oracle::check(&self.shared, &row, &batch, self.canceled.get(&id).copied(), &mut outcome).await?;
        }
        outcome.faults = self.shared.fired.counts();
        {
            let mut known = self.shared.network.known();
            known.follow(self.shared.clock.boot().as_micros() as u64);
            (outcome.trace, outcome.quiet) = (known.trace, u64::from(known.got.is_empty()));
        }
        for process in self.processes.drain(..) {
            process.stop(&self.shared).await;
        }
        self.nothing_wrong()?;
        Ok(outcome)
    }
}
