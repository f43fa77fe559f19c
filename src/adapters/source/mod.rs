//! Lists of recipients in files: CSV and JSON Lines, of any encoding, compressed or not.
//!
//! A file is looked at once (`plan`): what it is, its columns, and ranges whose borders lie between records. Then its ranges are
//! read in any order, as often as asked, in bounded memory, and each proves at its end that it is what was planned (`range`).
//! Both find the records with the same code (`records`). What cannot be read by ranges as it is, is first copied as plain
//! UTF-8 (`spool`). How a caller names what looking cannot tell: see `dialect`.
//!
//! Architecture invariant: nothing here knows what a telephone number or a template is.

mod columns;
mod copies;
mod detect;
mod dialect;
mod fields;
mod json_fields;
mod plan;
mod range;
mod records;
mod spool;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub use self::copies::SpoolCopies;
pub use spool::{expire, spool, sweep};

use self::dialect::{Dialect, Wanted};
use crate::model::code::{Code, Fault};
use crate::model::record::{Fingerprint, RangePlan, SourcePlan};
use crate::ports::source::{RangeReader, Source, SourceSpec};

/// What a compressed or recoded file may expand to, unless configured otherwise.
pub const EXPANDED_BYTES_MAX: u64 = 64 << 30;

/// Files of this machine. `SourceSpec::table_name` is a path.
///
/// `SourceSpec::dialect` names what should not be found out, as `key=value` with `;` between: `format` (`csv`, `jsonl`),
/// `delimiter` (`comma`, `semicolon`, `tab`, `pipe`, `space` or a character), `header` (`yes`, `no`), `encoding` (`auto` or a
/// WHATWG label), `compression` (`none`, `gzip`, `zstd`). Empty finds everything out.
#[derive(Clone, Debug)]
pub struct FileSource {
    spool_dir: PathBuf,
    expanded_max: u64,
}

impl FileSource {
    /// A source that keeps its copies in `spool_dir`.
    pub fn new(spool_dir: PathBuf) -> FileSource {
        FileSource { spool_dir, expanded_max: EXPANDED_BYTES_MAX }
    }

    /// Refuses files that expand to more bytes than this.
    pub fn with_expanded_max(mut self, bytes: u64) -> FileSource {
        self.expanded_max = bytes;
        self
    }

    /// Keeps a text from expiring when it is one of the spool folder's.
    fn note_use(&self, text: &Path) -> Result<(), Fault> {
        if text.parent() == Some(&self.spool_dir) {
            spool::touch(text).map_err(|error| cannot_open(text, &error))?;
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Source for FileSource {
    async fn plan(&self, spec: &SourceSpec, range_records: u32) -> Result<SourcePlan, Fault> {
        let (source, path) = (self.clone(), PathBuf::from(&spec.table_name));
        let wanted = Wanted::parse(&spec.dialect)?;
        blocking(move || plan::plan(&source, &path, wanted, range_records)).await
    }

    async fn open(&self, spec: &SourceSpec, plan: &SourcePlan, range: &RangePlan) -> Result<Box<dyn RangeReader>, Fault> {
        let path = PathBuf::from(&spec.table_name);
        let dialect = Dialect::parse(&plan.dialect)?;
        let now = version(&path, &self.spool_dir)?;
        if (now.size, &now.version) != (plan.fingerprint.size, &plan.fingerprint.version) {
            return Err(changed(&path));
        }
        let text = if dialect.is_readable_in_place() {
            path.clone()
        } else {
            let (source, path, fingerprint) = (self.clone(), path.clone(), plan.fingerprint.clone());
            // It is there, unless this machine is not the one that planned.
            match spool::existing(&fingerprint, &dialect, &source.spool_dir) {
                Some(copy) => copy,
                None => {
                    let convert = move || spool::converted(&path, &fingerprint, &dialect, &source.spool_dir, source.expanded_max);
                    blocking(convert).await?
                }
            }
        };
        self.note_use(&text)?;
        Ok(Box::new(range::FileRange::open(&text, &path, &dialect, plan, range)?))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|error| Err(Fault::new(Code::Internal, format!("reading a source broke off: {error}"))))
}

/// What can be told of a file without reading it. A copy in the spool folder is named by its content and never changes, so it
/// stays the same file when the folder is moved.
fn version(path: &Path, spool_dir: &Path) -> Result<Fingerprint, Fault> {
    let facts = std::fs::metadata(path).map_err(|error| cannot_open(path, &error))?;
    if !facts.is_file() {
        let what = if facts.is_dir() { "is a directory" } else { "is no regular file: pipe it into the standard input instead" };
        return Err(Fault::new(Code::SourceNotFound, format!("{} {what}", path.display())));
    }
    let version = if path.parent() == Some(spool_dir) {
        "spooled".to_string()
    } else {
        format!("{}.{:09}-{}", facts.mtime(), facts.mtime_nsec(), facts.ino())
    };
    Ok(Fingerprint { size: facts.len(), version, content: 0 })
}

fn cannot_open(path: &Path, error: &io::Error) -> Fault {
    Fault::new(Code::SourceNotFound, format!("{} cannot be opened: {error}", path.display()))
}

fn cannot_read(error: &io::Error) -> Fault {
    Fault::new(Code::SourceBroken, format!("reading failed: {error}"))
}

fn changed(path: &Path) -> Fault {
    Fault::new(Code::SourceChanged, format!("{} is not what it was when it was planned", path.display()))
}
