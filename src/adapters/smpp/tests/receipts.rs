//! Receipts over the wire: acknowledged once durable, never before, and never without bound.

use std::time::Duration;

use super::server::{all_answers, chunk, rig, within};
use crate::adapters::smpp::incoming::HELD_MAX;
use crate::model::receipt::Rung;
use crate::ports::provider::Provider;

/// A receipt's body without parameters.
fn receipt(id: u32) -> Vec<u8> {
    let text = format!("id:{id} stat:DELIVRD err:000");
    let mut body = b"\0\x01\x014915100000001\0\x01\x0112345\0\x04\0\0\0\0\0\0\0\0".to_vec();
    body.push(text.len() as u8);
    body.extend(text.as_bytes());
    body
}

#[tokio::test]
async fn a_receipt_is_acknowledged_once_it_is_durable() {
    let mut rig = rig(|_, _| {}).await;
    let mut peer = rig.bound().await;
    for (sequence, durable) in [(5, true), (6, false), (7, true)] {
        peer.send(5, 0, sequence, &receipt(sequence)).await;
        let reports = within(rig.reports.recv()).await.expect("the account lives");
        assert_eq!(reports.account, "test");
        assert_eq!(reports.reports.len(), 1);
        assert_eq!((reports.reports[0].message_id.as_str(), reports.reports[0].rung), (&*sequence.to_string(), Rung::Delivered));
        // Nothing is acknowledged while the store has not spoken: the answer to our own question comes first.
        peer.send(0x15, 0, 100 + sequence, b"").await;
        assert_eq!(peer.next().await.map(|frame| frame.sequence), Some(100 + sequence));
        reports.ack.send(durable).expect("the session waits for it");
        if durable {
            let answer = peer.next().await.expect("it is answered");
            assert_eq!(
                (answer.command, answer.status, answer.sequence, &answer.body[..]),
                (0x8000_0005, 0, sequence, &b"\0"[..])
            );
        }
    }
    let counters = rig.account.counters();
    assert_eq!(counters.receipts_refused.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test]
async fn messages_of_people_are_acknowledged_once_they_are_durable() {
    let mut rig = rig(|_, _| {}).await;
    let mut peer = rig.bound().await;
    let mut body = receipt(1);
    let esm_class = 2 + 1 + 14 + 2 + 6;
    assert_eq!(body[esm_class], 4);
    body[esm_class] = 0;
    for (sequence, durable) in [(9, false), (10, true)] {
        peer.send(5, 0, sequence, &body).await;
        let reports = within(rig.reports.recv()).await.expect("the account lives");
        assert_eq!((reports.reports.len(), reports.inbound.len()), (0, 1));
        let inbound = &reports.inbound[0];
        assert_eq!((inbound.from.as_str(), inbound.to.as_str()), ("4915100000001", "12345"));
        assert_eq!(inbound.text, "id:1 stat:DELIVRD err:000");
        peer.send(0x15, 0, 100 + sequence, b"").await;
        assert_eq!(peer.next().await.map(|frame| frame.sequence), Some(100 + sequence), "not before the store has spoken");
        reports.ack.send(durable).expect("the session waits for it");
    }
    let answer = peer.next().await.expect("it is answered");
    assert_eq!((answer.command, answer.status, answer.sequence), (0x8000_0005, 0, 10));
}

#[tokio::test]
async fn a_slow_store_slows_the_smsc_and_costs_no_answer() {
    let mut rig = rig(|_, account| account.answer_timeout = Duration::from_secs(2)).await;
    let mut peer = rig.bound().await;
    let (chunk, given) = chunk([1]);
    rig.account.submit(chunk).await.expect("it is open");
    let (submitted, _) = peer.submit().await;
    let sent = 3 * HELD_MAX as u32;
    // The answer lies behind more receipts than a session holds.
    let server = tokio::spawn(async move {
        for sequence in 1..=sent {
            peer.send(5, 0, sequence, &receipt(sequence)).await;
        }
        peer.take(submitted, "x").await;
        let mut acknowledged = 0;
        while acknowledged < sent {
            match peer.next().await.expect("the session lives").command {
                0x8000_0005 => acknowledged += 1,
                command => assert_eq!(command, 0x15),
            }
        }
    });
    let mut stored = 0;
    let mut first = true;
    while stored < sent {
        let reports = within(rig.reports.recv()).await.expect("the account lives");
        if std::mem::take(&mut first) {
            // Longer than an answer is waited for: the session must not judge what it did not read.
            tokio::time::sleep(Duration::from_millis(2_600)).await;
        }
        stored += reports.reports.len() as u32;
        reports.ack.send(true).expect("the session waits for it");
    }
    within(server).await.expect("all receipts are acknowledged");
    assert_eq!(all_answers(given).await[&(1, 0)], super::accepted("x"));
}
