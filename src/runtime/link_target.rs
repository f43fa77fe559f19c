//! Where a batch's links lead: its long link with the campaign's parameters.

use std::collections::BTreeSet;

use url::Url;

use crate::model::batch::SmsBatch;
use crate::model::limits::LINK_TARGET_BYTES_MAX;

/// Whether a text is an address of the web: `http` or `https`, with a host. Nothing else is ever redirected to.
pub fn is_web_address(text: &str) -> bool {
    web(text).is_some()
}

fn web(text: &str) -> Option<Url> {
    Url::parse(text.trim()).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// The long link of a batch with its parameters, percent-encoded; `None` when it has none, one that is no address of the web, or
/// when it comes to more than [`LINK_TARGET_BYTES_MAX`].
///
/// `defaults` are the configured parameters; the batch's own of the same name stand instead of them. Query and fragment that
/// the link has are kept, and a parameter that is in its query already stays as it is. One that comes out empty is left out.
pub fn target(batch: &SmsBatch, defaults: &[(String, String)]) -> Option<String> {
    let mut url = web(batch.url.as_deref()?)?;
    let own: BTreeSet<&str> = batch.link_parameters.iter().map(|(name, _)| name.as_str()).collect();
    let there: BTreeSet<String> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
    let wanted = defaults.iter().filter(|(name, _)| !own.contains(name.as_str())).chain(&batch.link_parameters);
    // A value may name a long one of the batch many times: it is cut short before it fills memory.
    let mut room = LINK_TARGET_BYTES_MAX.checked_sub(url.as_str().len())?;
    let mut filled: Vec<(&str, String)> = vec![];
    for (name, value) in wanted.filter(|(name, _)| !there.contains(name)) {
        let value = fill(value, batch, room)?;
        if !name.is_empty() && !value.is_empty() {
            room = room.checked_sub(name.len() + value.len())?;
            filled.push((name, value));
        }
    }
    if !filled.is_empty() {
        url.query_pairs_mut().extend_pairs(filled);
    }
    (url.as_str().len() <= LINK_TARGET_BYTES_MAX).then(|| url.into())
}

/// Puts the batch's values in; `None` once they come to more than `room` bytes. One pass: what a value holds is never looked at
/// again.
fn fill(template: &str, batch: &SmsBatch, room: usize) -> Option<String> {
    let mut filled = String::new();
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        if filled.len() > room {
            return None;
        }
        let (before, behind) = rest.split_at(at);
        filled.push_str(before);
        let Some((name, after)) = behind[1..].split_once('}') else {
            rest = behind;
            break;
        };
        match name {
            "batch_id" => filled.push_str(&batch.batch_id.to_string()),
            "campaign_id" => filled.push_str(&batch.campaign_id),
            "campaign_name" => filled.push_str(&batch.campaign_name),
            "marketing_program_id" => filled.push_str(&batch.marketing_program_id),
            "task_id" => filled.push_str(&batch.task_id),
            "content_id" => filled.push_str(&batch.content_id),
            // No name of ours: it stays as it was written.
            _ => {
                filled.push('{');
                rest = &behind[1..];
                continue;
            }
        }
        rest = after;
    }
    filled.push_str(rest);
    (filled.len() <= room).then_some(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> SmsBatch {
        SmsBatch { batch_id: crate::model::id::BatchId(7), ..SmsBatch::new("list.csv", "Look: {{url}}", "smpp") }
    }

    #[test]
    fn parameters_are_put_behind_the_long_link() {
        let defaults = vec![("utm_source".to_owned(), "sms".to_owned()), ("utm_campaign".to_owned(), "{campaign_id}".to_owned())];
        type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], Option<&'a str>);
        let cases: [Case<'_>; 13] = [
            ("https://shop.example/a", "c1", &[], Some("https://shop.example/a?utm_source=sms&utm_campaign=c1")),
            ("https://shop.example", "c1", &[], Some("https://shop.example/?utm_source=sms&utm_campaign=c1")),
            ("https://shop.example/a?x=1#top", "c1", &[], Some("https://shop.example/a?x=1&utm_source=sms&utm_campaign=c1#top")),
            ("https://shop.example/a?utm_source=mail", "c1", &[], Some("https://shop.example/a?utm_source=mail&utm_campaign=c1")),
            ("https://shop.example/a", "", &[], Some("https://shop.example/a?utm_source=sms")),
            (
                "https://shop.example/a",
                "a b&c=d#e/退",
                &[],
                Some("https://shop.example/a?utm_source=sms&utm_campaign=a+b%26c%3Dd%23e%2F%E9%80%80"),
            ),
            ("https://shop.example/a", "c1", &[("utm_source", "")], Some("https://shop.example/a?utm_campaign=c1")),
            (
                "https://shop.example/a",
                "{batch_id}",
                &[("x", "{task_id}-{nothing}-{")],
                Some("https://shop.example/a?utm_source=sms&utm_campaign=%7Bbatch_id%7D&x=t1-%7Bnothing%7D-%7B"),
            ),
            ("http://shop.example/", "", &[("utm_source", "x")], Some("http://shop.example/?utm_source=x")),
            ("javascript:alert(1)", "c1", &[], None),
            ("ftp://shop.example/", "c1", &[], None),
            ("//shop.example/", "c1", &[], None),
            ("", "c1", &[], None),
        ];
        for (url, campaign, own, expected) in cases {
            let link_parameters = own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let (url, campaign_id) = (Some(url.to_owned()), campaign.to_owned());
            let batch = SmsBatch { url, campaign_id, task_id: "t1".into(), link_parameters, ..batch() };
            assert_eq!(target(&batch, &defaults).as_deref(), expected, "{:?}", batch.url);
        }
    }

    #[test]
    fn a_parameter_that_multiplies_leads_nowhere() {
        let of = |campaign: usize, times: usize, url: &str| {
            let link_parameters = vec![("x".to_owned(), "{campaign_id}".repeat(times))];
            let (url, campaign_id) = (Some(url.to_owned()), "a".repeat(campaign));
            target(&SmsBatch { url, campaign_id, link_parameters, ..batch() }, &[])
        };
        let short = "https://shop.example/";
        assert!(of(100, 10, short).is_some_and(|to| to.len() == short.len() + "?x=".len() + 1_000));
        // 320 GB of text, if anybody wrote it all.
        assert_eq!(of(1_900_000, 169_000, short), None);
        assert_eq!(of(LINK_TARGET_BYTES_MAX, 1, short), None);
        assert_eq!(of(1, 1, &format!("{short}{}", "a".repeat(LINK_TARGET_BYTES_MAX))), None);
        let (campaign_id, link_parameters) = ("退".repeat(2_000), vec![("x".to_owned(), "{campaign_id}".to_owned())]);
        let batch = SmsBatch { url: Some(short.into()), campaign_id, link_parameters, ..batch() };
        assert_eq!(target(&batch, &[]), None, "what is written in percent signs is three times as long");
    }
}
