//! Where a batch's links lead: its long link with the campaign's parameters.

use std::collections::BTreeSet;

use url::Url;

use crate::model::batch::SmsBatch;

/// Whether a text is an address of the web: `http` or `https`, with a host. Nothing else is ever redirected to.
pub fn is_web_address(text: &str) -> bool {
    web(text).is_some()
}

fn web(text: &str) -> Option<Url> {
    Url::parse(text.trim()).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// The long link of a batch with its parameters, percent-encoded; `None` when it has none, or one that is no address of the web.
///
/// `defaults` are the configured parameters; the batch's own of the same name stand instead of them. Query and fragment that
/// the link has are kept, and a parameter that is in its query already stays as it is. One that comes out empty is left out.
pub fn target(batch: &SmsBatch, defaults: &[(String, String)]) -> Option<String> {
    let mut url = web(batch.url.as_deref()?)?;
    let own: BTreeSet<&str> = batch.link_parameters.iter().map(|(name, _)| name.as_str()).collect();
    let there: BTreeSet<String> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
    let wanted = defaults.iter().filter(|(name, _)| !own.contains(name.as_str())).chain(&batch.link_parameters);
    let filled: Vec<(&str, String)> = wanted
        .filter(|(name, _)| !there.contains(name))
        .map(|(name, value)| (name.as_str(), fill(value, batch)))
        .filter(|(name, value)| !name.is_empty() && !value.is_empty())
        .collect();
    if !filled.is_empty() {
        url.query_pairs_mut().extend_pairs(filled);
    }
    Some(url.into())
}

/// Puts the batch's values in. One pass: what a value holds is never looked at again.
fn fill(template: &str, batch: &SmsBatch) -> String {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find('{') {
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
    filled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::tests::batch;

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
}
