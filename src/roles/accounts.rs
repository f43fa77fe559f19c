//! The accounts as each process has them: whoever delivers sends through them, a gateway takes their receipts, the others only
//! know them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::config::{AccountConfig, Config, Protocol};
use crate::adapters::elsewhere::Elsewhere;
use crate::adapters::http::HttpAccount;
use crate::adapters::lent::Lent;
use crate::adapters::smpp::SmppAccount;
use crate::model::code::Fault;
use crate::model::fleet::FleetRole;
use crate::ports::World;
use crate::ports::provider::{Provider, ReportSink, Route, Routes};

/// The accounts that get their receipts by HTTP callback.
pub type HttpAccounts = BTreeMap<String, Arc<HttpAccount>>;

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
    /// The accounts of a configuration, started for a process with this role; `None` has all roles, and all binds of each account.
    ///
    /// # Errors
    /// An account that can never work as it is configured.
    pub fn start(config: &Config, role: Option<FleetRole>, world: &World, reports: &ReportSink) -> Result<Accounts, Fault> {
        let (mut routes, mut http, mut lent) = (BTreeMap::new(), HttpAccounts::new(), BTreeMap::new());
        for (name, wanted) in &config.accounts {
            let account = wanted.account(name);
            let provider: Arc<dyn Provider> = match (role, wanted.protocol) {
                (None | Some(FleetRole::Deliver | FleetRole::Gateway), Protocol::Http) => {
                    let (clock, chance) = (world.clock.clone(), world.chance.clone());
                    let started = HttpAccount::start(account.clone(), wanted.http.clone(), clock, chance)?;
                    http.insert(name.clone(), started.clone());
                    started
                }
                (Some(FleetRole::Deliver), Protocol::Smpp) if wanted.bind_slots.is_some() => {
                    let (name, wanted, world, reports) = (name.clone(), wanted.clone(), world.clone(), reports.clone());
                    let slot = Lent::new(Box::new({
                        let name = name.clone();
                        move || sessions(&name, &wanted, &world, &reports)
                    }));
                    lent.insert(name, slot.clone());
                    slot
                }
                (None | Some(FleetRole::Deliver), Protocol::Smpp) => sessions(name, wanted, world, reports)?,
                (Some(FleetRole::Gateway), Protocol::Smpp) if wanted.smpp.gateway_receivers > 0 => {
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
