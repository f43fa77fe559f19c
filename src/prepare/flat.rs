//! Lists in templates hold texts and numbers, and nothing else.
//!
//! The engine charges a template for what it makes, but a list that holds another four times costs four places, and that one
//! again: after sixty steps its text would fill any memory, and it is charged only when it is printed. So no list gets into
//! another: here by what may be written, in `template` by the filters there are.

/// Filters that put lists, or anything that is given to them, into lists.
pub const NESTING: [&str; 10] =
    ["batch", "slice", "groupby", "map", "items", "dictsort", "zip", "chain", "selectattr", "rejectattr"];

/// Words behind which an expression begins.
const OPERATORS: [&str; 14] =
    ["in", "and", "or", "not", "is", "if", "else", "elif", "for", "set", "with", "filter", "recursive", "do"];
/// Words that are constants.
const CONSTANTS: [&str; 6] = ["true", "false", "none", "True", "False", "None"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    /// A list, or a map.
    List,
    /// The place of something within a list or a text.
    Place,
    /// What is given to a filter or a test.
    Call,
    /// An expression within another.
    Group,
}

/// Whether the lists that a tag makes hold texts and numbers alone. `inner` is what stands between its braces.
pub fn is_flat(inner: &str) -> bool {
    let (mut open, mut behind_value) = (Vec::new(), false);
    let mut rest = inner.trim_start_matches(['-', '+']);
    while let Some(c) = rest.chars().next() {
        let in_list = open.last() == Some(&Open::List);
        let length = match c {
            '"' | '\'' => {
                behind_value = true;
                quoted(rest, c)
            }
            _ if is_of_word(c) => {
                let length = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
                let word = &rest[..length];
                if in_list && !c.is_ascii_digit() && !CONSTANTS.contains(&word) {
                    return false;
                }
                behind_value = !OPERATORS.contains(&word);
                length
            }
            '[' | '{' | '(' => {
                if in_list {
                    return false;
                }
                open.push(match (c, behind_value) {
                    ('[', true) => Open::Place,
                    ('(', true) => Open::Call,
                    ('(', false) => Open::Group,
                    _ => Open::List,
                });
                behind_value = false;
                1
            }
            ']' | '}' | ')' => {
                open.pop();
                behind_value = true;
                1
            }
            // Values with a comma between them are a list, also without brackets.
            ',' if !matches!(open.last(), Some(Open::List | Open::Call)) => return false,
            // What is a letter to the engine need not be one here.
            _ if in_list && !(c.is_whitespace() || matches!(c, ',' | ':' | '.' | '-' | '+')) => return false,
            _ => {
                behind_value = behind_value && c.is_whitespace();
                c.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    true
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Bytes of a text in quotes; of one that is never closed, all that is left.
fn quoted(rest: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_holds_texts_and_numbers_and_nothing_else() {
        for good in [
            "name",
            " if city in ['A', \"b's, [x]\", 3] ",
            "if not (a and b) or c is divisibleby(3)",
            "name|default('a, b') ~ x|replace('a', b)",
            "name[0] ~ name[i] ~ name[1:3]",
            "{'m': 'Mr', 'f': 'Ms'}[sex]",
            "[1, -2.5, true, none]|join(', ')",
            "'it\\'s, [a, a]'",
            "- for x in list ",
            "a.b(c, d)",
            "价格",
        ] {
            assert!(is_flat(good), "{good}");
        }
        for bad in [
            "set a = [a, a]",
            "set a = a, a",
            "set a = (a, a)",
            "set a = [[1], [2]]",
            "set a = ([1])[0], 2",
            "set a = {'x': a}",
            "set a = [(a)]",
            "set a = ['x', a|upper]",
            "for k, v in x",
            "a in (b, c)",
            "if [a]",
            "name|join([a])",
            "a[0, b]",
            "not [a]",
            "set \u{2118} = [\u{2118}, \u{2118}]",
            "set a = [1|f]",
        ] {
            assert!(!is_flat(bad), "{bad}");
        }
    }
}
