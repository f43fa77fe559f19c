//! One process of the fleet: all roles or one of them, its own troubles, and the ways it can end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use smsfleet::adapters::memory::budget::BudgetedPacks;
use smsfleet::adapters::memory::caller::NoCaller;
use smsfleet::adapters::memory::lease::MemoryLease;
use smsfleet::adapters::memory::queue::{MemberId, MemoryBroker};
use smsfleet::adapters::memory::rates::LocalRates;
use smsfleet::adapters::memory::tallies::MemoryTallies;
use smsfleet::adapters::system::SeededChance;
use smsfleet::batch::Offer;
use smsfleet::coordinate::leader::Terms;
use smsfleet::coordinate::sweeper::Keep;
use smsfleet::model::account::{Account, Capabilities, LongMessage, ReceiptRules};
use smsfleet::model::fleet::FleetRole;
use smsfleet::model::id::WorkerId;
use smsfleet::model::idform::IdForm;
use smsfleet::ports::clock::{Chance, Clock};
use smsfleet::ports::provider::{Provider, Route};
use smsfleet::ports::queue::{DeliveryQueue, PrepareQueue};
use smsfleet::ports::{Stores, World};
use smsfleet::prepare::tools::Settings as PrepareSettings;
use smsfleet::roles::coordinator::{self, Leading};
use smsfleet::roles::edges::Edges;
use smsfleet::roles::fleet::{Ends, Fleet, Settings};
use smsfleet::runtime::freezer::Freezer;
use smsfleet::runtime::task::Tasks;
use smsfleet::webhooks::Webhooks;
use tokio::sync::{Notify, mpsc};

use super::books::Books;
use super::faults::{Fired, Trouble};
use super::laws::watched;
use super::network::{Network, Sessions};
use super::ports::Raised;
use super::queues::{TroubledLease, TroubledQueue, TroubledSender, WitnessedQueue};
use super::source::SimSource;

/// What all processes share.
pub struct Shared {
    pub stores: Stores,
    pub broker: MemoryBroker,
    pub lease: Arc<MemoryLease>,
    pub network: Arc<Network>,
    pub clock: Arc<dyn Clock>,
    pub per_mille: Arc<Mutex<u64>>,
    pub fired: Fired,
    pub full: Arc<AtomicBool>,
    /// True once the lists of recipients hold something else than when the batches were made.
    pub changed: Arc<AtomicBool>,
    pub raised: Raised,
}

impl Shared {
    /// Servers without troubles, over a store whose every change is watched.
    pub fn new(stores: &Stores, network: Arc<Network>, clock: Arc<dyn Clock>) -> Shared {
        Shared {
            stores: watched(stores, &network),
            broker: MemoryBroker::new(),
            lease: Arc::new(MemoryLease::new()),
            network,
            clock,
            per_mille: Arc::default(),
            fired: Fired::default(),
            full: Arc::default(),
            changed: Arc::default(),
            raised: Arc::default(),
        }
    }

    /// The store as whoever starts from now on finds it: another one, or the same after a restart. Its changes are watched too.
    pub fn reopen(&mut self, stores: &Stores) {
        self.stores = watched(stores, &self.network);
    }
}

/// How long receipts are waited for.
pub const RECEIPTS_WAIT: Duration = Duration::from_secs(50);

/// How long an account's answers are waited for.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);

/// What a process has for its end.
const GRACE: Duration = Duration::from_secs(8);

pub struct Process {
    fleet: Fleet,
    sessions: Tasks,
    freezer: Freezer,
    /// How often it was frozen or woken.
    turns: Arc<AtomicU64>,
    members: Vec<MemberId>,
    worker: WorkerId,
    /// Its only role, if it has one alone, as processes of a cluster have.
    pub role: Option<FleetRole>,
}

/// The accounts: one of the provider type that batches begin with, and one of another, which splits messages otherwise and
/// signs them itself.
pub fn accounts() -> BTreeMap<String, Account> {
    let other = Capabilities { long_message: LongMessage::Udh16, add_signature: false, ..Capabilities::default() };
    [account("sim", Capabilities::default()), account("alt", other)]
        .into_iter()
        .map(|account| (account.name.clone(), account))
        .collect()
}

/// The accounts as operators see them.
pub fn offers() -> Vec<Offer> {
    accounts().into_values().map(|account| Offer { account, rate: Some(500.0) }).collect()
}

fn account(name: &str, capabilities: Capabilities) -> Account {
    Account {
        name: name.into(),
        provider_type: name.into(),
        rate: None,
        capabilities,
        receipts: ReceiptRules { wait: RECEIPTS_WAIT, id_form: IdForm::Learn, ..ReceiptRules::default() },
        price: None,
        currency: String::new(),
        hours: None,
        answer_timeout: ANSWER_TIMEOUT,
        sender: String::new(),
        opt_out: Default::default(),
    }
}

impl Process {
    /// Starts a process with all roles, or with one alone.
    pub fn start(shared: &Shared, seed: u64, role: Option<FleetRole>) -> Process {
        let freezer = Freezer::default();
        let trouble = Trouble::new(seed, shared);
        let (sessions, books) = (Tasks::default(), Books::new(shared.clock.clone()));
        let chance = Arc::new(SeededChance::from_seed(seed ^ 0xc0ffee));
        let worker = WorkerId(chance.next());
        let route = |(name, account): (String, Account)| {
            let (books, network, trouble, tasks) = (books.clone(), shared.network.clone(), trouble.clone(), sessions.clone());
            let away_until = Mutex::default();
            let sessions = Sessions { books, network, trouble, tasks, account: account.clone(), worker, away_until };
            let provider: Arc<dyn Provider> = Arc::new(sessions);
            (name, Route { account, provider })
        };
        let routes = Arc::new(accounts().into_iter().map(route).collect::<BTreeMap<_, _>>());
        let stores = books.stores(trouble.stores(&shared.stores, &shared.raised));
        let budget = BudgetedPacks::new(stores.packs.clone());
        let world = World { clock: shared.clock.clone(), chance };
        let stores = Stores { packs: budget.clone(), ..stores };
        let edges = Edges {
            webhooks: Webhooks::new(stores.clone(), world.clone(), Arc::new(NoCaller)),
            stores,
            rates: Arc::new(LocalRates::new(accounts().into_keys().map(|name| (name, None)), world.clock.boot())),
            world,
            source: Arc::new(SimSource { changed: shared.changed.clone(), trouble: trouble.clone() }),
            uploads: None,
            routes,
            tallies: Arc::new(MemoryTallies::new()),
            lease: Arc::new(TroubledLease(shared.lease.clone(), trouble.clone())),
            sender: Arc::new(TroubledSender(shared.broker.sender(), trouble.clone())),
            budget,
            wake: Arc::new(Notify::new()),
        };
        let is = |wanted: FleetRole| role.is_none_or(|role| role == wanted);
        // Receipts come over the sessions of whoever sends, and to a gateway.
        let reports = (is(FleetRole::Deliver) || is(FleetRole::Gateway)).then(|| {
            let (sink, reports) = mpsc::channel(8);
            shared.network.listen(sink);
            reports
        });
        shared.network.known().books.insert(worker, books);
        let mut members = vec![];
        let prepare: Option<Arc<PrepareQueue>> = is(FleetRole::Prepare).then(|| {
            let prepare = shared.broker.join_prepare();
            members.push(prepare.member());
            Arc::new(TroubledQueue(prepare, trouble.clone())) as _
        });
        let delivery: Option<Arc<DeliveryQueue>> = is(FleetRole::Deliver).then(|| {
            let delivery = shared.broker.join_delivery();
            members.push(delivery.member());
            Arc::new(WitnessedQueue {
                inner: Arc::new(TroubledQueue(delivery, trouble.clone())),
                worker,
                network: shared.network.clone(),
                stores: shared.stores.clone(),
                clock: shared.clock.clone(),
                taken: Mutex::default(),
            }) as _
        });
        let lead = is(FleetRole::Coordinator).then(Leading::default);
        let ends = Ends { lead, prepare, delivery, reports };
        let fleet = freezer.within(|| Fleet::start(edges, ends, settings(), worker));
        Process { fleet, sessions, freezer, turns: Arc::default(), members, worker, role }
    }

    /// Whether a role ended that nobody stopped.
    pub fn died(&self) -> bool {
        self.fleet.died.is_cancelled()
    }

    /// SIGKILL: everything in it ends where it stands; what the network took stays taken.
    pub fn crash(self, shared: &Shared) {
        shared.network.known().lose(self.worker, shared.clock.now());
        self.fleet.crash();
        self.sessions.abort_all();
        for member in self.members {
            shared.broker.expel(member);
        }
    }

    /// SIGTERM. One that is not through when its time is over is lost: not all that it was told is written down.
    pub async fn stop(self, shared: &Shared) {
        let (told_at, until) = (shared.clock.now(), shared.clock.boot() + GRACE);
        self.fleet.stop().await;
        if shared.clock.boot() >= until {
            let mut known = shared.network.known();
            known.cut.insert(self.worker, told_at);
            known.lose(self.worker, shared.clock.now());
        }
        self.sessions.abort_all();
    }

    /// SIGSTOP: nothing in it goes on. If it stands for longer than `session`, the queue gives its partitions away.
    pub fn freeze(&self, shared: &Shared, session: Duration) {
        shared.network.known().lose(self.worker, shared.clock.now());
        self.freezer.freeze();
        let (turns, broker, members) = (self.turns.clone(), shared.broker.clone(), self.members.clone());
        let this = turns.fetch_add(1, Ordering::Relaxed) + 1;
        tokio::spawn(async move {
            tokio::time::sleep(session).await;
            if turns.load(Ordering::Relaxed) == this {
                members.into_iter().for_each(|member| broker.sleep(member));
            }
        });
    }

    /// SIGCONT: it goes on where it stood, and hears `late` that its partitions are others' now, if they are.
    pub fn thaw(&self, shared: &Shared, late: Duration) {
        shared.network.known().woken(self.worker, shared.clock.now());
        self.turns.fetch_add(1, Ordering::Relaxed);
        self.freezer.wake();
        let (broker, members) = (shared.broker.clone(), self.members.clone());
        tokio::spawn(async move {
            tokio::time::sleep(late).await;
            members.into_iter().for_each(|member| broker.wake(member));
        });
    }
}

fn settings() -> Settings {
    let year = Duration::from_secs(365 * 86_400);
    let keep = Keep::all(year);
    Settings {
        coordinator: coordinator::Settings {
            terms: Terms::default(),
            every: Duration::from_millis(2_000),
            range_records: 64,
            range_tasks: 4,
            keep,
            bind_slots: BTreeMap::new(),
            raise_mark: true,
        },
        prepare: PrepareSettings { tasks: 2, ..PrepareSettings::default() },
        grace: GRACE,
    }
}
