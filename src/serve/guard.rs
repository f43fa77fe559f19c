//! CSV that a spreadsheet can be trusted with: quoted where needed (RFC 4180), and never a formula.

/// Appends one field. A text that a spreadsheet would calculate (it begins with `=`, `+`, `-`, `@`, one of their full-width forms,
/// a tab or the end of a line) gets an apostrophe in front; a plain number with its sign stays as it is. The same goes for what
/// stands behind a semicolon, a tab or the end of a line: where those separate cells, as in half of the world's spreadsheets, our
/// quotes are no quotes, and a cell of its own begins there.
pub fn field(line: &mut String, text: &str) {
    if !line.is_empty() && !line.ends_with('\n') {
        line.push(',');
    }
    let quoted = text.contains([',', '"', '\n', '\r']) || text.is_empty() && (line.is_empty() || line.ends_with('\n'));
    if quoted {
        line.push('"');
    }
    if text.starts_with(['\t', '\r', '\n', '\0']) {
        line.push('\'');
    }
    let mut cell_begins = !is_signed_number(text);
    for character in text.chars() {
        if cell_begins && matches!(character, '=' | '+' | '-' | '@' | '＝' | '＋' | '－' | '＠') {
            line.push('\'');
        }
        cell_begins = match character {
            ';' | '\t' | '\r' | '\n' => true,
            // Passed over by some.
            ' ' | '"' => cell_begins,
            _ => false,
        };
        if character == '"' {
            line.push('"');
        }
        line.push(character);
    }
    if quoted {
        line.push('"');
    }
}

/// Appends a whole line.
pub fn line<'a>(into: &mut String, fields: impl IntoIterator<Item = &'a str>) {
    for text in fields {
        field(into, text);
    }
    into.push_str("\r\n");
}

fn is_signed_number(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_is_a_formula() {
        let cases = [
            ("plain", "plain"),
            ("+8613800138000", "+8613800138000"),
            ("-5", "-5"),
            ("=1+1", "'=1+1"),
            ("+1+cmd|' /C calc'!A0", "'+1+cmd|' /C calc'!A0"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t'=1"),
            ("\r=1", "\"'\r'=1\""),
            ("a,\"b\"\n", "\"a,\"\"b\"\"\n\""),
            ("=HYPERLINK(\"x\")", "\"'=HYPERLINK(\"\"x\"\")\""),
            ("", "\"\""),
            ("+", "'+"),
            ("\n=1", "\"'\n'=1\""),
            ("＝1+1", "'＝1+1"),
            ("＠SUM(A1)", "'＠SUM(A1)"),
            ("Hi;=1+1", "Hi;'=1+1"),
            ("Hi; @A1;a=b-c", "Hi; '@A1;a=b-c"),
            ("Hi;\"=1+1", "\"Hi;\"\"'=1+1\""),
            ("Hi\t-1", "Hi\t'-1"),
            ("Hi\r\n+1", "\"Hi\r\n'+1\""),
            ("a, b = c; d", "\"a, b = c; d\""),
        ];
        for (text, expected) in cases {
            let mut written = String::new();
            field(&mut written, text);
            assert_eq!(written, expected, "{text:?}");
        }
    }

    #[test]
    fn lines_are_separated_and_fields_counted() {
        let mut written = String::new();
        line(&mut written, ["a", "", "c"]);
        line(&mut written, ["", "x", "-"]);
        assert_eq!(written, "a,,c\r\n\"\",x,'-\r\n");
    }
}
