//! `simulate-provider`: the provider simulator on its own.

use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::args::SimulateArgs;
use super::{Global, exit, print};
use crate::model::code::{Code, Fault};
use crate::simulator::{Simulator, SimulatorConfig};

/// Runs the simulator until it is stopped, then prints what it received.
pub async fn simulate(global: &Global, args: &SimulateArgs, stop: CancellationToken) -> Result<u8, Fault> {
    if args.reference {
        let text = toml::to_string_pretty(&SimulatorConfig::default());
        let text = text.map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
        return print::out(text.as_bytes()).map(|()| exit::SETTLED);
    }
    let simulator = Simulator::start(behaviour(args.behaviour.as_deref(), &args.set)?).await?;
    if !global.quiet {
        let address = |address: Option<std::net::SocketAddr>| address.map_or("off".to_owned(), |address| address.to_string());
        eprintln!("SMPP on {}, HTTP on {}; Ctrl-C ends it", address(simulator.smpp_addr()), address(simulator.http_addr()));
    }
    let limit = args.seconds.map_or(Duration::MAX, Duration::from_secs);
    let _ = tokio::time::timeout(limit, stop.cancelled()).await;
    let report = simulator.stop().await;
    let json = serde_json::to_string_pretty(&report).map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
    print::out(format!("{json}\n").as_bytes())?;
    Ok(exit::SETTLED)
}

/// The behaviour of a file, with single keys changed.
fn behaviour(file: Option<&Path>, set: &[String]) -> Result<SimulatorConfig, Fault> {
    let invalid = |text: String| Fault::new(Code::ConfigInvalid, text);
    let mut table = match file {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).map_err(|error| invalid(format!("{} cannot be read: {error}", path.display())))?;
            text.parse::<toml::Table>().map_err(|error| invalid(format!("{}: {error}", path.display())))?
        }
        None => toml::Table::new(),
    };
    for one in set {
        let (key, value) = one.split_once('=').ok_or_else(|| invalid(format!("{one:?} is not KEY=VALUE")))?;
        // A word that is no TOML value is a text.
        let parsed = format!("v = {value}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("v"));
        insert(&mut table, key.trim(), parsed.unwrap_or_else(|| toml::Value::String(value.to_owned())))
            .ok_or_else(|| invalid(format!("{key} is no table")))?;
    }
    toml::Value::Table(table).try_into().map_err(|error: toml::de::Error| invalid(error.to_string()))
}

fn insert(table: &mut toml::Table, key: &str, value: toml::Value) -> Option<()> {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
            Some(())
        }
        Some((head, rest)) => {
            let inner = table.entry(head).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            insert(inner.as_table_mut()?, rest, value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_changed_one_by_one() {
        let set = ["faults.rate=1000", "receipts.never_share=0.01", "system_id=me", "http_listen=off"].map(str::to_owned);
        let config = behaviour(None, &set).expect("it is valid");
        assert_eq!((config.faults.rate, config.receipts.never_share), (1_000, 0.01));
        assert_eq!((config.system_id.as_str(), config.http_listen), ("me", None));
        for wrong in ["faults.rtae=1", "rate", "system_id.x=1", "seed=many"] {
            let refused = behaviour(None, &["system_id=a".to_owned(), wrong.to_owned()]).map_err(|fault| fault.code);
            assert_eq!(refused, Err(Code::ConfigInvalid), "{wrong}");
        }
    }
}
