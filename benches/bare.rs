//! The bare SMPP client: the same sessions, fed with finished messages, without the fleet around them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smsfleet::adapters::smpp::SmppAccount;
use smsfleet::adapters::system::{SeededChance, SystemClock};
use smsfleet::model::id::Msisdn;
use smsfleet::ports::clock::Clock;
use smsfleet::ports::provider::{Chunk, Provider, Submit};
use smsfleet::roles::config::Config;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Messages of one chunk.
const CHUNK: u32 = 500;

/// Submits a second that the account `sim` of `config` reaches with `messages` messages.
pub async fn rate(config: &Config, messages: u64) -> f64 {
    let wanted = &config.accounts["sim"];
    let (reports, _kept) = mpsc::channel(16);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let chance = Arc::new(SeededChance::from_seed(1));
    let account =
        SmppAccount::start(wanted.account("sim"), wanted.smpp.clone(), reports, clock.clone(), chance).expect("it starts");
    while account.health().sessions < wanted.smpp.binds {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let began = Instant::now();
    let (answers, mut answered) = mpsc::unbounded_channel();
    let feeding = async {
        let answers = answers;
        let mut at = 0;
        while at < messages {
            let submit = |n: u64| Submit {
                seq: n as u32,
                number: Msisdn(8_613_800_000_000 + n),
                ext_code: String::new(),
                text: "Dear name123456, your parcel has arrived at the station. Your pickup code is 123456.".into(),
                parts: 0,
                reference: n as u16,
                key: String::new(),
            };
            let end = (at + u64::from(CHUNK)).min(messages);
            let (send_by, stop) = (clock.boot() + Duration::from_secs(60), CancellationToken::new());
            let chunk = Chunk { messages: (at..end).map(submit).collect(), send_by, stop, answers: answers.clone() };
            account.submit(chunk).await.expect("the account is open");
            at = end;
        }
    };
    let counting = async {
        let mut count = 0;
        while let Some(batch) = answered.recv().await {
            count += batch.len() as u64;
        }
        count
    };
    let ((), count) = tokio::join!(feeding, counting);
    assert_eq!(count, messages);
    let rate = messages as f64 / began.elapsed().as_secs_f64();
    account.close(Duration::from_secs(1)).await;
    rate
}
