//! A list of recipients with everything in it that lists have in life: the input of `quickstart`.

use std::fmt::Write;

use crate::drill::verdict::Implied;
use crate::model::id::Msisdn;

/// The text of the quickstart.
pub const TEMPLATE: &str = "Hello {{name}}, your parcel {{parcel}} arrives today. {{note}}";

/// A list, who of it is suppressed, and what must become of each row.
pub struct Sample {
    /// CSV with a header.
    pub csv: String,
    /// What the list implies of each of its rows, in their order.
    pub implied: Vec<Implied>,
    /// Numbers that get nothing.
    pub suppressed: Vec<Msisdn>,
}

/// Makes a list of `rows` rows. The same size gives the same list. Without `long` every text fits into one segment, for accounts
/// that take no longer ones.
pub fn sample(rows: u32, long: bool) -> Sample {
    let mut csv = String::with_capacity(rows as usize * 48);
    csv.push_str("phone,name,parcel,note\n");
    let (mut suppressed, mut implied) = (vec![], Vec::with_capacity(rows as usize));
    for row in 0..rows {
        let number = 13_800_000_000u64 + u64::from(row);
        let (name, note) = match row % 50 {
            7 | 23 => ("王小明", "请在家等候。"),
            11 => ("Zoë 🎉", "Signature needed 😀"),
            19 => ("Anna \"Ann\" Müller", "Ring twice,\nplease."),
            31 if long => ("Li", LONG),
            // A value that the text needs and the row lacks.
            21 if row % 1_000 == 521 => ("Sam", ""),
            _ => ("Alex", "Thank you!"),
        };
        let whole = COUNTRY + number;
        let (phone, mut becomes) = match row % 100 {
            13 => ("12345".to_owned(), Implied::Rejected),
            37 => (String::new(), Implied::Rejected),
            // The row before it, written in another way.
            59 => (format!("0086 {}", number - 1), Implied::Duplicate(whole - 1)),
            83 => (format!("+86 {number}"), Implied::Sent(whole)),
            _ => (number.to_string(), Implied::Sent(whole)),
        };
        if note.is_empty() {
            becomes = Implied::Rejected;
        }
        if row % 200 == 150 {
            suppressed.push(Msisdn(whole));
            becomes = Implied::Suppressed(whole);
        }
        implied.push(becomes);
        let _ = writeln!(csv, "{phone},\"{}\",P{row:07},\"{}\"", name.replace('"', "\"\""), note);
    }
    Sample { csv, implied, suppressed }
}

/// The country's code in front of the list's numbers, which have eleven digits.
const COUNTRY: u64 = 8_600_000_000_000;

const LONG: &str = "If nobody is at home, the driver leaves it with a neighbour or takes it to the shop at the corner, \
                    where it waits for a week; bring this message and something that shows who you are. Thank you!";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_everything_that_lists_have() {
        let sample = super::sample(1_000, true);
        assert!(sample.csv.contains("王小明") && sample.csv.contains('😀') && sample.csv.contains("12345,"));
        assert!(sample.csv.contains("\"Anna \"\"Ann\"\" Müller\"") && sample.csv.contains("0086 "));
        assert_eq!(sample.csv.matches(",\"\"\n").count(), 1, "few rows lack a value");
        assert_eq!(sample.suppressed.len(), 5);
        assert!(sample.csv.contains(&sample.suppressed[0].digits()[2..]));
        assert!(!super::sample(1_000, false).csv.contains(LONG) && sample.csv.contains(LONG));
    }

    #[test]
    fn what_must_become_of_each_row_follows_from_the_list() {
        let sample = super::sample(1_000, true);
        let number = |row: u64| 8_613_800_000_000 + row;
        for (row, implied) in [
            (0, Implied::Sent(number(0))),
            (13, Implied::Rejected),
            (37, Implied::Rejected),
            (59, Implied::Duplicate(number(58))),
            (83, Implied::Sent(number(83))),
            (150, Implied::Suppressed(number(150))),
            (521, Implied::Rejected),
        ] {
            assert_eq!(sample.implied[row], implied, "row {row}");
        }
        let of = |kind: fn(&Implied) -> bool| sample.implied.iter().filter(|implied| kind(implied)).count();
        assert_eq!(of(|implied| matches!(implied, Implied::Sent(_))), 1_000 - 21 - 10 - 5);
        assert_eq!(of(|implied| matches!(implied, Implied::Rejected)), 21);
        // Of a number that comes twice the first row is sent.
        assert_eq!(sample.implied[58], Implied::Sent(number(58)));
    }
}
