//! Which URLs webhooks may have: the operator's rules, and what no rule can allow.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::model::code::{Code, Fault};
use crate::model::schedule::seconds;

/// The rules, as they are configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookConfig {
    /// Hosts that may be called: a name, `*.` and a name for everything below it, or an address. None by default.
    pub allow: Vec<String>,
    /// Whether `http://` is allowed too.
    pub allow_http: bool,
    /// Whether hosts may have addresses that are not public: loopback, private networks.
    pub allow_private: bool,
    /// Seconds a call may take.
    #[serde(with = "seconds")]
    pub timeout: Duration,
}

impl Default for WebhookConfig {
    fn default() -> WebhookConfig {
        WebhookConfig { allow: vec![], allow_http: false, allow_private: false, timeout: Duration::from_secs(10) }
    }
}

impl WebhookConfig {
    /// What is wrong with it: each with its key.
    pub fn check(&self) -> Vec<(String, String)> {
        let mut wrong = vec![];
        for host in &self.allow {
            let name = host.strip_prefix("*.").unwrap_or(host);
            if name.contains('*') || Host::parse(name).is_err() || Host::parse(name).is_ok_and(|read| read.to_string() != *name) {
                let text = format!(
                    "{host:?} is no host such as \"hooks.example.com\", \"*.example.com\" or \"192.0.2.1\", in small letters"
                );
                wrong.push(("webhooks.allow".into(), text));
            }
        }
        if self.timeout.is_zero() || self.timeout > Duration::from_secs(60) {
            wrong.push(("webhooks.timeout".into(), "is more than 0 and at most 60 seconds".into()));
        }
        wrong
    }

    /// The URL, if these rules allow it. What its name resolves to is checked when it is resolved.
    pub fn url(&self, text: &str) -> Result<Url, Fault> {
        let refuse = |what: String| Err(Fault::new(Code::InputInvalid, what));
        let Ok(url) = Url::parse(text) else { return refuse("the webhook's url cannot be read".into()) };
        match url.scheme() {
            "https" => {}
            "http" if self.allow_http => {}
            "http" => return refuse("the webhook's url is not https (`webhooks.allow_http` would allow http)".into()),
            _ => return refuse("the webhook's url is not https".into()),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("the webhook's url holds a name or password".into());
        }
        if url.fragment().is_some() {
            return refuse("the webhook's url has a fragment".into());
        }
        let Some(host) = url.host() else { return refuse("the webhook's url has no host".into()) };
        let host = host.to_string();
        if self.allow.is_empty() {
            return refuse("no host may be called: name it in `webhooks.allow`".into());
        }
        if !self.allow.iter().any(|allowed| fits(allowed, &host)) {
            return refuse(format!("host {host} is not allowed: name it in `webhooks.allow`"));
        }
        Ok(url)
    }
}

fn fits(allowed: &str, host: &str) -> bool {
    // A final dot is the same name, written out.
    let host = host.strip_suffix('.').unwrap_or(host);
    match allowed.strip_prefix("*.") {
        Some(parent) => host.strip_suffix(parent).is_some_and(|front| front.len() > 1 && front.ends_with('.')),
        None => host == allowed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allow: &[&str], allow_http: bool) -> WebhookConfig {
        WebhookConfig { allow: allow.iter().map(|host| (*host).to_owned()).collect(), allow_http, ..WebhookConfig::default() }
    }

    #[test]
    fn only_urls_that_the_rules_name_are_allowed() {
        let strict = rules(&["hooks.example.com", "*.example.org"], false);
        for (url, allowed) in [
            ("https://hooks.example.com/a?b=c", true),
            ("https://HOOKS.example.com:8443/", true),
            ("https://hooks.example.com./", true),
            ("https://a.b.example.org/", true),
            ("https://example.org/", false),
            ("https://badexample.org/", false),
            ("https://.example.org/", false),
            ("https://example.com/", false),
            ("https://hooks.example.com.evil.test/", false),
            ("http://hooks.example.com/", false),
            ("ftp://hooks.example.com/", false),
            ("file:///etc/passwd", false),
            ("gopher://hooks.example.com/", false),
            ("https://hooks.example.com@evil.test/", false),
            ("https://user@hooks.example.com/", false),
            ("https://:secret@hooks.example.com/", false),
            ("https://hooks.example.com/#fragment", false),
            ("https://hooks.example.com\\@evil.test/", true),
            ("https://evil.test\\.hooks.example.com/", false),
            ("hooks.example.com", false),
            ("", false),
        ] {
            assert_eq!(strict.url(url).is_ok(), allowed, "{url}");
        }
        // A backslash is a slash to browsers and to us: the host is still the allowed one.
        assert_eq!(strict.url("https://hooks.example.com\\@evil.test/").expect("allowed").host_str(), Some("hooks.example.com"));
        assert!(rules(&["hooks.example.com"], true).url("http://hooks.example.com/").is_ok());
        let fault = rules(&[], true).url("https://hooks.example.com/").expect_err("nothing is allowed");
        assert!(fault.context.contains("webhooks.allow"), "{fault}");
    }

    #[test]
    fn addresses_in_disguise_are_the_address() {
        // Each of these is 127.0.0.1 to a resolver; written as an address on the list it must be that address and no other.
        let rules = rules(&["127.0.0.1"], true);
        for url in ["http://2130706433/", "http://0x7f000001/", "http://017700000001/", "http://127.1/", "http://0x7f.0.0.1/"] {
            assert_eq!(rules.url(url).expect("it is on the list").host(), Some(Host::Ipv4([127, 0, 0, 1].into())), "{url}");
        }
        for url in ["http://0/", "http://[::ffff:127.0.0.1]/", "http://[::1]/"] {
            assert!(rules.url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_list_that_cannot_be_meant_is_refused() {
        assert!(rules(&["hooks.example.com", "*.example.com", "127.0.0.1", "[::1]"], false).check().is_empty());
        for wrong in ["https://hooks.example.com", "*", "a.*.com", "hooks.example.com:443", "UPPER.example.com"] {
            assert_eq!(rules(&[wrong], false).check().len(), 1, "{wrong}");
        }
    }
}
