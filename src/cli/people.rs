//! People and who is told about them: webhooks, one number's history, export and erasure, what people wrote.

use hyper::Method;
use serde_json::{Value, json};

use super::access::{Access, encoded};
use super::service_args::{NumberCommand, WebhookCommand};
use super::{Global, exit, print, render_service};
use crate::model::code::{Code, Fault};
use crate::model::webhook::EventKind;
use crate::roles::config::Config;
use crate::serve::api::{ActiveWish, DeadPage, InboxList, ReplayWish, Replayed, WebhookList, WebhookWish};
use crate::serve::client::Call;

/// Webhooks.
pub async fn webhook(global: &Global, config: &Config, command: WebhookCommand) -> Result<u8, Fault> {
    let access = Access::to_or_new(global, config).await?;
    let path = |id: &str| format!("/v1/webhooks/{}", encoded(id));
    match command {
        WebhookCommand::Add { url, events, tenant } => {
            let kind = |word: &String| {
                let known = EventKind::from_name(word);
                known.ok_or_else(|| Fault::new(Code::InputInvalid, format!("{word:?} is no event: batch, receipt, inbound")))
            };
            let events = events.iter().map(kind).collect::<Result<_, _>>()?;
            let wish = WebhookWish { url, events, tenant };
            let added: Value = access.client.call(Call::new(Method::POST, "/v1/webhooks").json(&wish)).await?;
            let said = |name: &str| added[name].as_str().unwrap_or_default().to_owned();
            print::result(global, &added, || {
                format!(
                    "{}\n\nWebhook {}. Its secret is shown this once; calls are signed with it.\n",
                    said("secret"),
                    said("id")
                )
            })?;
        }
        WebhookCommand::List => {
            let list: WebhookList = access.client.get("/v1/webhooks").await?;
            print::result(global, &list, || render_service::webhooks(&list))?;
        }
        WebhookCommand::Enable { id } => active(global, &access, &path(&id), true).await?,
        WebhookCommand::Disable { id } => active(global, &access, &path(&id), false).await?,
        WebhookCommand::Remove { id } => {
            let gone: Value = access.client.call(Call::new(Method::DELETE, path(&id))).await?;
            print::result(global, &gone, || format!("webhook {id} and everything that waited for it is gone\n"))?;
        }
        WebhookCommand::Dead { id } => {
            let one = id.map_or(String::new(), |id| format!("&webhook={}", encoded(&id)));
            let mut list = print::Pages::new(global);
            let show = |page: DeadPage| {
                list.page(&page.events, || render_service::dead(&page))?;
                Ok(page.cursor)
            };
            access.pages(&format!("/v1/dead-events?limit=200{one}"), show).await?;
            list.end("")?;
        }
        WebhookCommand::Replay { id, batch } => {
            let wish = ReplayWish { batch, place: None };
            let call = Call::new(Method::POST, format!("{}/replay", path(&id))).json(&wish);
            let replayed: Replayed = access.client.call(call).await?;
            print::result(global, &replayed, || format!("{} events wait to be told again\n", replayed.replayed))?;
        }
    }
    access.close();
    Ok(exit::SETTLED)
}

async fn active(global: &Global, access: &Access, path: &str, active: bool) -> Result<(), Fault> {
    let call = Call::new(Method::PUT, format!("{path}/active")).json(&ActiveWish { active });
    let view: Value = access.client.call(call).await?;
    print::result(global, &view, || format!("it is {}\n", if active { "told again" } else { "told nothing" }))
}

/// One number.
pub async fn number(global: &Global, config: &Config, command: NumberCommand) -> Result<u8, Fault> {
    let access = Access::to(global, config).await?;
    let path = |number: &str, what: &str| format!("/v1/numbers/{}/{what}", encoded(number));
    match command {
        NumberCommand::History { number } => {
            let mut pages: Vec<Value> = vec![];
            let gather = |page: Value| {
                let next = page["next"].as_str().map(str::to_owned);
                pages.push(page);
                Ok(next)
            };
            access.pages(&format!("{}?", path(&number, "history")), gather).await?;
            let all = |name: &str| pages.iter().flat_map(|page| page[name].as_array().cloned().unwrap_or_default()).collect();
            let first = pages.first().cloned().unwrap_or_default();
            let value = json!({
                "batches": Value::Array(all("batches")), "inbound": Value::Array(all("inbound")),
                "suppressed": first["suppressed"], "opt_out": first["opt_out"],
            });
            print::result(global, &value, || render_service::history(&value))?;
        }
        NumberCommand::Export { number } => {
            print::streamed(&access.client, &path(&number, "export")).await?;
        }
        NumberCommand::Erase { number } => {
            let report: Value = access.client.call(Call::new(Method::POST, path(&number, "erase"))).await?;
            print::result(global, &report, || render_service::erased(&report))?;
        }
    }
    access.close();
    Ok(exit::SETTLED)
}

/// What people wrote, newest first.
pub async fn inbox(global: &Global, config: &Config, batch: Option<&str>) -> Result<u8, Fault> {
    let access = Access::to(global, config).await?;
    let about = batch.map_or(String::new(), |batch| format!("&batch={}", encoded(batch)));
    let mut list = print::Pages::new(global);
    let show = |page: InboxList| {
        list.page(&page.messages, || render_service::inbox(&page))?;
        Ok(page.cursor)
    };
    access.pages(&format!("/v1/inbox?limit=200{about}"), show).await?;
    list.end("")?;
    access.close();
    Ok(exit::SETTLED)
}
