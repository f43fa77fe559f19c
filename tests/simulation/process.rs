//! One process of the fleet: all roles, its own troubles, and the ways it can end.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use smsfleet::adapters::memory::budget::BudgetedPacks;
use smsfleet::adapters::memory::caller::NoCaller;
use smsfleet::adapters::memory::lease::MemoryLease;
use smsfleet::adapters::memory::queue::{MemberId, MemoryBroker};
use smsfleet::adapters::memory::rates::LocalRates;
use smsfleet::adapters::memory::tallies::MemoryTallies;
use smsfleet::adapters::system::SeededChance;
use smsfleet::coordinate::leader::Terms;
use smsfleet::coordinate::sweeper::Keep;
use smsfleet::model::account::{Account, Capabilities, ReceiptRules};
use smsfleet::model::idform::IdForm;
use smsfleet::ports::clock::Clock;
use smsfleet::ports::provider::{Provider, Route};
use smsfleet::ports::{Stores, World};
use smsfleet::prepare::tools::Settings as PrepareSettings;
use smsfleet::roles::coordinator;
use smsfleet::roles::edges::Edges;
use smsfleet::roles::fleet::{Ends, Fleet, Settings};
use smsfleet::runtime::task::Tasks;
use smsfleet::webhooks::Webhooks;
use tokio::sync::{Notify, mpsc, watch};

use super::faults::{Fired, Trouble};
use super::network::{Network, Sessions};
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
}

pub struct Process {
    fleet: Fleet,
    sessions: Tasks,
    frozen: watch::Sender<bool>,
    members: [MemberId; 2],
    /// Thrown out of its groups while it was frozen: its roles end when it wakes, as a process would that exits then.
    pub expelled: bool,
}

/// The account of all batches.
pub fn account() -> Account {
    Account {
        name: "sim".into(),
        provider_type: "sim".into(),
        rate: None,
        capabilities: Capabilities::default(),
        receipts: ReceiptRules { wait: Duration::from_secs(60), id_form: IdForm::Learn, ..ReceiptRules::default() },
        price: None,
        currency: String::new(),
        hours: None,
        answer_timeout: Duration::from_secs(6),
    }
}

impl Process {
    pub fn start(shared: &Shared, seed: u64) -> Process {
        let (frozen, gate) = watch::channel(false);
        let trouble = Trouble::new(seed, gate, shared.per_mille.clone(), shared.fired.clone(), shared.full.clone());
        let sessions = Tasks::default();
        let provider: Arc<dyn Provider> =
            Arc::new(Sessions { network: shared.network.clone(), trouble: trouble.clone(), tasks: sessions.clone() });
        let routes = Arc::new(BTreeMap::from([("sim".to_owned(), Route { account: account(), provider })]));
        let stores = trouble.stores(&shared.stores);
        let budget = BudgetedPacks::new(stores.packs.clone());
        let world = World { clock: shared.clock.clone(), chance: Arc::new(SeededChance::from_seed(seed ^ 0xc0ffee)) };
        let stores = Stores { packs: budget.clone(), ..stores };
        let edges = Edges {
            webhooks: Webhooks::new(stores.clone(), world.clone(), Arc::new(NoCaller)),
            stores,
            rates: Arc::new(LocalRates::new([("sim".to_owned(), None)], world.clock.boot())),
            world,
            source: Arc::new(SimSource),
            routes,
            tallies: Arc::new(MemoryTallies::new()),
            lease: shared.lease.clone(),
            sender: shared.broker.sender(),
            budget,
            wake: Arc::new(Notify::new()),
        };
        let (sink, reports) = mpsc::channel(8);
        shared.network.listen(sink);
        let (prepare, delivery) = (shared.broker.join_prepare(), shared.broker.join_delivery());
        let members = [prepare.member(), delivery.member()];
        let fleet = Fleet::start(edges, Ends { prepare, delivery, reports }, settings());
        Process { fleet, sessions, frozen, members, expelled: false }
    }

    /// SIGKILL: everything in it ends where it stands; what the network took stays taken.
    pub fn crash(self, shared: &Shared) {
        self.fleet.crash();
        self.sessions.abort_all();
        for member in self.members {
            shared.broker.expel(member);
        }
    }

    /// SIGTERM.
    pub async fn stop(self) {
        self.fleet.stop().await;
        self.sessions.abort_all();
    }

    /// SIGSTOP, seen from outside: nothing passes its ports; the queue gives its partitions away.
    pub fn freeze(&mut self, shared: &Shared) {
        self.frozen.send_replace(true);
        self.expelled = true;
        for member in self.members {
            shared.broker.expel(member);
        }
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.frozen.send_replace(false);
    }
}

fn settings() -> Settings {
    let year = Duration::from_secs(365 * 86_400);
    let keep = Keep::all(year);
    Settings {
        coordinator: coordinator::Settings {
            terms: Terms::default(),
            every: Duration::from_millis(500),
            range_records: 64,
            range_tasks: 4,
            keep,
        },
        prepare: PrepareSettings { tasks: 2, ..PrepareSettings::default() },
        grace: Duration::from_secs(8),
    }
}
