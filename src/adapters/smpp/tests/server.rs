//! An SMSC for tests: every step is written by the test.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use rusmpp::decode::DecodeWithLength;
use rusmpp::pdus::SubmitSm;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::adapters::smpp::lenient::{Frame, next_frame};
use crate::adapters::smpp::{SmppAccount, SmppConfig};
use crate::adapters::system::{SeededChance, minute_of_day};
use crate::model::account::{Account, Capabilities, ReceiptRules};
use crate::model::answer::Answer;
use crate::model::id::Msisdn;
use crate::model::time::Timestamp;
use crate::model::window::Answered;
use crate::ports::clock::Clock;
use crate::ports::provider::{Chunk, Reports, Submit};

/// No test waits longer.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A boot clock that tests move.
#[derive(Default)]
pub struct HandClock(pub AtomicU64);

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp(1_000)
    }

    fn boot(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }

    fn minute_of_day(&self, zone: &str, at: Timestamp) -> Option<u16> {
        minute_of_day(zone, at)
    }
}

pub struct Rig {
    pub listener: TcpListener,
    pub account: Arc<SmppAccount>,
    pub reports: mpsc::Receiver<Reports>,
    pub clock: Arc<HandClock>,
}

/// An account that talks to a server of the test's own.
pub async fn rig(change: impl FnOnce(&mut SmppConfig, &mut Account)) -> Rig {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of our own");
    let mut config = SmppConfig {
        port: listener.local_addr().expect("it is bound").port(),
        system_id: "fleet".into(),
        source_addr: "12345".into(),
        reconnect_min: Duration::from_millis(5),
        reconnect_max: Duration::from_millis(20),
        ..SmppConfig::default()
    };
    let mut account = account();
    change(&mut config, &mut account);
    let (sink, reports) = mpsc::channel(1);
    let clock = Arc::new(HandClock::default());
    let chance = Arc::new(SeededChance::from_seed(1));
    let account = SmppAccount::start(account, config, sink, clock.clone(), chance).expect("its configuration is valid");
    Rig { listener, account, reports, clock }
}

pub fn account() -> Account {
    Account {
        name: "test".into(),
        provider_type: "smpp".into(),
        rate: None,
        capabilities: Capabilities::default(),
        receipts: ReceiptRules::default(),
        price: None,
        currency: String::new(),
        hours: None,
        answer_timeout: PATIENCE,
        sender: String::new(),
        opt_out: Default::default(),
    }
}

pub fn message(seq: u32, text: &str) -> Submit {
    Submit {
        seq,
        number: Msisdn(4_915_100_000_000 + u64::from(seq)),
        ext_code: String::new(),
        text: text.into(),
        parts: 0,
        reference: 0x1234,
        key: format!("key-{seq}"),
    }
}

/// A chunk of one-part messages, in time until the hand clock says 11.
pub fn chunk(seqs: impl IntoIterator<Item = u32>) -> (Chunk, mpsc::UnboundedReceiver<Vec<Answered>>) {
    chunk_of(seqs.into_iter().map(|seq| message(seq, "hello")).collect())
}

pub fn chunk_of(messages: Vec<Submit>) -> (Chunk, mpsc::UnboundedReceiver<Vec<Answered>>) {
    let (answers, given) = mpsc::unbounded_channel();
    (Chunk { messages, send_by: Duration::from_secs(10), stop: CancellationToken::new(), answers }, given)
}

/// All answers of a chunk, by recipient and part; fails when a part is answered twice, or when the account keeps the chunk.
pub async fn all_answers(mut given: mpsc::UnboundedReceiver<Vec<Answered>>) -> BTreeMap<(u32, u8), Answer> {
    let mut all = BTreeMap::new();
    while let Some(answers) = within(given.recv()).await {
        for answered in answers {
            let earlier = all.insert((answered.seq, answered.part), answered.answer);
            assert_eq!(earlier, None, "{}/{} is answered twice", answered.seq, answered.part);
        }
    }
    all
}

pub fn accepted(id: &str) -> Answer {
    Answer::Accepted { id: id.into() }
}

pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens in time")
}

impl Rig {
    /// The next connection, bound.
    pub async fn bound(&self) -> Peer {
        let mut peer = self.connected().await;
        let bind = peer.next().await.expect("a bind comes first");
        assert!(matches!(bind.command, 1 | 2 | 9), "a bind comes first");
        peer.send(bind.command | 0x8000_0000, 0, bind.sequence, b"smsc\0").await;
        peer
    }

    pub async fn connected(&self) -> Peer {
        let (stream, _) = within(self.listener.accept()).await.expect("it connects");
        Peer { stream, input: BytesMut::new() }
    }
}

/// The SMSC's end of a session.
pub struct Peer {
    pub stream: TcpStream,
    input: BytesMut,
}

impl Peer {
    /// The next PDU; `None` at the end.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = next_frame(&mut self.input, 1 << 20).expect("our own PDUs have good lengths") {
                return Some(frame);
            }
            match within(self.stream.read_buf(&mut self.input)).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The next PDU is a submit, by the word of the strict codec.
    pub async fn submit(&mut self) -> (u32, SubmitSm) {
        let mut frame = self.next().await.expect("a submit comes");
        assert_eq!(frame.command, 4, "a submit comes");
        let length = frame.body.len();
        let (submit, read) = SubmitSm::decode(&mut frame.body, length).expect("it can be decoded");
        assert_eq!(read, length);
        (frame.sequence, submit)
    }

    pub async fn send(&mut self, command: u32, status: u32, sequence: u32, body: &[u8]) {
        let mut pdu = BytesMut::new();
        pdu.put_u32(16 + body.len() as u32);
        pdu.put_u32(command);
        pdu.put_u32(status);
        pdu.put_u32(sequence);
        pdu.put_slice(body);
        self.stream.write_all(&pdu).await.expect("the client reads");
    }

    /// Takes a submit.
    pub async fn take(&mut self, sequence: u32, id: &str) {
        self.send(0x8000_0004, 0, sequence, format!("{id}\0").as_bytes()).await;
    }
}
