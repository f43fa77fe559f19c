//! Looking at the beginning of a file to find out what it is.

use encoding_rs::{Encoding, GB18030, UTF_8, UTF_16BE, UTF_16LE};

use super::dialect::{Compression, Format};
use super::fields::csv_field_count;
use super::json_fields;
use super::records::{Framing, Records};
use crate::model::code::{Code, Fault};

/// How much of a file is looked at.
pub(super) const SAMPLE_BYTES: usize = 256 * 1024;

/// How a file is compressed, by its first bytes: names lie.
pub(super) fn compression(head: &[u8]) -> Compression {
    match head {
        [0x1F, 0x8B, ..] => Compression::Gzip,
        [0x28, 0xB5, 0x2F, 0xFD, ..] => Compression::Zstd,
        // A skippable frame may come first (RFC 8878, 3.1.2).
        [0x50..=0x5F, 0x2A, 0x4D, 0x18, ..] => Compression::Zstd,
        _ => Compression::Plain,
    }
}

/// Files that people take for lists, by their first bytes, and what to do with them.
const OTHER_FILES: &[(&[u8], &str)] = &[
    (b"\x89PNG", "a PNG picture"),
    (b"\xFF\xD8\xFF", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"%PDF", "a PDF document: ask for the list as CSV"),
    (b"{\\rtf", "a rich text document: save it as CSV or plain text"),
    (b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1", "an old Excel workbook: export it as CSV"),
    (b"SQLite format 3\0", "an SQLite database: export the table as CSV"),
    (b"PAR1", "a Parquet file: export it as CSV or JSON Lines"),
    (b"Obj\x01", "an Avro file: export it as CSV or JSON Lines"),
    (b"ORC", "an ORC file: export it as CSV or JSON Lines"),
    (b"\xFD7zXZ\0", "xz-compressed: unpack it, or compress it with gzip or zstd"),
    (b"BZh", "bzip2-compressed: unpack it, or compress it with gzip or zstd"),
    (b"7z\xBC\xAF\x27\x1C", "a 7-Zip archive: unpack it"),
    (b"Rar!\x1A\x07", "a RAR archive: unpack it"),
    (b"\x7FELF", "a program"),
    (b"\xFF\xFE\0\0", "UTF-32 text: save it as UTF-8"),
    (b"\0\0\xFE\xFF", "UTF-32 text: save it as UTF-8"),
];

/// The encoding of a text, by its first bytes. What is no text at all is a fault that says what it looks like.
pub(super) fn encoding(sample: &[u8]) -> Result<&'static Encoding, Fault> {
    if let Some((_, what)) = OTHER_FILES.iter().find(|(magic, _)| sample.starts_with(magic) && !is_plain(magic, sample)) {
        return Err(not_text(format!("looks like {what}")));
    }
    if sample.starts_with(b"PK\x03\x04") {
        let is_workbook = memchr::memmem::find(sample, b"[Content_Types].xml").is_some();
        let what = if is_workbook { "an Excel workbook: export it as CSV" } else { "a ZIP archive: unpack it" };
        return Err(not_text(format!("looks like {what}")));
    }
    match sample {
        [0xFF, 0xFE, ..] => return Ok(UTF_16LE),
        [0xFE, 0xFF, ..] => return Ok(UTF_16BE),
        _ => {}
    }
    if let Some(encoding) = utf16_without_mark(sample) {
        return Ok(encoding);
    }
    let strange =
        sample.iter().filter(|&&byte| byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x0B | 0x0C | 0x1A | 0x1B));
    if memchr::memchr(0, sample).is_some() || strange.count() * 20 > sample.len() {
        return Err(not_text("looks like binary data".to_string()));
    }
    let mut census = Census::default();
    // The last line may be cut in the middle of a character.
    let whole = memchr::memrchr(b'\n', sample).map_or(sample, |end| &sample[..end]);
    whole.split(|&byte| byte == b'\n').for_each(|line| census.add(line));
    Ok(if census.is_gb18030() { GB18030 } else { UTF_8 })
}

/// Whether a file that begins like a binary one is a text all the same: `ORC` and `PAR1` may be names of columns.
fn is_plain(magic: &[u8], sample: &[u8]) -> bool {
    magic.iter().all(|byte| byte.is_ascii_alphanumeric()) && !sample.iter().any(|&byte| byte < 0x09)
}

/// UTF-16 without a byte order mark: half of each digit, delimiter and line end is zero, and
/// nearly always the same half (the other one is zero in 一, for one).
fn utf16_without_mark(sample: &[u8]) -> Option<&'static Encoding> {
    let sample = &sample[..sample.len() / 2 * 2];
    if sample.len() < 4 {
        return None;
    }
    let zeros = |side: usize| sample.iter().skip(side).step_by(2).filter(|&&byte| byte == 0).count();
    let (even, odd, pairs) = (zeros(0), zeros(1), sample.len() / 2);
    let encoding = if odd > 3 && odd * 10 > pairs && even * 8 <= odd {
        UTF_16LE
    } else if even > 3 && even * 10 > pairs && odd * 8 <= even {
        UTF_16BE
    } else {
        return None;
    };
    // The sample may end within a surrogate pair; anything else that is wrong says binary.
    let (text, _) = encoding.decode_without_bom_handling(sample);
    let wrong = text.chars().filter(|&c| c == '\u{FFFD}' || (c < ' ' && !"\t\r\n".contains(c))).count();
    (wrong <= 1).then_some(encoding)
}

/// What the lines of a file say about its encoding: UTF-8 with a few broken lines, or GB18030 throughout.
#[derive(Debug, Default)]
pub(super) struct Census {
    utf8: u64,
    other: u64,
    gb18030: u64,
    hanzi_pairs: u64,
    other_pairs: u64,
}

impl Census {
    /// Lines that are examined closely; the rest is counted.
    const EXAMINED: u64 = 1_000;

    /// Adds a line.
    pub fn add(&mut self, line: &[u8]) {
        if line.is_ascii() {
            return;
        }
        if std::str::from_utf8(line).is_ok() {
            self.utf8 += 1;
            return;
        }
        self.other += 1;
        if self.other > Self::EXAMINED {
            return;
        }
        self.gb18030 += u64::from(GB18030.decode_without_bom_handling_and_without_replacement(line).is_some());
        // In GB 2312 both bytes of a character are high. In Latin-1 a high byte is mostly followed by an ASCII letter, which
        // GBK would read as a rare character.
        let mut bytes = line.iter();
        while let Some(&lead) = bytes.next() {
            if lead >= 0x80 {
                match bytes.next() {
                    Some(0xA1..) => self.hanzi_pairs += 1,
                    _ => self.other_pairs += 1,
                }
            }
        }
    }

    /// Whether the lines are GB18030: more of them are broken as UTF-8 than are whole, all of them are whole as GB18030, and
    /// what they hold is common characters.
    pub fn is_gb18030(&self) -> bool {
        let examined = self.other.min(Self::EXAMINED);
        // One line of a hundred may be broken in either encoding.
        self.other > self.utf8 && self.gb18030 + examined / 100 >= examined && self.hanzi_pairs > 2 * self.other_pairs
    }
}

/// The format of a UTF-8 text, by its beginning.
pub(super) fn format(sample: &[u8]) -> Result<Format, Fault> {
    let text = sample.trim_ascii_start();
    match text.first() {
        Some(b'{') => {
            let mut lines = text.split(|&byte| byte == b'\n').take(20).peekable();
            let mut object = false;
            while let Some(line) = lines.next() {
                // A line that the sample cuts off may be an object.
                let cut_off = lines.peek().is_none() && sample.len() >= SAMPLE_BYTES;
                object |= cut_off || std::str::from_utf8(line).is_ok_and(|line| json_fields::keys(line).is_some());
            }
            if object {
                Ok(Format::JsonLines)
            } else {
                Err(not_text("begins like JSON, but its lines are no JSON objects: write one object a line".to_string()))
            }
        }
        Some(b'[')
            if serde_json::from_slice::<serde_json::Value>(text).is_ok() || text[1..].trim_ascii_start().starts_with(b"{") =>
        {
            Err(not_text("looks like a JSON array: write one object a line, without brackets and commas around them".to_string()))
        }
        Some(b'<') => Err(not_text("looks like XML or HTML: export it as CSV".to_string())),
        _ => Ok(Format::Csv),
    }
}

/// The delimiter of a CSV text: the one that cuts the most records into as many fields as the header has, at least two. A list
/// of one column has none, which reads the same with a comma.
pub(super) fn delimiter(sample: &[u8]) -> u8 {
    if let Some(named) = named_delimiter(sample) {
        return named;
    }
    let mut best = (0, 0, b',');
    for delimiter in *b",;\t|" {
        let mut records = Records::new(sample, Framing::Quoted { delimiter }, 0, 1);
        let mut counts = vec![];
        while let Ok(Some(raw)) = records.next()
            && counts.len() < 200
        {
            counts.extend(raw.bytes.ok().map(|bytes| csv_field_count(bytes, raw.quoted, delimiter)));
        }
        if sample.len() >= SAMPLE_BYTES && counts.len() > 1 {
            counts.pop();
        }
        let Some(&header) = counts.first().filter(|&&count| count > 1) else { continue };
        let same = counts.iter().filter(|&&count| count == header).count() * 1_000 / counts.len();
        if (same, header) > (best.0, best.1) {
            best = (same, header, delimiter);
        }
    }
    best.2
}

/// The delimiter in a first line `sep=;`, as Excel writes and reads it.
pub(super) fn named_delimiter(text: &[u8]) -> Option<u8> {
    match text {
        [b's', b'e', b'p', b'=', delimiter, rest @ ..]
            if delimiter.is_ascii_punctuation() || matches!(delimiter, b'\t' | b' ') =>
        {
            let ends = matches!(rest.first(), None | Some(b'\r' | b'\n'));
            (ends && *delimiter != b'"').then_some(*delimiter)
        }
        _ => None,
    }
}

fn not_text(context: String) -> Fault {
    Fault::new(Code::SourceNotText, context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimiters_are_found() {
        for (text, expected) in [
            ("phone,name\n1,a\n", b','),
            ("phone;name\n1;\"a,b,c\"\n", b';'),
            ("phone;text\n1;a, b, c, d\n2;a, b\n", b';'),
            ("phone\tname\n1\ta;b\n", b'\t'),
            ("phone|name|x\n1|a,b|c\n", b'|'),
            ("phone\n1\n2\n", b','),
            ("sep=^\r\nphone^name\r\n", b'^'),
            ("\"a;b\",c\n\"1;2\",3\n", b','),
            ("", b','),
        ] {
            assert_eq!(char::from(delimiter(text.as_bytes())), char::from(expected), "{text:?}");
        }
    }

    #[test]
    fn encodings_are_found() {
        let text = "手机号,姓名\n13800138000,张三\n13900139000,李四\n";
        let utf16 = |mark: bool, big: bool| -> Vec<u8> {
            let units = mark.then_some(0xFEFF).into_iter().chain(text.encode_utf16());
            units.flat_map(|unit: u16| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
        };
        let latin: Vec<u8> = "phone,name\n1,Jos\u{e9}\n2,Ren\u{e9}e\n".chars().map(|c| c as u8).collect();
        let mut broken = text.repeat(3).into_bytes();
        broken.extend(b"1,\xFF\xFF\n");
        for (bytes, expected) in [
            (text.as_bytes().to_vec(), UTF_8),
            (b"phone,name\n1,a\n".to_vec(), UTF_8),
            (utf16(true, false), UTF_16LE),
            (utf16(true, true), UTF_16BE),
            (utf16(false, false), UTF_16LE),
            (utf16(false, true), UTF_16BE),
            (GB18030.encode(text).0.into_owned(), GB18030),
            (latin, UTF_8),
            (broken, UTF_8),
            (vec![], UTF_8),
            (b"ORCHARD,phone\n1,2\n".to_vec(), UTF_8),
        ] {
            assert_eq!(encoding(&bytes), Ok(expected), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_no_list_is_named() {
        for (bytes, says) in [
            (&b"\x89PNG\r\n\x1a\n\0\0"[..], "PNG"),
            (b"PK\x03\x04\x14\0[Content_Types].xml", "Excel"),
            (b"PK\x03\x04\x14\0list.csv", "ZIP"),
            (b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1\0", "Excel"),
            (b"%PDF-1.7\n", "PDF"),
            (b"a,b\n1,\0\n", "binary"),
            (b"\x01\x02\x03\x04", "binary"),
            (b"ORC\x08\x01\x02", "ORC"),
        ] {
            let fault = encoding(bytes).expect_err(says);
            assert!(fault.code == Code::SourceNotText && fault.context.contains(says), "{fault}");
        }
        for (text, says) in
            [("[\n{\"a\":1}]", "array"), ("[1]", "array"), ("<html>", "HTML"), ("{\n \"a\": 1\n}\n", "one object a line")]
        {
            let fault = format(text.as_bytes()).expect_err(says);
            assert!(fault.code == Code::SourceNotText && fault.context.contains(says), "{fault}");
        }
        assert_eq!(format(b"\n {\"a\":1}\nx"), Ok(Format::JsonLines));
        assert_eq!(format(b"[phone],[name]\n1,2"), Ok(Format::Csv));
    }
}
