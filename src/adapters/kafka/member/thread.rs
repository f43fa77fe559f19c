//! The thread of one member: polls without a pause, takes messages in, commits what is done, and carries out rebalances.
//!
//! It never waits for whoever receives the tokens: what it takes in is bounded by pausing single partitions.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::Offset;
use rdkafka::{ClientConfig, TopicPartitionList};
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64;

use super::Shared;
use super::context::{Rebalances, resume_and_let_go};
use super::standing::Standing;
use super::state::{State, Waiting};
use crate::adapters::kafka::contact::Contact;
use crate::adapters::kafka::{close_beside, wire};
use crate::runtime::metrics;
use crate::runtime::pulse::{self, ThreadPulse};
use crate::runtime::retry::Schedule;

/// One poll waits this long at most for a message.
const POLL: Duration = Duration::from_millis(100);
/// The same while partitions wait to be let go of.
const POLL_RELEASING: Duration = Duration::from_millis(5);
/// Messages taken in before the rest of the work is looked at.
const TAKE_AT_ONCE: usize = 500;
/// How often what is done is committed.
const COMMIT_EVERY: Duration = Duration::from_millis(200);
/// The same after a commit that failed.
const COMMIT_AGAIN: Duration = Duration::from_secs(1);
/// How often everything is resumed that should not be paused.
const RESUME_ALL_EVERY: Duration = Duration::from_secs(30);
/// How long it is asked who is in the group.
const NAMED_WITHIN: Duration = Duration::from_secs(2);
/// How long the places of new partitions are asked for.
const SETTLE_WITHIN: Duration = Duration::from_secs(2);

/// Why polling ended.
enum End {
    Left,
    /// The library gave this consumer up, or forgot it: another one is made.
    Fatal,
}

/// Works until the member leaves.
pub(super) fn run<T: DeserializeOwned + Send + 'static>(shared: &Arc<Shared<T>>, settings: &ClientConfig) {
    let seed = xxh3_64(settings.get("client.id").unwrap_or_default().as_bytes());
    let mut waits = Schedule::new(Duration::from_millis(200), Duration::from_secs(10), seed);
    let pulse = pulse::thread("queue's member");
    while !shared.is_leaving() {
        let began = Instant::now();
        let contact = Arc::new(Contact::new(format!("member of {}", shared.topic)));
        let context = Rebalances::new(shared.clone(), contact.clone());
        let joined = pulse.waits(|| settings.create_with_context::<_, BaseConsumer<Rebalances<T>>>(context));
        let joined = joined.and_then(|consumer| consumer.subscribe(&[&shared.topic]).map(|()| consumer));
        match joined {
            Ok(consumer) => {
                let (shared, last_error) = (shared.clone(), Cell::new(None));
                let (commit_at, resume_at) = (began, began + RESUME_ALL_EVERY);
                let (has_told, standing) = (false, Standing::new(began));
                let client_id = settings.get("client.id").unwrap_or_default();
                let mut member = Member {
                    shared,
                    consumer,
                    client_id,
                    contact,
                    commit_at,
                    resume_at,
                    has_told,
                    standing,
                    last_error,
                    pulse: &pulse,
                };
                let end = member.poll_until_the_end();
                pulse.waits(|| member.close());
                if matches!(end, End::Left) {
                    break;
                }
            }
            Err(error) => tracing::error!(%error, topic = shared.topic, "no member of the group can be made; it is tried again"),
        }
        if began.elapsed() > Duration::from_secs(60) {
            waits.begin_again();
        }
        let until = Instant::now() + waits.delay_for_ever();
        pulse.waits(|| {
            while Instant::now() < until && !shared.is_leaving() {
                std::thread::sleep(POLL);
            }
        });
    }
}

struct Member<'a, T: Send + 'static> {
    shared: Arc<Shared<T>>,
    consumer: BaseConsumer<Rebalances<T>>,
    /// The name by which the broker knows it.
    client_id: &'a str,
    contact: Arc<Contact>,
    commit_at: Instant,
    /// When everything is resumed again that should not be paused.
    resume_at: Instant,
    /// It was said that a partition stays paused.
    has_told: bool,
    standing: Standing,
    last_error: Cell<Option<RDKafkaErrorCode>>,
    pulse: &'a ThreadPulse,
}

impl<T: DeserializeOwned + Send + 'static> Member<'_, T> {
    fn poll_until_the_end(&mut self) -> End {
        loop {
            self.pulse.turns();
            if self.shared.is_leaving() {
                return End::Left;
            }
            let mut wait = if self.consumer.context().release_until().is_some() {
                POLL_RELEASING
            } else {
                self.commit_at.saturating_duration_since(Instant::now()).clamp(POLL_RELEASING, POLL)
            };
            for _ in 0..TAKE_AT_ONCE {
                match self.consumer.poll(wait) {
                    None => break,
                    Some(Ok(message)) => {
                        if let Some(partition) = self.take(&message) {
                            self.pause(partition);
                        }
                    }
                    Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                        tracing::error!(error = ?code, topic = self.shared.topic, "the member cannot go on; it joins anew");
                        return End::Fatal;
                    }
                    Some(Err(error)) => self.report(&error),
                }
                wait = Duration::ZERO;
            }
            self.settle();
            self.let_go_if_due();
            self.tell_of_new_logs();
            self.resume();
            self.commit_if_due();
            if self.is_forgotten() {
                tracing::warn!(topic = self.shared.topic, "the group does not know of the member any more; it joins anew");
                return End::Fatal;
            }
        }
    }

    /// Whether the member has had nothing for long, and its broker says that it is not in the group.
    fn is_forgotten(&mut self) -> bool {
        let has_partitions = self.shared.with(|state| state.has_partitions());
        if !self.standing.is_due(has_partitions, Instant::now()) {
            return false;
        }
        let group = &self.shared.topic;
        let listed = self.pulse.waits(|| self.consumer.fetch_group_list(Some(group), NAMED_WITHIN));
        let is_named = match &listed {
            Ok(listed) => {
                let mut of_it = listed.groups().iter().filter(|listed| listed.name() == group).peekable();
                of_it
                    .peek()
                    .is_some()
                    .then(|| of_it.flat_map(|listed| listed.members()).any(|member| member.client_id() == self.client_id))
            }
            Err(error) => {
                tracing::debug!(%error, topic = group, "who is in the group is not known");
                None
            }
        };
        self.standing.heard(is_named, Instant::now())
    }

    /// Takes a message in. Gives back its partition when that has to be paused.
    fn take(&self, message: &BorrowedMessage<'_>) -> Option<u8> {
        self.contact.works();
        self.last_error.set(None);
        let partition = u8::try_from(message.partition()).ok()?;
        let offset = u64::try_from(message.offset()).ok()?;
        let written = message.timestamp().to_millis();
        let is_full = match wire::task(message.payload()) {
            Ok(task) => {
                let waiting = Waiting { offset, written, task, trace: wire::trace(message.headers()) };
                self.shared.change(|state| state.received(partition, waiting))
            }
            Err(what) => {
                metrics::count(&metrics::QUEUE_BROKEN, &[self.shared.queue], 1);
                if !self.shared.has_broken.swap(true, Ordering::Relaxed) {
                    let topic = &self.shared.topic;
                    tracing::error!(
                        topic,
                        partition,
                        offset,
                        what,
                        "a message cannot be read and is passed over, as will be others"
                    );
                }
                self.shared.change(|state| state.broken(partition, offset, written))
            }
        };
        is_full.then_some(partition)
    }

    /// Errors of the library are reported once, and waited out: it tries again by itself.
    fn report(&self, error: &KafkaError) {
        let code = error.rdkafka_error_code();
        if code == self.last_error.replace(code) {
            return;
        }
        let topic = &self.shared.topic;
        match code {
            // The context has said so.
            Some(
                RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SSL
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut,
            ) => tracing::debug!(topic, %error, "the member waits"),
            _ => tracing::warn!(topic, %error, "the member goes on"),
        }
    }

    /// Asks where the partitions stand that were just given to us. One that its group never committed, or whose committed
    /// messages are gone, is committed at its beginning: what is not there must not count as work that waits.
    fn settle(&mut self) {
        let partitions = self.consumer.context().take_assigned();
        if partitions.is_empty() {
            return;
        }
        match self.places(&partitions) {
            Ok(places) => self.shared.with(|state| {
                for (partition, committed, first) in places {
                    state.begin(partition, committed, first);
                }
            }),
            // They begin with their first message then.
            Err(error) => tracing::debug!(%error, topic = self.shared.topic, "the places of new partitions are not known"),
        }
    }

    fn places(&self, partitions: &[u8]) -> Result<Vec<(u8, Option<u64>, u64)>, KafkaError> {
        let list = self.list(partitions.iter().map(|partition| (*partition, Offset::Beginning)))?;
        let committed = self.consumer.committed_offsets(list.clone(), SETTLE_WITHIN)?;
        let first = self.consumer.offsets_for_times(list, SETTLE_WITHIN)?;
        let offset = |list: &TopicPartitionList, partition: u8| {
            let found = list.find_partition(&self.shared.topic, i32::from(partition))?;
            match (found.error(), found.offset()) {
                (Ok(()), Offset::Offset(offset)) => u64::try_from(offset).ok(),
                _ => None,
            }
        };
        let place = |partition: &u8| Some((*partition, offset(&committed, *partition), offset(&first, *partition)?));
        Ok(partitions.iter().filter_map(place).collect())
    }

    /// Lets go of revoked partitions once their work has stopped, or has had its time.
    fn let_go_if_due(&mut self) {
        let Some(until) = self.consumer.context().release_until() else { return };
        if self.shared.with(|state| state.is_released()) || Instant::now() >= until || self.consumer.assignment_lost() {
            self.let_go();
        }
    }

    fn let_go(&mut self) {
        let Some(list) = self.consumer.context().take_revoked() else { return };
        let offsets = self.shared.with(State::let_go);
        if !self.consumer.assignment_lost() {
            self.commit(&offsets);
        }
        resume_and_let_go(&self.consumer, &list);
    }

    fn pause(&self, partition: u8) {
        let paused = self.list([(partition, Offset::Invalid)]).and_then(|list| self.consumer.pause(&list));
        match paused {
            Ok(()) => tracing::debug!(topic = self.shared.topic, partition, "too much of a partition waits: it is paused"),
            Err(error) => tracing::warn!(%error, topic = self.shared.topic, partition, "a partition was not paused"),
        }
    }

    fn resume(&mut self) {
        let mut partitions = self.shared.with(State::take_resumable);
        let now = Instant::now();
        if now >= self.resume_at {
            // A pause that the library keeps and the books do not know of would last for ever. Of what is not paused it does nothing.
            self.resume_at = now + RESUME_ALL_EVERY;
            let (unpaused, stays) = self.shared.with(|state| (state.unpaused(), state.stays_paused()));
            partitions = unpaused;
            self.tell_of_pause(stays);
        }
        if partitions.is_empty() {
            return;
        }
        let list = self.list(partitions.into_iter().map(|partition| (partition, Offset::Invalid)));
        if let Err(error) = list.and_then(|list| self.consumer.resume(&list)) {
            tracing::warn!(%error, topic = self.shared.topic, "partitions were not resumed");
        }
    }

    fn tell_of_new_logs(&self) {
        let partitions = self.shared.with(State::take_anew);
        if !partitions.is_empty() {
            let topic = &self.shared.topic;
            tracing::warn!(topic, ?partitions, "the log of partitions was lost and began anew: it is read from its beginning");
        }
    }

    /// Says once that tokens wait which are not even read, until that is over.
    fn tell_of_pause(&mut self, stays: Option<(u8, u64)>) {
        if let Some((partition, tokens)) = stays
            && !self.has_told
        {
            let topic = &self.shared.topic;
            tracing::warn!(
                topic,
                partition,
                tokens,
                "a partition is full of tokens that are not done: what lies behind them waits"
            );
        }
        self.has_told = stays.is_some();
    }

    fn commit_if_due(&mut self) {
        let now = Instant::now();
        if now < self.commit_at {
            return;
        }
        let offsets = self.shared.with(|state| state.to_commit());
        let is_done = self.commit(&offsets);
        self.commit_at = now + if is_done { COMMIT_EVERY } else { COMMIT_AGAIN };
    }

    /// Tells the broker in one call, and waits for its answer: without one nobody knows.
    fn commit(&self, offsets: &[(u8, u64)]) -> bool {
        if offsets.is_empty() {
            return true;
        }
        let next = |(partition, next): &(u8, u64)| (*partition, Offset::Offset(i64::try_from(*next).unwrap_or(i64::MAX)));
        let committed = self
            .list(offsets.iter().map(next))
            .and_then(|list| self.pulse.waits(|| self.consumer.commit(&list, CommitMode::Sync)));
        match committed {
            Ok(()) => {
                self.contact.works();
                self.shared.with(|state| state.committed(offsets));
                true
            }
            Err(error) => {
                // Not committed means: comes again, and is ignored then.
                tracing::debug!(%error, topic = self.shared.topic, "offsets were not committed; it is tried again");
                false
            }
        }
    }

    fn list(&self, partitions: impl IntoIterator<Item = (u8, Offset)>) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in partitions {
            list.add_partition_offset(&self.shared.topic, i32::from(partition), offset)?;
        }
        Ok(list)
    }

    /// Commits what is done and leaves the group.
    fn close(mut self) {
        self.consumer.context().close();
        let is_lost = self.consumer.assignment_lost() || self.consumer.client().fatal_error().is_some();
        if !is_lost {
            let offsets = self.shared.with(|state| state.to_commit());
            self.commit(&offsets);
        }
        // The library waits for the answer to a revocation even when it is closed.
        self.let_go();
        self.shared.change(|state| state.lost(state.partitions()));
        if self.shared.is_leaving() {
            drop(self.consumer);
            return;
        }
        // Closing a consumer that broke may take long; the next one is not kept waiting.
        close_beside(self.consumer);
    }
}
