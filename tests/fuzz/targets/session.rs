//! A whole session with a hostile SMSC: it takes the bind, says these octets whatever it is sent, and hangs up. Where the first
//! octet has its highest bit set, as the length of no PDU has, it says what is behind that octet again and again and reads nothing.
//!
//! The promise is the port's: everything submitted is answered once for each part, whatever is said, and closing ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use smsfleet::adapters::smpp::{SmppAccount, SmppConfig};
use smsfleet::adapters::system::{SeededChance, SystemClock};
use smsfleet::model::account::{Account, Capabilities, ReceiptRules};
use smsfleet::model::answer::Answer;
use smsfleet::model::id::Msisdn;
use smsfleet::model::limits::MESSAGE_ID_MAX;
use smsfleet::ports::clock::Clock;
use smsfleet::ports::provider::{Chunk, Provider, Reports, Submit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Messages that are submitted: their submits have the sequence numbers 2, 3 and 4.
const MESSAGES: u32 = 3;
/// The bit of a first octet that makes it a flood.
const FLOOD: u8 = 0x80;
/// Octets of a flood at most: twice what a session lets wait to be written.
const FLOOD_OCTETS: usize = 2 << 20;
/// What an SMSC that floods keeps unread, so that the session has to keep the rest or stop reading.
const UNREAD: u32 = 4_096;
/// How long a flood that reads nothing is put up with, twice: silence, then the answer to a question.
const FLOOD_PATIENCE: Duration = Duration::from_millis(100);
/// No run waits longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the SMSC says once it was sent something.
pub fn session(input: &[u8]) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, talk(input)).await.expect("a session ends in time") })
}

async fn talk(input: &[u8]) -> bool {
    let flood = input.first().is_some_and(|octet| octet & FLOOD != 0);
    let listener = listener(flood).expect("a port of our own");
    let mut config = SmppConfig {
        port: listener.local_addr().expect("it is bound").port(),
        system_id: "fleet".into(),
        source_addr: "12345".into(),
        // Whoever was hung up on comes back long after this run.
        reconnect_min: PATIENCE,
        reconnect_max: PATIENCE,
        ..SmppConfig::default()
    };
    let mut account = account();
    if flood {
        (config.enquire_link, account.answer_timeout) = (FLOOD_PATIENCE, FLOOD_PATIENCE);
    }
    let (sink, mut reports) = mpsc::channel::<Reports>(1);
    let account = SmppAccount::start(account, config, sink, Arc::new(SystemClock), Arc::new(SeededChance::from_seed(1)))
        .expect("its configuration is valid");
    let (answers, mut given) = mpsc::unbounded_channel();
    let messages = (0..MESSAGES).map(message).collect();
    let send_by = SystemClock.boot() + Duration::from_secs(10);
    let chunk = Chunk { messages, send_by, stop: CancellationToken::new(), answers };
    account.submit(chunk).await.expect("the account is open");
    let store = async {
        while let Some(reports) = reports.recv().await {
            assert!(reports.reports.iter().all(|report| report.message_id.chars().count() <= MESSAGE_ID_MAX));
            let _ = reports.ack.send(true);
        }
    };
    let smsc = async {
        let (mut peer, _) = listener.accept().await.expect("the account connects");
        let mut bind = [0; 256];
        let read = peer.read(&mut bind).await.expect("a bind");
        assert!(read >= 16, "a bind comes in one piece on loopback");
        let taken = [&[0, 0, 0, 17, 0x80, 0, 0, 9, 0, 0, 0, 0], &bind[12..16], b"\0"].concat();
        peer.write_all(&taken).await.expect("the bind is taken");
        let mut submits = [0; 4_096];
        let _ = peer.read(&mut submits).await;
        // It may have been hung up on.
        if flood && input.len() > 1 {
            let said = &input[1..];
            let said = said.repeat(UNREAD as usize / said.len() + 1);
            for _ in 0..FLOOD_OCTETS / said.len() {
                if peer.write_all(&said).await.is_err() {
                    break;
                }
            }
        } else {
            let _ = peer.write_all(input).await;
        }
        let _ = peer.shutdown().await;
        // Reading to the end keeps what was said from being lost by a reset.
        while peer.read(&mut submits).await.is_ok_and(|read| read > 0) {}
        account.close(Duration::ZERO).await;
    };
    tokio::select! {
        () = smsc => {}
        () = store => {}
    }
    let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
    let mut said_yes = false;
    while let Some(answers) = given.recv().await {
        for answered in answers {
            *counts.entry(answered.seq).or_default() += 1;
            if let Answer::Accepted { id } = &answered.answer {
                assert!(id.chars().count() <= MESSAGE_ID_MAX);
                said_yes = true;
            }
        }
    }
    assert_eq!(counts, (0..MESSAGES).map(|seq| (seq, 1)).collect(), "each is answered once");
    said_yes
}

fn listener(flood: bool) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    if flood {
        socket.set_recv_buffer_size(UNREAD)?;
    }
    socket.bind((std::net::Ipv4Addr::LOCALHOST, 0).into())?;
    socket.listen(8)
}

fn message(seq: u32) -> Submit {
    Submit {
        seq,
        number: Msisdn(4_915_100_000_000 + u64::from(seq)),
        ext_code: String::new(),
        text: "hello".into(),
        parts: 0,
        reference: 7,
        key: format!("key-{seq}"),
    }
}

/// An account for sessions and requests.
pub fn account() -> Account {
    Account {
        name: "test".into(),
        provider_type: "test".into(),
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
