//! Short links from the message to the report: opened by people, machines and nobody.

use std::collections::BTreeMap;
use std::time::Duration;

use smsfleet::roles::surface::Holding;
use smsfleet::simulator::{Simulator, SimulatorConfig};
use smsfleet::statistics::{BatchClicks, RecipientFilter, RecipientLine, RecipientPages, batch_clicks};

use super::fixture::{list, number};
use super::inside::{config, free_address, request, sealed, wait};

const PHONE: &str = "User-Agent: Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X)\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn opened_links_lead_to_their_page_and_are_counted_by_who_opened_them() {
    const ROWS: u64 = 40;
    let provider = SimulatorConfig { keep_texts: true, ..SimulatorConfig::local() };
    let provider = Simulator::start(provider).await.expect("it starts");
    let port = provider.smpp_addr().expect("it speaks SMPP").port();
    let folder = tempfile::tempdir().expect("a folder");
    let listen = free_address();
    let text = |links: &str| {
        format!(
            "[serve]\nlisten = \"{listen}\"\n{links}\n[accounts.main]\nanswer_timeout = 2.0\n[accounts.main.smpp]\n\
             port = {port}\nsystem_id = \"smsfleet\"\npassword = \"password\"\n"
        )
    };
    let fleet = Holding::start(&config(folder.path(), &text(""))).await.expect("it starts");
    std::fs::write(folder.path().join("list.csv"), list(ROWS)).expect("written");
    let batch = sealed(&fleet, "links", |batch| {
        batch.table_name = folder.path().join("list.csv").display().to_string();
        batch.content = "Dear {{name}}, look at {{url}} today".into();
        batch.url = Some("https://shop.example/sale?x=1#top".into());
        batch.link_base = "https://s.example/".into();
        batch.campaign_id = "spring 退".into();
        batch.link_parameters = vec![("who".into(), "{batch_id}".into())];
    })
    .await;
    fleet.embedded.service.start(batch, None).await.expect("it starts");
    wait(&fleet, batch, |row| row.is_over()).await;
    let code = |row: u64| {
        let text = provider.texts(number(row)).pop().expect("it was sent");
        let (_, behind) = text.split_once("https://s.example/").expect("a link");
        behind.split(' ').next().expect("a code").to_owned()
    };
    let open = async |method: &str, code: &str, headers: &str| request(listen, method, &format!("/{code}"), headers, "").await;
    let page = format!("location: https://shop.example/sale?x=1&utm_campaign=spring+%e9%80%80&utm_source=sms&who={batch}#top");

    let (status, head, _) = open("GET", &code(0), PHONE).await;
    assert_eq!(status, 302);
    for line in [page.as_str(), "cache-control: no-store", "referrer-policy: no-referrer"] {
        assert!(head.contains(line), "{line} is not in {head}");
    }
    // Nothing of the request changes where it leads.
    let (_, head, _) = open("GET", &format!("{}?to=https://evil.example/&utm_source=evil", code(1)), PHONE).await;
    assert!(head.contains(&page) && !head.contains("evil"), "{head}");
    let machines = [
        ("HEAD", PHONE.to_owned()),
        ("GET", format!("{PHONE}Sec-Purpose: prefetch\r\n")),
        ("GET", format!("{PHONE}X-Moz: prefetch\r\n")),
        ("GET", "User-Agent: WhatsApp/2.24.1 A\r\n".to_owned()),
        ("GET", "User-Agent: facebookexternalhit/1.1\r\n".to_owned()),
        ("GET", String::new()),
    ];
    for (row, (method, headers)) in (2..).zip(&machines) {
        assert_eq!(open(method, &code(row), headers).await.0, 302, "machines are led there too");
    }
    // Twice within a moment of its receipt: no person is that fast.
    open("GET", &code(10), PHONE).await;
    open("GET", &code(10), PHONE).await;
    // One source, many codes.
    let scanner = "User-Agent: Mozilla/5.0 (X11; Linux) Chrome/130\r\n";
    for row in 20..40 {
        open("GET", &code(row), scanner).await;
    }
    for unknown in ["AAAAAAAA", "zzzzzzz9", "favicon.ico", "robots.txt"] {
        assert_eq!(open("GET", unknown, PHONE).await.0, 404, "{unknown}");
    }
    assert_eq!(open("POST", &code(0), PHONE).await.0, 405);
    assert_eq!(open("GET", "healthz", PHONE).await.2, "ok\n", "no code stands before another route");
    let many: String = (0..80).map(|n| format!("X-{n}: y\r\n")).collect();
    assert_eq!(open("GET", &code(0), &many).await.0, 431);

    let stores = fleet.surface.stores.clone();
    let row = fleet.embedded.service.load(batch).await.expect("it is there").row;
    let begun = std::time::Instant::now();
    let expected = BatchClicks { people: 2, clicks: 2, machine_clicks: 6 + 2 + 20 };
    loop {
        let counted = batch_clicks(&stores, &row).await.expect("counted");
        if counted == expected {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{counted:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let now = fleet.surface.world.clock.now();
    let filter = RecipientFilter::default();
    let mut pages = RecipientPages::new(stores, row, fleet.surface.accounts.clone(), filter, now).await.expect("a listing");
    let mut lines: BTreeMap<String, RecipientLine> = BTreeMap::new();
    while let Some(page) = pages.next().await.expect("a page") {
        lines.extend(page.into_iter().map(|line| (line.number.clone(), line)));
    }
    let of = |row: u64| {
        let line = &lines[&format!("+{}", number(row))];
        (line.clicks, line.machine_clicks, line.first_click.is_some())
    };
    assert_eq!(
        (of(0), of(2), of(10), of(15), of(25)),
        ((1, 0, true), (0, 1, false), (0, 2, false), (0, 0, false), (0, 1, false))
    );
    fleet.stop().await;

    // The same folder later: what has expired says so, or leads to the fallback.
    let (known, unknown) = (code(0), "AAAAAAAA");
    let fleet = Holding::start(&config(folder.path(), &text("[links]\nexpire_days = 0"))).await.expect("it starts");
    assert_eq!((open("GET", &known, PHONE).await.0, open("GET", unknown, PHONE).await.0), (410, 404));
    fleet.stop().await;
    let fallback = text("[links]\nexpire_days = 0\nfallback = \"https://shop.example/\"");
    let fleet = Holding::start(&config(folder.path(), &fallback)).await.expect("it starts");
    for code in [known.as_str(), unknown] {
        let (status, head, _) = open("GET", code, PHONE).await;
        assert!(status == 302 && head.contains("location: https://shop.example/\r\n"), "{head}");
    }
    fleet.stop().await;
    provider.stop().await;
}
