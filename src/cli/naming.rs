//! Which batch a command means: the one that the same command made before, whatever the configuration says by now.
//!
//! A command without `--key` is named by what was typed. The configuration has no part in the name: a priority that is raised
//! half-way, or a version that adds a setting, must not make a second batch that sends to everybody again.

use serde::Serialize;

use super::args::BatchArgs;
use super::request::{Request, template};
use crate::batch::SmsBatchService;
use crate::model::batch::{BatchRow, SmsBatch};
use crate::model::code::{Code, Fault};
use crate::model::schedule::LateStart;
use crate::model::state::StepState;
use crate::model::step::CurrentStep;
use crate::model::window::OnUncertain;
use crate::ports::batches::BatchIndex;
use crate::runtime::digest::{digest, hex};
use crate::serve::views::short;

/// Batches that failed in preparation under one made key before the person is asked for a key.
const FAILED_BEFORE_MAX: u32 = 1_000;

/// What was typed, as far as it says who is sent what and how. What was not typed is not written, so that a flag that a later
/// version adds changes no key.
#[derive(Serialize)]
struct Typed<'a> {
    list: &'a str,
    template: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_base: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ext_code: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    campaign_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    campaign_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    program_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    task_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    content_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_after: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hours: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    late_start: Option<LateStart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_uncertain: Option<OnUncertain>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    number_column: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    dialect: &'a str,
}

/// The key of a command without one: a digest over the list's place, the template and the other options as they were typed, so
/// that it depends on neither the list's content nor the clock nor the configuration.
pub fn made_key(args: &BatchArgs, list: &str) -> Result<String, Fault> {
    let template = template(args)?;
    let typed = Typed {
        list,
        template: &template,
        account: args.account.as_deref(),
        provider_type: args.provider_type.as_deref(),
        signature: args.signature.as_deref(),
        url: args.url.as_deref(),
        link_base: args.link_base.as_deref(),
        ext_code: args.ext_code.as_deref(),
        campaign_id: &args.campaign_id,
        campaign_name: &args.campaign_name,
        program_id: &args.program_id,
        task_id: &args.task_id,
        content_id: &args.content_id,
        schedule: args.schedule.as_deref(),
        not_after: args.not_after.as_deref(),
        hours: args.hours.as_deref(),
        late_start: args.late_start.map(Into::into),
        on_uncertain: args.on_uncertain.map(Into::into),
        priority: args.priority,
        region: args.region.as_deref(),
        number_column: args.number_column.as_deref(),
        dialect: &args.dialect,
    };
    Ok(format!("send-{}", short_digest(&typed)?))
}

/// The key that the builds before made for the same command: a digest over the whole request, the configuration's part of it
/// included. A batch that one of them made is found by it, as long as the configuration is what it was.
pub fn older_key(batch: &SmsBatch) -> Result<String, Fault> {
    Ok(format!("cli-{}", short_digest(batch)?))
}

fn short_digest(request: &impl Serialize) -> Result<String, Fault> {
    let request = serde_json::to_vec(request).map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
    Ok(hex(&digest([request.as_slice()])[..16]))
}

/// Settles which batch a request means. A made key whose batch failed before anything could be sent gives way to the next,
/// so that a corrected list is simply run again.
pub async fn name(
    service: &SmsBatchService,
    index: &dyn BatchIndex,
    mut asked: Request,
) -> Result<(Request, Option<BatchRow>), Fault> {
    let tenant = asked.batch.tenant.clone();
    let Some(older) = asked.older_key.clone() else {
        let row = found(service, &tenant, &asked.key).await?;
        if let Some(row) = &row {
            asked.agree_with(&row.batch);
        }
        return Ok((asked, row));
    };
    let (key, row) = newest(service, &tenant, &asked.key).await?;
    asked.key = key;
    let row = match row {
        Some(row) => Some(row),
        None => newest(service, &tenant, &older).await?.1,
    };
    match &row {
        Some(row) => asked.agree_with(&row.batch),
        None => alone(service, index, &asked.batch).await?,
    }
    Ok((asked, row))
}

/// The batch that a made key stands for, or the key for a new one.
async fn newest(service: &SmsBatchService, tenant: &str, first: &str) -> Result<(String, Option<BatchRow>), Fault> {
    let mut key = first.to_owned();
    for attempt in 2..FAILED_BEFORE_MAX {
        let Some(row) = found(service, tenant, &key).await? else { return Ok((key, None)) };
        // After a recovery nobody knows what was sent: only a person may name a new batch.
        let stale = row.preparation.reason.as_ref().is_some_and(|(code, _)| *code == Code::StoreStale);
        if row.preparation.state != StepState::CompletedFailed || stale {
            return Ok((key, Some(row)));
        }
        key = format!("{first}-{attempt}");
    }
    Err(Fault::new(Code::InputInvalid, "too many batches of this command failed: name one with --key"))
}

async fn found(service: &SmsBatchService, tenant: &str, key: &str) -> Result<Option<BatchRow>, Fault> {
    match service.load(SmsBatchService::id_of(tenant, key)).await {
        Ok(stored) => Ok(Some(stored.row)),
        Err(fault) if fault.code == Code::BatchNotFound => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Refuses a new batch without a name of its own while another sends the same text to the same list: it goes on in this very
/// process, and whoever it has not reached yet would get both.
async fn alone(service: &SmsBatchService, index: &dyn BatchIndex, asked: &SmsBatch) -> Result<(), Fault> {
    for id in index.active().await? {
        let row = match service.load(id).await {
            Ok(stored) => stored.row,
            // A row that cannot be read is sent by nobody.
            Err(fault) if matches!(fault.code, Code::BatchNotFound | Code::StoreCorrupt) => continue,
            Err(fault) => return Err(fault),
        };
        if row.batch.table_name == asked.table_name && row.batch.content == asked.content && sends(&row) {
            let context = format!(
                "batch {} sends the same text to the same list with other options, and is not at its end: wait for it or cancel \
                 it, or name a second batch with --key",
                short(id)
            );
            return Err(Fault::new(Code::IdempotencyConflict, context));
        }
    }
    Ok(())
}

/// Whether a batch sends, or will without another word.
fn sends(row: &BatchRow) -> bool {
    match row.current_step {
        CurrentStep::Preparation => row.batch.auto_trigger && !row.preparation.state.is_final(),
        CurrentStep::Delivery if row.delivery.state == StepState::Initial => row.batch.auto_trigger,
        CurrentStep::Delivery => !row.delivery.state.is_final(),
    }
}

/// Whether the batch of this command was made with other settings than the configuration has now: it goes on as it was made.
///
/// # Errors
/// [`Code::PlanChanged`] when it has not begun and its texts would be others now: what a person configured is what is sent.
pub fn differs(row: &BatchRow, asked: &SmsBatch) -> Result<bool, Fault> {
    let made = &row.batch;
    let texts = |batch: &SmsBatch| {
        let SmsBatch { content_signature, link_base, ext_code, default_region, .. } = batch;
        [content_signature, link_base, ext_code, default_region].map(String::clone)
    };
    if row.delivery.state == StepState::Initial && row.is_active() && texts(made) != texts(asked) {
        let context = format!(
            "the signature, link base, ext_code or region in the configuration has changed since batch {} was made: name a new \
             batch with --key",
            short(made.batch_id)
        );
        return Err(Fault::new(Code::PlanChanged, context));
    }
    // The provider type is another after an operator's command too.
    let now = SmsBatch { batch_id: made.batch_id, provider_type: made.provider_type.clone(), ..asked.clone() };
    Ok(now != *made)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cli::args::SendArgs;
    use crate::cli::request::request;
    use crate::model::id::BatchId;
    use crate::model::time::Timestamp;
    use crate::ports::Stores;
    use crate::roles::config::{AccountConfig, Config};
    use crate::serve::fakes::{memory, surface};
    use crate::serve::fleet::Limits;

    const LIST: &str = "/lists/l.csv";

    fn config(change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::default();
        config.accounts.insert("main".into(), AccountConfig::default());
        change(&mut config);
        config
    }

    fn typed(change: impl FnOnce(&mut BatchArgs)) -> BatchArgs {
        let mut batch = BatchArgs { template: Some("Hello {{name}}".into()), ..BatchArgs::default() };
        change(&mut batch);
        batch
    }

    fn asked(batch: BatchArgs, config: &Config) -> Request {
        request(&SendArgs { batch, ..SendArgs::default() }, config, Path::new(LIST), Timestamp(5)).expect("it is valid")
    }

    /// A batch as it stands in the store under this key.
    async fn stored(stores: &Stores, asked: &Request, key: &str, change: impl FnOnce(&mut BatchRow)) -> BatchId {
        let id = SmsBatchService::id_of(&asked.batch.tenant, key);
        let batch = SmsBatch { batch_id: id, ..asked.batch.clone() };
        let mut row = BatchRow::created(batch, "digest".into(), Timestamp(1));
        change(&mut row);
        stores.batches.insert(id, &row, 1).await.expect("it is written");
        id
    }

    fn sending(row: &mut BatchRow) {
        row.preparation.state = StepState::CompletedSucceeded;
        (row.current_step, row.delivery.state) = (CurrentStep::Delivery, StepState::Running);
    }

    async fn named(stores: &Stores, asked: Request) -> Result<(String, Option<BatchId>), Code> {
        let surface = surface(stores.clone(), Default::default(), Limits::default(), std::env::temp_dir());
        let named = name(&surface.service, &*stores.batch_index, asked).await.map_err(|fault| fault.code)?;
        Ok((named.0.key, named.1.map(|row| row.batch.batch_id)))
    }

    #[test]
    fn the_configuration_is_no_part_of_a_made_key() {
        let plain = asked(typed(|_| ()), &config(|_| ()));
        let changes: [fn(&mut Config); 7] = [
            |config| config.batch.priority = 7,
            |config| config.batch.min_recipients_per_lane = 1,
            |config| config.batch.on_uncertain = OnUncertain::Resend,
            |config| config.batch.late_start = LateStart::Cancel,
            |config| config.batch.signature = "Shop".into(),
            |config| config.batch.ext_code = "07".into(),
            |config| config.default_region = "DE".into(),
        ];
        for (at, change) in changes.into_iter().enumerate() {
            let other = asked(typed(|_| ()), &config(change));
            assert_eq!(other.key, plain.key, "case {at}");
            assert_ne!(other.older_key, plain.older_key, "case {at}: it was one of the older keys");
            assert_ne!(other.batch, plain.batch, "case {at}");
        }
        // Batches are found by these: a build that makes others sends to everybody again.
        assert_eq!(plain.key, "send-e9da2f098e178744f7f33140f0b6a946");
        let much = typed(|batch| {
            batch.account = Some("main".into());
            batch.priority = Some(7);
            batch.on_uncertain = Some(crate::cli::args::OnUncertainWord::Resend);
            batch.schedule = Some("2030-01-01T00:00:00Z".into());
            batch.campaign_name = "spring".into();
        });
        assert_eq!(asked(much, &config(|_| ())).key, "send-bd06ba3833c20f10fd457f4cf4c9d39f");
    }

    #[tokio::test]
    async fn a_batch_that_an_older_build_made_is_found_under_its_key() {
        let stores = memory();
        let request = asked(typed(|_| ()), &config(|_| ()));
        let older = request.older_key.clone().expect("its key is made");
        stored(&stores, &request, &older, |row| row.preparation.state = StepState::CompletedFailed).await;
        assert_eq!(named(&stores, request.clone()).await, Ok((request.key.clone(), None)), "a failed one gives way");
        let id = stored(&stores, &request, &format!("{older}-2"), sending).await;
        assert_eq!(named(&stores, request.clone()).await.map(|named| named.1), Ok(Some(id)));
        let newer = stored(&stores, &request, &request.key, sending).await;
        assert_eq!(named(&stores, request.clone()).await.map(|named| named.1), Ok(Some(newer)));
    }

    #[tokio::test]
    async fn a_second_batch_of_a_list_that_is_being_sent_the_same_text_needs_a_name() {
        let stores = memory();
        let (before, now) = (config(|config| config.batch.priority = 7), config(|_| ()));
        // An older build made it, and the configuration has changed since.
        let older = asked(typed(|_| ()), &before);
        let key = older.older_key.clone().expect("its key is made");
        let again = || asked(typed(|_| ()), &now);
        for (state, expected) in [
            (StepState::Initial, Ok(None)),
            (StepState::Running, Err(Code::IdempotencyConflict)),
            (StepState::Paused, Err(Code::IdempotencyConflict)),
            (StepState::Canceled, Ok(None)),
        ] {
            let stores = memory();
            stored(&stores, &older, &key, |row| {
                sending(row);
                row.delivery.state = state;
            })
            .await;
            assert_eq!(named(&stores, again()).await.map(|named| named.1), expected, "{state:?}");
        }
        stored(&stores, &older, &key, sending).await;
        let mine = asked(typed(|batch| batch.key = Some("mine".into())), &now);
        assert_eq!(named(&stores, mine).await, Ok(("mine".into(), None)));
        let other = asked(typed(|batch| batch.template = Some("Hi".into())), &now);
        assert_eq!(named(&stores, other).await.map(|named| named.1), Ok(None));
    }

    #[test]
    fn a_batch_goes_on_as_it_was_made_unless_its_texts_would_be_others() {
        let request = asked(typed(|_| ()), &config(|_| ()));
        let made = |change: fn(&mut BatchRow)| {
            let batch = SmsBatch { batch_id: BatchId(9), ..request.batch.clone() };
            let mut row = BatchRow::created(batch, String::new(), Timestamp(1));
            change(&mut row);
            row
        };
        let faster = asked(typed(|_| ()), &config(|config| config.batch.priority = 7)).batch;
        let signed = asked(typed(|_| ()), &config(|config| config.batch.signature = "Shop".into())).batch;
        let code = |row: &BatchRow, batch: &SmsBatch| differs(row, batch).map_err(|fault| fault.code);
        assert_eq!(code(&made(|_| ()), &request.batch), Ok(false));
        assert_eq!(code(&made(|row| row.batch.provider_type = "other".into()), &request.batch), Ok(false));
        assert_eq!(code(&made(|_| ()), &faster), Ok(true));
        assert_eq!(code(&made(|_| ()), &signed), Err(Code::PlanChanged));
        assert_eq!(code(&made(sending), &signed), Ok(true));
    }
}
