//! What a service says, as text for people: a batch, a command's answer, accounts, keys, the audit trail.

use std::fmt::Write;

use serde_json::Value;

use super::render::{grouped, plan_body, printable};
use crate::batch::Estimate;
use crate::model::access::Came;
use crate::model::batch::Command;
use crate::serve::api::{AccountList, AuditPage, CommandAnswer, DeadPage, InboxList, KeyList, OrderAnswer, WebhookList};
use crate::serve::views::{BatchView, StepView, short};

/// A batch, with what may be done with it.
pub fn batch(view: &BatchView) -> String {
    let mut text = format!("Batch {}  {}\n", view.batch_id, printable(&view.campaign_name));
    let _ = writeln!(text, "  tenant {}, through {}, created {}", view.tenant, view.provider_type, view.created);
    for (name, step) in [("preparation", &view.preparation), ("delivery", &view.delivery)] {
        let _ = writeln!(text, "  {name:<12} {}", step_line(step));
    }
    if let Some(sealed) = &view.plan {
        text.push('\n');
        plan_body(&mut text, sealed);
        let _ =
            writeln!(text, "\n  to send exactly this: smsfleet batch approve {} {}\n", short(view.batch_id), sealed.plan_hash);
    }
    text.push_str("  possible now:");
    for command in view.commands.iter().filter(|command| command.allowed) {
        let _ = write!(text, " {}", word(&command.command));
    }
    text.push('\n');
    for command in view.commands.iter().filter(|command| !command.allowed) {
        let _ = writeln!(text, "  not {:<16} {}", word(&command.command), command.why.as_deref().unwrap_or(""));
    }
    text
}

fn word(command: &Command) -> String {
    let word = serde_json::to_value(command).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default();
    word.replace('_', "-")
}

fn step_line(step: &StepView) -> String {
    let reason = step.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
    let took = step.seconds.map_or(String::new(), |seconds| format!(" ({seconds:.1} s)"));
    format!("{}{took}{reason}", step.state)
}

/// A command's answer.
pub fn command(answer: &CommandAnswer, hint: &str) -> String {
    let view = &answer.batch;
    let step = if view.current_step == "DELIVERY" { &view.delivery } else { &view.preparation };
    let again = if answer.already { " (it was done before)" } else { "" };
    let pause = answer.pause.as_ref().map_or(String::new(), |pause| match (&pause.still, &pause.last_submit) {
        (Some(true), Some(at)) => format!("; nothing is in flight, the last message was handed over at {at}"),
        (Some(true), None) => "; nothing is in flight, and nothing was handed over".to_owned(),
        (Some(false), _) => format!("; still in flight; nothing is handed over after {}", pause.until),
        (None, _) => format!("; at most {} may still be handed over, none after {}", grouped(pause.may_still_go), pause.until),
    });
    format!(
        "{}: {} {}{again}; task {}; {} in flight, {} never begun{pause}{hint}\n",
        short(view.batch_id),
        view.current_step,
        step.state,
        answer.task_code.rsplit('-').next().unwrap_or_default(),
        grouped(answer.in_flight),
        grouped(answer.undeclared),
    )
}

/// The plan of an order.
pub fn order(answer: &OrderAnswer) -> String {
    let mut text = String::new();
    let eta = |seconds: Option<f64>| seconds.map_or("unknown".into(), |seconds| format!("{seconds:.0} s"));
    if let Some(plan) = &answer.change {
        let _ = writeln!(text, "Plan {}: from {} to {}", plan.plan_hash, plan.from, plan.to);
        if let Some(counts) = &plan.counts {
            let _ = writeln!(text, "  unsent      {:>12} recipients", grouped(counts.unsent));
            let _ = writeln!(text, "  in flight   {:>12} at the old accounts", grouped(counts.in_flight));
            let _ = writeln!(text, "  there       {}", estimate(&counts.then));
            let _ = writeln!(text, "  here        {}", estimate(&counts.now));
            let _ = writeln!(text, "  rate        {:.0} segments a second, done in {}", plan.rate, eta(counts.eta_seconds));
        }
        for conflict in &plan.conflicts {
            let people = conflict.recipients.map_or(String::new(), |n| format!(" ({} recipients)", grouped(n)));
            let _ = writeln!(text, "  ! {}: {}{people}", conflict.account, printable(&conflict.text));
        }
    }
    if let Some(plan) = &answer.retry {
        let _ = writeln!(text, "Plan {}: {} recipients are sent again", plan.plan_hash, grouped(plan.recipients));
        let _ = writeln!(text, "  {}", estimate(&plan.estimate));
        let _ = writeln!(text, "  rate {:.0} segments a second, done in {}", plan.rate, eta(plan.eta_seconds));
    }
    text
}

fn estimate(estimate: &Estimate) -> String {
    let prices = estimate.price.iter().map(|price| format!("{:.2} {}", price.amount, price.currency)).collect::<Vec<_>>();
    let price = if prices.is_empty() { "price unknown".to_owned() } else { prices.join(" or ") };
    format!("{:>12} segments, {price}", grouped(estimate.segments))
}

/// Accounts.
pub fn accounts(list: &AccountList) -> String {
    if list.accounts.is_empty() {
        return "No account is configured.\n".into();
    }
    let mut text = String::new();
    for account in &list.accounts {
        let rate = match (account.live_rate, account.configured_rate) {
            (Some(live), _) => format!("{live}/s (set live)"),
            (None, Some(configured)) => format!("{configured}/s"),
            (None, None) => "learned".to_owned(),
        };
        let live = account.live.as_ref().map_or("no fleet runs here".to_owned(), |live| {
            let standing = if live.up { "up" } else { "down" };
            let error = live.last_error.as_ref().map_or(String::new(), |error| format!("; {}", printable(error)));
            format!("{standing}, {} sessions, {} outstanding, {:.0}/s now{error}", live.sessions, live.outstanding, live.rate)
        });
        let _ = writeln!(text, "{:<16} {:<12} rate {rate:<20} {live}", account.name, account.provider_type);
    }
    text
}

/// Keys.
pub fn keys(list: &KeyList) -> String {
    if list.keys.is_empty() {
        return "There is no key yet: smsfleet key create --name desk --role operator\n".into();
    }
    let mut text = String::new();
    for key in &list.keys {
        let standing = match (&key.revoked, &key.expires) {
            (Some(at), _) => format!("revoked {at}"),
            (None, Some(at)) => format!("until {at}"),
            (None, None) => String::new(),
        };
        let (id, tenant, role) = (&key.id, &key.tenant, key.role.name());
        let _ =
            writeln!(text, "{id}  {role:<8}  tenant {tenant:<12} created {}  {}  {standing}", key.created, printable(&key.name));
    }
    text
}

/// A page of the audit trail.
pub fn audit(page: &AuditPage) -> String {
    let mut text = String::new();
    for view in &page.entries {
        let entry = &view.entry;
        let came = match &entry.came {
            Came::Asked => "asked".to_owned(),
            Came::Done => "done".to_owned(),
            Came::Refused(code) => format!("refused {code}"),
        };
        let words = |standing: &crate::model::access::Standing| {
            standing.iter().map(|(name, word)| format!("{name}={}", printable(word))).collect::<Vec<_>>().join(" ")
        };
        let _ = writeln!(
            text,
            "{}  {:<16} {:<22} {:<34} {came:<16} [{}] -> [{}]",
            view.time,
            printable(&entry.who),
            entry.action,
            printable(&entry.target),
            words(&entry.before),
            words(&entry.after)
        );
    }
    text
}

/// Webhooks.
pub fn webhooks(list: &WebhookList) -> String {
    if list.webhooks.is_empty() {
        return "There is no webhook yet: smsfleet webhook add https://hooks.example.com/sms --event batch\n".into();
    }
    let mut text = String::new();
    for webhook in &list.webhooks {
        let events = webhook.events.iter().map(|event| event.name()).collect::<Vec<_>>().join(",");
        let standing = match (&webhook.ended, webhook.active) {
            (Some(why), _) => format!("ended: {}", printable(why)),
            (None, true) => "active".to_owned(),
            (None, false) => "stopped".to_owned(),
        };
        let tenant = webhook.tenant.as_deref().unwrap_or("*");
        let _ = writeln!(text, "{}  {events:<22} tenant {tenant:<12} {}  {standing}", webhook.id, printable(&webhook.url));
    }
    text
}

/// Dead events.
pub fn dead(page: &DeadPage) -> String {
    let mut text = String::new();
    for dead in &page.events {
        let (kind, batch) = (dead.event["type"].as_str().unwrap_or("?"), dead.batch_id.as_deref().unwrap_or("-"));
        let _ = writeln!(text, "{}  {}  {kind:<12} batch {batch}  {}", dead.died, dead.webhook, printable(&dead.reason));
    }
    text
}

/// What people wrote.
pub fn inbox(page: &InboxList) -> String {
    let mut text = String::new();
    for view in &page.messages {
        let message = &view.message;
        let campaign = printable(&message.campaign_id);
        let asks = message.intent.name();
        let _ =
            writeln!(text, "{}  {:<16} {asks:<8} {campaign:<16} {}", view.at, printable(&message.from), printable(&message.text));
    }
    text
}

/// A number's history.
pub fn history(value: &Value) -> String {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let word = |value: &Value, name: &str| printable(value[name].as_str().unwrap_or_default());
    let mut text = String::new();
    if value["suppressed"] == true {
        text.push_str("It is on the suppression list.\n");
    }
    for batch in list(&value["batches"]) {
        let _ =
            writeln!(text, "{}  batch {}  {}", word(&batch, "created"), word(&batch, "batch_id"), word(&batch, "campaign_name"));
        for record in list(&batch["records"]) {
            let _ = writeln!(
                text,
                "    {:<11} {:<12} {}",
                word(&record, "outcome"),
                word(&record, "delivery"),
                word(&record, "text")
            );
        }
    }
    for message in list(&value["inbound"]) {
        let _ = writeln!(text, "wrote: {}", word(&message, "text"));
    }
    if text.is_empty() { "Nothing is known of it.\n".into() } else { text }
}

/// What an erasure did.
pub fn erased(report: &Value) -> String {
    let mut text = String::new();
    for (name, value) in report.as_object().into_iter().flatten() {
        match value {
            Value::Array(left) => {
                for one in left {
                    let what = printable(one["what"].as_str().unwrap_or_default());
                    let _ = writeln!(text, "  left: {what}: {}", printable(one["why"].as_str().unwrap_or_default()));
                }
            }
            other => {
                let _ = writeln!(text, "  {:<16} {other}", name.replace('_', " "));
            }
        }
    }
    text
}
