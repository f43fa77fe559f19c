//! Takes in reports: match, write, acknowledge, in batches of whatever waits.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::campaigns::Campaigns;
use super::inbox;
use super::matching::{Known, find};
use super::parking::{first_parked, look_again};
use crate::model::account::Account;
use crate::model::inbound::Inbound;
use crate::model::limits::REPORTS_PER_INTAKE;
use crate::model::receipt::{Report, Rung};
use crate::ports::provider::{Reports, Routes};
use crate::ports::receipts::{MatchedReport, ReportListener};
use crate::ports::tallies::{Tallies, Tally};
use crate::ports::{StoreError, Stores, World};
use crate::runtime::calm::Calm;
use crate::runtime::erased::Erased;
use crate::runtime::handed;
use crate::runtime::metrics;
use crate::runtime::mutation::{self, Bug};
use crate::runtime::retry::{Schedule, store};
use crate::runtime::trace::{self, Piece, Span};
use crate::runtime::zeros;

/// How often parked reports are looked over.
const PARKED_EVERY: Duration = Duration::from_millis(500);

/// Waits for a store that is away: the first, the longest, and how many before the provider has to send again.
const WAITS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
const TRIES: u32 = 5;

/// Of reports that are recorded together, the delays of so many are measured: each takes memory until the metrics are read.
const DELAYS_SAMPLED: usize = 8;

/// So many reports back a repeat within one batch is looked for; one further away is told twice under the same id.
const REPEATS_NEAR: usize = 64;

/// The intake of one process.
pub struct Intake {
    /// The store.
    pub stores: Stores,
    /// Time and chance.
    pub world: World,
    /// The accounts.
    pub routes: Routes,
    /// Live counts.
    pub tallies: Arc<dyn Tallies>,
    /// What helps to find recipients.
    pub known: Known,
    /// Recipients whose number was erased.
    pub erased: Erased,
    /// Who hears of new reports.
    pub listener: Option<Arc<dyn ReportListener>>,
    campaigns: Campaigns,
    /// Of the waits' jitter.
    seed: u64,
}

impl Intake {
    /// An intake for these accounts; `listener` hears of new reports before they are acknowledged.
    pub fn new(
        stores: Stores,
        world: World,
        routes: Routes,
        tallies: Arc<dyn Tallies>,
        listener: Option<Arc<dyn ReportListener>>,
    ) -> Arc<Intake> {
        let (known, erased, campaigns) = (Known::default(), Erased::new(world.clock.clone()), Campaigns::default());
        let seed = world.chance.next();
        Arc::new(Intake { stores, world, routes, tallies, known, erased, listener, campaigns, seed })
    }

    /// Waits for a store that is away. Their seed is this process's own, so that not all of them come back together.
    fn waits(&self) -> Schedule {
        Schedule::new(WAITS.0, WAITS.1, self.seed).up_to(TRIES)
    }

    /// Takes in reports until `stop` is cancelled, and then what waits already. Whoever comes later finds it closed, is not
    /// acknowledged and sends again.
    pub async fn run(self: Arc<Self>, mut reports: mpsc::Receiver<Reports>, stop: CancellationToken) {
        for (account, route) in self.routes.iter() {
            zeros::of_receipts(account, route.account.receipts.wanted);
            if let Err(error) = self.known.forms.load(&self.stores, account).await {
                tracing::warn!(account, code = %error.code(), "the learned form of message ids cannot be read: it is learned again");
            }
        }
        let calm = Calm::default();
        let mut parked = tokio::time::interval(PARKED_EVERY);
        parked.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                // First: a gateway may be called back without a pause.
                () = stop.cancelled() => break,
                first = reports.recv() => {
                    let Some(first) = first else { return };
                    let batch = gather(first, &mut reports);
                    self.take_in(batch).await;
                }
                _ = parked.tick() => {
                    let looked = look_again(&self).await;
                    if looked.is_ok() {
                        calm.is_over();
                    }
                    if let Err(error) = looked
                        && calm.speaks()
                    {
                        tracing::warn!(code = %error.code(), "parked reports could not be looked over");
                    }
                }
            }
        }
        reports.close();
        while let Some(first) = reports.recv().await {
            let batch = gather(first, &mut reports);
            self.take_in(batch).await;
        }
    }

    /// Makes a batch of reports durable, then acknowledges it. When the store does not take it, nobody is acknowledged and
    /// the provider sends again.
    pub async fn take_in(&self, mut batch: Vec<Reports>) {
        if mutation::is_on(Bug::AcknowledgeEarly) {
            for reports in &mut batch {
                let (late, _) = tokio::sync::oneshot::channel();
                let _ = std::mem::replace(&mut reports.ack, late).send(true);
            }
        }
        let written = self.write(&batch).await;
        if let Err(error) = &written {
            tracing::warn!(code = %error.code(), "reports could not be stored; their providers will send them again");
        }
        for reports in batch {
            let _ = reports.ack.send(written.is_ok());
        }
    }

    async fn write(&self, batch: &[Reports]) -> Result<(), StoreError> {
        let mut accounts: std::collections::BTreeMap<&str, Vec<&Report>> = std::collections::BTreeMap::new();
        for reports in batch.iter().filter(|reports| !reports.reports.is_empty()) {
            accounts.entry(&reports.account).or_default().extend(&reports.reports);
        }
        let (mut matched, mut parked) = (Vec::new(), Vec::new());
        let now = self.world.clock.now();
        for (name, mut reports) in accounts {
            if mutation::is_on(Bug::ForgetUndelivered) {
                reports.retain(|report| !matches!(report.rung, Rung::Ended(_)));
            }
            let found = match self.routes.get(name) {
                Some(route) => find(&self.stores, &self.known, self.world.clock.boot(), &route.account, &reports).await?,
                None => vec![None; reports.len()],
            };
            for (report, found) in reports.into_iter().zip(found) {
                match found {
                    Some((part, number)) => {
                        let report = Report { number, ..report.clone() };
                        matched.push(MatchedReport { part, account: name.to_owned(), report });
                    }
                    None => parked.push(first_parked(name, report, now)),
                }
            }
        }
        if !parked.is_empty() && !mutation::is_on(Bug::ForgetUnmatched) {
            store(self.waits(), || self.stores.parked.park(parked.clone())).await?;
        }
        self.record(matched).await?;
        let messages: Vec<(&str, &Inbound)> =
            batch.iter().flat_map(|reports| reports.inbound.iter().map(|message| (reports.account.as_str(), message))).collect();
        if messages.is_empty() {
            return Ok(());
        }
        store(self.waits(), || {
            inbox::take_in(&self.stores, &self.world, &self.routes, &self.campaigns, self.listener.as_deref(), &messages)
        })
        .await
    }

    /// Stores matched reports and counts those that are new.
    pub(super) async fn record(&self, mut matched: Vec<MatchedReport>) -> Result<(), StoreError> {
        if matched.is_empty() {
            return Ok(());
        }
        self.erased.look(&self.stores).await?;
        for report in matched.iter_mut().filter(|report| self.erased.has(report.part.recipient)) {
            (report.report.number, report.report.raw) = (None, String::new());
        }
        if let Some(listener) = &self.listener
            && listener.wanted().await?
        {
            // Told first: were it recorded first, a crash between the two would leave an event that nobody ever tells.
            let new = self.unrecorded(&matched).await?;
            if !new.is_empty() {
                store(self.waits(), || listener.reports(&new)).await?;
            }
        }
        let new = store(self.waits(), || self.stores.receipts.record(matched.clone())).await?;
        let mut samples = DELAYS_SAMPLED;
        for (report, new) in matched.iter().zip(new) {
            if new {
                metrics::count(&metrics::RECEIPTS_TOTAL, &[&report.account, report.report.rung.stat()], 1);
                follow(report);
            } else {
                metrics::count(&metrics::RECEIPTS_REPEATED, &[&report.account], 1);
                continue;
            }
            let batch = report.part.recipient.lane.batch;
            if report.report.rung.is_final(self.acceptd_is_final(&report.account)) {
                if samples > 0
                    && let Some(declared) = handed::at(report.part.recipient)
                {
                    samples -= 1;
                    metrics::observe(&metrics::RECEIPTS_DELAY, &[&report.account], report.report.received.since(declared));
                }
                self.tallies.add(batch, Tally::FinalReceipts, 1);
            }
            if report.report.rung == Rung::Delivered {
                self.tallies.add(batch, Tally::DeliveredReceipts, 1);
            }
        }
        Ok(())
    }

    /// Reports that are not recorded yet, each once.
    async fn unrecorded(&self, matched: &[MatchedReport]) -> Result<Vec<MatchedReport>, StoreError> {
        let mut new: Vec<MatchedReport> = Vec::new();
        for report in matched {
            let same = |known: &MatchedReport| {
                known.part == report.part && known.report.rung == report.report.rung && known.report.raw == report.report.raw
            };
            let recipient = report.part.recipient;
            if self.erased.has(recipient) {
                // Whom it is about is nobody's business any more.
                continue;
            }
            // Of one whose earlier reports are damaged it is told again.
            let known = StoreError::unless_damaged(self.stores.receipts.list(recipient.lane, recipient.seq, 1).await)?;
            if !known.iter().any(same) && !new.iter().rev().take(REPEATS_NEAR).any(same) {
                new.push(report.clone());
            }
        }
        Ok(new)
    }

    pub(super) fn account(&self, name: &str) -> Option<&Account> {
        self.routes.get(name).map(|route| &route.account)
    }

    fn acceptd_is_final(&self, name: &str) -> bool {
        self.account(name).is_some_and(|account| account.receipts.acceptd_is_final)
    }
}

/// The span of a report about a recipient who is followed: below the message's, whoever sent that.
fn follow(report: &MatchedReport) {
    let recipient = report.part.recipient;
    let Some(message) = trace::place(Piece::Message(recipient)).filter(|_| trace::follows(recipient)) else { return };
    let stat = report.report.rung.stat();
    let mut span = Span::begin(Piece::Receipt(recipient, report.part.part, stat), Some(message));
    span.note("stat", stat);
    span.note("account", &report.account);
    span.note("lane", u32::from(recipient.lane.lane));
    span.note("place", recipient.seq);
    span.note("part", u32::from(report.part.part));
    span.lines().in_scope(|| tracing::info!(batch = %recipient.lane.batch, stat, "a receipt of a message that is followed"));
}

/// Everything that waits already, up to a limit: one write for many reports.
fn gather(first: Reports, reports: &mut mpsc::Receiver<Reports>) -> Vec<Reports> {
    let mut count = first.reports.len() + first.inbound.len();
    let mut batch = vec![first];
    while count < REPORTS_PER_INTAKE {
        let Ok(next) = reports.try_recv() else { break };
        count += next.reports.len() + next.inbound.len();
        batch.push(next);
    }
    batch
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::adapters::memory::clock::SimClock;
    use crate::adapters::memory::store::MemoryStore;
    use crate::adapters::memory::tallies::MemoryTallies;
    use crate::adapters::system::SeededChance;
    use crate::model::time::Timestamp;
    use crate::ports::receipts::{Parked, ParkedReport};

    /// A store that takes its time for reports that match nothing.
    struct SlowlyParked(Arc<dyn Parked>);

    #[async_trait::async_trait]
    impl Parked for SlowlyParked {
        async fn park(&self, reports: Vec<ParkedReport>) -> Result<(), StoreError> {
            tokio::time::sleep(Duration::from_millis(10)).await;
            self.0.park(reports).await
        }
        async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<ParkedReport>, StoreError> {
            self.0.due(now, limit).await
        }
        async fn remove(&self, ids: Vec<u64>) -> Result<(), StoreError> {
            self.0.remove(ids).await
        }
        async fn counts(&self) -> Result<(u64, u64), StoreError> {
            self.0.counts().await
        }
        async fn unmatched(&self, behind: Option<u64>, limit: usize) -> Result<Vec<ParkedReport>, StoreError> {
            self.0.unmatched(behind, limit).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_intake_that_is_called_back_without_a_pause_ends_when_it_is_told_to() {
        let chance = Arc::new(SeededChance::from_seed(1));
        let stores = MemoryStore::new(chance.clone()).stores();
        let stores = Stores { parked: Arc::new(SlowlyParked(stores.parked.clone())), ..stores };
        let world = World { clock: Arc::new(SimClock::new(Timestamp(0))), chance };
        let intake = Intake::new(stores.clone(), world, Arc::default(), Arc::new(MemoryTallies::new()), None);
        let (sink, reports) = mpsc::channel(4);
        let stop = CancellationToken::new();
        let running = tokio::spawn(intake.run(reports, stop.clone()));
        async fn call(caller: u32, sink: mpsc::Sender<Reports>) -> Vec<oneshot::Receiver<bool>> {
            let mut told = vec![];
            loop {
                let (ack, durable) = oneshot::channel();
                let report = Report {
                    message_id: format!("{caller}-{}", told.len()),
                    number: None,
                    reference: None,
                    rung: Rung::Delivered,
                    done: None,
                    error: String::new(),
                    raw: String::new(),
                    received: Timestamp(0),
                };
                let reports = Reports { account: "main".into(), reports: vec![report], inbound: vec![], ack };
                if sink.send(reports).await.is_err() {
                    return told;
                }
                told.push(durable);
            }
        }
        let callers: Vec<_> = (0..8).map(|caller| tokio::spawn(call(caller, sink.clone()))).collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(1), running).await;
        ended.expect("it ends while they still call").expect("it ends in order");
        let mut taken = 0;
        for caller in callers {
            for durable in caller.await.expect("it finds that nobody listens") {
                assert_eq!(durable.await, Ok(true), "what it took it has stored");
                taken += 1;
            }
        }
        assert_eq!(stores.parked.counts().await.map(|(waiting, unmatched)| waiting + unmatched), Ok(taken));
    }

    #[tokio::test(start_paused = true)]
    async fn intakes_of_two_processes_do_not_come_back_to_the_store_together() {
        let intake = |seed| {
            let chance = Arc::new(SeededChance::from_seed(seed));
            let stores = MemoryStore::new(chance.clone()).stores();
            let world = World { clock: Arc::new(SimClock::new(Timestamp(0))), chance };
            Intake::new(stores, world, Arc::default(), Arc::new(MemoryTallies::new()), None)
        };
        let delays = |seed| {
            let mut waits = intake(seed).waits();
            std::iter::from_fn(move || waits.next_delay()).collect::<Vec<_>>()
        };
        let (one, other) = (delays(1), delays(2));
        assert_eq!((one.len(), other.len()), (TRIES as usize, TRIES as usize));
        assert!(one.iter().zip(&other).all(|(one, other)| one != other), "{one:?} {other:?}");
    }
}
