//! The spans of a window: its own, one of each chunk that is handed over, and one of each recipient that is followed.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::model::id::{RecipientKey, WindowKey};
use crate::model::ledger::OpenWindow;
use crate::model::pack::PackKey;
use crate::model::trace::TraceParent;
use crate::model::window::{Answered, RetryEntry};
use crate::ports::provider::Submit;
use crate::runtime::trace::{Piece, Span, follows};

/// A window that is followed, or not: then everything here is empty.
pub struct Followed {
    key: WindowKey,
    span: Mutex<Span>,
    /// Where each pack of the window's recipients begins.
    packs: BTreeMap<u32, PackKey>,
    /// Recipients that were tried before.
    again: Vec<u32>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    chunks: u32,
    messages: BTreeMap<u32, Span>,
}

impl Followed {
    /// Begins a window's span with its declare, which began so long `ago`. It has no pack for a parent, since it may take from
    /// several: these are linked.
    pub fn begin(
        key: WindowKey,
        window: &OpenWindow,
        entries: &[RetryEntry],
        packs: BTreeMap<u32, PackKey>,
        parent: Option<TraceParent>,
        ago: Duration,
    ) -> Followed {
        let mut span = Span::begun(Piece::Window(key), parent, ago);
        let mut again = vec![];
        if span.is_followed() {
            again.extend(entries.iter().filter(|entry| entry.tries > 0 || window.leg != 0).map(|entry| entry.seq));
            span.note("lane", u32::from(key.lane.lane));
            span.note("window", key.window);
            span.note("account", &window.account);
            span.note("recipients", entries.len());
            packs.values().for_each(|pack| span.link(Piece::Pack(*pack)));
        }
        Followed { key, span: Mutex::new(span), packs, again, open: Mutex::default() }
    }

    /// The span of its log lines.
    pub fn lines(&self) -> tracing::Span {
        self.span.lock().unwrap_or_else(PoisonError::into_inner).lines()
    }

    /// Begins the span of a chunk, and those of its recipients that are followed.
    pub fn chunk(&self, messages: &[Submit]) -> Span {
        let Some(place) = self.span.lock().unwrap_or_else(PoisonError::into_inner).place() else { return Span::default() };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut chunk = Span::begin(Piece::Submit(self.key, open.chunks), Some(place));
        open.chunks += 1;
        chunk.note("messages", messages.len());
        for message in messages {
            let recipient = RecipientKey { lane: self.key.lane, seq: message.seq };
            if !follows(recipient) {
                continue;
            }
            let piece = match self.again.binary_search(&message.seq) {
                Ok(_) => Piece::Again(recipient, self.key.window),
                Err(_) => Piece::Message(recipient),
            };
            let mut span = Span::begin(piece, chunk.place());
            span.note("lane", u32::from(self.key.lane.lane));
            span.note("place", message.seq);
            if let Some((_, pack)) = self.packs.range(..=message.seq).next_back() {
                span.link(Piece::Pack(*pack));
            }
            open.messages.insert(message.seq, span);
        }
        chunk
    }

    /// Takes in answers: the last one of a recipient is where its span ends.
    pub fn answered(&self, answers: &[Answered]) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.messages.is_empty() {
            return;
        }
        for answered in answers {
            if let Some(span) = open.messages.get_mut(&answered.seq) {
                span.note("parts", u32::from(answered.parts));
                span.note("answer", answered.answer.class());
                span.end_now();
            }
        }
    }

    /// Ends all of them.
    pub fn end(&self, answers: &[Answered]) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).messages.clear();
        let mut span = std::mem::take(&mut *self.span.lock().unwrap_or_else(PoisonError::into_inner));
        if span.is_followed() {
            let mut classes: BTreeMap<&'static str, u64> = BTreeMap::new();
            answers.iter().for_each(|answered| *classes.entry(answered.answer.class()).or_default() += 1);
            classes.into_iter().for_each(|(class, count)| span.note(class, count));
            tracing::info!(lane = %self.key.lane, window = self.key.window, answers = answers.len(), "a window has ended");
        }
    }
}
