//! What a `table_name` may say: a path of this machine, an object or a folder of a configured object store, a table of a
//! configured account, an upload.
//!
//! An address is taken apart by hand and never handed to a URL library: those tidy up `..`, user names and ports, and what was
//! checked would not be what is asked for.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::code::{Code, Fault};

/// Bytes of an object's key at most, in all three stores.
const KEY_BYTES_MAX: usize = 1_024;

/// The kinds of object stores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// Amazon S3, and what speaks like it.
    #[default]
    S3,
    /// Azure Blob Storage.
    Azure,
    /// Google Cloud Storage.
    Gcs,
}

impl StoreKind {
    /// The scheme of its addresses.
    pub fn scheme(self) -> &'static str {
        match self {
            StoreKind::S3 => "s3",
            StoreKind::Azure => "az",
            StoreKind::Gcs => "gs",
        }
    }
}

/// Where a list is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// A file or folder of this machine.
    Local(PathBuf),
    /// An object, or a folder of objects.
    Object(ObjectAddress),
    /// A table.
    Table(TableAddress),
    /// An upload, by the SHA-256 of its content.
    Upload(String),
}

/// Where a table is. Which account that means is the configuration's to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableAddress {
    /// The name under `azure_tables`.
    pub store: String,
    pub table: String,
}

/// Where an object is. Which endpoint that means is the configuration's to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ObjectAddress {
    pub kind: StoreKind,
    /// The storage account that an `abfss` address names.
    pub account: Option<String>,
    /// Bucket or container.
    pub bucket: String,
    /// The key, without a slash at its end.
    pub key: String,
    /// Whether it ended in a slash: every object directly below it.
    pub is_folder: bool,
}

impl Address {
    /// Reads an address.
    pub fn parse(text: &str) -> Result<Address, Fault> {
        if let Some(id) = text.strip_prefix(UPLOAD) {
            return Ok(Address::Upload(upload_id(id)?));
        }
        let Some((scheme, rest)) = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) else {
            return Ok(Address::Local(PathBuf::from(text)));
        };
        let refuse = |why: String| Fault::new(Code::InputInvalid, format!("the address {text:?} {why}"));
        if scheme.eq_ignore_ascii_case(TABLES) {
            let parts = rest.split_once('/').filter(|(store, table)| is_store(store) && is_table(table));
            let (store, table) = parts.ok_or_else(|| refuse("wants STORE/TABLE behind its scheme, and no more".to_string()))?;
            return Ok(Address::Table(TableAddress { store: store.to_string(), table: table.to_string() }));
        }
        let (kind, with_account) = match scheme.to_ascii_lowercase().as_str() {
            "s3" | "s3a" => (StoreKind::S3, false),
            "gs" => (StoreKind::Gcs, false),
            "az" | "azure" => (StoreKind::Azure, false),
            "abfs" | "abfss" => (StoreKind::Azure, true),
            _ => return Err(refuse("has a scheme that is none of s3, az, azure, abfs, abfss, gs, aztable".to_string())),
        };
        let (place, key) = rest.split_once('/').unwrap_or((rest, ""));
        let (bucket, account) = if with_account {
            let parts = place.split_once('@').and_then(|(bucket, host)| {
                let account =
                    host.strip_suffix(".dfs.core.windows.net").or_else(|| host.strip_suffix(".blob.core.windows.net"))?;
                Some((bucket, Some(account.to_string())))
            });
            parts.ok_or_else(|| refuse("wants CONTAINER@ACCOUNT.dfs.core.windows.net before its path".to_string()))?
        } else {
            (place, None)
        };
        if !is_bucket(bucket) {
            return Err(refuse(format!("names no bucket: {bucket:?} is no bucket's name")));
        }
        let is_folder = key.is_empty() || key.ends_with('/');
        let key = key.strip_suffix('/').unwrap_or(key);
        check_key(key).map_err(|why| refuse(why.to_string()))?;
        Ok(Address::Object(ObjectAddress { kind, account, bucket: bucket.to_string(), key: key.to_string(), is_folder }))
    }
}

impl std::fmt::Display for ObjectAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}/{}", self.kind.scheme(), self.bucket, self.key)?;
        if self.is_folder && !self.key.is_empty() { f.write_str("/") } else { Ok(()) }
    }
}

impl std::fmt::Display for TableAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{TABLES}://{}/{}", self.store, self.table)
    }
}

/// The scheme of tables.
const TABLES: &str = "aztable";

/// What the address of an upload begins with.
pub(super) const UPLOAD: &str = "upload:";

/// An upload's name: 64 hexadecimal digits, so that it is never a path.
pub(super) fn upload_id(text: &str) -> Result<String, Fault> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
        return Err(Fault::new(
            Code::InputInvalid,
            "an upload is named by 64 small hexadecimal digits, the SHA-256 of its content",
        ));
    }
    Ok(text.to_string())
}

/// Whether a text is an address other than a path, so that nothing is put before it.
pub fn is_remote(text: &str) -> bool {
    text.starts_with(UPLOAD) || text.split_once("://").is_some_and(|(scheme, _)| is_scheme(scheme))
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// The union of what the three stores allow; above all no `@`, `:`, `/` or `%`, which could mean another host.
pub(super) fn is_bucket(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    (3..=222).contains(&name.len()) && name.bytes().all(plain) && !name.contains("..") && !name.starts_with(['.', '-'])
}

/// A name in the configuration.
pub fn is_store(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

/// The name of a table in Azure Table Storage: nothing in it could mean another place.
pub(super) fn is_table(name: &str) -> bool {
    (3..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
}

/// A key without steps up, empty steps or control characters.
pub(super) fn check_key(key: &str) -> Result<(), &'static str> {
    if key.len() > KEY_BYTES_MAX {
        return Err("has a key of more than 1024 bytes");
    }
    if key.chars().any(|c| c.is_control() || c == '\\') {
        return Err("has a control character or a backslash in its key");
    }
    if !key.is_empty() && key.split('/').any(|step| matches!(step, "" | "." | "..")) {
        return Err("has an empty step, `.` or `..` in its key");
    }
    Ok(())
}

/// Whether a path of this machine may be read for somebody on the network: below one of `folders`, with all links resolved.
/// The answer is the path itself, without links: the one to keep, so that a link changed later leads nowhere else.
pub(super) fn allowed_path(path: &Path, folders: &[PathBuf]) -> Result<PathBuf, Fault> {
    let shown = path.display();
    if folders.is_empty() {
        let text = format!("{shown} is a path, and sources.folders names no folder that lists may be read from");
        return Err(Fault::new(Code::SourceForbidden, text));
    }
    if !path.is_absolute() {
        return Err(Fault::new(Code::SourceForbidden, format!("{shown} is no absolute path")));
    }
    let outside = || Fault::new(Code::SourceForbidden, format!("{shown} is not below one of the folders in sources.folders"));
    // What lies outside is refused in the same words whether or not it exists: nobody may feel around the disk.
    let Ok(real) = path.canonicalize() else {
        let known = !path.components().any(|step| step == std::path::Component::ParentDir)
            && folders.iter().any(|folder| path.starts_with(folder))
            && path.symlink_metadata().is_err();
        return Err(if known { Fault::new(Code::SourceNotFound, format!("there is no {shown}")) } else { outside() });
    };
    let is_inside = |folder: &PathBuf| folder.canonicalize().is_ok_and(|folder| real.starts_with(folder));
    if folders.iter().any(is_inside) { Ok(real) } else { Err(outside()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (text, shown, folder) in [
            ("s3://lists/2026/a.csv", "s3://lists/2026/a.csv", false),
            ("s3a://lists/2026/", "s3://lists/2026/", true),
            ("gs://lists", "gs://lists/", true),
            ("az://lists/a b?c#d.csv", "az://lists/a b?c#d.csv", false),
            ("abfss://lists@acme.dfs.core.windows.net/x/y", "az://lists/x/y", false),
        ] {
            let Ok(Address::Object(address)) = Address::parse(text) else { panic!("{text}") };
            assert_eq!((address.to_string().as_str(), address.is_folder), (shown, folder));
        }
        for text in ["/a/b.csv", "list.csv", "a/s3://b/c", "", "C:\\x"] {
            assert_eq!(Address::parse(text), Ok(Address::Local(text.into())));
            assert!(!is_remote(text));
        }
        let people = TableAddress { store: "main".into(), table: "People7".into() };
        assert_eq!(people.to_string(), "aztable://main/People7");
        assert_eq!(Address::parse("aztable://main/People7"), Ok(Address::Table(people)));
        assert!(is_remote("aztable://main/People7"));
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(Address::parse(&format!("upload:{id}")), Ok(Address::Upload(id)));
    }

    #[test]
    fn addresses_that_could_mean_another_place_are_refused() {
        for text in [
            "s3://lists/../other/a.csv",
            "s3://lists/a/./b",
            "s3://lists//a",
            "s3://lists/a//b",
            "s3://lists/a\\..\\b",
            "s3://lists/a\nb",
            "s3://evil.example:80/a",
            "s3://key@lists/a",
            "s3://lists%2fx/a",
            "s3://Lists/a",
            "s3://../a",
            "s3:///a",
            "http://169.254.169.254/latest",
            "file:///etc/passwd",
            "ftp://x/y",
            "abfss://lists@evil.example/x",
            "abfss://lists/x",
            "aztable://main",
            "aztable://main/",
            "aztable://main/people/more",
            "aztable://main/people?sv=1",
            "aztable://main/peo%20ple",
            "aztable://evil.example/people",
            "aztable://main@evil/people",
            "aztable://main/7people",
            "upload:../../etc/passwd",
            "upload:ABCDEF",
        ] {
            let fault = Address::parse(text).expect_err(text);
            assert_eq!(fault.code, Code::InputInvalid, "{text}");
        }
    }
}
