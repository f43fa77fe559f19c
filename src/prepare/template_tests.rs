//! Templates: what they render, what they refuse, and how deep they may go.

use proptest::prelude::*;

use super::*;
use crate::model::batch::tests::batch;

fn with(content: &str, url: Option<&str>) -> SmsBatch {
    SmsBatch { content: content.into(), content_signature: "店".into(), url: url.map(str::to_owned), ..batch() }
}

fn columns() -> Vec<String> {
    ["phone", "name", "城市", "amount"].map(str::to_owned).to_vec()
}

fn row(cells: [&str; 4]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

fn rendered(template: &Template, cells: [&str; 4]) -> Result<(String, Option<u32>), RowFault> {
    let (mut fields, mut text) = (row(cells), String::from("left over"));
    let link = template.render(&mut fields, &mut text);
    assert_eq!(fields, row(cells), "the fields come back");
    link.map(|link| (text, link))
}

#[test]
fn templates_render_and_refuse_records() {
    let full = ["1", "张三", "北京", "5"];
    let no_name = ["1", " ", "北京", "5"];
    use Code::{RowRenderFailed, RowValueMissing};
    let cases = [
        ("Hi {{name}} in ${城市}", full, Ok("Hi 张三 in 北京")),
        ("【店】Hi {{ name }}\n", full, Ok("Hi 张三")),
        (" 【店】 Hi", full, Ok(" Hi")),
        ("【别家】Hi", full, Ok("【别家】Hi")),
        ("Hi {{name}}", no_name, Err(RowValueMissing)),
        ("Hi {{name|upper}}", no_name, Err(RowValueMissing)),
        ("Hi {{name|default('friend')}}", no_name, Ok("Hi friend")),
        ("Hi {{name or 'friend'}}", no_name, Ok("Hi friend")),
        ("Hi{% if name %} {{name}}{% endif %}", no_name, Ok("Hi")),
        ("Hi{% if name %} {{name}}{% endif %}", full, Ok("Hi 张三")),
        ("{{ amount|int * 2 }}", full, Ok("10")),
        ("{{ name|int }}", full, Err(RowRenderFailed)),
        ("{{ name * 10000000 }}", full, Err(RowRenderFailed)),
        ("{% for a in 'x' * 999 %}{% for b in 'x' * 999 %}{{ a }}{% endfor %}{% endfor %}", full, Err(RowRenderFailed)),
        ("<{{ amount }}> & \"x\"", full, Ok("<5> & \"x\"")),
        ("a\n\n", full, Ok("a\n")),
        ("{{ 'yes' if 城市 in ['北京', '上海'] else 'no' }}", full, Ok("yes")),
        ("{{ {'5': 'five', '6': 'six'}[amount] }}", full, Ok("five")),
        ("{% for part in 'a,b'|split(',') %}{{ part }};{% endfor %}", full, Ok("a;b;")),
    ];
    for (content, cells, expected) in cases {
        let template = Template::compile(&with(content, None), &columns()).expect(content);
        let found = rendered(&template, cells).map(|(text, _)| text).map_err(|fault| fault.code);
        assert_eq!(found.as_deref(), expected.as_ref().copied(), "{content}");
    }
}

#[test]
fn a_megabyte_named_ten_thousand_times_is_no_gigabyte() {
    let cell = "x".repeat(1 << 20);
    for (content, url) in
        [("{{name}}".repeat(8_000), None), (format!("{{{{url}}}}{}", "{{name}}".repeat(8_000)), Some("https://x.example"))]
    {
        let template = Template::compile(&with(&content, url), &columns()).expect("it is a template");
        let (mut fields, mut text) = (row(["1", &cell, "", "5"]), String::new());
        let fault = template.render(&mut fields, &mut text).expect_err("no message is so long");
        assert_eq!(fault.code, Code::RowTextTooLong);
        assert!(text.capacity() < 100_000, "{}", text.capacity());
    }
    // The longest text that a message may have, in the widest letters, is still one; and an empty cell behind one that is too long
    // is what the operator hears of.
    let widest = "😀".repeat(crate::model::limits::TEXT_CHARS_MAX);
    let template = Template::compile(&with("{{name}}", None), &columns()).expect("it is a template");
    assert_eq!(rendered(&template, ["1", &widest, "", "5"]), Ok((widest, None)));
    let template = Template::compile(&with("{{name}}{{城市}}", None), &columns()).expect("it is a template");
    let code = rendered(&template, ["1", &cell, "", "5"]).map_err(|fault| fault.code);
    assert_eq!(code, Err(Code::RowValueMissing));
}

/// Shapes that go deep: signs before signs, chains, branches, values in values.
fn deep(times: usize) -> Vec<String> {
    let times = |piece: &str| piece.repeat(times);
    vec![
        format!("{{{{ {}1 }}}}", times("-")),
        format!("{{{{ {}1 }}}}", times("not ")),
        format!("{{{{ name{} }}}}", times(".b")),
        format!("{{{{ name{} }}}}", times("[0]")),
        format!("{{{{ name{} }}}}", times("()")),
        format!("{{{{ name{} }}}}", times("|upper")),
        format!("{{{{ 1{} }}}}", times("+1")),
        format!("{{{{ 1{} }}}}", times("**1")),
        format!("{{{{ 1{} }}}}", times(" and 1")),
        format!("{{{{ {}1 }}}}", times("1 if 0 else ")),
        format!("{{{{ {{1:{{}}}}{} }}}}", times("~1")),
        format!("{{{{ {}1{} }}}}", times("("), times(")")),
        format!("{{{{ {}1{} }}}}", times("["), times("]")),
        format!("{{% if 0 %}}{}{{% endif %}}a", times("{% elif 0 %}")),
        format!("{}a{}", times("{% if 1 %}"), times("{% endif %}")),
        format!("{{% set q = 1 %}}{}{{{{ q }}}}", times("{% set q = [q] %}")),
        format!("{{% set q = 1 %}}{}{{{{ q }}}}", times("{% set q = [[[[[[[[[[q]]]]]]]]]] %}")),
        format!("{{% set q = 1 %}}{}{{{{ q == [q] }}}}{{{{ q|string }}}}", times("{% set q = {1: q} %}")),
    ]
}

#[test]
fn no_template_reaches_the_bottom_of_the_stack() {
    // A worker's thread has two megabytes, of which other frames take some.
    let small = std::thread::Builder::new().stack_size(1 << 20);
    let tried = small.spawn(|| {
        let full = row(["1", "张三", "北京", "5"]);
        for times in [1, 2, 50, 100, 120, 160, 240, 390, 480, 3_000, 20_000] {
            for content in deep(times).iter().filter(|content| content.len() <= TEMPLATE_BYTES_MAX) {
                match Template::compile(&with(content, None), &columns()) {
                    Ok(template) => drop(template.render(&mut full.clone(), &mut String::new())),
                    Err(fault) => assert_eq!(fault.code, Code::TemplateInvalid, "{fault:?}"),
                }
                // A value cannot be called, and no list holds another; all other shapes are templates.
                let may_fail = times > 2 || ["()", "[[", "{1:{", "[q]", "{1: q}"].iter().any(|what| content.contains(what));
                assert!(may_fail || Template::compile(&with(content, None), &columns()).is_ok(), "{content}");
            }
        }
    });
    tried.expect("a thread").join().expect("nothing panics");
}

#[test]
fn no_list_holds_another() {
    for (content, why) in [
        ("{% set a = [name, name] %}{{ a }}", "line 1: a list holds"),
        ("a\n{{ name|default([[1], [2]]) }}", "line 2: a list holds"),
        ("a\n{{ name|list|batch(4, name) }}", "filter"),
        ("{{ [1]|map('split') }}", "filter"),
    ] {
        let fault = Template::compile(&with(content, None), &columns()).err().expect(content);
        assert!(fault.code == Code::TemplateInvalid && fault.context.contains(why), "{content}: {fault:?}");
    }
}

#[test]
fn ordinary_templates_are_not_too_deep() {
    let cities: Vec<String> = (0..300).map(|n| format!("{{% elif city == \"{n}\" %}}Shop {n}")).collect();
    let branches = format!("{{% if city == \"x\" %}}x{}{{% else %}}-{{% endif %}}", cities.concat());
    let map: Vec<String> = (0..100).map(|n| format!("'{n}': 'a, (b) [c] {{d'")).collect();
    let table = format!("{{{{ {{{}}}[name] or 'none' }}}}", map.join(", "));
    for content in [branches.replace("city", "name"), table, "prose, with signs: (a) {b} [c]; ".repeat(1_000)] {
        assert!(Template::compile(&with(&content, None), &columns()).is_ok(), "{}", &content[..80]);
    }
    for content in ["{% for a in name %}{{ a }}{% endfor %}", "{% for a in [1, 2] %}{{ name|default('(') }}{% endfor %}"] {
        assert!(Template::compile(&with(content, None), &columns()).is_ok(), "{content}");
    }
    let itself =
        "{% for a in [1] recursive %}{% if loop.depth < 99 %}{{ loop([[[a]]]) }}{% else %}{{ a }}{% endif %}{% endfor %}";
    let fault = Template::compile(&with(itself, None), &columns()).err().expect("it goes down without an end in sight");
    assert!(fault.context.contains("calls itself"), "{fault:?}");
    let long = format!("a\n{{{{ 1{} }}}}", "+1".repeat(300));
    let fault = Template::compile(&with(&long, None), &columns()).err().expect("it is too deep");
    assert_eq!((fault.code, fault.context.as_str()), (Code::TemplateInvalid, "line 2: a tag has more than 500 words and signs"));
}

#[test]
fn the_reason_names_columns_and_holds_no_values() {
    let template = Template::compile(&with("{{name}} {{城市}} {{amount}}", None), &columns()).expect("valid");
    let fault = rendered(&template, ["1", "secret", "", " "]).expect_err("two are empty");
    assert!(fault.detail.contains("\"amount\", \"城市\"") && !fault.detail.contains("secret"), "{fault:?}");
    let template = Template::compile(&with("a\n{{ name|int }}", None), &columns()).expect("valid");
    let fault = rendered(&template, ["1", "secret", "", ""]).expect_err("not a number");
    assert!(fault.detail.contains("line 2") && !fault.detail.contains("secret"), "{fault:?}");
}

#[test]
fn what_cannot_be_read_is_refused_before_any_record() {
    use Code::{TemplateInvalid, TemplateUnknownColumn};
    let cases = [
        ("", TemplateInvalid, "empty"),
        ("【店】", TemplateInvalid, "empty"),
        ("a\nb {{ name", TemplateInvalid, "line 2"),
        ("{% if name %}", TemplateInvalid, "line 1"),
        ("{{ name | nosuchfilter }}", TemplateInvalid, "filter"),
        ("{% if not name %}{{ amount.nosuchmethod() }}{% endif %}", TemplateInvalid, "method"),
        ("{% include 'x' %}", TemplateInvalid, "include"),
        ("{% import 'x' as x %}", TemplateInvalid, "import"),
        ("{% macro m() %}{% endmacro %}", TemplateInvalid, "macro"),
        ("Hi {{nam}}", TemplateUnknownColumn, "\"phone\", \"name\", \"城市\", \"amount\""),
        ("{{ range(9) }}", TemplateUnknownColumn, "range"),
        ("{{ url }}", TemplateUnknownColumn, "url"),
        ("${a b}", TemplateInvalid, "a b"),
        ("${name", TemplateInvalid, "name"),
    ];
    for (content, code, words) in cases {
        let fault = Template::compile(&with(content, None), &columns()).err().expect(content);
        assert!(fault.code == code && fault.context.contains(words), "{content}: {fault}");
    }
    let long = "x".repeat(TEMPLATE_BYTES_MAX + 1);
    assert!(Template::compile(&with(&long, None), &columns()).is_err());
    let twice = ["phone", "name", "name"].map(str::to_owned);
    assert!(Template::compile(&with("{{name}}", None), &twice).is_err());
    assert!(Template::compile(&with("{{phone}}", None), &twice).is_ok());
}

#[test]
fn nothing_goes_so_deep_that_it_ends_the_stack() {
    let around = |open: &str, close: &str, times: usize| format!("{{{{ {}name{} }}}}", open.repeat(times), close.repeat(times));
    let behind = |more: &str, times: usize| format!("{{{{ name{} }}}}", more.repeat(times));
    let set = |what: &str, times: usize| format!("{{% set a = name %}}{}{{{{ a }}}}", what.repeat(times));
    let made = move |times: usize| {
        let mut all: Vec<String> =
            ["+1", "~name", "|upper", ".a", "[0]", "()", " if name else 1", " < 1", " and name", "**1", " in name"]
                .map(|more| behind(more, times))
                .into();
        all.extend(
            [("(", ")"), ("[", "]"), ("not ", ""), ("- ", ""), ("{'a':", "}"), ("name(", ")")]
                .map(|(open, close)| around(open, close, times)),
        );
        all.extend(
            ["{% set a = [a] %}", "{% set a = [[[[[[[[[a]]]]]]]]] %}", "{% set a = a|list|batch(9)|list %}"]
                .map(|what| set(what, times)),
        );
        all.extend(
            [("{% if name %}", "{% endif %}"), ("{% for a in name %}", "{% endfor %}")]
                .map(|(open, close)| format!("{}x{}", open.repeat(times), close.repeat(times))),
        );
        all
    };
    // Half of what the threads that prepare have.
    let tried = std::thread::Builder::new().stack_size(1 << 20).spawn(move || {
        for content in [10, 30, 60, 100, 150, 190, 1_000, 3_000].into_iter().flat_map(made) {
            if let Ok(template) = Template::compile(&with(&content, None), &columns()) {
                let _ = rendered(&template, ["1", "x", "y", "z"]);
            }
        }
    });
    tried.expect("a thread").join().expect("it ends in order");
    for content in made(3_000) {
        assert!(
            content.len() > TEMPLATE_BYTES_MAX || Template::compile(&with(&content, None), &columns()).is_err(),
            "{content:.40}"
        );
    }
}

#[test]
fn the_link_is_cut_out_and_its_place_is_kept() {
    let url = Some("https://shop.example/sale");
    let cases = [
        ("{{name}}: {{url}} end", Ok(("张三:  end".to_owned(), Some(8)))),
        ("${url}", Ok((String::new(), Some(0)))),
        ("见 https://shop.example/sale", Ok(("见 ".to_owned(), Some(4)))),
        ("a{% if not name %}{{url}}{% endif %}", Ok(("a".to_owned(), None))),
        ("{% for x in 'ab' %}{{url}}{% endfor %}", Err(Code::RowRenderFailed)),
    ];
    for (content, expected) in cases {
        let template = Template::compile(&with(content, url), &columns()).expect(content);
        assert!(template.has_link());
        assert_eq!(rendered(&template, ["1", "张三", "b", "c"]).map_err(|fault| fault.code), expected, "{content}");
    }
    // Without a link of the batch, `url` is a column like any other.
    let with_url = ["phone", "url"].map(str::to_owned);
    assert!(Template::compile(&with("{{url}}", None), &with_url).is_ok_and(|template| !template.has_link()));
}

fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-z你好，。 \\r\\n\"'$#%{}|【】<>&\\\\-]{0,12}",
        Just("{{name}}".to_owned()),
        Just("{{ 城市 }}".to_owned()),
        Just("{{\n\tamount\n}}".to_owned()),
        Just("${name}".to_owned()),
        Just("${{amount}}".to_owned()),
        Just("{{true}}".to_owned()),
        Just("{{- name}}".to_owned()),
        Just("{{url}}".to_owned()),
    ];
    proptest::collection::vec(piece, 1..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn without_the_engine_a_text_is_the_same(content in pieces(), cells: [String; 4], url: bool) {
        let batch = with(&content, url.then_some("https://shop.example/sale"));
        if let Ok(template) = Template::compile(&batch, &columns())
            && let Plan::Simple(_) = &template.plan
        {
            let link = batch.url.as_deref().filter(|_| batch.contains_url());
            let source = syntax::rewrite(without_signature(&content, "店"), link).expect("it compiled");
            let plan = Plan::Engine(Box::new(engine(&source).expect("it compiled")));
            let slow = Template { plan, variables: Arc::clone(&template.variables), has_link: template.has_link };
            let cells = cells.each_ref().map(String::as_str);
            prop_assert_eq!(rendered(&template, cells), rendered(&slow, cells));
        }
    }
}
