//! What no type can say of a configuration: limits, relations between keys, and that a cluster is named as a whole.

use std::time::Duration;

use super::config::{Config, Protocol};
use super::reach::is_store;
use crate::model::limits::PARTS_MAX;
use crate::ports::clock::Clock;
use crate::runtime::logging;

impl Config {
    /// Checks what no type can say. All that is wrong, each with its key.
    pub fn check(&self, clock: &dyn Clock) -> Vec<(String, String)> {
        let mut wrong = vec![];
        let mut refuse = |key: String, text: &str| wrong.push((key, text.to_owned()));
        let region = &self.default_region;
        if !(region.is_empty() || region.len() == 2 && region.bytes().all(|b| b.is_ascii_uppercase())) {
            refuse("default_region".into(), "is two capital letters, such as \"CN\"");
        }
        if !self.batch.ext_code.bytes().all(|b| b.is_ascii_digit()) {
            refuse("batch.ext_code".into(), "has digits only");
        }
        if self.batch.priority > 9 {
            refuse("batch.priority".into(), "is 0 to 9");
        }
        if self.batch.not_after.is_some_and(|seconds| !(seconds > 0.0 && seconds < 1e10)) {
            refuse("batch.not_after".into(), "is a number of seconds above 0");
        }
        if let Err(text) = logging::check(&self.log.level) {
            refuse("log.level".into(), &text);
        }
        if let Err((key, text)) = self.trace.check() {
            refuse(format!("trace.{key}"), &text);
        }
        if self.retention.dead_days < 2 {
            refuse("retention.dead_days".into(), "is at least 2: webhooks are tried for a day");
        }
        let retention = &self.retention;
        if retention.history_days < retention.texts_days {
            let text = "is at least retention.texts_days: without its history everybody of a batch looks as if never sent";
            refuse("retention.history_days".into(), text);
        }
        if retention.batch_days < retention.history_days {
            refuse("retention.batch_days".into(), "is at least retention.history_days: the batch's row names what is let go of");
        }
        for (key, text) in self.webhooks.check() {
            refuse(key, &text);
        }
        if let Some(url) = &self.links.fallback
            && !crate::links::is_web_address(url)
        {
            refuse("links.fallback".into(), "is an address that begins with http:// or https://");
        }
        let serve = &self.serve;
        if serve.body_kb == 0 || serve.requests_per_second == 0 || serve.connections == 0 {
            refuse("serve".into(), "its limits are at least 1");
        }
        if [serve.request_timeout, serve.head_timeout, serve.stall_timeout].iter().any(Duration::is_zero) {
            refuse("serve".into(), "its times are more than 0 seconds");
        }
        // Whatever waits for a server is woken by its time-out, and Kafka's client gives a message up after half a minute.
        let redis = &self.redis;
        let waits = [self.scylla.request_timeout, self.scylla.connect_timeout, redis.connect_timeout, redis.response_timeout];
        let longest = waits.into_iter().max().unwrap_or_default();
        if self.limits.standstill < Duration::from_secs(60) || self.limits.standstill <= longest.saturating_mul(2) {
            refuse("limits.standstill".into(), "is at least 60 seconds, and more than twice every time-out of a server");
        }
        if self.sources.expanded_mb == 0 {
            refuse("sources.expanded_mb".into(), "is at least 1");
        }
        if self.sources.folders.iter().any(|folder| !folder.is_absolute()) {
            refuse("sources.folders".into(), "has absolute paths only");
        }
        for (name, store) in &self.object_stores {
            if let Err((key, text)) = store.check() {
                refuse(format!("object_stores.{name}.{key}"), &text);
            }
        }
        for (name, account) in &self.azure_tables {
            if !is_store(name) {
                refuse(format!("azure_tables.{name}"), "a name has up to 64 letters, digits, _ and -");
            }
            if let Err((key, text)) = account.check() {
                refuse(format!("azure_tables.{name}.{key}"), &text);
            }
        }
        for (key, text) in self.scylla.check().into_iter().map(|(key, text)| (format!("scylla.{key}"), text)) {
            refuse(key, &text);
        }
        for (key, text) in self.kafka.check().into_iter().chain(self.redis.check()) {
            refuse(key, &text);
        }
        let named = [
            ("scylla.nodes", self.scylla.is_used()),
            ("kafka.brokers", self.kafka.is_used()),
            ("redis.nodes", self.redis.is_used()),
        ];
        if named.iter().any(|(_, used)| *used) {
            for (key, _) in named.iter().filter(|(_, used)| !used) {
                refuse((*key).into(), "is needed for a cluster: it has ScyllaDB, Kafka and Redis, all three");
            }
        }
        // No store copies more than this in one step, which is how a long upload gets its name.
        if self.uploads.max_mb == 0 || self.uploads.url.is_some() && self.uploads.max_mb > 5_000 {
            refuse("uploads.max_mb".into(), "is at least 1, and at most 5000 with uploads.url");
        }
        for (name, account) in &self.accounts {
            let key = |key: &str| format!("accounts.{name}.{key}");
            if name.is_empty() || name.len() > 32 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)) {
                refuse(format!("accounts.{name}"), "an account's name has up to 32 letters, digits, _ and -");
            }
            if account.bind_slots == Some(0) {
                refuse(key("bind_slots"), "is at least 1; leave it out where every deliverer may have sessions");
            }
            if account.rate == Some(0) {
                refuse(key("rate"), "is at least 1; leave it out to learn the rate");
            }
            if account.price.is_some_and(|price| !(price >= 0.0 && price.is_finite())) {
                refuse(key("price"), "is a number from 0 up");
            }
            if account.answer_timeout.is_zero() {
                refuse(key("answer_timeout"), "is more than 0 seconds");
            }
            if !(1..=PARTS_MAX).contains(&usize::from(account.capabilities.parts_max)) {
                refuse(key("capabilities.parts_max"), &format!("is 1 to {PARTS_MAX}"));
            }
            if !account.opt_out.country_code.bytes().all(|b| b.is_ascii_digit()) {
                refuse(key("opt_out.country_code"), "has digits only, such as \"86\"");
            }
            if let Some(hours) = &account.hours
                && clock.minute_of_day(&hours.zone, clock.now()).is_none()
            {
                refuse(key("hours.zone"), "is the IANA name of a zone, such as \"Asia/Shanghai\"");
            }
            if u64::from(self.retention.index_days) * 86_400 < account.receipts.wait.as_secs() {
                refuse(key("receipts.wait"), "is longer than retention.index_days: late receipts would match nothing");
            }
            let (table, checked) = match account.protocol {
                Protocol::Smpp => ("smpp", account.smpp.check()),
                Protocol::Http => ("http", account.http.check()),
            };
            if let Err(fault) = checked {
                refuse(key(table), &fault.context);
            }
        }
        wrong
    }
}
