//! Messages on their way into a session's window: taken off the queue, encoded, and put into the write buffer part by part.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rusmpp::pdus::SubmitSm;
use tokio::time::Instant;

use super::core::Core;
use super::window::{Part, Window};
use crate::adapters::waiting::{Ticket, asked};
use crate::model::answer::Answer;
use crate::model::code::Code;
use crate::model::text::{self, Encoded};
use crate::ports::provider::Submit;

/// Octets put into the write buffer at once at most.
const WRITE_MAX: usize = 256 * 1024;
/// Messages taken off the queue at once at most.
const TAKE_MAX: usize = 1_024;
/// Octets of one part's text at most: a parameter's length has 16 bits.
const PAYLOAD_MAX: usize = 60_000;

/// What a session took off the queue and has not written whole.
#[derive(Default)]
pub struct Outgoing {
    partial: Option<Partial>,
    spare: VecDeque<(Arc<Ticket>, Submit)>,
}

/// A message of several parts, some of which are not written.
struct Partial {
    ticket: Arc<Ticket>,
    message: Submit,
    encoded: Encoded,
    submit: SubmitSm,
    /// The parts still to write, the next one last.
    parts: Vec<u8>,
}

impl Outgoing {
    /// Fills the window from the queue; all of it is written together.
    pub fn fill(&mut self, core: &Core, window: &mut Window, now: Instant) {
        let boot = core.clock.boot();
        loop {
            self.continue_partial(core, window, now, boot);
            if self.partial.is_some() || window.room() == 0 || window.out.len() >= WRITE_MAX {
                break;
            }
            if self.spare.is_empty() {
                core.queue.take(window.room().min(TAKE_MAX), boot, &mut self.spare);
            }
            match self.spare.pop_front() {
                Some((ticket, message)) => self.start(core, window, ticket, message, now),
                None => break,
            }
        }
        if !self.spare.is_empty() {
            core.queue.put_back(self.spare.drain(..));
        }
    }

    /// Gives the rest of a message back whose time is over.
    pub fn drop_late(&mut self, core: &Core, window: &mut Window) {
        if self.partial.as_ref().is_some_and(|partial| !partial.ticket.may_send(core.clock.boot())) {
            self.give_back(window);
        }
    }

    /// Gives the rest of a message back.
    pub fn give_back(&mut self, window: &mut Window) {
        if let Some(partial) = self.partial.take() {
            let total = partial.encoded.parts.len() as u8;
            for part in partial.parts {
                let part = Part { ticket: partial.ticket.clone(), seq: partial.message.seq, part, parts: total };
                window.give(part, Answer::NotSent);
            }
        }
    }

    /// Encodes a message. A single part is written at once; several become the partial message.
    fn start(&mut self, core: &Core, window: &mut Window, ticket: Arc<Ticket>, message: Submit, now: Instant) {
        let capabilities = &core.account.capabilities;
        let encoded = text::encode(&message.text, capabilities.long_message);
        let total = u8::try_from(encoded.parts.len()).unwrap_or(u8::MAX);
        let mut parts: Vec<u8> = asked(&message, total).collect();
        let submit = if total > capabilities.parts_max {
            Err("too many parts")
        } else if parts.iter().any(|part| *part >= total) {
            Err("no such part")
        } else if encoded.parts.iter().any(|part| part.octets.len() > PAYLOAD_MAX) {
            Err("too long")
        } else {
            core.template.message(&message, encoded.encoding)
        };
        let submit = match submit {
            Ok(submit) => submit,
            Err(why) => {
                for part in parts {
                    let part = Part { ticket: ticket.clone(), seq: message.seq, part, parts: total };
                    window.give(part, Answer::Failed { code: Code::NotEncodable, detail: why.into() });
                }
                return;
            }
        };
        if total == 1 {
            let part = Part { ticket, seq: message.seq, part: 0, parts: 1 };
            put_part(core, window, part, submit, &encoded, message.reference, now);
        } else {
            parts.reverse();
            self.partial = Some(Partial { ticket, message, encoded, submit, parts });
        }
    }

    /// Writes parts of the partial message while there is room; none when its time is over.
    fn continue_partial(&mut self, core: &Core, window: &mut Window, now: Instant, boot: Duration) {
        let Some(partial) = &mut self.partial else { return };
        if !partial.ticket.may_send(boot) {
            self.give_back(window);
            return;
        }
        let total = partial.encoded.parts.len() as u8;
        while window.room() > 0
            && let Some(part) = partial.parts.pop()
        {
            let part = Part { ticket: partial.ticket.clone(), seq: partial.message.seq, part, parts: total };
            put_part(core, window, part, partial.submit.clone(), &partial.encoded, partial.message.reference, now);
        }
        if partial.parts.is_empty() {
            self.partial = None;
        }
    }
}

fn put_part(core: &Core, window: &mut Window, part: Part, submit: SubmitSm, encoded: &Encoded, reference: u16, now: Instant) {
    let sequence = window.sequence();
    let which = usize::from(part.part);
    let length = core.template.put_part(&mut window.out, submit, encoded, which, reference, sequence);
    window.add(sequence, part, length, now);
}
