//! Asking the service for one page: the request, its repeats, and what its refusals mean.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{StatusCode, redirect};
use tokio::time::Instant;
use url::Url;

use super::Scope;
use super::config::AzureTableConfig;
use super::keys::encoded;
use super::page::{self, ENTITIES_MAX, NoPage, Page, Token};
use super::sign::{self, Access};
use crate::adapters::secure;
use crate::model::code::{Code, Fault};
use crate::ports::World;
use crate::runtime::retry::Schedule;

/// The version of the service's interface.
const VERSION: &str = "2019-02-02";
/// Bytes of an answer at most: the service's own pages end at 1,000 entities and about 4 MiB, of which JSON with escapes makes a few
/// times as many at most.
const ANSWER_MAX: usize = 16 << 20;
/// Bytes of a refusal that are looked at.
const REFUSAL_MAX: usize = 16 << 10;
/// The first and the longest wait before a request is repeated; a `Retry-After` may ask for more.
const WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// The longest that a service is left alone for one answer, whatever it says.
const QUIET_MAX: Duration = Duration::from_secs(3_600);
/// How long a connection is kept without a request: servers close theirs after 5 seconds or later.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// A storage account as the configuration describes it.
pub struct Client {
    config: AzureTableConfig,
    /// Such as `azure_tables.main`.
    setting: String,
    endpoint: String,
    access: Access,
    http: reqwest::Client,
    world: World,
    /// Until when the service asked to be left alone: for all readers of this process.
    quiet_until: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("setting", &self.setting).field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// A table of an account.
pub struct Table {
    pub client: Arc<Client>,
    pub name: String,
    /// Its address, for people.
    pub shown: String,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Query {
    /// Which entities; all when empty.
    pub filter: String,
    /// Which properties, with commas between; all when empty.
    pub select: String,
    /// The page; the first without it.
    pub next: Option<Token>,
}

impl Client {
    /// A client; nothing is asked of the server yet.
    pub fn new(name: &str, config: &AzureTableConfig, world: &World) -> Result<Arc<Client>, Fault> {
        let setting = format!("azure_tables.{name}");
        let refuse = |key: &str, text: &str| Fault::new(Code::ConfigInvalid, format!("{setting}.{key}: {text}"));
        config.check().map_err(|(key, text)| refuse(key, &text))?;
        let endpoint = match config.endpoint.as_str() {
            "" => format!("https://{}.table.core.windows.net", config.account),
            endpoint => endpoint.trim_end_matches('/').to_string(),
        };
        let tls = secure::client_config(config.ca_file.as_deref()).map_err(|fault| refuse("ca_file", &fault.context))?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            // A redirected request would carry its signature to another place.
            .redirect(redirect::Policy::none())
            .connect_timeout(config.connect_timeout)
            .timeout(config.request_timeout)
            .tcp_nodelay(true)
            .pool_idle_timeout(IDLE_MAX)
            .build()
            .map_err(|error| refuse("endpoint", &error.without_url().to_string()))?;
        Ok(Arc::new(Client {
            access: Access::new(&config.secret, &config.sas).map_err(|fault| refuse("secret", &fault.context))?,
            config: config.clone(),
            setting: setting.clone(),
            endpoint,
            http,
            world: world.clone(),
            quiet_until: Mutex::new(None),
        }))
    }

    /// Whether the configuration lets a table be read.
    pub fn may_read(&self, table: &str) -> bool {
        // Names of tables do not depend on capitals.
        self.config.tables.is_empty() || self.config.tables.iter().any(|known| known.eq_ignore_ascii_case(table))
    }

    /// Which part of its tables is read.
    pub fn scope(&self) -> Scope {
        Scope { partition: self.config.partition.clone() }
    }

    /// The configuration's table, for people.
    pub fn setting(&self) -> &str {
        &self.setting
    }

    fn left_alone_until(&self) -> Option<Instant> {
        *self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave_alone(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut quiet = self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
        *quiet = Some(quiet.map_or(until, |earlier| earlier.max(until)));
    }
}

/// Why a request brought no page.
enum Refused {
    /// It may pass.
    Now(Fault),
    /// It will not.
    ForGood(Fault),
}

impl Table {
    /// One page. What may pass is tried again, with the same token, for as long as the configuration says; a service that asks
    /// to be left alone is, by all readers of this process.
    pub async fn page(&self, query: &Query) -> Result<Page, Fault> {
        let client = &*self.client;
        let until = Instant::now() + client.config.retry_for;
        let mut schedule: Option<Schedule> = None;
        let mut last: Option<Fault> = None;
        loop {
            if let Some(quiet) = client.left_alone_until().filter(|quiet| *quiet > Instant::now()) {
                if quiet > until {
                    return Err(last.unwrap_or_else(|| self.throttled()));
                }
                tokio::time::sleep_until(quiet).await;
                continue;
            }
            let fault = match self.once(query).await {
                Ok(page) if page.next.is_some() && page.next == query.next => {
                    let text = format!("{}: {} gives the same continuation token again", self.shown, client.endpoint);
                    return Err(Fault::new(Code::SourceBroken, text));
                }
                Ok(page) => return Ok(page),
                Err(Refused::ForGood(fault)) => return Err(fault),
                Err(Refused::Now(fault)) => fault,
            };
            let chance = &client.world.chance;
            let schedule = schedule.get_or_insert_with(|| Schedule::new(WAITS.0, WAITS.1, chance.next()));
            let delay = schedule.delay_for_ever();
            if Instant::now() + delay > until {
                return Err(fault);
            }
            tracing::debug!(%fault, "a table is asked again");
            last = Some(fault);
            tokio::time::sleep(delay).await;
        }
    }

    async fn once(&self, query: &Query) -> Result<Page, Refused> {
        let client = &*self.client;
        let url = self.url(query).map_err(Refused::ForGood)?;
        let headers = self.headers(&url).map_err(Refused::ForGood)?;
        let mut response =
            client.http.get(url).headers(headers).send().await.map_err(|error| Refused::Now(self.no_answer(error)))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let most = if status.is_success() { ANSWER_MAX } else { REFUSAL_MAX };
        let mut body = vec![];
        while let Some(piece) = response.chunk().await.map_err(|error| Refused::Now(self.no_answer(error)))? {
            body.extend_from_slice(&piece);
            if body.len() > most {
                if status.is_success() {
                    return Err(self.too_much(&format!("{ANSWER_MAX} bytes")));
                }
                break;
            }
        }
        if status != StatusCode::OK {
            return Err(self.refused(status, &headers, &body));
        }
        let entities = page::entities(&body).map_err(|no_page| match no_page {
            NoPage::NoEntities => {
                let text = format!("{}: {} answers with no entities", self.shown, client.endpoint);
                let advice = format!("check {}.endpoint and what stands between", client.setting);
                Refused::Now(Fault::new(Code::SourceUnavailable, format!("{text}; {advice}")))
            }
            NoPage::TooMany => self.too_much(&format!("{ENTITIES_MAX} entities")),
        })?;
        let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.to_string()).filter(|text| !text.is_empty());
        let next = text("x-ms-continuation-NextPartitionKey")
            .map(|partition| Token { partition, row: text("x-ms-continuation-NextRowKey") });
        Ok(Page { entities, next })
    }

    /// The address of a query. It may hold a signature, and is never shown.
    fn url(&self, query: &Query) -> Result<Url, Fault> {
        let client = &*self.client;
        let token = query.next.as_ref();
        let parameters = [
            ("$filter", Some(query.filter.as_str()).filter(|filter| !filter.is_empty())),
            ("$select", Some(query.select.as_str()).filter(|select| !select.is_empty())),
            ("NextPartitionKey", token.map(|token| token.partition.as_str())),
            ("NextRowKey", token.and_then(|token| token.row.as_deref())),
        ];
        let mut parameters: Vec<String> =
            parameters.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encoded(value?)))).collect();
        if let Access::Sas(sas) = &client.access {
            parameters.push(sas.expose().to_string());
        }
        let address = format!("{}/{}()?{}", client.endpoint, self.name, parameters.join("&"));
        Url::parse(&address).map_err(|_| Fault::new(Code::ConfigInvalid, format!("{}.endpoint: is no address", client.setting)))
    }

    fn headers(&self, url: &Url) -> Result<HeaderMap, Fault> {
        let client = &*self.client;
        let value = |text: &str| {
            let wrong = |_| Fault::new(Code::Internal, format!("{}: a header cannot be written", self.shown));
            HeaderValue::from_str(text).map_err(wrong)
        };
        let date = sign::date(client.world.clock.now())?;
        let mut headers = HeaderMap::new();
        headers.insert("x-ms-date", value(&date)?);
        headers.insert("x-ms-version", HeaderValue::from_static(VERSION));
        headers.insert("dataserviceversion", HeaderValue::from_static("3.0;NetFx"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json;odata=nometadata"));
        if let Some(authorization) = client.access.authorization(&client.config.account, url.path(), &date) {
            let mut authorization = value(&authorization)?;
            authorization.set_sensitive(true);
            headers.insert(AUTHORIZATION, authorization);
        }
        Ok(headers)
    }

    /// What an answer other than 200 means.
    fn refused(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refused {
        let Client { endpoint, setting, config, .. } = &*self.client;
        let shown = &self.shown;
        let what = match error_code(headers, body) {
            Some(code) => format!("{} {code}", status.as_u16()),
            None => status.as_u16().to_string(),
        };
        match status.as_u16() {
            401 | 403 => {
                let check = if config.sas.is_empty() {
                    format!("check {setting}.secret, {setting}.account and the clock of this machine")
                } else {
                    format!("check {setting}.sas: whether it has expired, lets this table be read and queried (r), and the clock")
                };
                let text = format!("{shown}: {endpoint} denies access ({what}); {check}");
                Refused::ForGood(Fault::new(Code::SourceForbidden, text))
            }
            404 => {
                let text = format!("{shown}: there is no such table at {endpoint} ({what}); check {setting}.endpoint");
                Refused::ForGood(Fault::new(Code::SourceNotFound, text))
            }
            408 | 429 | 500..=599 => {
                let wait = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
                if let Some(seconds) = wait {
                    self.client.leave_alone(Duration::from_secs(seconds).min(QUIET_MAX));
                }
                let asked = wait.map_or(String::new(), |seconds| format!(", and asks to wait {seconds} s"));
                let text = format!("{shown}: {endpoint} does not answer for now ({what}){asked}; it is tried again");
                Refused::Now(Fault::new(Code::SourceUnavailable, text))
            }
            _ => {
                let text = format!("{shown}: {endpoint} does not take the query ({what}); check {setting}.endpoint");
                Refused::ForGood(Fault::new(Code::SourceBroken, text))
            }
        }
    }

    /// An answer that no such service gives.
    fn too_much(&self, most: &str) -> Refused {
        let Client { endpoint, setting, .. } = &*self.client;
        let text = format!("{}: {endpoint} answers with more than {most} at once, as no such service does", self.shown);
        Refused::ForGood(Fault::new(Code::SourceBroken, format!("{text}; check {setting}.endpoint and what stands between")))
    }

    fn throttled(&self) -> Fault {
        let text = format!("{}: {} asks to be left alone for a while", self.shown, self.client.endpoint);
        Fault::new(Code::SourceUnavailable, text)
    }

    /// An entity that is none.
    pub fn no_keys(&self) -> Fault {
        let text = format!("{}: an entity has no PartitionKey, RowKey and Timestamp", self.shown);
        Fault::new(Code::SourceBroken, text)
    }

    fn no_answer(&self, error: reqwest::Error) -> Fault {
        let Client { endpoint, setting, .. } = &*self.client;
        let cause = if error.is_timeout() { "it took too long".to_string() } else { cause(&error.without_url()) };
        let text = format!("{}: no usable answer from {endpoint}: {cause}; check {setting}.endpoint and the network", self.shown);
        Fault::new(Code::SourceUnavailable, text)
    }
}

/// The service's word for what was wrong. Its sentences are left out: they may quote a signature.
fn error_code(headers: &HeaderMap, body: &[u8]) -> Option<String> {
    let of_header = headers.get("x-ms-error-code").and_then(|code| Some(code.to_str().ok()?.to_string()));
    let of_body = || {
        let body: serde_json::Value = serde_json::from_slice(body).ok()?;
        Some(body.pointer("/odata.error/code")?.as_str()?.to_string())
    };
    let is_word = |code: &String| !code.is_empty() && code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric());
    of_header.or_else(of_body).filter(is_word)
}

/// The innermost cause, which is the shortest and has no address in it.
fn cause(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(160).collect()
}
