//! `quickstart`: ten thousand messages through a simulated provider, over the real protocol and the real store.

use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::args::{BatchArgs, QuickstartArgs, SendArgs};
use super::request::{absolute, request};
use super::sample::{TEMPLATE, sample};
use super::screen::Screen;
use super::send::{Ended, Subject, Wanted, follow, show};
use super::{Global, exit};
use crate::model::code::{Code, Fault};
use crate::roles::config::{AccountConfig, Config};
use crate::roles::reach::{Secret, SmppConfig};
use crate::roles::surface::Holding;
use crate::runtime::digest::hex;
use crate::serve::views::short;
use crate::simulator::{Delay, Faults, Receipts, Simulator, SimulatorConfig};

/// The folder of the quickstart, apart from real data.
const FOLDER: &str = "smsfleet-quickstart";
/// The account's name.
const ACCOUNT: &str = "simulator";
/// Segments a second: slow enough to be watched.
const RATE: u32 = 2_000;

/// Runs the command.
pub async fn quickstart(global: &Global, args: &QuickstartArgs, stop: CancellationToken) -> Result<u8, Fault> {
    let folder = global.data_dir.clone().unwrap_or_else(|| PathBuf::from(FOLDER));
    let cannot = |error: std::io::Error| Fault::new(Code::StoreUnavailable, format!("{}: {error}", folder.display()));
    std::fs::create_dir_all(&folder).map_err(cannot)?;
    let sample = sample(args.recipients, true);
    let list = folder.join("recipients.csv");
    std::fs::write(&list, &sample.csv).map_err(cannot)?;
    let list = absolute(&list)?;

    let simulator = Simulator::start(behaviour()).await?;
    let config = config(folder.clone(), &simulator)?;
    let holding = Holding::start(&config).await?;
    let mut screen = Screen::new(global.json || global.quiet, !global.no_color);
    screen.say(&format!("wrote {} rows to {}", args.recipients, list.display()));
    let ended = async {
        holding.embedded.edges.stores.suppressions.add(&sample.suppressed).await.map_err(Fault::from)?;
        let batch = BatchArgs {
            template: Some(TEMPLATE.into()),
            campaign_name: "quickstart".into(),
            // Every run is a batch of its own.
            key: Some(format!("quickstart-{}", hex(&holding.embedded.edges.world.chance.next().to_be_bytes()))),
            ..BatchArgs::default()
        };
        let send = SendArgs { batch, ..SendArgs::default() };
        let asked = request(&send, &config, &list, holding.surface.world.clock.now())?;
        let wanted = Wanted { wait_receipts: Duration::from_secs(20), ..Wanted::default() };
        follow(&holding, Subject::Asked(Box::new(asked)), wanted, &mut screen, &stop).await
    };
    let ended = ended.await;
    screen.finish();
    holding.stop().await;
    let counted = simulator.stop().await;
    let ended = ended?;
    let well = matches!(&ended, Ended::Reported(report) if report.settled && report.unaccounted == 0);
    let batch = match &ended {
        Ended::Reported(report) => Some(report.batch.batch_id),
        Ended::Planned(_) | Ended::Stopped(_) => None,
    };
    let code = show(global, ended)?;
    if let (Some(batch), false) = (batch, global.json || global.quiet) {
        eprintln!(
            "\nThe simulated provider counted {} messages by itself, and {} numbers that got more than one.",
            super::render::grouped(counted.complete_messages),
            counted.repeated_numbers
        );
        let (id, program) = (short(batch), format!("smsfleet --data-dir {}", folder.display()));
        eprintln!("\nWhat to try next:");
        eprintln!("  {program} recipients {id} --status failed,rejected --format csv");
        eprintln!("  {program} explain {id} +8613800000011");
        eprintln!("  smsfleet check-config --reference > smsfleet.toml     then enter your own provider");
        eprintln!("  smsfleet send --recipients list.csv --template 'Hello {{{{name}}}}' --dry-run");
    }
    // Some are refused on purpose here; what counts is that everyone is accounted for.
    Ok(if well { exit::SETTLED } else { code })
}

/// A provider as they are: mixed latency, some refusals, receipts that take their time, come twice or say no.
fn behaviour() -> SimulatorConfig {
    let delay = |share, min_ms, max_ms| Delay { share, min_ms, max_ms };
    SimulatorConfig {
        http_listen: None,
        faults: Faults { latency: vec![delay(0.9, 2, 20), delay(0.1, 20, 120)], permanent_share: 0.005, ..Faults::default() },
        receipts: Receipts {
            delay: vec![delay(0.8, 50, 800), delay(0.2, 800, 2_500)],
            undelivered_share: 0.02,
            accepted_first_share: 0.1,
            out_of_order_share: 0.02,
            twice_share: 0.02,
            early_share: 0.01,
            ..Receipts::default()
        },
        ..SimulatorConfig::local()
    }
}

fn config(folder: PathBuf, simulator: &Simulator) -> Result<Config, Fault> {
    let Some(address) = simulator.smpp_addr() else {
        return Err(Fault::new(Code::Internal, "the simulator has no SMPP address"));
    };
    let known = simulator.config();
    let smpp = SmppConfig {
        host: address.ip().to_string(),
        port: address.port(),
        system_id: known.system_id.clone(),
        password: Secret::new(known.password.clone()),
        binds: 2,
        window: 200,
        source_addr: "10690001".into(),
        ..SmppConfig::default()
    };
    let account = AccountConfig { rate: Some(RATE), price: Some(0.04), currency: "EUR".into(), smpp, ..AccountConfig::default() };
    let mut config = Config { data_dir: folder, default_region: "CN".into(), ..Config::default() };
    config.accounts.insert(ACCOUNT.into(), account);
    Ok(config)
}
