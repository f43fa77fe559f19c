//! Templates: compiled once for a range, then rendered for each record.
//!
//! The language is minijinja's, with `${name}` accepted for `{{name}}`; macros, includes and functions are left out, and
//! fuel bounds what one record may cost; what would take the engine too deep is refused ([`syntax::check_depth`]). Variables are columns of the list. An empty cell is undefined: a plain `{{name}}`
//! then refuses the record, `{{ name | default("friend") }}`, `{{ name or "friend" }}` and `{% if name %}` handle it.
//!
//! Most templates are text with plain variables. These are put together without the engine; a property test holds both ways
//! to the same texts.

use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Enumerator, Object, Value};
use minijinja::{Environment, ErrorKind, UndefinedBehavior};

use super::column::named_column;
use super::syntax::{self, LINK_MARK, Token};
use crate::model::batch::SmsBatch;
use crate::model::code::{Code, Fault};
use crate::model::limits::TEMPLATE_BYTES_MAX;
use crate::model::record::RowFault;

/// What one record may cost: an instruction costs one, as do 64 bytes of text. A thousand times what a message needs, about
/// a millisecond.
const FUEL: u64 = 20_000;
/// The engine's name of the one template.
const NAME: &str = "content";

/// A compiled template.
pub struct Template {
    plan: Plan,
    /// Columns the template names, in the order of their names, with their places.
    variables: Arc<[(String, usize)]>,
    has_link: bool,
}

enum Plan {
    Simple(Vec<Piece>),
    Engine(Box<Environment<'static>>),
}

enum Piece {
    Text(String),
    /// A place in [`Template::variables`].
    Variable(usize),
}

impl Template {
    /// Compiles a batch's template for a list with these columns. A signature at its beginning is left out, since it is
    /// placed when a message is put together.
    ///
    /// # Errors
    /// [`Code::TemplateInvalid`] with the line; [`Code::TemplateUnknownColumn`] with the columns there are.
    pub fn compile(batch: &SmsBatch, columns: &[String]) -> Result<Template, Fault> {
        let content = without_signature(&batch.content, &batch.content_signature);
        if content.len() > TEMPLATE_BYTES_MAX {
            return Err(invalid(format!("the template has {} bytes; the most is {TEMPLATE_BYTES_MAX}", content.len())));
        }
        if content.trim().is_empty() {
            return Err(invalid("the template is empty"));
        }
        let link = batch.url.as_deref().filter(|_| batch.contains_url());
        let source = syntax::rewrite(content, link)?;
        syntax::check_depth(&source)?;
        let engine = engine(&source)?;
        let mut names: Vec<String> = match engine.get_template(NAME) {
            Ok(template) => template.undeclared_variables(false).into_iter().collect(),
            Err(error) => return Err(invalid(describe(&error))),
        };
        // The engine gives them in the order of a hash table.
        names.sort_unstable();
        let mut variables = vec![];
        for name in names {
            let place = named_column(&name, columns)?;
            variables.push((name, place));
        }
        let variables: Arc<[(String, usize)]> = variables.into();
        let plan = match simple(&source, &variables) {
            Some(pieces) => Plan::Simple(pieces),
            None => {
                // The engine looks filters up when it meets them: let it meet those it can before a record does.
                for trial in ["1", ""] {
                    let row = Row { fields: vec![trial.to_owned(); columns.len()], variables: Arc::clone(&variables) };
                    check_names(&engine, row)?;
                }
                Plan::Engine(Box::new(engine))
            }
        };
        Ok(Template { plan, variables, has_link: link.is_some() })
    }

    /// Whether a message has a link of its own at the place that [`render`](Template::render) gives.
    pub fn has_link(&self) -> bool {
        self.has_link
    }

    /// Whether a record may cost a thousand times what most do: it is more than text and variables.
    pub fn may_cost(&self) -> bool {
        matches!(self.plan, Plan::Engine(_))
    }

    /// The places of the columns that it names.
    pub fn places(&self) -> impl Iterator<Item = usize> {
        self.variables.iter().map(|(_, place)| *place)
    }

    /// Renders a record into `text` and gives the byte before which its link goes. `fields` come back as they were.
    ///
    /// # Errors
    /// [`Code::RowValueMissing`] when an empty cell is used, [`Code::RowRenderFailed`] when an expression fails.
    pub fn render(&self, fields: &mut Vec<String>, text: &mut String) -> Result<Option<u32>, RowFault> {
        text.clear();
        match &self.plan {
            Plan::Simple(pieces) => self.put_together(pieces, fields, text)?,
            Plan::Engine(engine) => *text = self.run(engine, fields)?,
        }
        if !self.has_link {
            return Ok(None);
        }
        // The link's place in the template holds a mark; a branch that was not taken leaves none.
        let Some(at) = text.find(LINK_MARK) else { return Ok(None) };
        text.replace_range(at..at + LINK_MARK.len_utf8(), "");
        if text[at..].contains(LINK_MARK) {
            return Err(RowFault { code: Code::RowRenderFailed, detail: "the link comes twice".into() });
        }
        let at = u32::try_from(at).map_err(|_| RowFault { code: Code::RowTextTooLong, detail: String::new() })?;
        Ok(Some(at))
    }

    fn put_together(&self, pieces: &[Piece], fields: &[String], text: &mut String) -> Result<(), RowFault> {
        for piece in pieces {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Variable(variable) => {
                    let (_, place) = &self.variables[*variable];
                    match value(fields, *place) {
                        Some(value) => text.push_str(value),
                        None => return Err(self.missing(fields)),
                    }
                }
            }
        }
        Ok(())
    }

    fn run(&self, engine: &Environment<'static>, fields: &mut Vec<String>) -> Result<String, RowFault> {
        let template = engine.get_template(NAME).map_err(|error| failed(&error))?;
        let row = Arc::new(Row { fields: std::mem::take(fields), variables: Arc::clone(&self.variables) });
        let rendered = template.render(Value::from_dyn_object(Arc::clone(&row)));
        *fields = match Arc::try_unwrap(row) {
            Ok(row) => row.fields,
            Err(shared) => shared.fields.clone(),
        };
        rendered.map_err(|error| match error.kind() {
            ErrorKind::UndefinedError => self.missing(fields),
            _ => failed(&error),
        })
    }

    fn missing(&self, fields: &[String]) -> RowFault {
        let empty = self.variables.iter().filter(|(_, place)| value(fields, *place).is_none());
        let names: Vec<String> = empty.map(|(name, _)| format!("{name:?}")).collect();
        RowFault { code: Code::RowValueMissing, detail: format!("nothing in {}", names.join(", ")) }
    }
}

/// A cell's value; blanks alone are none.
fn value(fields: &[String], place: usize) -> Option<&str> {
    fields.get(place).map(String::as_str).filter(|value| !value.trim().is_empty())
}

fn without_signature<'a>(content: &'a str, signature: &str) -> &'a str {
    let content = content.strip_suffix('\n').map_or(content, |line| line.strip_suffix('\r').unwrap_or(line));
    if signature.is_empty() {
        return content;
    }
    let inner = content.trim_start().strip_prefix('【').and_then(|rest| rest.strip_prefix(signature));
    inner.and_then(|rest| rest.strip_prefix('】')).unwrap_or(content)
}

fn engine(source: &str) -> Result<Environment<'static>, Fault> {
    let mut engine = Environment::new();
    let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
    engine.set_syntax(syntax.map_err(|error| Fault::new(Code::Internal, describe(&error)))?);
    engine.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    engine.set_fuel(Some(FUEL));
    let globals: Vec<String> = engine.globals().map(|(name, _)| name.to_owned()).collect();
    for global in globals {
        engine.remove_global(&global);
    }
    engine.add_template_owned(NAME, source.to_owned()).map_err(|error| invalid(describe(&error)))?;
    Ok(engine)
}

/// Whether all filters, tests and methods that a made-up record meets are known.
fn check_names(engine: &Environment<'static>, row: Row) -> Result<(), Fault> {
    let rendered = engine.get_template(NAME).and_then(|template| template.render(Value::from_object(row)));
    use ErrorKind::{UnknownFilter, UnknownFunction, UnknownMethod, UnknownTest};
    match rendered {
        Err(error) if matches!(error.kind(), UnknownFilter | UnknownFunction | UnknownMethod | UnknownTest) => {
            Err(invalid(describe(&error)))
        }
        _ => Ok(()),
    }
}

/// The pieces of a template that is text and plain variables, or `None` when it is more than that.
fn simple(source: &str, variables: &[(String, usize)]) -> Option<Vec<Piece>> {
    let mut pieces = vec![];
    for token in syntax::tokens(source) {
        match token {
            Token::Text(text) => pieces.push(Piece::Text(text.to_owned())),
            Token::Variable(tag) => {
                let name = tag.strip_prefix("{{")?.strip_suffix("}}")?.trim();
                pieces.push(Piece::Variable(variables.iter().position(|(variable, _)| variable == name)?));
            }
            Token::Raw(_) | Token::Dollar(_) | Token::Other(_) => return None,
        }
    }
    Some(pieces)
}

/// A record as the engine sees it.
#[derive(Debug)]
struct Row {
    fields: Vec<String>,
    variables: Arc<[(String, usize)]>,
}

impl Object for Row {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        let (_, place) = self.variables.iter().find(|(name, _)| name == key)?;
        value(&self.fields, *place).map(Value::from)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }
}

fn invalid(context: impl Into<String>) -> Fault {
    Fault::new(Code::TemplateInvalid, context)
}

/// What is wrong with a template: it holds no record's values.
fn describe(error: &minijinja::Error) -> String {
    let line = error.line().map_or_else(String::new, |line| format!("line {line}: "));
    format!("{line}{}{}", error.kind(), error.detail().map_or_else(String::new, |detail| format!(", {detail:.200}")))
}

/// Why a record's expression failed. The engine's own detail may quote the record's values and stays out.
fn failed(error: &minijinja::Error) -> RowFault {
    let line = error.line().map_or_else(String::new, |line| format!(" in line {line} of the template"));
    RowFault { code: Code::RowRenderFailed, detail: format!("{}{line}", error.kind()) }
}

#[cfg(test)]
mod tests {
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
        ];
        for (content, cells, expected) in cases {
            let template = Template::compile(&with(content, None), &columns()).expect(content);
            let found = rendered(&template, cells).map(|(text, _)| text).map_err(|fault| fault.code);
            assert_eq!(found.as_deref(), expected.as_ref().copied(), "{content}");
        }
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
                    // A value cannot be called; all other shapes are templates.
                    let may_fail = times > 2 || content.contains("()");
                    assert!(may_fail || Template::compile(&with(content, None), &columns()).is_ok(), "{content}");
                }
            }
        });
        tried.expect("a thread").join().expect("nothing panics");
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
        assert_eq!(
            (fault.code, fault.context.as_str()),
            (Code::TemplateInvalid, "line 2: a tag has more than 500 words and signs")
        );
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
        let around =
            |open: &str, close: &str, times: usize| format!("{{{{ {}name{} }}}}", open.repeat(times), close.repeat(times));
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
}
