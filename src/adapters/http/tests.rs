//! Requests against a scripted server on loopback.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::config::{AnswerConfig, IdempotencyConfig, InboundConfig, ReceiptConfig};
use super::{HttpAccount, HttpConfig};
use crate::adapters::secret::Secret;
use crate::adapters::system::SeededChance;
use crate::model::account::{Account, Capabilities, LongMessage, ReceiptRules};
use crate::model::answer::{Answer, NotNow};
use crate::model::code::Code;
use crate::model::id::Msisdn;
use crate::model::time::Timestamp;
use crate::model::window::Answered;
use crate::ports::clock::Clock;
use crate::ports::provider::{Chunk, Provider, Submit};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct HandClock(AtomicU64);

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp(7)
    }

    fn boot(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }

    fn minute_of_day(&self, _: &str, _: Timestamp) -> Option<u16> {
        None
    }
}

pub(super) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens in time")
}

pub(super) fn account() -> Account {
    Account {
        name: "test".into(),
        provider_type: "http".into(),
        rate: None,
        capabilities: Capabilities { long_message: LongMessage::Payload, ..Capabilities::default() },
        receipts: ReceiptRules::default(),
        price: None,
        currency: String::new(),
        hours: None,
        answer_timeout: Duration::from_millis(300),
        sender: String::new(),
        opt_out: Default::default(),
    }
}

fn config(port: u16) -> HttpConfig {
    HttpConfig {
        url: format!("http://127.0.0.1:{port}/send/{{{{batch}}}}"),
        headers: [("authorization".to_owned(), Secret::new("Bearer {{secret}}"))].into(),
        secret: Secret::new("geheim"),
        sender: "1069".into(),
        concurrency: 1,
        answer: AnswerConfig { id: Some("/id".into()), error: Some("/code".into()), ..AnswerConfig::default() },
        retry_min: Duration::from_millis(5),
        retry_max: Duration::from_millis(10),
        ..HttpConfig::default()
    }
}

pub(super) struct Rig {
    listener: TcpListener,
    account: Arc<HttpAccount>,
    clock: Arc<HandClock>,
}

async fn rig(change: impl FnOnce(&mut HttpConfig)) -> Rig {
    rig_of(account(), change).await
}

pub(super) async fn rig_of(account: Account, change: impl FnOnce(&mut HttpConfig)) -> Rig {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of our own");
    let mut config = config(listener.local_addr().expect("it is bound").port());
    change(&mut config);
    let clock = Arc::new(HandClock::default());
    let chance = Arc::new(SeededChance::from_seed(1));
    let account = HttpAccount::start(account, config, clock.clone(), chance).expect("its configuration is valid");
    Rig { listener, account, clock }
}

fn idempotent(config: &mut HttpConfig) {
    config.idempotency = Some(IdempotencyConfig { header: "Idempotency-Key".into(), lifetime: Duration::from_secs(5) });
}

fn message(seq: u32) -> Submit {
    let number = Msisdn(4_915_100_000_000 + u64::from(seq));
    let key = format!("b1-0-{seq}");
    Submit { seq, number, ext_code: "7".into(), text: "say \"hi\"".into(), parts: 0, reference: 0, key }
}

type Given = mpsc::UnboundedReceiver<Vec<Answered>>;

fn chunk(seqs: std::ops::Range<u32>) -> (Chunk, Given) {
    let (answers, given) = mpsc::unbounded_channel();
    let messages = seqs.map(message).collect();
    (Chunk { messages, send_by: Duration::from_secs(10), stop: CancellationToken::new(), answers }, given)
}

pub(super) async fn all_answers(mut given: Given) -> Vec<Answer> {
    let mut all = BTreeMap::new();
    while let Some(answers) = within(given.recv()).await {
        for answered in answers {
            assert_eq!(all.insert(answered.seq, answered.answer), None, "{} is answered twice", answered.seq);
        }
    }
    all.into_values().collect()
}

/// A request as it came: its head in lower case, and its body.
pub(super) struct Came {
    head: String,
    body: Value,
    pub(super) stream: TcpStream,
}

impl Rig {
    pub(super) async fn request(&self) -> Came {
        let (stream, _) = within(self.listener.accept()).await.expect("it connects");
        read(stream).await
    }

    pub(super) async fn submit(&self, seqs: std::ops::Range<u32>) -> Given {
        let (chunk, given) = chunk(seqs);
        self.account.submit(chunk).await.expect("it is open");
        given
    }
}

async fn read(mut stream: TcpStream) -> Came {
    let mut octets = Vec::new();
    loop {
        if let Some(end) = octets.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&octets[..end]).to_lowercase();
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().expect("a number"));
            if octets.len() >= end + 4 + length {
                return Came { body: serde_json::from_slice(&octets[end + 4..]).unwrap_or(Value::Null), head, stream };
            }
        }
        assert_ne!(within(stream.read_buf(&mut octets)).await.expect("it can be read"), 0, "all of the request comes");
    }
}

impl Came {
    async fn answer(mut self, status: u16, headers: &str, body: &Value) {
        let body = body.to_string();
        let answer = format!("HTTP/1.1 {status} x\r\n{headers}connection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        self.stream.write_all(answer.as_bytes()).await.expect("it is read");
    }

    fn key(&self) -> &str {
        self.head.lines().find_map(|line| line.strip_prefix("idempotency-key: ")).unwrap_or_default()
    }
}

fn accepted(id: &str) -> Answer {
    Answer::Accepted { id: id.into() }
}

#[tokio::test]
async fn a_message_becomes_a_request_and_its_answer_an_id() {
    let rig = rig(|_| {}).await;
    let given = rig.submit(0..1).await;
    let came = rig.request().await;
    assert!(came.head.starts_with("post /send/b1 http/1.1"), "{}", came.head);
    assert!(came.head.contains("authorization: bearer geheim") && came.head.contains("content-type: application/json"));
    assert_eq!(came.body, json!({"from": "10697", "to": "4915100000000", "text": "say \"hi\""}));
    came.answer(201, "", &json!({"id": 12})).await;
    assert_eq!(all_answers(given).await, [accepted("12")]);
    assert!(rig.account.health().up);
}

#[tokio::test]
async fn statuses_mean_what_the_table_says() {
    let rig = rig(|_| {}).await;
    let not_now = |kind, detail: &str| Answer::NotNow { kind, detail: detail.into() };
    let cases = [
        (429, "", not_now(NotNow::Throttled, "HTTP 429")),
        (503, "retry-after: 3\r\n", not_now(NotNow::Throttled, "HTTP 503")),
        (503, "", Answer::NoAnswer),
        (500, "", Answer::NoAnswer),
        (307, "location: /elsewhere\r\n", Answer::NoAnswer),
        (403, "", not_now(NotNow::Session, "HTTP 403")),
        (404, "", Answer::Failed { code: Code::ProviderRefused, detail: "HTTP 404".into() }),
    ];
    for (status, headers, expected) in cases {
        let given = rig.submit(0..1).await;
        rig.request().await.answer(status, headers, &Value::Null).await;
        assert_eq!(all_answers(given).await, [expected], "{status} {headers}");
    }
    assert_eq!(rig.account.health().last_error.map(|(code, _)| code), Some(Code::ProviderLogin));
}

#[tokio::test]
async fn silence_and_cuts_are_uncertain_without_a_key() {
    let rig = rig(|_| {}).await;
    let given = rig.submit(0..1).await;
    let silent = rig.request().await;
    assert_eq!(all_answers(given).await, [Answer::NoAnswer]);
    drop(silent);
    let given = rig.submit(1..2).await;
    drop(rig.request().await);
    assert_eq!(all_answers(given).await, [Answer::NoAnswer]);
}

#[tokio::test]
async fn with_a_key_the_doubt_is_cleared_by_the_same_request() {
    let rig = rig(idempotent).await;
    let given = rig.submit(0..1).await;
    drop(rig.request().await);
    rig.request().await.answer(500, "", &Value::Null).await;
    // "Not now" is said of the repeat: the first may have arrived all the same.
    rig.request().await.answer(429, "", &Value::Null).await;
    let came = rig.request().await;
    assert_eq!(came.key(), "b1-0-0");
    came.answer(200, "", &json!({"id": "x"})).await;
    assert_eq!(all_answers(given).await, [accepted("x")]);
}

#[tokio::test]
async fn repeats_end_with_their_number_and_with_the_time() {
    let rig = rig(idempotent).await;
    let given = rig.submit(0..1).await;
    for _ in 0..5 {
        rig.request().await.answer(500, "", &Value::Null).await;
    }
    assert_eq!(all_answers(given).await, [Answer::NoAnswer]);
    let given = rig.submit(1..2).await;
    let came = rig.request().await;
    rig.clock.0.store(11, Ordering::SeqCst);
    came.answer(500, "", &Value::Null).await;
    assert_eq!(all_answers(given).await, [Answer::NoAnswer], "nothing is repeated after its time");
}

#[tokio::test]
async fn without_a_connection_messages_wait_until_their_time_is_over() {
    let rig = rig(|_| {}).await;
    let port = rig.listener.local_addr().expect("it is bound").port();
    let Rig { listener, account, clock } = rig;
    drop(listener);
    let (first, given) = chunk(0..1);
    account.submit(first).await.expect("it is open");
    while account.health().up {
        tokio::task::yield_now().await;
    }
    assert_eq!(account.health().last_error.map(|(code, _)| code), Some(Code::ProviderDown));
    let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is still free");
    let rig = Rig { listener, account, clock };
    rig.request().await.answer(200, "", &json!({"id": "x"})).await;
    assert_eq!(all_answers(given).await, [accepted("x")]);
    let Rig { listener, account, clock } = rig;
    drop(listener);
    let (second, given) = chunk(1..2);
    account.submit(second).await.expect("it is open");
    clock.0.store(11, Ordering::SeqCst);
    assert_eq!(all_answers(given).await, [Answer::NotSent]);
}

#[tokio::test]
async fn an_account_that_could_not_be_reached_is_tried_again_when_nothing_waits_for_it_any_more() {
    let Rig { listener, account, clock } = rig(|config| config.concurrency = 2).await;
    let port = listener.local_addr().expect("it is bound").port();
    drop(listener);
    let (first, given) = chunk(0..1);
    account.submit(first).await.expect("it is open");
    while account.health().up {
        tokio::task::yield_now().await;
    }
    clock.0.store(11, Ordering::SeqCst);
    assert_eq!(all_answers(given).await, [Answer::NotSent]);
    // Nobody declares for an account that is not up, so it has to come up by itself.
    within(async {
        while !account.health().up {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let rig = Rig { listener: TcpListener::bind(("127.0.0.1", port)).await.expect("the port is still free"), account, clock };
    let (mut second, given) = chunk(1..2);
    second.send_by = Duration::from_secs(21);
    rig.account.submit(second).await.expect("it is open");
    rig.request().await.answer(200, "", &json!({"id": "x"})).await;
    assert_eq!(all_answers(given).await, [accepted("x")]);
}

#[tokio::test]
async fn several_messages_share_a_request() {
    let rig = rig(|config| {
        idempotent(config);
        config.batch = 3;
        config.body = r#"{"messages":[{{items}}]}"#.into();
        config.item = r#"{"to":"{{number}}","ref":"{{key}}"}"#.into();
        config.answer.items = Some("/results".into());
        config.answer.item_of = Some("/ref".into());
    })
    .await;
    let given = rig.submit(0..4).await;
    let came = rig.request().await;
    assert_eq!(came.body["messages"].as_array().map(Vec::len), Some(3));
    assert_eq!(came.body["messages"][2], json!({"to": "4915100000002", "ref": "b1-0-2"}));
    assert!(came.key().starts_with("b1-0-0+") && came.key().len() > 20, "{}", came.key());
    let results = json!([{"ref": "b1-0-2", "id": "c"}, {"ref": "b1-0-0", "id": "a"}]);
    came.answer(200, "", &json!({ "results": results })).await;
    let came = rig.request().await;
    assert_eq!(came.key(), "b1-0-3");
    came.answer(200, "", &json!({"results": [{"ref": "b1-0-3", "code": "BAD"}]})).await;
    let bad = Answer::Failed { code: Code::ProviderRefused, detail: "HTTP 200 BAD".into() };
    assert_eq!(all_answers(given).await, [accepted("a"), Answer::NoAnswer, accepted("c"), bad]);
}

#[tokio::test]
async fn two_messages_to_one_number_never_share_a_request() {
    let rig = rig(|config| {
        config.batch = 3;
        config.body = r#"{"messages":[{{items}}]}"#.into();
        config.item = r#"{"to":"{{number}}","ref":"{{key}}"}"#.into();
        config.answer.items = Some("/results".into());
        config.answer.item_of = Some("/to".into());
    })
    .await;
    // Two batches name the same person at the same time, and the provider refuses the text of one.
    let first = rig.submit(0..2).await;
    let (mut other, second) = chunk(0..1);
    other.messages[0].key = "b2-0-0".into();
    rig.account.submit(other).await.expect("it is open");
    let came = rig.request().await;
    let messages = json!([{"to": "4915100000000", "ref": "b1-0-0"}, {"to": "4915100000001", "ref": "b1-0-1"}]);
    assert_eq!(came.body["messages"], messages);
    let results = json!([{"to": "4915100000000", "code": "BAD"}, {"to": "4915100000001", "id": "b"}]);
    came.answer(200, "", &json!({ "results": results })).await;
    let came = rig.request().await;
    assert_eq!(came.body["messages"], json!([{"to": "4915100000000", "ref": "b2-0-0"}]));
    came.answer(200, "", &json!({"results": [{"to": "4915100000000", "id": "c"}]})).await;
    let bad = Answer::Failed { code: Code::ProviderRefused, detail: "HTTP 200 BAD".into() };
    assert_eq!(all_answers(first).await, [bad, accepted("b")]);
    assert_eq!(all_answers(second).await, [accepted("c")]);
    assert_eq!(rig.account.health().outstanding, 0);
}

/// A provider whose address takes connections and says nothing: there is no TLS, and so no byte of a message was handed over.
fn behind_a_wall(config: &mut HttpConfig) {
    config.url = config.url.replace("http://", "https://");
}

#[tokio::test]
async fn who_was_never_connected_was_sent_nothing_however_long_connecting_may_take() {
    let rig = rig(behind_a_wall).await;
    let given = rig.submit(0..1).await;
    within(async {
        while rig.account.health().up {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(rig.account.health().last_error.map(|(code, _)| code), Some(Code::ProviderDown));
    rig.clock.0.store(11, Ordering::SeqCst);
    assert_eq!(all_answers(given).await, [Answer::NotSent]);
}

#[tokio::test]
async fn nothing_waits_for_a_connection_beyond_the_time_of_its_messages() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of our own");
    let mut config = config(listener.local_addr().expect("it is bound").port());
    behind_a_wall(&mut config);
    let account = Account { answer_timeout: 10 * PATIENCE, ..account() };
    config.connect_timeout = 5 * PATIENCE;
    let (clock, chance) = (Arc::<HandClock>::default(), Arc::new(SeededChance::from_seed(1)));
    let account = HttpAccount::start(account, config, clock.clone(), chance).expect("its configuration is valid");
    let (mut chunk, given) = chunk(0..1);
    chunk.send_by = Duration::from_millis(200);
    account.submit(chunk).await.expect("it is open");
    within(async {
        while account.health().up {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    clock.0.store(1, Ordering::SeqCst);
    assert_eq!(all_answers(given).await, [Answer::NotSent]);
}

#[tokio::test]
async fn closing_leaves_nothing_unanswered() {
    let rig = rig(|_| {}).await;
    let given = rig.submit(0..3).await;
    let silent = rig.request().await;
    rig.account.close(Duration::from_millis(20)).await;
    assert_eq!(all_answers(given).await, [Answer::NoAnswer, Answer::NotSent, Answer::NotSent]);
    drop(silent);
    assert!(rig.account.submit(chunk(0..1).0).await.is_err(), "it is closed");
    assert_eq!(rig.account.health().outstanding, 0);
}

#[tokio::test]
async fn a_changed_secret_is_in_the_next_request_and_a_changed_token_is_what_the_next_push_must_know() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        Secret::of_file(path, format!("{name}_file"), text.to_owned())
    };
    let rig = rig(|config| {
        config.secret = file("secret", "first");
        config.receipts = Some(ReceiptConfig { token: file("token", "t0k"), ..ReceiptConfig::default() });
        config.inbound = Some(InboundConfig { token: file("inbound", "t1k"), ..InboundConfig::default() });
    })
    .await;
    let tokens =
        |rig: &Rig| [rig.account.receipts_token(), rig.account.inbound_token()].map(|token| token.map(|t| t.expose().to_owned()));
    for (secret, receipts, inbound) in [("first", "t0k", "t1k"), ("the second", "t0k-new", "t1k-new")] {
        for (name, text) in [("secret", secret), ("token", receipts), ("inbound", inbound)] {
            file(name, text);
        }
        let given = rig.submit(0..1).await;
        let came = rig.request().await;
        assert!(came.head.contains(&format!("authorization: bearer {secret}")), "{}", came.head);
        came.answer(200, "", &json!({"id": "x"})).await;
        assert_eq!(all_answers(given).await, [accepted("x")]);
        assert_eq!(tokens(&rig), [Some(receipts.to_owned()), Some(inbound.to_owned())]);
    }
}

#[tokio::test]
async fn receipts_are_read_as_configured() {
    let rig = rig(|config| {
        config.receipts = Some(ReceiptConfig { token: Secret::new("t0k"), ..ReceiptConfig::default() });
    })
    .await;
    assert_eq!(rig.account.receipts_token().expect("it takes receipts").expose(), "t0k");
    assert_eq!(rig.account.receipt_reply(), ("application/json", r#"{"code":0}"#));
    let reports = rig.account.parse_receipts(br#"{"id":"x","status":"DELIVRD"}"#, "application/json").expect("it is one");
    assert_eq!((reports[0].message_id.as_str(), reports[0].received), ("x", Timestamp(7)));
}

#[tokio::test]
async fn mistakes_are_found_before_anything_is_sent() {
    let bad: [fn(&mut HttpConfig, &mut Account); 9] = [
        |c, _| c.url = "ftp://x".into(),
        |c, _| c.batch = 0,
        |c, _| c.batch = 2,
        |c, _| c.body = "{{items}}".into(),
        |c, _| c.body = "{{nobody}}".into(),
        |c, _| c.answer.id = Some("id".into()),
        |c, _| _ = c.headers.insert("not a name".into(), Secret::default()),
        |c, _| c.receipts = Some(ReceiptConfig::default()),
        |_, a| a.capabilities.long_message = LongMessage::Udh8,
    ];
    for (at, change) in bad.iter().enumerate() {
        let (mut config, mut account) = (config(1), account());
        change(&mut config, &mut account);
        let started = HttpAccount::start(account, config, Arc::<HandClock>::default(), Arc::new(SeededChance::from_seed(1)));
        assert_eq!(started.err().map(|fault| fault.code), Some(Code::ConfigInvalid), "case {at}");
    }
    let config: HttpConfig = toml::from_str("url='https://x'\n[headers]\nx-key='geheim'").expect("it is valid");
    assert!(!format!("{config:?}{}", toml::to_string(&config).expect("it is written")).contains("geheim"));
}
