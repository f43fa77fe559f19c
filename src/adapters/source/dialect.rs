//! How a file is to be read, as a small text: what a caller may name, and what the plan keeps so that every range is read in
//! exactly that way.
//!
//! `key=value` pairs with `;` between them; what is not named is found out by looking. The keys:
//! - `format`: `csv` or `jsonl`.
//! - `delimiter`: `comma`, `semicolon`, `tab`, `pipe`, `space`, or one ASCII character other than `;`.
//! - `header`: `yes` or `no`. Without a header the columns are named 1, 2, 3 and so on.
//! - `encoding`: `auto`, or a label of the WHATWG Encoding Standard (`utf-8`, `utf-16le`, `gb18030`, `windows-1252`, …).
//! - `compression`: `none`, `gzip` or `zstd`.

use encoding_rs::{Encoding, UTF_8};

use crate::model::code::{Code, Fault};

/// What the records of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Comma-separated values, RFC 4180 and what people make of it.
    Csv,
    /// One JSON object a line.
    JsonLines,
}

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    /// It is not.
    Plain,
    /// gzip (RFC 1952), any number of members.
    Gzip,
    /// Zstandard (RFC 8878), any number of frames.
    Zstd,
}

/// What the caller named; `None` is found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub format: Option<Format>,
    pub delimiter: Option<u8>,
    pub header: Option<bool>,
    pub encoding: Option<&'static Encoding>,
    pub compression: Option<Compression>,
}

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dialect {
    pub format: Format,
    /// Between the fields of CSV.
    pub delimiter: u8,
    /// Whether the first record of CSV names the columns.
    pub header: bool,
    pub encoding: &'static Encoding,
    pub compression: Compression,
}

impl Dialect {
    /// Whether ranges can be read from the file itself, which needs plain UTF-8.
    pub fn is_readable_in_place(&self) -> bool {
        self.encoding == UTF_8 && self.compression == Compression::Plain
    }

    /// Reads what [`Dialect`]'s `Display` wrote.
    pub fn parse(text: &str) -> Result<Dialect, Fault> {
        let wanted = Wanted::parse(text)?;
        let missing = |key: &str| invalid(format!("the plan's dialect lacks {key}"));
        Ok(Dialect {
            format: wanted.format.ok_or_else(|| missing("format"))?,
            delimiter: wanted.delimiter.unwrap_or(b','),
            header: wanted.header.ok_or_else(|| missing("header"))?,
            encoding: wanted.encoding.ok_or_else(|| missing("encoding"))?,
            compression: wanted.compression.ok_or_else(|| missing("compression"))?,
        })
    }
}

impl std::fmt::Display for Dialect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.format {
            Format::Csv => write!(f, "format=csv;delimiter={}", delimiter_name(self.delimiter))?,
            Format::JsonLines => f.write_str("format=jsonl")?,
        }
        let header = if self.header { "yes" } else { "no" };
        write!(f, ";header={header};encoding={};compression={}", encoding_name(self.encoding), self.compression)
    }
}

impl std::fmt::Display for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Compression::Plain => "none",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        })
    }
}

impl Wanted {
    /// Reads what a caller named.
    pub fn parse(text: &str) -> Result<Wanted, Fault> {
        let mut wanted = Wanted::default();
        for pair in text.split(';').filter(|pair| !pair.trim().is_empty()) {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| invalid(format!("the dialect wants key=value, not `{pair}`")))?;
            let refuse = || invalid(format!("the dialect does not know {}={value}", key.trim()));
            match key.trim() {
                "format" => {
                    wanted.format = Some(match value.trim() {
                        "csv" => Format::Csv,
                        "jsonl" => Format::JsonLines,
                        _ => return Err(refuse()),
                    });
                }
                "delimiter" => wanted.delimiter = Some(delimiter(value).ok_or_else(refuse)?),
                "header" => {
                    wanted.header = Some(match value.trim() {
                        "yes" => true,
                        "no" => false,
                        _ => return Err(refuse()),
                    });
                }
                "encoding" if value.trim() == "auto" => wanted.encoding = None,
                "encoding" => wanted.encoding = Some(encoding(value.trim()).ok_or_else(refuse)?),
                "compression" => {
                    wanted.compression = Some(match value.trim() {
                        "none" => Compression::Plain,
                        "gzip" => Compression::Gzip,
                        "zstd" => Compression::Zstd,
                        _ => return Err(refuse()),
                    });
                }
                _ => return Err(invalid(format!("the dialect has no key {}", key.trim()))),
            }
        }
        Ok(wanted)
    }
}

/// The encoding's name in file names and dialects.
pub(super) fn encoding_name(encoding: &'static Encoding) -> String {
    encoding.name().to_ascii_lowercase()
}

fn encoding(label: &str) -> Option<&'static Encoding> {
    let found = Encoding::for_label_no_replacement(label.as_bytes())?;
    // The standard reads GB 2312 and GBK labels as GBK, whose decoder is that of GB18030.
    Some(if found == encoding_rs::GBK { encoding_rs::GB18030 } else { found })
}

const DELIMITER_NAMES: [(&str, u8); 5] = [("comma", b','), ("semicolon", b';'), ("tab", b'\t'), ("pipe", b'|'), ("space", b' ')];

fn delimiter(value: &str) -> Option<u8> {
    if let Some(&(_, byte)) = DELIMITER_NAMES.iter().find(|(name, _)| *name == value.trim()) {
        return Some(byte);
    }
    match *value.as_bytes() {
        [b'"' | b'\r' | b'\n' | 0] => None,
        [byte] if byte.is_ascii() => Some(byte),
        _ => None,
    }
}

fn delimiter_name(delimiter: u8) -> String {
    let named = DELIMITER_NAMES.iter().find(|&&(_, byte)| byte == delimiter);
    named.map_or_else(|| char::from(delimiter).to_string(), |(name, _)| (*name).to_string())
}

fn invalid(context: String) -> Fault {
    Fault::new(Code::InputInvalid, context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialect_reads_back() {
        for delimiter in (1..128).filter(|byte| !b"\"\r\n".contains(byte)) {
            for (format, header, encoding, compression) in [
                (Format::Csv, true, UTF_8, Compression::Plain),
                (Format::Csv, false, encoding_rs::GB18030, Compression::Gzip),
                (Format::JsonLines, true, encoding_rs::UTF_16BE, Compression::Zstd),
            ] {
                let delimiter = if format == Format::Csv { delimiter } else { b',' };
                let dialect = Dialect { format, delimiter, header, encoding, compression };
                assert_eq!(Dialect::parse(&dialect.to_string()), Ok(dialect), "{dialect}");
            }
        }
    }

    #[test]
    fn what_is_not_named_is_left_open_and_nonsense_is_refused() {
        assert_eq!(Wanted::parse(""), Ok(Wanted::default()));
        let wanted = Wanted::parse("delimiter=\t; encoding=auto;header=no").expect("a dialect");
        assert_eq!((wanted.delimiter, wanted.encoding, wanted.header), (Some(b'\t'), None, Some(false)));
        assert_eq!(Wanted::parse("encoding=gb2312").map(|w| w.encoding), Ok(Some(encoding_rs::GB18030)));
        for text in ["format", "format=xml", "delimiter=ab", "delimiter=\"", "header=maybe", "encoding=klingon", "quote='"] {
            assert_eq!(Wanted::parse(text).map_err(|fault| fault.code), Err(Code::InputInvalid), "{text}");
        }
    }
}
