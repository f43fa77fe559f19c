//! What providers say in words of their own: refusals and telephone numbers.

use serde::{Deserialize, Serialize};

use crate::model::answer::{Class, NotNow};
use crate::model::id::Msisdn;

/// What a provider's own refusal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VendorClass {
    /// Over the rate: soon again.
    Throttled,
    /// No room, perhaps only for this handset: later again.
    QueueFull,
    /// A passing failure: again a few times.
    Transient,
    /// Never again.
    Permanent,
}

impl VendorClass {
    /// The class as the rest of the fleet knows it.
    pub fn class(self) -> Class {
        match self {
            VendorClass::Throttled => Class::NotNow(NotNow::Throttled),
            VendorClass::QueueFull => Class::NotNow(NotNow::QueueFull),
            VendorClass::Transient => Class::NotNow(NotNow::Transient),
            VendorClass::Permanent => Class::Permanent,
        }
    }
}

/// The digits of an address as a number, with or without a plus sign or zeros before it; `None` for a name, or for fewer or
/// more digits than a number has.
pub fn number(address: &str) -> Option<Msisdn> {
    let digits = address.trim().trim_start_matches('+').trim_start_matches('0');
    let plausible = (3..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    plausible.then(|| digits.parse().ok().map(Msisdn)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_that_are_no_number_give_none() {
        for (address, expected) in
            [("+4915112345678", Some(4_915_112_345_678)), ("004477", Some(4_477)), ("Bank", None), ("", None)]
        {
            assert_eq!(number(address), expected.map(Msisdn), "{address}");
        }
    }
}
