//! Batches of the service: created, listed, watched and commanded.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use hyper::Method;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use super::access::{Access, encoded};
use super::args::{BatchCommand, CreateArgs};
use super::request::{hours, template};
use super::screen::Screen;
use super::service_args::{CommitArgs, ListArgs, OnceArgs, RetryArgs};
use super::{Global, exit, print, query, render, render_service};
use crate::model::code::{Code, Fault};
use crate::roles::config::Config;
use crate::runtime::digest::{digest, hex};
use crate::serve::api::{AccountList, BatchPage, CommandAnswer, Created, NewBatch, OrderAnswer, SourceWish, Uploaded};
use crate::serve::client::Call;
use crate::serve::views::BatchView;
use crate::statistics::Progress;

/// Bytes of a list read at once.
const PIECE: usize = 64 << 10;
/// How often a watched batch is looked at.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// Carries out a command on batches.
pub async fn batch(global: &Global, config: &Config, command: BatchCommand) -> Result<u8, Fault> {
    match command {
        BatchCommand::Create(args) => create(global, config, &args).await,
        BatchCommand::List(args) => list(global, config, &args).await,
        BatchCommand::Show { batch, watch } => show(global, config, &batch, watch).await,
        BatchCommand::EntryProcess(one) => command_on(global, config, &one.batch, "entry_process", &one.once, json!({})).await,
        BatchCommand::Start(one) => command_on(global, config, &one.batch, "start", &one.once, json!({})).await,
        BatchCommand::Approve { batch, plan_hash, once } => {
            command_on(global, config, &batch, "approve", &once, json!({ "plan_hash": plan_hash })).await
        }
        BatchCommand::Pause { batch, wait, once } => {
            command_on(global, config, &batch, "pause", &once, json!({ "wait_seconds": wait })).await
        }
        BatchCommand::Resume(one) => command_on(global, config, &one.batch, "resume", &one.once, json!({})).await,
        BatchCommand::Cancel(one) => command_on(global, config, &one.batch, "cancel", &one.once, json!({})).await,
        BatchCommand::ChangeProvider { batch, provider_type, commit, once } => {
            order(global, config, &batch, "change_provider", &once, &commit, json!({ "provider_type": provider_type })).await
        }
        BatchCommand::Retry(args) => retry(global, config, &args).await,
        BatchCommand::Report { batch } => query::report(global, config, &batch).await,
        BatchCommand::Recipients(args) => query::recipients(global, config, &args).await,
    }
}

/// Lists batches, newest first.
pub async fn list(global: &Global, config: &Config, args: &ListArgs) -> Result<u8, Fault> {
    let access = Access::to(global, config).await?;
    let filters = [
        ("state", &args.state),
        ("provider_type", &args.provider_type),
        ("campaign_id", &args.campaign_id),
        ("tenant", &args.tenant),
        ("since", &args.since),
    ];
    let filters: String =
        filters.iter().filter_map(|(name, value)| Some(format!("&{name}={}", encoded(value.as_deref()?)))).collect();
    let (mut cursor, mut left): (Option<String>, _) = (None, args.limit.unwrap_or(usize::MAX));
    let mut list = print::Pages::new(global);
    while left > 0 {
        let behind = cursor.as_deref().map_or(String::new(), |place| format!("&cursor={}", encoded(place)));
        let page: BatchPage = access.client.get(&format!("/v1/batches?limit={}{filters}{behind}", left.min(200))).await?;
        left -= page.batches.len().min(left);
        list.page(&page.batches, || render::batches(&page))?;
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    list.end(if filters.is_empty() { "There is no batch yet.\n" } else { "No batch fits.\n" })?;
    access.close();
    Ok(exit::SETTLED)
}

async fn create(global: &Global, config: &Config, args: &CreateArgs) -> Result<u8, Fault> {
    let access = Access::to_or_new(global, config).await?;
    let batch = &args.batch;
    let provider_type = match (&batch.account, &batch.provider_type) {
        (Some(account), _) => {
            let known: AccountList = access.client.get("/v1/accounts").await?;
            let found = known.accounts.iter().find(|known| known.name == *account);
            let names = || known.accounts.iter().map(|known| known.name.as_str()).collect::<Vec<_>>().join(", ");
            let found = found.ok_or_else(|| {
                Fault::new(Code::AccountUnknown, format!("there is no account {account:?}; configured are {}", names()))
            })?;
            Some(found.provider_type.clone())
        }
        (None, provider_type) => provider_type.clone(),
    };
    let source = match (&args.recipients, &args.source) {
        (Some(path), _) => SourceWish { upload_id: Some(upload(&access, path).await?.upload_id), ..SourceWish::default() },
        (None, Some(address)) => match address.strip_prefix("upload:") {
            Some(id) => SourceWish { upload_id: Some(id.to_owned()), ..SourceWish::default() },
            None => SourceWish { table_name: Some(address.clone()), ..SourceWish::default() },
        },
        (None, None) => return Err(Fault::new(Code::InputInvalid, "--recipients or --source is needed")),
    };
    let wish = NewBatch {
        source,
        content: template(batch)?,
        provider_type,
        tenant: args.tenant.clone(),
        campaign_id: batch.campaign_id.clone(),
        campaign_name: batch.campaign_name.clone(),
        marketing_program_id: batch.program_id.clone(),
        task_id: batch.task_id.clone(),
        content_id: batch.content_id.clone(),
        content_signature: batch.signature.clone(),
        url: batch.url.clone(),
        link_base: batch.link_base.clone(),
        auto_trigger: args.auto_trigger,
        prepare: !args.no_prepare,
        schedule_time: batch.schedule.clone(),
        not_after: batch.not_after.clone(),
        late_start: batch.late_start.map(Into::into),
        ext_code: batch.ext_code.clone(),
        on_uncertain: batch.on_uncertain.map(Into::into),
        priority: batch.priority,
        number_column: batch.number_column.clone(),
        dialect: batch.dialect.clone(),
        default_region: batch.region.clone(),
        hours: batch.hours.as_deref().map(hours).transpose()?,
        ..NewBatch::default()
    };
    let key = match &batch.key {
        Some(key) => key.clone(),
        None => {
            let request = serde_json::to_vec(&wish).map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
            format!("cli-{}", &hex(&digest([request.as_slice()]))[..32])
        }
    };
    let created: Created = access.client.call(Call::new(Method::POST, "/v1/batches").json(&wish).once(key)).await?;
    let hint = nobody_runs(&access);
    access.close();
    print::result(global, &created, || {
        let what = if created.existed { "was there already" } else { "was created" };
        let id = &created.batch.batch_id.to_string()[..8];
        format!("batch {} {what}{hint}\n  next: smsfleet batch show {id} --watch\n", created.batch.batch_id)
    })?;
    Ok(exit::SETTLED)
}

/// Uploads a list; the same list again is the same upload.
async fn upload(access: &Access, path: &Path) -> Result<Uploaded, Fault> {
    let cannot =
        |error: std::io::Error| Fault::new(Code::SourceNotFound, format!("{} cannot be opened: {error}", path.display()));
    let path = if path == Path::new("-") { Path::new("/dev/stdin") } else { path };
    let input = tokio::fs::File::open(path).await.map_err(cannot)?;
    let pieces = stream::try_unfold(input, |mut input| async move {
        let mut piece = vec![0; PIECE];
        let read = input.read(&mut piece).await?;
        piece.truncate(read);
        Ok::<_, std::io::Error>((read > 0).then(|| (Bytes::from(piece), input)))
    });
    access.client.call(Call::new(Method::POST, "/v1/uploads").body(Body::from_stream(pieces))).await
}

async fn show(global: &Global, config: &Config, batch: &str, watch: bool) -> Result<u8, Fault> {
    let access = Access::to(global, config).await?;
    let path = format!("/v1/batches/{}", encoded(batch));
    let color = !global.no_color && std::io::stderr().is_terminal();
    let mut screen = Screen::new(global.quiet, color);
    if watch {
        loop {
            let progress: Progress = access.client.get(&format!("{path}/progress")).await?;
            screen.update(&progress);
            if progress.over {
                break;
            }
            tokio::time::sleep(WATCH_EVERY).await;
        }
    }
    screen.finish();
    let view: BatchView = access.client.get(&path).await?;
    access.close();
    print::result(global, &view, || render_service::batch(&view))?;
    Ok(exit::SETTLED)
}

async fn retry(global: &Global, config: &Config, args: &RetryArgs) -> Result<u8, Fault> {
    let filtered = !(args.code.is_empty() && args.failed_by.is_empty() && args.detail.is_empty() && args.number.is_empty());
    let what = match (args.unsent, filtered) {
        (true, false) => json!({ "what": "unsent" }),
        (false, false) => json!({ "what": "failed" }),
        (_, true) => json!({ "what": "filter", "codes": args.code, "accounts": args.failed_by, "details": args.detail,
            "numbers": args.number }),
    };
    let mut wish = what;
    wish["not_after"] = json!(args.not_after);
    order(global, config, &args.batch, "retry", &args.once, &args.commit, wish).await
}

/// Shows the plan of an order, and commits it where that was asked for.
async fn order(
    global: &Global,
    config: &Config,
    batch: &str,
    word: &str,
    once: &OnceArgs,
    commit: &CommitArgs,
    wish: Value,
) -> Result<u8, Fault> {
    let access = Access::to(global, config).await?;
    let path = format!("/v1/batches/{}/commands/{word}", encoded(batch));
    let mut wish = without_nothing(wish);
    let mut hash = commit.plan_hash.clone();
    let mut answer: Option<OrderAnswer> = None;
    if hash.is_none() {
        let plan: OrderAnswer = access.client.call(Call::new(Method::POST, path.as_str()).json(&wish)).await?;
        let named = plan.change.as_ref().map(|plan| &plan.plan_hash).or(plan.retry.as_ref().map(|plan| &plan.plan_hash));
        hash = named.filter(|_| commit.yes).cloned();
        if hash.is_none() || !global.json {
            print::result(global, &plan, || render_service::order(&plan))?;
        }
        answer = Some(plan);
    }
    if let Some(hash) = hash {
        wish["plan_hash"] = json!(hash);
        let mut call = Call::new(Method::POST, path).json(&wish);
        if let Some(key) = &once.idempotency_key {
            call = call.once(key);
        }
        let done: OrderAnswer = access.client.call(call).await?;
        let hint = nobody_runs(&access);
        print::result(global, &done, || done.done.as_ref().map_or(String::new(), |done| render_service::command(done, &hint)))?;
    } else if let Some(hash) = answer.and_then(|plan| plan.change.map(|c| c.plan_hash).or(plan.retry.map(|r| r.plan_hash)))
        && !global.quiet
        && !global.json
    {
        eprintln!("Nothing was changed. To commit exactly this plan: the same command with --plan-hash {hash}");
    }
    access.close();
    Ok(exit::SETTLED)
}

/// Sends a command and prints its answer.
pub async fn command_on(
    global: &Global,
    config: &Config,
    batch: &str,
    word: &str,
    once: &OnceArgs,
    wish: Value,
) -> Result<u8, Fault> {
    let access = Access::to(global, config).await?;
    let mut call =
        Call::new(Method::POST, format!("/v1/batches/{}/commands/{word}", encoded(batch))).json(&without_nothing(wish));
    if let Some(key) = &once.idempotency_key {
        call = call.once(key);
    }
    let answer: CommandAnswer = access.client.call(call).await?;
    let hint = if word == "cancel" { String::new() } else { nobody_runs(&access) };
    let mut value = serde_json::to_value(&answer).map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
    value["a_fleet_runs"] = json!(access.somebody_runs());
    access.close();
    print::result(global, &value, || render_service::command(&answer, &hint))?;
    Ok(exit::SETTLED)
}

/// A wish without the names that nothing was said of.
fn without_nothing(mut wish: Value) -> Value {
    if let Some(fields) = wish.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    wish
}

fn nobody_runs(access: &Access) -> String {
    let hint = "; no fleet runs: `smsfleet all` goes on with it";
    if access.somebody_runs() { String::new() } else { hint.to_owned() }
}
