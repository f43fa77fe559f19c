//! Copies of sources that cannot be read by ranges as they are: standard input, compressed files, other encodings.
//!
//! A copy is named by its content, written under a temporary name, synced and then renamed: it is either whole or not there,
//! and whoever needs the same one finds it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use encoding_rs::{DecoderResult, UTF_8};
use xxhash_rust::xxh3::Xxh3;

use super::GivenUp;
use super::dialect::{Compression, Dialect, encoding_name};
use super::part::Part;
use super::records::CHUNK_BYTES;
use crate::model::code::{Code, Fault};

/// Copies a stream that can be read only once, such as standard input, and returns the copy's path: a `table_name` for a
/// batch. The same content always gives the same path. Blocking; bounded memory.
pub fn spool(mut reader: impl Read, spool_dir: &Path) -> Result<PathBuf, Fault> {
    let mut copy = Copy::begin(spool_dir)?;
    let mut hash = Xxh3::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = read(&mut reader, &mut chunk)
            .map_err(|error| Fault::new(Code::SourceBroken, format!("the input cannot be read: {error}")))?;
        if count == 0 {
            break;
        }
        hash.update(&chunk[..count]);
        copy.write(&chunk[..count])?;
    }
    copy.finish(&format!("input-{:032x}", hash.digest128()))
}

/// Removes what killed processes left half-written. Call it once, by the process that holds the data folder.
pub fn sweep(spool_dir: &Path) -> io::Result<()> {
    remove(spool_dir, |name, _| Ok(name.ends_with(HALF_WRITTEN)))
}

/// Removes copies that nothing was planned from or read from since `unused_since`; returns how many. They are whole lists of
/// people, so they should not outlive their batches. A copy of a file is made again when it is needed; one of standard input
/// cannot be, so keep it as long as its batch may still be prepared.
pub fn expire(spool_dir: &Path, unused_since: SystemTime) -> io::Result<u64> {
    let mut removed = 0;
    remove(spool_dir, |name, facts| {
        let expired = !name.ends_with(HALF_WRITTEN) && facts.modified()? < unused_since;
        removed += u64::from(expired);
        Ok(expired)
    })?;
    Ok(removed)
}

/// The same for conversions alone: plain copies of lists that are compressed or of another encoding, which are made again when they
/// are needed.
pub fn expire_converted(spool_dir: &Path, unused_since: SystemTime) -> io::Result<u64> {
    let mut removed = 0;
    remove(spool_dir, |name, facts| {
        let expired = is_converted(name) && facts.modified()? < unused_since;
        removed += u64::from(expired);
        Ok(expired)
    })?;
    Ok(removed)
}

/// Whether a copy of this name was made by [`converted`].
pub(super) fn is_converted(name: &str) -> bool {
    name.starts_with(CONVERTED)
}

/// Notes that a copy is used, for [`expire`].
pub(super) fn touch(copy: &Path) -> io::Result<()> {
    File::open(copy)?.set_modified(SystemTime::now())
}

fn remove(folder: &Path, mut is_old: impl FnMut(&str, &fs::Metadata) -> io::Result<bool>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if is_old(&entry.file_name().to_string_lossy(), &entry.metadata()?)? {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// What the name of a conversion begins with.
const CONVERTED: &str = "text-";
/// A list may expand to so many times its size: ten times what lists of people do, and a quarter of what gzip can.
const EXPANSION_MAX: u64 = 250;
/// Up to here nobody asks.
const EXPANDED_FREELY: u64 = 256 << 20;

/// The plain UTF-8 copy of a file of the dialect, made if it is not there, and XXH3-64 of the original. `content` is that hash
/// when it is known: it names the copy, and is checked while the original is read; without it the one pass finds it out. More
/// than `expanded_max` bytes are refused, and so is what no list of people expands to. What cannot be decoded becomes the byte FF,
/// which no UTF-8 has, so that its row is rejected where it stands.
pub(super) fn converted(
    original: &Part,
    content: Option<u64>,
    dialect: &Dialect,
    (spool_dir, expanded_max): (&Path, u64),
    given_up: &GivenUp,
) -> Result<(PathBuf, u64), Fault> {
    if let Some(content) = content
        && let Some(copy) = existing(content, original.size, dialect, spool_dir)
    {
        return Ok((copy, content));
    }
    let expanded_max = expanded_max.min(EXPANDED_FREELY.max(original.size.saturating_mul(EXPANSION_MAX)));
    let mut hashed = Hashed::new(original.open()?, given_up);
    let mut copy = Copy::begin(spool_dir)?;
    {
        let mut input = expanded(&mut hashed, dialect.compression)?;
        let mut text = Transcoder::new(dialect);
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = read(&mut input, &mut chunk).map_err(|error| broken(&original.name, &error))?;
            let written = text.convert(&chunk[..count], count == 0);
            if copy.bytes + written.len() as u64 > expanded_max {
                let context = format!("{} expands to more than {expanded_max} bytes", original.name);
                return Err(Fault::new(Code::SourceBroken, context));
            }
            copy.write(written)?;
            if count == 0 {
                break;
            }
        }
    }
    let found = hashed.hash.digest();
    if hashed.bytes != original.size || content.is_some_and(|content| content != found) {
        return Err(super::changed(&original.name));
    }
    if let Some(copy) = existing(found, original.size, dialect, spool_dir) {
        return Ok((copy, found));
    }
    Ok((copy.finish(&name_of(found, original.size, dialect))?, found))
}

/// The copy that [`converted`] made before.
pub(super) fn existing(content: u64, size: u64, dialect: &Dialect, spool_dir: &Path) -> Option<PathBuf> {
    let path = spool_dir.join(name_of(content, size, dialect));
    path.exists().then_some(path)
}

/// What the copy of an original with this content and size is called.
pub(super) fn name_of(content: u64, size: u64, dialect: &Dialect) -> String {
    let (encoding, compression) = (encoding_name(dialect.encoding), dialect.compression);
    format!("{CONVERTED}{content:016x}-{size}-{compression}-{encoding}")
}

/// The first bytes of a file as they are behind its compression.
pub(super) fn expanded_sample(original: &Part, compression: Compression, bytes: usize) -> Result<Vec<u8>, Fault> {
    // As it is, no more is fetched than is looked at.
    let input = if compression == Compression::Plain { original.open_range(0, bytes as u64)? } else { original.open()? };
    let mut sample = Vec::with_capacity(bytes);
    let read = expanded(input, compression)?.take(bytes as u64).read_to_end(&mut sample);
    read.map_err(|error| broken(&original.name, &error))?;
    Ok(sample)
}

fn expanded<'a>(input: impl Read + 'a, compression: Compression) -> Result<Box<dyn Read + 'a>, Fault> {
    Ok(match compression {
        Compression::Plain => Box::new(input),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::with_capacity(CHUNK_BYTES, input))),
        Compression::Zstd => Box::new(
            zstd::stream::read::Decoder::new(input)
                .map_err(|error| Fault::new(Code::Internal, format!("zstd does not start: {error}")))?,
        ),
    })
}

fn broken(name: &str, error: &io::Error) -> Fault {
    super::read_fault(error)
        .unwrap_or_else(|| Fault::new(super::broken_or_away(error), format!("{name} cannot be read: {error}")))
}

pub(super) fn read(input: &mut impl Read, chunk: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Hashes what is read, and reads no further once nobody waits for it.
pub(super) struct Hashed<'a, R> {
    input: R,
    given_up: &'a GivenUp,
    pub hash: Xxh3,
    pub bytes: u64,
}

impl<R> Hashed<'_, R> {
    pub fn new(input: R, given_up: &GivenUp) -> Hashed<'_, R> {
        Hashed { input, given_up, hash: Xxh3::new(), bytes: 0 }
    }
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        self.given_up.check()?;
        let count = self.input.read(chunk)?;
        self.hash.update(&chunk[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

/// Turns text of any encoding into UTF-8, piece by piece.
struct Transcoder {
    decoder: Option<encoding_rs::Decoder>,
    text: Vec<u8>,
}

impl Transcoder {
    fn new(dialect: &Dialect) -> Transcoder {
        // UTF-8 stays as it is, with what is wrong in it. A byte order mark becomes UTF-8's, which the planner passes over.
        let decoder = (dialect.encoding != UTF_8).then(|| dialect.encoding.new_decoder_without_bom_handling());
        Transcoder { decoder, text: vec![] }
    }

    fn convert(&mut self, bytes: &[u8], last: bool) -> &[u8] {
        self.text.clear();
        let Some(decoder) = &mut self.decoder else {
            self.text.extend_from_slice(bytes);
            return &self.text;
        };
        let mut from = 0;
        let mut at = 0;
        self.text.resize(3 * bytes.len() + 64, 0);
        loop {
            let (result, read, written) = decoder.decode_to_utf8_without_replacement(&bytes[from..], &mut self.text[at..], last);
            from += read;
            at += written;
            match result {
                DecoderResult::InputEmpty => break,
                DecoderResult::OutputFull => self.text.resize(2 * self.text.len(), 0),
                DecoderResult::Malformed(..) => {
                    if at == self.text.len() {
                        self.text.resize(2 * at, 0);
                    }
                    self.text[at] = 0xFF;
                    at += 1;
                }
            }
        }
        &self.text[..at]
    }
}

/// What the name of a file that is being written ends with.
pub(super) const HALF_WRITTEN: &str = ".half";

/// A file of the spool folder while it is written. Dropped before its end, it goes.
struct Copy {
    folder: PathBuf,
    path: PathBuf,
    file: File,
    bytes: u64,
    done: bool,
}

impl Copy {
    fn begin(folder: &Path) -> Result<Copy, Fault> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(folder).map_err(|error| cannot_write(folder, &error))?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{}-{number}{HALF_WRITTEN}", std::process::id()));
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path);
        let file = file.map_err(|error| cannot_write(&path, &error))?;
        Ok(Copy { folder: folder.to_path_buf(), path, file, bytes: 0, done: false })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|error| cannot_write(&self.path, &error))
    }

    fn finish(mut self, name: &str) -> Result<PathBuf, Fault> {
        let path = self.folder.join(name);
        self.file
            .sync_all()
            .and_then(|()| fs::rename(&self.path, &path))
            .and_then(|()| File::open(&self.folder)?.sync_all())
            .map_err(|error| cannot_write(&path, &error))?;
        self.done = true;
        Ok(path)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if !self.done {
            // What cannot be removed now is swept at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The fault of a place that cannot be written to.
pub(super) fn cannot_write(path: &Path, error: &io::Error) -> Fault {
    let code = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::StoreFull,
        _ => Code::StoreUnavailable,
    };
    Fault::new(code, format!("{} cannot be written: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What cannot be synced shows whether the system was asked to: for the file, and for the folder that its name stands in.
    #[test]
    fn a_copy_is_synced_and_so_is_its_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let (half, whole) = (folder.path().join("list.half"), folder.path().join("list"));
        for (of, file) in [(folder.path(), Path::new("/dev/null")), (Path::new("/proc"), half.as_path())] {
            fs::write(&half, "text").expect("it is written");
            let file = File::open(file).expect("it is there");
            let copy = Copy { folder: of.to_path_buf(), path: half.clone(), file, bytes: 4, done: false };
            let refused = copy.finish(whole.to_str().expect("a name"));
            assert!(refused.is_err(), "{refused:?}");
        }
    }
}
