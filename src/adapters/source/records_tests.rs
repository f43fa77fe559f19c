//! Where records begin and end, whatever the bytes are and however they come.

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
    let expected = [(0, 1, Ok(b"a".to_vec())), (2, 2, Err(Cut::Unclosed)), (7, 3, Ok(b"d".to_vec())), (9, 4, Ok(b"e".to_vec()))];
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

/// Counts how often it is asked.
struct Counted<'a>(&'a [u8], usize);

impl Read for Counted<'_> {
    fn read(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        self.1 += 1;
        self.0.read(chunk)
    }
}

/// Every line leaves a quote open, so that every line is cut only after a megabyte behind it was looked at: four million bytes
/// would be six hundred thousand megabytes, if each were looked at for itself.
#[test]
fn quotes_that_stay_open_on_every_line_cost_no_more_than_others() {
    let mut bytes = b"phone,b\n".to_vec();
    bytes.extend(b"x\"y,\"z\n".repeat(600_000));
    let mut records = Records::new(Counted(&bytes, 0), CSV, 0, 1);
    let mut count = 0;
    while let Some(raw) = records.next().expect("memory is read") {
        count += 1;
        assert_eq!((raw.line, raw.offset), (count, if count == 1 { 0 } else { 7 * count - 6 }));
        let expected = match bytes.len() as u64 - raw.offset {
            _ if count == 1 => None,
            left if left > RECORD_BYTES_MAX as u64 => Some(Cut::TooLong),
            _ => Some(Cut::Unclosed),
        };
        assert_eq!(raw.bytes.err(), expected);
    }
    assert_eq!(count, 600_001);
    assert!(records.buffer.len() <= RECORD_BYTES_MAX + 2 * CHUNK_BYTES);
    assert_eq!(records.take_hash(), xxhash_rust::xxh3::xxh3_64(&bytes));
    // What is left is moved once for each chunk, and not for every few bytes.
    let reads = records.into_input().1;
    assert!(reads <= 2 * bytes.len() / CHUNK_BYTES + 2, "{reads} reads");
}

/// The same records by a reader that looks at every byte behind every line again.
fn read_simply(text: &[u8], longest: usize) -> Vec<(u64, u64, Result<Vec<u8>, Cut>)> {
    let is_end = |at: usize| matches!(text.get(at), Some(b'\r' | b'\n'));
    let is_line = |at: &usize| text[*at] == b'\r' || text[*at] == b'\n' && (*at == 0 || text[*at - 1] != b'\r');
    let (mut found, mut at) = (vec![], 0);
    loop {
        while is_end(at) {
            at += 1;
        }
        if at == text.len() {
            return found;
        }
        let (mut place, mut open) = (at, false);
        let cut = loop {
            match text.get(place) {
                _ if place - at > longest => break Some(Cut::TooLong),
                None => break open.then_some(Cut::Unclosed),
                Some(b'"') if open && text.get(place + 1) == Some(&b'"') => place += 1,
                Some(b'"') if open => open = false,
                Some(b'"') => open = place == at || text[place - 1] == b',',
                Some(b'\r' | b'\n') if !open => break None,
                Some(_) => {}
            }
            place += 1;
        };
        let line_end = (at..).find(|place| is_end(*place) || *place == text.len()).expect("a text ends");
        let end = if cut.is_some() { line_end } else { place };
        let bytes = cut.map_or_else(|| Ok(text[at..end].to_vec()), Err);
        found.push((at as u64, 1 + (0..at).filter(is_line).count() as u64, bytes));
        at = end;
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(2_000))]

    #[test]
    fn what_was_looked_at_before_changes_no_record(text in "[ab,,\"\"\"\r\n\n]{0,80}", count in 1usize..9, longest in 0usize..40) {
        let mut records = Records::new(Trickle(text.as_bytes(), count), CSV, 0, 1);
        records.longest = longest;
        let mut found = vec![];
        while let Some(raw) = records.next().expect("memory is read") {
            found.push((raw.offset, raw.line, raw.bytes.map(<[u8]>::to_vec)));
        }
        proptest::prop_assert_eq!(found, read_simply(text.as_bytes(), longest));
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
