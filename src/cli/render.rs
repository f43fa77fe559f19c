//! Results as people read them. Pure: from views to text.

use std::fmt::Write;

use crate::model::code::{CODES, Code};
use crate::model::outcome::{OUTCOMES, Outcome};
use crate::serve::api::{BatchExplained, BatchPage};
use crate::serve::views::{BatchReport, BatchView, Cost, PlanView, short, sum};
use crate::statistics::RecipientLine;

/// A whole number with its thousands set apart.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// One line of a table: a word and its number.
fn row(text: &mut String, indent: usize, name: &str, n: u64, note: &str) {
    let line = format!("{:indent$}{:<width$}{:>14}  {note}", "", printable(name), grouped(n), width = 26 - indent);
    let _ = writeln!(text, "{}", line.trim_end());
}

/// What a code means, for a word such as `SF-5001 0x0000000B`.
fn meaning(kind: &str) -> &'static str {
    let number = kind.split(' ').next().unwrap_or("");
    CODES.iter().find(|code| code.as_str() == number).map_or("", |code| code.meaning())
}

fn costs(cost: &[Cost]) -> String {
    cost.iter().map(|cost| format!("{:.2} {}", cost.amount, cost.currency)).collect::<Vec<_>>().join(" + ")
}

fn seconds(seconds: f64) -> String {
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        let whole = seconds as u64;
        match whole / 3_600 {
            0 => format!("{} min {:02} s", whole / 60, whole % 60),
            hours => format!("{hours} h {:02} min", whole / 60 % 60),
        }
    }
}

/// A batch's report.
pub fn report(report: &BatchReport) -> String {
    let (batch, settlement) = (&report.batch, &report.settlement);
    let mut text = String::new();
    let name = if batch.campaign_name.is_empty() { String::new() } else { format!(" ({})", printable(&batch.campaign_name)) };
    let _ = writeln!(text, "Batch {}{name}", batch.batch_id);
    let _ = writeln!(text, "  preparation {}, delivery {}", batch.preparation.state, batch.delivery.state);
    for reason in [&batch.preparation.reason, &batch.delivery.reason].into_iter().flatten() {
        let _ = writeln!(text, "  because: {}", printable(reason));
    }
    let _ = writeln!(text);
    row(&mut text, 0, "Records", settlement.records, "");
    for outcome in OUTCOMES {
        let n = settlement.of(outcome);
        if n == 0 && outcome != Outcome::Accepted {
            continue;
        }
        row(&mut text, 2, outcome.name(), n, outcome_note(outcome));
        let kinds = match outcome {
            Outcome::Rejected => &settlement.rejected,
            Outcome::Failed => &settlement.failed,
            _ => continue,
        };
        for (kind, n) in kinds {
            row(&mut text, 4, kind, *n, meaning(kind));
        }
    }
    let verdict = match report.unaccounted {
        0 => "every record is accounted for",
        _ => "NOT ALL RECORDS ARE ACCOUNTED FOR: this is a bug",
    };
    row(&mut text, 2, "sum", sum(settlement), verdict);
    if settlement.of(Outcome::Accepted) > 0 {
        let _ = writeln!(text, "\nReceipts of the accepted");
        for (name, note) in [
            ("delivered", "every part's receipt says DELIVRD"),
            ("undelivered", "the network gave up"),
            ("pending", "still to come"),
            ("unknown", "waited for long enough, or the network does not know"),
        ] {
            let n = settlement.deliveries.get(name).copied().unwrap_or(0);
            if n > 0 || name == "delivered" {
                row(&mut text, 2, name, n, note);
            }
        }
    }
    let _ = writeln!(text, "\nSegments");
    for (account, n) in &settlement.segments_by_account {
        row(&mut text, 2, account, *n, "");
    }
    row(&mut text, 2, "total", settlement.segments, &costs(&report.cost));
    let _ = writeln!(text, "\nTime");
    for (name, step, rate, what) in [
        ("prepared", &batch.preparation, report.prepared_per_second, "records"),
        ("sent", &batch.delivery, report.sent_per_second, "segments"),
    ] {
        let Some(took) = step.seconds else { continue };
        let rate = rate.map_or(String::new(), |rate| format!(", {} {what} a second", grouped(rate.round() as u64)));
        let _ = writeln!(text, "  {name} in {}{rate}", seconds(took));
    }
    if let Some(clicks) = &report.clicks {
        let (people, clicks, machines) = (grouped(clicks.people), grouped(clicks.clicks), grouped(clicks.machine_clicks));
        let _ = writeln!(text, "  links: {people} people opened theirs, {clicks} times; machines {machines} times");
    }
    let settled = if report.settled { "Settled: nothing will change any more but by late receipts." } else { "Not settled yet." };
    let _ = writeln!(text, "\n{settled}");
    for next in &report.next {
        let _ = writeln!(text, "  - {next}");
    }
    text
}

fn outcome_note(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Accepted => "the provider took them",
        Outcome::Failed => "the provider refused them for good, or too often",
        Outcome::Uncertain => "handed over and never answered",
        Outcome::Expired => "their time was over before they were sent",
        Outcome::Canceled => "not sent: the batch was canceled",
        Outcome::Rejected => "cannot be sent",
        Outcome::Duplicate => "the number came before",
        Outcome::Suppressed => "on the list of those who get nothing",
        Outcome::Open => "not ended yet",
    }
}

/// A plan, as a dry run shows it.
pub fn plan(batch: &BatchView, plan: &PlanView) -> String {
    let mut text = format!("Plan of batch {}: nothing was sent\n\n", batch.batch_id);
    plan_body(&mut text, plan);
    let _ = writeln!(text, "\nPlan hash {}", plan.plan_hash);
    let _ = writeln!(text, "  to send exactly this: the same command with --approve {} in place of --dry-run", plan.plan_hash);
    text
}

/// What a plan comes to.
pub(super) fn plan_body(text: &mut String, plan: &PlanView) {
    row(text, 0, "Records", plan.records, "");
    row(text, 2, "recipients", plan.recipients, "will get a message");
    row(text, 2, "duplicate", plan.duplicates, "the number came before");
    row(text, 2, "suppressed", plan.suppressed, "on the list of those who get nothing");
    row(text, 2, "rejected", plan.rejected.values().sum(), "cannot be sent");
    for (code, n) in &plan.rejected {
        row(text, 4, code, *n, meaning(code));
    }
    let _ = writeln!(text, "\nMessages");
    row(text, 2, "GSM 03.38", plan.gsm7, "");
    row(text, 2, "UCS-2", plan.ucs2, "");
    row(text, 2, "segments", plan.segments, &costs(&plan.cost));
    if !plan.samples.is_empty() {
        let _ = writeln!(text, "\nSamples");
    }
    for sample in &plan.samples {
        let parts = if sample.segments == 1 { "1 segment".into() } else { format!("{} segments", sample.segments) };
        let _ = writeln!(text, "  line {}, {}, {parts}:", sample.line, sample.why);
        let _ = writeln!(text, "    {}", printable(&sample.text));
    }
}

/// A text that cannot move the cursor or change colours.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == '\n' {
                '⏎'
            } else if c.is_control() {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// What limits a batch.
pub fn explained(explained: &BatchExplained) -> String {
    let facts = &explained.facts;
    let mut text = format!("{}\n\nWhat limits it\n", facts.standing);
    for limit in &explained.limits {
        let _ = writeln!(text, "  - {}", printable(limit));
    }
    let _ = writeln!(text, "\nFacts");
    row(&mut text, 2, "lanes done", u64::from(facts.lanes_done), &format!("of {}", facts.lanes));
    row(&mut text, 2, "open windows", facts.windows_open, "");
    row(&mut text, 2, "in flight", facts.in_flight, "handed over, or about to be, and not answered");
    row(&mut text, 2, "not declared", facts.undeclared, "");
    row(&mut text, 2, "receipts parked", facts.receipts_parked, "match nothing yet (all batches)");
    row(&mut text, 2, "receipts unmatched", facts.receipts_unmatched, "stayed without a recipient (all batches)");
    for (account, kinds) in &facts.latest {
        let _ = writeln!(text, "\nLatest answers of account {account}");
        for (kind, n) in kinds {
            row(&mut text, 2, kind, *n, meaning(kind));
        }
    }
    for account in &explained.accounts {
        let state = if account.up { "up" } else { "down" };
        let _ = writeln!(
            text,
            "\nAccount {}: {state}, {} sessions, {} of {} unanswered, {:.0} segments a second allowed",
            account.account, account.sessions, account.outstanding, account.window, account.rate
        );
    }
    text
}

/// What happened to a number.
pub fn records(records: &[RecipientLine]) -> String {
    let mut text = String::new();
    for record in records {
        let _ = write!(text, "{} line {}: {}", record.number, record.line, record.outcome.name());
        if let Some(delivery) = record.delivery {
            let _ = write!(text, ", {}", delivery.name());
        }
        if let Some(code) = record.code {
            let _ = write!(text, ", {code} {}", code.meaning());
        }
        let _ = writeln!(text, "{}{}", if record.detail.is_empty() { "" } else { ": " }, printable(&record.detail));
        if let Some(body) = &record.text {
            let _ = writeln!(text, "  text ({} segments): {}", record.segments, printable(body));
        }
        for event in &record.history {
            let what = [event.account.as_str(), event.message_id.as_str(), event.detail.as_str()];
            let what: Vec<String> = what.iter().filter(|word| !word.is_empty()).map(|word| printable(word)).collect();
            let _ = writeln!(text, "  {}  part {}  {:<10} {}", event.at, event.part, event.what, what.join("  "));
        }
    }
    text
}

/// A list of batches.
pub fn batches(page: &BatchPage) -> String {
    let mut text = String::new();
    for batch in &page.batches {
        let step = if batch.current_step == "DELIVERY" { &batch.delivery } else { &batch.preparation };
        let settled = if batch.over { "over" } else { "" };
        let _ = writeln!(
            text,
            "{}  {}  {:>12} records  {} {}  {settled} {}",
            short(batch.batch_id),
            batch.created,
            grouped(batch.records),
            batch.current_step,
            step.state,
            printable(&batch.campaign_name)
        );
    }
    text
}

/// The table of error codes, as the README has it.
pub fn code_table() -> String {
    let mut text = String::from("| code | meaning | what to do |\n|---|---|---|\n");
    for code in CODES {
        let _ = writeln!(text, "| {} | {} | {} |", code.as_str(), Code::meaning(*code), code.advice());
    }
    text
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
