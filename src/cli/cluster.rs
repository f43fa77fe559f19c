//! A cluster's processes and what is looked at of them.

use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::{Global, exit, print, render_fleet};
use crate::model::code::{Code, Fault};
use crate::model::fleet::FleetRole;
use crate::roles::cluster::migrate;
use crate::roles::cluster::process::Process;
use crate::roles::config::Config;
use crate::serve::api::FleetView;

/// Refuses what needs a cluster where none is configured.
fn cluster_only(config: &Config) -> Result<(), Fault> {
    if config.is_cluster() {
        return Ok(());
    }
    let context =
        "scylla.nodes, kafka.brokers and redis.nodes name no cluster; on one machine, `smsfleet all` runs the whole fleet";
    Err(Fault::new(Code::ConfigInvalid, context))
}

/// Runs one role until it is told to stop.
pub async fn run(global: &Global, config: &Config, role: FleetRole, stop: CancellationToken) -> Result<u8, Fault> {
    cluster_only(config)?;
    let process = match Process::start(config, role, &stop).await {
        Ok(process) => process,
        // Told to stop while it waited for a server: that is no failure.
        Err(_) if stop.is_cancelled() => return Ok(exit::SETTLED),
        Err(fault) => return Err(fault),
    };
    if !global.quiet {
        let address = process.address.map_or(String::new(), |address| {
            let scheme = if config.serve.tls.is_some() { "https" } else { "http" };
            format!(", it serves {scheme}://{address}")
        });
        eprintln!("{role}: works{address}; Ctrl-C ends it in order");
    }
    let failed = process.failed.clone();
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = failed.cancelled() => {}
    }
    process.stop().await;
    if failed.is_cancelled() {
        let context = "a part of the process ended by itself, or the store was restored (see the log): nothing is lost";
        return Err(Fault::new(Code::StoreUnavailable, context));
    }
    Ok(exit::SETTLED)
}

/// Makes tables and topics.
pub async fn migrate(global: &Global, config: &Config, stop: CancellationToken) -> Result<u8, Fault> {
    cluster_only(config)?;
    let migrated = migrate::migrate(config, &stop).await?;
    print::result(global, &migrated, || render_fleet::migrated(&migrated))?;
    Ok(exit::SETTLED)
}

/// Lists the processes.
pub async fn fleet(global: &Global, config: &Config) -> Result<u8, Fault> {
    let access = Access::to(global, config).await?;
    let view: FleetView = access.client.get("/v1/fleet").await?;
    access.close();
    print::result(global, &view, || render_fleet::fleet(&view))?;
    Ok(exit::SETTLED)
}
