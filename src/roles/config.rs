//! Everything that can be configured, with its defaults. How it is read is in [`super::config_load`]; every key is explained
//! in `reference.toml`, which a test compares with these structures.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::reach::{
    AzureTableConfig, EXPANDED_BYTES_MAX, HttpConfig, KafkaConfig, ObjectStoreConfig, RedisConfig, ScyllaConfig, SmppConfig,
    WebhookConfig,
};
use crate::model::account::{Account, Capabilities, ReceiptRules};
use crate::model::inbound::OptOutRules;
use crate::model::schedule::{LateStart, SendingHours, seconds};
use crate::model::window::OnUncertain;
use crate::runtime::logging::LogConfig;
use crate::runtime::trace::TraceConfig;

/// The explained list of all keys, with the defaults as values.
pub const REFERENCE: &str = include_str!("reference.toml");

/// The whole configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The folder that holds everything durable.
    pub data_dir: PathBuf,
    /// Region of numbers without a country code (ISO 3166-1 alpha-2); empty: numbers need one.
    pub default_region: String,
    /// What a batch has when its request does not say otherwise.
    pub batch: BatchDefaults,
    /// Accounts at providers, by name.
    pub accounts: BTreeMap<String, AccountConfig>,
    /// Where lists may be read from.
    pub sources: SourcesConfig,
    /// Object stores that lists may be read from, by name.
    pub object_stores: BTreeMap<String, ObjectStoreConfig>,
    /// Accounts of Azure Table Storage that lists may be read from, by name.
    pub azure_tables: BTreeMap<String, AzureTableConfig>,
    /// Lists that are handed in over the network.
    pub uploads: UploadsConfig,
    /// How long data is kept.
    pub retention: RetentionConfig,
    /// Short links.
    pub links: LinksConfig,
    /// HTTP apart from the local socket.
    pub serve: ServeConfig,
    /// Which servers of users may be told of events.
    pub webhooks: WebhookConfig,
    /// The store of a cluster; without nodes the fleet is embedded, in `data_dir`.
    pub scylla: ScyllaConfig,
    /// The queues of a cluster.
    pub kafka: KafkaConfig,
    /// Lock, rates and live counts of a cluster.
    pub redis: RedisConfig,
    /// Log lines.
    pub log: LogConfig,
    /// Traces for a collector.
    pub trace: TraceConfig,
    /// Limits that users may tune.
    pub limits: LimitsConfig,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            data_dir: "smsfleet-data".into(),
            default_region: String::new(),
            batch: BatchDefaults::default(),
            accounts: BTreeMap::new(),
            sources: SourcesConfig::default(),
            object_stores: BTreeMap::new(),
            azure_tables: BTreeMap::new(),
            uploads: UploadsConfig::default(),
            retention: RetentionConfig::default(),
            links: LinksConfig::default(),
            serve: ServeConfig::default(),
            webhooks: WebhookConfig::default(),
            scylla: ScyllaConfig::default(),
            kafka: KafkaConfig::default(),
            redis: RedisConfig::default(),
            log: LogConfig::default(),
            trace: TraceConfig::default(),
            limits: LimitsConfig::default(),
        }
    }
}

/// What a batch has when its request does not say otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchDefaults {
    /// Whose batches they are.
    pub tenant: String,
    /// The signature, without its brackets 【】.
    pub signature: String,
    /// Digits behind the sender's number.
    pub ext_code: String,
    /// What short codes are put behind, such as `https://s.example/`.
    pub link_base: String,
    /// What is done with recipients that were handed over and never answered.
    pub on_uncertain: OnUncertain,
    /// A lane has at least this many recipients.
    pub min_recipients_per_lane: u32,
    /// Seconds after its creation, or its scheduled time, beyond which a batch is not started or sent.
    pub not_after: Option<f64>,
    /// What happens to a start that was missed.
    pub late_start: LateStart,
    /// 0 to 9; larger goes first among a tenant's batches.
    pub priority: u8,
}

impl Default for BatchDefaults {
    fn default() -> BatchDefaults {
        BatchDefaults {
            tenant: "default".into(),
            signature: String::new(),
            ext_code: String::new(),
            link_base: String::new(),
            on_uncertain: OnUncertain::Hold,
            min_recipients_per_lane: 5_000,
            not_after: None,
            late_start: LateStart::Hold,
            priority: 5,
        }
    }
}

/// Which protocol an account speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// SMPP 3.4.
    #[default]
    Smpp,
    /// HTTP, described by the account's `http` table.
    Http,
}

/// An account at a provider.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccountConfig {
    /// The provider type it belongs to; its own name when empty.
    pub provider_type: String,
    /// Which of the two tables below describes it.
    pub protocol: Protocol,
    /// Segments a second it allows; without it the rate is learned.
    pub rate: Option<u32>,
    /// Price of a segment.
    pub price: Option<f64>,
    /// Currency of the price.
    pub currency: String,
    /// When sending is allowed; always without it.
    pub hours: Option<SendingHours>,
    /// Seconds an answer is waited for.
    #[serde(with = "seconds")]
    pub answer_timeout: Duration,
    /// How many deliverers of a cluster may have sessions at once, where the provider allows only so many binds; without it all
    /// have. Each has as many sessions as its table below says.
    pub bind_slots: Option<u32>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// How its receipts are read.
    pub receipts: ReceiptRules,
    /// How messages of people are understood.
    pub opt_out: OptOutRules,
    /// How it is reached over SMPP.
    pub smpp: SmppConfig,
    /// How it is reached over HTTP.
    pub http: HttpConfig,
}

impl Default for AccountConfig {
    fn default() -> AccountConfig {
        AccountConfig {
            provider_type: String::new(),
            protocol: Protocol::Smpp,
            rate: None,
            price: None,
            currency: "EUR".into(),
            hours: None,
            answer_timeout: Duration::from_secs(10),
            bind_slots: None,
            capabilities: Capabilities::default(),
            receipts: ReceiptRules::default(),
            opt_out: OptOutRules::default(),
            smpp: SmppConfig::default(),
            http: HttpConfig::default(),
        }
    }
}

impl AccountConfig {
    /// The account as the stages see it.
    pub fn account(&self, name: &str) -> Account {
        Account {
            name: name.to_owned(),
            provider_type: if self.provider_type.is_empty() { name.to_owned() } else { self.provider_type.clone() },
            rate: self.rate,
            capabilities: self.capabilities.clone(),
            receipts: self.receipts.clone(),
            price: self.price,
            currency: self.currency.clone(),
            hours: self.hours.clone(),
            answer_timeout: self.answer_timeout,
            sender: match self.protocol {
                Protocol::Smpp => self.smpp.source_addr.clone(),
                Protocol::Http => self.http.sender.clone(),
            },
            opt_out: self.opt_out.clone(),
        }
    }
}

/// Where lists may be read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourcesConfig {
    /// Folders of this machine that batches created over the network may name lists in; `smsfleet send` may name any path.
    pub folders: Vec<PathBuf>,
    /// Megabytes that a compressed list may expand to.
    pub expanded_mb: u32,
}

impl Default for SourcesConfig {
    fn default() -> SourcesConfig {
        SourcesConfig { folders: vec![], expanded_mb: (EXPANDED_BYTES_MAX >> 20) as u32 }
    }
}

/// Lists that are handed in over the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UploadsConfig {
    /// Where they are kept, such as `s3://lists/uploads/`; in the data folder without it.
    pub url: Option<String>,
    /// Megabytes that one may have.
    pub max_mb: u32,
    /// Days that one is kept after it was handed in, or longer while a batch needs it.
    pub keep_days: u32,
}

impl Default for UploadsConfig {
    fn default() -> UploadsConfig {
        UploadsConfig { url: None, max_mb: 2_048, keep_days: 30 }
    }
}

/// Days that data is kept: of a batch after it was settled, anything else after it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionConfig {
    /// Texts and numbers: packs, rejects, manifests.
    pub texts_days: u32,
    /// What happened to each recipient: windows and receipts.
    pub history_days: u32,
    /// The batch's own row and its last recount.
    pub batch_days: u32,
    /// The index from message ids to recipients, and receipts that match nothing.
    pub index_days: u32,
    /// Who did what.
    pub audit_days: u32,
    /// Messages from people.
    pub inbox_days: u32,
    /// Openings of short links.
    pub clicks_days: u32,
    /// Events of webhooks that were given up, or could never be told.
    pub dead_days: u32,
    /// Answers to commands, for who asks again under the same idempotency key.
    pub answers_days: u32,
}

impl Default for RetentionConfig {
    fn default() -> RetentionConfig {
        RetentionConfig {
            texts_days: 30,
            history_days: 90,
            batch_days: 400,
            index_days: 7,
            audit_days: 400,
            inbox_days: 400,
            clicks_days: 400,
            dead_days: 14,
            answers_days: 3,
        }
    }
}

/// Short links: where an opened one leads. They are served where `serve.listen` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinksConfig {
    /// Days after its batch was created in which a link leads to its page.
    pub expire_days: u32,
    /// Where links lead that are unknown or have expired; a short page says so without it.
    pub fallback: Option<String>,
    /// Parameters put behind the long link. Values may hold `{batch_id}`, `{campaign_id}`, `{campaign_name}`,
    /// `{marketing_program_id}`, `{task_id}` and `{content_id}`; one that comes out empty is left out.
    pub parameters: BTreeMap<String, String>,
    /// The header in which a proxy in front says the visitor's address, such as `X-Forwarded-For`; without it the address of
    /// the connection counts.
    pub address_header: Option<String>,
}

impl Default for LinksConfig {
    fn default() -> LinksConfig {
        let parameters = [("utm_source", "sms"), ("utm_campaign", "{campaign_id}")];
        LinksConfig {
            expire_days: 90,
            fallback: None,
            parameters: parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            address_header: None,
        }
    }
}

/// HTTP apart from the local socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServeConfig {
    /// Address such as `0.0.0.0:8080` where the API, providers' receipts, health and metrics are served. Without it
    /// `smsfleet all` serves [`LISTEN`], other commands nowhere.
    pub listen: Option<SocketAddr>,
    /// TLS; plain HTTP without it.
    pub tls: Option<TlsConfig>,
    /// Kilobytes of a request's body, uploads apart.
    pub body_kb: u32,
    /// Seconds a request may take until its answer begins; a report has twenty minutes.
    #[serde(with = "seconds")]
    pub request_timeout: Duration,
    /// Seconds a connection may take to send the head of a request.
    #[serde(with = "seconds")]
    pub head_timeout: Duration,
    /// Seconds a connection may read nothing of what it is answered.
    #[serde(with = "seconds")]
    pub stall_timeout: Duration,
    /// Requests a second of one API key.
    pub requests_per_second: u32,
    /// Connections open at once; one address gets seven eighths of them.
    pub connections: u32,
}

/// Where `smsfleet all` serves when it is not told: this machine only.
pub const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

/// TLS for HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate chain, a PEM file.
    pub certificate: PathBuf,
    /// Its private key, a PEM file.
    pub key: PathBuf,
}

impl Default for ServeConfig {
    fn default() -> ServeConfig {
        ServeConfig {
            listen: None,
            tls: None,
            body_kb: 4_096,
            request_timeout: Duration::from_secs(60),
            head_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(120),
            requests_per_second: 200,
            connections: 4_096,
        }
    }
}

/// Limits that users may tune.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Ranges that are prepared at once; 0 is one for each processor, 8 at most.
    pub prepare_tasks: u32,
    /// Megabytes of memory the embedded store may use as a cache.
    pub store_cache_mb: u32,
    /// Seconds that answers are waited for when the process is told to stop; its sessions may then take as long again to close.
    #[serde(with = "seconds")]
    pub drain: Duration,
    /// Seconds without a sign of life after which a part of the process stands still, and `/healthz` says so.
    #[serde(with = "seconds")]
    pub standstill: Duration,
}

impl Default for LimitsConfig {
    fn default() -> LimitsConfig {
        LimitsConfig {
            prepare_tasks: 0,
            store_cache_mb: 64,
            drain: Duration::from_secs(15),
            standstill: Duration::from_secs(120),
        }
    }
}

impl Config {
    /// Whether the store is a cluster's and not a folder's.
    pub fn is_cluster(&self) -> bool {
        self.scylla.is_used()
    }

    /// The accounts as the stages see them.
    pub fn accounts(&self) -> BTreeMap<String, Account> {
        self.accounts.iter().map(|(name, config)| (name.clone(), config.account(name))).collect()
    }
}
