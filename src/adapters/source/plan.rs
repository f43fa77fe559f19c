//! The planning pass: one look at every file of the list, in bounded memory, that ends in its columns and ranges.

use std::io::{self, Read};

use encoding_rs::{GB18030, UTF_8};
use xxhash_rust::xxh3::Xxh3;

use super::columns::{Columns, Names};
use super::detect::{self, Census};
use super::dialect::{Compression, Dialect, Format, Wanted};
use super::list::List;
use super::part::{Input, Part, Place, open_file};
use super::records::{CHUNK_BYTES, Framing, Records};
use super::spool::{self, Hashed};
use super::{GivenUp, ListSource, cannot_open_copy, cannot_read};
use crate::model::code::{Code, Fault};
use crate::model::record::{Fingerprint, PartPlan, RangePlan, SourcePlan};

/// UTF-8's byte order mark.
const MARK: &[u8] = b"\xEF\xBB\xBF";

/// How a list is looked at.
pub(super) struct Look<'a> {
    pub source: &'a ListSource,
    pub wanted: Wanted,
    pub range_records: u32,
    pub given_up: &'a GivenUp,
}

/// Plans a list. Blocking; what was read may have changed since `list` was made, which is the caller's to look at.
pub(super) fn plan(look: &Look<'_>, list: &List) -> Result<SourcePlan, Fault> {
    match &list.parts[..] {
        [part] if !list.is_folder => {
            let found = plan_part(look, part)?;
            if found.records == 0 {
                let after = if found.columns.is_empty() { "" } else { " after its header" };
                return Err(named(&part.name)(Fault::new(Code::SourceEmpty, format!("there is no record{after}"))));
            }
            Ok(SourcePlan {
                fingerprint: found.fingerprint,
                dialect: found.dialect.to_string(),
                columns: found.columns,
                ranges: found.ranges,
                records: found.records,
            })
        }
        parts => plan_folder(look, list, parts),
    }
}

/// Plans the files of a folder one after the other: one list with the same columns in all of them.
fn plan_folder(look: &Look<'_>, list: &List, parts: &[Part]) -> Result<SourcePlan, Fault> {
    let (mut columns, mut ranges, mut records) = (Shared::default(), vec![], 0);
    let mut content = Xxh3::new();
    for part in parts {
        let found = plan_part(look, part)?;
        content.update(&found.fingerprint.content.to_le_bytes());
        columns.add(part, &found)?;
        let end = found.ranges.last().map_or(0, |last| last.to);
        let planned =
            PartPlan { name: part.file_name.clone(), fingerprint: found.fingerprint, dialect: found.dialect.to_string(), end };
        ranges.extend(found.ranges.into_iter().map(|range| RangePlan {
            first_record: records + range.first_record,
            part: Some(Box::new(planned.clone())),
            ..range
        }));
        records += found.records;
    }
    if records == 0 {
        return Err(named(&list.name)(Fault::new(Code::SourceEmpty, "there is no record in any file of the folder")));
    }
    Ok(SourcePlan {
        fingerprint: Fingerprint { size: list.size(), version: list.version(), content: content.digest() },
        dialect: list.note()?,
        columns: columns.names.into_all(),
        ranges,
        records,
    })
}

/// The columns of a folder. A header says them for all files; objects of JSON Lines may lack keys, so without a header the
/// columns are all keys, and with one no object may have a key of its own.
#[derive(Default)]
struct Shared {
    names: Names,
    /// The file whose header says them.
    said_by: Option<String>,
    /// A file with keys, as long as no header was seen.
    keys_of: Option<String>,
}

impl Shared {
    fn add(&mut self, part: &Part, found: &Planned) -> Result<(), Fault> {
        if found.columns.is_empty() {
            return Ok(());
        }
        let differs = |what: String| {
            let text = format!("{}: {what}; all files of a folder have the same columns", part.name);
            Err(Fault::new(Code::InputInvalid, text))
        };
        let names = &mut self.names;
        match (found.dialect.format, &self.said_by) {
            (Format::Csv, Some(first)) if names.all() != found.columns => {
                differs(format!("its columns are {}, and those of {first} are {}", shown(&found.columns), shown(names.all())))
            }
            (Format::Csv, Some(_)) => Ok(()),
            (Format::Csv, None) => {
                let own = Names::of(&found.columns)?;
                if let (Some(key), Some(other)) = (names.all().iter().find(|key| !own.has(key)), &self.keys_of) {
                    return differs(format!("it has no column \"{key}\", which {other} has"));
                }
                (self.names, self.said_by) = (own, Some(part.file_name.clone()));
                Ok(())
            }
            (Format::JsonLines, Some(first)) => match found.columns.iter().find(|key| !names.has(key)) {
                Some(key) => differs(format!("it has the key \"{key}\", which is no column of {first}")),
                None => Ok(()),
            },
            (Format::JsonLines, None) => {
                self.keys_of.get_or_insert_with(|| part.file_name.clone());
                found.columns.iter().try_for_each(|key| names.add(key).map(|_| ())).map_err(named(&part.name))
            }
        }
    }
}

/// Names of columns, for people, not all of a thousand.
fn shown(columns: &[String]) -> String {
    let first: Vec<String> = columns.iter().take(8).map(|name| format!("\"{name}\"")).collect();
    let more = if columns.len() > 8 { format!(" and {} more", columns.len() - 8) } else { String::new() };
    format!("{}{more}", first.join(", "))
}

/// What the pass over one file found. A file without records may have no columns.
struct Planned {
    fingerprint: Fingerprint,
    dialect: Dialect,
    columns: Vec<String>,
    ranges: Vec<RangePlan>,
    records: u64,
}

fn plan_part(look: &Look<'_>, part: &Part) -> Result<Planned, Fault> {
    let wanted = &look.wanted;
    let raw = spool::expanded_sample(part, Compression::Plain, detect::SAMPLE_BYTES)?;
    let compression = wanted.compression.unwrap_or_else(|| detect::compression(&raw));
    let sample = match compression {
        Compression::Plain => raw,
        Compression::Gzip | Compression::Zstd => spool::expanded_sample(part, compression, detect::SAMPLE_BYTES)?,
    };
    let encoding = wanted.encoding.map_or_else(|| detect::encoding(&sample), Ok).map_err(named(&part.name))?;
    // Format and delimiter are found out in the UTF-8 text; the copy is made without them.
    let header = wanted.header.unwrap_or(true);
    let mut dialect = Dialect { format: Format::Csv, delimiter: b',', header, encoding, compression };
    let mut fingerprint = part.fingerprint();
    let mut found = pass_over(look, part, &sample, &mut dialect, &mut fingerprint)?;
    // The first sign of GB18030 may come behind the sample. Then the pass has seen it and is made again.
    if wanted.encoding.is_none() && dialect.encoding == UTF_8 && found.census.is_gb18030() {
        dialect.encoding = GB18030;
        found = pass_over(look, part, &sample, &mut dialect, &mut fingerprint)?;
    }
    Ok(Planned { fingerprint, dialect, columns: found.columns, ranges: found.ranges, records: found.records })
}

/// What one pass over a text found.
struct Found {
    columns: Vec<String>,
    ranges: Vec<RangePlan>,
    records: u64,
    census: Census,
}

/// Finds out what the dialect leaves open, and goes through the text, which begins with `sample` where it is read in place.
/// Completes dialect and fingerprint.
fn pass_over(
    look: &Look<'_>,
    part: &Part,
    sample: &[u8],
    dialect: &mut Dialect,
    fingerprint: &mut Fingerprint,
) -> Result<Found, Fault> {
    let Look { source, wanted, range_records, given_up } = look;
    let name = &part.name;
    let read_error = |error: io::Error| cannot_read(name, &error);
    let copy = if dialect.is_readable_in_place() {
        None
    } else {
        // A near file is read twice, so that a copy that is there already is found; a far one once.
        let content = if part.is_near() { Some(hash_of(part, given_up)?) } else { None };
        let (copy, content) = spool::converted(part, content, dialect, (&source.spool_dir, source.expanded_max), given_up)?;
        fingerprint.content = content;
        Some(copy)
    };
    let mut of_copy = vec![];
    let (input, sample): (Input, &[u8]) = match &copy {
        Some(copy) => {
            let shown = copy.display().to_string();
            let open = |to: u64| open_file(copy, &shown, 0, to).map_err(cannot_open_copy);
            source.note_use(copy).map_err(cannot_open_copy)?;
            open(detect::SAMPLE_BYTES as u64)?.read_to_end(&mut of_copy).map_err(read_error)?;
            (open(u64::MAX)?, &of_copy)
        }
        None => {
            if let Place::File(path) = &part.place {
                source.note_use(path)?;
            }
            (part.open()?, sample)
        }
    };
    let text = sample.strip_prefix(MARK).unwrap_or(sample);
    let mark = (sample.len() - text.len()) as u64;
    dialect.format = wanted.format.map_or_else(|| detect::format(text), Ok).map_err(named(name))?;
    dialect.delimiter = wanted.delimiter.unwrap_or_else(|| detect::delimiter(text));

    let mut input = Hashed::new(input, given_up);
    io::copy(&mut (&mut input).take(mark), &mut io::sink()).map_err(read_error)?;
    let mut records = Records::new(input, framing(dialect), mark, 1);
    let mut columns = Columns::begin(dialect, wanted.header.is_none());
    let mut census = Census::default();
    let (ranges, count) = pass(name, &mut records, &mut columns, &mut census, *range_records)?;
    if copy.is_none() {
        let read = records.into_input();
        if read.bytes != part.size {
            return Err(super::changed(name));
        }
        fingerprint.content = read.hash.digest();
    }
    let columns = if count == 0 { columns.names().to_vec() } else { columns.finish().map_err(named(name))? };
    Ok(Found { columns, ranges, records: count, census })
}

/// The ranges of a text, and how many records they hold. A range begins where a line begins and reaches to the next one.
fn pass<R: Read>(
    name: &str,
    records: &mut Records<R>,
    columns: &mut Columns,
    census: &mut Census,
    range_records: u32,
) -> Result<(Vec<RangePlan>, u64), Fault> {
    let read_error = |error: io::Error| cannot_read(name, &error);
    while columns.wants_header() {
        let Some(raw) = records.next().map_err(read_error)? else { return Ok((vec![], 0)) };
        columns.header(&raw).map_err(named(name))?;
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
        columns.record(&raw).map_err(named(name))?;
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

/// Puts the file's name before what is said of it.
fn named(name: &str) -> impl Fn(Fault) -> Fault {
    move |fault| Fault::new(fault.code, format!("{name}: {}", fault.context))
}

fn hash_of(part: &Part, given_up: &GivenUp) -> Result<u64, Fault> {
    let mut input = Hashed::new(part.open()?, given_up);
    let mut chunk = vec![0; CHUNK_BYTES];
    while spool::read(&mut input, &mut chunk).map_err(|error| cannot_read(&part.name, &error))? > 0 {}
    Ok(input.hash.digest())
}
