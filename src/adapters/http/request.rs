//! Requests: how messages become one, and what one try brings back.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, Request, Url, redirect};
use xxhash_rust::xxh3::Xxh3;

use super::answer::Reply;
use super::config::HttpConfig;
use super::connect::{InTime, connected_within};
use super::template::{Escape, Name, Template, Values};
use super::value::check_pointer;
use crate::adapters::secret::Secret;
use crate::adapters::secure;
use crate::model::code::{Code, Fault};
use crate::ports::provider::Submit;

/// Octets of an answer that are read; the rest would tell nothing more.
const ANSWER_MAX: usize = 4 << 20;

/// How long a connection is kept without a request.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// Makes and sends requests.
pub struct Requests {
    client: Client,
    method: Method,
    url: Template,
    headers: Vec<(HeaderName, Template)>,
    body: Template,
    item: Template,
    separator: String,
    content_type: HeaderValue,
    idempotency: Option<HeaderName>,
    sender: String,
    secret: Secret,
}

/// What one try brought back.
pub enum Try {
    /// An answer.
    Answered(Reply),
    /// No connection: nothing was handed over.
    NotConnected(Fault),
    /// It may have been handed over, and nobody said what became of it.
    Unknown,
}

impl Requests {
    /// Checks the configuration.
    pub fn new(config: &HttpConfig, answer_timeout: Duration) -> Result<Requests, Fault> {
        let refuse = |what: &str| Fault::new(Code::ConfigInvalid, format!("http account: {what}"));
        if !(config.url.starts_with("http://") || config.url.starts_with("https://")) {
            return Err(refuse("url begins with https:// or http://"));
        }
        if config.batch == 0 || config.concurrency == 0 {
            return Err(refuse("batch and concurrency begin at 1"));
        }
        let answer = &config.answer;
        let success = answer.success.as_ref().map(|success| &success.pointer);
        for place in [answer.items.as_ref(), answer.item_of.as_ref(), answer.id.as_ref(), answer.error.as_ref(), success] {
            check_pointer(place.map_or("", String::as_str), "answer")?;
        }
        let escape = Escape::of_content(&config.content_type);
        let body = Template::read(&config.body, escape, "body")?;
        if body.has(Name::Items) != (config.batch > 1) || config.item.is_empty() == (config.batch > 1) {
            return Err(refuse("a batch above 1 needs {{items}} in the body, and an item; a batch of 1 has neither"));
        }
        let mut headers = Vec::new();
        for (name, template) in &config.headers {
            let header = name.parse().map_err(|_| refuse(&format!("{name:?} is no name of a header")))?;
            headers.push((header, Template::read(template.expose(), Escape::Plain, name)?));
        }
        let idempotency = match &config.idempotency {
            Some(key) => Some(key.header.parse().map_err(|_| refuse("idempotency.header is no name of a header"))?),
            None => None,
        };
        let client = Client::builder()
            .tls_backend_preconfigured(secure::client_config(config.ca_file.as_deref())?)
            // A redirected message would be handed over twice.
            .redirect(redirect::Policy::none())
            // The answer's time begins before there is a connection. Were it over first, nobody could tell a provider that
            // cannot be reached, and was handed nothing, from one that keeps silent.
            .connect_timeout(config.connect_timeout.min(answer_timeout / 2))
            .connector_layer(InTime)
            .timeout(answer_timeout)
            .tcp_nodelay(true)
            // A connection that the server closes for being idle, just as a request is written, leaves that one in doubt:
            // it is closed here first. Servers wait 5 seconds or longer.
            .pool_idle_timeout(IDLE_MAX)
            .build()
            .map_err(|error| refuse(&error.to_string()))?;
        Ok(Requests {
            client,
            method: config.method.parse().map_err(|_| refuse("method is no method"))?,
            url: Template::read(&config.url, Escape::Percent, "url")?,
            headers,
            body,
            item: Template::read(&config.item, escape, "item")?,
            separator: config.separator.clone(),
            content_type: config.content_type.parse().map_err(|_| refuse("content_type is no kind of body"))?,
            idempotency,
            sender: config.sender.clone(),
            secret: config.secret.clone(),
        })
    }

    /// The request for some messages, or why there can be none.
    pub fn request(&self, messages: &[&Submit]) -> Result<Request, &'static str> {
        let key = request_key(messages);
        let secret = self.secret.now();
        let values = |message, key, items| Values { message, key, sender: &self.sender, secret: secret.expose(), items };
        let items = if self.body.has(Name::Items) {
            let items: Vec<String> =
                messages.iter().map(|message| self.item.fill(&values(Some(*message), &message.key, ""))).collect();
            items.join(&self.separator)
        } else {
            String::new()
        };
        let alone = if self.body.has(Name::Items) { None } else { messages.first().copied() };
        let values = values(alone, &key, &items);
        let url = Url::parse(&self.url.fill(&values)).map_err(|_| "no such url")?;
        let mut request = Request::new(self.method.clone(), url);
        for (name, template) in &self.headers {
            let value = HeaderValue::from_str(&template.fill(&values)).map_err(|_| "not possible in a header")?;
            request.headers_mut().insert(name, value);
        }
        if let Some(name) = &self.idempotency {
            let value = HeaderValue::from_str(&key).map_err(|_| "the key is not possible in a header")?;
            request.headers_mut().insert(name, value);
        }
        let body = self.body.fill(&values);
        if !body.is_empty() {
            request.headers_mut().insert(CONTENT_TYPE, self.content_type.clone());
            *request.body_mut() = Some(body.into());
        }
        Ok(request)
    }

    /// Sends a request once, unless there is no connection for it within the time that its messages have `left`.
    pub async fn send(&self, request: Request, left: Duration) -> Try {
        let mut response = match connected_within(left, self.client.execute(request)).await {
            Ok(response) => response,
            Err(error) if error.is_connect() => return Try::NotConnected(not_connected(&error)),
            Err(_) => return Try::Unknown,
        };
        let status = response.status().as_u16();
        let has_retry_after = response.headers().contains_key(RETRY_AFTER);
        let mut octets = Vec::new();
        let whole = loop {
            match response.chunk().await {
                Ok(Some(chunk)) if octets.len() + chunk.len() <= ANSWER_MAX => octets.extend_from_slice(&chunk),
                Ok(None) => break true,
                Ok(Some(_)) | Err(_) => break false,
            }
        };
        if !whole && (200..300).contains(&status) {
            return Try::Unknown;
        }
        Try::Answered(Reply::read(status, has_retry_after, &octets))
    }
}

/// The key of a request: the message's own, or for several the first one's and a digest of all.
fn request_key(messages: &[&Submit]) -> String {
    match messages {
        [one] => one.key.clone(),
        _ => {
            let mut digest = Xxh3::new();
            for message in messages {
                digest.update(message.key.as_bytes());
                digest.update(&[0]);
            }
            let first = messages.first().map_or("", |message| message.key.as_str());
            format!("{first}+{:016x}", digest.digest())
        }
    }
}

/// The innermost reason; it names no number and no text, as nothing was sent.
fn not_connected(error: &reqwest::Error) -> Fault {
    let mut source: &dyn std::error::Error = error;
    let mut code = Code::ProviderDown;
    while let Some(inner) = source.source() {
        source = inner;
        if inner.is::<tokio_rustls::rustls::Error>() {
            code = Code::ProviderTls;
        }
        // Errors of TLS travel inside errors of input and output.
        if let Some(inside) = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref)
            && inside.is::<tokio_rustls::rustls::Error>()
        {
            code = Code::ProviderTls;
        }
    }
    Fault::new(code, source.to_string())
}
