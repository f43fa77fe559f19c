//! From flags and configuration to a batch, and to the key that names it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::{BatchArgs, SendArgs};
use super::naming::{made_key, older_key};
use crate::adapters::source::is_remote;
use crate::model::batch::SmsBatch;
use crate::model::code::{Code, Fault};
use crate::model::id::BatchId;
use crate::model::limits::TEMPLATE_BYTES_MAX;
use crate::model::schedule::SendingHours;
use crate::model::time::Timestamp;
use crate::roles::config::Config;
use crate::runtime::moment::moment;

/// A batch to be created, and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The batch; its id is set when it is created.
    pub batch: SmsBatch,
    /// The idempotency key.
    pub key: String,
    /// When the key was made here, and not given: the one that older builds made for the same command.
    pub older_key: Option<String>,
    /// Whether `not_after` comes from the configuration and is counted from the batch's creation.
    pub not_after_is_relative: bool,
}

/// Makes the request. `list` is where the list is: an absolute path, or the copy of standard input. `auto_trigger` stays off:
/// the command itself starts the delivery, so that a dry run, its approval and a plain run share one batch.
pub fn request(args: &SendArgs, config: &Config, list: &Path, now: Timestamp) -> Result<Request, Fault> {
    let refuse = |text: String| Err(Fault::new(Code::InputInvalid, text));
    let Some(table_name) = list.to_str().map(str::to_owned) else {
        return refuse(format!("the path {} is no UTF-8", list.display()));
    };
    let content = template(&args.batch)?;
    let provider_type = provider_type(&args.batch, config)?;
    let text = |given: &Option<String>, default: &str| given.clone().unwrap_or_else(|| default.to_owned());
    let ext_code = text(&args.batch.ext_code, &config.batch.ext_code);
    if !ext_code.bytes().all(|b| b.is_ascii_digit()) {
        return refuse(format!("ext_code {ext_code:?} has digits only"));
    }
    let default_region = text(&args.batch.region, &config.default_region).to_ascii_uppercase();
    let is_region = default_region.len() == 2 && default_region.bytes().all(|b| b.is_ascii_uppercase());
    if !default_region.is_empty() && !is_region {
        return refuse(format!("region {default_region:?} is two letters, such as CN"));
    }
    if args.price.is_some_and(|price| !(price >= 0.0 && price.is_finite())) {
        return refuse("the price is a number from 0 up".into());
    }
    let signature = text(&args.batch.signature, &config.batch.signature);
    let schedule_time = args.batch.schedule.as_deref().map(moment).transpose()?;
    let given_not_after = args.batch.not_after.as_deref().map(moment).transpose()?;
    let relative = config.batch.not_after.filter(|_| given_not_after.is_none());
    let mut batch = SmsBatch {
        batch_id: BatchId(0),
        tenant: config.batch.tenant.clone(),
        table_name,
        dialect: args.batch.dialect.clone(),
        campaign_id: args.batch.campaign_id.clone(),
        campaign_name: args.batch.campaign_name.clone(),
        marketing_program_id: args.batch.program_id.clone(),
        task_id: args.batch.task_id.clone(),
        content_id: args.batch.content_id.clone(),
        content,
        content_signature: signature.trim_start_matches('【').trim_end_matches('】').to_owned(),
        url: args.batch.url.clone(),
        link_base: text(&args.batch.link_base, &config.batch.link_base),
        auto_trigger: false,
        schedule_time,
        not_after: given_not_after,
        late_start: args.batch.late_start.map_or(config.batch.late_start, Into::into),
        ext_code,
        provider_type,
        on_uncertain: args.batch.on_uncertain.map_or(config.batch.on_uncertain, Into::into),
        priority: args.batch.priority.unwrap_or(config.batch.priority),
        number_column: args.batch.number_column.clone(),
        default_region,
        min_recipients_per_lane: config.batch.min_recipients_per_lane,
        link_parameters: vec![],
        hours: args.batch.hours.as_deref().map(hours).transpose()?,
    };
    // The older key is made before what depends on the clock is filled in: the same command later is the same batch.
    let (key, older_key) = match &args.batch.key {
        Some(key) => (key.clone(), None),
        None => (made_key(&args.batch, &batch.table_name)?, Some(older_key(&batch)?)),
    };
    if let Some(seconds) = relative {
        let from = schedule_time.unwrap_or(now);
        batch.not_after = Some(from.plus(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)));
    }
    Ok(Request { batch, key, older_key, not_after_is_relative: relative.is_some() })
}

impl Request {
    /// Takes over from the batch made before what was counted from its creation.
    pub fn agree_with(&mut self, made_before: &SmsBatch) {
        if self.not_after_is_relative {
            self.batch.not_after = made_before.not_after;
        }
    }
}

/// Sending hours as they are typed: `08:00-22:00 Asia/Shanghai`. The zone is checked when the batch is created.
///
/// # Errors
/// [`Code::InputInvalid`].
pub fn hours(text: &str) -> Result<SendingHours, Fault> {
    let parsed = text.trim().split_once(' ').and_then(|(hours, zone)| {
        let (from, to) = hours.split_once('-')?;
        let value = serde_json::json!({ "from": from, "to": to, "zone": zone.trim() });
        serde_json::from_value(value).ok()
    });
    parsed.ok_or_else(|| {
        Fault::new(Code::InputInvalid, format!("hours {text:?} are not of the form \"08:00-22:00 Asia/Shanghai\""))
    })
}

/// The text of a batch, from the flag or from its file.
///
/// # Errors
/// [`Code::TemplateInvalid`].
pub fn template(args: &BatchArgs) -> Result<String, Fault> {
    let text = match (&args.template, &args.template_file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => {
            let size = std::fs::metadata(path).map(|facts| facts.len()).unwrap_or(0);
            if size > TEMPLATE_BYTES_MAX as u64 {
                return Err(Fault::new(Code::TemplateInvalid, format!("{} is larger than a template may be", path.display())));
            }
            let text = std::fs::read_to_string(path)
                .map_err(|error| Fault::new(Code::TemplateInvalid, format!("{} cannot be read: {error}", path.display())))?;
            let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
            // Editors end a file with a line feed that nobody means to send.
            let text = text.strip_suffix('\n').unwrap_or(text);
            text.strip_suffix('\r').unwrap_or(text).to_owned()
        }
        (None, None) => return Err(Fault::new(Code::InputInvalid, "a template is needed")),
    };
    if text.trim().is_empty() {
        return Err(Fault::new(Code::TemplateInvalid, "the template is empty"));
    }
    Ok(text)
}

fn provider_type(args: &BatchArgs, config: &Config) -> Result<String, Fault> {
    let accounts = config.accounts();
    let names = || accounts.keys().cloned().collect::<Vec<_>>().join(", ");
    let unknown = |text: String| Err(Fault::new(Code::AccountUnknown, text));
    if accounts.is_empty() {
        return unknown("no account is configured: begin with `smsfleet check-config --reference > smsfleet.toml`".into());
    }
    if let Some(name) = &args.account {
        return match accounts.get(name) {
            Some(account) => Ok(account.provider_type.clone()),
            None => unknown(format!("there is no account {name:?}; configured are {}", names())),
        };
    }
    if let Some(name) = &args.provider_type {
        return match accounts.values().any(|account| account.provider_type == *name) {
            true => Ok(name.clone()),
            false => unknown(format!("no account has provider type {name:?}; configured accounts are {}", names())),
        };
    }
    let mut types: Vec<String> = accounts.values().map(|account| account.provider_type.clone()).collect();
    types.dedup();
    match <[String; 1]>::try_from(types) {
        Ok([only]) => Ok(only),
        Err(_) => unknown(format!("several accounts are configured ({}): name one with --account", names())),
    }
}

/// The absolute path of a list, so that the same file has the same name from every folder. An address stays as it is.
pub fn absolute(path: &Path) -> Result<PathBuf, Fault> {
    if path.to_str().is_some_and(is_remote) {
        return Ok(path.to_owned());
    }
    std::fs::canonicalize(path)
        .map_err(|error| Fault::new(Code::SourceNotFound, format!("{} cannot be opened: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roles::config::AccountConfig;

    fn config() -> Config {
        let mut config = Config::default();
        config.accounts.insert("main".into(), AccountConfig::default());
        config
    }

    fn with(change: impl FnOnce(&mut BatchArgs)) -> SendArgs {
        let mut batch = BatchArgs { template: Some("Hello {{name}}".into()), ..BatchArgs::default() };
        change(&mut batch);
        SendArgs { batch, ..SendArgs::default() }
    }

    fn args() -> SendArgs {
        with(|_| ())
    }

    fn key(args: &SendArgs, config: &Config, list: &str, now: i64) -> String {
        request(args, config, Path::new(list), Timestamp(now)).expect("it is valid").key
    }

    #[test]
    fn the_same_command_has_the_same_key_and_another_has_another() {
        let mut relative = config();
        relative.batch.not_after = Some(3_600.0);
        let base = key(&args(), &config(), "/l.csv", 0);
        assert_eq!(base, key(&args(), &config(), "/l.csv", 99));
        assert_eq!(base, key(&args(), &relative, "/l.csv", 7), "what the clock decides is no part of it");
        assert_eq!(base, key(&SendArgs { dry_run: true, ..args() }, &config(), "/l.csv", 0), "a dry run is the same batch");
        assert_eq!(base, key(&SendArgs { approve: Some("x".into()), ..args() }, &config(), "/l.csv", 0));
        let others = [
            with(|batch| batch.template = Some("Hi".into())),
            with(|batch| batch.signature = Some("S".into())),
            with(|batch| batch.ext_code = Some("07".into())),
            with(|batch| batch.ext_code = Some("7".into())),
            with(|batch| batch.campaign_name = "c".into()),
            with(|batch| batch.schedule = Some("2030-01-01T00:00:00Z".into())),
            with(|batch| batch.dialect = "delimiter=;".into()),
        ];
        let mut keys: Vec<String> = others.iter().map(|args| key(args, &config(), "/l.csv", 0)).collect();
        keys.extend([base, key(&args(), &config(), "/other.csv", 0)]);
        let different: std::collections::BTreeSet<&String> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
        assert_eq!(key(&with(|batch| batch.key = Some("mine".into())), &config(), "/l.csv", 0), "mine");
    }

    #[test]
    fn a_batch_run_again_keeps_its_first_end() {
        let mut config = config();
        config.batch.not_after = Some(60.0);
        let first = request(&args(), &config, Path::new("/l.csv"), Timestamp(0)).expect("it is valid");
        let mut again = request(&args(), &config, Path::new("/l.csv"), Timestamp(5_000)).expect("it is valid");
        assert_ne!(first.batch, again.batch);
        again.agree_with(&first.batch);
        assert_eq!(first.batch, again.batch);
    }

    #[test]
    fn wrong_input_is_refused_with_its_code() {
        let cases = [
            (with(|batch| batch.account = Some("x".into())), Code::AccountUnknown),
            (with(|batch| batch.provider_type = Some("x".into())), Code::AccountUnknown),
            (with(|batch| batch.template = Some("  ".into())), Code::TemplateInvalid),
            (with(|batch| (batch.template, batch.template_file) = (None, Some("/nowhere".into()))), Code::TemplateInvalid),
            (with(|batch| batch.ext_code = Some("1a".into())), Code::InputInvalid),
            (with(|batch| batch.region = Some("China".into())), Code::InputInvalid),
            (with(|batch| batch.schedule = Some("soon".into())), Code::InputInvalid),
            (SendArgs { price: Some(f64::NAN), ..args() }, Code::InputInvalid),
        ];
        for (args, code) in cases {
            let refused = request(&args, &config(), Path::new("/l.csv"), Timestamp(0)).map_err(|fault| fault.code);
            assert_eq!(refused, Err(code), "{args:?}");
        }
        let none = request(&args(), &Config::default(), Path::new("/l.csv"), Timestamp(0)).map_err(|fault| fault.code);
        assert_eq!(none, Err(Code::AccountUnknown));
    }
}
