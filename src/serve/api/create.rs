//! Creating a batch: from a source, an uploaded list, or recipients in the request itself.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use futures::StreamExt;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::once::{self, Command, carry_out};
use super::{Answer, Refusals, Shared};
use crate::model::access::{Caller, Standing};
use crate::model::batch::SmsBatch;
use crate::model::code::{Code, Fault};
use crate::model::id::BatchId;
use crate::model::schedule::{LateStart, SendingHours};
use crate::model::time::Timestamp;
use crate::model::window::OnUncertain;
use crate::runtime::moment::moment;
use crate::serve::access::Operator;
use crate::serve::extract::{Body, Few};
use crate::serve::fleet::{Defaults, Surface};
use crate::serve::views::BatchView;

/// Where the recipients of a new batch are: exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SourceWish {
    /// The address of a list: a file or folder that the service may read, or an object store's URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 2048)]
    pub table_name: Option<String>,
    /// The id of an uploaded list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_id: Option<String>,
    /// The recipients themselves: objects of texts, all with the same names; at most 10,000.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "few")]
    #[schema(max_items = 10000, min_items = 1)]
    pub recipients: Option<Vec<BTreeMap<String, String>>>,
}

/// Recipients in a request at most; more are uploaded.
pub const RECIPIENTS_MAX: usize = 10_000;

/// A recipient of the request itself: what each of its columns holds.
type Recipient = BTreeMap<String, String>;

fn few<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<Vec<Recipient>>, D::Error> {
    Ok(Option::<Few<Recipient, RECIPIENTS_MAX>>::deserialize(reader)?.map(|few| few.0))
}

/// A batch to be created. What is left out is as the service's configuration says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBatch {
    /// Where the recipients are.
    pub source: SourceWish,
    /// The text, with `{{column}}` or `${column}` for each recipient's own values.
    #[schema(min_length = 1)]
    pub content: String,
    /// Which provider type sends it; may be left out when only one is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_type: Option<String>,
    /// Whose batch it is; only for keys that see all tenants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The campaign.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 256)]
    pub campaign_id: String,
    /// The campaign's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 256)]
    pub campaign_name: String,
    /// The programme the campaign belongs to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 256)]
    pub marketing_program_id: String,
    /// Your own number for this run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 256)]
    pub task_id: String,
    /// Your own number for the content.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 256)]
    pub content_id: String,
    /// The signature, without its brackets 【】.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 64)]
    pub content_signature: Option<String>,
    /// The long link that the text names as itself, `{{url}}` or `${url}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 2048)]
    pub url: Option<String>,
    /// What short codes are put behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256)]
    pub link_base: Option<String>,
    /// Parameters that opened links carry to the long link, beside or instead of the configured ones of the same name. Values
    /// may hold `{batch_id}`, `{campaign_id}`, `{campaign_name}`, `{marketing_program_id}`, `{task_id}` and `{content_id}`. At most
    /// 32, names and values of 256 bytes each; a link leads nowhere when the whole address comes to more than 8 KiB.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub link_parameters: std::collections::BTreeMap<String, String>,
    /// When it may be sent, by the wall clock of a zone; narrows the hours of the accounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<HoursWish>)]
    pub hours: Option<SendingHours>,
    /// Whether delivery begins by itself after the seal; else it waits for `start` or `approve`.
    #[serde(default)]
    pub auto_trigger: bool,
    /// Whether preparation begins at once; else it waits for `entry_process`.
    #[serde(default)]
    pub prepare: bool,
    /// Not before this instant (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_time: Option<String>,
    /// Not after this instant (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
    /// What happens to a start that was missed: `hold`, `send` or `cancel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<LateStartWord>)]
    pub late_start: Option<LateStart>,
    /// Digits behind the sender's number; leading zeros count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ext_code: Option<String>,
    /// What is done with recipients that were handed over and never answered: `hold`, `resend` or `query`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<OnUncertainWord>)]
    pub on_uncertain: Option<OnUncertain>,
    /// 0 to 9; larger goes first among a tenant's batches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 9)]
    pub priority: Option<u8>,
    /// The column that holds the number; found by its name when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256)]
    pub number_column: Option<String>,
    /// How the list is read where that cannot be found out, such as `delimiter=;`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 256)]
    pub dialect: String,
    /// Region of numbers without a country code, such as CN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_region: Option<String>,
}

/// Hours of a day.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it only describes the fields")]
struct HoursWish {
    /// First minute, such as `08:00`.
    #[schema(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$")]
    from: String,
    /// First minute that is too late, such as `22:00`; before `from` it means the next morning.
    #[schema(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$")]
    to: String,
    /// IANA name of the zone, such as `Asia/Shanghai`.
    zone: String,
}

/// The words of `late_start`.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "it only describes the words")]
enum LateStartWord {
    Hold,
    Send,
    Cancel,
}

/// The words of `on_uncertain`.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "it only describes the words")]
enum OnUncertainWord {
    Hold,
    Resend,
    Query,
}

/// What came of a creation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Created {
    /// The batch.
    pub batch: BatchView,
    /// Whether it was there already, made by the same request.
    pub existed: bool,
}

/// Creates a batch
///
/// The idempotency key names it: the same key with the same request finds the batch made before, with another request it is
/// refused.
#[utoipa::path(post, path = "/v1/batches", tag = "batches", request_body = NewBatch,
    params(("idempotency-key" = String, Header, description = "names the batch", min_length = 1, max_length = 200)),
    responses((status = 200, body = Created), Refusals))]
pub async fn create(
    State(surface): Shared,
    Operator(caller): Operator,
    headers: HeaderMap,
    Body(wish): Body<NewBatch>,
) -> Answer<Response> {
    let key = once::key_of(&headers)?;
    let key = key.ok_or_else(|| Fault::new(Code::InputInvalid, "a batch is created under an Idempotency-Key"))?;
    let tenant = tenant_of(&caller, wish.tenant.as_deref(), &surface.defaults)?;
    let request = serde_json::to_string(&wish).map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
    let mut batch = batch_of(&surface, &wish, &tenant, &key).await?;
    batch.table_name = table_of(&surface, &caller, &wish.source).await?;
    let id = crate::batch::SmsBatchService::id_of(&tenant, &key);
    let words = [("provider_type", batch.provider_type.clone()), ("prepare", wish.prepare.to_string())];
    // The batch itself remembers its request: no second memory of the answer is needed.
    let command = Command {
        caller,
        key: None,
        action: "batch.create",
        target: id.to_string(),
        tenant,
        before: Standing::new(),
        wish: words.map(|(name, word)| (name.to_owned(), word)).into(),
        request,
    };
    let inner = surface.clone();
    carry_out(&surface, command, move |_| async move {
        let created = inner.service.create(&key, batch).await?;
        if wish.prepare {
            inner.service.entry_process(created.batch).await?;
        }
        let row = inner.service.load(created.batch).await?.row;
        let view = BatchView::of(&row, &inner.accounts, inner.world.clock.now());
        Ok((Created { batch: view, existed: created.existed }, super::commands::standing(&row)))
    })
    .await
}

fn tenant_of(caller: &Caller, asked: Option<&str>, defaults: &Defaults) -> Result<String, Fault> {
    match asked {
        Some(tenant) if !caller.sees(tenant) => {
            Err(Fault::new(Code::RoleForbidden, format!("key {} is of another tenant", caller.key)))
        }
        Some(tenant) if tenant.is_empty() || tenant.len() > 64 => {
            Err(Fault::new(Code::InputInvalid, "tenant has 1 to 64 characters"))
        }
        Some(tenant) => Ok(tenant.to_owned()),
        None if caller.only_tenant().is_none() => Ok(defaults.tenant.clone()),
        None => Ok(caller.tenant.clone()),
    }
}

/// The batch of a wish, its list apart.
async fn batch_of(surface: &Surface, wish: &NewBatch, tenant: &str, key: &str) -> Result<SmsBatch, Fault> {
    let defaults = &surface.defaults;
    let named = |name: &str, text: Option<&str>| -> Result<Option<Timestamp>, Fault> {
        let read = text.map(moment).transpose();
        read.map_err(|fault| Fault::new(Code::InputInvalid, format!("{name}: {}", fault.context)))
    };
    let schedule_time = named("schedule_time", wish.schedule_time.as_deref())?;
    let mut not_after = named("not_after", wish.not_after.as_deref())?;
    if let (None, Some(after)) = (not_after, defaults.not_after) {
        // Counted from its creation, so that asking again makes the same request.
        let id = crate::batch::SmsBatchService::id_of(tenant, key);
        let made_before = surface.stores.batches.load(id).await?;
        let from = schedule_time.unwrap_or_else(|| surface.world.clock.now());
        not_after = made_before.map_or_else(|| Some(from.plus(after)), |stored| stored.row.batch.not_after);
    }
    let region = wish.default_region.as_deref().unwrap_or(&defaults.region).to_ascii_uppercase();
    if !(region.is_empty() || region.len() == 2 && region.bytes().all(|byte| byte.is_ascii_uppercase())) {
        return Err(Fault::new(Code::InputInvalid, "default_region is two letters, such as CN"));
    }
    let text = |given: &Option<String>, default: &str| given.clone().unwrap_or_else(|| default.to_owned());
    Ok(SmsBatch {
        batch_id: BatchId(0),
        tenant: tenant.to_owned(),
        table_name: String::new(),
        campaign_id: wish.campaign_id.clone(),
        campaign_name: wish.campaign_name.clone(),
        marketing_program_id: wish.marketing_program_id.clone(),
        task_id: wish.task_id.clone(),
        content_id: wish.content_id.clone(),
        content: wish.content.clone(),
        content_signature: text(&wish.content_signature, &defaults.signature),
        url: wish.url.clone(),
        link_base: text(&wish.link_base, &defaults.link_base),
        hours: wish.hours.clone(),
        link_parameters: wish.link_parameters.clone().into_iter().collect(),
        auto_trigger: wish.auto_trigger,
        schedule_time,
        not_after,
        late_start: wish.late_start.unwrap_or(defaults.late_start),
        ext_code: text(&wish.ext_code, &defaults.ext_code),
        provider_type: provider_type(surface, wish.provider_type.as_deref())?,
        on_uncertain: wish.on_uncertain.unwrap_or(defaults.on_uncertain),
        priority: wish.priority.unwrap_or(defaults.priority),
        number_column: wish.number_column.clone(),
        dialect: wish.dialect.clone(),
        default_region: region,
        min_recipients_per_lane: defaults.min_recipients_per_lane,
    })
}

/// The provider type asked for, or the only one there is.
pub(super) fn provider_type(surface: &Surface, asked: Option<&str>) -> Result<String, Fault> {
    let mut types: Vec<&str> = surface.accounts.values().map(|account| account.provider_type.as_str()).collect();
    types.sort_unstable();
    types.dedup();
    match (asked, types.as_slice()) {
        (Some(name), types) if types.contains(&name) => Ok(name.to_owned()),
        (None, [only]) => Ok((*only).to_owned()),
        (Some(name), _) => Err(Fault::new(Code::AccountUnknown, format!("no account has the provider type {name:?}"))),
        (None, []) => Err(Fault::new(Code::AccountUnknown, "no account is configured")),
        (None, _) => Err(Fault::new(Code::AccountUnknown, "several provider types are configured: name one")),
    }
}

/// The address of the list of a wish; recipients of the request itself are kept like an upload.
async fn table_of(surface: &Surface, caller: &Caller, source: &SourceWish) -> Result<String, Fault> {
    let from_network = *caller != Caller::local();
    match source {
        SourceWish { table_name: Some(table), upload_id: None, recipients: None } => surface.lists.check(table, from_network),
        SourceWish { table_name: None, upload_id: Some(id), recipients: None } => {
            let known = surface.lists.uploads().get(id).await?;
            known.map(|kept| kept.table_name).ok_or_else(|| Fault::new(Code::SourceNotFound, "there is no such upload"))
        }
        SourceWish { table_name: None, upload_id: None, recipients: Some(recipients) } => {
            if recipients.is_empty() || recipients.len() > RECIPIENTS_MAX {
                let context = format!("recipients has 1 to {RECIPIENTS_MAX} of them; more are handed in to /v1/uploads");
                return Err(Fault::new(Code::InputInvalid, context));
            }
            let mut lines = Vec::new();
            for recipient in recipients {
                serde_json::to_writer(&mut lines, recipient).map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
                lines.push(b'\n');
            }
            let content = futures::stream::once(async move { Ok(lines.into()) }).boxed();
            Ok(surface.lists.uploads().put(content, None, None).await?.table_name)
        }
        _ => Err(Fault::new(Code::InputInvalid, "source names exactly one of table_name, upload_id and recipients")),
    }
}
