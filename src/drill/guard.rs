//! The drill never sends to a provider: an account is the simulator only where the drill itself listens.

use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr};

use crate::model::code::{Code, Fault};
use crate::roles::config::{AccountConfig, Config, Protocol};
use crate::simulator::{Delay, Faults, Receipts, Simulator, SimulatorConfig};

/// Where the accounts of a configuration send to, when it has any: one address of this machine that the drill can listen on.
///
/// # Errors
/// [`Code::NotTheSimulator`], naming the account that leads elsewhere.
pub fn address(config: &Config) -> Result<Option<SocketAddr>, Fault> {
    let mut found: Option<(&str, SocketAddr)> = None;
    for (name, account) in &config.accounts {
        let address = loopback(account)
            .map_err(|why| Fault::new(Code::NotTheSimulator, format!("accounts.{name}{why}: a drill sends to itself alone")))?;
        if let Some((first, other)) = found
            && other != address
        {
            let context = format!("accounts.{name} and accounts.{first} lead to two places: a drill has one simulator");
            return Err(Fault::new(Code::NotTheSimulator, context));
        }
        found = Some((name, address));
    }
    Ok(found.map(|(_, address)| address))
}

/// The variable that tells a worker of a drill where the drill's simulator is.
pub const VARIABLE: &str = "SMSFLEET_DRILL";

/// Refuses to run as a worker of a drill when the accounts do not lead to the drill's simulator, whose address is `told`; whoever
/// was told none is no worker of a drill. Each worker looks at the configuration that it has read itself: the file may have been
/// changed since the drill looked at it.
///
/// # Errors
/// [`Code::NotTheSimulator`].
pub fn worker(config: &Config, told: Option<&OsStr>) -> Result<(), Fault> {
    let Some(told) = told else { return Ok(()) };
    let simulator = told.to_str().and_then(|told| told.parse::<SocketAddr>().ok());
    let refused = |why: &str| Err(Fault::new(Code::NotTheSimulator, format!("this is a worker of a drill, and {why}")));
    match (simulator, address(config)?) {
        (Some(simulator), Some(address)) if simulator == address => Ok(()),
        (Some(simulator), _) => refused(&format!("its accounts do not lead to the drill's simulator at {simulator} any more")),
        (None, _) => refused(&format!("{VARIABLE} names no address")),
    }
}

/// The address of an account that cannot lead off this machine. A name could: only addresses are taken.
fn loopback(account: &AccountConfig) -> Result<SocketAddr, String> {
    let smpp = &account.smpp;
    if account.protocol != Protocol::Smpp {
        return Err(" is no SMPP account".into());
    }
    if smpp.tls.on {
        return Err(".smpp.tls is on, which the simulator does not speak".into());
    }
    match smpp.host.parse::<IpAddr>() {
        Ok(ip) if ip.is_loopback() => Ok(SocketAddr::new(ip, smpp.port)),
        _ => Err(format!(".smpp.host is {:?}, and not an address of this machine such as 127.0.0.1", smpp.host)),
    }
}

/// Starts the simulator: at the address of the configured accounts, else at any. Whatever listens there already is not the
/// drill's.
///
/// # Errors
/// [`Code::NotTheSimulator`]; or that no address can be had.
pub async fn simulator(address: Option<SocketAddr>, seed: u64) -> Result<Simulator, Fault> {
    let taken = |fault: Fault| match address {
        Some(address) => {
            let context = format!("the accounts lead to {address}, where the drill cannot listen: {}", fault.context);
            Fault::new(Code::NotTheSimulator, context)
        }
        None => fault,
    };
    let local = SimulatorConfig::local();
    let system_id = if address.is_some() { String::new() } else { local.system_id.clone() };
    let behaviour = SimulatorConfig {
        smpp_listen: address.or(local.smpp_listen),
        http_listen: None,
        // Configured accounts log in as they like: nobody else is on this address.
        system_id,
        seed,
        faults: Faults { latency: Delay::always(5, 30), permanent_share: 0.005, transient_share: 0.005, ..Faults::default() },
        receipts: Receipts {
            delay: Delay::always(20, 800),
            undelivered_share: 0.02,
            twice_share: 0.02,
            out_of_order_share: 0.02,
            early_share: 0.01,
            resend_ms: 5_000,
            ..Receipts::default()
        },
        ..local
    };
    Simulator::start(behaviour).await.map_err(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl Fn(&mut AccountConfig)) -> Config {
        let mut account = AccountConfig::default();
        change(&mut account);
        let mut config = Config::default();
        config.accounts.insert("main".into(), account);
        config
    }

    #[test]
    fn accounts_that_may_lead_elsewhere_are_refused_by_name() {
        type Change = fn(&mut AccountConfig);
        let elsewhere: [Change; 5] = [
            |account| account.smpp.host = "smpp.example.com".into(),
            |account| account.smpp.host = "10.0.0.1".into(),
            // A name of this machine may have been given to another in a file of hosts.
            |account| account.smpp.host = "localhost".into(),
            |account| account.smpp.tls.on = true,
            |account| account.protocol = Protocol::Http,
        ];
        for change in elsewhere {
            let refused = address(&with(change)).expect_err("it is not the simulator");
            assert_eq!(refused.code, Code::NotTheSimulator);
            assert!(refused.context.starts_with("accounts.main"), "{}", refused.context);
        }
        assert_eq!(address(&Config::default()), Ok(None));
        let mut two = with(|_| {});
        assert_eq!(address(&two), Ok(Some(SocketAddr::from(([127, 0, 0, 1], 2775)))));
        let mut other = AccountConfig::default();
        other.smpp.port = 2776;
        two.accounts.insert("other".into(), other);
        assert_eq!(address(&two).map_err(|fault| fault.code), Err(Code::NotTheSimulator));
    }

    #[test]
    fn a_worker_of_a_drill_runs_with_nothing_but_accounts_that_lead_to_its_simulator() {
        let told = |config: &Config, told: Option<&str>| worker(config, told.map(OsStr::new)).map_err(|fault| fault.code);
        let refused = Err(Code::NotTheSimulator);
        let simulator = with(|_| {});
        assert_eq!(told(&simulator, Some("127.0.0.1:2775")), Ok(()));
        let real = with(|account| account.smpp.host = "smpp.example.com".into());
        assert_eq!(told(&real, None), Ok(()), "whoever is no worker of a drill sends where it likes");
        assert_eq!(told(&real, Some("127.0.0.1:2775")), refused);
        assert_eq!(told(&simulator, Some("127.0.0.1:2776")), refused, "another address of this machine");
        assert_eq!(told(&Config::default(), Some("127.0.0.1:2775")), refused, "no account at all");
        let mut more = simulator.clone();
        more.accounts.insert("real".into(), real.accounts["main"].clone());
        assert_eq!(told(&more, Some("127.0.0.1:2775")), refused, "one that came meanwhile");
        for nowhere in ["", "smpp.example.com:2775", "true"] {
            assert_eq!(told(&simulator, Some(nowhere)), refused, "{nowhere}");
        }
    }

    #[tokio::test]
    async fn a_port_where_somebody_else_listens_is_not_the_simulator() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let at = other.local_addr().expect("an address");
        let refused = simulator(Some(at), 1).await.map(|_| ()).expect_err("it is taken");
        assert_eq!(refused.code, Code::NotTheSimulator);
        drop(other);
        let started = simulator(Some(at), 1).await.expect("it is free");
        assert_eq!(started.smpp_addr(), Some(at));
    }
}
