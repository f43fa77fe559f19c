//! The HTTP side: keys, refusals, callbacks, and the pages that steer.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::client::{post, start_with_receipts as start, until};

const ONE: &str = r#"{"to":"8613800138000","text":"Hello 😀","from":"Shop","key":"k1"}"#;

fn body(answer: &str) -> serde_json::Value {
    serde_json::from_str(answer.split("\r\n\r\n").nth(1).expect("a body")).expect("JSON")
}

#[tokio::test]
async fn a_key_gets_its_first_answer_again() {
    let simulator = start(|config| {
        config.http_token = "t0ken".to_owned();
        config.keep_texts = true;
    })
    .await;
    let token = "Authorization: Bearer t0ken\r\n";
    assert_eq!(post(&simulator, "/messages", "", ONE).await.0, 401);
    let (first, second) = (post(&simulator, "/messages", token, ONE).await, post(&simulator, "/messages", token, ONE).await);
    assert_eq!((first.0, body(&first.1)), (200, body(&second.1)));
    let batch = format!(r#"[{ONE},{{"to":"+861","text":"a"}},{{"to":"x","text":"a"}}]"#);
    let keyed = format!("{token}Idempotency-Key: b1\r\n");
    let (first, second) =
        (post(&simulator, "/messages", &keyed, &batch).await, post(&simulator, "/messages", &keyed, &batch).await);
    assert_eq!(body(&first.1), body(&second.1));
    let statuses: Vec<_> = body(&first.1).as_array().expect("an array").iter().map(|item| item["status"].clone()).collect();
    assert_eq!(statuses, ["accepted", "accepted", "refused"]);
    assert_eq!(post(&simulator, "/messages", token, "{}").await.0, 400);
    let report = simulator.report();
    assert_eq!((report.complete_messages, report.repeated_numbers, report.http.replayed), (2, 0, 3));
    assert_eq!(simulator.texts(8_613_800_138_000), ["Hello 😀"]);
}

#[tokio::test]
async fn refusals_have_their_status_and_nothing_is_remembered_that_did_not_happen() {
    let simulator = start(|_| {}).await;
    let cases = [
        (r#"{"transient_share":1.0}"#, 503, "retry-after: 1"),
        (r#"{"transient_share":0.0,"permanent_share":1.0}"#, 400, ""),
        (r#"{"permanent_share":0.0,"queue_full_share":1.0}"#, 429, "retry-after: 1"),
        (r#"{"queue_full_share":0.0,"lost_answer_share":1.0}"#, 500, ""),
    ];
    for (nth, (faults, status, header)) in cases.into_iter().enumerate() {
        assert_eq!(post(&simulator, "/faults", "", faults).await.0, 200);
        let message = format!(r#"{{"to":"{nth}","text":"a","key":"k{nth}"}}"#);
        let (answered, answer) = post(&simulator, "/messages", "", &message).await;
        assert_eq!(answered, status, "{faults}");
        assert!(answer.contains(header), "{answer}");
    }
    assert_eq!(post(&simulator, "/faults", "", r#"{"lost_answer_share":0.0}"#).await.0, 200);
    for (nth, status) in [(0, 200), (1, 400), (2, 200), (3, 200)] {
        simulator.set_faults(Default::default()).expect("good faults");
        let message = format!(r#"{{"to":"{nth}","text":"a","key":"k{nth}"}}"#);
        assert_eq!(post(&simulator, "/messages", "", &message).await.0, status, "message {nth} again");
    }
    let report = simulator.report();
    assert_eq!((report.complete_messages, report.repeated_numbers, report.lost_answers), (3, 0, 1));
}

#[tokio::test]
async fn a_rate_is_answered_with_retry_after() {
    let simulator = start(|config| (config.faults.rate, config.http.throttle_status) = (10, 503)).await;
    let message = r#"{"to":"1","text":"a"}"#;
    assert_eq!(post(&simulator, "/messages", "", message).await.0, 200);
    let (status, answer) = post(&simulator, "/messages", "", message).await;
    assert_eq!(status, 503);
    assert!(answer.contains("retry-after: 1"), "{answer}");
    assert_eq!(simulator.report().throttled, 1);
}

#[tokio::test]
async fn receipts_are_pushed_until_they_are_taken() {
    let callback = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/in?a=b", callback.local_addr().expect("an address"));
    let simulator = start(|config| {
        config.http.callback_connections = 1;
        config.http.callback_retry_ms = 1;
    })
    .await;
    simulator.set_callback(&url, "secret").expect("a good address");
    assert_eq!(post(&simulator, "/messages", "", ONE).await.0, 200);
    let mut bodies = Vec::new();
    for status in ["500 No", "200 OK"] {
        let (mut stream, _) = callback.accept().await.expect("a callback");
        let mut read = vec![0; 4_096];
        let mut text = String::new();
        while !text.ends_with('}') {
            let octets =
                tokio::time::timeout(Duration::from_secs(5), stream.read(&mut read)).await.expect("in time").expect("data");
            text.push_str(&String::from_utf8_lossy(&read[..octets]));
        }
        assert!(text.starts_with("POST /in?a=b HTTP/1.1\r\n") && text.contains("authorization: Bearer secret\r\n"), "{text}");
        bodies.push(body(&text));
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.expect("it reads");
    }
    assert_eq!(bodies[0], bodies[1]);
    assert_eq!((&bodies[0]["key"], &bodies[0]["status"]), (&"k1".into(), &"DELIVRD".into()));
    until(&simulator, |report| report.receipts.acknowledged == 1).await;
    let report = simulator.stop().await;
    assert_eq!((report.http.callbacks, report.http.callbacks_failed, report.receipts.resent), (2, 1, 1));
}

#[tokio::test]
async fn a_request_may_hang_and_its_key_still_tells_what_happened() {
    let simulator = start(|config| config.faults.no_answer_share = 1.0).await;
    let hanging = tokio::time::timeout(Duration::from_millis(100), post(&simulator, "/messages", "", ONE)).await;
    assert!(hanging.is_err(), "it was answered");
    assert_eq!(simulator.report().unanswered, 1);
    assert_eq!(post(&simulator, "/messages", "", ONE).await.0, 200);
    assert_eq!(simulator.report().complete_messages, 1);
    let started = std::time::Instant::now();
    simulator.stop().await;
    assert!(started.elapsed() < Duration::from_secs(3));
}
