//! One batch from its list to its report, in the process that sends it. Run again, it goes on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::args::SendArgs;
use super::naming::{differs, name};
use super::request::{Request, absolute, request};
use super::screen::Screen;
use super::{Global, exit, print, render};
use crate::access::audit::Asked;
use crate::adapters::source;
use crate::batch::SmsBatchService;
use crate::model::access::{Caller, Standing};
use crate::model::batch::BatchRow;
use crate::model::code::{Code, Fault};
use crate::model::id::BatchId;
use crate::model::report::Settlement;
use crate::model::state::StepState;
use crate::model::step::CurrentStep;
use crate::roles::config::Config;
use crate::roles::surface::Holding;
use crate::runtime::digest::hex;
use crate::serve::api::standing;
use crate::serve::client::Client;
use crate::serve::fleet::Surface;
use crate::serve::router;
use crate::serve::views::{BatchReport, BatchView, short};
use crate::statistics::progress;

/// How often progress is read.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is wanted of a batch.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Stop after the seal.
    pub dry_run: bool,
    /// The plan that may be sent.
    pub approve: Option<String>,
    /// Stop waiting for receipts after this long without a new one.
    pub wait_receipts: Duration,
}

/// The batch that a run is about.
pub enum Subject {
    /// One that is there.
    Found(BatchId),
    /// The one that this request makes, or has made.
    Asked(Box<Request>),
}

/// How a run ended.
#[derive(Clone, Debug)]
pub enum Ended {
    /// Sealed, and only that was wanted.
    Planned(Box<BatchView>),
    /// At its end, or as far as it goes without a person.
    Reported(Box<BatchReport>),
    /// Told to stop.
    Stopped(BatchId),
}

/// Runs `send`.
pub async fn send(global: &Global, args: &SendArgs, mut config: Config, stop: CancellationToken) -> Result<u8, Fault> {
    super::embedded_only(&config)?;
    if let Some(price) = args.price {
        config.accounts.values_mut().for_each(|account| account.price = Some(price));
    }
    let from_input = args.recipients == Path::new("-");
    // What can be wrong with the request is told before anything is opened.
    let list = if from_input { PathBuf::from("-") } else { absolute(&args.recipients)? };
    request(args, &config, &list, crate::model::time::Timestamp(0))?;
    let holding = Holding::start(&config).await?;
    let mut screen = Screen::new(global.json || global.quiet, !global.no_color);
    let ended = run(&holding, args, &config, (!from_input).then_some(list), &mut screen, &stop).await;
    screen.finish();
    if stop.is_cancelled() && !global.quiet {
        eprintln!("waiting for the answers that are still out …");
    }
    holding.stop().await;
    show(global, ended?)
}

/// Prints how a run ended; the exit code.
pub fn show(global: &Global, ended: Ended) -> Result<u8, Fault> {
    match ended {
        Ended::Planned(batch) => {
            let Some(plan) = &batch.plan else {
                return Err(Fault::new(Code::Internal, "a sealed batch has no plan"));
            };
            print::result(global, &*batch, || render::plan(&batch, plan))?;
            Ok(exit::SETTLED)
        }
        Ended::Reported(report) => {
            print::result(global, &*report, || render::report(&report))?;
            Ok(report.exit_code())
        }
        Ended::Stopped(batch) => {
            let text = format!("Stopped in order. Batch {} goes on when the same command is run again.\n", short(batch));
            print::result(global, &serde_json::json!({ "batch_id": batch, "stopped": true }), || text)?;
            Ok(exit::UNSETTLED)
        }
    }
}

async fn run(
    holding: &Holding,
    args: &SendArgs,
    config: &Config,
    list: Option<PathBuf>,
    screen: &mut Screen,
    stop: &CancellationToken,
) -> Result<Ended, Fault> {
    let list = match list {
        Some(list) => list,
        None => {
            screen.say("reading the list from standard input …");
            let folder = holding.embedded.opened.spool();
            let spooled = tokio::task::spawn_blocking(move || source::spool(std::io::stdin().lock(), &folder)).await;
            spooled.map_err(|error| Fault::new(Code::Internal, error.to_string()))??
        }
    };
    let asked = request(args, config, &list, holding.surface.world.clock.now())?;
    let (asked, row) = name(&holding.embedded.service, &*holding.surface.stores.batch_index, asked).await?;
    let wanted =
        Wanted { dry_run: args.dry_run, approve: args.approve.clone(), wait_receipts: Duration::from_secs(args.wait_receipts) };
    if let Some(row) = &row
        && row.delivery.state == StepState::Initial
    {
        if list.is_file() {
            unchanged(row, &list)?;
        } else if let Some(fingerprint) = &row.fingerprint {
            holding.embedded.lists.source.unchanged(&row.batch.table_name, fingerprint, &row.dialect).await?;
        }
    }
    if row.as_ref().is_some_and(BatchRow::is_over) && !args.dry_run {
        screen.say("this batch was sent before; here is its report. To send the same again, name a new batch with --key NAME");
    }
    // One whose key was made goes on as it was made. One that was named has to be asked for in the same way again.
    let subject = match row {
        Some(row) if asked.older_key.is_some() => {
            if differs(&row, &asked.batch)? && !row.is_over() {
                screen.say("the configuration has changed since this batch was made: it goes on as it was made");
            }
            Subject::Found(row.batch.batch_id)
        }
        _ => Subject::Asked(Box::new(asked)),
    };
    follow(holding, subject, wanted, screen, stop).await
}

/// Refuses to begin a plan whose list has changed since: what a person saw is what is sent.
fn unchanged(row: &BatchRow, list: &Path) -> Result<(), Fault> {
    let Some(fingerprint) = row.fingerprint.as_ref().filter(|fingerprint| fingerprint.version != "spooled") else {
        return Ok(());
    };
    let facts = std::fs::metadata(list)
        .map_err(|error| Fault::new(Code::SourceNotFound, format!("{} cannot be opened: {error}", list.display())))?;
    let modified = facts.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    let newer = modified.is_some_and(|at| i128::try_from(at.as_millis()).is_ok_and(|at| at > i128::from(row.created.0)));
    if facts.len() != fingerprint.size || newer {
        let context = format!(
            "{} has changed since batch {} was planned: name a new batch with --key",
            list.display(),
            short(row.batch.batch_id)
        );
        return Err(Fault::new(Code::PlanChanged, context));
    }
    Ok(())
}

/// Carries out a command and writes it into the audit trail, before and after.
async fn noted<T>(
    surface: &Surface,
    action: &str,
    batch: BatchId,
    command: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let stands = async || match service_row(surface, batch).await {
        Some(row) => (row.batch.tenant.clone(), standing(&row)),
        None => (String::new(), Standing::new()),
    };
    let (tenant, before) = stands().await;
    let request = hex(&surface.world.chance.next().to_be_bytes());
    let asked = Asked { request, caller: Caller::local(), action: action.into(), target: batch.to_string(), tenant, before };
    let command = async {
        let done = command.await?;
        Ok((done, stands().await.1))
    };
    asked.witness(&surface.stores, &*surface.world.clock, Standing::new(), command).await
}

async fn service_row(surface: &Surface, batch: BatchId) -> Option<BatchRow> {
    surface.service.load(batch).await.ok().map(|stored| stored.row)
}

/// Creates the batch if it is not there, and follows it as far as it goes.
pub async fn follow(
    holding: &Holding,
    subject: Subject,
    wanted: Wanted,
    screen: &mut Screen,
    stop: &CancellationToken,
) -> Result<Ended, Fault> {
    let service = &holding.embedded.service;
    let surface = &holding.surface;
    let (id, existed) = match subject {
        Subject::Found(id) => (id, true),
        Subject::Asked(asked) => {
            let Request { batch, key, .. } = *asked;
            let id = SmsBatchService::id_of(&batch.tenant, &key);
            let created = noted(surface, "batch.create", id, async { service.create(&key, batch).await }).await?;
            (created.batch, created.existed)
        }
    };
    screen.say(&format!("batch {} {}", short(id), if existed { "goes on" } else { "created" }));
    let tallies = holding.surface.live.as_ref().map(|live| live.tallies());
    let (mut receipts, mut quiet_since) = (0, Instant::now());
    loop {
        let row = service.load(id).await?.row;
        let seen = progress(&holding.surface.stores, &row, tallies.as_deref()).await.map_err(Fault::from)?;
        screen.update(&seen);
        if seen.receipts != receipts || !row.delivery.state.is_final() {
            (receipts, quiet_since) = (seen.receipts, Instant::now());
        }
        match next(&row, &wanted)? {
            Next::EntryProcess => drop(noted(surface, "batch.entry_process", id, service.entry_process(id)).await?),
            Next::Start => {
                let approve = wanted.approve.as_deref();
                let action = if approve.is_some() { "batch.approve" } else { "batch.start" };
                drop(noted(surface, action, id, service.start(id, approve)).await?);
            }
            Next::Planned => {
                return Ok(Ended::Planned(Box::new(BatchView::of(
                    &row,
                    &holding.surface.accounts,
                    holding.surface.world.clock.now(),
                ))));
            }
            Next::Over => return report(holding, id).await,
            Next::Wait if row.delivery.state.is_final() && quiet_since.elapsed() >= wanted.wait_receipts => {
                return report(holding, id).await;
            }
            Next::Wait => {}
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(Ended::Stopped(id)),
            () = holding.embedded.failed.cancelled() => {
                return Err(Fault::new(Code::StoreUnavailable, "the disk failed, or a part of the fleet ended by itself (see the log): nothing more is sent, and nothing is lost"));
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    EntryProcess,
    Start,
    Planned,
    Over,
    Wait,
}

/// What the command does next about a batch, so that running it again at any point does the right thing.
fn next(row: &BatchRow, wanted: &Wanted) -> Result<Next, Fault> {
    if row.current_step == CurrentStep::Preparation {
        return match (row.preparation.state, &row.preparation.reason) {
            (StepState::Initial, _) => Ok(Next::EntryProcess),
            (StepState::CompletedFailed, Some((code, text))) => Err(Fault::new(*code, text.clone())),
            (StepState::Canceled | StepState::CompletedFailed, _) => Ok(Next::Over),
            (StepState::Paused, Some((code, _))) if *code != Code::StoreFull => Ok(Next::Over),
            (StepState::Ready | StepState::Running | StepState::Paused | StepState::CompletedSucceeded, _) => Ok(Next::Wait),
        };
    }
    if let (Some(hash), Some(sealed)) = (&wanted.approve, &row.sealed)
        && sealed.plan_hash != *hash
    {
        return Err(Fault::new(Code::PlanChanged, format!("{hash} was approved, and the plan is {}", sealed.plan_hash)));
    }
    if wanted.dry_run {
        return Ok(Next::Planned);
    }
    match (row.delivery.state, &row.delivery.reason) {
        (StepState::Initial, _) => Ok(Next::Start),
        // The disk may get room again, and an operator who paused resumes; any other reason wants a person.
        (StepState::Paused, Some((code, _))) if *code != Code::StoreFull => Ok(Next::Over),
        _ if row.is_over() => Ok(Next::Over),
        _ => Ok(Next::Wait),
    }
}

async fn report(holding: &Holding, id: BatchId) -> Result<Ended, Fault> {
    let client = Client::Here(router::local(holding.surface.clone()));
    let report: BatchReport = client.get(&format!("/v1/batches/{id}/report")).await?;
    debug_assert!(report.settlement != Settlement::default() || report.batch.records == 0);
    Ok(Ended::Reported(Box::new(report)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::batch::{SealedPlan, tests::batch};
    use crate::model::time::Timestamp;

    #[test]
    fn a_batch_is_taken_up_wherever_it_stands() {
        let mut row = BatchRow::created(batch(), String::new(), Timestamp(0));
        let (plain, dry) = (Wanted::default(), Wanted { dry_run: true, ..Wanted::default() });
        assert_eq!(next(&row, &dry), Ok(Next::EntryProcess));
        row.preparation.state = StepState::Running;
        assert_eq!(next(&row, &plain), Ok(Next::Wait));
        row.preparation.state = StepState::CompletedFailed;
        row.preparation.reason = Some((Code::SourceEmpty, "l.csv".into()));
        assert_eq!(next(&row, &plain).map_err(|fault| exit::of(&fault)), Err(exit::REFUSED));
        row.preparation.state = StepState::CompletedSucceeded;
        (row.current_step, row.sealed) =
            (CurrentStep::Delivery, Some(SealedPlan { plan_hash: "h".into(), ..SealedPlan::default() }));
        assert_eq!((next(&row, &dry), next(&row, &plain)), (Ok(Next::Planned), Ok(Next::Start)));
        let wrong = Wanted { approve: Some("other".into()), ..Wanted::default() };
        assert_eq!(next(&row, &wrong).map_err(|fault| fault.code), Err(Code::PlanChanged));
        row.delivery.state = StepState::Paused;
        assert_eq!(next(&row, &plain), Ok(Next::Wait), "an operator paused it");
        row.delivery.reason = Some((Code::StoreFull, "full".into()));
        assert_eq!(next(&row, &plain), Ok(Next::Wait), "it goes on by itself");
        row.delivery.reason = Some((Code::NotAllowed, "too late".into()));
        assert_eq!(next(&row, &plain), Ok(Next::Over), "a person must decide");
    }
}
