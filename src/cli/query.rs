//! Commands that ask the surface: the process that holds the folder when there is one, else the folder itself.

use super::access::{Access, encoded};
use super::args::{FormatWord, RecipientsArgs};
use super::{Global, exit, print, render};
use crate::access::audit::Asked;
use crate::model::access::{Caller, Standing};
use crate::model::code::{Code, Fault};
use crate::roles::config::Config;
use crate::roles::opened::{self, Opened};
use crate::runtime::moment::moment;
use crate::serve::api::{BatchExplained, NumberExplained};
use crate::serve::views::BatchReport;

/// Prints a report.
pub async fn report(global: &Global, config: &Config, batch: &str) -> Result<u8, Fault> {
    let access = Access::to(global, config).await?;
    let report: BatchReport = access.client.get(&format!("/v1/batches/{}/report", encoded(batch))).await?;
    access.close();
    print::result(global, &report, || render::report(&report))?;
    Ok(report.exit_code())
}

/// Streams recipients.
pub async fn recipients(global: &Global, config: &Config, args: &RecipientsArgs) -> Result<u8, Fault> {
    let access = Access::to(global, config).await?;
    let format = match args.format {
        FormatWord::Jsonl => "jsonl",
        FormatWord::Csv => "csv",
    };
    let status = args.status.as_deref().map_or(String::new(), |words| format!("&status={}", encoded(words)));
    let path = format!("/v1/batches/{}/recipients?format={format}&text={}{status}", encoded(&args.batch), args.text);
    let streamed = print::streamed(&access.client, &path).await;
    access.close();
    streamed?;
    Ok(exit::SETTLED)
}

/// Explains a number or a batch.
pub async fn explain(global: &Global, config: &Config, batch: &str, number: Option<&str>) -> Result<u8, Fault> {
    let access = Access::to(global, config).await?;
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

/// Marks what may have been sent since a backup as uncertain, and makes the folder usable.
pub async fn recover(global: &Global, config: &Config, since: &str) -> Result<u8, Fault> {
    let since = moment(since)?;
    if !opened::exists(config) {
        return Err(Fault::new(Code::BatchNotFound, format!("there is no data in {}", config.data_dir.display())));
    }
    let opened = Opened::open(config).await?;
    opened.check_idle().await?;
    let accounts: Vec<(String, String)> =
        config.accounts().into_values().map(|account| (account.name, account.provider_type)).collect();
    let (stores, clock) = (&opened.stores, &opened.world.clock);
    let asked = Asked {
        request: format!("{:016x}", opened.world.chance.next()),
        caller: Caller::local(),
        action: "fleet.recover".into(),
        target: "fleet".into(),
        tenant: String::new(),
        before: Standing::new(),
    };
    let command = async {
        let recovered = crate::coordinate::recover::recover(stores, &opened.world, &accounts, since).await?;
        let after = Standing::from([("uncertain".into(), recovered.uncertain.to_string())]);
        Ok((recovered, after))
    };
    let wish = Standing::from([("since".into(), since.to_string())]);
    let recovered = asked.witness(stores, &**clock, wish, command).await;
    opened.close();
    let recovered = recovered?;
    print::result(global, &recovered, || {
        format!(
            "{} batches looked at; {} recipients may have been sent since {since} and are uncertain now.\n\
             The store can be used again. See them: smsfleet recipients BATCH --status uncertain\n",
            recovered.batches,
            render::grouped(recovered.uncertain)
        )
    })?;
    Ok(if recovered.uncertain > 0 { exit::UNSETTLED } else { exit::SETTLED })
}
