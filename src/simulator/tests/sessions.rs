//! Binds, answers and texts.

use proptest::prelude::*;

use super::client::{Client, start, until};
use crate::simulator::pdu::tests::submit_body;
use crate::simulator::pdu::{command, status};
use crate::simulator::text_hash;

#[tokio::test]
async fn binds_are_checked() {
    let simulator = start(|config| config.sessions_max = 1).await;
    let cases = [("smsfleet", "wrong", status::INVALID_PASSWORD), ("nobody", "password", status::INVALID_SYSTEM_ID)];
    let mut client = Client::connect(&simulator).await;
    assert_eq!(client.ask(9, &submit_body("123", 0, 0, b"a", &[])).await.0, status::NOT_BOUND);
    for (name, password, expected) in cases {
        assert_eq!(client.bind(command::BIND_TRANSMITTER, name, password).await, expected);
    }
    simulator.refuse_binds(true);
    assert_eq!(client.bind(command::BIND_TRANSMITTER, "smsfleet", "password").await, status::BIND_FAILED);
    simulator.refuse_binds(false);
    assert_eq!(client.bind(command::BIND_RECEIVER, "smsfleet", "password").await, status::OK);
    assert_eq!(client.ask(10, &submit_body("123", 0, 0, b"a", &[])).await.0, status::NOT_BOUND);
    let mut second = Client::connect(&simulator).await;
    assert_eq!(second.bind(command::BIND_TRANSMITTER, "smsfleet", "password").await, status::ALREADY_BOUND);
    client.send(command::UNBIND, 0, 11, &[]).await;
    assert_eq!(client.read().await.map(|(header, _)| header.command), Some(command::UNBIND | command::RESPONSE));
    assert!(client.read().await.is_none());
    let report = simulator.stop().await;
    assert_eq!(
        (report.sessions.binds, report.sessions.binds_refused, report.sessions.unbound, report.sessions.bound),
        (1, 4, 1, 0)
    );
}

#[tokio::test]
async fn odd_pdus_are_answered_and_bad_lengths_end_the_session() {
    let simulator = start(|_| {}).await;
    let mut client = Client::bound(&simulator).await;
    client.send(command::ENQUIRE_LINK, 0, 2, &[]).await;
    assert_eq!(client.read().await.map(|(header, _)| header.sequence), Some(2));
    client.send(0x77, 0, 3, &[1, 2, 3]).await;
    let (header, _) = client.read().await.expect("a nack");
    assert_eq!((header.command, header.status, header.sequence), (command::GENERIC_NACK, status::INVALID_COMMAND, 3));
    assert_eq!(client.ask(4, b"no submit").await.0, status::INVALID_COMMAND_LENGTH);
    assert_eq!(client.ask(5, &submit_body("no number", 0, 0, b"a", &[])).await.0, status::INVALID_DESTINATION);
    client.write(&[0, 0, 0, 7, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 6]).await;
    let (header, _) = client.read().await.expect("a nack");
    assert_eq!((header.command, header.status), (command::GENERIC_NACK, status::INVALID_COMMAND_LENGTH));
    assert!(client.read().await.is_none());
}

#[tokio::test]
async fn the_server_says_unbind() {
    let simulator = start(|_| {}).await;
    let mut client = Client::bound(&simulator).await;
    simulator.unbind_sessions();
    let (header, _) = client.read().await.expect("an unbind");
    assert_eq!(header.command, command::UNBIND);
    assert_eq!(client.ask(2, &submit_body("123", 0, 0, b"a", &[])).await.0, status::NOT_BOUND);
    client.send(command::UNBIND | command::RESPONSE, 0, header.sequence, &[]).await;
    assert!(client.read().await.is_none());
}

#[tokio::test]
async fn long_texts_are_put_together_however_they_travel() {
    let simulator = start(|config| config.keep_texts = true).await;
    let mut client = Client::bound(&simulator).await;
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
    let behind = |header: &[u8], text: &[u8]| [header, text].concat();
    let sar = |place: u8| [2, 0x0C, 0, 2, 1, 2, 2, 0x0E, 0, 1, 2, 2, 0x0F, 0, 1, place];
    let payload = behind(&[4, 0x24, 2, 0], &utf16(&"长".repeat(256)));
    let text_b = format!("{}😀 ende", "你".repeat(60));
    let (b1, b2) = (utf16(&text_b[..180 + 4]), utf16(&text_b[184..]));
    let cases: [(u64, &str, Vec<Vec<u8>>); 5] = [
        (1, "one [1]", vec![submit_body("1", 0, 0, b"one \x1B\x3C1\x1B\x3E", &[])]),
        (
            2,
            &text_b,
            vec![
                submit_body("2", 0x40, 8, &behind(&[5, 0, 3, 7, 2, 2], &b2), &[]),
                submit_body("2", 0x40, 8, &behind(&[5, 0, 3, 7, 2, 1], &b1), &[]),
            ],
        ),
        (
            3,
            "sixteen bits",
            vec![
                submit_body("3", 0x40, 0, &behind(&[6, 8, 4, 7, 7, 2, 1], b"sixteen"), &[]),
                submit_body("3", 0x40, 0, &behind(&[6, 8, 4, 7, 7, 2, 2], b" bits"), &[]),
            ],
        ),
        (4, "sar is here", vec![submit_body("4", 0, 0, b"sar is", &sar(1)), submit_body("4", 0, 0, b" here", &sar(2))]),
        (5, &"长".repeat(256), vec![submit_body("5", 0, 8, b"", &payload)]),
    ];
    for (number, text, submits) in &cases {
        for (nth, submit) in submits.iter().enumerate() {
            assert_eq!(client.ask(nth as u32, submit).await.0, status::OK);
        }
        assert_eq!(simulator.texts(*number), [text.to_string()], "case {number}");
        let record = simulator.number(*number).expect("it came");
        assert_eq!((record.complete, record.text_hash), (1, text_hash(text)));
    }
    let oversize = client.ask(1, &submit_body("6", 0, 0, &[b'a'; 161], &[])).await;
    assert_eq!(oversize.0, status::INVALID_MESSAGE_LENGTH);
    client.ask(2, &submit_body("6", 0x40, 0, &[5, 0, 3, 7, 2, 1, b'a'], &[])).await;
    client.ask(3, &submit_body("6", 0x40, 0, &[5, 0, 3, 7, 2, 1, b'a'], &[])).await;
    let report = simulator.report();
    assert_eq!((report.complete_messages, report.numbers, report.repeated_numbers, report.malformed_texts), (5, 5, 0, 0));
    assert_eq!((report.incomplete_messages, report.repeated_parts, report.oversize_parts), (1, 1, 1));
    assert_eq!(simulator.number(5).expect("it came").accepted_parts, 4);
}

#[tokio::test]
async fn a_batch_in_one_write_is_answered_in_order() {
    let simulator = start(|_| {}).await;
    let mut client = Client::bound(&simulator).await;
    let mut octets = Vec::new();
    for sequence in 0..5_000u32 {
        let body = submit_body(&(8_613_800_000_000 + u64::from(sequence)).to_string(), 0, 0, b"Hello", &[]);
        crate::simulator::pdu::write(&mut octets, command::SUBMIT_SM, 0, sequence, |out| out.extend_from_slice(&body));
    }
    client.write(&octets).await;
    let mut ids = std::collections::BTreeSet::new();
    for sequence in 0..5_000 {
        let (status, id) = client.read_answer(sequence).await;
        assert_eq!(status, status::OK);
        assert!(ids.insert(id), "an id twice");
    }
    until(&simulator, |report| report.answered_accepted == 5_000 && report.numbers == 5_000).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_octets_bring_it_down(pdus in proptest::collection::vec((0u32..0x20, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..20), tail: Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let simulator = start(|_| {}).await;
            let mut client = Client::bound(&simulator).await;
            let mut octets = Vec::new();
            for (id, is_answer, body) in &pdus {
                let id = if *is_answer { id | command::RESPONSE } else { *id };
                crate::simulator::pdu::write(&mut octets, id, 0, 1, |out| out.extend_from_slice(body));
            }
            octets.extend_from_slice(&tail);
            client.write(&octets).await;
            drop(client);
            let mut next = Client::bound(&simulator).await;
            let answer = next.ask(1, &submit_body("123", 0, 0, b"a", &[])).await;
            prop_assert_eq!(answer.0, status::OK);
            Ok(())
        })?;
    }
}
