//! One message followed from its batch's creation to its receipt, at a collector that is this test, and in the log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::Value;

use super::fixture::{Place, Provider, Said, list, number};

const RECIPIENTS: u64 = 60;

/// A collector: keeps what it gets.
pub struct Collector {
    _runtime: tokio::runtime::Runtime,
    /// Where it listens.
    pub port: u16,
    bodies: Arc<Mutex<Vec<Bytes>>>,
}

impl Collector {
    /// One on a port of its own.
    pub fn start() -> Collector {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port of our own");
        let port = listener.local_addr().expect("it is bound").port();
        let bodies: Arc<Mutex<Vec<Bytes>>> = Arc::default();
        let kept = bodies.clone();
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let kept = kept.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let kept = kept.clone();
                    async move {
                        assert_eq!(request.uri().path(), "/v1/traces");
                        let body = request.into_body().collect().await?.to_bytes();
                        kept.lock().expect("a lock").push(body);
                        Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::new())))
                    }
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service));
            }
        });
        Collector { _runtime: runtime, port, bodies }
    }

    fn bodies(&self) -> Vec<Bytes> {
        self.bodies.lock().expect("a lock").clone()
    }

    /// All spans that came in.
    pub fn spans(&self) -> Vec<Span> {
        let read = |body: Bytes| ExportTraceServiceRequest::decode(body).expect("it is OTLP");
        let resources = self.bodies().into_iter().flat_map(|body| read(body).resource_spans);
        resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }
}

/// The configuration's part that tells of every batch and everybody in it.
pub fn everybody_followed(endpoint: &str) -> String {
    format!("[trace]\nendpoint = \"{endpoint}\"\nsample = 1.0\nrecipients = 1.0\ntimeout = 1.0\n")
}

/// A folder whose fleet tells of every batch and everybody in it.
fn place(provider: &Provider, endpoint: &str) -> Place {
    let place = Place::new(provider.port(), 1_000);
    let before = std::fs::read_to_string(place.path("smsfleet.toml")).expect("a configuration");
    let trace = everybody_followed(endpoint);
    place.write("smsfleet.toml", format!("{before}[log]\nlevel = \"info\"\nformat = \"json\"\n{trace}"));
    place.write("list.csv", list(RECIPIENTS));
    place
}

fn send(place: &Place) -> Said {
    let template = "Sesame opens for {{name}}";
    let send = ["send", "--recipients", "list.csv", "--template", template, "--account", "main", "--wait-receipts", "20"];
    place.run(&[&send[..], &["--json"]].concat())
}

fn lines(said: &Said) -> Vec<Value> {
    said.err.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(Value::is_object).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks that each of the recipients is followed from the creation of their batch to their receipt.
#[track_caller]
pub fn chain_is_whole(spans: &[Span], batch: &str, recipients: u64) {
    let by_id: BTreeMap<&[u8], &Span> = spans.iter().map(|span| (span.span_id.as_slice(), span)).collect();
    let others = spans.iter().filter(|span| by_id.get(span.span_id.as_slice()).is_some_and(|last| !std::ptr::eq(*last, *span)));
    let twice: Vec<&str> = others.map(|span| span.name.as_str()).collect();
    assert_eq!(twice, [] as [&str; 0], "no id comes twice");
    for span in spans {
        assert_eq!(hex(&span.trace_id), batch, "{}", span.name);
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    }
    let parent = |span: &Span| by_id.get(span.parent_span_id.as_slice()).copied();
    let ancestry = |span: &Span| -> Vec<String> {
        std::iter::successors(Some(span), |span| parent(span)).map(|span| span.name.clone()).collect()
    };
    let receipts: Vec<&Span> = spans.iter().filter(|span| span.name == "receipt").collect();
    assert_eq!(receipts.len() as u64, recipients, "everybody is followed");
    for receipt in receipts {
        assert_eq!(ancestry(receipt), ["receipt", "submit.message", "submit", "lane.window", "batch.dispatch", "batch.create"]);
        let message = parent(receipt).expect("a message");
        let window = parent(message).and_then(parent).expect("a window");
        // A window takes from several packs: they are linked, and the message's own is among them.
        let pack = by_id[message.links[0].span_id.as_slice()];
        assert_eq!(ancestry(pack), ["pack.put", "range.prepare", "batch.create"]);
        assert!(window.links.iter().any(|link| link.span_id == pack.span_id));
    }
    assert_eq!(spans.iter().filter(|span| span.name == "batch.create").count(), 1);
    assert!(spans.iter().any(|span| ancestry(span) == ["batch.plan", "batch.create"]));
}

/// Checks that lines of the log name spans that the collector knows.
#[track_caller]
pub fn log_has_the_same_ids(spans: &[Span], batch: &str, log: &str) {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).filter(Value::is_object);
    let told: Vec<Value> = lines.filter(|line| line.get("trace_id").is_some()).collect();
    for what in ["a batch was created", "a range was prepared", "a window has ended", "a receipt of a message that is followed"] {
        let line = told.iter().find(|line| line["message"] == what).unwrap_or_else(|| panic!("{what} is not in {log}"));
        assert_eq!(line["trace_id"], batch);
        let span = line["span_id"].as_str().expect("an id");
        assert!(spans.iter().any(|known| hex(&known.span_id) == span), "{what}: {span}");
    }
}

#[test]
fn one_message_is_followed_from_its_creation_to_its_receipt() {
    let (provider, collector) = (Provider::start(), Collector::start());
    let place = place(&provider, &format!("http://127.0.0.1:{}", collector.port));
    let said = send(&place).ended(0);
    assert_eq!(provider.messages(), RECIPIENTS);
    let batch = said.json()["batch"]["batch_id"].as_str().expect("an id").to_owned();

    let spans = collector.spans();
    chain_is_whole(&spans, &batch, RECIPIENTS);
    log_has_the_same_ids(&spans, &batch, &said.err);

    // Neither numbers nor texts are in it.
    let words = (0..RECIPIENTS).map(|row| number(row).to_string()[2..].to_owned());
    for secret in words.chain(["Sesame".into(), "name 1".into()]) {
        assert!(!said.err.contains(&secret), "{secret} is in the log");
        for body in collector.bodies() {
            assert!(memchr::memmem::find(&body, secret.as_bytes()).is_none(), "{secret} is in a span");
        }
    }
}

#[test]
fn a_collector_that_is_away_neither_slows_nor_fills_the_log() {
    let provider = Provider::start();
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let place = place(&provider, &format!("http://127.0.0.1:{free}"));
    let began = Instant::now();
    let said = send(&place).ended(0);
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    assert_eq!(provider.messages(), RECIPIENTS);
    let about: Vec<&str> =
        said.err.lines().filter(|line| line.contains("trace.endpoint") || line.contains("opentelemetry")).collect();
    assert_eq!(about.len(), 1, "it is said once: {about:#?}");
}

#[test]
fn nothing_is_followed_unless_it_is_asked_for() {
    let provider = Provider::start();
    let place = Place::new(provider.port(), 1_000);
    let before = std::fs::read_to_string(place.path("smsfleet.toml")).expect("a configuration");
    place.write("smsfleet.toml", format!("{before}[log]\nlevel = \"info\"\nformat = \"json\"\n"));
    place.write("list.csv", list(RECIPIENTS));
    let said = send(&place).ended(0);
    let lines = lines(&said);
    assert!(lines.iter().any(|line| line["message"] == "a batch was created"), "it logs: {}", said.err);
    assert!(lines.iter().all(|line| line.get("trace_id").is_none() && line.get("span_id").is_none()));
}
