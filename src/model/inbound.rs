//! Messages that people send to us, and what they want by them.

use serde::{Deserialize, Serialize};

use super::id::Msisdn;
use super::time::Timestamp;

/// A message from a person, as an account passed it on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inbound {
    /// Who sent it, as the account has it: a number, mostly in E.164 (personal data).
    pub from: String,
    /// The number it was sent to: the account's own, with the `ext_code` of what it answers behind it.
    pub to: String,
    /// What it says (personal data).
    pub text: String,
    /// The account's own id of it; empty when it has none.
    pub id: String,
    /// When it came in.
    pub received: Timestamp,
}

/// How an account's inbound messages are understood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptOutRules {
    /// Messages that mean "send me nothing more". A message is one of them when it says nothing else.
    pub words: Vec<String>,
    /// Messages that take that back.
    pub opt_in_words: Vec<String>,
    /// Digits put before senders, and numbers in receipts, that come without them, such as "86" from an account that passes on
    /// national numbers; empty when numbers come whole.
    pub country_code: String,
}

impl Default for OptOutRules {
    fn default() -> OptOutRules {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        OptOutRules { words: owned(OPT_OUT), opt_in_words: owned(OPT_IN), country_code: String::new() }
    }
}

/// Words that carriers want understood (CTIA's list), and those of Chinese practice.
const OPT_OUT: &[&str] =
    &["STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT", "TD", "T", "R", "N", "退订", "拒收"];
const OPT_IN: &[&str] = &["START", "UNSTOP"];

/// What a person wants by a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// Nothing more.
    OptOut,
    /// Messages again.
    OptIn,
    /// Something else.
    #[default]
    None,
}

impl Intent {
    /// The name that people and other programs see.
    pub fn name(self) -> &'static str {
        match self {
            Intent::OptOut => "opt_out",
            Intent::OptIn => "opt_in",
            Intent::None => "none",
        }
    }
}

/// What a message asks for. The whole of it has to be one of the words: "please stop by at noon" asks for nothing. Case, width
/// of the letters, blanks around it and punctuation behind it do not count.
pub fn intent(text: &str, rules: &OptOutRules) -> Intent {
    let said = folded(text);
    let is_one_of = |words: &[String]| !said.is_empty() && words.iter().any(|word| folded(word) == said);
    if is_one_of(&rules.words) {
        Intent::OptOut
    } else if is_one_of(&rules.opt_in_words) {
        Intent::OptIn
    } else {
        Intent::None
    }
}

/// Characters of a message that are looked at: no word is longer, and a long message is none.
const LOOKED_AT: usize = 64;

fn folded(text: &str) -> String {
    let narrow = |character: char| match character {
        // Full-width forms of ASCII stand in the same order (Unicode, block "Halfwidth and Fullwidth Forms").
        '\u{FF01}'..='\u{FF5E}' => char::from_u32(character as u32 - 0xFEE0).unwrap_or(character),
        '\u{3000}' => ' ',
        other => other,
    };
    // Marks that nobody sees come with some keyboards and gateways.
    let invisible = |c: &char| matches!(c, '\u{200B}'..='\u{200F}' | '\u{2060}' | '\u{FEFF}' | '\u{FE0F}' | '\0');
    let all: String =
        text.trim().chars().take(LOOKED_AT + 1).filter(|c| !invisible(c)).flat_map(|c| narrow(c).to_lowercase()).collect();
    if all.chars().count() > LOOKED_AT {
        return String::new();
    }
    let opened = all.trim_start_matches(|c: char| c.is_whitespace() || "\"'“”‘’「『【<([*".contains(c));
    opened.trim_end_matches(|c: char| !c.is_alphanumeric()).to_owned()
}

/// The number of a sender in E.164; `None` for a name or a short code.
pub fn number_of(from: &str, rules: &OptOutRules) -> Option<Msisdn> {
    let all: String = from.chars().filter(|c| !matches!(c, ' ' | '-' | '(' | ')' | '.')).collect();
    let (whole, digits) = match all.strip_prefix('+').or_else(|| all.strip_prefix("00")) {
        Some(rest) => (true, rest),
        None => (false, all.as_str()),
    };
    let code = rules.country_code.as_str();
    let bare = digits.trim_start_matches('0');
    let number = if whole || code.is_empty() || digits.starts_with(code) { bare.to_owned() } else { format!("{code}{bare}") };
    let fits = (5..=15).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| number.parse().ok().map(Msisdn)).flatten()
}

/// What a number may mean that came without a sign of whether it is whole: itself, and with the country code that an account
/// leaves out.
pub fn meanings(number: Msisdn, rules: &OptOutRules) -> impl Iterator<Item = Msisdn> + use<> {
    let completed = number_of(&number.digits(), rules).filter(|completed| *completed != number);
    std::iter::once(number).chain(completed)
}

/// What stands in `to` behind the account's own sender number: the `ext_code` of what the message answers. `None` when `to`
/// does not begin with the sender; then only the known codes can tell ([`ext_code_among`]).
pub fn ext_code_behind<'a>(to: &'a str, sender: &str) -> Option<&'a str> {
    let plain = |text: &'a str| text.trim().trim_start_matches('+');
    let own = sender.trim().trim_start_matches('+');
    (!own.is_empty()).then(|| plain(to).strip_prefix(own)).flatten()
}

/// The longest of the known codes that `to` ends with; the empty one fits everything.
pub fn ext_code_among<'a>(to: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known.filter(|code| to.trim().ends_with(code)).max_by_key(|code| code.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_understood_however_they_are_typed() {
        let rules = OptOutRules::default();
        let cases = [
            ("STOP", Intent::OptOut),
            (" stop \r\n", Intent::OptOut),
            ("Stop.", Intent::OptOut),
            ("ＳＴＯＰ！", Intent::OptOut),
            ("“stop”", Intent::OptOut),
            ("stop\u{200B}\0", Intent::OptOut),
            ("t", Intent::OptOut),
            ("Ｔ　", Intent::OptOut),
            ("td", Intent::OptOut),
            ("退订", Intent::OptOut),
            ("退订。", Intent::OptOut),
            ("【拒收】", Intent::OptOut),
            ("Unstop", Intent::OptIn),
            ("start!!", Intent::OptIn),
            ("please stop by at noon", Intent::None),
            ("stopped", Intent::None),
            ("non-stop", Intent::None),
            ("不退订", Intent::None),
            ("", Intent::None),
            ("...", Intent::None),
        ];
        for (text, expected) in cases {
            assert_eq!(intent(text, &rules), expected, "{text:?}");
        }
        let long = format!("{}{}", "stop", "!".repeat(100));
        assert_eq!(intent(&long, &rules), Intent::None, "what is long is no word");
    }

    #[test]
    fn an_account_may_have_words_of_its_own() {
        let rules = OptOutRules { words: vec!["Basta!".into(), "".into()], opt_in_words: vec![], ..OptOutRules::default() };
        assert_eq!(intent("basta", &rules), Intent::OptOut);
        assert_eq!(intent("STOP", &rules), Intent::None);
        assert_eq!(intent("", &rules), Intent::None, "an empty word is no word");
    }

    #[test]
    fn senders_become_numbers() {
        let plain = OptOutRules::default();
        let national = OptOutRules { country_code: "86".into(), ..OptOutRules::default() };
        let cases = [
            ("+8613800138000", &plain, Some(8_613_800_138_000)),
            ("8613800138000", &plain, Some(8_613_800_138_000)),
            ("008613800138000", &plain, Some(8_613_800_138_000)),
            ("+86 138-0013-8000", &plain, Some(8_613_800_138_000)),
            ("13800138000", &national, Some(8_613_800_138_000)),
            ("8613800138000", &national, Some(8_613_800_138_000)),
            ("+4915112345678", &national, Some(4_915_112_345_678)),
            ("Bank", &plain, None),
            ("1069", &plain, None),
            ("", &national, None),
        ];
        for (from, rules, number) in cases {
            assert_eq!(number_of(from, rules), number.map(Msisdn), "{from}");
        }
    }

    #[test]
    fn the_code_is_what_stands_behind_the_sender() {
        assert_eq!(ext_code_behind("10690001007", "10690001"), Some("007"));
        assert_eq!(ext_code_behind("+10690001", "10690001"), Some(""));
        assert_eq!(ext_code_behind("95555007", "10690001"), None);
        assert_eq!(ext_code_behind("007", ""), None);
        let known = ["", "7", "07", "1007"];
        assert_eq!(ext_code_among("95555007", known.into_iter()), Some("07"));
        assert_eq!(ext_code_among("9", known.into_iter()), Some(""));
        assert_eq!(ext_code_among("9", ["7"].into_iter()), None);
    }
}
