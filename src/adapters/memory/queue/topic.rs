//! One topic with its group: logs, offsets, and what each member is told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::assign::plan;
use crate::model::trace::TraceParent;
use crate::ports::queue::{QueueError, QueueEvent, TaskQueue};

/// A partition goes to its new owner after this long, whether the old one said that it let go or not.
const RELEASE_WITHIN: Duration = Duration::from_secs(5);

/// A member of a group, for one life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberId(pub u64);

pub(super) struct Topic<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

struct State<T> {
    partitions: Vec<Partition<T>>,
    members: BTreeMap<MemberId, Member>,
    /// Grows with every change that may be news for a member.
    changes: u64,
}

struct Partition<T> {
    /// Tokens from the committed offset on.
    tokens: VecDeque<(T, Option<TraceParent>)>,
    committed: u64,
    owner: Owner,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Nobody,
    Is(MemberId),
    /// Told to let go; free when it says so, or at the instant.
    Leaves(MemberId, Instant),
}

#[derive(Default)]
struct Member {
    news: VecDeque<News>,
    /// The next offset to hand out, of partitions the member was told of.
    next: BTreeMap<u8, u64>,
    /// The partition served last: the others come first.
    last: u8,
    /// Its session has ended, and nobody told it yet.
    is_asleep: bool,
    /// When it last looked in vain: after which change, and until when nothing but a change brings news. Looking goes over all
    /// partitions, and a member asks far more often than there is news.
    vain: Option<(u64, Option<Instant>)>,
}

enum News {
    Assigned(Vec<u8>),
    Revoked(Vec<u8>),
}

impl<T: Clone> Topic<T> {
    pub(super) fn new(partitions: u16) -> Topic<T> {
        let partition = |_| Partition { tokens: VecDeque::new(), committed: 0, owner: Owner::Nobody };
        let partitions = (0..partitions).map(partition).collect();
        Topic { state: Mutex::new(State { partitions, members: BTreeMap::new(), changes: 0 }), changed: Notify::new() }
    }

    pub(super) fn append(&self, tasks: Vec<(u8, T)>, trace: Option<TraceParent>) {
        {
            let mut state = self.lock();
            for (partition, task) in tasks {
                if let Some(partition) = state.partitions.get_mut(usize::from(partition)) {
                    partition.tokens.push_back((task, trace));
                }
            }
        }
        self.tell();
    }

    pub(super) fn remove(&self, member: MemberId) {
        {
            let mut state = self.lock();
            if state.members.remove(&member).is_none() {
                return;
            }
            state.free(member);
            state.rebalance(Instant::now());
        }
        self.tell();
    }

    pub(super) fn sleep(&self, id: MemberId) {
        {
            let mut state = self.lock();
            let Some(member) = state.members.get_mut(&id) else { return };
            member.is_asleep = true;
            state.free(id);
            state.rebalance(Instant::now());
        }
        self.tell();
    }

    pub(super) fn wake(&self, id: MemberId) {
        {
            let mut state = self.lock();
            let Some(member) = state.members.get_mut(&id).filter(|member| member.is_asleep) else { return };
            let leaving = member.news.iter().flat_map(|news| match news {
                News::Revoked(partitions) => partitions.as_slice(),
                // It never heard of these.
                News::Assigned(_) => &[],
            });
            let had: BTreeSet<u8> = leaving.chain(member.next.keys()).copied().collect();
            *member = Member { news: VecDeque::from([News::Revoked(had.into_iter().collect())]), ..Member::default() };
            state.rebalance(Instant::now());
        }
        self.tell();
    }

    pub(super) fn take_away(&self, which: impl Fn(u8) -> bool) -> usize {
        let count = {
            let mut state = self.lock();
            let mut taken: BTreeMap<MemberId, Vec<u8>> = BTreeMap::new();
            for (number, partition) in state.partitions.iter().enumerate().filter(|(number, _)| which(*number as u8)) {
                if let Owner::Is(member) = partition.owner {
                    taken.entry(member).or_default().push(number as u8);
                }
            }
            let now = Instant::now();
            let count = taken.values().map(Vec::len).sum();
            taken.into_iter().for_each(|(member, partitions)| state.revoke(member, partitions, now));
            count
        };
        self.tell();
        count
    }

    pub(super) fn lose_all(&self) -> usize {
        let mut state = self.lock();
        let state = &mut *state;
        let count = state.partitions.iter().map(|partition| partition.tokens.len()).sum();
        for (number, partition) in state.partitions.iter_mut().enumerate() {
            partition.committed += partition.tokens.len() as u64;
            partition.tokens.clear();
            for member in state.members.values_mut() {
                if let Some(next) = member.next.get_mut(&(number as u8)) {
                    *next = partition.committed;
                }
            }
        }
        count
    }

    pub(super) fn lag(&self) -> u64 {
        self.lock().partitions.iter().map(|partition| partition.tokens.len() as u64).sum()
    }

    pub(super) fn committed(&self) -> Vec<u64> {
        self.lock().partitions.iter().map(|partition| partition.committed).collect()
    }

    /// Tells everybody who waits that something changed.
    fn tell(&self) {
        self.lock().changes += 1;
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> State<T> {
    /// What a member had is nobody's.
    fn free(&mut self, member: MemberId) {
        for partition in &mut self.partitions {
            if matches!(partition.owner, Owner::Is(owner) | Owner::Leaves(owner, _) if owner == member) {
                partition.owner = Owner::Nobody;
            }
        }
    }

    fn rebalance(&mut self, now: Instant) {
        let mut owned: BTreeMap<MemberId, Vec<u8>> =
            self.members.iter().filter(|(_, member)| !member.is_asleep).map(|(member, _)| (*member, vec![])).collect();
        let mut free = Vec::new();
        for (number, partition) in self.partitions.iter().enumerate() {
            match partition.owner {
                Owner::Nobody => free.push(number as u8),
                Owner::Is(member) => owned.entry(member).or_default().push(number as u8),
                Owner::Leaves(..) => {}
            }
        }
        let plan = plan(self.partitions.len() as u16, &owned, &free);
        for (member, partitions) in plan.revoke {
            self.revoke(member, partitions, now);
        }
        for (member, partitions) in plan.assign {
            for number in &partitions {
                self.partitions[usize::from(*number)].owner = Owner::Is(member);
            }
            if let Some(member) = self.members.get_mut(&member) {
                member.news.push_back(News::Assigned(partitions));
            }
        }
    }

    /// Tells a member to let go of partitions.
    fn revoke(&mut self, id: MemberId, partitions: Vec<u8>, now: Instant) {
        for number in &partitions {
            self.partitions[usize::from(*number)].owner = Owner::Leaves(id, now + RELEASE_WITHIN);
        }
        if let Some(member) = self.members.get_mut(&id) {
            member.next.retain(|number, _| !partitions.contains(number));
            member.news.push_back(News::Revoked(partitions));
        }
    }

    /// Frees partitions whose old owner did not let go in time. Gives back whether there were any.
    fn free_late(&mut self, now: Instant) -> bool {
        let mut any = false;
        for partition in &mut self.partitions {
            if matches!(partition.owner, Owner::Leaves(_, until) if until <= now) {
                partition.owner = Owner::Nobody;
                any = true;
            }
        }
        if any {
            self.rebalance(now);
        }
        any
    }

    fn next_deadline(&self) -> Option<Instant> {
        let until = |partition: &Partition<T>| match partition.owner {
            Owner::Leaves(_, until) => Some(until),
            Owner::Nobody | Owner::Is(_) => None,
        };
        self.partitions.iter().filter_map(until).min()
    }

    /// What is there for a member, until when nothing comes by itself, and whether partitions became free.
    fn look(&mut self, id: MemberId, now: Instant) -> Result<Looked<T>, QueueError> {
        let Member { vain, is_asleep, .. } = *self.members.get(&id).ok_or(QueueError::Closed)?;
        if is_asleep {
            return Ok((None, None, false));
        }
        if let Some((changes, until)) = vain
            && changes == self.changes
            && until.is_none_or(|until| now < until)
        {
            return Ok((None, until, false));
        }
        let freed = self.free_late(now);
        let (event, deadline) = (self.next_event(id)?, self.next_deadline());
        let vain = event.is_none().then_some((self.changes, deadline));
        self.members.entry(id).and_modify(|member| member.vain = vain);
        Ok((event, deadline, freed))
    }

    fn next_event(&mut self, id: MemberId) -> Result<Option<QueueEvent<T>>, QueueError> {
        let member = self.members.get_mut(&id).ok_or(QueueError::Closed)?;
        match member.news.pop_front() {
            Some(News::Revoked(partitions)) => return Ok(Some(QueueEvent::Revoked(partitions))),
            Some(News::Assigned(partitions)) => {
                for number in &partitions {
                    // What was taken away again meanwhile is not begun.
                    if self.partitions[usize::from(*number)].owner == Owner::Is(id) {
                        member.next.insert(*number, self.partitions[usize::from(*number)].committed);
                    }
                }
                return Ok(Some(QueueEvent::Assigned(partitions)));
            }
            None => {}
        }
        let last = member.last;
        let in_turn = member.next.range_mut(last.saturating_add(1)..).map(|(number, next)| (*number, next));
        let mut waiting = in_turn.filter_map(|(number, next)| has_token(&self.partitions, number, next));
        let mut found = waiting.next();
        drop(waiting);
        if found.is_none() {
            let from_first = member.next.iter_mut().map(|(number, next)| (*number, next));
            found = from_first.filter_map(|(number, next)| has_token(&self.partitions, number, next)).next();
        }
        let Some((partition, next, (task, trace))) = found else { return Ok(None) };
        let offset = *next;
        *next += 1;
        member.last = partition;
        Ok(Some(QueueEvent::Task { partition, offset, task, trace }))
    }
}

/// See [`State::look`].
type Looked<T> = (Option<QueueEvent<T>>, Option<Instant>, bool);

/// A partition, where its member stands, and the token there with its trace.
type Found<'a, T> = (u8, &'a mut u64, (T, Option<TraceParent>));

/// The token at `next` of a partition, if it was sent.
fn has_token<'a, T: Clone>(partitions: &[Partition<T>], number: u8, next: &'a mut u64) -> Option<Found<'a, T>> {
    let partition = &partitions[usize::from(number)];
    let at = usize::try_from(next.checked_sub(partition.committed)?).ok()?;
    partition.tokens.get(at).map(|token| (number, next, token.clone()))
}

/// A member's end of a topic. Dropped, it leaves the group as a crash does.
pub struct MemberQueue<T: Clone> {
    topic: Arc<Topic<T>>,
    member: MemberId,
}

impl<T: Clone> MemberQueue<T> {
    pub(super) fn join(topic: Arc<Topic<T>>, member: MemberId) -> MemberQueue<T> {
        {
            let mut state = topic.lock();
            state.members.insert(member, Member::default());
            state.rebalance(Instant::now());
        }
        topic.tell();
        MemberQueue { topic, member }
    }

    /// Its name, for [`super::MemoryBroker::expel`].
    pub fn member(&self) -> MemberId {
        self.member
    }
}

impl<T: Clone> Drop for MemberQueue<T> {
    fn drop(&mut self) {
        self.topic.remove(self.member);
    }
}

#[async_trait::async_trait]
impl<T: Clone + Send + Sync + 'static> TaskQueue<T> for MemberQueue<T> {
    async fn recv(&self) -> Result<QueueEvent<T>, QueueError> {
        loop {
            let changed = self.topic.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            let (event, deadline, freed) = self.topic.lock().look(self.member, Instant::now())?;
            if freed {
                self.topic.tell();
            }
            if let Some(event) = event {
                return Ok(event);
            }
            match deadline {
                Some(deadline) => drop(tokio::time::timeout_at(deadline, changed).await),
                None => changed.await,
            }
        }
    }

    async fn commit(&self, partition: u8, next_offset: u64) -> Result<(), QueueError> {
        let mut state = self.topic.lock();
        if state.members.get(&self.member).ok_or(QueueError::Closed)?.is_asleep {
            return Err(QueueError::Unavailable("its session has ended".into()));
        }
        let Some(partition) = state.partitions.get_mut(usize::from(partition)) else { return Ok(()) };
        // Whoever lost the partition commits nothing: its new owner does.
        if matches!(partition.owner, Owner::Is(owner) | Owner::Leaves(owner, _) if owner == self.member) {
            let end = partition.committed + partition.tokens.len() as u64;
            while partition.committed < next_offset.min(end) {
                partition.tokens.pop_front();
                partition.committed += 1;
            }
        }
        Ok(())
    }

    async fn released(&self, partitions: &[u8]) {
        {
            let mut state = self.topic.lock();
            for number in partitions {
                if let Some(partition) = state.partitions.get_mut(usize::from(*number))
                    && matches!(partition.owner, Owner::Leaves(owner, _) if owner == self.member)
                {
                    partition.owner = Owner::Nobody;
                }
            }
            state.rebalance(Instant::now());
        }
        self.topic.tell();
    }

    async fn leave(&self) {
        self.topic.remove(self.member);
    }
}
