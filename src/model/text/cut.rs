//! The beginning of a text, where it may be longer than anybody needs.

/// At most `most` characters of a text.
pub fn beginning(text: &str, most: usize) -> &str {
    text.char_indices().nth(most).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        for (text, most, expected) in
            [("", 2, ""), ("é", 1, "é"), ("éa", 1, "é"), ("价格x", 2, "价格"), ("ab", 9, "ab"), ("ab", 0, "")]
        {
            assert_eq!(beginning(text, most), expected, "{text} {most}");
        }
    }
}
