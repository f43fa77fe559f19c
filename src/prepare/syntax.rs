//! The text of a template before it is compiled: `${name}` becomes `{{name}}`, and the one place of the link becomes a mark.

use super::flat::is_flat;
use crate::model::code::{Code, Fault};
use crate::model::text::beginning;

/// Stands where the link goes. A noncharacter (Unicode, 23.7): no text that is meant for people holds it.
pub const LINK_MARK: char = '\u{fdd0}';

// The engine goes down once for each sign that stands before another, for each branch, and for each value that lies in another
// when it is written, on a stack that has a bottom: a process that finds it is gone, whatever else it was doing. Measured: of any
// of these a thousand and more are fine on a stack of one megabyte.

/// Words and signs in one tag at most, a text in quotes being one.
const PIECES_MAX: usize = 500;
/// `{% … %}` in one template at most: each `elif` and each `set` may go down once more.
const STATEMENTS_MAX: usize = 400;
/// Opening brackets and filters in all tags of one template at most: what may put a value into another.
const WRAPS_MAX: usize = 600;

/// A piece of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// Text that stays as it is.
    Text(&'a str),
    /// `{{ … }}`
    Variable(&'a str),
    /// What stands between `{% raw %}` and `{% endraw %}`.
    Raw(&'a str),
    /// `${…}`
    Dollar(&'a str),
    /// `{% … %}` or `{# … #}`.
    Other(&'a str),
}

/// The pieces of a template, in order. A tag that is never closed reaches to the end; the engine then says so.
pub fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = vec![];
    let mut rest = source;
    while let Some(at) = next_opening(rest) {
        if at > 0 {
            tokens.push(Token::Text(&rest[..at]));
        }
        let (tag, behind) = match &rest.as_bytes()[at..at + 2] {
            b"{{" => {
                let (tag, behind) = closed(&rest[at..], "}}", true);
                (Token::Variable(tag), behind)
            }
            b"{%" => {
                let (tag, behind) = closed(&rest[at..], "%}", true);
                (Token::Other(tag), behind)
            }
            b"{#" => {
                let (tag, behind) = closed(&rest[at..], "#}", false);
                (Token::Other(tag), behind)
            }
            _ => {
                let (tag, behind) = closed(&rest[at..], "}", false);
                (Token::Dollar(tag), behind)
            }
        };
        tokens.push(tag);
        rest = behind;
        if let Token::Other(tag) = tag
            && word(tag) == "raw"
        {
            let end = end_of_raw(rest);
            tokens.push(Token::Raw(&rest[..end]));
            rest = &rest[end..];
        }
    }
    if !rest.is_empty() {
        tokens.push(Token::Text(rest));
    }
    tokens
}

/// The template as the engine reads it. With `link`, its one place (the link itself, `{{url}}` or `${url}`) holds
/// [`LINK_MARK`].
///
/// # Errors
/// [`Code::TemplateInvalid`] when `${…}` holds no name, or the link has no place, or more than one.
pub fn rewrite(source: &str, link: Option<&str>) -> Result<String, Fault> {
    if link.is_some() && source.contains(LINK_MARK) {
        return Err(invalid("the template holds the noncharacter U+FDD0".into()));
    }
    let mut written = String::with_capacity(source.len() + 16);
    let mut line = 1;
    for token in tokens(source) {
        let piece = match token {
            Token::Text(text) | Token::Raw(text) => {
                match link {
                    Some(link) => with_marks(text, link, &mut written),
                    None => written.push_str(text),
                }
                text
            }
            Token::Variable(tag) => {
                let inner = tag.strip_prefix("{{").and_then(|tag| tag.strip_suffix("}}"));
                match inner.map(str::trim) {
                    Some("url") if link.is_some() => written.push(LINK_MARK),
                    _ => written.push_str(tag),
                }
                tag
            }
            Token::Dollar(tag) => {
                match tag.strip_prefix("${").and_then(|tag| tag.strip_suffix('}')).unwrap_or_default().trim() {
                    "url" if link.is_some() => written.push(LINK_MARK),
                    name if is_name(name) => {
                        written.push_str("{{");
                        written.push_str(name);
                        written.push_str("}}");
                    }
                    _ => {
                        let shown = beginning(tag, 40);
                        return Err(invalid(format!("line {line}: {shown:?} holds no name of a column")));
                    }
                }
                tag
            }
            Token::Other(tag) => {
                written.push_str(tag);
                tag
            }
        };
        line += piece.matches('\n').count();
    }
    match (link, written.matches(LINK_MARK).count()) {
        (None, _) | (Some(_), 1) => Ok(written),
        (Some(_), 0) => Err(invalid("the link stands where no short link can be put".into())),
        (Some(_), count) => Err(invalid(format!("the template has {count} places for the link; a message takes one"))),
    }
}

/// Refuses a template that takes the engine deeper than its stack may reach, or that puts lists into lists.
///
/// # Errors
/// [`Code::TemplateInvalid`] with the line.
pub fn check_tags(source: &str) -> Result<(), Fault> {
    let (mut line, mut statements, mut wraps) = (1, 0, 0);
    for token in tokens(source) {
        let refuse = |what: String| Err(invalid(format!("line {line}: {what}")));
        let piece = match token {
            Token::Text(piece) | Token::Raw(piece) | Token::Dollar(piece) => piece,
            Token::Variable(piece) | Token::Other(piece) => {
                if !piece.starts_with("{#") {
                    let found = signs(piece);
                    statements += usize::from(piece.starts_with("{%"));
                    wraps += found.wraps;
                    if found.pieces > PIECES_MAX {
                        return refuse(format!("a tag has more than {PIECES_MAX} words and signs"));
                    }
                    if found.calls_itself {
                        return refuse("a loop that calls itself has no place in a message".into());
                    }
                    if !is_flat(piece.get(2..piece.len().saturating_sub(2)).unwrap_or_default()) {
                        return refuse("a list holds texts and numbers, each written out, and nothing else".into());
                    }
                }
                piece
            }
        };
        if statements > STATEMENTS_MAX {
            return refuse(format!("the template has more than {STATEMENTS_MAX} tags with %"));
        }
        if wraps > WRAPS_MAX {
            return refuse(format!("the tags have more than {WRAPS_MAX} brackets and filters"));
        }
        line += piece.matches('\n').count();
    }
    Ok(())
}

/// What a tag is made of.
struct Signs {
    /// Words and signs.
    pieces: usize,
    /// Opening brackets and filters.
    wraps: usize,
    /// Whether it is `{% for … recursive %}`.
    calls_itself: bool,
}

fn signs(tag: &str) -> Signs {
    let (mut pieces, mut wraps, mut quote, mut at) = (0, 0, None, 0);
    // The last two words; a list may be called `recursive`.
    let mut words = ("", "");
    let bytes = tag.as_bytes();
    let is_of_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || !byte.is_ascii();
    while let Some(&byte) = bytes.get(at) {
        match (quote, byte) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if open == byte => quote = None,
            (Some(_), _) => {}
            (None, _) if byte.is_ascii_whitespace() => {}
            (None, _) => {
                pieces += 1;
                quote = Some(byte).filter(|byte| matches!(byte, b'"' | b'\''));
                // The brackets of the tag itself are no such.
                wraps += usize::from(matches!(byte, b'(' | b'[' | b'{' | b'|') && at >= 2);
                // Counted only here: a long text in quotes would be gone through again from each of its bytes.
                let length = bytes[at..].iter().take_while(|byte| is_of_word(byte)).count();
                if length > 0 {
                    words = (words.1, &tag[at..at + length]);
                    at += length - 1;
                }
            }
        }
        at += 1;
    }
    let calls_itself = tag.starts_with("{%") && word(tag) == "for" && words.1 == "recursive" && words.0 != "in";
    Signs { pieces, wraps, calls_itself }
}

/// Where the next tag begins. A dollar sign before a tag (`${{price}}`) is a price.
fn next_opening(rest: &str) -> Option<usize> {
    let bytes = rest.as_bytes();
    (0..bytes.len().saturating_sub(1)).find(|&at| match (bytes[at], bytes[at + 1]) {
        (b'{', b'{' | b'%' | b'#') => true,
        (b'$', b'{') => !matches!(bytes.get(at + 2), Some(b'{' | b'%' | b'#')),
        _ => false,
    })
}

/// A tag up to its end, and what is behind it. Where there may be quotes, there may be brackets, and the end of a tag inside
/// either is none.
fn closed<'a>(tag: &'a str, end: &str, quotes: bool) -> (&'a str, &'a str) {
    let (mut quote, mut open_brackets) = (None, 0isize);
    let bytes = tag.as_bytes();
    let mut at = 2;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if open == byte => quote = None,
            (None, byte @ (b'"' | b'\'')) if quotes => quote = Some(byte),
            (None, _) if open_brackets == 0 && bytes[at..].starts_with(end.as_bytes()) => return tag.split_at(at + end.len()),
            (None, b'(' | b'[' | b'{') if quotes => open_brackets += 1,
            (None, b')' | b']' | b'}') if quotes => open_brackets -= 1,
            _ => {}
        }
        at += 1;
    }
    (tag, "")
}

/// The first word of a `{% … %}`.
fn word(tag: &str) -> &str {
    let inner = tag.strip_prefix("{%").unwrap_or_default();
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner).trim_start();
    &inner[..inner.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(inner.len())]
}

fn end_of_raw(rest: &str) -> usize {
    let ends = rest.match_indices("{%").find(|(at, _)| word(&rest[*at..]) == "endraw");
    ends.map_or(rest.len(), |(at, _)| at)
}

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c == '_' || c.is_alphabetic()) && chars.all(|c| c == '_' || c.is_alphanumeric())
}

/// Appends `text` with a mark for each link in it. A longer link that begins like it is another link.
fn with_marks(text: &str, link: &str, written: &mut String) {
    let mut rest = text;
    while let Some(at) = rest.find(link) {
        let behind = &rest[at + link.len()..];
        written.push_str(&rest[..at]);
        let goes_on = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '%' | '=' | '&');
        if behind.starts_with(goes_on) {
            written.push_str(link);
        } else {
            written.push(LINK_MARK);
        }
        rest = behind;
    }
    written.push_str(rest);
}

fn invalid(context: String) -> Fault {
    Fault::new(Code::TemplateInvalid, context)
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://shop.example/sale";

    #[test]
    fn dollars_become_variables_outside_of_tags() {
        let cases = [
            ("Hi ${name}!", "Hi {{name}}!"),
            ("${ 姓名 }，您好", "{{姓名}}，您好"),
            ("only ${{price}} or $5 or {x}", "only ${{price}} or $5 or {x}"),
            ("{{ '${name}' }}${name}", "{{ '${name}' }}{{name}}"),
            ("{{ \"}} ${a}\" }}", "{{ \"}} ${a}\" }}"),
            ("{% if a %}${b}{% endif %}", "{% if a %}{{b}}{% endif %}"),
            ("{# ${a} #}${b}", "{# ${a} #}{{b}}"),
            ("{%- raw -%}${a}{{b}}{%- endraw %}${c}", "{%- raw -%}${a}{{b}}{%- endraw %}{{c}}"),
            ("{{ never closed ${a}", "{{ never closed ${a}"),
            ("$", "$"),
        ];
        for (source, expected) in cases {
            assert_eq!(rewrite(source, None).as_deref(), Ok(expected), "{source}");
        }
    }

    #[test]
    fn a_dollar_without_a_name_is_refused_with_its_line() {
        for (source, words) in [("a\n${first name}", "line 2"), ("${}", "line 1"), ("{{a}}\n\n${1a}", "line 3"), ("${a", "${a")] {
            let fault = rewrite(source, None).expect_err(source);
            assert!(fault.code == Code::TemplateInvalid && fault.context.contains(words), "{fault}");
        }
    }

    #[test]
    fn the_link_has_one_place() {
        let cases = [
            ("go {{ url }} now", Ok("go \u{fdd0} now")),
            ("go ${url}", Ok("go \u{fdd0}")),
            ("go https://shop.example/sale.", Ok("go \u{fdd0}.")),
            ("见https://shop.example/sale，回T退订", Ok("见\u{fdd0}，回T退订")),
            ("https://shop.example/sale/2 {{url}}", Ok("https://shop.example/sale/2 \u{fdd0}")),
            ("{% if a %}{{url}}{% endif %}", Ok("{% if a %}\u{fdd0}{% endif %}")),
            ("{{url}} {{url}}", Err("2 places")),
            ("{{url}} https://shop.example/sale", Err("2 places")),
            ("{{ \"https://shop.example/sale\" }}", Err("no short link")),
            ("https://shop.example/sales", Err("no short link")),
            ("{{url}}\u{fdd0}", Err("U+FDD0")),
        ];
        for (source, expected) in cases {
            match (rewrite(source, Some(URL)), expected) {
                (Ok(written), Ok(expected)) => assert_eq!(written, expected, "{source}"),
                (Err(fault), Err(words)) => assert!(fault.context.contains(words), "{source}: {fault}"),
                (found, _) => panic!("{source}: {found:?}"),
            }
        }
    }

    /// A text in quotes is one piece, however long. Gone through from each of its bytes, this one would take hours.
    #[test]
    fn a_long_text_in_quotes_is_gone_through_once() {
        let long = "a".repeat(2_000_000);
        for source in [format!("{{{{ \"{long}\" }}}}"), format!("{{{{ '{long}' ~ {long} }}}}"), format!("{{{{ \"{long}")] {
            assert_eq!(check_tags(&source), Ok(()));
        }
        let many = format!("{{{{ {} }}}}", "'a' ~ ".repeat(PIECES_MAX));
        assert!(check_tags(&many).is_err_and(|fault| fault.context.contains("words and signs")));
    }
}
