//! The planning pass: one look at the whole file, in bounded memory, that ends in its columns and ranges.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use encoding_rs::{GB18030, UTF_8};
use xxhash_rust::xxh3::Xxh3;

use super::columns::Columns;
use super::detect::{self, Census};
use super::dialect::{Compression, Dialect, Format, Wanted};
use super::records::{CHUNK_BYTES, Framing, Records};
use super::spool::{self, Hashed};
use super::{FileSource, cannot_open, cannot_read, changed, version};
use crate::model::code::{Code, Fault};
use crate::model::record::{Fingerprint, RangePlan, SourcePlan};

/// UTF-8's byte order mark.
const MARK: &[u8] = b"\xEF\xBB\xBF";

/// Plans a file. Blocking.
pub(super) fn plan(source: &FileSource, path: &Path, wanted: Wanted, range_records: u32) -> Result<SourcePlan, Fault> {
    let mut fingerprint = version(path, &source.spool_dir)?;
    let before = fingerprint.clone();
    let head = spool::expanded_sample(path, Compression::Plain, 64)?;
    let compression = wanted.compression.unwrap_or_else(|| detect::compression(&head));
    let sample = spool::expanded_sample(path, compression, detect::SAMPLE_BYTES)?;
    let encoding = wanted.encoding.map_or_else(|| detect::encoding(&sample), Ok).map_err(named(path))?;
    // Format and delimiter are found out in the UTF-8 text; the copy is made without them.
    let header = wanted.header.unwrap_or(true);
    let mut dialect = Dialect { format: Format::Csv, delimiter: b',', header, encoding, compression };
    let mut found = look(source, path, &wanted, &mut dialect, &mut fingerprint, range_records)?;
    // The first sign of GB18030 may come behind the sample. Then the pass has seen it and is made again.
    if wanted.encoding.is_none() && dialect.encoding == UTF_8 && found.census.is_gb18030() {
        dialect.encoding = GB18030;
        found = look(source, path, &wanted, &mut dialect, &mut fingerprint, range_records)?;
    }
    if version(path, &source.spool_dir)? != before {
        return Err(changed(path));
    }
    Ok(SourcePlan {
        fingerprint,
        dialect: dialect.to_string(),
        columns: found.columns,
        ranges: found.ranges,
        records: found.records,
    })
}

/// What one pass over a text found.
struct Found {
    columns: Vec<String>,
    ranges: Vec<RangePlan>,
    records: u64,
    census: Census,
}

/// Finds out what the dialect leaves open, and goes through the text. Completes dialect and fingerprint.
fn look(
    source: &FileSource,
    path: &Path,
    wanted: &Wanted,
    dialect: &mut Dialect,
    fingerprint: &mut Fingerprint,
    range_records: u32,
) -> Result<Found, Fault> {
    let read_error = |error: io::Error| named(path)(cannot_read(&error));
    let text = if dialect.is_readable_in_place() {
        path.to_path_buf()
    } else {
        fingerprint.content = hash_file(path).map_err(read_error)?;
        spool::converted(path, fingerprint, dialect, &source.spool_dir, source.expanded_max)?
    };
    source.note_use(&text)?;
    let mut file = File::open(&text).map_err(|error| cannot_open(&text, &error))?;
    let mut sample = vec![];
    (&mut file).take(detect::SAMPLE_BYTES as u64).read_to_end(&mut sample).map_err(read_error)?;
    let text = sample.strip_prefix(MARK).unwrap_or(&sample);
    let mark = (sample.len() - text.len()) as u64;
    dialect.format = wanted.format.map_or_else(|| detect::format(text), Ok).map_err(named(path))?;
    dialect.delimiter = wanted.delimiter.unwrap_or_else(|| detect::delimiter(text));

    file.seek(SeekFrom::Start(0)).map_err(read_error)?;
    let mut input = Hashed { input: file, hash: Xxh3::new(), bytes: 0 };
    io::copy(&mut (&mut input).take(mark), &mut io::sink()).map_err(read_error)?;
    let mut records = Records::new(input, framing(dialect), mark, 1);
    let mut columns = Columns::begin(dialect, wanted.header.is_none());
    let mut census = Census::default();
    let (ranges, count) = pass(&mut records, &mut columns, &mut census, range_records).map_err(named(path))?;
    if dialect.is_readable_in_place() {
        fingerprint.content = records.into_input().hash.digest();
    }
    if count == 0 {
        let after = if columns.names().is_empty() { "" } else { " after its header" };
        return Err(named(path)(Fault::new(Code::SourceEmpty, format!("there is no record{after}"))));
    }
    Ok(Found { columns: columns.finish().map_err(named(path))?, ranges, records: count, census })
}

/// The ranges of a text, and how many records they hold. A range begins where a line begins and reaches to the next one.
fn pass<R: Read>(
    records: &mut Records<R>,
    columns: &mut Columns,
    census: &mut Census,
    range_records: u32,
) -> Result<(Vec<RangePlan>, u64), Fault> {
    let read_error = |error: io::Error| cannot_read(&error);
    while columns.wants_header() {
        let Some(raw) = records.next().map_err(read_error)? else { return Ok((vec![], 0)) };
        columns.header(&raw)?;
    }
    let per_range = u64::from(range_records.max(1));
    let (mut ranges, mut range, mut count) = (vec![], RangePlan::default(), 0);
    while records.skip_line_ends().map_err(read_error)? {
        if range.records == per_range {
            ranges.push(RangePlan { to: records.offset(), content: records.take_hash(), ..range });
            range = RangePlan::default();
        }
        if range.records == 0 {
            // What lies before the first record of a range is no part of it.
            records.take_hash();
            range = RangePlan { from: records.offset(), first_line: records.line(), first_record: count, ..range };
        }
        let Some(raw) = records.next().map_err(read_error)? else { break };
        if let Ok(bytes) = raw.bytes {
            census.add(bytes);
        }
        columns.record(&raw);
        range.records += 1;
        count += 1;
    }
    if range.records > 0 {
        ranges.push(RangePlan { to: records.offset(), content: records.take_hash(), ..range });
    }
    Ok((ranges, count))
}

/// What separates the records of a dialect.
pub(super) fn framing(dialect: &Dialect) -> Framing {
    match dialect.format {
        Format::Csv => Framing::Quoted { delimiter: dialect.delimiter },
        Format::JsonLines => Framing::Lines,
    }
}

/// Puts the file's path before what is said of it.
fn named(path: &Path) -> impl Fn(Fault) -> Fault {
    move |fault| Fault::new(fault.code, format!("{}: {}", path.display(), fault.context))
}

fn hash_file(path: &Path) -> io::Result<u64> {
    let mut file = Hashed { input: File::open(path)?, hash: Xxh3::new(), bytes: 0 };
    let mut chunk = vec![0; CHUNK_BYTES];
    while spool::read(&mut file, &mut chunk)? > 0 {}
    Ok(file.hash.digest())
}
