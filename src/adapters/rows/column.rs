//! Columns: values of one kind together, as differences where they grow, so that they compress well.

use serde::{Deserialize, Serialize};

/// Numbers as differences to the one before, zigzag coded: small for whatever grows evenly, right for anything.
pub fn deltas(values: impl Iterator<Item = u64>) -> Vec<i64> {
    let mut last = 0u64;
    values
        .map(|value| {
            let delta = value.wrapping_sub(last) as i64;
            last = value;
            delta
        })
        .collect()
}

/// The numbers behind [`deltas`].
pub fn sums(deltas: &[i64]) -> Vec<u64> {
    let mut last = 0u64;
    deltas
        .iter()
        .map(|delta| {
            last = last.wrapping_add(*delta as u64);
            last
        })
        .collect()
}

/// Bits, eight in a byte, the first in the lowest.
pub fn bits(values: impl Iterator<Item = bool>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at, value) in values.enumerate() {
        if at % 8 == 0 {
            bytes.push(0);
        }
        bytes[at / 8] |= u8::from(value) << (at % 8);
    }
    bytes
}

/// The bit at a place behind [`bits`]; `None` when there is none.
pub fn bit(bytes: &[u8], at: usize) -> Option<bool> {
    bytes.get(at / 8).map(|byte| byte >> (at % 8) & 1 == 1)
}

/// Texts, one behind the other in one string.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Texts {
    lengths: Vec<u32>,
    all: String,
}

impl Texts {
    /// Adds a text.
    pub fn push(&mut self, text: &str) {
        self.lengths.push(u32::try_from(text.len()).expect("a text stays far below four gigabytes"));
        self.all.push_str(text);
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// The texts in order; ends early where lengths and text do not fit together.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let mut from = 0usize;
        self.lengths.iter().map_while(move |length| {
            let text = self.all.get(from..from + *length as usize)?;
            from += *length as usize;
            Some(text)
        })
    }
}

impl<'a> FromIterator<&'a str> for Texts {
    fn from_iter<I: IntoIterator<Item = &'a str>>(texts: I) -> Texts {
        let mut all = Texts::default();
        texts.into_iter().for_each(|text| all.push(text));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_read_back() {
        for values in [vec![], vec![5, 9, 9, 3], vec![u64::MAX, 0, u64::MAX, 1 << 63]] {
            assert_eq!(sums(&deltas(values.iter().copied())), values);
        }
        let flags = [true, false, false, true, true, false, true, false, true];
        let bytes = bits(flags.iter().copied());
        assert_eq!((0..9).map(|at| bit(&bytes, at)).collect::<Vec<_>>(), flags.map(Some));
        assert_eq!(bit(&bytes, 16), None);
        let texts: Texts = ["a", "", "数字", "z"].into_iter().collect();
        assert_eq!(texts.iter().collect::<Vec<_>>(), ["a", "", "数字", "z"]);
    }
}
