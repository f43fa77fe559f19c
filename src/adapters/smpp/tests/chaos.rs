//! SMSCs that misbehave: whatever they send, and whenever they hang up, each part gets exactly one answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::server::{Rig, all_answers, chunk_of, message, rig};
use crate::model::answer::Answer;
use crate::model::text::split;
use crate::ports::provider::Provider;

/// What an SMSC does next.
#[derive(Clone, Debug)]
enum Deed {
    /// Reads so many submits and takes them.
    Take(u8),
    /// Reads so many submits and keeps silent.
    Swallow(u8),
    /// Answers something that was never submitted.
    Invent(u32),
    /// Sends these octets.
    Babble(Vec<u8>),
    /// Hangs up.
    HangUp,
    /// Says good-bye.
    Unbind,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (1..6u8).prop_map(Deed::Take),
        2 => (1..4u8).prop_map(Deed::Swallow),
        1 => (1_000..u32::MAX).prop_map(Deed::Invent),
        1 => proptest::collection::vec(any::<u8>(), 1..80).prop_map(Deed::Babble),
        1 => Just(Deed::HangUp),
        1 => Just(Deed::Unbind),
    ]
}

/// Ids that were given to a number's part, by (destination, text of the part).
type Taken = Arc<Mutex<BTreeMap<String, usize>>>;

async fn misbehave(rig: &Rig, deeds: Vec<Deed>, submitted: Taken) {
    let mut deeds = deeds.into_iter();
    loop {
        let mut peer = rig.bound().await;
        loop {
            let deed = deeds.next().unwrap_or(Deed::Take(u8::MAX));
            let (count, answer) = match deed {
                Deed::Take(count) => (count, true),
                Deed::Swallow(count) => (count, false),
                Deed::Invent(sequence) => {
                    peer.send(0x8000_0004, 0, sequence, b"invented\0").await;
                    continue;
                }
                Deed::Babble(octets) => {
                    let _ = peer.stream.write_all(&octets).await;
                    continue;
                }
                Deed::Unbind => {
                    peer.send(6, 0, 1, b"").await;
                    break;
                }
                Deed::HangUp => break,
            };
            let mut left = count;
            while left > 0 {
                let Some(frame) = peer.next().await else { break };
                if frame.command == 4 {
                    left -= 1;
                    let key = format!("{:?}", frame.body);
                    *submitted.lock().expect("no test panicked").entry(key).or_default() += 1;
                    if answer && peer.try_take(frame.sequence).await.is_err() {
                        break;
                    }
                }
            }
            if left > 0 {
                break;
            }
        }
    }
}

impl super::server::Peer {
    async fn try_take(&mut self, sequence: u32) -> std::io::Result<()> {
        let mut pdu = vec![0, 0, 0, 19, 0x80, 0, 0, 4, 0, 0, 0, 0];
        pdu.extend(sequence.to_be_bytes());
        pdu.extend(b"ok\0");
        self.stream.write_all(&pdu).await
    }
}

async fn check(deeds: Vec<Deed>, texts: Vec<usize>, window: u32) {
    let rig = rig(|config, account| {
        config.window = window;
        config.max_command_length = 4_096;
        account.answer_timeout = Duration::from_millis(50);
    })
    .await;
    let messages: Vec<_> = texts.iter().enumerate().map(|(seq, length)| message(seq as u32, &"x".repeat(*length))).collect();
    let long = super::LongMessage::Udh8;
    let asked: BTreeSet<(u32, u8)> =
        messages.iter().flat_map(|m| (0..split(&m.text, long).parts).map(|part| (m.seq, part))).collect();
    let (chunk, given) = chunk_of(messages);
    rig.account.submit(chunk).await.expect("it is open");
    let submitted = Taken::default();
    let answers = tokio::select! {
        answers = all_answers(given) => answers,
        () = misbehave(&rig, deeds, submitted.clone()) => unreachable!("it goes on for ever"),
    };
    assert_eq!(answers.keys().copied().collect::<BTreeSet<_>>(), asked, "each part that was asked for, once");
    for answer in answers.values() {
        match answer {
            // Ids that the server gave to submits, and never an invented one.
            Answer::Accepted { id } => assert_eq!(&**id, "ok"),
            Answer::NoAnswer | Answer::NotSent | Answer::Failed { .. } | Answer::NotNow { .. } => {}
            other => panic!("{other:?} is no answer of an SMSC"),
        }
    }
    let submitted = submitted.lock().expect("no test panicked");
    assert!(submitted.values().all(|times| *times == 1), "nothing is submitted twice: {submitted:?}");
    let accepted = answers.values().filter(|answer| matches!(answer, Answer::Accepted { .. })).count();
    assert!(accepted <= submitted.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_part_gets_one_answer(
        deeds in proptest::collection::vec(deed(), 0..12),
        texts in proptest::collection::vec(prop_oneof![3 => Just(5usize), 1 => Just(200), 1 => Just(500)], 1..20),
        window in 1..6u32,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(check(deeds, texts, window));
    }
}
