//! Answers that go wrong: as the fate says, and no other way.

use std::time::{Duration, Instant};

use super::client::{Client, start, until};
use crate::simulator::pdu::tests::submit_body;
use crate::simulator::pdu::{self, command, status};
use crate::simulator::{AnswerFate, Delay, Faults, IdStyle, fate};

#[tokio::test]
async fn answers_are_those_that_the_fate_tells() {
    let simulator = start(|config| {
        config.faults.permanent_share = 0.2;
        config.faults.transient_share = 0.3;
        config.faults.no_answer_share = 0.1;
    })
    .await;
    let config = simulator.config();
    let mut client = Client::bound(&simulator).await;
    let mut accepted = 0;
    for sequence in 0..600u32 {
        let (number, occurrence) = (u64::from(sequence % 300) + 1, sequence / 300);
        let fate = fate(&config, number, occurrence).answer;
        accepted += u64::from(fate.is_accepted());
        client.submit(sequence, number).await;
        let expected = match fate {
            AnswerFate::Accepted => status::OK,
            AnswerFate::Permanent(code) | AnswerFate::Transient(code) => code,
            AnswerFate::NoAnswer => continue,
            fate => panic!("{fate:?} was not asked for"),
        };
        assert_eq!(client.read_answer(sequence).await.0, expected, "submit {sequence}");
    }
    until(&simulator, |report| report.accepted_segments == accepted && report.unanswered > 10).await;
    let report = simulator.report();
    assert_eq!(report.answered_accepted + report.unanswered, accepted);
    assert_eq!(report.statuses.values().sum::<u64>(), 600 - accepted);
    for row in simulator.numbers() {
        let fates = [0, 1].map(|occurrence| fate(&config, row.number, occurrence).answer);
        let of = |is: fn(&AnswerFate) -> bool| fates.iter().filter(|fate| is(fate)).count() as u16;
        let (for_good, for_now) =
            (of(|fate| matches!(fate, AnswerFate::Permanent(_))), of(|fate| matches!(fate, AnswerFate::Transient(_))));
        assert_eq!((row.refused, row.not_now()), (for_good, for_now), "{}", row.number);
    }
}

#[tokio::test]
async fn a_rate_is_kept_within_two_percent() {
    const RATE: u64 = 4_000;
    let simulator = start(|config| config.faults.rate = RATE as u32).await;
    let mut client = Client::bound(&simulator).await;
    let started = Instant::now();
    let (mut accepted, mut sequence) = (0u64, 0);
    while started.elapsed() < Duration::from_millis(1_500) {
        for _ in 0..50 {
            client.submit(sequence, 123).await;
            sequence += 1;
        }
        for behind in (0..50).rev() {
            accepted += u64::from(client.read_answer(sequence - 1 - behind).await.0 == status::OK);
        }
    }
    let allowed = RATE as f64 * started.elapsed().as_secs_f64();
    let burst = RATE as f64 * 0.1;
    let is_within = accepted as f64 >= allowed * 0.98 && accepted as f64 <= allowed * 1.02 + burst;
    assert!(is_within, "{accepted} where {allowed} were allowed");
    let report = simulator.report();
    assert_eq!(report.submits, report.throttled + report.accepted_segments);
    assert_eq!(report.throttled, report.statuses["0x00000058"]);
    assert_eq!(simulator.number(123).map(|row| u64::from(row.submits)), Some(accepted), "throttled ones are no occurrence");
}

#[tokio::test]
async fn a_full_handset_is_full_for_a_while() {
    let simulator = start(|config| {
        config.faults.queue_full_share = 1.0;
        config.faults.queue_full_ms = 150;
    })
    .await;
    let mut client = Client::bound(&simulator).await;
    let started = Instant::now();
    let body = submit_body("123", 0, 0, b"a", &[]);
    assert_eq!(client.ask(1, &body).await.0, status::QUEUE_FULL);
    while client.ask(1, &body).await.0 == status::QUEUE_FULL {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(started.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn a_lost_answer_is_an_accepted_message_and_nothing_behind_it_is_taken() {
    let simulator = start(|config| config.faults.lost_answer_share = 1.0).await;
    let mut client = Client::bound(&simulator).await;
    let mut octets = Vec::new();
    for sequence in 1..=3 {
        pdu::write(&mut octets, command::SUBMIT_SM, 0, sequence, |out| out.extend(submit_body("123", 0, 0, b"a", &[])));
    }
    client.write(&octets).await;
    assert!(client.read().await.is_none());
    until(&simulator, |report| report.sessions.dropped == 1).await;
    let report = simulator.report();
    assert_eq!((report.accepted_segments, report.lost_answers, report.answered_accepted), (1, 1, 0));
}

#[tokio::test]
async fn sessions_drop_after_n_submits_even_in_the_middle_of_an_answer() {
    for is_cut in [false, true] {
        let simulator = start(|config| {
            config.faults.drop_session_every = 3;
            config.faults.drop_mid_answer = is_cut;
        })
        .await;
        let mut client = Client::bound(&simulator).await;
        for sequence in 1..=3 {
            client.submit(sequence, 123).await;
        }
        let mut answers = 0;
        while client.read().await.is_some() {
            answers += 1;
        }
        assert_eq!(answers, if is_cut { 2 } else { 3 });
        assert_eq!(simulator.report().accepted_segments, 3);
        simulator.stop().await;
    }
}

#[tokio::test]
async fn latency_delays_answers_and_the_window_is_watched() {
    let simulator = start(|config| {
        config.faults.latency = Delay::always(40, 40);
        config.window = 10;
    })
    .await;
    let mut client = Client::bound(&simulator).await;
    let started = Instant::now();
    for sequence in 0..12 {
        client.submit(sequence, 123).await;
    }
    for sequence in [10, 11] {
        assert_eq!(client.read_answer(sequence).await.0, status::THROTTLED, "those out of the window are answered at once");
    }
    for sequence in 0..10 {
        assert_eq!(client.read_answer(sequence).await.0, status::OK);
    }
    assert!(started.elapsed() >= Duration::from_millis(40));
    assert_eq!(simulator.report().out_of_window, 2);
    client.submit(12, 123).await;
    until(&simulator, |report| report.accepted_segments == 11).await;
    simulator.drop_sessions();
    assert!(client.read().await.is_none());
    let report = simulator.report();
    assert_eq!((report.answered_accepted, report.lost_answers), (10, 1), "the eleventh answer was never given");
}

#[tokio::test]
async fn faults_change_while_it_runs_and_ids_repeat_after_a_restart() {
    let simulator = start(|config| {
        config.ids.repeat_after_restart = true;
        config.ids.style = IdStyle::Hex;
        config.ids.pad_answer = 4;
    })
    .await;
    let mut client = Client::bound(&simulator).await;
    let body = submit_body("123", 0, 0, b"a", &[]);
    assert_eq!(client.ask(1, &body).await, (status::OK, "0001".to_owned()));
    simulator.set_faults(Faults { transient_share: 1.0, transient_codes: vec![0x64], ..Faults::default() }).expect("good faults");
    assert_eq!(client.ask(2, &body).await, (0x64, String::new()));
    simulator.set_faults(Faults { transient_share: 2.0, ..Faults::default() }).expect_err("a share above 1");
    simulator.set_faults(Faults::default()).expect("good faults");
    simulator.restart();
    assert!(client.read().await.is_none());
    let mut client = Client::bound(&simulator).await;
    assert_eq!(client.ask(1, &body).await, (status::OK, "0001".to_owned()));
    let config = simulator.config();
    simulator.stop().await;
    let again = crate::simulator::Simulator::start(config.clone()).await.expect("the port is free again");
    assert_eq!(again.smpp_addr(), config.smpp_listen);
    assert_eq!(Client::bound(&again).await.ask(1, &body).await.1, "0001");
}
