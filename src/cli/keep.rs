//! What a service keeps beside its batches: accounts' rates, the suppression list, keys, the audit trail.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use hyper::Method;
use serde_json::json;

use super::access::{Access, encoded};
use super::args::{AccountCommand, KeyCommand, SuppressCommand};
use super::{Global, exit, print, render, render_service};
use crate::model::access::Role;
use crate::model::code::{Code, Fault};
use crate::roles::config::Config;
use crate::serve::api::{
    AccountList, AccountView, AuditPage, CheckedMany, KeyList, KeyView, KeyWish, MadeKey, NUMBERS_MAX, Numbers, RateWish,
    SuppressionAnswer,
};
use crate::serve::client::Call;

/// Bytes of one line of a list of numbers at most.
const LINE_MAX: u64 = 1_000;

/// Accounts.
pub async fn account(global: &Global, config: &Config, command: AccountCommand) -> Result<u8, Fault> {
    let access = Access::to(global, config).await?;
    match command {
        AccountCommand::List => {
            let list: AccountList = access.client.get("/v1/accounts").await?;
            print::result(global, &list, || render_service::accounts(&list))?;
        }
        AccountCommand::Rate { account, rate } => {
            let segments_per_second = match rate.as_str() {
                "configured" => None,
                number => Some(number.parse().map_err(|_| {
                    Fault::new(Code::InputInvalid, format!("the rate {number:?} is no whole number, and not `configured`"))
                })?),
            };
            let path = format!("/v1/accounts/{}/rate", encoded(&account));
            let call = Call::new(Method::PUT, path).json(&RateWish { segments_per_second });
            let view: AccountView = access.client.call(call).await?;
            let rate = view.live_rate.or(view.configured_rate);
            print::result(global, &view, || {
                let rate =
                    rate.map_or_else(|| "as fast as it turns out to allow".into(), |rate| format!("{rate} segments a second"));
                format!("{}: {rate}\n", view.name)
            })?;
        }
    }
    access.close();
    Ok(exit::SETTLED)
}

/// The suppression list.
pub async fn suppress(global: &Global, config: &Config, command: SuppressCommand) -> Result<u8, Fault> {
    let (numbers, remove) = match command {
        SuppressCommand::Add { numbers } => (numbers, false),
        SuppressCommand::Remove { numbers } => (numbers, true),
        SuppressCommand::Import { file, remove } => (import(file).await?, remove),
        SuppressCommand::Check { numbers } => return check(global, config, numbers).await,
    };
    let access = Access::to_or_new(global, config).await?;
    let path = format!("/v1/suppressions/commands/{}", if remove { "remove" } else { "add" });
    let mut suppressed = 0;
    for some in numbers.chunks(NUMBERS_MAX) {
        let call = Call::new(Method::POST, path.as_str()).json(&Numbers { numbers: some.to_vec() });
        suppressed = access.client.call::<SuppressionAnswer>(call).await?.suppressed;
    }
    access.close();
    let value = json!({ "read": numbers.len(), "removed": remove, "suppressed": suppressed });
    print::result(global, &value, || {
        let what = if remove { "removed" } else { "added" };
        format!("{} numbers {what}; {} get nothing\n", render::grouped(numbers.len() as u64), render::grouped(suppressed))
    })?;
    Ok(exit::SETTLED)
}

async fn check(global: &Global, config: &Config, numbers: Vec<String>) -> Result<u8, Fault> {
    let access = Access::to(global, config).await?;
    let call = Call::new(Method::POST, "/v1/suppressions/commands/check").json(&Numbers { numbers: numbers.clone() });
    let checked: CheckedMany = access.client.call(call).await?;
    access.close();
    print::result(global, &checked, || {
        let line =
            |(number, yes): (&String, &bool)| format!("{number} {}\n", if *yes { "gets nothing" } else { "is not on the list" });
        numbers.iter().zip(&checked.suppressed).map(line).collect()
    })?;
    Ok(exit::SETTLED)
}

/// The numbers of a file, all of them checked before anything changes.
async fn import(path: PathBuf) -> Result<Vec<String>, Fault> {
    let read = tokio::task::spawn_blocking(move || {
        if path == Path::new("-") {
            return read(std::io::stdin().lock());
        }
        let file = std::fs::File::open(&path)
            .map_err(|error| Fault::new(Code::SourceNotFound, format!("{} cannot be opened: {error}", path.display())))?;
        read(file)
    });
    read.await.map_err(|error| Fault::new(Code::Internal, error.to_string()))?
}

/// Keys.
pub async fn key(global: &Global, config: &Config, command: KeyCommand) -> Result<u8, Fault> {
    let access = Access::to_or_new(global, config).await?;
    match command {
        KeyCommand::Create { name, role, tenant, expires } => {
            let wish = KeyWish { name, role: Role::from(role), tenant, expires };
            let made: MadeKey = access.client.call(Call::new(Method::POST, "/v1/keys").json(&wish)).await?;
            print::result(global, &made, || {
                format!(
                    "{}\n\nKey {} ({}, tenant {}). It is shown this once; keep it where secrets are kept.\n",
                    made.key,
                    made.stored.id,
                    made.stored.role.name(),
                    made.stored.tenant
                )
            })?;
        }
        KeyCommand::List => {
            let list: KeyList = access.client.get("/v1/keys").await?;
            print::result(global, &list, || render_service::keys(&list))?;
        }
        KeyCommand::Revoke { id } => {
            let view: KeyView = access.client.call(Call::new(Method::DELETE, format!("/v1/keys/{}", encoded(&id)))).await?;
            print::result(global, &view, || format!("key {} ({}) opens nothing any more\n", view.id, view.name))?;
        }
    }
    access.close();
    Ok(exit::SETTLED)
}

/// The audit trail.
pub async fn audit(global: &Global, config: &Config, batch: Option<&str>) -> Result<u8, Fault> {
    let access = Access::to(global, config).await?;
    let about = batch.map_or(String::new(), |batch| format!("&batch={}", encoded(batch)));
    let mut list = print::Pages::new(global);
    let show = |page: AuditPage| {
        list.page(&page.entries, || render_service::audit(&page))?;
        Ok(page.cursor)
    };
    access.pages(&format!("/v1/audit?limit=200{about}"), show).await?;
    list.end("")?;
    access.close();
    Ok(exit::SETTLED)
}

fn read(input: impl Read) -> Result<Vec<String>, Fault> {
    let mut lines = BufReader::new(input);
    let (mut numbers, mut line, mut at) = (vec![], String::new(), 0u64);
    loop {
        line.clear();
        at += 1;
        let bytes = lines.by_ref().take(LINE_MAX).read_line(&mut line);
        let bytes = bytes.map_err(|error| Fault::new(Code::InputInvalid, format!("line {at} cannot be read: {error}")))?;
        if bytes == 0 {
            return Ok(numbers);
        }
        let text = line.trim().trim_start_matches('\u{feff}');
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let digits: String = text.chars().filter(|c| !matches!(c, '+' | ' ' | '-' | '(' | ')' | '.')).collect();
        let fits = (7..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        if !fits {
            return Err(Fault::new(Code::InputInvalid, format!("line {at} is no number with its country code")));
        }
        numbers.push(format!("+{digits}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_anything_else_is_refused_with_its_line() {
        let numbers = read("\u{feff}+8613800138000\r\n\n# comment\n49 151-123 45678\n".as_bytes()).expect("numbers");
        assert_eq!(numbers, ["+8613800138000", "+4915112345678"]);
        for wrong in ["name\n", "+86138\n", "0138001380001\n"] {
            let fault = read(format!("+8613800138000\n{wrong}").as_bytes()).expect_err("no number");
            assert!(fault.context.starts_with("line 2 "), "{}", fault.context);
        }
    }
}
