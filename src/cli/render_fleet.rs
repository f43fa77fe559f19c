//! A cluster as text for people.

use std::fmt::Write;

use super::render::{grouped, printable};
use crate::model::fleet::together;
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
        let _ = writeln!(text, "  {:<12} {} partitions: {}", "", sheet.partitions.len(), ranges(&sheet.partitions));
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
    use super::*;

    #[test]
    fn partitions_are_told_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 3, 7, 126, 127]), "0-3, 7, 126-127");
        assert_eq!(ranges(&[5]), "5");
    }
}
