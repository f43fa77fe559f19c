//! Sessions against scripted SMSCs on loopback.

mod chaos;
mod floods;
mod receipts;
mod secrets;
mod server;
mod tls;

use std::sync::atomic::Ordering;
use std::time::Duration;

use server::{accepted, all_answers, chunk, chunk_of, message, rig, within};

use super::config::{BindMode, Status};
use crate::adapters::vendor::VendorClass;
use crate::model::account::LongMessage;
use crate::model::answer::{Answer, NotNow};
use crate::model::code::Code;
use crate::ports::provider::Provider;

#[tokio::test]
async fn answers_find_their_recipients_in_any_order() {
    let rig = rig(|_, _| {}).await;
    let (chunk, given) = chunk(0..5);
    rig.account.submit(chunk).await.expect("it is open");
    let mut peer = rig.bound().await;
    let mut sequences = Vec::new();
    for seq in 0..5u64 {
        let (sequence, submit) = peer.submit().await;
        assert_eq!(submit.destination_addr.as_str(), (4_915_100_000_000 + seq).to_string());
        assert_eq!(submit.source_addr.as_str(), "12345");
        assert_eq!(submit.short_message().to_str(), Ok("hello"));
        assert_eq!(u8::from(submit.registered_delivery), 1);
        sequences.push((sequence, seq));
    }
    for (sequence, seq) in sequences.into_iter().rev() {
        peer.take(sequence, &format!("id{seq}")).await;
    }
    let answers = all_answers(given).await;
    assert_eq!(answers.len(), 5);
    for seq in 0..5 {
        assert_eq!(answers[&(seq, 0)], accepted(&format!("id{seq}")));
    }
    assert!(rig.account.health().up);
}

#[tokio::test]
async fn a_cut_leaves_the_written_unanswered_and_the_next_session_sends_the_rest() {
    let rig = rig(|config, _| config.window = 3).await;
    let (chunk, given) = chunk(0..5);
    rig.account.submit(chunk).await.expect("it is open");
    let mut peer = rig.bound().await;
    let mut written = Vec::new();
    for _ in 0..3 {
        written.push(peer.submit().await.1.destination_addr.as_str().to_owned());
    }
    drop(peer);
    let mut peer = rig.bound().await;
    for _ in 3..5 {
        let (sequence, submit) = peer.submit().await;
        assert!(!written.contains(&submit.destination_addr.as_str().to_owned()), "nobody gets it twice");
        peer.take(sequence, "x").await;
    }
    let answers = all_answers(given).await;
    let expected: Vec<Answer> = (0..5).map(|seq| if seq < 3 { Answer::NoAnswer } else { accepted("x") }).collect();
    assert_eq!(answers.into_values().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn refusals_mean_what_the_tables_say() {
    let not_now = |kind, detail: &str| Answer::NotNow { kind, detail: detail.into() };
    let failed = |detail: &str| Answer::Failed { code: Code::ProviderRefused, detail: detail.into() };
    const RESP: u32 = 0x8000_0004;
    const NACK: u32 = 0x8000_0000;
    let cases = [
        (RESP, 0x58, not_now(NotNow::Throttled, "0x00000058")),
        (RESP, 0x14, not_now(NotNow::QueueFull, "0x00000014")),
        (RESP, 0x08, not_now(NotNow::Transient, "0x00000008")),
        (RESP, 0x0B, failed("0x0000000B")),
        (RESP, 0x401, not_now(NotNow::Throttled, "0x00000401")),
        (RESP, 0x402, failed("0x00000402")),
        (NACK, 0x58, not_now(NotNow::Throttled, "0x00000058")),
        (NACK, 0x03, failed("0x00000003")),
        (NACK, 0x00, Answer::NoAnswer),
    ];
    let rig = rig(|config, _| {
        config.vendor_status.insert(Status(0x401), VendorClass::Throttled);
    })
    .await;
    let mut peer = rig.bound().await;
    for (seq, (command, status, expected)) in cases.into_iter().enumerate() {
        let (chunk, given) = chunk([seq as u32]);
        rig.account.submit(chunk).await.expect("it is open");
        let (sequence, _) = peer.submit().await;
        peer.send(command, status, sequence, b"").await;
        assert_eq!(all_answers(given).await[&(seq as u32, 0)], expected);
    }
}

#[tokio::test]
async fn a_late_answer_changes_nothing() {
    let rig = rig(|_, account| account.answer_timeout = Duration::from_millis(60)).await;
    let (first, given) = chunk([1]);
    rig.account.submit(first).await.expect("it is open");
    let mut peer = rig.bound().await;
    let (sequence, _) = peer.submit().await;
    assert_eq!(all_answers(given).await[&(1, 0)], Answer::NoAnswer);
    peer.take(sequence, "late").await;
    // What comes behind the late answer is answered in its own right.
    let (second, given) = chunk([2]);
    rig.account.submit(second).await.expect("it is open");
    let next = loop {
        let frame = peer.next().await.expect("the session lives");
        match frame.command {
            4 => break frame.sequence,
            _ => peer.send(frame.command | 0x8000_0000, 0, frame.sequence, b"").await,
        }
    };
    assert_ne!(next, sequence, "the number of an unanswered submit is not used again");
    peer.take(next, "fresh").await;
    assert_eq!(all_answers(given).await[&(2, 0)], accepted("fresh"));
    assert_eq!(rig.account.counters().answers_late.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn odd_answers_do_not_end_the_session() {
    let rig = rig(|_, _| {}).await;
    let mut peer = rig.bound().await;
    let long = "9".repeat(80);
    let cases: [(&[u8], &str); 4] = [(b"no-nul", "no-nul"), (b"", ""), (b"\xFF1\0tail", "ÿ1"), (long.as_bytes(), &long[..64])];
    for (seq, (body, id)) in cases.into_iter().enumerate() {
        let (chunk, given) = chunk([seq as u32]);
        rig.account.submit(chunk).await.expect("it is open");
        let (sequence, _) = peer.submit().await;
        peer.send(0x8000_0004, 0, sequence, body).await;
        assert_eq!(all_answers(given).await[&(seq as u32, 0)], accepted(id));
    }
    peer.send(0x0000_0003, 0, 77, b"query").await;
    let nack = peer.next().await.expect("it is answered");
    assert_eq!((nack.command, nack.status, nack.sequence), (0x8000_0000, 3, 77));
}

#[tokio::test]
async fn a_pdu_of_impossible_length_ends_the_session_and_another_begins() {
    let rig = rig(|_, _| {}).await;
    let mut peer = rig.bound().await;
    use tokio::io::AsyncWriteExt;
    peer.stream.write_all(&[0, 0, 0, 3]).await.expect("it is connected");
    assert_eq!(peer.next().await, None);
    rig.bound().await;
    assert_eq!(rig.account.health().last_error.map(|(code, _)| code), Some(Code::ProviderDown));
}

#[tokio::test]
async fn the_smsc_may_say_good_bye() {
    let rig = rig(|config, _| config.window = 1).await;
    let (chunk, given) = chunk(0..2);
    rig.account.submit(chunk).await.expect("it is open");
    let mut peer = rig.bound().await;
    let (sequence, _) = peer.submit().await;
    peer.send(6, 0, 99, b"").await;
    let answer = peer.next().await.expect("it is answered");
    assert_eq!((answer.command, answer.sequence), (0x8000_0006, 99));
    peer.take(sequence, "first").await;
    assert_eq!(peer.next().await, None, "nothing is submitted any more");
    let mut peer = rig.bound().await;
    let (sequence, _) = peer.submit().await;
    peer.take(sequence, "second").await;
    let answers = all_answers(given).await;
    assert_eq!((&answers[&(0, 0)], &answers[&(1, 0)]), (&accepted("first"), &accepted("second")));
}

#[tokio::test]
async fn a_session_that_is_not_bound_is_bound_again() {
    let rig = rig(|_, _| {}).await;
    let mut peer = rig.bound().await;
    let (chunk, given) = chunk([1]);
    rig.account.submit(chunk).await.expect("it is open");
    let (sequence, _) = peer.submit().await;
    peer.send(0x8000_0004, 4, sequence, b"").await;
    assert!(matches!(all_answers(given).await[&(1, 0)], Answer::NotNow { kind: NotNow::Session, .. }));
    rig.bound().await;
}

#[tokio::test]
async fn both_sides_ask_for_a_sign_of_life() {
    let rig = rig(|config, account| {
        config.enquire_link = Duration::from_millis(40);
        account.answer_timeout = Duration::from_millis(40);
    })
    .await;
    let mut peer = rig.bound().await;
    peer.send(0x15, 0, 7, b"").await;
    let answer = peer.next().await.expect("it is answered");
    assert_eq!((answer.command, answer.sequence), (0x8000_0015, 7));
    let asked = peer.next().await.expect("it asks");
    assert_eq!(asked.command, 0x15);
    peer.send(0x8000_0015, 0, asked.sequence, b"").await;
    assert_eq!(peer.next().await.map(|frame| frame.command), Some(0x15), "a living session is asked again");
    assert_eq!(peer.next().await, None, "a silent one is given up");
    rig.bound().await;
}

#[tokio::test]
async fn refused_binds_are_told_and_tried_again() {
    let rig = rig(|_, _| {}).await;
    for status in [0x0E, 0x0D] {
        let mut peer = rig.connected().await;
        let bind = peer.next().await.expect("a bind comes");
        assert_eq!(&bind.body[..], b"fleet\0\0\0\x34\0\0\0");
        peer.send(bind.command | 0x8000_0000, status, bind.sequence, b"").await;
        assert_eq!(peer.next().await, None);
    }
    rig.bound().await;
    let (code, what) = rig.account.health().last_error.expect("it is kept");
    assert_eq!((code, what.contains("0x0000000D")), (Code::ProviderLogin, true));
}

#[tokio::test]
async fn what_is_stopped_or_late_is_never_sent() {
    let rig = rig(|config, _| config.window = 1).await;
    // No session is bound: the time passes, and the stop comes, while everything waits.
    let (late, late_given) = chunk(0..3);
    let (stopped, stopped_given) = chunk(3..6);
    let (kept, kept_given) = chunk_of(vec![message(6, "hello")]);
    let stop = stopped.stop.clone();
    let kept = crate::ports::provider::Chunk { send_by: Duration::from_secs(100), ..kept };
    rig.account.submit(late).await.expect("it is open");
    // The queue holds two windows at least; the rest waits for room, and must be told as well.
    let waiting = tokio::spawn({
        let account = rig.account.clone();
        async move {
            account.submit(stopped).await.expect("it is open");
            account.submit(kept).await.expect("it is open");
        }
    });
    rig.clock.0.store(11, Ordering::SeqCst);
    stop.cancel();
    for given in [late_given, stopped_given] {
        let answers = all_answers(given).await;
        assert_eq!(answers.len(), 3);
        assert!(answers.values().all(|answer| *answer == Answer::NotSent));
    }
    within(waiting).await.expect("it ends");
    let mut peer = rig.bound().await;
    let (sequence, submit) = peer.submit().await;
    assert!(submit.destination_addr.as_str().ends_with('6'));
    peer.take(sequence, "x").await;
    assert_eq!(all_answers(kept_given).await.len(), 1);
}

#[tokio::test]
async fn the_queue_is_bounded() {
    let rig = rig(|config, _| config.window = 2).await;
    let mut given = Vec::new();
    for seq in 0..4 {
        let (chunk, answers) = chunk([seq]);
        within(rig.account.submit(chunk)).await.expect("two windows have room");
        given.push(answers);
    }
    let (more, answers) = chunk([4]);
    given.push(answers);
    let waiting = rig.account.submit(more);
    tokio::pin!(waiting);
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    let mut peer = rig.bound().await;
    let (sequence, _) = peer.submit().await;
    within(waiting).await.expect("there is room now");
    peer.take(sequence, "0").await;
    for _ in 1..5 {
        let (sequence, _) = peer.submit().await;
        peer.take(sequence, "x").await;
    }
    for answers in given {
        assert_eq!(all_answers(answers).await.len(), 1);
    }
}

#[tokio::test]
async fn closing_leaves_nothing_unanswered() {
    let rig = rig(|config, _| config.window = 2).await;
    let mut peer = rig.bound().await;
    let (chunk_a, given) = chunk(0..4);
    rig.account.submit(chunk_a).await.expect("it is open");
    let (answered, _) = peer.submit().await;
    peer.submit().await;
    let closing = tokio::spawn({
        let account = rig.account.clone();
        async move { account.close(Duration::from_millis(200)).await }
    });
    peer.take(answered, "in time").await;
    // One window of three was written in the end, or two: the answer may come before or after the close.
    let mut written = 2;
    loop {
        let frame = peer.next().await.expect("good-bye is said");
        match frame.command {
            4 => written += 1,
            6 => {
                peer.send(0x8000_0006, 0, frame.sequence, b"").await;
                break;
            }
            other => panic!("{other:#x} was not expected"),
        }
    }
    within(closing).await.expect("it closes");
    let answers = all_answers(given).await;
    assert_eq!(answers[&(0, 0)], accepted("in time"));
    let count = |wanted: &Answer| answers.values().filter(|answer| *answer == wanted).count();
    assert_eq!((count(&Answer::NoAnswer), count(&Answer::NotSent)), (written - 1, 4 - written));
    let (late, _) = chunk([9]);
    assert!(rig.account.submit(late).await.is_err(), "it is closed");
}

#[tokio::test]
async fn long_messages_travel_as_the_account_wants() {
    let text = "x".repeat(200);
    for long in [LongMessage::Udh8, LongMessage::Udh16, LongMessage::Sar, LongMessage::Payload] {
        let rig = rig(|config, account| {
            config.window = 1;
            account.capabilities.long_message = long;
        })
        .await;
        let (chunk, given) = chunk_of(vec![message(1, &text), message(2, "é€"), message(3, "短信")]);
        rig.account.submit(chunk).await.expect("it is open");
        let mut peer = rig.bound().await;
        let parts = if long == LongMessage::Payload { 1 } else { 2 };
        for part in 1..=parts {
            let (sequence, submit) = peer.submit().await;
            let octets = submit.short_message().clone().into_vec();
            let header: &[u8] = match long {
                LongMessage::Udh8 => &[5, 0, 3, 0x34, 2, part],
                LongMessage::Udh16 => &[6, 8, 4, 0x12, 0x34, 2, part],
                LongMessage::Sar | LongMessage::Payload => &[],
            };
            assert!(octets.starts_with(header), "{long:?}");
            assert_eq!(u8::from(submit.esm_class), if header.is_empty() { 0 } else { 0x40 });
            let tags: Vec<u16> = submit.tlvs().iter().map(|tlv| tlv.tag().into()).collect();
            assert_eq!(tags, if long == LongMessage::Sar { vec![0x020C, 0x020E, 0x020F] } else { vec![] }, "{long:?}");
            if long == LongMessage::Payload {
                assert_eq!(octets.len(), 200);
            }
            peer.take(sequence, &part.to_string()).await;
        }
        let (sequence, submit) = peer.submit().await;
        assert_eq!(submit.short_message().clone().into_vec(), [0x05, 0x1B, 0x65]);
        assert_eq!(u8::from(submit.data_coding), 0);
        peer.take(sequence, "a").await;
        let (sequence, submit) = peer.submit().await;
        assert_eq!(submit.short_message().clone().into_vec(), [0x77, 0xED, 0x4F, 0xE1]);
        assert_eq!(u8::from(submit.data_coding), 8);
        peer.take(sequence, "b").await;
        assert_eq!(all_answers(given).await.len(), usize::from(parts) + 2);
    }
}

#[tokio::test]
async fn only_the_parts_asked_for_are_sent_and_what_cannot_be_sent_says_so() {
    let rig = rig(|_, account| account.capabilities.parts_max = 3).await;
    let mut one = message(1, &"x".repeat(400));
    one.parts = 0b100;
    let mut gone = message(2, "short");
    gone.parts = 0b10;
    let mut extended = message(3, "hello");
    extended.ext_code = "007".into();
    let mut too_far = message(4, "hello");
    too_far.ext_code = "0".repeat(16);
    let huge = message(5, &"x".repeat(700));
    let (chunk, given) = chunk_of(vec![one, gone, extended, too_far, huge]);
    rig.account.submit(chunk).await.expect("it is open");
    let mut peer = rig.bound().await;
    let (sequence, submit) = peer.submit().await;
    assert!(submit.short_message().clone().into_vec().starts_with(&[5, 0, 3, 0x34, 3, 3]));
    peer.take(sequence, "third").await;
    let (sequence, submit) = peer.submit().await;
    assert_eq!(submit.source_addr.as_str(), "12345007");
    peer.take(sequence, "extended").await;
    let answers = all_answers(given).await;
    assert_eq!(answers[&(1, 2)], accepted("third"));
    assert_eq!(answers[&(3, 0)], accepted("extended"));
    let unfit = answers.iter().filter(|(_, answer)| matches!(answer, Answer::Failed { code: Code::NotEncodable, .. }));
    assert_eq!(unfit.map(|(key, _)| *key).collect::<Vec<_>>(), [(2, 1), (4, 0), (5, 0), (5, 1), (5, 2), (5, 3), (5, 4)]);
}

#[tokio::test]
async fn senders_and_receivers_may_be_apart() {
    let rig = rig(|config, _| config.bind = BindMode::TransmitterReceiver).await;
    let mut commands = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..2 {
        let mut peer = rig.connected().await;
        let bind = peer.next().await.expect("a bind comes");
        commands.push(bind.command);
        peer.send(bind.command | 0x8000_0000, 0, bind.sequence, b"").await;
        peers.push(peer);
    }
    let sender = commands.iter().position(|command| *command == 2).expect("one sends");
    assert!(commands.contains(&1), "the other receives");
    let (chunk, given) = chunk([1]);
    rig.account.submit(chunk).await.expect("it is open");
    let (sequence, _) = peers[sender].submit().await;
    peers[sender].take(sequence, "x").await;
    assert_eq!(all_answers(given).await.len(), 1);
    assert_eq!(rig.account.window(), 10);
}
