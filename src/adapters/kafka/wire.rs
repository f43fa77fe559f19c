//! What a message looks like: the house's frame of a small row (version byte, then postcard), and W3C `traceparent` in a
//! header; the mark is JSON behind a version byte. Version N reads what N + 1 adds, as with stored rows.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rdkafka::message::{BorrowedHeaders, Header, Headers, OwnedHeaders};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::adapters::rows::frame;
use crate::model::trace::TraceParent;
use crate::ports::meta::Left;

/// The form of a mark's body: this byte, then JSON.
const MARK_VERSION: u8 = 1;
/// The header's name in the W3C's standard.
pub(super) const TRACEPARENT: &str = "traceparent";

/// A message's body.
pub fn body<T: Serialize>(task: &T) -> Vec<u8> {
    frame::small(task)
}

/// Reads a body. The error says what is wrong with it, never what is in it.
pub fn task<T: DeserializeOwned>(body: Option<&[u8]>) -> Result<T, String> {
    frame::read_small("message", body.unwrap_or_default()).map_err(|error| error.to_string())
}

/// A mark's body.
pub fn mark_body(left: &Left) -> Vec<u8> {
    let json = serde_json::to_string(left).expect("a mark has only names as keys");
    [&[MARK_VERSION], frame::text(json).as_bytes()].concat()
}

/// Reads a mark's body; `None` when it is no mark.
pub fn mark(body: &[u8]) -> Option<Left> {
    match body.split_first() {
        Some((version, json)) if *version >= MARK_VERSION => serde_json::from_slice(json).ok(),
        _ => None,
    }
}

/// The headers of a message; none when it is not traced.
pub(super) fn headers(trace: Option<TraceParent>) -> Option<OwnedHeaders> {
    let text = trace?.to_string();
    Some(OwnedHeaders::new_with_capacity(1).insert(Header { key: TRACEPARENT, value: Some(&text) }))
}

/// Where in a trace a message belongs. A header that cannot be read is as good as none: nothing depends on it.
pub(super) fn trace(headers: Option<&BorrowedHeaders>) -> Option<TraceParent> {
    let headers = headers?;
    unless_it_panics(|| {
        let header = headers.iter().find(|header| header.key.eq_ignore_ascii_case(TRACEPARENT))?;
        std::str::from_utf8(header.value?).ok()?.parse().ok()
    })
}

/// The library panics at a header whose name is not UTF-8, which anybody who writes into the topic may send: that must not end the
/// member.
fn unless_it_panics<T>(read: impl FnOnce() -> Option<T>) -> Option<T> {
    catch_unwind(AssertUnwindSafe(read)).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::{BatchId, TaskCode};
    use crate::model::task::{PrepareTask, SmsBatchPartitionTask, TaskStatus};

    fn token() -> SmsBatchPartitionTask {
        SmsBatchPartitionTask {
            batch_primary_key: BatchId(7),
            partition_key: 5,
            slice: 300,
            task_code: TaskCode { batch: BatchId(7), number: 2 },
            status: TaskStatus::Queued,
        }
    }

    #[test]
    fn bodies_read_back_and_are_the_same_for_ever() {
        let bytes = body(&token());
        assert_eq!(bytes, [1, 7, 5, 0xac, 2, 7, 2, 0], "golden bytes");
        assert_eq!(task(Some(&bytes)), Ok(token()));
        let seal = PrepareTask::Seal { task_code: token().task_code, from: 0, to: 127 };
        assert_eq!(task(Some(&body(&seal))), Ok(seal));
    }

    #[test]
    fn a_later_version_is_read_and_a_broken_body_is_not() {
        let mut bytes = body(&token());
        bytes[0] += 1;
        bytes.extend_from_slice(b"more");
        assert_eq!(task(Some(&bytes)), Ok(token()));
        for broken in [None, Some(&[][..]), Some(&[0, 7, 5][..]), Some(&[1, 7][..]), Some(&b"+8613800138000"[..])] {
            let error = task::<SmsBatchPartitionTask>(broken).expect_err("it is broken");
            assert!(!error.contains("138"), "{error}");
        }
    }

    #[test]
    fn a_trace_travels_in_a_header() {
        assert!(headers(None).is_none());
        let parent = TraceParent::new(1, 2, true).expect("its ids are not 0");
        let written = headers(Some(parent)).expect("it is traced");
        assert_eq!(trace(Some(written.as_borrowed())), Some(parent));
        let strange = OwnedHeaders::new().insert(Header { key: TRACEPARENT, value: Some("x") });
        assert_eq!(trace(Some(strange.as_borrowed())), None);
        assert_eq!(trace(None), None);
        assert_eq!(unless_it_panics(|| -> Option<u8> { panic!("as the library does") }), None);
        assert_eq!(unless_it_panics(|| Some(1)), Some(1));
    }
}
