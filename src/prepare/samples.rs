//! Rendered texts for the plan: the longest, and the one with the most unusual characters.

use crate::model::record::Sample;

/// The best samples so far: of equals the first.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    longest: Option<Sample>,
    strangest: Option<Sample>,
}

impl Samples {
    /// Looks at a text with its signature and link.
    pub fn consider(&mut self, line: u64, text: &str, segments: u8) {
        let (mut characters, mut unusual) = (0u32, 0u32);
        for c in text.chars() {
            characters += 1;
            unusual += u32::from(is_unusual(c));
        }
        // Segments first: they are what a text costs. No text has more than a million characters.
        let weight = u32::from(segments) * 1_000_000 + characters.min(999_999);
        keep(&mut self.longest, "longest", weight, line, text, segments);
        if unusual > 0 {
            keep(&mut self.strangest, "strangest", unusual, line, text, segments);
        }
    }

    /// The samples of the range.
    pub fn into_vec(self) -> Vec<Sample> {
        self.longest.into_iter().chain(self.strangest).collect()
    }
}

fn keep(best: &mut Option<Sample>, why: &str, weight: u32, line: u64, text: &str, segments: u8) {
    if best.as_ref().is_none_or(|best| best.weight < weight) {
        *best = Some(Sample { line, text: text.to_owned(), segments, why: why.to_owned(), weight });
    }
}

/// Characters that an operator should see before they are sent: controls, invisible and direction marks, combining marks,
/// private use, replacement characters, and all beyond the basic plane (emoji, rare ideographs).
fn is_unusual(c: char) -> bool {
    match c {
        ' '..='~' | '\n' => false,
        '\u{4e00}'..='\u{9fff}' => false,
        '\0'..='\u{9f}' | '\u{ad}' => true,
        '\u{300}'..='\u{36f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => true,
        '\u{e000}'..='\u{f8ff}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff0}'..='\u{ffff}' => true,
        _ => c > '\u{ffff}',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_and_the_strangest_are_kept() {
        let mut samples = Samples::default();
        let texts =
            [(2, "short", 1), (3, "much longer text", 1), (4, "two", 2), (5, "a🎉b", 1), (6, "\u{202e}🎉", 1), (7, "🎉🎉", 1)];
        for (line, text, segments) in texts {
            samples.consider(line, text, segments);
        }
        let kept: Vec<(u64, String)> = samples.into_vec().into_iter().map(|sample| (sample.line, sample.why)).collect();
        assert_eq!(kept, [(4, "longest".to_owned()), (6, "strangest".to_owned())]);
    }

    #[test]
    fn plain_texts_are_not_strange() {
        let mut samples = Samples::default();
        samples.consider(2, "您好，【店】 Grüße, €5 “ok”\nend", 1);
        assert_eq!(samples.into_vec().len(), 1);
    }
}
