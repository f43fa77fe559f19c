//! CSV that a spreadsheet can be trusted with: quoted where needed (RFC 4180), and never a formula.

/// Appends one field. A text that a spreadsheet would calculate (it begins with `=`, `+`, `-`, `@`, a tab or a carriage
/// return) gets an apostrophe in front; a plain number with its sign stays as it is.
pub fn field(line: &mut String, text: &str) {
    if !line.is_empty() && !line.ends_with('\n') {
        line.push(',');
    }
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']) && !is_signed_number(text);
    let quoted = text.contains([',', '"', '\n', '\r']) || text.is_empty() && (line.is_empty() || line.ends_with('\n'));
    if quoted {
        line.push('"');
    }
    if formula {
        line.push('\'');
    }
    for character in text.chars() {
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
    text.len() > 1 && text[1..].bytes().all(|b| b.is_ascii_digit()) && text.starts_with(['+', '-'])
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
            ("\t=1", "'\t=1"),
            ("\r=1", "\"'\r=1\""),
            ("a,\"b\"\n", "\"a,\"\"b\"\"\n\""),
            ("=HYPERLINK(\"x\")", "\"'=HYPERLINK(\"\"x\"\")\""),
            ("", "\"\""),
            ("+", "'+"),
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
