//! Finding where records begin and end in a stream of bytes: one implementation for the planning pass and for reading ranges,
//! so that both see the same records.
//!
//! The borders are those of crate `csv` (property tested): a record ends at CR, LF or CR LF outside quotes, empty lines are no
//! records, a quote opens only at the beginning of a field, and what follows a closing quote belongs to the field as it is.
//! In one thing this is stricter: a quote that is not closed within [`RECORD_BYTES_MAX`] or before the end costs the line it
//! stands in and no more, instead of swallowing everything behind it. What was looked at to find that out is not looked at
//! again for every line behind it ([`Followed`]): the work grows with the bytes, whatever they are.

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
    /// The longest record: [`RECORD_BYTES_MAX`], but for tests.
    longest: usize,
    /// Read bytes; those before `at` belong to records that were handed out.
    buffer: Vec<u8>,
    at: usize,
    filled: usize,
    ended: bool,
    /// Where `buffer` begins in the stream.
    base: u64,
    line: u64,
    after_return: bool,
    followed: Option<Followed>,
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
            longest: RECORD_BYTES_MAX,
            buffer: vec![0; CHUNK_BYTES],
            at: 0,
            filled: 0,
            ended: false,
            base: offset,
            line,
            after_return: false,
            followed: None,
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
        let mut reading = Reading::default();
        loop {
            let from = self.at + reading.place;
            let hit = memchr3(b'"', b'\n', b'\r', &self.buffer[from..self.filled]);
            reading.place = hit.map_or(self.filled, |hit| from + hit) - self.at;
            if reading.place > self.longest {
                return self.cut(Cut::TooLong, reading);
            }
            if hit.is_none() {
                if self.fill()? {
                    continue;
                }
                return if reading.open { self.cut(Cut::Unclosed, reading) } else { Ok(self.whole(&reading)) };
            }
            let byte = self.buffer[self.at + reading.place];
            match (byte, reading.open) {
                (b'"', false) => {
                    reading.open = reading.place == 0 || self.buffer[self.at + reading.place - 1] == delimiter;
                    reading.quoted = true;
                }
                (b'"', true) => {
                    if self.at + reading.place + 1 == self.filled {
                        self.fill()?;
                    }
                    let behind = self.at + reading.place + 1;
                    if behind < self.filled && self.buffer[behind] == b'"' {
                        reading.place += 1;
                    } else {
                        reading.open = false;
                    }
                }
                (_, false) => return Ok(self.whole(&reading)),
                (_, true) => {
                    // A CR LF counts once.
                    reading.lines += u64::from(byte == b'\r' || self.buffer[self.at + reading.place - 1] != b'\r');
                    if reading.first_line_end.is_none() {
                        reading.first_line_end = Some(reading.place);
                        if self.goes_on_as_followed(&mut reading) {
                            continue;
                        }
                    }
                }
            }
            reading.place += 1;
        }
    }

    /// Skips what an earlier reading went through: see [`Followed`].
    fn goes_on_as_followed(&self, reading: &mut Reading) -> bool {
        let here = self.offset() + reading.place as u64;
        let Some(Followed { to, open, line }) = self.followed.filter(|followed| followed.to > here) else { return false };
        // It was never read further than the buffer is filled.
        reading.place += (to - here) as usize;
        (reading.open, reading.lines) = (open, line - self.line);
        true
    }

    /// A record that ends where its reading stands.
    fn whole(&mut self, reading: &Reading) -> Found {
        self.line += reading.lines;
        Found { length: reading.place, cut: None, quoted: reading.quoted }
    }

    fn line_record(&mut self) -> io::Result<Found> {
        let mut reading = Reading::default();
        loop {
            let from = self.at + reading.place;
            let hit = memchr2(b'\n', b'\r', &self.buffer[from..self.filled]);
            reading.place = hit.map_or(self.filled, |hit| from + hit) - self.at;
            if reading.place > self.longest {
                return self.cut(Cut::TooLong, reading);
            }
            if hit.is_some() || !self.fill()? {
                return Ok(self.whole(&reading));
            }
        }
    }

    /// Ends a record at the end of its first line, so that the next line is read as if nothing had happened.
    fn cut(&mut self, cut: Cut, reading: Reading) -> io::Result<Found> {
        let Reading { mut place, open, quoted, lines, first_line_end } = reading;
        if let Some(length) = first_line_end {
            self.followed = Some(Followed { to: self.offset() + place as u64, open, line: self.line + lines });
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

    /// Reads more behind what is there; `false` at the end. Bytes before `at` go, once they are worth moving the rest for: after
    /// a record that was cut a whole megabyte may be left behind a few bytes.
    fn fill(&mut self) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        if self.at >= CHUNK_BYTES || self.at >= self.filled - self.at {
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

/// How far a record at `at` was read.
#[derive(Default)]
struct Reading {
    /// Counted from `at`, which is the record's beginning and moves when the buffer is filled.
    place: usize,
    /// Whether a quote is open there.
    open: bool,
    /// Whether there was a quote before it.
    quoted: bool,
    /// Ends of lines before it, all of them within quotes.
    lines: u64,
    /// Where the first of them is.
    first_line_end: Option<usize>,
}

/// How far a record was read that was cut in the end: from its first line on, every end of a line up to `to` was within quotes.
///
/// Two readings of the same bytes differ in nothing but whether a quote is open. So one that begins in a later line ends with that
/// line, where it finds no quote open, or goes on exactly as this one did: then it need not go through those bytes again.
#[derive(Clone, Copy)]
struct Followed {
    /// In the stream.
    to: u64,
    /// Whether a quote is open there.
    open: bool,
    /// Which line it is.
    line: u64,
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
