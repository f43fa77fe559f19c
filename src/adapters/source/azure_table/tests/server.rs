//! A table service in memory: it answers the filters of this project, refuses any other, and misbehaves as it is told.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value};
use tokio::net::TcpListener;

type Body = BoxBody<Bytes, std::io::Error>;
type Key = (String, String);
/// When it was written, and its properties.
type Entity = (u64, Vec<(String, Value)>);

/// What comes instead of the usual answer.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The usual answer.
    Good,
    /// A status, perhaps with `Retry-After`, and an error code in the body.
    Status(u16, Option<&'static str>, &'static str),
    /// An answer that breaks off.
    Cut,
    /// Nothing.
    Silent,
    /// Something else than JSON.
    Nonsense,
    /// No entity, and always the same token.
    SameToken,
    /// This many texts of this many bytes where entities should be.
    Much(usize, usize),
}

/// A request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    pub select: String,
    pub token: Option<String>,
    pub authorization: String,
    pub sig: String,
    pub was_empty_with_token: bool,
}

#[derive(Default)]
struct State {
    rows: BTreeMap<Key, Entity>,
    writes: u64,
    script: VecDeque<Reply>,
    asked: Vec<Asked>,
}

/// The service, for as long as the test's runtime lives.
pub struct Fake {
    pub port: u16,
    state: Arc<Mutex<State>>,
}

impl Fake {
    /// Pages of at most this many entities. With `empties` a page also ends where a partition does, and a page without any
    /// comes first.
    pub async fn start(page: usize, empties: bool) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of our own");
        let port = listener.local_addr().expect("it is bound").port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let state = shared.clone();
                let service = service_fn(move |request| answer(state.clone(), request, page, empties));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
            }
        });
        Fake { port, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn put(&self, partition: &str, row: &str, properties: &[(&str, Value)]) {
        let mut state = self.state();
        state.writes += 1;
        let properties = properties.iter().map(|(name, value)| ((*name).to_string(), value.clone())).collect();
        let written = state.writes;
        state.rows.insert((partition.into(), row.into()), (written, properties));
    }

    pub fn remove(&self, partition: &str, row: &str) {
        self.state().rows.remove(&(partition.to_string(), row.to_string()));
    }

    /// What comes next, instead of the usual answers.
    pub fn script<const N: usize>(&self, replies: [Reply; N]) {
        self.state().script = replies.into();
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }

    /// The rows as the columns PartitionKey, RowKey, Timestamp, phone, score, name.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let text = |value: Option<&Value>| match value {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        };
        let row = |((partition, row), (written, properties)): (&Key, &Entity)| {
            let of = |wanted: &str| text(properties.iter().find(|(name, _)| name == wanted).map(|(_, value)| value));
            vec![partition.clone(), row.clone(), time(*written), of("phone"), of("score"), of("name")]
        };
        self.state().rows.iter().map(row).collect()
    }
}

fn time(written: u64) -> String {
    format!("2026-01-01T00:00:00.{written:07}Z")
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
    page: usize,
    empties: bool,
) -> Result<Response<Body>, Infallible> {
    let query = request.uri().query().unwrap_or_default();
    let parameters: BTreeMap<String, String> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let parameter = |name: &str| parameters.get(name).cloned();
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_string();
    let token =
        parameter("NextPartitionKey").map(|partition| format!("{partition}/{}", parameter("NextRowKey").unwrap_or_default()));
    let asked = Asked {
        path: request.uri().path().to_string(),
        select: parameter("$select").unwrap_or_default(),
        token: token.clone(),
        authorization: header("authorization"),
        sig: parameter("sig").unwrap_or_default(),
        was_empty_with_token: false,
    };
    let reply = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked.push(asked);
        state.script.pop_front().unwrap_or(Reply::Good)
    };
    let whole = |text: String| Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed();
    let status = |code: u16| Response::builder().status(code);
    let response = match reply {
        Reply::Good => {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let filter = parameter("$filter").unwrap_or_default();
            let Some(conditions) = conditions(&filter) else {
                return Ok(status(400).body(whole("{}".into())).expect("a response"));
            };
            let (found, next) = page_of(&state.rows, &conditions, &parameter("$select"), token, page, empties);
            if found.is_empty() && next.is_some() {
                state.asked.last_mut().expect("this request").was_empty_with_token = true;
            }
            let mut response = status(200);
            if let Some((partition, row)) = next {
                response = response.header("x-ms-continuation-NextPartitionKey", partition);
                // As the service does, the second half is left out where there is none.
                if !row.is_empty() {
                    response = response.header("x-ms-continuation-NextRowKey", row);
                }
            }
            response.body(whole(serde_json::json!({ "value": found }).to_string()))
        }
        Reply::Status(code, retry_after, error) => {
            let mut response = status(code);
            if let Some(seconds) = retry_after {
                response = response.header("retry-after", seconds);
            }
            // The real one quotes the signature it was given.
            let text = format!("The MAC signature found in the HTTP request '{}' is wrong", parameter("sig").unwrap_or_default());
            response
                .body(whole(serde_json::json!({ "odata.error": { "code": error, "message": { "value": text } } }).to_string()))
        }
        Reply::Cut => {
            let pieces = [Ok(Frame::data(Bytes::from_static(b"{\"value\":["))), Err(std::io::Error::other("cut"))];
            status(200).body(BodyExt::boxed(StreamBody::new(stream::iter(pieces))))
        }
        Reply::Silent => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            status(500).body(whole(String::new()))
        }
        Reply::Nonsense => status(200).body(whole("<html>".into())),
        Reply::Much(count, bytes) => {
            let text = format!("\"{}\"", "x".repeat(bytes));
            status(200).body(whole(format!("{{\"value\":[{}]}}", vec![text; count].join(","))))
        }
        Reply::SameToken => {
            status(200).header("x-ms-continuation-NextPartitionKey", "1!4!YQ--").body(whole("{\"value\":[]}".into()))
        }
    };
    Ok(response.expect("a response"))
}

/// The entities of a page, and where the next begins.
fn page_of(
    rows: &BTreeMap<Key, Entity>,
    conditions: &[(String, String, String)],
    select: &Option<String>,
    token: Option<String>,
    page: usize,
    empties: bool,
) -> (Vec<Value>, Option<Key>) {
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let unhex = |text: &str| -> String {
        let bytes = (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("our own token"));
        String::from_utf8(bytes.collect()).expect("our own token")
    };
    let token_of = |kind: &str, (partition, row): &Key| Some((format!("{kind}!{}", hex(partition)), hex(row)));
    let start = token.map(|token| {
        let (partition, row) = token.split_once('/').expect("two halves");
        let (kind, partition) = partition.split_once('!').expect("our own token");
        (kind.to_string(), (unhex(partition), unhex(row)))
    });
    let fits = |(partition, row): &Key| {
        conditions.iter().all(|(name, compare, text)| {
            let value = if name == "PartitionKey" { partition } else { row };
            match compare.as_str() {
                "eq" => value == text,
                "gt" => value > text,
                "lt" => value < text,
                "le" => value <= text,
                _ => false,
            }
        })
    };
    let from = start.as_ref().map_or((String::new(), String::new()), |(_, key)| key.clone());
    let mut all = rows.range(from..).filter(|(key, _)| fits(key)).peekable();
    if empties && let Some((first, _)) = all.peek() {
        let is_first_look = start.as_ref().is_none_or(|(kind, _)| kind == "e");
        if is_first_look {
            return (vec![], token_of("g", first));
        }
    }
    let mut found: Vec<Value> = vec![];
    let mut partition: Option<&String> = None;
    for (key, (written, properties)) in all {
        let ends = empties && partition.is_some_and(|partition| *partition != key.0);
        if found.len() == page || ends {
            return (found, token_of(if ends { "e" } else { "g" }, key));
        }
        partition = Some(&key.0);
        let mut entity = Map::new();
        let wanted = |name: &str| select.as_ref().is_none_or(|select| select.split(',').any(|selected| selected == name));
        let system = [("PartitionKey", key.0.clone()), ("RowKey", key.1.clone()), ("Timestamp", time(*written))];
        entity.extend(system.into_iter().filter(|(name, _)| wanted(name)).map(|(name, text)| (name.to_string(), text.into())));
        entity.extend(properties.iter().filter(|(name, _)| wanted(name)).cloned());
        found.push(Value::Object(entity));
    }
    (found, None)
}

/// The conditions of a filter, all joined by `and`; `None` for any other filter.
fn conditions(filter: &str) -> Option<Vec<(String, String, String)>> {
    let mut found = vec![];
    let mut rest = filter;
    while !rest.is_empty() {
        let (name, more) = rest.split_once(' ')?;
        let (compare, more) = more.split_once(" '")?;
        let mut text = String::new();
        let mut characters = more.char_indices().peekable();
        let end = loop {
            match characters.next()? {
                (_, '\'') if characters.peek().is_some_and(|(_, c)| *c == '\'') => {
                    characters.next();
                    text.push('\'');
                }
                (at, '\'') => break at + 1,
                (_, c) => text.push(c),
            }
        };
        let known = ["PartitionKey", "RowKey"].contains(&name);
        known.then(|| found.push((name.to_string(), compare.to_string(), text)))?;
        rest = &more[end..];
        if !rest.is_empty() {
            rest = rest.strip_prefix(" and ")?;
        }
    }
    Some(found)
}
