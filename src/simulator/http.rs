//! The HTTP provider: messages in as JSON, idempotency keys, and pages that steer the simulator.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::centre::{Body, Centre, Incoming, Shared, Verdict, Wants};
use super::decode;
use super::pdu::status;
use super::receipts::HttpOrigin;
use super::session::{Order, digits};

/// How much later an answer comes whose receipt comes first.
const EARLY_LEAD_US: u32 = 100_000;
/// How long a request without an answer is held at most.
const SILENCE: Duration = Duration::from_secs(3_600);

/// The pages: `POST /messages` for senders; the others for tests.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/messages", post(send))
        .route("/report", get(report))
        .route("/numbers", get(numbers))
        .route("/numbers/{number}", get(number))
        .route("/faults", post(change_faults))
        .route("/receipts", post(change_receipts))
        .route("/control", post(control))
        .with_state(shared)
}

/// One message of a request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    to: String,
    text: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    key: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Request {
    One(Message),
    Many(Vec<Message>),
}

/// What is answered for one message.
#[derive(Clone, Debug, Default, Serialize)]
struct Item {
    to: String,
    /// `accepted`, `refused` (for good) or `later`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// The SMPP status that stands for the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u32>,
}

/// How a request ends once everything in it is decided.
struct Ending {
    items: Vec<Item>,
    latency_us: u32,
    is_silent: bool,
    is_lost: bool,
}

async fn send(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: String) -> Response {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let request_key = text("idempotency-key");
    let is_authorized = {
        let mut centre = shared.centre();
        centre.ledger.totals.http.requests += 1;
        let expected = format!("Bearer {}", centre.config.http_token);
        let is_authorized = centre.config.http_token.is_empty() || text("authorization").is_some_and(|given| given == expected);
        centre.ledger.totals.http.unauthorized += u64::from(!is_authorized);
        is_authorized
    };
    if !is_authorized {
        return error(StatusCode::UNAUTHORIZED, "the token is not right");
    }
    let (mut messages, is_batch) = match serde_json::from_str(&body) {
        Ok(Request::One(message)) => (vec![message], false),
        Ok(Request::Many(messages)) if !messages.is_empty() => (messages, true),
        Ok(Request::Many(_)) | Err(_) => {
            shared.centre().ledger.totals.malformed_requests += 1;
            return error(StatusCode::BAD_REQUEST, "neither a message {to, text, from, key} nor an array of them");
        }
    };
    if !is_batch && messages[0].key.is_none() {
        messages[0].key = request_key.clone();
    }
    let decided = decide(&shared, messages, request_key.filter(|_| is_batch));
    let ending = match decided {
        Ok(ending) => ending,
        Err((status, retry_after_s)) => return later(status, retry_after_s, json!({"error": "too many messages"})),
    };
    if ending.is_silent {
        tokio::select! {
            () = tokio::time::sleep(SILENCE) => {}
            () = shared.stop.cancelled() => {}
        }
        return error(StatusCode::GATEWAY_TIMEOUT, "no answer");
    }
    if ending.latency_us > 0 {
        tokio::time::sleep(Duration::from_micros(u64::from(ending.latency_us))).await;
    }
    if ending.is_lost {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "something went wrong");
    }
    let retry_after_s = shared.centre().config.http.retry_after_s;
    answer(ending.items, is_batch, retry_after_s)
}

/// Decides a whole request under one hold of the centre. The error is "throttled": nothing of it was taken.
fn decide(shared: &Shared, messages: Vec<Message>, request_key: Option<String>) -> Result<Ending, (StatusCode, u32)> {
    let now_us = shared.now_us();
    let mut centre = shared.centre();
    let centre = &mut *centre;
    centre.keys.forget(now_us);
    let mut ending = Ending { items: Vec::new(), latency_us: 0, is_silent: false, is_lost: false };
    if let Some(items) = request_key.as_ref().and_then(|key| centre.keys.requests.get(key)) {
        ending.items.clone_from(items);
        centre.ledger.totals.http.replayed += 1;
        return Ok(ending);
    }
    let is_new =
        |centre: &Centre, message: &Message| message.key.as_ref().is_none_or(|key| !centre.keys.messages.contains_key(key));
    let segments: Vec<u32> =
        messages.iter().map(|message| if is_new(centre, message) { decode::segments(&message.text) } else { 0 }).collect();
    for segments in segments.iter().filter(|segments| **segments > 0) {
        centre.ledger.received(*segments, now_us);
    }
    let sum = segments.iter().sum();
    if sum > 0 && !centre.admits(sum, now_us) {
        centre.ledger.refused(status::THROTTLED);
        let status = StatusCode::from_u16(centre.config.http.throttle_status).unwrap_or(StatusCode::TOO_MANY_REQUESTS);
        return Err((status, centre.config.http.retry_after_s));
    }
    for message in messages {
        let remembered = message.key.as_ref().and_then(|key| centre.keys.messages.get(key)).cloned();
        if let Some(item) = remembered {
            centre.ledger.totals.http.replayed += 1;
            ending.items.push(item);
            continue;
        }
        let key = message.key.clone();
        let item = take(centre, shared, message, now_us, &mut ending);
        if let Some(key) = key.filter(|_| item.status != "later") {
            centre.keys.remember_message(key, item.clone(), now_us);
        }
        ending.items.push(item);
    }
    if let Some(key) = request_key {
        centre.keys.remember_request(key, ending.items.clone(), now_us);
    }
    Ok(ending)
}

fn take(centre: &mut Centre, shared: &Shared, message: Message, now_us: u64, ending: &mut Ending) -> Item {
    let Message { to, text, from, key } = message;
    let Some(number) = digits(to.as_bytes()) else {
        centre.ledger.refused(status::INVALID_DESTINATION);
        return Item { to, status: "refused", id: None, code: Some(status::INVALID_DESTINATION) };
    };
    let has_callback = !centre.config.http.callback_url.is_empty();
    let incoming = Incoming {
        number,
        sender: centre.sender(from.as_bytes()),
        segments: decode::segments(&text),
        body: Body::Text(&text),
        wants: if has_callback { Wants::All } else { Wants::Nothing },
        http: Some(HttpOrigin { to: to.clone(), key }),
    };
    let (status, id) = match centre.submit(incoming, now_us, &shared.timer) {
        Verdict::Silence { id } => {
            ending.is_silent = true;
            (status::OK, id)
        }
        Verdict::Lost { id } => {
            ending.is_lost = true;
            (status::OK, id)
        }
        Verdict::Answer { status, id, latency_us, early } => {
            centre.count_answer(status);
            ending.latency_us = ending.latency_us.max(latency_us);
            if let Some(early) = early {
                centre.receipts.put_ready(early);
                shared.callbacks.notify_one();
                ending.latency_us = ending.latency_us.saturating_add(EARLY_LEAD_US);
            }
            (status, id)
        }
    };
    if status == status::OK {
        let mut octets = Vec::new();
        super::ids::answer(&centre.config.ids, id, &mut octets);
        return Item { to, status: "accepted", id: String::from_utf8(octets).ok(), code: None };
    }
    let is_for_now = status == status::QUEUE_FULL || centre.config.faults.transient_codes.contains(&status);
    Item { to, status: if is_for_now { "later" } else { "refused" }, id: None, code: Some(status) }
}

fn answer(items: Vec<Item>, is_batch: bool, retry_after_s: u32) -> Response {
    match items.as_slice() {
        [item] if !is_batch => match (item.status, item.code) {
            ("accepted", _) => Json(item).into_response(),
            ("later", Some(status::QUEUE_FULL)) => later(StatusCode::TOO_MANY_REQUESTS, retry_after_s, json!(item)),
            ("later", _) => later(StatusCode::SERVICE_UNAVAILABLE, retry_after_s, json!(item)),
            _ => (StatusCode::BAD_REQUEST, Json(item)).into_response(),
        },
        items => Json(items).into_response(),
    }
}

fn later(status: StatusCode, retry_after_s: u32, body: Value) -> Response {
    (status, [(header::RETRY_AFTER, retry_after_s.to_string())], Json(body)).into_response()
}

fn error(status: StatusCode, what: &str) -> Response {
    (status, Json(json!({"error": what}))).into_response()
}

/// Idempotency keys and their first answers. What was refused for now is not remembered: nothing happened.
#[derive(Default)]
pub(super) struct Keys {
    messages: HashMap<String, Item>,
    requests: HashMap<String, Vec<Item>>,
    ages: VecDeque<(u64, bool, String)>,
    lifetime_us: u64,
}

impl Keys {
    /// No keys yet; each will be remembered for so many seconds.
    pub fn new(lifetime_s: u32) -> Keys {
        Keys { lifetime_us: u64::from(lifetime_s) * 1_000_000, ..Keys::default() }
    }

    fn remember_message(&mut self, key: String, item: Item, now_us: u64) {
        self.ages.push_back((now_us, false, key.clone()));
        self.messages.insert(key, item);
    }

    fn remember_request(&mut self, key: String, items: Vec<Item>, now_us: u64) {
        self.ages.push_back((now_us, true, key.clone()));
        self.requests.insert(key, items);
    }

    fn forget(&mut self, now_us: u64) {
        while self.ages.front().is_some_and(|(since_us, ..)| since_us + self.lifetime_us <= now_us)
            && let Some((_, is_request, key)) = self.ages.pop_front()
        {
            if is_request {
                self.requests.remove(&key);
            } else {
                self.messages.remove(&key);
            }
        }
    }
}

async fn report(State(shared): State<Arc<Shared>>) -> Response {
    Json(shared.report()).into_response()
}

/// All numbers as JSON Lines.
async fn numbers(State(shared): State<Arc<Shared>>) -> Response {
    let rows = shared.centre().ledger.numbers();
    let lines: String = rows.iter().map(|row| format!("{}\n", json!(row))).collect();
    ([(header::CONTENT_TYPE, "application/x-ndjson")], lines).into_response()
}

/// One number, with its texts when they are kept.
async fn number(State(shared): State<Arc<Shared>>, Path(number): Path<u64>) -> Response {
    let centre = shared.centre();
    match centre.ledger.number(number) {
        Some(record) => Json(json!({"record": record, "texts": centre.ledger.texts(number)})).into_response(),
        None => error(StatusCode::NOT_FOUND, "nothing came for this number"),
    }
}

/// Changes the faults that are named; the others stay.
async fn change_faults(State(shared): State<Arc<Shared>>, Json(change): Json<Value>) -> Response {
    let mut centre = shared.centre();
    let mut config = centre.config.clone();
    match merged(&config.faults, &change) {
        Ok(faults) => config.faults = faults,
        Err(error_text) => return error(StatusCode::UNPROCESSABLE_ENTITY, &error_text),
    }
    apply(&mut centre, config)
}

/// Changes the receipts' behaviour where it is named; the rest stays.
async fn change_receipts(State(shared): State<Arc<Shared>>, Json(change): Json<Value>) -> Response {
    let mut centre = shared.centre();
    let mut config = centre.config.clone();
    match merged(&config.receipts, &change) {
        Ok(receipts) => config.receipts = receipts,
        Err(error_text) => return error(StatusCode::UNPROCESSABLE_ENTITY, &error_text),
    }
    apply(&mut centre, config)
}

fn apply(centre: &mut Centre, config: super::config::SimulatorConfig) -> Response {
    match config.check() {
        Ok(()) => {
            centre.config = config;
            Json(json!({"faults": centre.config.faults, "receipts": centre.config.receipts})).into_response()
        }
        Err(fault) => error(StatusCode::UNPROCESSABLE_ENTITY, &fault.context),
    }
}

fn merged<T: Serialize + for<'de> Deserialize<'de>>(now: &T, change: &Value) -> Result<T, String> {
    let mut value = serde_json::to_value(now).map_err(|error| error.to_string())?;
    match (value.as_object_mut(), change.as_object()) {
        (Some(value), Some(change)) => value.extend(change.clone()),
        _ => return Err("not a JSON object".to_owned()),
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// Orders to the running simulator; what is not named is left alone.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
struct Control {
    refuse_binds: Option<bool>,
    drop_sessions: bool,
    unbind_sessions: bool,
    restart: bool,
}

async fn control(State(shared): State<Arc<Shared>>, Json(control): Json<Control>) -> Response {
    let mut centre = shared.centre();
    centre.refuses_binds = control.refuse_binds.unwrap_or(centre.refuses_binds);
    if control.unbind_sessions {
        centre.order(Order::Unbind);
    }
    if control.drop_sessions {
        centre.order(Order::Drop);
    }
    if control.restart {
        centre.restart();
    }
    Json(json!({"refuse_binds": centre.refuses_binds})).into_response()
}
