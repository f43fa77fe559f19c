//! The drill itself: a batch, strikes while it is sent, and the comparison at its end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use hyper::Method;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ground::{ANSWER_WITHIN, Ground, within};
use super::open::{Met, Struck};
use super::plan::{BLOWS, Blow, Strike, plan};
use super::verdict::{Findings, Implied, Judge, longest_gap_ms};
use super::{ground, guard};
use crate::adapters::system::SeededChance;
use crate::model::code::{Code, Fault};
use crate::model::id::{BatchId, Msisdn};
use crate::model::outcome::Outcome;
use crate::model::schedule::LateStart;
use crate::model::turn::open_most;
use crate::model::window::OnUncertain;
use crate::roles::config_load::Sources;
use crate::serve::api::{Created, NUMBERS_MAX, NewBatch, Numbers, RateWish, SourceWish, SuppressionAnswer};
use crate::serve::client::{Call, Client};
use crate::serve::views::BatchView;
use crate::simulator::Simulator;
use crate::statistics::RecipientLine;

/// How often the simulator is asked how far it is.
const LOOK: Duration = Duration::from_millis(20);
/// How often the batch is looked at, and something is said.
const SAY_EVERY: Duration = Duration::from_secs(5);
const ASK_EVERY: Duration = Duration::from_millis(250);
/// A worker that is told to stop may take so long beyond its drain.
const STOPS_WITHIN: Duration = Duration::from_secs(30);
/// What a strike may cost beyond the time that a frozen process stands still, and the end of a batch, at most.
const STRIKE_COSTS: Duration = Duration::from_secs(90);
const END_COSTS: Duration = Duration::from_secs(180);
/// What is commanded before anything falls, and what is read after everything has, may take so long.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);
const LIST_WITHIN: Duration = Duration::from_secs(300);
/// Segments a second at least: less than that proves nothing in the time of a person.
const RATE_MIN: f64 = 20.0;

/// What is wanted of a drill.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The list, CSV with a header.
    pub list: String,
    /// What it implies of each of its records, in their order.
    pub implied: Vec<Implied>,
    /// Numbers of it that get nothing.
    pub suppressed: Vec<Msisdn>,
    /// The text.
    pub template: String,
    /// The seed of everything that is left to chance.
    pub seed: u64,
    /// How long sending would take if nothing happened.
    pub sending: Duration,
    /// Strikes.
    pub strikes: u32,
    /// How long a frozen process stands still; longer than every lease without it.
    pub freeze: Option<Duration>,
    /// The folder for everything.
    pub folder: PathBuf,
    /// The namespace, where there is a cluster.
    pub namespace: String,
}

impl Wish {
    /// Records of the list.
    fn records(&self) -> u64 {
        self.implied.len() as u64
    }
}

/// How a drill ended.
#[derive(Clone, Debug, Serialize)]
pub struct Drill {
    /// `embedded` or `cluster`.
    pub fleet: &'static str,
    /// The seed.
    pub seed: u64,
    /// The batch.
    pub batch_id: BatchId,
    /// Whether the batch came to its end in time.
    pub ended: bool,
    /// Records of the list.
    pub records: u64,
    /// What was found.
    #[serde(flatten)]
    pub findings: Findings,
    /// People whom the strikes may have left in doubt or unsent: who was in the open windows of a sender that was killed or frozen.
    pub uncertain_most: u64,
    /// Of these, people who may be left unsent: who was in the open windows of a frozen sender, which others judged.
    pub unsent_most: u64,
    /// Strikes of which the store did not say in time who was in open windows. For each as many people as a sender may have there
    /// are in the two sums before, which bound the doubts less closely then.
    pub uncounted: u32,
    /// Parts that the simulator took a second time while their message was incomplete.
    pub repeated_parts: u64,
    /// Strikes that were planned.
    pub planned: u32,
    /// Strikes that fell, by kind; one that did nothing is not counted.
    pub fired: BTreeMap<&'static str, u32>,
    /// The longest time in which nobody got a first message, in seconds.
    pub longest_gap: f64,
    /// Seconds from the first message to the last.
    pub sending: f64,
    /// Seconds from the creation of the batch to its end.
    pub seconds: f64,
    /// Whether all of it is as it must be: nobody lost, nobody twice, nobody wrongly ended, nobody in doubt without a cause, and
    /// every strike fell.
    pub passed: bool,
}

impl Drill {
    /// Strikes that fell.
    pub fn fell(&self) -> u32 {
        self.fired.values().sum()
    }

    /// Recipients in doubt.
    pub fn uncertain(&self) -> u64 {
        self.findings.outcomes.get(Outcome::Uncertain.name()).copied().unwrap_or(0)
    }

    /// Whether no more are in doubt or unsent than the strikes account for.
    pub fn is_accounted_for(&self) -> bool {
        let unsent = self.findings.unsent;
        unsent <= self.unsent_most && self.uncertain() + unsent <= self.uncertain_most
    }

    /// Whether nobody was lost or wrongly ended, nobody got anything twice, no more are in doubt or unsent than the strikes
    /// account for, and the batch ended.
    pub fn is_clean(&self) -> bool {
        self.ended && self.findings.are_clean() && self.repeated_parts == 0 && self.is_accounted_for()
    }
}

/// Runs a drill. `given` is the configuration as the command line has it; `say` is told how far it is.
///
/// # Errors
/// [`Code::NotTheSimulator`] when the configuration names an account that leads elsewhere; that the fleet does not start or ends
/// by itself; that it was told to stop.
pub async fn drill(given: &Sources, wish: &Wish, say: &dyn Fn(&str), stop: &CancellationToken) -> Result<Drill, Fault> {
    let simulator = guard::simulator(guard::address(&ground::config(given)?)?, wish.seed).await?;
    let mut ground = Ground::lay(given, wish.folder.clone(), &wish.namespace, &simulator, stop).await?;
    let drilled = tokio::select! {
        biased;
        () = stop.cancelled() => Err(Fault::new(Code::NotAllowed, "the drill was stopped: there is no verdict")),
        drilled = on(&mut ground, &simulator, wish, say) => drilled,
    };
    // What went wrong can be looked at; what went well, and what somebody stopped, leaves nothing behind.
    let is_kept = !stop.is_cancelled() && !drilled.as_ref().is_ok_and(Drill::is_clean);
    let name = ground.namespace().map(str::to_owned);
    let left = if is_kept { name.map(|name| (name, String::new())) } else { unremoved(ground, name).await };
    if let Some((name, why)) = left {
        say(&format!("the namespace {name} is left{why}; with the same configuration: smsfleet drill --remove {name}"));
    }
    drilled
}

/// Removes what the drill made on servers. The namespace that could not be removed, and why: no reason to withhold a verdict.
async fn unremoved(ground: Ground, name: Option<String>) -> Option<(String, String)> {
    let fault = ground.clear().await.err()?;
    Some((name?, format!(" ({fault})")))
}

async fn on(ground: &mut Ground, simulator: &Simulator, wish: &Wish, say: &dyn Fn(&str)) -> Result<Drill, Fault> {
    let list = ground.folder.join("recipients.csv");
    let cannot = |error: std::io::Error| Fault::new(Code::InputInvalid, format!("{}: {error}", list.display()));
    tokio::fs::write(&list, &wish.list).await.map_err(cannot)?;
    ground.start_all().await?;
    let fleet = if ground.namespace().is_some() { "cluster" } else { "embedded" };
    let at = simulator.smpp_addr().map(|at| format!(", the simulator is at {at}")).unwrap_or_default();
    say(&format!("the fleet works ({fleet}){at}"));

    let begun = Instant::now();
    let client = ground.client();
    let batch_id = begin(ground, &client, wish, list.to_string_lossy().into_owned()).await?;
    let freeze = wish.freeze.unwrap_or_else(|| ground.beyond_leases());
    let strikes = plan(&SeededChance::from_seed(wish.seed), wish.strikes, wish.records());
    let within_all = wish.sending * 3 + (freeze + STRIKE_COSTS) * wish.strikes + END_COSTS;
    let mut fired: BTreeMap<&'static str, u32> = BLOWS.map(|blow| (blow.name(), 0)).into();
    let mut struck = Struck::default();
    let ended = match tokio::time::timeout(within_all, async {
        for strike in &strikes {
            let over = until(ground, simulator, &client, batch_id, Some(strike.after), say).await?;
            if over {
                return Ok(());
            }
            let messages = simulator.report().complete_messages;
            let (role, met) = fall(ground, strike, freeze, batch_id, rate(wish), &mut struck).await?;
            *fired.entry(strike.blow.name()).or_default() += u32::from(met.is_some());
            let noted = if met.is_some() { strike.blow.name() } else { "unmoved" };
            let open = met.filter(|met| *met != Met::Counted(0)).map(|met| format!(", {met}"));
            say(&format!("after {messages} messages: {role} {noted}{}", open.unwrap_or_default()));
        }
        until(ground, simulator, &client, batch_id, None, say).await.map(|_| ())
    })
    .await
    {
        Ok(done) => done.map(|()| true)?,
        Err(_) => false,
    };
    let seconds = begun.elapsed().as_secs_f64();

    let mut judge = Judge::new(&wish.implied);
    let listed = tokio::time::timeout(LIST_WITHIN, recipients(&client, batch_id, &mut judge)).await;
    listed.unwrap_or_else(|_| Err(Fault::new(Code::TooSlow, "the records cannot be read")))?;
    // Only when nobody can send any more has the simulator seen everything.
    ground.stop_all().await?;
    let (seen, counted) = (simulator.numbers(), simulator.report());
    let findings = judge.findings(&seen);
    let moments = || seen.iter().map(|record| record.first_ms);
    let sending = moments().max().unwrap_or(0).saturating_sub(moments().min().unwrap_or(0));
    let mut drill = Drill {
        fleet,
        seed: wish.seed,
        batch_id,
        ended,
        records: wish.records(),
        findings,
        uncertain_most: struck.uncertain_most,
        unsent_most: struck.unsent_most,
        uncounted: struck.uncounted,
        repeated_parts: counted.repeated_parts,
        planned: wish.strikes,
        fired,
        longest_gap: f64::from(longest_gap_ms(&seen)) / 1_000.0,
        sending: f64::from(sending) / 1_000.0,
        seconds,
        passed: false,
    };
    drill.passed = drill.is_clean() && drill.fell() == drill.planned;
    Ok(drill)
}

/// Segments a second at which the list lasts as long as is wanted.
fn rate(wish: &Wish) -> u32 {
    (wish.records() as f64 / wish.sending.as_secs_f64().max(1.0)).max(RATE_MIN) as u32
}

/// Whether a strike may leave people in doubt. Who does not send, or is told to stop, leaves nobody.
fn leaves_doubt(blow: Blow, role: &str) -> bool {
    let sends = role == ground::SENDER || role == ground::EMBEDDED[0];
    match blow {
        Blow::Killed | Blow::Frozen => sends,
        Blow::Stopped => false,
    }
}

/// Creates the batch and starts it, at a rate that lasts as long as is wanted.
async fn begin(ground: &Ground, client: &Client, wish: &Wish, list: String) -> Result<BatchId, Fault> {
    for some in wish.suppressed.chunks(NUMBERS_MAX) {
        let numbers = some.iter().map(|number| format!("+{}", number.digits())).collect();
        let call = Call::new(Method::POST, "/v1/suppressions/commands/add").json(&Numbers { numbers });
        within(COMMAND_WITHIN, client.call::<SuppressionAnswer>(call)).await?;
    }
    let rate = rate(wish);
    for name in ground.config.accounts.keys() {
        let call = Call::new(Method::PUT, format!("/v1/accounts/{name}/rate"));
        let wish = RateWish { segments_per_second: Some(rate) };
        within(COMMAND_WITHIN, client.call::<serde_json::Value>(call.json(&wish))).await?;
    }
    let batch = NewBatch {
        source: SourceWish { table_name: Some(list), ..SourceWish::default() },
        content: wish.template.clone(),
        provider_type: Some(ground.provider_type.clone()),
        campaign_name: "drill".into(),
        prepare: true,
        auto_trigger: true,
        // To send somebody again on a doubt would be no fault of the fleet's.
        on_uncertain: Some(OnUncertain::Hold),
        // What the configuration says of batches changes nothing of what the list implies: nobody expires, and texts stay short.
        late_start: Some(LateStart::Send),
        content_signature: Some(String::new()),
        default_region: Some("CN".into()),
        ..NewBatch::default()
    };
    let call = Call::new(Method::POST, "/v1/batches").json(&json!(batch)).once(wish.namespace.clone());
    Ok(within(COMMAND_WITHIN, client.call::<Created>(call)).await?.batch.batch_id)
}

/// Waits until the simulator has counted `messages`, or the batch is over; whether it is.
async fn until(
    ground: &mut Ground,
    simulator: &Simulator,
    client: &Client,
    batch: BatchId,
    messages: Option<u64>,
    say: &dyn Fn(&str),
) -> Result<bool, Fault> {
    let (mut asked, mut said) = (Instant::now(), Instant::now());
    loop {
        let counted = simulator.report().complete_messages;
        if messages.is_some_and(|messages| counted >= messages) {
            return Ok(false);
        }
        ground.all_live()?;
        if asked.elapsed() >= ASK_EVERY {
            asked = Instant::now();
            // A worker that does not answer is what a drill is about: it is asked again.
            if let Ok(view) = within(ANSWER_WITHIN, client.get::<BatchView>(&format!("/v1/batches/{batch}"))).await {
                let reason = view.preparation.reason.or(view.delivery.reason);
                if let (true, Some(reason)) = (view.current_step == "PREPARATION" && view.over, &reason) {
                    return Err(Fault::new(Code::Internal, format!("the batch cannot be prepared: {reason}")));
                }
                if view.over {
                    return Ok(true);
                }
            }
        }
        if said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            say(&format!("{counted} messages"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Lets a strike fall; whom it hit, and, when it did anything, how many people of open windows it met.
async fn fall(
    ground: &mut Ground,
    strike: &Strike,
    freeze: Duration,
    batch: BatchId,
    rate: u32,
    struck: &mut Struck,
) -> Result<(&'static str, Option<Met>), Fault> {
    let at = ground.target(strike.whom);
    let (role, pid) = (ground.worker(at).role, ground.worker(at).id());
    let doubts = leaves_doubt(strike.blow, role);
    // Asked before: a sheet is of one that lives.
    let declarer = if doubts { ground.declarer(pid).await } else { None };
    let fell = match strike.blow {
        Blow::Killed => ground.remove(at).kill()?,
        Blow::Stopped => {
            let grace = ground.config.limits.drain + STOPS_WITHIN;
            ground.remove(at).stop(grace).await?
        }
        Blow::Frozen => ground.worker(at).freeze().await?,
    };
    let begun = Instant::now();
    let mut met = Met::Counted(0);
    if fell && doubts {
        let are_judged = ground.namespace().is_some();
        let open = ground.open_windows(batch, declarer).await?;
        met = struck.met(strike.blow, are_judged, open.as_ref(), open_most(f64::from(rate)));
    }
    if strike.blow == Blow::Frozen {
        tokio::time::sleep_until(begun + freeze).await;
        ground.worker(at).wake()?;
    } else {
        let at = ground.start(role)?;
        ground.until_it_works(at).await?;
    }
    Ok((role, fell.then_some(met)))
}

/// Reads what the store says of every record.
async fn recipients(client: &Client, batch: BatchId, judge: &mut Judge<'_>) -> Result<(), Fault> {
    let path = format!("/v1/batches/{batch}/recipients?format=jsonl&text=false");
    let (mut rest, mut unreadable) = (Vec::new(), None);
    let mut take = |line: &[u8], judge: &mut Judge<'_>| match serde_json::from_slice::<RecipientLine>(line) {
        Ok(line) => judge.take(&line),
        Err(error) => unreadable = Some(error.to_string()),
    };
    client
        .stream(&path, |piece| {
            rest.extend_from_slice(&piece);
            let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            rest[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).for_each(|line| take(line, judge));
            rest.drain(..whole);
            Ok(())
        })
        .await?;
    if !rest.is_empty() {
        take(&rest, judge);
    }
    match unreadable {
        None => Ok(()),
        Some(error) => Err(Fault::new(Code::Internal, format!("a record's line cannot be read: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sender_that_is_struck_without_a_word_leaves_people_in_doubt() {
        for (blow, role, leaves) in [
            (Blow::Killed, "all", true),
            (Blow::Frozen, "deliver", true),
            (Blow::Stopped, "deliver", false),
            (Blow::Killed, "coordinator", false),
            (Blow::Frozen, "gateway", false),
        ] {
            assert_eq!(leaves_doubt(blow, role), leaves, "{blow:?} {role}");
        }
    }

    #[test]
    fn doubts_that_no_strike_accounts_for_are_not_clean() {
        let drill = |uncertain: u64, unsent: u64| Drill {
            fleet: "cluster",
            seed: 1,
            batch_id: BatchId(1),
            ended: true,
            records: 1_000,
            findings: Findings { outcomes: [("uncertain".to_owned(), uncertain)].into(), unsent, ..Findings::default() },
            // A sender was killed with 60 people in its open windows, another frozen with 40, and a third told to stop.
            uncertain_most: 100,
            unsent_most: 40,
            uncounted: 0,
            repeated_parts: 0,
            planned: 3,
            fired: BTreeMap::new(),
            longest_gap: 0.0,
            sending: 1.0,
            seconds: 1.0,
            passed: false,
        };
        for (uncertain, unsent) in [(0, 0), (100, 0), (60, 40), (0, 40)] {
            assert!(drill(uncertain, unsent).is_clean(), "{uncertain} {unsent}");
        }
        for (uncertain, unsent) in [(101, 0), (61, 40), (0, 41)] {
            assert!(!drill(uncertain, unsent).is_clean(), "{uncertain} {unsent}");
        }
    }
}
