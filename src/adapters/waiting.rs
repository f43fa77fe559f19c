//! The chunks that wait for an account: one bounded queue that all its sessions take from.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::model::account::LongMessage;
use crate::model::answer::Answer;
use crate::model::text;
use crate::model::window::{Answered, all_parts};
use crate::ports::clock::Clock;
use crate::ports::provider::{Chunk, Submit};

/// What the messages of one chunk share.
pub struct Ticket {
    send_by: Duration,
    stop: CancellationToken,
    answers: mpsc::UnboundedSender<Vec<Answered>>,
}

impl Ticket {
    /// What the messages of a chunk share.
    pub fn new(send_by: Duration, stop: CancellationToken, answers: mpsc::UnboundedSender<Vec<Answered>>) -> Ticket {
        Ticket { send_by, stop, answers }
    }

    /// Whether its messages may still be handed over at this time of the boot clock.
    pub fn may_send(&self, boot: Duration) -> bool {
        self.in_time(boot) && !self.stop.is_cancelled()
    }

    /// Whether its time is not over, stopped or not.
    pub fn in_time(&self, boot: Duration) -> bool {
        boot <= self.send_by
    }

    /// How long its messages may still be handed over.
    pub fn left(&self, boot: Duration) -> Duration {
        self.send_by.saturating_sub(boot)
    }

    /// Hands answers back. Nobody listening is no error: a window may have been given up.
    pub fn answer(&self, answers: Vec<Answered>) {
        if !answers.is_empty() {
            let _ = self.answers.send(answers);
        }
    }

    /// Hands messages back that were never handed over.
    pub fn not_sent(&self, messages: impl IntoIterator<Item = Submit>, long: LongMessage) {
        let mut answers = Vec::new();
        for message in messages {
            let parts = text::split(&message.text, long).parts;
            answers.extend(asked(&message, parts).map(|part| Answered {
                seq: message.seq,
                part,
                parts,
                answer: Answer::NotSent,
            }));
        }
        self.answer(answers);
    }
}

/// The parts of a message that were asked for, when it has `parts`. One that asks only for parts it does not have (its text
/// split into more on another account) gives the first of these, so that it is never left without an answer.
pub fn asked(message: &Submit, parts: u8) -> impl Iterator<Item = u8> + use<> {
    let wanted = if message.parts == 0 { u32::MAX } else { message.parts };
    let there = wanted & all_parts(parts);
    let given = if there == 0 { 1 << wanted.trailing_zeros() } else { there };
    (0..32).filter(move |part| given & 1 << part != 0)
}

struct Waiting {
    ticket: Arc<Ticket>,
    messages: VecDeque<Submit>,
}

#[derive(Default)]
struct State {
    chunks: VecDeque<Waiting>,
    messages: usize,
    closed: bool,
}

/// The queue.
pub struct Queue {
    state: Mutex<State>,
    /// Messages at which it is full.
    room: usize,
    long: LongMessage,
    /// Told when it has room again.
    roomy: Notify,
    /// Counts what was put in, so that a session never misses any.
    put: watch::Sender<u64>,
}

impl Queue {
    /// An empty queue that takes chunks while it holds fewer messages than `room`.
    pub fn new(room: usize, long: LongMessage) -> Queue {
        Queue { state: Mutex::default(), room: room.max(1), long, roomy: Notify::new(), put: watch::Sender::new(0) }
    }

    /// Wakes whenever something is put in.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.put.subscribe()
    }

    /// Puts a chunk in, as soon as there is room. Gives it back when the queue is closed; answers it at once when it is
    /// stopped or out of time before there is room.
    pub async fn put(&self, chunk: Chunk, clock: &dyn Clock) -> Result<(), Chunk> {
        loop {
            let roomy = self.roomy.notified();
            tokio::pin!(roomy);
            roomy.as_mut().enable();
            {
                let mut state = self.state();
                if state.closed {
                    return Err(chunk);
                }
                if state.messages < self.room {
                    state.messages += chunk.messages.len();
                    let ticket = Ticket::new(chunk.send_by, chunk.stop, chunk.answers);
                    state.chunks.push_back(Waiting { ticket: Arc::new(ticket), messages: chunk.messages.into() });
                    break;
                }
            }
            let left = chunk.send_by.saturating_sub(clock.boot());
            let expired = tokio::select! {
                biased;
                () = &mut roomy => false,
                () = chunk.stop.cancelled() => true,
                () = tokio::time::sleep(left) => true,
            };
            if expired {
                let ticket = Ticket::new(chunk.send_by, chunk.stop, chunk.answers);
                ticket.not_sent(chunk.messages, self.long);
                return Ok(());
            }
        }
        self.put.send_modify(|count| *count = count.wrapping_add(1));
        Ok(())
    }

    /// Takes up to `most` messages that may still be handed over; those that may not are answered.
    pub fn take(&self, most: usize, boot: Duration, into: &mut VecDeque<(Arc<Ticket>, Submit)>) {
        let mut refused = Vec::new();
        let mut state = self.state();
        while into.len() < most
            && let Some(front) = state.chunks.front_mut()
        {
            if !front.ticket.may_send(boot) {
                refused.extend(state.chunks.pop_front());
                continue;
            }
            let count = front.messages.len().min(most - into.len());
            let ticket = &front.ticket;
            into.extend(front.messages.drain(..count).map(|message| (ticket.clone(), message)));
            if front.messages.is_empty() {
                state.chunks.pop_front();
            }
        }
        self.settle(state, into.len(), refused);
    }

    /// Puts messages back to the front, in their order, because their session cannot send them.
    pub fn put_back(&self, messages: impl DoubleEndedIterator<Item = (Arc<Ticket>, Submit)>) {
        let mut state = self.state();
        let mut refused = Vec::new();
        let mut count = 0;
        for (ticket, message) in messages.rev() {
            if state.closed {
                refused.push(Waiting { ticket, messages: VecDeque::from([message]) });
                continue;
            }
            count += 1;
            match state.chunks.front_mut() {
                Some(front) if Arc::ptr_eq(&front.ticket, &ticket) => front.messages.push_front(message),
                _ => state.chunks.push_front(Waiting { ticket, messages: VecDeque::from([message]) }),
            }
        }
        state.messages += count;
        drop(state);
        self.refuse(refused);
        if count > 0 {
            self.put.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Answers what was stopped or is out of time, also while no session takes anything.
    pub fn sweep(&self, boot: Duration) {
        let mut state = self.state();
        let mut refused = Vec::new();
        for waiting in std::mem::take(&mut state.chunks) {
            if waiting.ticket.may_send(boot) {
                state.chunks.push_back(waiting);
            } else {
                refused.push(waiting);
            }
        }
        self.settle(state, 0, refused);
    }

    /// Takes nothing any more and answers what waits.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let refused = std::mem::take(&mut state.chunks).into();
        self.settle(state, 0, refused);
        self.roomy.notify_waiters();
    }

    /// Counts what left, and does the rest outside the lock.
    fn settle(&self, mut state: MutexGuard<'_, State>, taken: usize, refused: Vec<Waiting>) {
        let left = taken + refused.iter().map(|waiting| waiting.messages.len()).sum::<usize>();
        let was_full = state.messages >= self.room;
        state.messages -= left;
        let roomy = was_full && state.messages < self.room;
        drop(state);
        if roomy {
            self.roomy.notify_waiters();
        }
        self.refuse(refused);
    }

    fn refuse(&self, refused: Vec<Waiting>) {
        for waiting in refused {
            waiting.ticket.not_sent(waiting.messages, self.long);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often messages are looked for whose time is over while no session takes any.
const SWEEP_EVERY: Duration = Duration::from_millis(50);

/// Answers what was stopped or is out of time, until the account closes.
pub async fn sweep(queue: &Queue, clock: &dyn Clock, mut closing: watch::Receiver<Option<Instant>>) {
    let mut tick = tokio::time::interval(SWEEP_EVERY);
    loop {
        tokio::select! {
            biased;
            _ = closing.wait_for(Option::is_some) => return,
            _ = tick.tick() => queue.sweep(clock.boot()),
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.close();
    }
}
