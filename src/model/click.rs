//! Openings of short links: which are a person's, and which a machine's.
//!
//! What one request says of itself is judged when it comes ([`judge`]); what only several of them together say, when they are
//! counted ([`count`]). Everything is kept, so a better judgement later needs no new data.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::id::BatchId;
use super::time::Timestamp;

/// Why an opening is a machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// `HEAD` or `OPTIONS`: nobody looks at the page.
    Method,
    /// The browser says that it loads ahead (`Purpose`, `Sec-Purpose`, `X-Moz`).
    Prefetch,
    /// It names itself as a previewer, crawler, scanner or library.
    Agent,
    /// It names itself as nothing.
    NoAgent,
    /// The same source opened many codes of the batch within seconds.
    ManyCodes,
    /// Several openings of one code within two seconds, right after delivery.
    DeliveryBurst,
}

/// What kind of program opened a link, as far as reports need it. Coarse on purpose: the whole name could tell people apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Agent {
    /// A browser on a phone or tablet.
    Phone,
    /// Another browser.
    Desktop,
    /// A machine that names itself.
    Machine,
    /// Anything else.
    #[default]
    Other,
    /// It did not say.
    Unnamed,
}

/// What a request says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestFacts<'a> {
    /// The method.
    pub method: &'a str,
    /// `Purpose`, `Sec-Purpose` and `X-Moz`, whichever are there, one behind the other.
    pub purpose: &'a str,
    /// `User-Agent`.
    pub agent: &'a str,
}

/// What programs that are no people call themselves, in lower case: link previewers of messengers, crawlers, mail and message
/// scanners, libraries. One table for all of it.
const MACHINES: &[&str] = &[
    // Previewers.
    "facebookexternalhit",
    "facebot",
    "whatsapp/",
    "telegrambot",
    "twitterbot",
    "slackbot",
    "slack-imgproxy",
    "discordbot",
    "linkedinbot",
    "skypeuripreview",
    "viber",
    "iframely",
    "embedly",
    "vkshare",
    "redditbot",
    "applebot",
    "bitlybot",
    "google-read-aloud",
    "google-pagerenderer",
    "googlemessages",
    "google-messages",
    "snapchat url preview",
    "line-poker",
    "kakaotalk-scrap",
    "mattermost",
    "linkpreview",
    "link preview",
    // Crawlers.
    "bot/",
    "bot;",
    "bot ",
    "googlebot",
    "bingbot",
    "bingpreview",
    "yandex",
    "baiduspider",
    "bytespider",
    "sogou web spider",
    "360spider",
    "petalbot",
    "duckduckbot",
    "crawler",
    "spider",
    "archive.org_bot",
    "ia_archiver",
    "lighthouse",
    "pingdom",
    "uptimerobot",
    "statuscake",
    "monitoring",
    // Scanners of links.
    "safebrowsing",
    "safelinks",
    "mimecast",
    "proofpoint",
    "barracuda",
    "symantec",
    "trendmicro",
    "sophos",
    "kaspersky",
    "bitdefender",
    "avast",
    "avira",
    "zscaler",
    "forcepoint",
    "ironport",
    "checkpoint",
    "urlscan",
    "virustotal",
    "phishtank",
    "netcraft",
    "expanse",
    "censys",
    "zgrab",
    "masscan",
    "nmap",
    "nuclei",
    "qihoo",
    "tencent security",
    "headlesschrome",
    "phantomjs",
    "puppeteer",
    "playwright",
    "selenium",
    // Libraries.
    "curl/",
    "wget/",
    "python-requests",
    "python-urllib",
    "python-httpx",
    "aiohttp",
    "go-http-client",
    "java/",
    "okhttp",
    "apache-httpclient",
    "libwww-perl",
    "axios/",
    "node-fetch",
    "undici",
    "got (",
    "guzzlehttp",
    "ruby",
    "reqwest",
    "hyper/",
    "dart:io",
    "postmanruntime",
    "insomnia/",
    "scrapy",
    "http_request",
];

/// What a browser on a phone calls itself, in lower case.
const PHONES: &[&str] = &["iphone", "ipad", "android", "mobile", "harmonyos", "micromessenger"];
/// Bytes of a `User-Agent` that are looked at.
const AGENT_BYTES: usize = 512;

/// Judges one opening by what its request says.
pub fn judge(facts: &RequestFacts<'_>) -> (Option<Why>, Agent) {
    let mut end = facts.agent.len().min(AGENT_BYTES);
    while !facts.agent.is_char_boundary(end) {
        end -= 1;
    }
    let name = facts.agent[..end].trim().to_ascii_lowercase();
    let is_one_of = |words: &[&str]| words.iter().any(|word| name.contains(word));
    let agent = if name.is_empty() {
        Agent::Unnamed
    } else if is_one_of(MACHINES) || name.ends_with("bot") {
        Agent::Machine
    } else if is_one_of(PHONES) {
        Agent::Phone
    } else if name.starts_with("mozilla/") || name.starts_with("opera/") {
        Agent::Desktop
    } else {
        Agent::Other
    };
    let purpose = facts.purpose.to_ascii_lowercase();
    let why = if matches!(facts.method, "HEAD" | "OPTIONS") {
        Some(Why::Method)
    } else if ["prefetch", "prerender", "preview"].iter().any(|word| purpose.contains(word)) {
        Some(Why::Prefetch)
    } else {
        match agent {
            Agent::Unnamed => Some(Why::NoAgent),
            Agent::Machine => Some(Why::Agent),
            Agent::Phone | Agent::Desktop | Agent::Other => None,
        }
    };
    (why, agent)
}

/// Whether a machine or a person opened a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A person, for all that is known.
    Person,
    /// A machine.
    Machine,
}

/// One opening as it is kept. The address it came from is not: only a digest, which is another one on every day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Click {
    /// Whose it is, judged by its request alone.
    pub kind: Kind,
    /// Why it is a machine's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<Why>,
    /// What opened it.
    pub agent: Agent,
    /// Digest of the address and the day, in hexadecimal.
    pub source: String,
}

/// A time in which one source opened many codes of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sweep {
    /// The source.
    pub source: String,
    /// When it began.
    pub from: Timestamp,
    /// When it was seen last.
    pub to: Timestamp,
}

/// Different codes of one batch that one source opens within [`SWEEP_SPAN`] to be a machine. People behind one carrier's
/// address differ in their browsers, which are part of the source; ten of one kind within three seconds are no crowd.
pub const SWEEP_CODES: usize = 10;
/// The time for [`SWEEP_CODES`].
pub const SWEEP_SPAN: Duration = Duration::from_secs(3);
/// Openings of one code this close together are a burst.
const BURST_SPAN: Duration = Duration::from_secs(2);
/// Bursts are a machine's this long after the receipt.
const AFTER_DELIVERY: Duration = Duration::from_secs(10);

/// Scope of one link's openings in the journal: 15 digits hold every number that has a code.
pub fn scope_of(batch: BatchId, link: u64) -> String {
    format!("{batch}/{link:015}/")
}

/// First characters of the scopes of a batch's openings. Its sweeps stand elsewhere ([`sweeps_of`]).
pub fn openings_of(batch: BatchId) -> String {
    format!("{batch}/")
}

/// Scope of a batch's sweeps in the same journal.
pub fn sweeps_of(batch: BatchId) -> String {
    format!("sweeps/{batch}/")
}

/// The link that a scope names.
pub fn link_of(scope: &str) -> Option<u64> {
    scope.split('/').nth(1)?.parse().ok()
}

/// The openings of one link, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClickCounts {
    /// Openings by a person.
    pub clicks: u64,
    /// Openings by machines.
    pub machine_clicks: u64,
    /// The first opening by a person.
    pub first_click: Option<Timestamp>,
}

/// Counts the openings of one link, oldest first. `delivered` is when the receipt came that says DELIVRD; `sweeps` are those
/// of the whole batch.
pub fn count(clicks: &[(Timestamp, Click)], delivered: Option<Timestamp>, sweeps: &[Sweep]) -> ClickCounts {
    let mut counts = ClickCounts::default();
    for (place, (at, click)) in clicks.iter().enumerate() {
        let swept = sweeps
            .iter()
            .any(|sweep| sweep.source == click.source && sweep.from.minus(SWEEP_SPAN) <= *at && *at <= sweep.to.plus(SWEEP_SPAN));
        let near = |other: Option<&(Timestamp, Click)>| {
            other.is_some_and(|(then, _)| then.since(*at) <= BURST_SPAN && at.since(*then) <= BURST_SPAN)
        };
        let fresh = delivered.is_some_and(|delivered| delivered <= *at && at.since(delivered) < AFTER_DELIVERY);
        let burst = fresh && (near(place.checked_sub(1).and_then(|before| clicks.get(before))) || near(clicks.get(place + 1)));
        if click.kind == Kind::Machine || swept || burst {
            counts.machine_clicks += 1;
        } else {
            counts.clicks += 1;
            counts.first_click = counts.first_click.or(Some(*at));
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1";

    #[test]
    fn requests_are_judged_by_what_they_say() {
        let get = |agent| RequestFacts { method: "GET", purpose: "", agent };
        let cases = [
            (get(IPHONE), (None, Agent::Phone)),
            (get("Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/130.0 Safari/537.36"), (None, Agent::Desktop)),
            (get("Mozilla/5.0 (Linux; Android 14; HUAWEI) MicroMessenger/8.0"), (None, Agent::Phone)),
            (get("SomethingNew/1"), (None, Agent::Other)),
            (RequestFacts { method: "HEAD", ..get(IPHONE) }, (Some(Why::Method), Agent::Phone)),
            (RequestFacts { method: "OPTIONS", ..get(IPHONE) }, (Some(Why::Method), Agent::Phone)),
            (RequestFacts { purpose: "prefetch;prerender", ..get(IPHONE) }, (Some(Why::Prefetch), Agent::Phone)),
            (RequestFacts { purpose: "Preview", ..get(IPHONE) }, (Some(Why::Prefetch), Agent::Phone)),
            (get(""), (Some(Why::NoAgent), Agent::Unnamed)),
            (get("  "), (Some(Why::NoAgent), Agent::Unnamed)),
            (get("WhatsApp/2.23 A"), (Some(Why::Agent), Agent::Machine)),
            (get("facebookexternalhit/1.1"), (Some(Why::Agent), Agent::Machine)),
            (get("Mozilla/5.0 (compatible; Googlebot/2.1)"), (Some(Why::Agent), Agent::Machine)),
            (get("curl/8.5.0"), (Some(Why::Agent), Agent::Machine)),
            (get("Mozilla/5.0 HeadlessChrome/130"), (Some(Why::Agent), Agent::Machine)),
            (get("SomeNewBot"), (Some(Why::Agent), Agent::Machine)),
        ];
        for (facts, expected) in cases {
            assert_eq!(judge(&facts), expected, "{facts:?}");
        }
        assert!(MACHINES.iter().all(|word| word.to_ascii_lowercase() == **word), "names are compared in lower case");
    }

    fn at(millis: i64) -> (Timestamp, Click) {
        (Timestamp(millis), Click { kind: Kind::Person, why: None, agent: Agent::Phone, source: "a".into() })
    }

    #[test]
    fn a_scope_reads_back() {
        for link in [0, 7, 99_999_999_999, 218_340_105_584_895] {
            let scope = scope_of(BatchId(7), link);
            assert_eq!(link_of(&scope), Some(link));
            assert!(scope.starts_with(&openings_of(BatchId(7))));
        }
        assert!(scope_of(BatchId(7), 99) < scope_of(BatchId(7), 100), "in the order of the numbers");
    }

    #[test]
    fn bursts_right_after_delivery_are_machines() {
        let counted = |times: &[i64], delivered: Option<i64>| {
            let clicks: Vec<_> = times.iter().map(|millis| at(*millis)).collect();
            let counts = count(&clicks, delivered.map(Timestamp), &[]);
            (counts.clicks, counts.machine_clicks, counts.first_click.map(|first| first.0))
        };
        assert_eq!(counted(&[1_000, 1_500], Some(0)), (0, 2, None));
        assert_eq!(counted(&[1_000, 1_500, 60_000], Some(0)), (1, 2, Some(60_000)));
        assert_eq!(counted(&[1_000, 9_000], Some(0)), (2, 0, Some(1_000)), "one at a time");
        assert_eq!(counted(&[20_000, 20_500], Some(0)), (2, 0, Some(20_000)), "long after");
        assert_eq!(counted(&[1_000, 1_500], None), (2, 0, Some(1_000)), "nobody knows when it arrived");
        assert_eq!(counted(&[], Some(0)), (0, 0, None));
    }

    #[test]
    fn a_source_that_opens_many_codes_is_a_machine_while_it_does() {
        let sweep = Sweep { source: "a".into(), from: Timestamp(100_000), to: Timestamp(101_000) };
        let sweeps = [sweep];
        let of = |millis: i64, source: &str| {
            let (when, click) = at(millis);
            count(&[(when, Click { source: source.into(), ..click })], None, &sweeps).machine_clicks
        };
        assert_eq!((of(98_000, "a"), of(103_500, "a")), (1, 1));
        assert_eq!((of(98_000, "b"), of(200_000, "a"), of(90_000, "a")), (0, 0, 0));
    }
}
