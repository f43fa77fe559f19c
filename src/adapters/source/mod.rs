//! Lists of recipients: CSV and JSON Lines, of any encoding, compressed or not, in files, folders and object stores; and tables.
//!
//! A list is looked at once (`plan`): what it is, its columns, and ranges whose borders lie between records. Then its ranges are
//! read in any order, as often as asked, in bounded memory, and each proves at its end that it is what was planned (`range`).
//! Both find the records with the same code (`records`). Where a list may be, and how its bytes come: `address`, `list`, `part`,
//! `objects`, `fetch`. What cannot be read by ranges as it is, is first copied as plain UTF-8 (`spool`). What was handed in over
//! the network is kept by `uploads`. How a caller names what looking cannot tell: see `dialect`. A table is no text and is read by
//! its keys: `azure_table`.
//!
//! Architecture invariant: nothing here knows what a telephone number or a template is.

mod address;
mod azure_table;
mod columns;
mod connector;
mod copies;
mod detect;
mod dialect;
mod fetch;
mod fields;
mod json_fields;
mod list;
mod object_config;
mod objects;
mod part;
mod plan;
mod range;
mod records;
mod spool;
mod uploads;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

pub use self::copies::{SpoolCopies, UploadCopies};
pub use address::{StoreKind, is_remote, is_store};
pub use azure_table::{AzureTableConfig, AzureTables};
pub use object_config::ObjectStoreConfig;
pub use objects::ObjectStores;
pub use spool::{expire, expire_converted, spool, sweep};
pub use uploads::{BucketUploads, FolderUploads};

use self::address::Address;
use self::dialect::{Dialect, Wanted};
use self::list::List;
use self::part::{Part, Place, open_file};
use self::range::{FetchedRange, LocalRange, RangeRecords};
use self::uploads::UploadPlace;
use crate::model::code::{Code, Fault};
use crate::model::record::{Fingerprint, RangePlan, SourcePlan};
use crate::ports::source::{RangeReader, Source, SourceSpec};

/// What a compressed or recoded file may expand to, unless configured otherwise.
pub const EXPANDED_BYTES_MAX: u64 = 64 << 30;

/// No byte, record or line of any list lies behind this: a range that names such a place was never planned.
const PLACE_MAX: u64 = 1 << 60;

/// Lists wherever they are. `SourceSpec::table_name` is a path of this machine; `s3://BUCKET/KEY`, `az://CONTAINER/KEY` (or
/// `azure:`, `abfss:`), `gs://BUCKET/KEY`; `aztable://STORE/TABLE`; or `upload:SHA256`. A path that is a folder, and a key that ends in a slash, is one
/// list of all files directly in it, sorted by name, hidden ones left out.
///
/// `SourceSpec::dialect` names what should not be found out, as `key=value` with `;` between: `format` (`csv`, `jsonl`),
/// `delimiter` (`comma`, `semicolon`, `tab`, `pipe`, `space` or a character), `header` (`yes`, `no`), `encoding` (`auto` or a
/// WHATWG label), `compression` (`none`, `gzip`, `zstd`). Empty finds everything out. In a folder it is for every file.
#[derive(Clone, Debug)]
pub struct ListSource {
    spool_dir: PathBuf,
    expanded_max: u64,
    objects: Arc<ObjectStores>,
    tables: Arc<AzureTables>,
    uploads: Option<UploadPlace>,
    conversions: Arc<Conversions>,
}

/// Copies that are being made: a list's ranges are begun together, and each of them needs the same copy.
#[derive(Debug, Default)]
struct Conversions(Mutex<BTreeMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Conversions {
    /// Waits until nobody else in this process makes the copy of this name.
    async fn turn(&self, name: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let queue = {
            let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            queues.retain(|_, queue| queue.strong_count() > 0);
            let queue = queues.get(name).and_then(Weak::upgrade).unwrap_or_default();
            queues.insert(name.to_string(), Arc::downgrade(&queue));
            queue
        };
        queue.lock_owned().await
    }
}

impl ListSource {
    /// A source of local files that keeps its copies in `spool_dir`.
    pub fn new(spool_dir: PathBuf) -> ListSource {
        ListSource {
            spool_dir,
            expanded_max: EXPANDED_BYTES_MAX,
            objects: Arc::default(),
            tables: Arc::default(),
            uploads: None,
            conversions: Arc::default(),
        }
    }

    /// Refuses files that expand to more bytes than this.
    pub fn with_expanded_max(mut self, bytes: u64) -> ListSource {
        self.expanded_max = bytes;
        self
    }

    /// Reads the buckets of these stores too.
    pub fn with_objects(mut self, objects: ObjectStores) -> ListSource {
        self.objects = Arc::new(objects);
        self
    }

    /// Reads the tables of these accounts too.
    pub fn with_tables(mut self, tables: AzureTables) -> ListSource {
        self.tables = Arc::new(tables);
        self
    }

    /// Reads uploads that lie in a folder.
    pub fn with_uploads_in_folder(mut self, uploads: &FolderUploads) -> ListSource {
        self.uploads = Some(uploads.place());
        self
    }

    /// Reads uploads that lie in a bucket.
    pub fn with_uploads_in_bucket(mut self, uploads: &BucketUploads) -> ListSource {
        self.uploads = Some(uploads.place());
        self
    }

    /// Whether a batch may name this address; the answer is the address to store. For a request that came over the network a
    /// path must lie below one of `folders`, with all links resolved; the one of this machine's operator may be any path. Nobody
    /// reaches a bucket or a table that the configuration does not name.
    ///
    /// # Errors
    /// [`Code::InputInvalid`] for what is no address, [`Code::SourceForbidden`] for what is not allowed.
    pub fn check_address(&self, table_name: &str, from_network: bool, folders: &[PathBuf]) -> Result<String, Fault> {
        match Address::parse(table_name)? {
            Address::Object(address) => self.objects.bucket(&address).map(|_| table_name.to_string()),
            Address::Table(address) => self.tables.table(&address).map(|_| table_name.to_string()),
            Address::Upload(_) => Ok(table_name.to_string()),
            Address::Local(path) if from_network => {
                let real = address::allowed_path(&path, folders)?;
                let text = real.to_str().map(str::to_string);
                text.ok_or_else(|| Fault::new(Code::InputInvalid, format!("the path {} is no UTF-8", real.display())))
            }
            Address::Local(_) => Ok(table_name.to_string()),
        }
    }

    /// Whether the list is still what was planned, without reading it (a table's keys are walked). `dialect` is the plan's.
    ///
    /// # Errors
    /// [`Code::SourceChanged`], or what keeps it from being looked at.
    pub async fn unchanged(&self, table_name: &str, planned: &Fingerprint, dialect: &str) -> Result<(), Fault> {
        if let Address::Table(address) = Address::parse(table_name)? {
            return self.tables.unchanged(&address, planned, dialect).await;
        }
        let now = self.list(table_name).await?;
        if (now.size(), &now.version()) == (planned.size, &planned.version) { Ok(()) } else { Err(now.changed_since(dialect)) }
    }

    /// What lies at an address now, which is no table.
    async fn list(&self, table_name: &str) -> Result<List, Fault> {
        match Address::parse(table_name)? {
            // A folder may hold many files, and lie on another machine.
            Address::Local(path) if path.is_dir() => {
                let spool_dir = self.spool_dir.clone();
                blocking(move || list::local(&path, &spool_dir)).await
            }
            Address::Local(path) => list::local(&path, &self.spool_dir),
            Address::Object(address) => self.objects.bucket(&address)?.list(&address).await,
            Address::Table(address) => Err(Fault::new(Code::Internal, format!("{address} was taken for a list of files"))),
            Address::Upload(id) => {
                let place = self.uploads.as_ref();
                let none = || Fault::new(Code::SourceNotFound, format!("{table_name}: this fleet keeps no uploads"));
                Ok(List::single(place.ok_or_else(none)?.part(&id).await?))
            }
        }
    }

    /// Makes the plain copy of a file.
    async fn convert(&self, part: Part, content: u64, dialect: Dialect) -> Result<PathBuf, Fault> {
        let (folder, expanded_max) = (self.spool_dir.clone(), self.expanded_max);
        let convert =
            move |given_up: &GivenUp| spool::converted(&part, Some(content), &dialect, (&folder, expanded_max), given_up);
        Ok(blocking_while_wanted(convert).await?.0)
    }

    /// Keeps a text from expiring when it is one of the spool folder's.
    fn note_use(&self, text: &Path) -> Result<(), Fault> {
        if text.parent() == Some(&self.spool_dir) {
            spool::touch(text).map_err(|error| cannot_open(&text.display().to_string(), &error))?;
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Source for ListSource {
    async fn plan(&self, spec: &SourceSpec, range_records: u32) -> Result<SourcePlan, Fault> {
        if let Address::Table(address) = Address::parse(&spec.table_name)? {
            return self.tables.plan(&address, spec, range_records).await;
        }
        let wanted = Wanted::parse(&spec.dialect)?;
        let list = self.list(&spec.table_name).await?;
        let (source, before) = (self.clone(), list.clone());
        let look = move |given_up: &GivenUp| {
            let look = plan::Look { source: &source, wanted, range_records, given_up };
            plan::plan(&look, &list)
        };
        let plan = blocking_while_wanted(look).await?;
        let now = self.list(&spec.table_name).await?;
        if (now.size(), now.version()) != (before.size(), before.version()) {
            return Err(now.changed_since(&before.note()?));
        }
        Ok(plan)
    }

    async fn open(&self, spec: &SourceSpec, plan: &SourcePlan, range: &RangePlan) -> Result<Box<dyn RangeReader>, Fault> {
        if [range.from, range.to, range.first_record, range.first_line].iter().any(|place| *place > PLACE_MAX) {
            return Err(changed(&spec.table_name));
        }
        if let Address::Table(address) = Address::parse(&spec.table_name)? {
            return self.tables.open(&address, spec, plan, range);
        }
        let now = self.list(&spec.table_name).await?;
        if (now.size(), &now.version()) != (plan.fingerprint.size, &plan.fingerprint.version) {
            return Err(now.changed_since(&plan.dialect));
        }
        let (part, fingerprint, dialect) = match &range.part {
            Some(planned) => {
                let part = now.part(&planned.name).ok_or_else(|| now.changed_since(&plan.dialect))?;
                (part.clone(), &planned.fingerprint, &planned.dialect)
            }
            None => (now.parts.into_iter().next().ok_or_else(|| changed(&now.name))?, &plan.fingerprint, &plan.dialect),
        };
        let dialect = Dialect::parse(dialect)?;
        let name = part.name.clone();
        let input = if dialect.is_readable_in_place() {
            if let Place::File(path) = &part.place {
                self.note_use(path)?;
            }
            part.open_range(range.from, range.to)?
        } else {
            // It is there, unless this machine is not the one that planned.
            let existing = || spool::existing(fingerprint.content, fingerprint.size, &dialect, &self.spool_dir);
            let copy = match existing() {
                Some(copy) => copy,
                None => {
                    let _turn = self.conversions.turn(&spool::name_of(fingerprint.content, fingerprint.size, &dialect)).await;
                    match existing() {
                        Some(copy) => copy,
                        None => self.convert(part, fingerprint.content, dialect).await?,
                    }
                }
            };
            let opened = self.note_use(&copy).and_then(|()| open_file(&copy, &copy.display().to_string(), range.from, range.to));
            opened.map_err(cannot_open_copy)?
        };
        let is_near = matches!(input, part::Input::File(_));
        let records = RangeRecords::new(input, &name, &dialect, plan, range);
        Ok(if is_near { Box::new(LocalRange(records)) } else { Box::new(FetchedRange::new(records)) })
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|error| Err(Fault::new(Code::Internal, format!("reading a source broke off: {error}"))))
}

/// Whether nobody waits any more for what a blocking look at a list comes to. Without it a list of gigabytes would be read to its
/// end behind a term that is over, and again beside itself in the next one.
#[derive(Clone, Debug, Default)]
struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(io::Error::other(Fault::new(Code::Internal, "reading a source was given up")));
        }
        Ok(())
    }
}

/// Gives up when it is dropped.
struct Waiting(GivenUp);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// [`blocking`] work that looks now and then whether it was given up: it was when this future is dropped.
async fn blocking_while_wanted<T: Send + 'static>(
    work: impl FnOnce(&GivenUp) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let waiting = Waiting(GivenUp::default());
    let given_up = waiting.0.clone();
    blocking(move || work(&given_up)).await
}

/// A place that is not there, or not for us, stays so. Everything else may pass: too many open files, a mount that is away.
fn cannot_open(name: &str, error: &io::Error) -> Fault {
    use io::ErrorKind::{InvalidFilename, InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied};
    let code = match error.kind() {
        NotFound | PermissionDenied | NotADirectory | IsADirectory | InvalidInput | InvalidFilename => Code::SourceNotFound,
        _ => Code::SourceUnavailable,
    };
    Fault::new(code, format!("{name} cannot be opened: {error}"))
}

fn cannot_read(name: &str, error: &io::Error) -> Fault {
    read_fault(error).unwrap_or_else(|| Fault::new(broken_or_away(error), format!("{name}: reading failed: {error}")))
}

/// What the system itself says of a read is about the disk or the mount; all else, about the bytes.
fn broken_or_away(error: &io::Error) -> Code {
    if error.raw_os_error().is_some() { Code::SourceUnavailable } else { Code::SourceBroken }
}

/// The fault of a copy of our own: one that was let go of just now is made again when its list is looked at again.
fn cannot_open_copy(fault: Fault) -> Fault {
    match fault.code {
        Code::SourceNotFound => Fault::new(Code::SourceUnavailable, fault.context),
        _ => fault,
    }
}

/// The fault that a reader wrapped to get it through [`io::Read`], at any depth.
fn read_fault(error: &io::Error) -> Option<Fault> {
    let mut inner: Option<&(dyn std::error::Error + 'static)> = Some(error.get_ref()?);
    while let Some(error) = inner {
        if let Some(fault) = error.downcast_ref::<Fault>() {
            return Some(fault.clone());
        }
        inner = match error.downcast_ref::<io::Error>() {
            Some(error) => error.get_ref().map(|error| error as _),
            None => error.source(),
        };
    }
    None
}

fn changed(name: &str) -> Fault {
    Fault::new(Code::SourceChanged, format!("{name} is not what it was when it was planned"))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::spool::Hashed;
    use super::*;

    /// Bytes without end, but for the test's own end.
    struct Endless(Arc<AtomicBool>);

    impl Read for Endless {
        fn read(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
            std::thread::sleep(Duration::from_millis(1));
            Ok(if self.0.load(Ordering::Relaxed) { 0 } else { chunk.len() })
        }
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_read_to_its_end() {
        let test_is_over = Arc::new(AtomicBool::new(false));
        let (endless, (ended, end)) = (Endless(test_is_over.clone()), mpsc::channel());
        let look = move |given_up: &GivenUp| {
            let read = io::copy(&mut Hashed::new(endless, given_up), &mut io::sink());
            let _ = ended.send(read.is_err());
            read.map_err(|error| cannot_read("list", &error))
        };
        let looked = tokio::time::timeout(Duration::from_millis(50), blocking_while_wanted(look)).await;
        assert!(looked.is_err(), "it has no end");
        let given_up = end.recv_timeout(Duration::from_secs(10));
        test_is_over.store(true, Ordering::Relaxed);
        assert_eq!(given_up, Ok(true));
    }

    #[test]
    fn what_may_pass_is_no_verdict_on_a_list() {
        // ENOENT, EACCES, ENOTDIR; ENFILE, EMFILE, EIO, ESTALE.
        for (number, open) in [
            (2, Code::SourceNotFound),
            (13, Code::SourceNotFound),
            (20, Code::SourceNotFound),
            (23, Code::SourceUnavailable),
            (24, Code::SourceUnavailable),
            (5, Code::SourceUnavailable),
            (116, Code::SourceUnavailable),
        ] {
            let error = io::Error::from_raw_os_error(number);
            assert_eq!((cannot_open("list", &error).code, cannot_read("list", &error).code), (open, Code::SourceUnavailable));
            assert_eq!(cannot_open_copy(cannot_open("list", &error)).code, Code::SourceUnavailable, "{error}");
        }
        let decoding = io::Error::new(io::ErrorKind::InvalidData, "no gzip");
        assert_eq!(cannot_read("list", &decoding).code, Code::SourceBroken);
    }

    #[tokio::test]
    async fn a_copy_that_many_ranges_need_is_made_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let (spool_dir, list) = (folder.path().join("spool"), folder.path().join("list.zst"));
        let text = format!("phone\n{}", "13800138000\n".repeat(2_000_000));
        std::fs::write(&list, zstd::encode_all(text.as_bytes(), 1).expect("packed")).expect("written");
        let source = ListSource::new(spool_dir.clone());
        let spec = SourceSpec { table_name: list.display().to_string(), ..SourceSpec::default() };
        let plan = source.plan(&spec, 10_000).await.expect("a plan");
        std::fs::remove_dir_all(&spool_dir).expect("removed");
        let (over, folder) = (Arc::new(AtomicBool::new(false)), spool_dir.clone());
        let stop = over.clone();
        let at_once = std::thread::spawn(move || {
            let half_written = || {
                let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
                entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(spool::HALF_WRITTEN)).count()
            };
            let mut most = 0;
            while !stop.load(Ordering::Relaxed) {
                most = most.max(half_written());
            }
            most
        });
        let opened = plan.ranges[..8].iter().map(|range| source.open(&spec, &plan, range));
        let opened = futures::future::try_join_all(opened).await;
        over.store(true, Ordering::Relaxed);
        assert_eq!(opened.expect("all of them").len(), 8);
        assert!(at_once.join().expect("it ends") <= 1, "of one list one copy is made at a time");
    }
}
