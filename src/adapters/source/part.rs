//! One file or object of a list: what it is called, what can be told of it without reading it, and its bytes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Take};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::fetch::Fetch;
use super::objects::Object;
use super::{cannot_open, cannot_read};
use crate::model::code::{Code, Fault};
use crate::model::record::Fingerprint;

/// A file or object.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// What faults call it: its whole address.
    pub name: String,
    /// Its name within its folder.
    pub file_name: String,
    pub size: u64,
    /// What the storage calls this version.
    pub version: String,
    pub place: Place,
}

/// Where the bytes are.
#[derive(Clone, Debug)]
pub(super) enum Place {
    File(PathBuf),
    Object(Object),
}

impl Part {
    /// A file of this machine. A copy in the spool folder is named by its content and never changes, so it stays the same file
    /// when the folder is moved.
    pub fn file(path: &Path, spool_dir: &Path) -> Result<Part, Fault> {
        let name = path.display().to_string();
        let facts = std::fs::metadata(path).map_err(|error| cannot_open(&name, &error))?;
        if !facts.is_file() {
            let text = format!("{name} is no regular file: pipe it into the standard input instead");
            return Err(Fault::new(Code::SourceNotFound, text));
        }
        let version = if path.parent() == Some(spool_dir) {
            "spooled".to_string()
        } else {
            format!("{}.{:09}-{}", facts.mtime(), facts.mtime_nsec(), facts.ino())
        };
        let file_name = path.file_name().unwrap_or_default().to_str().map(str::to_string);
        let file_name = file_name.ok_or_else(|| Fault::new(Code::InputInvalid, format!("the name {name} is no UTF-8")))?;
        Ok(Part { name, file_name, size: facts.len(), version, place: Place::File(path.to_path_buf()) })
    }

    /// What can be told without reading.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint { size: self.size, version: self.version.clone(), content: 0 }
    }

    /// All bytes.
    pub fn open(&self) -> Result<Input, Fault> {
        self.open_range(0, self.size)
    }

    /// The bytes `from..to`. Opening an object begins to fetch it, so this wants a runtime.
    pub fn open_range(&self, from: u64, to: u64) -> Result<Input, Fault> {
        match &self.place {
            Place::File(path) => open_file(path, &self.name, from, to),
            Place::Object(object) => Ok(Input::Object(Fetch::begin(object.clone(), &self.version, from, to.min(self.size)))),
        }
    }

    /// Whether reading it twice costs little.
    pub fn is_near(&self) -> bool {
        matches!(self.place, Place::File(_))
    }
}

/// The bytes `from..to` of a file.
pub(super) fn open_file(path: &Path, name: &str, from: u64, to: u64) -> Result<Input, Fault> {
    let mut file = File::open(path).map_err(|error| cannot_open(name, &error))?;
    if from > 0 {
        file.seek(SeekFrom::Start(from)).map_err(|error| cannot_read(name, &error))?;
    }
    Ok(Input::File(file.take(to.saturating_sub(from))))
}

/// Bytes of a file or an object.
pub(super) enum Input {
    File(Take<File>),
    Object(Fetch),
}

impl Read for Input {
    fn read(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        match self {
            Input::File(file) => file.read(chunk),
            Input::Object(fetch) => fetch.read(chunk),
        }
    }
}
