//! Finding where records begin and end in a stream of bytes: one implementation for the planning pass and for reading ranges,
//! so that both see the same records.
//!
//! The borders are those of crate `csv` (property tested): a record ends at CR, LF or CR LF outside quotes, empty lines are no
//! records, a quote opens only at the beginning of a field, and what follows a closing quote belongs to the field as it is.
//! In one thing this is stricter: a quote that is not closed within [`RECORD_BYTES_MAX`] or before the end costs the line it
//! stands in and no more, instead of swallowing everything behind it.

use std::io::{self, Read};

use memchr::{memchr2, memchr3};
use xxhash_rust::xxh3::Xxh3;

use crate::model::limits::RECORD_BYTES_MAX;

/// How many bytes are read at once.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;

/// What separates records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// The end of a line outside quotes; the delimiter says where a field begins.
    Quoted { delimiter: u8 },
    /// The end of a line. Lines of blanks are no records.
    Lines,
}

/// One record as it stands in the stream.
#[derive(Debug)]
pub(super) struct Raw<'a> {
    /// Where it begins.
    pub offset: u64,
    /// The line it begins in.
    pub line: u64,
    /// Its bytes without the end of the line.
    pub bytes: Result<&'a [u8], Cut>,
    /// Whether there is a quote in it.
    pub quoted: bool,
}

/// Why a record is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// It is longer than [`RECORD_BYTES_MAX`].
    TooLong,
    /// A quote is open at the end of the stream. Reading a range that may also mean that the record was too long, and that the
    /// range ends before that showed.
    Unclosed,
}

/// The records of a stream. Holds one chunk and one record of at most [`RECORD_BYTES_MAX`] in memory.
pub(super) struct Records<R> {
    input: R,
    framing: Framing,
    /// Read bytes; those before `at` belong to records that were handed out.
    buffer: Vec<u8>,
    at: usize,
    filled: usize,
    ended: bool,
    /// Where `buffer` begins in the stream.
    base: u64,
    line: u64,
    after_return: bool,
    /// Over the bytes between the last [`Records::take_hash`] and `base`.
    hash: Xxh3,
    /// Up to where in `buffer` they are hashed.
    hashed: usize,
}

impl<R: Read> Records<R> {
    /// Records of `input`, which stands at byte `offset` and line `line` of its file.
    pub fn new(input: R, framing: Framing, offset: u64, line: u64) -> Records<R> {
        Records {
            input,
            framing,
            buffer: vec![0; CHUNK_BYTES],
            at: 0,
            filled: 0,
            ended: false,
            base: offset,
            line,
            after_return: false,
            hash: Xxh3::new(),
            hashed: 0,
        }
    }

    /// The next record; `None` at the end.
    pub fn next(&mut self) -> io::Result<Option<Raw<'_>>> {
        loop {
            if !self.skip_line_ends()? {
                return Ok(None);
            }
            let (offset, line) = (self.offset(), self.line);
            let found = match self.framing {
                Framing::Quoted { delimiter } => self.quoted_record(delimiter)?,
                Framing::Lines => self.line_record()?,
            };
            let from = self.at;
            let Found { length, cut, quoted } = found;
            self.at += length;
            if self.framing == Framing::Lines && cut.is_none() && self.buffer[from..self.at].iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let bytes = match cut {
                None => Ok(&self.buffer[from..self.at]),
                Some(cut) => Err(cut),
            };
            return Ok(Some(Raw { offset, line, bytes, quoted }));
        }
    }

    /// Goes to where the next record begins, or to the end, so that [`Records::offset`] and [`Records::line`] are its.
    pub fn skip_line_ends(&mut self) -> io::Result<bool> {
        loop {
            if self.at == self.filled && !self.fill()? {
                return Ok(false);
            }
            match self.buffer[self.at] {
                // The second half of a CR LF was counted with the first.
                b'\n' if self.after_return => self.after_return = false,
                b'\n' => self.line += 1,
                b'\r' => {
                    self.line += 1;
                    self.after_return = true;
                }
                _ => {
                    self.after_return = false;
                    return Ok(true);
                }
            }
            self.at += 1;
        }
    }

    /// Where the stream stands: behind the last record.
    pub fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    /// In which line.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// XXH3-64 of the bytes from where this was called before (or the beginning) to where the stream stands.
    pub fn take_hash(&mut self) -> u64 {
        self.hash_to(self.at);
        let hash = self.hash.digest();
        self.hash.reset();
        hash
    }

    /// Hands the input back.
    pub fn into_input(self) -> R {
        self.input
    }

    fn quoted_record(&mut self, delimiter: u8) -> io::Result<Found> {
        // Places are counted from `self.at`, which is the record's beginning and moves when the buffer is filled.
        let (mut place, mut open, mut quoted) = (0, false, false);
        let (mut lines, mut first_line_end) = (0, None);
        loop {
            let Some(hit) = memchr3(b'"', b'\n', b'\r', &self.buffer[self.at + place..self.filled]) else {
                place = self.filled - self.at;
                if place > RECORD_BYTES_MAX {
                    return self.cut(Cut::TooLong, first_line_end, place, quoted);
                }
                if self.fill()? {
                    continue;
                }
                return if open {
                    self.cut(Cut::Unclosed, first_line_end, place, quoted)
                } else {
                    self.line += lines;
                    Ok(Found { length: place, cut: None, quoted })
                };
            };
            place += hit;
            if place > RECORD_BYTES_MAX {
                return self.cut(Cut::TooLong, first_line_end, place, quoted);
            }
            let byte = self.buffer[self.at + place];
            match (byte, open) {
                (b'"', false) => {
                    open = place == 0 || self.buffer[self.at + place - 1] == delimiter;
                    quoted = true;
                }
                (b'"', true) => {
                    if self.at + place + 1 == self.filled {
                        self.fill()?;
                    }
                    if self.at + place + 1 < self.filled && self.buffer[self.at + place + 1] == b'"' {
                        place += 1;
                    } else {
                        open = false;
                    }
                }
                (_, false) => {
                    self.line += lines;
                    return Ok(Found { length: place, cut: None, quoted });
                }
                (_, true) => {
                    first_line_end = first_line_end.or(Some(place));
                    // A CR LF counts once.
                    lines += u64::from(byte == b'\r' || self.buffer[self.at + place - 1] != b'\r');
                }
            }
            place += 1;
        }
    }

    fn line_record(&mut self) -> io::Result<Found> {
        let mut place = 0;
        loop {
            let hit = memchr2(b'\n', b'\r', &self.buffer[self.at + place..self.filled]);
            place = hit.map_or(self.filled - self.at, |hit| place + hit);
            if place > RECORD_BYTES_MAX {
                return self.cut(Cut::TooLong, None, place, false);
            }
            if hit.is_some() || !self.fill()? {
                return Ok(Found { length: place, cut: None, quoted: false });
            }
        }
    }

    /// Ends a record at the end of its first line, so that the next line is read as if nothing had happened. That line may be
    /// looked at twice, but not more often: a line that leaves a quote open would have closed the one before.
    fn cut(&mut self, cut: Cut, first_line_end: Option<usize>, mut place: usize, quoted: bool) -> io::Result<Found> {
        if let Some(length) = first_line_end {
            return Ok(Found { length, cut: Some(cut), quoted });
        }
        loop {
            match memchr2(b'\n', b'\r', &self.buffer[self.at + place..self.filled]) {
                Some(hit) => return Ok(Found { length: place + hit, cut: Some(cut), quoted }),
                None => {
                    // Nobody will look at these bytes: let them go, however many they are.
                    self.at = self.filled;
                    place = 0;
                    if !self.fill()? {
                        return Ok(Found { length: 0, cut: Some(cut), quoted });
                    }
                }
            }
        }
    }

    /// Reads more behind what is there; `false` at the end. Bytes before `at` go.
    fn fill(&mut self) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        if self.at > 0 {
            self.hash_to(self.at);
            self.buffer.copy_within(self.at..self.filled, 0);
            self.base += self.at as u64;
            self.filled -= self.at;
            (self.at, self.hashed) = (0, 0);
        }
        if self.filled == self.buffer.len() {
            self.buffer.resize(self.filled + CHUNK_BYTES, 0);
        }
        loop {
            match self.input.read(&mut self.buffer[self.filled..]) {
                Ok(0) => {
                    self.ended = true;
                    return Ok(false);
                }
                Ok(count) => {
                    self.filled += count;
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn hash_to(&mut self, place: usize) {
        self.hash.update(&self.buffer[self.hashed..place]);
        self.hashed = place;
    }
}

/// A record at `at`.
struct Found {
    length: usize,
    cut: Option<Cut>,
    quoted: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], framing: Framing) -> Vec<(u64, u64, Result<Vec<u8>, Cut>)> {
        let mut records = Records::new(bytes, framing, 0, 1);
        let mut found = vec![];
        while let Some(raw) = records.next().expect("memory is read") {
            found.push((raw.offset, raw.line, raw.bytes.map(<[u8]>::to_vec)));
        }
        found
    }

    const CSV: Framing = Framing::Quoted { delimiter: b',' };

    #[test]
    fn lines_are_counted_as_people_count_them() {
        for (text, lines) in [
            ("a\nb\n\nc", vec![1, 2, 4]),
            ("a\r\nb\r\n\r\nc\r\n", vec![1, 2, 4]),
            ("a\rb\r\rc", vec![1, 2, 4]),
            ("\n\na", vec![3]),
            ("\"a\nb\r\nc\"\nd", vec![1, 4]),
            ("\"a\n\nb\",c\nd\n", vec![1, 4]),
        ] {
            let found: Vec<u64> = read(text.as_bytes(), CSV).into_iter().map(|(_, line, _)| line).collect();
            assert_eq!(found, lines, "{text:?}");
        }
        let found: Vec<u64> = read(b"{}\n \t \n{}", Framing::Lines).into_iter().map(|(_, line, _)| line).collect();
        assert_eq!(found, [1, 3]);
    }

    #[test]
    fn an_open_quote_costs_one_line() {
        let found = read(b"a\nb,\"c\nd\ne\"f\n", CSV);
        assert_eq!(found[1].2, Ok(b"b,\"c\nd\ne\"f".to_vec()), "it closes");
        let found = read(b"a\nb,\"c\nd\ne\n", CSV);
        let expected =
            [(0, 1, Ok(b"a".to_vec())), (2, 2, Err(Cut::Unclosed)), (7, 3, Ok(b"d".to_vec())), (9, 4, Ok(b"e".to_vec()))];
        assert_eq!(found, expected);
        let mut long = b"a\n\"open\n".to_vec();
        long.extend(b"0123456789\n".repeat(200_000));
        let found = read(&long, CSV);
        assert_eq!((found.len(), found[1].2.clone(), found[2].1), (200_002, Err(Cut::TooLong), 3));
    }

    #[test]
    fn a_line_without_end_is_passed_over_in_bounded_memory() {
        for framing in [CSV, Framing::Lines] {
            for length in [RECORD_BYTES_MAX, RECORD_BYTES_MAX + 1, 5 * RECORD_BYTES_MAX] {
                let mut bytes = b"a\n".to_vec();
                bytes.extend(std::iter::repeat_n(b'x', length));
                bytes.extend(b"\r\nb");
                let mut records = Records::new(&bytes[..], framing, 0, 1);
                let mut lines = vec![];
                let mut cut = 0;
                while let Some(raw) = records.next().expect("memory is read") {
                    lines.push(raw.line);
                    cut += usize::from(raw.bytes.is_err());
                }
                assert_eq!((lines, cut), (vec![1, 2, 3], usize::from(length > RECORD_BYTES_MAX)));
                assert!(records.buffer.len() <= RECORD_BYTES_MAX + 2 * CHUNK_BYTES);
                assert_eq!(records.take_hash(), xxhash_rust::xxh3::xxh3_64(&bytes), "what is passed over is hashed too");
            }
        }
    }

    /// Gives a few bytes at a time, so that every place is once the end of what was read.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(chunk.len()).min(self.0.len());
            let (now, later) = self.0.split_at(count);
            chunk[..count].copy_from_slice(now);
            self.0 = later;
            Ok(count)
        }
    }

    proptest::proptest! {
        #[test]
        fn the_ends_of_chunks_do_not_matter(text in "[a,\"\"\r\n ]{0,60}", count in 1usize..4, lines: bool) {
            let framing = if lines { Framing::Lines } else { CSV };
            let mut records = Records::new(Trickle(text.as_bytes(), count), framing, 0, 1);
            let mut found = vec![];
            while let Some(raw) = records.next().expect("memory is read") {
                found.push((raw.offset, raw.line, raw.bytes.map(<[u8]>::to_vec)));
            }
            proptest::prop_assert_eq!(found, read(text.as_bytes(), framing));
            proptest::prop_assert_eq!(records.take_hash(), xxhash_rust::xxh3::xxh3_64(text.as_bytes()));
        }

        #[test]
        fn a_range_that_ends_between_records_gives_the_same_records(text in "[a,\"\"\r\n]{0,60}", at in 0usize..30) {
            let whole = read(text.as_bytes(), CSV);
            let Some(&(border, line, _)) = whole.get(at) else { return Ok(()) };
            let (before, behind) = text.as_bytes().split_at(border as usize);
            let mut parts = read(before, CSV);
            let mut records = Records::new(behind, CSV, border, line);
            while let Some(raw) = records.next().expect("memory is read") {
                parts.push((raw.offset, raw.line, raw.bytes.map(<[u8]>::to_vec)));
            }
            proptest::prop_assert_eq!(parts, whole);
        }
    }
}
