//! A cluster as text for people.

use std::fmt::Write;

use super::render::{grouped, printable};
use crate::model::fleet::{FleetRole, together};
use crate::roles::cluster::migrate::Migrated;
use crate::serve::api::{FleetView, MemberView};

/// What a migration made.
pub fn migrated(migrated: &Migrated) -> String {
    let made = |what: &[String]| if what.is_empty() { "none".to_owned() } else { what.join(", ") };
    format!(
        "keyspace {}: tables made: {}; {} were there\ntopics made: {}; topics that were there: {}\n",
        migrated.keyspace,
        made(&migrated.tables_made),
        migrated.tables_present.len(),
        made(&migrated.topics_made),
        made(&migrated.topics_present)
    )
}

/// Partitions as ranges: `0-3, 7`.
fn ranges(partitions: &[u8]) -> String {
    let mut runs: Vec<(u8, u8)> = vec![];
    for &partition in partitions {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(partition) => *last = partition,
            _ => runs.push((partition, partition)),
        }
    }
    let run = |(first, last): &(u8, u8)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    runs.iter().map(run).collect::<Vec<_>>().join(", ")
}

/// The fleet: its leader, its queues, its processes, its accounts.
pub fn fleet(view: &FleetView) -> String {
    let mut text = String::new();
    let alive = view.members.iter().filter(|member| member.alive).count();
    let _ = writeln!(text, "{alive} processes are alive");
    match (&view.leader, view.leads_since) {
        (Some(leader), Some(since)) => {
            let _ = writeln!(text, "  leader       {leader}, since {since}");
        }
        _ => text.push_str("  leader       none\n"),
    }
    if let Some(lag) = view.lag {
        let (prepare, delivery) = (grouped(lag.prepare), grouped(lag.delivery));
        let _ = writeln!(
            text,
            "  waiting      {prepare} tasks of preparation, {delivery} tokens of delivery (about 5,000 recipients each)"
        );
    }
    let _ = writeln!(text, "  partitions   {} of 128 have an owner", view.partitions_owned);
    if !view.members.is_empty() {
        let _ = writeln!(text, "\n  {:<12} {:<18} {:<24} {:>7}  since", "role", "worker", "machine", "process");
    }
    for member in &view.members {
        line(&mut text, member);
    }
    accounts(&mut text, view);
    for slot in &view.slots {
        let _ = writeln!(
            text,
            "  bind slot of {}: {} since {}, until {}",
            printable(&slot.account),
            slot.worker,
            slot.since,
            slot.until
        );
    }
    text
}

fn line(text: &mut String, member: &MemberView) {
    let sheet = &member.sheet;
    let silent = if member.alive { String::new() } else { format!("  SILENT for {:.0} s", member.heard_seconds_ago) };
    let leads = if member.alive && sheet.leads_since.is_some() { "  leads" } else { "" };
    let (role, worker, host) = (sheet.role.name(), sheet.worker.to_string(), printable(&sheet.host));
    let _ = writeln!(text, "  {role:<12} {worker:<18} {host:<24} {:>7}  {}{leads}{silent}", sheet.pid, sheet.started);
    if !sheet.partitions.is_empty() {
        let of = if sheet.role == FleetRole::Prepare { " of preparation" } else { "" };
        let _ = writeln!(text, "  {:<12} {} partitions{of}: {}", "", sheet.partitions.len(), ranges(&sheet.partitions));
    }
    if !sheet.lanes.is_empty() {
        let lanes: Vec<String> = sheet.lanes.iter().take(8).map(|lane| lane.to_string()).collect();
        let more = if sheet.lanes.len() > lanes.len() { ", …" } else { "" };
        let _ = writeln!(text, "  {:<12} {} lanes: {}{more}", "", sheet.lanes.len(), lanes.join(", "));
    }
}

fn accounts(text: &mut String, view: &FleetView) {
    let all = together(view.members.iter().filter(|member| member.alive).flat_map(|member| &member.sheet.accounts));
    if !all.is_empty() {
        let _ = writeln!(text, "\n  {:<20} {:>9} {:>12} {:>14}  limit", "account", "sessions", "in flight", "segments/s");
    }
    for account in all {
        let limit = account.ceiling.map_or_else(|| "learned".to_owned(), |ceiling| grouped(u64::from(ceiling)));
        let error = account
            .last_error
            .as_deref()
            .filter(|_| !account.up)
            .map_or(String::new(), |why| format!("  DOWN: {}", printable(why)));
        let (in_flight, rate) = (grouped(account.outstanding), grouped(account.rate.round() as u64));
        let _ = writeln!(
            text,
            "  {:<20} {:>9} {in_flight:>12} {rate:>14}  {limit}{error}",
            printable(&account.account),
            account.sessions
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::fleet::tests::sheet;
    use crate::model::fleet::{Lag, LiveAccount, Sheet};
    use crate::model::id::{BatchId, LaneKey, WorkerId};
    use crate::model::time::Timestamp;
    use crate::serve::api::SlotView;

    /// 2026-11-26, 08:00 UTC, and so many seconds.
    fn at(seconds: u64) -> Timestamp {
        Timestamp(1_795_680_000_000).plus(Duration::from_secs(seconds))
    }

    fn member(worker: u64, role: FleetRole) -> MemberView {
        let sheet = Sheet { pid: 40 + worker as u32, started: at(worker), ..sheet(worker, role, at(100)) };
        MemberView { alive: true, heard_seconds_ago: 1.0, sheet }
    }

    #[test]
    fn who_is_alive_who_leads_and_who_has_what_is_told_word_by_word() {
        let account = |up, sessions, outstanding, rate| LiveAccount {
            account: "main".into(),
            up,
            sessions,
            outstanding,
            rate,
            ceiling: Some(5_000),
            last_error: (!up).then(|| "SF-5005 refused".into()),
            ..LiveAccount::default()
        };
        let lane = |lane| LaneKey { batch: BatchId(0xab << 120), lane };
        let mut members = vec![
            member(1, FleetRole::Coordinator),
            member(2, FleetRole::Coordinator),
            member(3, FleetRole::Prepare),
            member(4, FleetRole::Deliver),
            member(5, FleetRole::Deliver),
            member(6, FleetRole::Gateway),
        ];
        // The first one was frozen: it may believe that it leads, and is silent.
        (members[0].alive, members[0].heard_seconds_ago, members[0].sheet.leads_since) = (false, 42.4, Some(at(10)));
        members[1].sheet.leads_since = Some(at(60));
        members[2].sheet.partitions = (0..16).collect();
        (members[3].sheet.partitions, members[3].sheet.lanes) = ((0..64).collect(), (0..9).map(lane).collect());
        members[3].sheet.accounts = vec![account(true, 2, 1_200, 2_499.6)];
        (members[4].sheet.partitions, members[4].sheet.lanes) = (vec![64, 65, 127], vec![lane(70)]);
        members[4].sheet.accounts = vec![account(false, 0, 0, 100.0)];
        let view = FleetView {
            members,
            leader: Some(WorkerId(2).to_string()),
            leads_since: Some(at(60)),
            lag: Some(Lag { prepare: 2, delivery: 1_280 }),
            partitions_owned: 67,
            slots: vec![SlotView { account: "main".into(), worker: WorkerId(4).to_string(), since: at(70), until: at(130) }],
        };
        let lanes: Vec<String> = (0..8).map(|n| lane(n).to_string()).collect();
        let expected = GOLDEN.replace("LANES", &lanes.join(", "));
        assert_eq!(fleet(&view), expected);
        let nobody =
            FleetView { members: vec![], leader: None, leads_since: None, lag: None, partitions_owned: 0, slots: vec![] };
        assert_eq!(fleet(&nobody), "0 processes are alive\n  leader       none\n  partitions   0 of 128 have an owner\n");
    }

    const GOLDEN: &str = "\
5 processes are alive
  leader       w0000000000000002, since 2026-11-26T08:01:00.000Z
  waiting      2 tasks of preparation, 1,280 tokens of delivery (about 5,000 recipients each)
  partitions   67 of 128 have an owner

  role         worker             machine                  process  since
  coordinator  w0000000000000001  one                           41  2026-11-26T08:00:01.000Z  SILENT for 42 s
  coordinator  w0000000000000002  one                           42  2026-11-26T08:00:02.000Z  leads
  prepare      w0000000000000003  one                           43  2026-11-26T08:00:03.000Z
               16 partitions of preparation: 0-15
  deliver      w0000000000000004  one                           44  2026-11-26T08:00:04.000Z
               64 partitions: 0-63
               9 lanes: LANES, …
  deliver      w0000000000000005  one                           45  2026-11-26T08:00:05.000Z
               3 partitions: 64-65, 127
               1 lanes: ab000000000000000000000000000000/70
  gateway      w0000000000000006  one                           46  2026-11-26T08:00:06.000Z

  account               sessions    in flight     segments/s  limit
  main                         2        1,200          2,500  5,000
  bind slot of main: w0000000000000004 since 2026-11-26T08:01:10.000Z, until 2026-11-26T08:02:10.000Z
";

    #[test]
    fn partitions_are_told_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 3, 7, 126, 127]), "0-3, 7, 126-127");
        assert_eq!(ranges(&[5]), "5");
    }
}
