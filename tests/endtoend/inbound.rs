//! People write back: they are matched to their campaign, and who says STOP gets nothing more, also while a batch runs.

use std::collections::BTreeSet;
use std::time::Duration;

use smsfleet::model::id::Msisdn;
use smsfleet::model::inbound::Intent;
use smsfleet::model::outcome::Outcome;
use smsfleet::receipts::inbox::{self, InboxFilter};
use smsfleet::receipts::opt_out::{self, Origin};
use smsfleet::roles::surface::Holding;
use smsfleet::simulator::{Delay, Receipts, Simulator, SimulatorConfig};

use super::fixture::number;
use super::inside::{config, free_address, request, sealed, wait};

fn rows(from: u64, to: u64) -> String {
    let rows = (from..to).map(|row| format!("+{},name {row}\n", number(row)));
    std::iter::once("phone,name\n".to_owned()).chain(rows).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_stop_during_a_run_gets_nothing_more() {
    const ALL: u64 = 1_500;
    const LAST: u64 = 200;
    let mut provider = SimulatorConfig::local();
    provider.faults.latency = Delay::always(5, 20);
    (provider.receipts.inbound_share, provider.receipts.inbound_delay_ms) = (0.4, 20);
    provider.receipts.inbound_texts = vec!["STOP".into(), "退订。".into(), "Thank you".into()];
    let provider = Simulator::start(provider).await.expect("it starts");
    let port = provider.smpp_addr().expect("it speaks SMPP").port();
    let folder = tempfile::tempdir().expect("a folder");
    let text = format!(
        "[accounts.main]\nrate = 400\nanswer_timeout = 2.0\n[accounts.main.smpp]\nport = {port}\nsystem_id = \"smsfleet\"\n\
         password = \"password\"\nsource_addr = \"10690001\"\n"
    );
    let fleet = Holding::start(&config(folder.path(), &text)).await.expect("it starts");
    std::fs::write(folder.path().join("all.csv"), rows(0, ALL)).expect("written");
    std::fs::write(folder.path().join("last.csv"), rows(ALL - LAST, ALL)).expect("written");
    let table = |name: &str| folder.path().join(name).display().to_string();
    // Both are sealed before anybody has written: only the look at each window can keep a message back.
    let summer = sealed(&fleet, "summer", |batch| {
        (batch.table_name, batch.ext_code, batch.campaign_id) = (table("all.csv"), "008".into(), "summer".into());
    })
    .await;
    let spring = sealed(&fleet, "spring", |batch| {
        (batch.table_name, batch.ext_code, batch.campaign_id) = (table("last.csv"), "007".into(), "spring".into());
    })
    .await;
    // The last people of the long batch are those of the short one, which runs beside it and is over long before.
    fleet.embedded.service.start(summer, None).await.expect("it starts");
    fleet.embedded.service.start(spring, None).await.expect("it starts");
    let is_over = |row: &smsfleet::model::batch::BatchRow| row.is_over();
    wait(&fleet, spring, is_over).await;
    let row = wait(&fleet, summer, is_over).await;
    let begun = std::time::Instant::now();
    while provider.report().receipts.inbound_acknowledged < provider.report().receipts.inbound_made {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", provider.report().receipts);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let stores = &fleet.surface.stores;
    let filter = InboxFilter { campaign_id: Some("spring".into()), ..InboxFilter::default() };
    let written = inbox::list(stores, &filter, None, 10_000).await.expect("listed").rows;
    assert!(written.len() > 40, "{} wrote", written.len());
    assert!(written.iter().all(|(_, row)| row.batch == Some(spring) && row.to == "10690001007"), "{:?}", written.first());
    let out = |row: &&(_, inbox::InboxRow)| row.1.intent == Intent::OptOut;
    let stopped: BTreeSet<u64> = written.iter().filter(out).map(|(_, row)| row.from.parse().expect("a number")).collect();
    assert!(stopped.len() > 20 && stopped.len() < written.len(), "{} of {}", stopped.len(), written.len());
    let numbers: Vec<Msisdn> = stopped.iter().map(|number| Msisdn(*number)).collect();
    for one in opt_out::check(stores, &numbers).await.expect("checked") {
        let why = one.why.expect("a reason");
        assert!(one.suppressed);
        assert_eq!((why.origin, why.account.as_deref(), why.batch), (Origin::Person, Some("main"), Some(spring)));
        assert_eq!(why.campaign_id, "spring");
    }
    let settlement = row.settlement.expect("it was counted");
    assert_eq!(settlement.of(Outcome::Suppressed), stopped.len() as u64, "{settlement:?}");
    assert_eq!(settlement.of(Outcome::Accepted), ALL - stopped.len() as u64, "{settlement:?}");
    for record in provider.numbers().iter().filter(|record| record.number >= number(ALL - LAST)) {
        let expected = if stopped.contains(&record.number) { 1 } else { 2 };
        assert_eq!(record.complete, expected, "{}", record.number - number(0));
    }
    let all = inbox::list(stores, &InboxFilter::default(), None, 10_000).await.expect("listed").rows;
    assert_eq!(all.len() as u64, provider.report().receipts.inbound_made, "nothing is lost and nothing twice");
    fleet.stop().await;
    provider.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_are_kept_once_and_obeyed_in_order() {
    let provider = Simulator::start(SimulatorConfig::local()).await.expect("it starts");
    let http = provider.http_addr().expect("it speaks HTTP");
    let listen = free_address();
    provider.set_inbound(&format!("http://{listen}/v1/inbound/main"), "push-me").expect("an address");
    let receipts =
        Receipts { inbound_share: 1.0, inbound_delay_ms: 400, inbound_texts: vec!["ＴＤ！".into()], ..Receipts::default() };
    provider.set_receipts(receipts).expect("they make sense");
    let folder = tempfile::tempdir().expect("a folder");
    let text = format!(
        r#"
[serve]
listen = "{listen}"
[accounts.main]
protocol = "http"
[accounts.main.capabilities]
long_message = "payload"
[accounts.main.receipts]
wanted = false
[accounts.main.opt_out]
country_code = "86"
[accounts.main.http]
url = "http://{http}/messages"
body = '{{"to":"{{{{number}}}}","text":"{{{{text}}}}","from":"{{{{sender}}}}"}}'
sender = "10690001"
answer = {{ id = "/id" }}
inbound = {{ token = "push-me" }}
"#
    );
    let fleet = Holding::start(&config(folder.path(), &text)).await.expect("it starts");
    let stores = fleet.surface.stores.clone();
    let suppressed = async |row: u64| stores.suppressions.check(&[Msisdn(number(row))]).await.expect("checked")[0];
    let get = async |query: &str| request(listen, "GET", &format!("/v1/inbound/main?{query}"), "", "").await.0;
    let form = "token=push-me&to=10690001007";
    assert_eq!(get(&format!("token=wrong&from={}&text=STOP", number(1))).await, 422);
    assert_eq!(get(&format!("{form}&from={}", number(1))).await, 422, "no text");
    assert!(!suppressed(1).await, "nothing is half done");
    // By the query, in the national form, as it stands in some callbacks.
    assert_eq!(get(&format!("{form}&from={}&text=stop.&id=a1", &number(1).to_string()[2..])).await, 200);
    assert!(suppressed(1).await);
    assert_eq!(get(&format!("{form}&from={}&text=START&id=a2", number(1))).await, 200);
    assert!(!suppressed(1).await);
    assert_eq!(get(&format!("{form}&from={}&text=stop.&id=a1", &number(1).to_string()[2..])).await, 200);
    assert!(!suppressed(1).await, "a callback that comes again is the old message");
    // Several at once, in order; the last word of each number counts.
    let item =
        |row: u64, text: &str, id: &str| format!(r#"{{"from":"+{}","to":"10690001","text":"{text}","id":"{id}"}}"#, number(row));
    let body = format!("[{},{},{}]", item(2, "T", "b1"), item(3, "R", "b2"), item(2, "start", "b3"));
    let headers = "Authorization: Bearer push-me\r\nContent-Type: application/json\r\n";
    let (status, head, reply) = request(listen, "POST", "/v1/inbound/main", headers, &body).await;
    assert_eq!((status, reply.as_str()), (200, r#"{"code":0}"#), "{head}");
    assert_eq!((suppressed(2).await, suppressed(3).await), (false, true));
    let rows = inbox::list(&stores, &InboxFilter::default(), None, 100).await.expect("listed").rows;
    assert_eq!(rows.len(), 5, "one row each: {rows:?}");

    std::fs::write(folder.path().join("list.csv"), rows_of(10)).expect("written");
    let batch = sealed(&fleet, "one", |batch| batch.table_name = folder.path().join("list.csv").display().to_string()).await;
    fleet.embedded.service.start(batch, None).await.expect("it starts");
    wait(&fleet, batch, |row| row.step().state.is_final()).await;
    let begun = std::time::Instant::now();
    while provider.report().receipts.inbound_acknowledged < 10 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", provider.report());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(suppressed(1_000).await && suppressed(1_009).await);
    let mine = InboxFilter { batch: Some(batch), intent: Some(Intent::OptOut), ..InboxFilter::default() };
    assert_eq!(inbox::list(&stores, &mine, None, 100).await.expect("listed").rows.len(), 10);
    fleet.stop().await;
    provider.stop().await;
}

fn rows_of(count: u64) -> String {
    rows(1_000, 1_000 + count)
}
