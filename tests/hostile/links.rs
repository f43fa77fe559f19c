//! Short links: whatever is asked, nobody is led to another place than the batch's page, and nothing can be guessed.

use std::io::{Read, Write};

use serde_json::json;

use super::{Answer, ask, batch, create, id_of, is_well, said, wait, wire};
use crate::endtoend::fixture::{Place, Provider, number};
use crate::endtoend::service::Service;
use smsfleet::simulator::SimulatorConfig;

const PAGE: &str = "https://shop.example/sale";

/// Where an answer leads, in small letters.
fn leads(answer: &Answer) -> Vec<String> {
    let lines = answer.head.lines().filter_map(|line| line.strip_prefix("location:"));
    lines.map(|to| to.trim().to_owned()).collect()
}

#[test]
fn a_short_link_leads_to_its_page_and_to_no_other_place() {
    let provider = Provider::with(SimulatorConfig { keep_texts: true, ..SimulatorConfig::local() });
    let service = Service::start(Place::new(provider.port(), 1_000));
    let key = service.key("operator");
    let numbers: Vec<String> = (0..20).map(|row| format!("+{}", number(row))).collect();
    let people: Vec<(&str, &str)> = numbers.iter().map(|number| (number.as_str(), "a")).collect();
    let mut wish = batch("Look at {{url}} today", &people);
    (wish["url"], wish["link_base"], wish["auto_trigger"]) = (json!(PAGE), json!("https://s.example/"), json!(true));
    // What callers put into parameters becomes part of the query and of nothing else.
    wish["link_parameters"] =
        json!({ "a": "x\r\nSet-Cookie: y=1", "b": "//bad.example", "c": "#@bad.example/", "utm_source": "" });
    let id = id_of(&create(&service, &key, "k", &wish));
    wait(&service, &key, &id, |batch| batch["delivery"]["state"] == "COMPLETED_SUCCEEDED");
    let codes: Vec<String> = (0..20)
        .map(|row| {
            let text = provider.get().texts(number(row)).pop().expect("it was sent");
            text.split("s.example/").nth(1).and_then(|rest| rest.split(' ').next()).expect("a code").to_owned()
        })
        .collect();
    let code = &codes[0];
    let page = leads(&ask(&service, "", "GET", &format!("/{code}"), "", ""));
    assert!(page.len() == 1 && page[0].starts_with(&format!("{PAGE}?")) && !page[0].contains("//bad"), "{page:?}");
    assert!(page[0].contains("a=x%0d%0aset-cookie%3a+y%3d1"), "{page:?}");

    let paths = [
        format!("/{code}?to=https://evil.example/"),
        format!("/{code}?url=//evil.example&next=%2f%2fevil.example"),
        format!("/{code}#//evil.example"),
        format!("//{code}"),
        format!("/{code}/"),
        format!("/{code}//evil.example"),
        format!("/{code}/%2e%2e/%2fevil.example"),
        format!("/{code}%2f%2fevil.example"),
        format!("/{code}%0d%0aLocation:%20https://evil.example/"),
        format!("/{code}%00"),
        format!("/{code};@evil.example"),
        format!("/{code}@evil.example"),
        format!("/%{:02x}{}", code.as_bytes()[0], &code[1..]),
        "//evil.example".into(),
        "//evil.example/%2e%2e".into(),
        "///evil.example".into(),
        "/\\evil.example".into(),
        "/\\\\evil.example".into(),
        "/%5cevil.example".into(),
        "/%2f%2fevil.example".into(),
        "/.evil.example".into(),
        "/https://evil.example".into(),
        "/https:evil.example".into(),
        "/%09/evil.example".into(),
        "/evil.com".into(),
        "/javascript:alert(1)".into(),
        "/..%2f..%2fetc%2fpasswd".into(),
        "http://evil.example//".into(),
        format!("http://evil.example/{code}"),
        format!("https://evil.example:443/{code}?x"),
        "*".into(),
    ];
    let headers = [
        "",
        "X-Forwarded-Host: evil.example\r\nForwarded: host=evil.example\r\nX-Original-URL: //evil.example\r\nReferer: https://evil.example\r\n",
    ];
    for path in &paths {
        for headers in headers {
            for method in ["GET", "HEAD", "POST", "OPTIONS"] {
                let answer = ask(&service, "", method, path, headers, "");
                let to = leads(&answer);
                assert!(to.is_empty() || to == page, "{method} {path}: {answer:?}");
                assert!(!answer.head.contains("evil") && answer.status < 500, "{method} {path}: {answer:?}");
                let echoed = answer.body.contains("evil") && !answer.head.contains("problem+json");
                assert!(!echoed, "{method} {path}: {answer:?}");
            }
        }
    }
    let other_host = format!("GET /{code} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    assert_eq!(leads(&Answer::of(&said(&service, other_host.as_bytes()))), page);

    // Neither neighbours of a code that is known nor guesses lead anywhere, and all are told the same.
    let alphabet: Vec<char> = ('0'..='9').chain('A'..='Z').chain('a'..='z').collect();
    let neighbours = (0..8).flat_map(|at| {
        let alphabet = &alphabet;
        alphabet.iter().map(move |c| format!("{}{c}{}", &code[..at], &code[at + 1..]))
    });
    let guesses = (0..2_500_u64).map(|n| {
        let mut rest = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (0..8)
            .map(|_| {
                let c = alphabet[(rest % 62) as usize];
                rest /= 62;
                c
            })
            .collect::<String>()
    });
    let tried: Vec<String> = neighbours.chain(guesses).filter(|guess| !codes.contains(guess)).collect();
    assert!(tried.len() > 2_900);
    let mut stream = wire(&service);
    let mut told = std::collections::BTreeSet::new();
    for some in tried.chunks(50) {
        let asks: String = some.iter().map(|guess| format!("GET /{guess} HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
        stream.write_all(asks.as_bytes()).expect("sent");
        let (mut seen, mut piece) = (String::new(), [0; 16_384]);
        while seen.matches("There is no such link.\n").count() + seen.matches("location:").count() < some.len() {
            let count = stream.read(&mut piece).expect("answered");
            assert!(count > 0, "it closed: {seen}");
            seen += &String::from_utf8_lossy(&piece[..count]);
        }
        for answer in seen.split("HTTP/1.1 ").skip(1) {
            told.insert(answer.lines().filter(|line| !line.starts_with("date:")).collect::<Vec<_>>().join("\n"));
        }
    }
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told.iter().all(|answer| answer.starts_with("404")), "{told:?}");
    // Codes of neighbours in the list are no neighbours.
    let shared = |one: &str, other: &str| one.chars().zip(other.chars()).filter(|(a, b)| a == b).count();
    assert!(codes.windows(2).all(|two| shared(&two[0], &two[1]) < 6), "{codes:?}");
    is_well(&service);
    service.stop().ended(0);
}

#[test]
fn parameters_that_multiply_are_no_batch() {
    let service = Service::start(Place::new(1, 1));
    let key = service.key("operator");
    let numbers = [("+8613900000001", "a")];
    let with = |name: &str, value: serde_json::Value| {
        let mut wish = batch("Look at {{url}} today", &numbers);
        (wish["url"], wish["link_base"]) = (json!(PAGE), json!("https://s.example/"));
        wish[name] = value;
        wish
    };
    // One opening of such a link would be 320 GB of text.
    let mut bomb = with("campaign_id", json!("c".repeat(1_900_000)));
    bomb["link_parameters"] = json!({ "x": "{campaign_id}".repeat(160_000) });
    let mut together = with("campaign_id", json!("c".repeat(256)));
    let long: serde_json::Map<_, _> = (0..32).map(|n| (n.to_string(), json!("{campaign_id}".repeat(19)))).collect();
    together["link_parameters"] = long.into();
    let many: serde_json::Map<_, _> = (0..100_000).map(|n| (n.to_string(), json!("{batch_id}"))).collect();
    let bombs = [
        bomb,
        with("link_parameters", json!({ "x": "{task_id}".repeat(400_000) })),
        with("link_parameters", many.into()),
        with("link_parameters", json!({ "x".repeat(3_900_000): "" })),
        with("content_signature", json!("s".repeat(3_900_000))),
        with("link_base", json!(format!("https://s.example/{}", "a".repeat(3_900_000)))),
        with("url", json!(format!("{PAGE}?{}", "a".repeat(3_900_000)))),
        // Each within its own limit, and together an address that leads nowhere.
        together,
        with("url", json!("https://")),
    ];
    for (at, bomb) in bombs.iter().enumerate() {
        let answer = create(&service, &key, &format!("bomb {at}"), bomb);
        assert_eq!((answer.status, answer.code().as_str()), (422, "SF-6002"), "{at}: {answer:?}");
    }
    assert_eq!(ask(&service, &key, "GET", "/v1/batches", "", "").json()["batches"], json!([]));
    is_well(&service);
    service.stop().ended(0);
}
