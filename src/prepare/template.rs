//! Templates: compiled once for a range, then rendered for each record.
//!
//! The language is minijinja's, with `${name}` accepted for `{{name}}`; macros, includes and functions are left out. Fuel
//! bounds what one record may cost, and what would take the engine too deep, or puts lists into lists, is refused
//! ([`syntax::check_tags`]). Variables are columns of the list. An empty cell is undefined: a plain `{{name}}` then refuses the record, `{{ name | default("friend") }}`,
//! `{{ name or "friend" }}` and `{% if name %}` handle it.
//!
//! Most templates are text with plain variables. These are put together without the engine; a property test holds both ways
//! to the same texts.

use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Enumerator, Object, Value};
use minijinja::{Environment, ErrorKind, UndefinedBehavior};

use super::column::named_column;
use super::flat::NESTING;
use super::syntax::{self, LINK_MARK, Token};
use crate::model::batch::SmsBatch;
use crate::model::code::{Code, Fault};
use crate::model::limits::{TEMPLATE_BYTES_MAX, TEXT_CHARS_MAX};
use crate::model::record::RowFault;

/// What one record may cost: an instruction costs one, as do 64 bytes of text. A thousand times what a message needs, about
/// a millisecond.
const FUEL: u64 = 20_000;
/// A rendered text of more bytes has more than [`TEXT_CHARS_MAX`] characters, of which none has more than four, whatever it has
/// beside them (the mark of the link).
const BYTES_MAX: usize = 4 * TEXT_CHARS_MAX + LINK_MARK.len_utf8();
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
        syntax::check_tags(&source)?;
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
    /// [`Code::RowValueMissing`] when an empty cell is used, [`Code::RowRenderFailed`] when an expression fails,
    /// [`Code::RowTextTooLong`] for what no message can be; a little above its length the caller has to look.
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

    /// No fuel is spent here: what bounds a record is that no message is longer than [`BYTES_MAX`].
    fn put_together(&self, pieces: &[Piece], fields: &[String], text: &mut String) -> Result<(), RowFault> {
        for piece in pieces {
            let piece = match piece {
                Piece::Text(piece) => piece,
                Piece::Variable(variable) => {
                    let (_, place) = &self.variables[*variable];
                    value(fields, *place).ok_or_else(|| self.missing(fields))?
                }
            };
            if text.len() + piece.len() > BYTES_MAX {
                return Err(self.too_long(fields));
            }
            text.push_str(piece);
        }
        Ok(())
    }

    /// The fault of a text that was given up on its way: an empty cell behind that place is named all the same.
    fn too_long(&self, fields: &[String]) -> RowFault {
        if self.variables.iter().any(|(_, place)| value(fields, *place).is_none()) {
            return self.missing(fields);
        }
        RowFault { code: Code::RowTextTooLong, detail: format!("the text has more than {TEXT_CHARS_MAX} characters") }
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
    NESTING.iter().for_each(|filter| engine.remove_filter(filter));
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
#[path = "template_tests.rs"]
mod tests;
