//! `drill`: a fleet of this machine's own under fire, and the verdict.

use std::fmt::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::args::DrillArgs;
use super::render::grouped;
use super::sample::{TEMPLATE, sample};
use super::{Global, exit, print, sources};
use crate::adapters::system::SeededChance;
use crate::drill::{self, Drill, Wish, guard};
use crate::model::code::{Code, Fault};
use crate::model::outcome::{OUTCOMES, Outcome};
use crate::model::schedule::duration;
use crate::ports::clock::Chance;
use crate::roles::cluster::namespace;
use crate::roles::config::Config;

/// Segments of the longest texts of the list.
const LONG_PARTS: u8 = 2;

/// Runs the command.
pub async fn drill(global: &Global, args: &DrillArgs, config: &Config, stop: CancellationToken) -> Result<u8, Fault> {
    if let Some(name) = &args.remove {
        return remove(global, config, name).await;
    }
    // Before anything is made.
    guard::address(config)?;
    let chance = SeededChance::from_system();
    let name = format!("{}{:08x}", namespace::BEGINS, chance.next() as u32);
    // Whoever has a text that an account does not take is refused for a reason that is none of the drill's.
    let long = config.accounts.values().all(|account| account.capabilities.parts_max >= LONG_PARTS);
    let sample = sample(args.recipients, long);
    let wish = Wish {
        list: sample.csv,
        implied: sample.implied,
        suppressed: sample.suppressed,
        template: TEMPLATE.into(),
        seed: args.seed.unwrap_or_else(|| u64::from(chance.next() as u32)),
        sending: seconds("minutes", args.minutes * 60.0)?,
        strikes: args.faults,
        freeze: args.freeze.map(|freeze| seconds("freeze", freeze)).transpose()?,
        folder: folder(global, &name)?,
        namespace: name,
    };
    let quiet = global.quiet || global.json;
    let say = |text: &str| {
        if !quiet {
            eprintln!("{text}");
        }
    };
    let drilled = drill::drill(&sources(global), &wish, &say, &stop).await;
    let is_kept = global.data_dir.is_some() || !stop.is_cancelled() && !drilled.as_ref().is_ok_and(|drill| drill.passed);
    // One that was refused made nothing that could be looked at: an empty folder goes.
    if std::fs::remove_dir(&wish.folder).is_ok() {
    } else if is_kept {
        say(&format!("its folder, with the logs of its processes: {}", wish.folder.display()));
    } else if let Err(error) = std::fs::remove_dir_all(&wish.folder) {
        say(&format!("{} stays behind: {error}", wish.folder.display()));
    }
    let drill = match drilled {
        Err(fault) if stop.is_cancelled() => {
            say(&fault.context);
            return Ok(exit::UNSETTLED);
        }
        drilled => drilled?,
    };
    print::result(global, &drill, || text(&drill))?;
    Ok(if drill.passed { exit::SETTLED } else { exit::UNSETTLED })
}

/// What a flag says in seconds, as a duration.
fn seconds(name: &str, number: f64) -> Result<Duration, Fault> {
    let duration = duration(number).filter(|duration| !duration.is_zero());
    duration.ok_or_else(|| Fault::new(Code::InputInvalid, format!("--{name} is a number above 0, of ten years at most")))
}

/// The folder of a drill: a new one, since no drill may touch data that somebody needs.
fn folder(global: &Global, name: &str) -> Result<PathBuf, Fault> {
    let folder = global.data_dir.clone().unwrap_or_else(|| std::env::temp_dir().join(format!("smsfleet-{name}")));
    let cannot = |error: std::io::Error| Fault::new(Code::StoreUnavailable, format!("{}: {error}", folder.display()));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(cannot)?;
    if std::fs::read_dir(&folder).map_err(cannot)?.next().is_some() {
        let context = format!("{} is not empty: a drill makes its own data, name a new folder", folder.display());
        return Err(Fault::new(Code::InputInvalid, context));
    }
    super::request::absolute(&folder)
}

async fn remove(global: &Global, config: &Config, name: &str) -> Result<u8, Fault> {
    if !config.is_cluster() {
        return Err(Fault::new(Code::ConfigInvalid, "scylla.nodes, kafka.brokers and redis.nodes name no cluster"));
    }
    namespace::remove(&namespace::moved(config, name)).await?;
    print::result(global, &serde_json::json!({ "removed": name }), || format!("{name} is removed\n"))?;
    Ok(exit::SETTLED)
}

/// A drill as people read it.
fn text(drill: &Drill) -> String {
    let mut text = format!("Drill ({}, seed {}), batch {}\n", drill.fleet, drill.seed, drill.batch_id);
    let mut row = |name: &str, value: String, note: &str| {
        let _ = writeln!(text, "{}", format!("  {name:<24}{value:>14}  {note}").trim_end());
    };
    row("records", grouped(drill.records), "");
    // Where a strike was not counted, the sums are ceilings.
    let most = |people: u64| format!("{}{}", if drill.uncounted > 0 { "at most " } else { "" }, grouped(people));
    for outcome in OUTCOMES {
        let count = drill.findings.outcomes.get(outcome.name()).copied().unwrap_or(0);
        if count > 0 {
            let note = format!("{} were in open windows of who was killed or frozen", most(drill.uncertain_most));
            row(outcome.name(), grouped(count), if outcome == Outcome::Uncertain { &note } else { "" });
        }
    }
    row("lost", grouped(drill.findings.lost), "no outcome, or called accepted and never seen by the simulator");
    row("duplicated", grouped(drill.findings.duplicated + drill.repeated_parts), "got the message, or a part of it, twice");
    row("contradicted", grouped(drill.findings.contradicted), "got the message, and the store says otherwise");
    // Nothing that is expected to be seen: lines of their own only when there are some.
    if drill.findings.unsent > 0 {
        let most = most(drill.unsent_most);
        let note = format!("failed, and `smsfleet batch retry` sends them; {most} were in open windows of who was frozen");
        row("left unsent", grouped(drill.findings.unsent), &note);
    }
    if drill.findings.wrongly_ended > 0 {
        let note = "failed and not refused for good or often enough, or ended as the list does not imply";
        row("wrongly ended", grouped(drill.findings.wrongly_ended), note);
    }
    let fired: Vec<String> = drill.fired.iter().map(|(name, times)| format!("{name} {times}")).collect();
    row("faults that fired", format!("{} of {}", drill.fell(), drill.planned), &fired.join(", "));
    if drill.uncounted > 0 {
        let note = "the store did not say who was in open windows: as many as a sender may have are allowed for";
        row("faults not counted", drill.uncounted.to_string(), note);
    }
    row("longest gap in sending", format!("{:.1} s", drill.longest_gap), "");
    row("sent in", format!("{:.1} s", drill.sending), "");
    row("over after", format!("{:.1} s", drill.seconds), "");
    let verdict = match (drill.passed, drill.is_clean(), drill.ended) {
        (true, ..) => "PASSED: nobody was lost, and nobody got it twice".to_owned(),
        (_, true, _) => format!("NOT PROVEN: only {} of {} faults fired", drill.fell(), drill.planned),
        (.., true) if !drill.findings.are_clean() || drill.repeated_parts > 0 => format!(
            "FAILED: {} lost, {} duplicated, {} contradicted, {} wrongly ended",
            drill.findings.lost,
            drill.findings.duplicated + drill.repeated_parts,
            drill.findings.contradicted,
            drill.findings.wrongly_ended
        ),
        (.., true) => format!(
            "FAILED: {} are uncertain and {} left unsent, and the strikes account for {}, of whom {} may be unsent",
            grouped(drill.uncertain()),
            grouped(drill.findings.unsent),
            most(drill.uncertain_most),
            most(drill.unsent_most)
        ),
        _ => "FAILED: the batch did not come to its end".to_owned(),
    };
    let _ = writeln!(text, "{verdict}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::BatchId;

    #[test]
    fn a_drill_has_an_end() {
        assert_eq!(seconds("minutes", 0.5), Ok(Duration::from_millis(500)));
        for number in [0.0, -1.0, f64::NAN, 1e10, 1e19] {
            assert_eq!(seconds("freeze", number).map_err(|fault| fault.code), Err(Code::InputInvalid), "{number}");
        }
    }

    #[test]
    fn the_verdict_says_what_is_wrong() {
        let passed = Drill {
            fleet: "embedded",
            seed: 7,
            batch_id: BatchId(1),
            ended: true,
            records: 20_000,
            findings: drill::verdict::Findings { outcomes: [("accepted".to_owned(), 20_000)].into(), ..Default::default() },
            uncertain_most: 400,
            unsent_most: 30,
            uncounted: 0,
            repeated_parts: 0,
            planned: 2,
            fired: [("killed", 1), ("frozen", 1)].into(),
            longest_gap: 12.34,
            sending: 60.0,
            seconds: 70.0,
            passed: true,
        };
        assert!(passed.is_clean());
        let said = text(&passed);
        for line in ["records", "20,000", "lost", "2 of 2  frozen 1, killed 1", "12.3 s", "PASSED"] {
            assert!(said.contains(line), "{line} is missing in\n{said}");
        }
        for word in ["wrongly", "unsent", "not counted", "at most"] {
            assert!(!said.contains(word), "nothing is said of what does not happen: {word} in\n{said}");
        }
        let mut frozen = passed.clone();
        frozen.findings.unsent = 30;
        let said = text(&frozen);
        assert!(
            frozen.is_clean() && said.contains("left unsent") && said.contains("batch retry") && said.contains("PASSED"),
            "{said}"
        );
        let mut uncounted = frozen.clone();
        uncounted.findings.outcomes.insert("uncertain".to_owned(), 9);
        uncounted.uncounted = 1;
        let said = text(&uncounted);
        for line in [
            "at most 400 were in open windows of who was killed or frozen",
            "at most 30 were in open windows of who was frozen",
            "faults not counted",
            "1  the store did not say who was in open windows",
            "PASSED",
        ] {
            assert!(said.contains(line), "{line} is missing in\n{said}");
        }
        assert_eq!(serde_json::json!(uncounted)["uncounted"], 1);
        type Change = fn(&mut Drill);
        let wrong: [(Change, &str); 8] = [
            (|drill| drill.findings.lost = 3, "FAILED: 3 lost, 0 duplicated, 0 contradicted"),
            (|drill| drill.findings.wrongly_ended = 4, "FAILED: 0 lost, 0 duplicated, 0 contradicted, 4 wrongly ended"),
            (|drill| drill.findings.duplicated = 1, "FAILED: 0 lost, 1 duplicated"),
            (|drill| drill.repeated_parts = 2, "FAILED: 0 lost, 2 duplicated"),
            (
                |drill| drill.findings.outcomes = [("uncertain".to_owned(), 20_000)].into(),
                "FAILED: 20,000 are uncertain and 0 left unsent, and the strikes account for 400, of whom 30 may be unsent",
            ),
            (|drill| drill.findings.unsent = 31, "FAILED: 0 are uncertain and 31 left unsent"),
            (|drill| drill.fired = [("killed", 1)].into(), "NOT PROVEN: only 1 of 2 faults fired"),
            (|drill| (drill.ended, drill.findings.lost) = (false, 9), "FAILED: the batch did not come to its end"),
        ];
        for (change, verdict) in wrong {
            let mut drill = passed.clone();
            change(&mut drill);
            drill.passed = false;
            assert!(text(&drill).contains(verdict), "{verdict}:\n{}", text(&drill));
        }
    }
}
