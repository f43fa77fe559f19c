//! The accounts as each role has them: a deliverer sends through them, a gateway takes their receipts, the others only know them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::adapters::elsewhere::Elsewhere;
use crate::adapters::http::HttpAccount;
use crate::adapters::lent::Lent;
use crate::adapters::smpp::SmppAccount;
use crate::model::code::Fault;
use crate::model::fleet::FleetRole;
use crate::ports::World;
use crate::ports::provider::{Provider, ReportSink, Route, Routes};
use crate::roles::config::{AccountConfig, Config, Protocol};
use crate::roles::embedded::HttpAccounts;

/// Accounts and the ways to them.
#[derive(Clone, Default)]
pub struct Accounts {
    /// By name.
    pub routes: Routes,
    /// Those that get their receipts by HTTP callback.
    pub http: HttpAccounts,
    /// Those whose sessions need a bind slot.
    pub lent: BTreeMap<String, Arc<Lent>>,
}

impl Accounts {
    /// The accounts of a configuration for this role, started.
    ///
    /// # Errors
    /// An account that can never work as it is configured.
    pub fn start(config: &Config, role: FleetRole, world: &World, reports: &ReportSink) -> Result<Accounts, Fault> {
        let (mut routes, mut http, mut lent) = (BTreeMap::new(), HttpAccounts::new(), BTreeMap::new());
        for (name, wanted) in &config.accounts {
            let account = wanted.account(name);
            let provider: Arc<dyn Provider> = match (role, wanted.protocol) {
                (FleetRole::Deliver | FleetRole::Gateway, Protocol::Http) => {
                    let (clock, chance) = (world.clock.clone(), world.chance.clone());
                    let started = HttpAccount::start(account.clone(), wanted.http.clone(), clock, chance)?;
                    http.insert(name.clone(), started.clone());
                    started
                }
                (FleetRole::Deliver, Protocol::Smpp) if wanted.bind_slots.is_some() => {
                    let (name, wanted, world, reports) = (name.clone(), wanted.clone(), world.clone(), reports.clone());
                    let slot = Lent::new(Box::new({
                        let name = name.clone();
                        move || sessions(&name, &wanted, &world, &reports)
                    }));
                    lent.insert(name, slot.clone());
                    slot
                }
                (FleetRole::Deliver, Protocol::Smpp) => sessions(name, wanted, world, reports)?,
                (FleetRole::Gateway, Protocol::Smpp) if wanted.smpp.gateway_receivers > 0 => {
                    let wanted = AccountConfig { smpp: wanted.smpp.receiving(), ..wanted.clone() };
                    sessions(name, &wanted, world, reports)?
                }
                _ => Arc::new(Elsewhere),
            };
            routes.insert(name.clone(), Route { account, provider });
        }
        Ok(Accounts { routes: Arc::new(routes), http, lent })
    }
}

fn sessions(name: &str, wanted: &AccountConfig, world: &World, reports: &ReportSink) -> Result<Arc<dyn Provider>, Fault> {
    let (account, clock, chance) = (wanted.account(name), world.clock.clone(), world.chance.clone());
    Ok(SmppAccount::start(account, wanted.smpp.clone(), reports.clone(), clock, chance)?)
}
