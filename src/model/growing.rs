//! Numbers of control rows that only grow: dispatches, attempts, changes, fences.
//!
//! Whoever changes such a row counts on by one. A number near the end of its type was never counted up to, so a row that holds
//! one is damaged: it is refused when it is read, instead of beginning again at 0 when it is changed.

use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// A type of such numbers.
pub trait Grows: Copy + PartialOrd {
    /// The most that is believed.
    const MOST: Self;
}

impl Grows for u32 {
    const MOST: u32 = u32::MAX / 2;
}

impl Grows for u64 {
    const MOST: u64 = u64::MAX / 2;
}

/// Reads a number that only grows: for `#[serde(deserialize_with)]`.
pub fn read<'de, D: Deserializer<'de>, T: Grows + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    let number = T::deserialize(deserializer)?;
    if number > T::MOST { Err(D::Error::custom("a number is larger than any that was counted up to")) } else { Ok(number) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::record::{RangePlan, RangeRow};

    #[test]
    fn a_number_that_cannot_grow_is_damage() {
        let row = RangeRow { attempt: u32::MOST, ..RangeRow::planned(RangePlan::default()) };
        let json = serde_json::to_string(&row).expect("a row is JSON");
        assert_eq!(serde_json::from_str::<RangeRow>(&json).expect("it is believed"), row);
        let damaged = json.replace("2147483647", "4294967295");
        assert!(damaged != json && serde_json::from_str::<RangeRow>(&damaged).is_err());
    }
}
