//! Providers whose answers have no end.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::tests::{PATIENCE, account, all_answers, rig_of, within};
use crate::model::account::Account;
use crate::model::answer::Answer;
use crate::model::code::Code;

/// More than is read of any answer, and than lies in the buffers on the way.
pub(crate) const FLOOD: usize = 64 << 20;

/// Answers with a head and blanks behind it, in pieces, for ever: how many octets were taken until nobody took any more.
pub(crate) async fn pour(mut stream: TcpStream, head: &str, piece: usize, pause: Duration) -> usize {
    stream.write_all(head.as_bytes()).await.expect("it is read");
    let piece = format!("{piece:x}\r\n{}\r\n", " ".repeat(piece));
    let mut poured = 0;
    while poured < FLOOD && stream.write_all(piece.as_bytes()).await.is_ok() {
        poured += piece.len();
        tokio::time::sleep(pause).await;
    }
    poured
}

/// The head of an answer, and its beginning with an id.
fn head(status: u16) -> String {
    format!("HTTP/1.1 {status} x\r\ntransfer-encoding: chunked\r\n\r\na\r\n{{\"id\":\"x\"}}\r\n")
}

/// What an answer means that was not read whole: a yes may have been taken back in the rest, a no is one by its status alone.
fn cases() -> [(u16, Answer); 2] {
    [(200, Answer::NoAnswer), (404, Answer::Failed { code: Code::ProviderRefused, detail: "HTTP 404".into() })]
}

#[tokio::test]
async fn an_answer_without_end_is_read_to_a_size_and_its_connection_dropped() {
    // No time ends it.
    let rig = rig_of(Account { answer_timeout: 10 * PATIENCE, ..account() }, |_| {}).await;
    for (status, expected) in cases() {
        let given = rig.submit(0..1).await;
        let (came, head) = (rig.request().await, head(status));
        let pouring = within(pour(came.stream, &head, 256 << 10, Duration::ZERO));
        let (answers, poured) = tokio::join!(all_answers(given), pouring);
        assert_eq!(answers, [expected], "{status}");
        assert!(poured < FLOOD, "{status}: nobody stopped it after {poured} octets");
    }
}

#[tokio::test]
async fn an_answer_that_dribbles_for_ever_ends_by_the_time_of_an_answer() {
    let rig = rig_of(Account { answer_timeout: Duration::from_secs(1), ..account() }, |_| {}).await;
    for (status, expected) in cases() {
        let given = rig.submit(0..1).await;
        let (came, head) = (rig.request().await, head(status));
        // Each octet comes long before the time is over.
        let pouring = within(pour(came.stream, &head, 1, Duration::from_millis(20)));
        let (answers, _) = tokio::join!(all_answers(given), pouring);
        assert_eq!(answers, [expected], "{status}");
    }
}
