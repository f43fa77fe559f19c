//! What HTTP providers answer, and what they push.

use std::collections::BTreeMap;
use std::sync::Arc;

use smsfleet::adapters::http::answer::{Reply, answers as answers_of};
use smsfleet::adapters::http::config::{AnswerConfig, InboundConfig, ReceiptConfig, Success};
use smsfleet::adapters::http::{HttpAccount, HttpConfig};
use smsfleet::adapters::rows::window::{read, write};
use smsfleet::adapters::secret::Secret;
use smsfleet::adapters::system::{SeededChance, SystemClock};
use smsfleet::adapters::vendor::VendorClass;
use smsfleet::model::account::{Account, Capabilities, LongMessage};
use smsfleet::model::answer::Answer;
use smsfleet::model::code::{Code, Fault};
use smsfleet::model::id::{Msisdn, WorkerId};
use smsfleet::model::ledger::OpenWindow;
use smsfleet::model::limits::MESSAGE_ID_MAX;
use smsfleet::model::time::Timestamp;
use smsfleet::model::window::{Answered, WindowRow};
use smsfleet::ports::provider::Submit;

use super::input::Input;
use super::is_reason;
use super::session;

/// An octet that chooses how the account reads answers, two octets of status, then the body.
pub fn answers(input: &[u8]) -> bool {
    let mut input = Input(input);
    let (choice, status) = (input.byte(), u16::from(input.byte()) << 8 | u16::from(input.byte()));
    let reply = Reply::read(status, choice & 8 > 0, input.0);
    let messages: Vec<Submit> = (0..3).map(message).collect();
    let answers = answers_of(&answer_config(choice), &reply, &messages.iter().collect::<Vec<_>>());
    assert_eq!(answers.len(), messages.len(), "an answer for each message");
    for answer in &answers {
        match answer {
            Answer::Accepted { id } => {
                assert!(id.chars().count() <= MESSAGE_ID_MAX);
                assert!((200..300).contains(&status), "nothing is taken with status {status}");
            }
            Answer::Failed { code, detail } => {
                assert_eq!(*code, Code::ProviderRefused);
                assert!(detail.chars().count() <= MESSAGE_ID_MAX + 16 && !detail.is_empty());
            }
            Answer::NotNow { detail, .. } => assert!(detail.chars().count() <= MESSAGE_ID_MAX + 16 && !detail.is_empty()),
            Answer::NoAnswer => {}
            Answer::NotSent | Answer::Suppressed | Answer::Expired => panic!("a provider cannot say {answer:?}"),
        }
    }
    let is_clear = answers.iter().any(|answer| *answer != Answer::NoAnswer);
    let row = WindowRow { window: window(), answers: answered(answers), complete: true };
    assert_eq!(read(&write(&row)), Ok(row), "what was answered is kept as it was said");
    is_clear
}

/// An octet that chooses receipts or messages of people, and JSON or a form; then the body.
pub fn pushes(input: &[u8]) -> bool {
    let mut input = Input(input);
    let (choice, body) = (input.byte(), input.0);
    let kind = if choice & 1 == 0 { "application/json" } else { "application/x-www-form-urlencoded" };
    let refused = |fault: Fault| {
        assert_eq!(fault.code, Code::InputInvalid);
        assert!(is_reason(&fault.context), "{fault:?}");
    };
    PUSHED.with(|pushed| {
        let account = &pushed.accounts[usize::from(choice >> 1 & 1)];
        if choice & 4 == 0 {
            let reports = account.parse_receipts(body, kind).map_err(refused).unwrap_or_default();
            assert!(reports.len() <= body.len());
            assert!(reports.iter().all(|report| report.message_id.chars().count() <= MESSAGE_ID_MAX));
            // JSON writes an octet in six at most.
            assert!(reports.iter().map(|report| report.raw.len()).sum::<usize>() <= 8 * body.len() + 64);
            !reports.is_empty()
        } else {
            let messages = account.parse_inbound(body, kind).map_err(refused).unwrap_or_default();
            assert!(messages.len() <= body.len());
            for message in &messages {
                assert!(message.id.chars().count() <= MESSAGE_ID_MAX && message.from.chars().count() <= 64);
                assert!(message.text.chars().count() <= 10_000 && !message.from.is_empty());
            }
            !messages.is_empty()
        }
    })
}

fn answer_config(choice: u8) -> AnswerConfig {
    let place = |name: &str| Some(name.to_owned());
    let success = Success { pointer: "/code".into(), equals: "OK".into() };
    AnswerConfig {
        items: place("/m").filter(|_| choice & 1 > 0),
        item_of: place("/to").filter(|_| choice & 2 > 0),
        id: place("/id"),
        error: place("/code"),
        success: Some(success).filter(|_| choice & 4 > 0),
        codes: BTreeMap::from([("BUSY".to_owned(), VendorClass::Throttled), ("503".to_owned(), VendorClass::QueueFull)]),
    }
}

fn message(seq: u32) -> Submit {
    Submit {
        seq,
        number: Msisdn(4_400 + u64::from(seq)),
        ext_code: String::new(),
        text: "t".into(),
        parts: 0,
        reference: 0,
        key: format!("k-{seq}"),
    }
}

fn answered(answers: Vec<Answer>) -> Vec<Answered> {
    let answered = |(seq, answer)| Answered { seq: seq as u32, part: 0, parts: 1, answer };
    answers.into_iter().enumerate().map(answered).collect()
}

fn window() -> OpenWindow {
    OpenWindow {
        window: 3,
        leg: 0,
        from: 0,
        to: 3,
        account: "a".into(),
        declarer: WorkerId(6),
        declared_at: Timestamp(1),
        send_by: Timestamp(2),
    }
}

thread_local! {
    static PUSHED: Pushed = Pushed::new();
}

/// Accounts that are pushed to, and what keeps them alive.
struct Pushed {
    accounts: [Arc<HttpAccount>; 2],
    _runtime: tokio::runtime::Runtime,
}

impl Pushed {
    fn new() -> Pushed {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let inside = runtime.enter();
        let place = |name: &str| Some(name.to_owned());
        let plain = ReceiptConfig { token: Secret::new("t"), ..ReceiptConfig::default() };
        let full = ReceiptConfig {
            items: "/reports".into(),
            reference: place("/ref"),
            number: place("/to"),
            done: place("/at"),
            error: place("/err"),
            statuses: [("sent".into(), "ACCEPTD".into()), ("bounced".into(), "UNDELIV".into())].into(),
            ..plain.clone()
        };
        let accounts = [plain, full].map(|receipts| {
            let inbound = InboundConfig { token: Secret::new("t"), items: receipts.items.clone(), ..InboundConfig::default() };
            let url = "http://127.0.0.1:9/".to_owned();
            let config =
                HttpConfig { url, concurrency: 1, receipts: Some(receipts), inbound: Some(inbound), ..HttpConfig::default() };
            let capabilities = Capabilities { long_message: LongMessage::Payload, ..Capabilities::default() };
            let account = Account { capabilities, ..session::account() };
            HttpAccount::start(account, config, Arc::new(SystemClock), Arc::new(SeededChance::from_seed(1)))
                .expect("its configuration is valid")
        });
        drop(inside);
        Pushed { accounts, _runtime: runtime }
    }
}
