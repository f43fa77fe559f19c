//! A span: open while its work is done, handed to the exporter when it is dropped.

use std::time::{Duration, SystemTime};

use super::export::Ended;
use super::piece::Piece;
use super::{place, recorder};
use crate::model::code::Code;
use crate::model::trace::TraceParent;

/// What is noted of a span. There is no place for a text that somebody wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A count, or a place.
    Number(u64),
    /// One of a closed set.
    Word(&'static str),
    /// The name of an account or a worker, as the configuration has it.
    Name(String),
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Number(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Value {
        Value::Number(u64::from(number))
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Value {
        Value::Number(number as u64)
    }
}

impl From<&'static str> for Value {
    fn from(word: &'static str) -> Value {
        Value::Word(word)
    }
}

impl From<&String> for Value {
    fn from(name: &String) -> Value {
        Value::Name(name.clone())
    }
}

/// Work that is being done. One that is not followed is empty and costs nothing.
#[derive(Debug, Default)]
pub struct Span(Option<Box<Ended>>);

impl Span {
    /// Begins a batch's first span.
    pub fn root(piece: Piece) -> Span {
        match place(piece) {
            Some(own) => Span::open(piece, own, None),
            None => Span(None),
        }
    }

    /// Begins a span below `parent`; an empty one when there is none, or nothing is followed here.
    pub fn begin(piece: Piece, parent: Option<TraceParent>) -> Span {
        let Some(parent) = parent.filter(|parent| parent.sampled) else { return Span(None) };
        match TraceParent::new(parent.trace_id, piece.id(), true) {
            Some(own) if recorder().is_some() => Span::open(piece, own, Some(parent.span_id)),
            _ => Span(None),
        }
    }

    /// The same, with work that began so long ago.
    pub fn begun(piece: Piece, parent: Option<TraceParent>, ago: Duration) -> Span {
        let mut span = Span::begin(piece, parent);
        if let Some(open) = &mut span.0 {
            open.began = open.began.checked_sub(ago).unwrap_or(open.began);
        }
        span
    }

    fn open(piece: Piece, own: TraceParent, parent: Option<u64>) -> Span {
        let (began, name) = (SystemTime::now(), piece.name());
        Span(Some(Box::new(Ended { own, parent, name, began, ended: None, notes: vec![], links: vec![], failed: None })))
    }

    /// Whether it is followed.
    pub fn is_followed(&self) -> bool {
        self.0.is_some()
    }

    /// Its place, for what it causes.
    pub fn place(&self) -> Option<TraceParent> {
        self.0.as_ref().map(|open| open.own)
    }

    /// Notes something.
    pub fn note(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(open) = &mut self.0 {
            let value = value.into();
            match open.notes.iter_mut().find(|(known, _)| *known == name) {
                Some(known) => known.1 = value,
                None => open.notes.push((name, value)),
            }
        }
    }

    /// Names another piece of the same trace that led to this one without being its parent.
    pub fn link(&mut self, piece: Piece) {
        if let Some(open) = &mut self.0 {
            open.links.push(piece.id());
        }
    }

    /// Says that the work failed.
    pub fn failed(&mut self, code: Code) {
        if let Some(open) = &mut self.0 {
            open.failed = Some(code);
        }
    }

    /// Records nothing: the work turned out to be done before.
    pub fn forget(&mut self) {
        self.0 = None;
    }

    /// Sets the end to now, though it is dropped later.
    pub fn end_now(&mut self) {
        if let Some(open) = &mut self.0 {
            open.ended = Some(SystemTime::now());
        }
    }

    /// A span of log lines: those written inside carry its ids.
    pub fn lines(&self) -> tracing::Span {
        match &self.0 {
            // At the level of errors, so that no filter takes the ids from a line that it lets through.
            Some(open) => tracing::error_span!(
                "trace",
                trace_id = %format_args!("{:032x}", open.own.trace_id),
                span_id = %format_args!("{:016x}", open.own.span_id)
            ),
            None => tracing::Span::none(),
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(open) = self.0.take()
            && let Some(recorder) = recorder()
        {
            recorder.exporter.take(*open);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::BatchId;

    #[test]
    fn nothing_is_recorded_where_nothing_is_followed() {
        let parent = TraceParent::new(1, 2, true);
        for mut span in [Span::root(Piece::Create(BatchId(1))), Span::begin(Piece::Plan(BatchId(1)), parent)] {
            span.note("records", 1u64);
            span.failed(Code::Internal);
            assert!(!span.is_followed() && span.place().is_none() && span.lines().is_none());
        }
    }
}
