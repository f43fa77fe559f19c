//! Commands and their output. Nothing is decided here: a command composes, asks the surface, and prints.

pub mod access;
pub mod args;
pub mod batch;
pub mod check;
pub mod cluster;
pub mod drill;
pub mod exit;
pub mod keep;
pub mod naming;
pub mod people;
pub mod print;
pub mod query;
pub mod quickstart;
pub mod render;
pub mod render_fleet;
pub mod render_service;
pub mod request;
pub mod sample;
pub mod screen;
pub mod send;
pub mod service_args;
pub mod simulate;

use std::time::Duration;

use clap::{CommandFactory, Parser};
use tokio_util::sync::CancellationToken;

use crate::adapters::secure;
use crate::drill::guard;
use crate::model::code::{Code, Fault};
use crate::model::fleet::FleetRole;
use crate::model::limits::DELIVERY_PARTITIONS;
use crate::roles::config::{Config, LISTEN};
use crate::roles::config_load::{self, Problem, Sources};
use crate::roles::surface::{COMMIT, Holding};
use crate::runtime::{logging, signals, trace};
use args::{Cli, Command};
use service_args::{ListArgs, OnceArgs};

pub use args::Global;

/// How long the last spans may take to reach their collector.
const LAST_SPANS: Duration = Duration::from_secs(3);

/// Runs the command line of this process; the exit code.
pub fn main() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Asking for help is no mistake.
            let code = if error.use_stderr() { exit::REFUSED } else { exit::SETTLED };
            let _ = error.print();
            return code;
        }
    };
    let global = cli.global.clone();
    match run(cli) {
        Ok(code) => code,
        Err(fault) => {
            if global.json {
                let _ = print::result(&global, &exit::json(&fault), String::new);
            } else {
                eprintln!("{}", exit::text(&fault));
            }
            exit::of(&fault)
        }
    }
}

fn run(cli: Cli) -> Result<u8, Fault> {
    let global = &cli.global;
    // Commands that need neither configuration nor runtime.
    match &cli.command {
        Command::Version => return version(global),
        Command::Completions { shell } => {
            let mut script = vec![];
            clap_complete::generate(*shell, &mut Cli::command(), "smsfleet", &mut script);
            return print::out(&script).map(|()| exit::SETTLED);
        }
        Command::CheckConfig(args) => return check::check(global, args),
        _ => {}
    }
    let config = match &cli.command {
        // It shows what an untouched installation does, and must never reach a real provider.
        Command::Quickstart(_) | Command::SimulateProvider(_) => Config::default(),
        _ => load(global)?,
    };
    guard::worker(&config, std::env::var_os(guard::VARIABLE).as_deref())?;
    let color = !global.no_color && std::io::IsTerminal::is_terminal(&std::io::stderr());
    logging::start(&config.log, global.verbose, global.quiet, color).map_err(|text| Fault::new(Code::ConfigInvalid, text))?;
    if config.trace.endpoint.is_some() {
        // The collector's client takes its cryptography from the process.
        secure::install();
        trace::start(&config.trace)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Fault::new(Code::Internal, format!("no runtime: {error}")))?;
    let done = runtime.block_on(command(cli, config));
    // A thread that reads standard input cannot be interrupted; it must not keep the process.
    runtime.shutdown_background();
    trace::stop(LAST_SPANS);
    done
}

async fn command(cli: Cli, config: Config) -> Result<u8, Fault> {
    let global = &cli.global;
    match cli.command {
        Command::Quickstart(args) => quickstart::quickstart(global, &args, listen(global)?).await,
        Command::Send(args) => send::send(global, &args, config, listen(global)?).await,
        Command::All => all(global, config, listen(global)?).await,
        Command::Coordinator => cluster::run(global, &config, FleetRole::Coordinator, listen(global)?).await,
        Command::Prepare => cluster::run(global, &config, FleetRole::Prepare, listen(global)?).await,
        Command::Deliver => cluster::run(global, &config, FleetRole::Deliver, listen(global)?).await,
        Command::Gateway => cluster::run(global, &config, FleetRole::Gateway, listen(global)?).await,
        Command::Migrate => cluster::migrate(global, &config, listen(global)?).await,
        Command::Fleet => cluster::fleet(global, &config).await,
        Command::Drill(args) => drill::drill(global, &args, &config, listen(global)?).await,
        Command::Batches => batch::list(global, &config, &ListArgs::default()).await,
        Command::Report { batch } => query::report(global, &config, &batch).await,
        Command::Recipients(args) => query::recipients(global, &config, &args).await,
        Command::Explain { batch, number } => query::explain(global, &config, &batch, number.as_deref()).await,
        Command::Pause { batch } => plain(global, &config, &batch, "pause").await,
        Command::Resume { batch } => plain(global, &config, &batch, "resume").await,
        Command::Cancel { batch } => plain(global, &config, &batch, "cancel").await,
        Command::Batch(command) => batch::batch(global, &config, command).await,
        Command::Account(command) => keep::account(global, &config, command).await,
        Command::Suppress(command) => keep::suppress(global, &config, command).await,
        Command::Key(command) => keep::key(global, &config, command).await,
        Command::Webhook(command) => people::webhook(global, &config, command).await,
        Command::Number(command) => people::number(global, &config, command).await,
        Command::Inbox { batch } => people::inbox(global, &config, batch.as_deref()).await,
        Command::Audit { batch } => keep::audit(global, &config, batch.as_deref()).await,
        Command::SimulateProvider(args) => simulate::simulate(global, &args, listen(global)?).await,
        Command::Recover { since } => query::recover(global, &config, &since).await,
        Command::Version | Command::Completions { .. } | Command::CheckConfig(_) => Ok(exit::SETTLED),
    }
}

/// A command without wishes.
async fn plain(global: &Global, config: &Config, batch: &str, word: &str) -> Result<u8, Fault> {
    batch::command_on(global, config, batch, word, &OnceArgs::default(), serde_json::json!({})).await
}

/// The configuration that is in force, or all that is wrong with it as one fault.
fn load(global: &Global) -> Result<Config, Fault> {
    let loaded = config_load::load(&sources(global)).map_err(|problems| invalid(&problems))?;
    let wrong = loaded.config.check(&crate::adapters::system::SystemClock);
    if wrong.is_empty() {
        return Ok(loaded.config);
    }
    let place = loaded.file.map_or("configuration".to_owned(), |file| file.display().to_string());
    let problems = wrong.into_iter().map(|(key, text)| Problem { place: place.clone(), key, text });
    Err(invalid(&problems.collect::<Vec<_>>()))
}

fn invalid(problems: &[Problem]) -> Fault {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    Fault::new(Code::ConfigInvalid, lines.join("\n  "))
}

fn sources(global: &Global) -> Sources {
    let folder = global.data_dir.as_ref().map(|folder| ("data_dir".to_owned(), folder.display().to_string()));
    Sources::of_process(global.config.clone(), folder.into_iter().collect())
}

/// A token that the first signal cancels; the second ends the process.
fn listen(global: &Global) -> Result<CancellationToken, Fault> {
    let stop = CancellationToken::new();
    let quiet = global.quiet;
    signals::listen(stop.clone(), move |name| {
        if !quiet {
            eprintln!("\n{name}: stopping in order; once more ends at once");
        }
    })
    .map_err(|error| Fault::new(Code::Internal, format!("signals cannot be listened for: {error}")))?;
    Ok(stop)
}

async fn all(global: &Global, mut config: Config, stop: CancellationToken) -> Result<u8, Fault> {
    embedded_only(&config)?;
    config.serve.listen.get_or_insert(LISTEN);
    let holding = Holding::start(&config).await?;
    if !global.quiet {
        let address = holding.address.map_or(String::new(), |address| {
            let scheme = if config.serve.tls.is_some() { "https" } else { "http" };
            format!(", the API is at {scheme}://{address}")
        });
        eprintln!("the fleet runs over {}{address}; Ctrl-C ends it in order", config.data_dir.display());
    }
    let failed = holding.embedded.failed.clone();
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = failed.cancelled() => {}
    }
    holding.stop().await;
    if failed.is_cancelled() {
        return Err(Fault::new(
            Code::StoreUnavailable,
            "the disk failed, or a part of the fleet ended by itself (see the log): nothing more is sent, and nothing is lost",
        ));
    }
    Ok(exit::SETTLED)
}

/// Refuses a command that runs the whole fleet over a folder while the configuration names a cluster: it would send through the
/// same accounts beside it.
fn embedded_only(config: &Config) -> Result<(), Fault> {
    if config.is_cluster() {
        let context = "scylla.nodes names a cluster: run `smsfleet coordinator`, `prepare`, `deliver` and `gateway`, and create \
                       batches with `smsfleet batch create`";
        return Err(Fault::new(Code::ConfigInvalid, context));
    }
    Ok(())
}

fn version(global: &Global) -> Result<u8, Fault> {
    let version = env!("CARGO_PKG_VERSION");
    let value = serde_json::json!({ "version": version, "commit": COMMIT, "delivery_partitions": DELIVERY_PARTITIONS });
    print::result(global, &value, || {
        format!("smsfleet {version}\ncommit {COMMIT}\n{DELIVERY_PARTITIONS} delivery partitions\n")
    })?;
    Ok(exit::SETTLED)
}
