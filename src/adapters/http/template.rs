//! Texts with `{{name}}` in them, and how values are escaped when they are put there.

use crate::model::code::{Code, Fault};
use crate::ports::provider::Submit;

/// How values are escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// Inside a JSON string (RFC 8259, 7).
    Json,
    /// By percent signs, in URLs and forms.
    Percent,
    /// By entities, in XML.
    Xml,
    /// Not at all.
    Plain,
}

impl Escape {
    /// The escaping of a kind of body.
    pub fn of_content(content_type: &str) -> Escape {
        let kind = content_type.to_ascii_lowercase();
        if kind.contains("json") {
            Escape::Json
        } else if kind.contains("form-urlencoded") {
            Escape::Percent
        } else if kind.contains("xml") {
            Escape::Xml
        } else {
            Escape::Plain
        }
    }
}

/// A template, checked once.
#[derive(Clone, Debug)]
pub struct Template {
    pieces: Vec<Piece>,
    escape: Escape,
}

#[derive(Clone, Debug)]
enum Piece {
    Literal(String),
    Name(Name),
}

/// What can stand in a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// The recipient's number.
    Number,
    /// The text.
    Text,
    /// The key.
    Key,
    /// The sender.
    Sender,
    /// The digits behind it.
    ExtCode,
    /// The batch.
    Batch,
    /// The configured secret.
    Secret,
    /// The messages of a request with several.
    Items,
}

const NAMES: [(&str, Name); 8] = [
    ("number", Name::Number),
    ("text", Name::Text),
    ("key", Name::Key),
    ("sender", Name::Sender),
    ("ext_code", Name::ExtCode),
    ("batch", Name::Batch),
    ("secret", Name::Secret),
    ("items", Name::Items),
];

/// What the names stand for. A request with several messages has no message of its own.
pub struct Values<'a> {
    /// The message, if it is one.
    pub message: Option<&'a Submit>,
    /// The key of the message or the request.
    pub key: &'a str,
    /// The account's sender.
    pub sender: &'a str,
    /// The account's secret.
    pub secret: &'a str,
    /// The messages, already put together.
    pub items: &'a str,
}

impl Template {
    /// Reads a template. Refuses names that nothing stands for; `what` is named in the fault.
    pub fn read(text: &str, escape: Escape, what: &str) -> Result<Template, Fault> {
        let refuse = |why: String| Fault::new(Code::ConfigInvalid, format!("http account: {what}: {why}"));
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, after) = after.split_once("}}").ok_or_else(|| refuse("a {{ is never closed".into()))?;
            let known = NAMES.iter().find(|(known, _)| *known == name.trim());
            let (_, name) = known.ok_or_else(|| refuse(format!("nothing is called {:?}", name.trim())))?;
            pieces.push(Piece::Literal(before.to_owned()));
            pieces.push(Piece::Name(*name));
            rest = after;
        }
        pieces.push(Piece::Literal(rest.to_owned()));
        Ok(Template { pieces, escape })
    }

    /// Whether a name stands in it.
    pub fn has(&self, wanted: Name) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Name(name) if *name == wanted))
    }

    /// The text with the values in place.
    pub fn fill(&self, values: &Values<'_>) -> String {
        let mut out = String::with_capacity(256);
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                // They were escaped one by one.
                Piece::Name(Name::Items) => out.push_str(values.items),
                Piece::Name(name) => escape(&value(*name, values), self.escape, &mut out),
            }
        }
        out
    }
}

fn value(name: Name, values: &Values<'_>) -> String {
    let of_message = |get: &dyn Fn(&Submit) -> String| values.message.map(get).unwrap_or_default();
    match name {
        Name::Number => of_message(&|message| message.number.digits()),
        Name::Text => of_message(&|message| message.text.clone()),
        Name::ExtCode => of_message(&|message| message.ext_code.clone()),
        Name::Sender => format!("{}{}", values.sender, of_message(&|message| message.ext_code.clone())),
        Name::Key => values.key.to_owned(),
        Name::Batch => values.key.split('-').next().unwrap_or_default().to_owned(),
        Name::Secret => values.secret.to_owned(),
        Name::Items => values.items.to_owned(),
    }
}

fn escape(value: &str, escape: Escape, out: &mut String) {
    match escape {
        Escape::Plain => out.push_str(value),
        Escape::Json => {
            let quoted = serde_json::Value::from(value).to_string();
            out.push_str(&quoted[1..quoted.len() - 1]);
        }
        Escape::Percent => {
            for octet in value.bytes() {
                match octet {
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(octet)),
                    _ => out.push_str(&format!("%{octet:02X}")),
                }
            }
        }
        Escape::Xml => {
            for character in value.chars() {
                match character {
                    '&' => out.push_str("&amp;"),
                    '<' => out.push_str("&lt;"),
                    '>' => out.push_str("&gt;"),
                    '"' => out.push_str("&quot;"),
                    '\'' => out.push_str("&apos;"),
                    _ => out.push(character),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::Msisdn;

    fn message(text: &str) -> Submit {
        Submit {
            seq: 0,
            number: Msisdn(4_915_112_345_678),
            ext_code: "007".into(),
            text: text.into(),
            parts: 0,
            reference: 0,
            key: "batch1-3-4".into(),
        }
    }

    fn filled(template: &str, escape: Escape, text: &str) -> String {
        let message = message(text);
        let values = Values { message: Some(&message), key: &message.key, sender: "1069", secret: "s", items: "" };
        Template::read(template, escape, "body").expect("it is valid").fill(&values)
    }

    #[test]
    fn values_are_put_in_place_and_cannot_break_out() {
        let nasty = "\"a\" & <b>\n{{secret}}短";
        let cases = [
            (Escape::Json, r#"\"a\" & <b>\n{{secret}}短"#),
            (Escape::Percent, "%22a%22%20%26%20%3Cb%3E%0A%7B%7Bsecret%7D%7D%E7%9F%AD"),
            (Escape::Xml, "&quot;a&quot; &amp; &lt;b&gt;\n{{secret}}短"),
            (Escape::Plain, nasty),
        ];
        for (escape, expected) in cases {
            assert_eq!(filled("[{{ text }}]", escape, nasty), format!("[{expected}]"), "{escape:?}");
        }
        let all = "{{number}} {{sender}} {{ext_code}} {{key}} {{batch}} {{secret}}";
        assert_eq!(filled(all, Escape::Plain, ""), "4915112345678 1069007 007 batch1-3-4 batch1 s");
    }

    #[test]
    fn mistakes_are_found_before_anything_is_sent() {
        for text in ["{{nmber}}", "{{text", "{{}}"] {
            assert_eq!(Template::read(text, Escape::Plain, "body").map_err(|fault| fault.code).err(), Some(Code::ConfigInvalid));
        }
    }

    proptest::proptest! {
        #[test]
        fn what_goes_into_json_comes_out(text in "\\PC{0,40}|[\\x00-\\x7f]{0,20}") {
            let json = filled(r#"{"t":"{{text}}"}"#, Escape::Json, &text);
            let read: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
            assert_eq!(read["t"].as_str(), Some(text.as_str()));
        }
    }
}
