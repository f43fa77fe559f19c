//! Receipts of the HTTP side pushed to the sender's callback, again and again until it answers with a 2xx.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{Request, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::centre::Shared;
use super::config::Http;
use super::fate::State;
use super::ids;
use super::receipts::{Due, Kind, date};
use crate::runtime::task;

/// How long one callback may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Pushes what becomes ready until the simulator stops. Several of these run side by side.
pub(super) async fn push(shared: Arc<Shared>) {
    // One connection for receipts, one for people's texts: they may go to different places.
    let mut connections: [Connection; 2] = [None, None];
    let mut failures = 0;
    while !shared.stop.is_cancelled() {
        let Some((receipts, rules)) = take(&shared) else {
            tokio::select! {
                () = shared.callbacks.notified() => {}
                () = shared.stop.cancelled() => {}
            }
            continue;
        };
        let is_inbound = receipts.first().is_some_and(is_inbound);
        let body = if is_inbound { inbound(&shared, &receipts[0]) } else { body(&shared, &receipts, &rules) };
        let connection = &mut connections[usize::from(is_inbound)];
        let is_taken = tokio::select! {
            answered = tokio::time::timeout(TIMEOUT, post(connection, &rules, is_inbound, body)) => matches!(answered, Ok(Some(true))),
            () = shared.stop.cancelled() => false,
        };
        settle(&shared, receipts, is_taken);
        if is_taken {
            failures = 0;
            continue;
        }
        *connection = None;
        let wait = Duration::from_millis(u64::from(rules.callback_retry_ms)) * (1 << failures.min(5));
        failures += 1;
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.stop.cancelled() => {}
        }
    }
}

fn take(shared: &Shared) -> Option<(Vec<Due>, Http)> {
    let mut centre = shared.centre();
    let rules = centre.config.http.clone();
    let queue = &mut centre.receipts.ready_http;
    let first_is_inbound = is_inbound(queue.front()?);
    if (if first_is_inbound { &rules.inbound_url } else { &rules.callback_url }).is_empty() {
        return None;
    }
    let receipts = queue.iter().take(rules.callback_batch as usize).take_while(|due| !is_inbound(due)).count();
    let count = if first_is_inbound { 1 } else { receipts };
    let receipts: Vec<Due> = queue.drain(..count).collect();
    if !queue.is_empty() {
        // There is work for another of us.
        shared.callbacks.notify_one();
    }
    let totals = &mut centre.ledger.totals;
    totals.receipts.sent += count as u64;
    totals.receipts.resent += receipts.iter().filter(|due| due.is_repeat).count() as u64;
    totals.receipts.unacknowledged += count as u64;
    totals.http.callbacks += 1;
    Some((receipts, rules))
}

fn settle(shared: &Shared, receipts: Vec<Due>, is_taken: bool) {
    let mut centre = shared.centre();
    let totals = &mut centre.ledger.totals;
    totals.receipts.unacknowledged -= receipts.len() as u64;
    if is_taken && receipts.first().is_some_and(is_inbound) {
        totals.receipts.inbound_acknowledged += receipts.len() as u64;
    } else if is_taken {
        totals.receipts.acknowledged += receipts.len() as u64;
        let delivered = receipts.iter().filter(|due| due.kind == Kind::Final(State::Delivered)).count();
        totals.receipts.acknowledged_delivered += delivered as u64;
    } else {
        totals.http.callbacks_failed += 1;
        centre.receipts.take_back(receipts.into_iter());
    }
}

fn is_inbound(due: &Due) -> bool {
    matches!(due.kind, Kind::Inbound(_))
}

/// A person's text, as one object.
fn inbound(shared: &Shared, due: &Due) -> String {
    let centre = shared.centre();
    let Kind::Inbound(text) = due.kind else { return String::new() };
    let text = centre.config.receipts.inbound_texts.get(usize::from(text)).cloned().unwrap_or_default();
    let to = String::from_utf8_lossy(centre.sender_address(due.sender)).into_owned();
    drop(centre);
    json!({"id": format!("in-{}", due.id), "from": format!("+{}", due.number), "to": to, "text": text}).to_string()
}

/// One object, or an array when several may come at once.
fn body(shared: &Shared, receipts: &[Due], rules: &Http) -> String {
    let id_rules = shared.centre().config.ids.clone();
    let mut items: Vec<Value> = receipts.iter().map(|due| item(due, &id_rules)).collect();
    match items.pop() {
        Some(only) if rules.callback_batch == 1 => only.to_string(),
        last => {
            items.extend(last);
            Value::Array(items).to_string()
        }
    }
}

fn item(due: &Due, id_rules: &super::config::Ids) -> Value {
    let (Kind::Final(state) | Kind::Intermediate(state)) = due.kind else { return Value::Null };
    let text = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut octets = Vec::new();
        write(&mut octets);
        String::from_utf8_lossy(&octets).into_owned()
    };
    let origin = due.http.as_deref();
    json!({
        "id": text(&|out| ids::receipt(id_rules, due.id, out)),
        "to": origin.map(|origin| origin.to.as_str()),
        "key": origin.and_then(|origin| origin.key.as_deref()),
        "status": state.stat(),
        "error": text(&|out| ids::decimal(u64::from(state.error()), 3, out)),
        "submit_date": text(&|out| date(out, due.submitted_s, true)),
        "done_date": text(&|out| date(out, due.done_s, true)),
    })
}

type Connection = Option<SendRequest<Full<Bytes>>>;

/// Whether the callback answered with a 2xx; `None` when it did not answer.
async fn post(connection: &mut Connection, rules: &Http, is_inbound: bool, body: String) -> Option<bool> {
    let (url, token) = match is_inbound {
        true => (&rules.inbound_url, &rules.inbound_token),
        false => (&rules.callback_url, &rules.callback_token),
    };
    let uri: Uri = url.parse().ok()?;
    let authority = uri.authority()?;
    let sender = match connection.take().filter(|sender| !sender.is_closed()) {
        Some(sender) => connection.insert(sender),
        None => connection.insert(connect(authority.host(), authority.port_u16().unwrap_or(80)).await?),
    };
    sender.ready().await.ok()?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request =
        Request::post(path).header(header::HOST, authority.as_str()).header(header::CONTENT_TYPE, "application/json");
    if !token.is_empty() {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let response = sender.send_request(request.body(Full::new(Bytes::from(body))).ok()?).await.ok()?;
    let is_taken = response.status().is_success();
    // The answer is read to its end so that the connection can be used again.
    response.into_body().collect().await.ok()?;
    Some(is_taken)
}

async fn connect(host: &str, port: u16) -> Option<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
    // It ends by itself once its sender is dropped.
    task::spawn("simulator callback connection", connection);
    Some(sender)
}
