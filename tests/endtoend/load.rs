//! Several batches at once, with receipts called back meanwhile: nothing is lost, nobody gets it twice, and what is urgent goes
//! first.

use smsfleet::model::batch::BatchRow;
use smsfleet::model::outcome::Outcome;
use smsfleet::model::state::StepState;
use smsfleet::roles::surface::Holding;
use smsfleet::simulator::{Delay, Simulator, SimulatorConfig};

use super::fixture::{number, web_account};
use super::inside::{config, free_address, sealed, wait};

/// Recipients of each of the large batches, of the urgent one, and of the one whose receipts are called back.
const LARGE: u64 = 1_200;
const URGENT: u64 = 150;
const CALLED: u64 = 600;

#[tokio::test(flavor = "multi_thread")]
async fn many_batches_at_once_lose_nothing_and_the_urgent_one_ends_first() {
    let mut provider = SimulatorConfig::local();
    provider.faults.latency = Delay::always(5, 20);
    provider.receipts.twice_share = 0.3;
    provider.http.callback_connections = 20;
    let provider = Simulator::start(provider).await.expect("it starts");
    let (smpp, http) = (provider.smpp_addr().expect("it speaks SMPP").port(), provider.http_addr().expect("it speaks HTTP"));
    let listen = free_address();
    let folder = tempfile::tempdir().expect("a folder");
    let web = web_account(http, "push", None);
    let text = format!(
        r#"
[serve]
listen = "{listen}"
[accounts.main]
rate = 500
[accounts.main.smpp]
port = {smpp}
system_id = "smsfleet"
password = "password"
{web}"#
    );
    let fleet = Holding::start(&config(folder.path(), &text)).await.expect("it starts");
    let list = |name: &str, from: u64, rows: u64| {
        let rows = (from..from + rows).map(|row| format!("+{},name {row}\n", number(row)));
        let text: String = std::iter::once("phone,name\n".to_owned()).chain(rows).collect();
        std::fs::write(folder.path().join(name), text).expect("written");
        folder.path().join(name).display().to_string()
    };
    let mut batches = vec![];
    for n in 0..4 {
        let table_name = list(&format!("large {n}"), n * LARGE, LARGE);
        let key = format!("large {n}");
        let id = sealed(&fleet, &key, |batch| (batch.table_name, batch.priority) = (table_name, 1 + n as u8)).await;
        batches.push((id, LARGE));
    }
    let table_name = list("called", 10 * LARGE, CALLED);
    let called = sealed(&fleet, "called", |batch| (batch.table_name, batch.provider_type) = (table_name, "web".into())).await;
    for (id, _) in &batches {
        fleet.embedded.service.start(*id, None).await.expect("it starts");
    }
    // Receipts wait until they are listened to, then twenty callbacks at a time bring them while everything else is sent.
    fleet.embedded.service.start(called, None).await.expect("it starts");
    provider.set_callback(&format!("http://{listen}/v1/receipts/web"), "push").expect("an address");
    let begun = std::time::Instant::now();
    while provider.report().complete_messages < 300 {
        assert!(begun.elapsed() < super::fixture::DEADLINE, "{:?}", provider.report());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let table_name = list("urgent", 20 * LARGE, URGENT);
    let urgent = sealed(&fleet, "urgent", |batch| {
        (batch.table_name, batch.priority, batch.auto_trigger) = (table_name, 9, true);
    })
    .await;

    let mut ends = vec![];
    let all = batches.iter().copied().chain([(called, CALLED), (urgent, URGENT)]);
    for (id, size) in all.clone() {
        let is_settled = |row: &BatchRow| row.settlement.as_ref().is_some_and(|settlement| settlement.settled);
        let row = wait(&fleet, id, is_settled).await;
        let settlement = row.settlement.expect("it is settled");
        assert_eq!((settlement.of(Outcome::Accepted), settlement.unaccounted()), (size, 0), "{settlement:?}");
        assert_eq!(settlement.delivery_num, size, "every receipt came, and counts once: {settlement:?}");
        assert_eq!(row.delivery.state, StepState::CompletedSucceeded);
        ends.push((id, row.delivery.ended.expect("it has ended")));
    }
    let end_of = |wanted| ends.iter().find(|(id, _)| *id == wanted).map(|(_, end)| *end).expect("it has ended");
    for (id, _) in &batches {
        assert!(end_of(urgent) < end_of(*id), "the urgent batch was created last and ends first: {ends:?}");
    }
    // The higher of the others goes first too.
    assert!(end_of(batches[3].0) < end_of(batches[0].0), "{ends:?}");
    let begun = std::time::Instant::now();
    while provider.report().receipts.acknowledged < provider.report().receipts.made {
        assert!(begun.elapsed() < super::fixture::DEADLINE, "{:?}", provider.report().receipts);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    fleet.stop().await;
    let report = provider.stop().await;
    let people: u64 = all.map(|(_, size)| size).sum();
    assert_eq!((report.numbers, report.repeated_numbers, report.complete_messages), (people, 0, people));
    let receipts = report.receipts;
    assert!(receipts.acknowledged == receipts.made && receipts.made > people, "some came twice: {receipts:?}");
    assert!(report.http.callbacks >= CALLED, "{:?}", report.http);
}
