//! A list as it lies in its place: one file or object, or a folder of several; what it is now, and how that differs from what
//! was planned.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::cannot_open;
use super::part::Part;
use crate::model::code::{Code, Fault};
use crate::model::hex;

/// Files of one folder at most: each is looked up again for every range.
pub(super) const PARTS_MAX: usize = 1_000;
/// Bytes of the note about a folder's files, which the batch carries with it.
const NOTE_BYTES_MAX: usize = 64 << 10;
/// Bytes of the names and hashes that it unpacks to: files of a folder at most, with the longest names that stores have.
const NAMES_BYTES_MAX: u64 = (PARTS_MAX * (1_024 + 17)) as u64;
/// The window of its compression, as a power of two: more than was ever used to write one.
const NOTE_WINDOW_LOG_MAX: u32 = 23;
/// What the note begins with where a dialect is expected.
const NOTE: &str = "parts=";

/// The files of a list, without their content.
#[derive(Clone, Debug)]
pub(super) struct List {
    /// What faults call it.
    pub name: String,
    /// Sorted by name; exactly one when it is no folder.
    pub parts: Vec<Part>,
    pub is_folder: bool,
}

impl List {
    /// A single file or object.
    pub fn single(part: Part) -> List {
        List { name: part.name.clone(), parts: vec![part], is_folder: false }
    }

    /// A folder of files or objects.
    pub fn folder(name: String, mut parts: Vec<Part>) -> Result<List, Fault> {
        parts.sort_by(|one, other| one.file_name.cmp(&other.file_name));
        let list = List { name, parts, is_folder: true };
        if list.parts.is_empty() {
            return Err(Fault::new(Code::SourceEmpty, format!("{}: there is no file in the folder", list.name)));
        }
        if list.parts.len() > PARTS_MAX {
            return Err(list.too_many());
        }
        Ok(list)
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.parts.iter().map(|part| part.size).sum()
    }

    /// What the storage calls this version: of a folder, a hash over names, sizes and versions.
    pub fn version(&self) -> String {
        if let [part] = &self.parts[..]
            && !self.is_folder
        {
            return part.version.clone();
        }
        let mut hash = Xxh3::new();
        for part in &self.parts {
            hash.update(part.file_name.as_bytes());
            hash.update(&[0]);
            hash.update(&part.hash().to_le_bytes());
        }
        format!("{:032x}", hash.digest128())
    }

    /// The file of a folder with this name.
    pub fn part(&self, file_name: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.file_name == file_name)
    }

    /// What the plan of a folder notes, so that a later difference can be named.
    pub fn note(&self) -> Result<String, Fault> {
        let lines: Vec<String> = self.parts.iter().map(|part| format!("{:016x}{}", part.hash(), part.file_name)).collect();
        let packed = zstd::encode_all(lines.join("\0").as_bytes(), 3)
            .map_err(|error| Fault::new(Code::Internal, format!("the names of the files cannot be packed: {error}")))?;
        let note = format!("{NOTE}{}", URL_SAFE_NO_PAD.encode(packed));
        if note.len() > NOTE_BYTES_MAX { Err(self.too_many()) } else { Ok(note) }
    }

    /// The fault of a folder that is not what was planned: the first file that was added, removed or changed.
    pub fn changed_since(&self, note: &str) -> Fault {
        let changed = |what: String| Fault::new(Code::SourceChanged, format!("{}: {what}", self.name));
        let Some(planned) = read_note(note) else { return changed("it is not what it was when it was planned".to_string()) };
        for part in &self.parts {
            let name = &part.file_name;
            match planned.get(name) {
                None => return changed(format!("{name} was added after the list was planned")),
                Some(hash) if *hash != part.hash() => return changed(format!("{name} was changed after the list was planned")),
                Some(_) => {}
            }
        }
        match planned.keys().find(|name| self.part(name).is_none()) {
            Some(name) => changed(format!("{name} was removed after the list was planned")),
            None => changed("it is not what it was when it was planned".to_string()),
        }
    }

    fn too_many(&self) -> Fault {
        let text =
            format!("{}: the folder holds more than {PARTS_MAX} files, or too many long names: put them together", self.name);
        Fault::new(Code::InputInvalid, text)
    }
}

impl Part {
    fn hash(&self) -> u64 {
        xxh3_64(format!("{} {}", self.size, self.version).as_bytes())
    }
}

fn read_note(note: &str) -> Option<BTreeMap<String, u64>> {
    let packed = URL_SAFE_NO_PAD.decode(note.strip_prefix(NOTE).filter(|_| note.len() <= NOTE_BYTES_MAX)?).ok()?;
    let mut unpacked = zstd::Decoder::new(&packed[..]).ok()?;
    unpacked.window_log_max(NOTE_WINDOW_LOG_MAX).ok()?;
    let mut text = String::new();
    unpacked.take(NAMES_BYTES_MAX + 1).read_to_string(&mut text).ok().filter(|bytes| *bytes as u64 <= NAMES_BYTES_MAX)?;
    let hash = |digits: &str| hex::number(digits).and_then(|hash| u64::try_from(hash).ok());
    text.split('\0').map(|line| Some((line.get(16..)?.to_string(), hash(line.get(..16)?)?))).collect()
}

/// What lies at a path: a file, or a folder's files without hidden ones and sub-folders. A link to a file of the same folder
/// is a file; one that leads out of the folder is refused, because whoever allowed the folder did not allow that.
pub(super) fn local(path: &Path, spool_dir: &Path) -> Result<List, Fault> {
    let facts = std::fs::metadata(path).map_err(|error| cannot_open(&path.display().to_string(), &error))?;
    if !facts.is_dir() {
        return Ok(List::single(Part::file(path, spool_dir)?));
    }
    let shown = path.display().to_string();
    let fault = |error: &std::io::Error| cannot_open(&shown, error);
    let home = path.canonicalize().map_err(|error| fault(&error))?;
    let mut parts = vec![];
    for entry in std::fs::read_dir(path).map_err(|error| fault(&error))? {
        let entry = entry.map_err(|error| fault(&error))?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let file = entry.path();
        if entry.file_type().map_err(|error| fault(&error))?.is_symlink() {
            let real = file.canonicalize().map_err(|error| cannot_open(&file.display().to_string(), &error))?;
            if !real.starts_with(&home) {
                let text = format!("{} is a link that leads out of its folder", file.display());
                return Err(Fault::new(Code::SourceForbidden, text));
            }
        }
        if std::fs::metadata(&file).is_ok_and(|facts| facts.is_dir()) {
            continue;
        }
        parts.push(Part::file(&file, spool_dir)?);
        if parts.len() > PARTS_MAX {
            break;
        }
    }
    List::folder(shown, parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note_of(text: &str) -> String {
        format!("{NOTE}{}", URL_SAFE_NO_PAD.encode(zstd::encode_all(text.as_bytes(), 3).expect("it is packed")))
    }

    #[test]
    fn a_note_is_no_longer_than_any_that_was_written() {
        let line = format!("{:016x}name", 7);
        assert_eq!(read_note(&note_of(&line)), Some(BTreeMap::from([("name".to_owned(), 7)])));
        // Fifty million bytes out of a few thousand.
        let bomb = note_of(&vec![line; 2_500_000].join("\0"));
        assert!(bomb.len() < NOTE_BYTES_MAX, "{} bytes", bomb.len());
        assert_eq!(read_note(&bomb), None);
    }
}
