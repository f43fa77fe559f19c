//! Recipients as a stream of lines, in bounded memory: JSON Lines or CSV.

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;

use super::guard;
use crate::model::code::{Code, Fault};
use crate::statistics::{RecipientLine, RecipientPages};

/// How recipients are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line, history included.
    #[default]
    Jsonl,
    /// One line a recipient, for spreadsheets; the history is one field.
    Csv,
}

impl Format {
    /// Reads `jsonl` or `csv`.
    pub fn from_word(word: &str) -> Result<Format, Fault> {
        match word.to_ascii_lowercase().as_str() {
            "jsonl" | "json" | "ndjson" => Ok(Format::Jsonl),
            "csv" => Ok(Format::Csv),
            _ => Err(Fault::new(Code::InputInvalid, format!("format {word:?} is not jsonl or csv"))),
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Format::Jsonl => "application/x-ndjson",
            Format::Csv => "text/csv; charset=utf-8",
        }
    }
}

/// The columns of the CSV form.
const COLUMNS: [&str; 15] = [
    "number",
    "record",
    "line",
    "outcome",
    "code",
    "detail",
    "delivery",
    "account",
    "message_ids",
    "segments",
    "history",
    "text",
    "clicks",
    "machine_clicks",
    "first_click",
];

/// Streams a listing. An error in the middle breaks the stream off, so that nobody takes half a list for a whole one.
pub fn respond(pages: RecipientPages, format: Format) -> Response {
    let state = (pages, format == Format::Csv);
    let body = stream::try_unfold(state, move |(mut pages, header)| async move {
        if header {
            let mut first = String::new();
            guard::line(&mut first, COLUMNS);
            return Ok(Some((Bytes::from(first), (pages, false))));
        }
        // Between two pages others have a turn: a long list comes from memory to a good part, and who asks for little would
        // wait for the end of it.
        tokio::task::yield_now().await;
        match pages.next().await {
            Ok(Some(lines)) => Ok(Some((Bytes::from(written(&lines, format)), (pages, false)))),
            Ok(None) => Ok(None),
            Err(error) => {
                tracing::error!(code = %error.code(), %error, "a listing of recipients broke off");
                Err(error)
            }
        }
    });
    ([(header::CONTENT_TYPE, format.content_type())], Body::from_stream(body)).into_response()
}

/// Bytes that a line has, more or less: with less room a long piece would be moved again and again while it grows.
const LINE: usize = 512;

/// Lines in a format.
fn written(lines: &[RecipientLine], format: Format) -> Vec<u8> {
    match format {
        Format::Jsonl => {
            let mut bytes = Vec::with_capacity(lines.len() * LINE);
            for line in lines {
                // Of all that JSON cannot say a line has nothing, and a vector takes everything.
                let _ = serde_json::to_writer(&mut bytes, line);
                bytes.push(b'\n');
            }
            bytes
        }
        Format::Csv => {
            let mut text = String::with_capacity(lines.len() * LINE);
            lines.iter().for_each(|line| csv_line(&mut text, line));
            text.into_bytes()
        }
    }
}

fn csv_line(text: &mut String, line: &RecipientLine) {
    let history: Vec<String> = line
        .history
        .iter()
        .map(|event| format!("{} {} {} {}", event.at, event.what, event.message_id, event.detail).trim_end().to_owned())
        .collect();
    guard::line(
        text,
        [
            line.number.as_str(),
            &line.record.to_string(),
            &line.line.to_string(),
            line.outcome.name(),
            line.code.map_or("", Code::as_str),
            &line.detail,
            line.delivery.map_or("", |delivery| delivery.name()),
            line.account.as_deref().unwrap_or(""),
            &line.message_ids.join(" "),
            &line.segments.to_string(),
            &history.join(" | "),
            line.text.as_deref().unwrap_or(""),
            &line.clicks.to_string(),
            &line.machine_clicks.to_string(),
            line.first_click.as_deref().unwrap_or(""),
        ],
    );
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::model::answer::Answer;
    use crate::model::outcome::Outcome;
    use crate::model::time::Timestamp;
    use crate::statistics::tests::Hand;
    use crate::statistics::{Event, RecipientFilter};

    #[tokio::test]
    async fn the_head_of_a_listing_comes_before_anybody_was_found() {
        // All of them are in doubt: each pack has to be read, and nobody fits.
        let (mut hand, packs) = (Hand::new(3_000, 0, 0, vec![]), 1_000);
        hand.answers((0..3_000).map(|seq| (seq, 0, 1, Answer::NoAnswer)).collect());
        let (fake, hand) = (hand.fake.clone(), Arc::new(hand));
        let list = move || {
            let (stores, row, accounts) = (hand.fake.stores(), hand.row.clone(), Arc::new(hand.accounts.clone()));
            let filter = RecipientFilter::from_words("accepted".split(',')).expect("a word");
            async move {
                let pages = RecipientPages::new(stores, row, accounts, filter, Timestamp(0)).await.expect("the fake answers");
                respond(pages, Format::Jsonl)
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port of our own");
        let at = listener.local_addr().expect("it is bound");
        let app = axum::Router::new().route("/", axum::routing::get(list));
        let serving = tokio::spawn(async move { axum::serve(listener, app).await });
        let mut client = tokio::net::TcpStream::connect(at).await.expect("it listens");
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.expect("asked");
        let mut head = [0; 15];
        client.read_exact(&mut head).await.expect("a head");
        let read = fake.rows().read.0.len();
        assert!(head == *b"HTTP/1.1 200 OK" && read < packs / 2, "the head came when {read} packs had been read");
        let mut rest = String::new();
        client.read_to_string(&mut rest).await.expect("the whole answer");
        assert!(rest.ends_with("\r\n\r\n0\r\n\r\n"), "nobody is in it: {rest}");
        assert_eq!(fake.rows().read.0.len(), packs);
        serving.abort();
    }

    #[test]
    fn a_recipient_is_one_line_in_both_formats() {
        let line = RecipientLine {
            number: "=cmd".into(),
            record: 3,
            line: 5,
            outcome: Outcome::Failed,
            code: Some(Code::ProviderRefused),
            detail: "0x0000000B".into(),
            delivery: None,
            account: Some("a".into()),
            message_ids: vec![],
            segments: 1,
            text: None,
            clicks: 0,
            machine_clicks: 0,
            first_click: None,
            history: vec![Event { at: "T".into(), what: "failed".into(), ..Event::default() }],
        };
        let csv = written(std::slice::from_ref(&line), Format::Csv);
        let csv = String::from_utf8(csv).expect("text");
        assert_eq!(csv, "'=cmd,3,5,failed,SF-5001,0x0000000B,,a,,1,T failed,,0,0,\r\n");
        assert_eq!(csv.matches(',').count(), COLUMNS.len() - 1);
        let json = written(std::slice::from_ref(&line), Format::Jsonl);
        assert_eq!(serde_json::from_slice::<RecipientLine>(&json).expect("it reads back"), line);
        assert_eq!(json.iter().filter(|byte| **byte == b'\n').count(), 1);
    }
}
