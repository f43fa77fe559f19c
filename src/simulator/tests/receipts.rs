//! Receipts: forms, order, windows, repeats.

use std::collections::BTreeSet;

use super::client::{Client, start_with_receipts as start, until};
use crate::simulator::pdu::tests::submit_body;
use crate::simulator::pdu::{command, status};
use crate::simulator::{Delay, IdStyle, ReceiptForm};

#[tokio::test]
async fn a_receipt_names_the_message_in_the_form_asked_for() {
    for (form, has_text, has_parameters) in
        [(ReceiptForm::Text, true, false), (ReceiptForm::Tlv, false, true), (ReceiptForm::Both, true, true)]
    {
        let simulator = start(|config| {
            config.ids.style = IdStyle::HexThenDecimal;
            config.ids.pad_receipt = 20;
            config.receipts.form = form;
            config.receipts.undelivered_share = 1.0;
        })
        .await;
        let mut client = Client::bound(&simulator).await;
        let (_, id) = client.ask(7, &submit_body("8613800138000", 0, 0, b"a", &[])).await;
        let id = format!("{:020}", u64::from_str_radix(&id, 16).expect("hexadecimal"));
        let (sequence, body) = client.read_deliver().await;
        assert!(body.contains("8613800138000\0") && body.contains("Shop\0"), "addresses change places");
        assert_eq!(body.contains(&format!("id:{id} ")) && body.contains("stat:UNDELIV err:001"), has_text, "{body:?}");
        assert_eq!(body.contains(&format!("{id}\0\u{4}'\0\u{1}\u{5}")), has_parameters, "{body:?}");
        client.acknowledge(sequence, status::OK).await;
        until(&simulator, |report| report.receipts.acknowledged == 1 && report.receipts.unacknowledged == 0).await;
    }
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_on_the_next_session() {
    let simulator = start(|_| {}).await;
    let mut client = Client::bound(&simulator).await;
    for sequence in 0..10 {
        client.submit(sequence, 100 + u64::from(sequence)).await;
    }
    // Receipts come when they come, also between answers.
    let (mut answers, mut sent) = (0, Vec::new());
    while answers < 10 || sent.len() < 10 {
        let (header, body) = client.read().await.expect("an answer or a receipt");
        if header.command == command::DELIVER_SM {
            sent.push((header.sequence, String::from_utf8_lossy(&body).into_owned()));
        } else {
            assert_eq!(header.command, command::SUBMIT_SM | command::RESPONSE);
            answers += 1;
        }
    }
    for (sequence, _) in &sent[..4] {
        client.acknowledge(*sequence, status::OK).await;
    }
    until(&simulator, |report| report.receipts.acknowledged == 4).await;
    drop(client);
    until(&simulator, |report| report.receipts.waiting == 6).await;
    let mut transmitter = Client::connect(&simulator).await;
    transmitter.bind(command::BIND_TRANSMITTER, "smsfleet", "password").await;
    let mut receiver = Client::connect(&simulator).await;
    receiver.bind(command::BIND_RECEIVER, "smsfleet", "password").await;
    let mut again = BTreeSet::new();
    for _ in 0..6 {
        let (sequence, body) = receiver.read_deliver().await;
        again.insert(body);
        receiver.acknowledge(sequence, status::OK).await;
    }
    assert_eq!(again, sent[4..].iter().map(|(_, body)| body.clone()).collect());
    until(&simulator, |report| report.receipts.acknowledged == 10).await;
    let report = simulator.report();
    assert_eq!((report.receipts.made, report.receipts.sent, report.receipts.resent), (10, 16, 6));
}

#[tokio::test]
async fn a_refused_or_forgotten_receipt_comes_again_on_the_same_session() {
    let simulator = start(|config| config.receipts.resend_ms = 50).await;
    let mut client = Client::bound(&simulator).await;
    client.submit(1, 123).await;
    client.read_answer(1).await;
    let (_, first) = client.read_deliver().await;
    let (second_sequence, second) = client.read_deliver().await;
    assert_eq!(first, second);
    client.acknowledge(second_sequence, status::SYSTEM_ERROR).await;
    until(&simulator, |report| report.receipts.refused == 1).await;
    let (third_sequence, third) = client.read_deliver().await;
    assert_eq!(first, third);
    client.acknowledge(third_sequence, status::OK).await;
    until(&simulator, |report| report.receipts.acknowledged == 1).await;
    assert_eq!(simulator.report().receipts.resent, 2);
}

#[tokio::test]
async fn no_more_than_the_window_is_under_way() {
    let simulator = start(|config| {
        config.receipts.window = 5;
        config.receipts.twice_share = 1.0;
    })
    .await;
    let mut client = Client::bound(&simulator).await;
    for sequence in 0..20 {
        client.submit(sequence, 123).await;
    }
    let mut under_way = Vec::new();
    let mut answers = 0;
    for acknowledged in 0..40 {
        while under_way.is_empty() || under_way.len() < 5 && answers + acknowledged < 20 {
            let (header, _) = client.read().await.expect("an answer or a receipt");
            match header.command {
                command::DELIVER_SM => under_way.push(header.sequence),
                _ => answers += 1,
            }
        }
        let now = simulator.report().receipts.unacknowledged;
        assert!(now <= 5, "{now} are under way");
        client.acknowledge(under_way.remove(0), status::OK).await;
    }
    until(&simulator, |report| report.receipts.acknowledged == 40 && report.receipts.waiting == 0).await;
}

#[tokio::test]
async fn receipts_come_early_with_others_around_them_or_never() {
    let simulator = start(|config| {
        config.receipts.early_share = 1.0;
        config.receipts.accepted_first_share = 1.0;
        config.receipts.out_of_order_share = 1.0;
        config.receipts.delay = Delay::always(5, 10);
    })
    .await;
    let mut client = Client::bound(&simulator).await;
    client.submit(1, 123).await;
    let (_, early) = client.read_deliver().await;
    assert!(early.contains("stat:DELIVRD"), "{early}");
    client.read_answer(1).await;
    let stats = [client.read_deliver().await.1, client.read_deliver().await.1];
    assert!(stats[0].contains("stat:ACCEPTD") && stats[1].contains("stat:ENROUTE"), "{stats:?}");
    let mut receipts = simulator.config().receipts;
    (receipts.never_share, receipts.early_share, receipts.inbound_share) = (1.0, 0.0, 1.0);
    simulator.set_receipts(receipts).expect("good receipts");
    client.submit(2, 124).await;
    client.read_answer(2).await;
    let (_, inbound) = client.read_deliver().await;
    assert!(inbound.contains("STOP") || inbound.contains("Yes please"), "{inbound:?}");
    assert_eq!(simulator.report().receipts.never, 1);
}

#[tokio::test]
async fn an_early_receipt_for_a_transmitter_leads_on_the_receiver() {
    let simulator = start(|config| config.receipts.early_share = 1.0).await;
    let mut receiver = Client::connect(&simulator).await;
    receiver.bind(command::BIND_RECEIVER, "smsfleet", "password").await;
    let mut transmitter = Client::connect(&simulator).await;
    transmitter.bind(command::BIND_TRANSMITTER, "smsfleet", "password").await;
    transmitter.submit(1, 123).await;
    receiver.read_deliver().await;
    assert_eq!(simulator.report().answered_accepted, 0, "the answer comes later");
    transmitter.read_answer(1).await;
}

#[tokio::test]
async fn one_receipt_for_a_message_of_several_parts() {
    let simulator = start(|config| {
        config.receipts.one_per_message = true;
        config.ids.repeat_after_restart = true;
    })
    .await;
    let mut client = Client::bound(&simulator).await;
    for place in [2, 1, 3] {
        client.ask(place.into(), &submit_body("123", 0x40, 0, &[5, 0, 3, 7, 3, place, b'a'], &[])).await;
    }
    let (_, body) = client.read_deliver().await;
    assert!(body.contains("id:2 "), "the id of part 1, which came second: {body:?}");
    assert_eq!(simulator.report().receipts.made, 1);
}

#[tokio::test]
async fn only_those_who_ask_get_receipts() {
    let simulator = start(|_| {}).await;
    let mut client = Client::bound(&simulator).await;
    for (sequence, registered_delivery) in [(1, 0u8), (2, 2)] {
        let mut body = submit_body("123", 0, 0, b"a", &[]);
        let place = body.len() - 6;
        body[place] = registered_delivery;
        assert_eq!(client.ask(sequence, &body).await.0, status::OK);
    }
    assert_eq!(simulator.report().receipts.made, 0);
}
