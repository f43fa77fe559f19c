//! A list of recipients with everything in it that lists have in life: the input of `quickstart`.

use std::fmt::Write;

use crate::model::id::Msisdn;

/// The text of the quickstart.
pub const TEMPLATE: &str = "Hello {{name}}, your parcel {{parcel}} arrives today. {{note}}";

/// A list, and who of it is suppressed.
pub struct Sample {
    /// CSV with a header.
    pub csv: String,
    /// Numbers that get nothing.
    pub suppressed: Vec<Msisdn>,
}

/// Makes a list of `rows` rows. The same size gives the same list.
pub fn sample(rows: u32) -> Sample {
    let mut csv = String::with_capacity(rows as usize * 48);
    csv.push_str("phone,name,parcel,note\n");
    let mut suppressed = vec![];
    for row in 0..rows {
        let number = 13_800_000_000u64 + u64::from(row);
        let (name, note) = match row % 50 {
            7 | 23 => ("王小明", "请在家等候。"),
            11 => ("Zoë 🎉", "Signature needed 😀"),
            19 => ("Anna \"Ann\" Müller", "Ring twice,\nplease."),
            31 => ("Li", LONG),
            // A value that the text needs and the row lacks.
            21 if row % 1_000 == 521 => ("Sam", ""),
            _ => ("Alex", "Thank you!"),
        };
        let phone = match row % 100 {
            13 => "12345".to_owned(),
            37 => String::new(),
            // The row before it, written in another way.
            59 => format!("0086 {}", number - 1),
            83 => format!("+86 {number}"),
            _ => number.to_string(),
        };
        if row % 200 == 150 {
            suppressed.push(Msisdn(8_600_000_000_000 + number));
        }
        let _ = writeln!(csv, "{phone},\"{}\",P{row:07},\"{}\"", name.replace('"', "\"\""), note);
    }
    Sample { csv, suppressed }
}

const LONG: &str = "If nobody is at home, the driver leaves it with a neighbour or takes it to the shop at the corner, \
                    where it waits for a week; bring this message and something that shows who you are. Thank you!";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_everything_that_lists_have() {
        let sample = sample(1_000);
        assert!(sample.csv.contains("王小明") && sample.csv.contains('😀') && sample.csv.contains("12345,"));
        assert!(sample.csv.contains("\"Anna \"\"Ann\"\" Müller\"") && sample.csv.contains("0086 "));
        assert_eq!(sample.csv.matches(",\"\"\n").count(), 1, "few rows lack a value");
        assert_eq!(sample.suppressed.len(), 5);
        assert!(sample.csv.contains(&sample.suppressed[0].digits()[2..]));
    }
}
