//! Commands that ask the surface: the process that holds the folder when there is one, else the folder itself.

use std::time::Duration;

use super::args::{FormatWord, RecipientsArgs};
use super::{Global, exit, print, render};
use crate::model::code::{Code, Fault};
use crate::roles::config::Config;
use crate::roles::embedded::{self, Opened};
use crate::roles::surface;
use crate::runtime::moment::moment;
use crate::serve::api::{BatchExplained, BatchPage, NumberExplained};
use crate::serve::client::Client;
use crate::serve::views::{BatchReport, BatchView};

/// Tries while another process is about to open, or to close, the folder.
const TRIES: u32 = 30;

/// A way to the surface; closes the folder at its end when this process opened it.
struct Access {
    client: Client,
    opened: Option<Opened>,
}

impl Access {
    async fn to(config: &Config) -> Result<Access, Fault> {
        let folder = &config.data_dir;
        let mut last = Fault::new(Code::FolderInUse, folder.display().to_string());
        for _ in 0..TRIES {
            if let Some(client) = Client::running(folder).await {
                return Ok(Access { client, opened: None });
            }
            if !embedded::exists(folder) {
                let context = format!("there is no data in {}; name the folder with --data-dir", folder.display());
                return Err(Fault::new(Code::BatchNotFound, context));
            }
            match surface::reading(config).await {
                Ok((opened, router)) => return Ok(Access { client: Client::Here(router), opened: Some(opened) }),
                Err(fault) if fault.code == Code::FolderInUse => last = fault,
                Err(fault) => return Err(fault),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(last)
    }

    fn close(self) {
        if let Some(opened) = self.opened {
            opened.store.close();
        }
    }
}

/// Lists all batches.
pub async fn batches(global: &Global, config: &Config) -> Result<u8, Fault> {
    let access = Access::to(config).await?;
    let mut cursor: Option<String> = None;
    loop {
        let behind = cursor.as_deref().map_or(String::new(), |place| format!("&cursor={}", encoded(place)));
        let page: BatchPage = access.client.get(&format!("/v1/batches?limit=200{behind}")).await?;
        print::result(global, &page.batches, || render::batches(&page))?;
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    access.close();
    Ok(exit::SETTLED)
}

/// Prints a report.
pub async fn report(global: &Global, config: &Config, batch: &str) -> Result<u8, Fault> {
    let access = Access::to(config).await?;
    let report: BatchReport = access.client.get(&format!("/v1/batches/{}/report", encoded(batch))).await?;
    access.close();
    print::result(global, &report, || render::report(&report))?;
    Ok(report.exit_code())
}

/// Streams recipients.
pub async fn recipients(config: &Config, args: &RecipientsArgs) -> Result<u8, Fault> {
    use std::io::Write;
    let access = Access::to(config).await?;
    let format = match args.format {
        FormatWord::Jsonl => "jsonl",
        FormatWord::Csv => "csv",
    };
    let status = args.status.as_deref().map_or(String::new(), |words| format!("&status={}", encoded(words)));
    let path = format!("/v1/batches/{}/recipients?format={format}&text={}{status}", encoded(&args.batch), args.text);
    let mut out = std::io::BufWriter::with_capacity(1 << 16, std::io::stdout());
    let mut closed = false;
    let streamed = access.client.stream(&path, |piece| match out.write_all(&piece) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            closed = true;
            Err(error)
        }
        written => written,
    });
    let streamed = streamed.await;
    let flushed = out.flush();
    access.close();
    // A reader that has seen enough (`| head`) is no error.
    if closed || flushed.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
        return Ok(exit::SETTLED);
    }
    streamed?;
    flushed.map_err(|error| Fault::new(Code::InputInvalid, format!("the output cannot be written: {error}")))?;
    Ok(exit::SETTLED)
}

/// Explains a number or a batch.
pub async fn explain(global: &Global, config: &Config, batch: &str, number: Option<&str>) -> Result<u8, Fault> {
    let access = Access::to(config).await?;
    let path = format!("/v1/batches/{}/explain", encoded(batch));
    match number {
        Some(number) => {
            let said: NumberExplained = access.client.get(&format!("{path}?number={}", encoded(number))).await?;
            print::result(global, &said, || render::records(&said.records))?;
        }
        None => {
            let said: BatchExplained = access.client.get(&path).await?;
            print::result(global, &said, || render::explained(&said))?;
        }
    }
    access.close();
    Ok(exit::SETTLED)
}

/// Pauses, resumes or cancels.
pub async fn command(global: &Global, config: &Config, batch: &str, word: &str) -> Result<u8, Fault> {
    let access = Access::to(config).await?;
    let path = format!("/v1/batches/{}", encoded(batch));
    let view: BatchView = access.client.post(&format!("{path}/commands/{word}")).await?;
    let progress: crate::statistics::Progress = access.client.get(&format!("{path}/progress")).await?;
    let running = access.opened.is_none();
    access.close();
    let value = serde_json::json!({ "batch": view, "in_flight": progress.in_flight, "a_fleet_runs": running });
    print::result(global, &value, || {
        let hint = if running || word == "cancel" { "" } else { "; no fleet runs: `smsfleet serve` goes on with it" };
        format!("{}: {}, {} in flight{hint}\n", view.batch_id, progress.standing, render::grouped(progress.in_flight))
    })?;
    Ok(exit::SETTLED)
}

/// Marks what may have been sent since a backup as uncertain, and makes the folder usable.
pub async fn recover(global: &Global, config: &Config, since: &str) -> Result<u8, Fault> {
    let since = moment(since)?;
    if !embedded::exists(&config.data_dir) {
        return Err(Fault::new(Code::BatchNotFound, format!("there is no data in {}", config.data_dir.display())));
    }
    let opened = Opened::open(config).await?;
    let accounts: Vec<(String, String)> =
        config.accounts().into_values().map(|account| (account.name, account.provider_type)).collect();
    let recovered = crate::coordinate::recover::recover(&opened.stores, &opened.world, &accounts, since).await;
    opened.store.close();
    let recovered = recovered?;
    print::result(global, &recovered, || {
        format!(
            "{} batches looked at; {} recipients may have been sent since {since} and are uncertain now.\n\
             The folder can be used again. See them: smsfleet recipients BATCH --status uncertain\n",
            recovered.batches,
            render::grouped(recovered.uncertain)
        )
    })?;
    Ok(if recovered.uncertain > 0 { exit::UNSETTLED } else { exit::SETTLED })
}

/// Percent-encodes everything but letters, digits and `-._~` (RFC 3986, 2.3).
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_is_safe_in_a_path() {
        assert_eq!(encoded("+86 138/../x?y&é"), "%2B86%20138%2F..%2Fx%3Fy%26%C3%A9");
    }
}
