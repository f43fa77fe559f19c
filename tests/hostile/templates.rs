//! Templates that would cost without end: each batch comes to its end, in bounded memory, while others are served.

use serde_json::Value;

use super::{ask, batch, call, create, id_of, is_prepared, is_well, peak_mb, wait};
use crate::endtoend::fixture::Place;
use crate::endtoend::service::Service;

fn bombs() -> Vec<(&'static str, String)> {
    let nested = |open: &str, close: &str, times: usize| format!("{}x{}", open.repeat(times), close.repeat(times));
    let doubled = |what: &str| format!("{{% set a = name %}}{}{{{{ a }}}}", format!("{{% set a = {what} %}}").repeat(64));
    vec![
        ("a text times a billion", "{{ name * 1000000000 }}".into()),
        ("a constant times a billion", "{{ 'x' * 1000000000 }}".into()),
        ("a list times a billion", "{{ [1, 2, 3] * 1000000000 }}".into()),
        ("doubled again and again", doubled("a ~ a")),
        ("added again and again", doubled("a + a")),
        ("lists of lists", doubled("[a, a, a, a]")),
        ("maps of maps", doubled("{'a': a, 'b': a}")),
        ("lists without brackets", doubled("a, a, a")),
        ("lists filled with lists", doubled("name|list|batch(20, a)|list")),
        ("lists times lists", doubled("[a] * 9")),
        ("loops over lists of lists", nested("{% for a in [[a, a]] %}", "{% endfor %}", 60)),
        ("a loop that calls itself with a text", "{% for a in name recursive %}{{ loop(name) }}{% endfor %}".into()),
        ("padded by a billion", "{{ '%1000000000d'|format(1) }}".into()),
        ("a text put into itself", doubled("a|replace('a', a)")),
        ("joined by itself", doubled("a|join(a)")),
        ("blocks of blocks", format!("{}{{{{ a }}}}", "{% set a %}{{ a or name }}{{ a or name }}{% endset %}".repeat(64))),
        ("loops in loops", nested("{% for a in 'xxxxxxxxxx' %}", "{% endfor %}", 60)),
        ("loops in loops beyond all depth", nested("{% for a in 'xx' %}", "{% endfor %}", 1_500)),
        ("a loop that calls itself", "{% for a in [[[[1]]]] recursive %}{{ loop([a, [a, a]]) }}{% endfor %}".into()),
        ("conditions in conditions", nested("{% if name %}", "{% endif %}", 2_000)),
        ("brackets in brackets", format!("{{{{ {} }}}}", nested("(", ")", 30_000).replace('x', "name"))),
        ("lists in lists", format!("{{{{ {} }}}}", nested("[", "]", 30_000).replace('x', "name"))),
        ("signs without end", format!("{{{{ {}1 }}}}", "-".repeat(60_000).replace("--", "- "))),
        ("denials without end", format!("{{{{ {} name }}}}", "not ".repeat(15_000))),
        ("a sum of thousands", format!("{{{{ 1{} }}}}", "+1".repeat(30_000))),
        ("a text of thousands", format!("{{{{ name{} }}}}", "~name".repeat(10_000))),
        ("filters without end", format!("{{{{ name{} }}}}", "|upper".repeat(10_000))),
        ("attributes without end", format!("{{{{ name{} }}}}", ".a".repeat(30_000))),
        ("places without end", format!("{{{{ name{} }}}}", "[0]".repeat(20_000))),
        ("choices without end", format!("{{{{ 1{} }}}}", " if name else 1".repeat(4_000))),
        ("comparisons without end", format!("{{{{ 1{} }}}}", " < 1".repeat(15_000))),
        ("both and both", format!("{{{{ name{} }}}}", " and name".repeat(7_000))),
        ("powers of powers", "{{ 10 ** 10 ** 10 ** 10 }}".into()),
        ("a division by nothing", "{{ 1 / 0 }} {{ 1 // 0 }} {{ 1 % 0 }}".into()),
        ("a slice beyond all places", "{{ name[-9223372036854775808:9223372036854775807:-1] }}".into()),
        ("indented by a billion", "{{ name|indent(1000000000) }}".into()),
        ("rounded to a billion", "{{ 1.5|round(1000000000) }}".into()),
        (
            "in lots of none",
            "{{ name|list|batch(0)|list }} {{ name|list|slice(0)|list }} {{ name|list|slice(1000000000)|list }}".into(),
        ),
        ("a name of sixty thousand letters", format!("{{{{ {} }}}}", "x".repeat(60_000))),
        ("a filter of sixty thousand letters", format!("{{{{ name|{} }}}}", "x".repeat(60_000))),
        ("a comment that never ends", format!("{{# {}", "x".repeat(60_000))),
        ("sixty thousand openings", "{{".repeat(30_000)),
        ("larger than is taken", "x".repeat(65 << 10)),
    ]
}

#[test]
fn no_template_costs_without_end() {
    let service = Service::start(Place::new(1, 1));
    let key = service.key("operator");
    is_well(&service);
    let people: Vec<String> = (0..100).map(|row| format!("+86139000000{row:02}")).collect();
    let people: Vec<(&str, &str)> = people.iter().map(|number| (number.as_str(), "aaaaaaaaaa")).collect();
    let mut peaks = vec![peak_mb(&service)];
    for round in 0..3 {
        let mut made = vec![];
        for (at, (what, content)) in bombs().into_iter().enumerate() {
            let created = create(&service, &key, &format!("k{round}-{at}"), &batch(&content, &people));
            if created.status == 200 {
                let id = id_of(&created);
                if round == 0 {
                    wait(&service, &key, &id, is_prepared);
                }
                made.push((what, id));
            } else {
                assert!((400..500).contains(&created.status), "{what}: {created:?}");
            }
            // Others are served meanwhile.
            assert_eq!(ask(&service, "", "GET", "/healthz", "", "").status, 200, "{what}");
        }
        assert!(made.len() > 20, "{made:?}");
        for (what, id) in made {
            let seen = wait(&service, &key, &id, is_prepared);
            let reason = seen["preparation"]["reason"].to_string();
            assert!(reason.len() < 2_000, "{what}: a reason is no echo: {reason}");
            assert!(!reason.contains("aaaaaaaaaa"), "{what}: {reason}");
            assert!(seen["plan"].is_object() || reason.contains("SF-1006") || reason.contains("SF-1005"), "{what}: {seen}");
        }
        peaks.push(peak_mb(&service));
    }
    // A good one behind them is prepared like any other.
    let id = id_of(&create(&service, &key, "good", &batch("Hello {{name}}", &people)));
    assert_eq!(wait(&service, &key, &id, is_prepared)["plan"]["recipients"], 100);
    println!("peaks: {peaks:?} MB");
    // One after the other; then all at once, which costs as much more as chance lets the largest meet; and once more.
    assert!(peaks[1] - peaks[0] < 96 && peaks[2] - peaks[0] < 120 && peaks[3] - peaks[1] < 48, "{peaks:?} MB");
    assert_ne!(call(&service, &key, "GET", "/v1/batches", &Value::Null).json()["batches"], Value::Null);
    is_well(&service);
    service.stop().ended(0);
}
