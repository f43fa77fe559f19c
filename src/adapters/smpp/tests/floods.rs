//! SMSCs that never stop talking, and take nothing, or nothing for a while: over pipes of a few octets, so that what a session
//! keeps is what it took.

use std::pin::{Pin, pin};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::{mpsc, watch};

use super::server::{HandClock, accepted, account, all_answers, chunk, within};
use crate::adapters::smpp::SmppConfig;
use crate::adapters::smpp::config::Role;
use crate::adapters::smpp::connect::Link;
use crate::adapters::smpp::core::{Core, Counters};
use crate::adapters::smpp::lenient::next_frame;
use crate::adapters::smpp::pdu::{ALERT_NOTIFICATION, ANSWER, ENQUIRE_LINK, SUBMIT_SM_RESP, Template};
use crate::adapters::smpp::session::{self, End};
use crate::adapters::system::SeededChance;
use crate::adapters::waiting::Queue;
use crate::model::answer::Answer;

/// Octets that lie in a pipe at most.
const PIPE: usize = 256;
/// A request that nobody knows.
const QUERY_SM: u32 = 0x03;

/// What a session of a new account shares with nobody.
fn core(answer_timeout: Duration) -> Core {
    let config = SmppConfig { system_id: "fleet".into(), source_addr: "12345".into(), ..SmppConfig::default() };
    let mut account = account();
    account.answer_timeout = answer_timeout;
    Core {
        queue: Queue::new(20, account.capabilities.long_message),
        template: Template::new(&account, &config).expect("it can be sent"),
        tls: None,
        sink: mpsc::channel(1).0,
        clock: Arc::new(HandClock::default()),
        chance: Arc::new(SeededChance::from_seed(1)),
        closing: watch::Sender::new(None),
        counters: Counters::default(),
        bound: AtomicU64::new(0),
        bound_to_send: AtomicU64::new(0),
        outstanding: vec![AtomicU64::new(0)],
        last_error: Mutex::new(None),
        account,
        config,
    }
}

fn pdu(command: u32, sequence: u32, body: &[u8]) -> Vec<u8> {
    [&(16 + body.len() as u32).to_be_bytes()[..], &command.to_be_bytes(), &[0; 4], &sequence.to_be_bytes(), body].concat()
}

async fn run(core: &Core, io: DuplexStream) -> End {
    session::run(core, 0, Role::Transceiver, Link { io: Box::new(io), input: BytesMut::new() }).await
}

/// Says the same until nobody listens, or so many octets are taken; tells how many were.
async fn say(stream: &mut (impl AsyncWrite + Unpin), said: &[u8], most: usize) -> usize {
    let (said, mut taken) = (said.repeat(1_000), 0);
    while taken < most {
        match stream.write(&said[taken % said.len()..]).await {
            Ok(octets) => taken += octets,
            Err(_) => break,
        }
    }
    taken
}

#[tokio::test(start_paused = true)]
async fn an_smsc_that_takes_nothing_fills_no_memory_and_is_given_up() {
    for command in [ENQUIRE_LINK, QUERY_SM] {
        let core = core(Duration::from_secs(10));
        let (chunk, given) = chunk(0..10);
        assert!(core.queue.put(chunk, &HandClock::default()).await.is_ok(), "it is open");
        let (ours, mut theirs) = tokio::io::duplex(PIPE);
        let (said, most) = (pdu(command, 7, b""), 8 << 20);
        let (end, taken) = tokio::join!(run(&core, ours), say(&mut theirs, &said, most));
        let End::Lost(fault) = end else { panic!("nobody closed the account") };
        assert_eq!(fault.context, "the SMSC takes nothing of what it is sent");
        assert!(taken < most / 4, "{taken} octets were taken");
        drop(core);
        // The pipe took the first submits; the others were never begun.
        let answers = all_answers(given).await;
        let count = |wanted: Answer| answers.values().filter(|answer| **answer == wanted).count();
        let unknown = count(Answer::NoAnswer);
        assert!((1..10).contains(&unknown), "{answers:?}");
        assert_eq!(count(Answer::NotSent), 10 - unknown, "{answers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_not_begun_to_be_written_while_an_answer_is_waited_for_is_never_sent() {
    let core = core(Duration::from_secs(2));
    let (chunk, given) = chunk(0..10);
    assert!(core.queue.put(chunk, &HandClock::default()).await.is_ok(), "it is open");
    let (ours, mut theirs) = tokio::io::duplex(PIPE);
    let smsc = async move {
        // It neither takes nor says anything, and then takes all there is.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (mut input, mut submits) = (BytesMut::new(), 0);
        while let Ok(Ok(1..)) = tokio::time::timeout(Duration::from_secs(5), theirs.read_buf(&mut input)).await {
            while let Some(frame) = next_frame(&mut input, 1_024).expect("our own lengths are good") {
                submits += usize::from(frame.command == SUBMIT_SM_RESP & !ANSWER);
            }
        }
        submits
    };
    let (_, submits) = tokio::join!(run(&core, ours), smsc);
    drop(core);
    let answers = all_answers(given).await;
    let count = |wanted: Answer| answers.values().filter(|answer| **answer == wanted).count();
    assert!((1..10).contains(&submits), "{submits} came");
    assert_eq!((count(Answer::NoAnswer), count(Answer::NotSent)), (submits, 10 - submits), "{answers:?}");
}

#[tokio::test(start_paused = true)]
async fn an_smsc_that_takes_nothing_for_a_while_loses_no_answer() {
    let core = core(Duration::from_secs(2));
    let (chunk, given) = chunk([1]);
    assert!(core.queue.put(chunk, &HandClock::default()).await.is_ok(), "it is open");
    let (ours, mut theirs) = tokio::io::duplex(PIPE);
    let questions = 150_000;
    let smsc = async move {
        let mut head = [0; 16];
        theirs.read_exact(&mut head).await.expect("a submit comes");
        let mut rest = vec![0; u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize - 16];
        theirs.read_exact(&mut rest).await.expect("all of it");
        let (mut reader, mut writer) = tokio::io::split(theirs);
        let sequence = u32::from_be_bytes([head[12], head[13], head[14], head[15]]);
        let talks = async {
            say(&mut writer, &pdu(ENQUIRE_LINK, 7, b""), questions * 16).await;
            writer.write_all(&pdu(4 | ANSWER, sequence, b"x\0")).await.expect("the session lives");
        };
        let listens = async {
            // Far longer than an answer is waited for: the session does not judge what it did not read.
            tokio::time::sleep(Duration::from_secs(20)).await;
            let (mut input, mut answers) = (BytesMut::new(), 0);
            while answers < questions {
                match next_frame(&mut input, 1_024).expect("our own lengths are good") {
                    Some(frame) => answers += usize::from(frame.command == ENQUIRE_LINK | ANSWER),
                    None => assert!(reader.read_buf(&mut input).await.expect("the session lives") > 0, "{answers} came"),
                }
            }
        };
        tokio::join!(talks, listens);
        // What was said last is read before the end is.
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    let (_, ()) = tokio::join!(run(&core, ours), smsc);
    drop(core);
    assert_eq!(all_answers(given).await[&(1, 0)], accepted("x"));
}

/// A connection on which something is always there to be read, as fast as anybody reads.
struct Endless(Vec<u8>);

impl AsyncRead for Endless {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        // As a socket does, it stops a task that takes all there is now and then; nothing else of that task then goes on either.
        if pin!(tokio::task::consume_budget()).poll(context).is_pending() {
            return Poll::Pending;
        }
        while into.remaining() >= self.0.len() {
            into.put_slice(&self.0);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, octets: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(octets.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn an_smsc_that_never_stops_talking_does_not_stop_time() {
    let core = core(Duration::from_millis(50));
    let (chunk, given) = chunk([1]);
    assert!(core.queue.put(chunk, &HandClock::default()).await.is_ok(), "it is open");
    let io = Box::new(Endless(pdu(ALERT_NOTIFICATION, 7, b"")));
    let answers = {
        let session = session::run(&core, 0, Role::Transceiver, Link { io, input: BytesMut::new() });
        tokio::select! {
            _ = session => panic!("it has no reason to end"),
            answers = within(all_answers(given)) => answers,
        }
    };
    assert_eq!(answers[&(1, 0)], Answer::NoAnswer, "its time is over, whatever else is said");
}
