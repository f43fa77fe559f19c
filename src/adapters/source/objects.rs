//! Object stores: which buckets may be read, what lies in them, and what their errors mean.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::{DELIMITER, Path};
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};
use tokio::sync::OnceCell;

use super::address::{ObjectAddress, StoreKind};
use super::list::{List, PARTS_MAX};
use super::object_config::{self, ObjectStoreConfig};
use super::part::{Part, Place};
use super::uploads::UPLOADED;
use crate::model::code::{Code, Fault};

/// The buckets that the configuration names. No address reaches any other place.
#[derive(Clone, Debug, Default)]
pub struct ObjectStores {
    buckets: BTreeMap<(StoreKind, String), Bucket>,
}

/// A bucket of a store.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    store: Arc<dyn ObjectStore>,
    /// `None` for one that lists all at once.
    pages: Option<Pages>,
    about: Arc<About>,
}

/// A bucket that gives its names page by page.
#[derive(Clone)]
pub(super) struct Pages(pub Arc<dyn PaginatedListStore>);

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pages")
    }
}

/// What is known of a bucket apart from its content.
#[derive(Debug)]
struct About {
    /// Such as `s3://lists`.
    address: String,
    /// Such as `object_stores.main`.
    setting: String,
    /// Its address, for people.
    endpoint: String,
    /// Azure's storage account, where one is named.
    account: String,
    /// Folders in it that may be read; empty is all.
    folders: Vec<String>,
}

impl ObjectStores {
    /// The clients of a configuration; nothing is asked of any server yet.
    pub fn new(configs: &BTreeMap<String, ObjectStoreConfig>) -> Result<ObjectStores, Fault> {
        let mut stores = ObjectStores::default();
        for (name, config) in configs {
            let mut folders: BTreeMap<&str, Vec<String>> = BTreeMap::new();
            for (bucket, folder) in config.buckets.iter().map(|entry| object_config::split(entry)) {
                folders.entry(bucket).or_default().push(folder.to_string());
            }
            for (bucket, folders) in folders {
                let about = About {
                    address: format!("{}://{bucket}", config.kind.scheme()),
                    setting: format!("object_stores.{name}"),
                    endpoint: if config.endpoint.is_empty() {
                        "the vendor's address".to_string()
                    } else {
                        config.endpoint.clone()
                    },
                    account: config.account.clone(),
                    folders: if folders.iter().any(String::is_empty) { vec![] } else { folders },
                };
                let (store, pages) = config.client(name, bucket)?;
                let bucket_of = Bucket { store, pages: Some(pages), about: Arc::new(about) };
                if stores.buckets.insert((config.kind, bucket.to_string()), bucket_of).is_some() {
                    let text = format!("object_stores.{name}.buckets: {bucket} is named by another store of the same kind too");
                    return Err(Fault::new(Code::ConfigInvalid, text));
                }
            }
        }
        Ok(stores)
    }

    /// The same with a bucket over any implementation of the library, such as the one in memory: for tests and benches.
    pub fn with_bucket(mut self, kind: StoreKind, bucket: &str, store: Arc<dyn ObjectStore>) -> ObjectStores {
        let about = About {
            address: format!("{}://{bucket}", kind.scheme()),
            setting: "object_stores.given".to_string(),
            endpoint: "this process".to_string(),
            account: String::new(),
            folders: vec![],
        };
        self.buckets.insert((kind, bucket.to_string()), Bucket { store, pages: None, about: Arc::new(about) });
        self
    }

    /// The bucket of an address, if the configuration allows it.
    pub(super) fn bucket(&self, address: &ObjectAddress) -> Result<&Bucket, Fault> {
        let refuse = |text: String| Err(Fault::new(Code::SourceForbidden, text));
        let Some(bucket) = self.buckets.get(&(address.kind, address.bucket.clone())) else {
            return refuse(format!("{address}: no store in object_stores names this bucket"));
        };
        if address.account.as_ref().is_some_and(|account| *account != bucket.about.account) {
            return refuse(format!("{address}: the configured bucket belongs to another storage account"));
        }
        let below = |folder: &String| {
            let rest = address.key.strip_prefix(folder.as_str());
            rest.is_some_and(|rest| rest.starts_with('/') || rest.is_empty() && address.is_folder)
        };
        if !bucket.about.folders.is_empty() && !bucket.about.folders.iter().any(below) {
            return refuse(format!("{address} is not below the folders that {}.buckets allows", bucket.about.setting));
        }
        Ok(bucket)
    }
}

impl Bucket {
    /// An object, or all that lie directly below a folder.
    pub async fn list(&self, address: &ObjectAddress) -> Result<List, Fault> {
        let name = address.to_string();
        let path = key(&address.key)?;
        if !address.is_folder {
            return Ok(List::single(self.stat(path, name).await?));
        }
        let below = (!address.key.is_empty()).then_some(&path);
        let found = self.files(below).await.map_err(|error| self.fault(&name, &error))?;
        List::folder(name.clone(), found.into_iter().map(|meta| self.part(&name, meta)).collect())
    }

    /// The files directly in a folder, hidden ones left out: all of them, or more than a list may have. A folder may hold millions.
    async fn files(&self, below: Option<&Path>) -> object_store::Result<Vec<ObjectMeta>> {
        let is_file = |meta: &ObjectMeta| Some(&meta.location) != below && !file_name(meta).starts_with('.');
        let Some(Pages(pages)) = &self.pages else {
            let found = self.store.list_with_delimiter(below).await?;
            return Ok(found.objects.into_iter().filter(is_file).collect());
        };
        let below = below.map(|path| format!("{path}{DELIMITER}"));
        let (mut found, mut page_token) = (vec![], None);
        loop {
            let options = PaginatedListOptions { delimiter: Some(DELIMITER.into()), page_token, ..Default::default() };
            let page = pages.list_paginated(below.as_deref(), options).await?;
            found.extend(page.result.objects.into_iter().filter(is_file));
            page_token = page.page_token;
            if page_token.is_none() || found.len() > PARTS_MAX {
                return Ok(found);
            }
        }
    }

    /// One object under a name that faults show.
    pub async fn stat(&self, path: Path, name: String) -> Result<Part, Fault> {
        let meta = self.store.head(&path).await.map_err(|error| self.fault(&name, &error))?;
        Ok(Part { name, ..self.part("", meta) })
    }

    /// The client.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// An error of the library in words that help: what was asked of whom, which setting is about it, and the likely cause.
    pub fn fault(&self, name: &str, error: &object_store::Error) -> Fault {
        fault(&self.about, name, error)
    }

    fn part(&self, folder: &str, meta: ObjectMeta) -> Part {
        let (file_name, version) = (file_name(&meta), version(&meta));
        let object = Object {
            store: self.store.clone(),
            about: self.about.clone(),
            path: meta.location,
            name: format!("{folder}{file_name}"),
            condition: Arc::default(),
        };
        Part { name: object.name.clone(), file_name, size: meta.size, version, place: Place::Object(object) }
    }
}

/// An object of a bucket.
#[derive(Clone, Debug)]
pub(super) struct Object {
    store: Arc<dyn ObjectStore>,
    about: Arc<About>,
    path: Path,
    name: String,
    /// What [`Object::condition`] found, for all readers of this look at the object.
    condition: Arc<OnceCell<Option<String>>>,
}

impl Object {
    /// What makes a request fail when the object is no longer at `version`. Listings and answers may write an etag with and
    /// without quotes, so the store is asked for the form it takes.
    pub async fn condition(&self, planned: &str) -> Result<Option<String>, Fault> {
        let look = async {
            let meta = self.store.head(&self.path).await.map_err(|error| match error {
                object_store::Error::NotFound { .. } => self.changed("was removed"),
                error => fault(&self.about, &self.name, &error),
            })?;
            // What is named by its content may be written again, and is the same.
            if planned != UPLOADED && version(&meta) != planned {
                return Err(self.changed("was changed"));
            }
            Ok(meta.e_tag)
        };
        self.condition.get_or_try_init(|| look).await.cloned()
    }

    /// The bytes of a range, under a condition.
    pub async fn get(&self, range: Range<u64>, if_match: Option<String>) -> Result<Bytes, Fault> {
        let length = range.end - range.start;
        let options = GetOptions { range: Some(GetRange::Bounded(range)), if_match, ..GetOptions::default() };
        let got = async { self.store.get_opts(&self.path, options).await?.bytes().await }.await;
        match got {
            Ok(bytes) if bytes.len() as u64 == length => Ok(bytes),
            Ok(_) => Err(self.changed("is shorter than it was")),
            Err(object_store::Error::NotFound { .. }) => Err(self.changed("was removed")),
            Err(error) => Err(fault(&self.about, &self.name, &error)),
        }
    }

    fn changed(&self, how: &str) -> Fault {
        Fault::new(Code::SourceChanged, format!("{} {how} after the list was planned", self.name))
    }
}

/// A key as the library takes it, without any tidying up.
pub(super) fn key(text: &str) -> Result<Path, Fault> {
    Path::parse(text).map_err(|error| Fault::new(Code::InputInvalid, format!("the key {text:?} cannot be used: {error}")))
}

fn file_name(meta: &ObjectMeta) -> String {
    meta.location.filename().unwrap_or_default().to_string()
}

/// The etag in one form; without one the time of the last change.
fn version(meta: &ObjectMeta) -> String {
    match &meta.e_tag {
        Some(etag) => etag.trim_start_matches("W/").trim_matches('"').to_string(),
        None => meta.last_modified.timestamp_micros().to_string(),
    }
}

fn fault(about: &About, name: &str, error: &object_store::Error) -> Fault {
    use object_store::Error;
    let About { endpoint, setting, address, .. } = about;
    let name = if name.is_empty() { address } else { name };
    match error {
        Error::NotFound { .. } => {
            Fault::new(Code::SourceNotFound, format!("{name}: there is no such object or bucket at {endpoint}"))
        }
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            let text = format!("{name}: {endpoint} denies access; check the keys in {setting} and the rights they have");
            Fault::new(Code::SourceNotFound, text)
        }
        Error::Precondition { .. } | Error::NotModified { .. } => {
            Fault::new(Code::SourceChanged, format!("{name} was changed after the list was planned"))
        }
        Error::InvalidPath { .. } => Fault::new(Code::InputInvalid, format!("{name}: {error}")),
        Error::NotSupported { .. } | Error::NotImplemented { .. } | Error::UnknownConfigurationKey { .. } => {
            Fault::new(Code::ConfigInvalid, format!("{setting}: {error}"))
        }
        error => {
            let cause = cause(error);
            let text = format!("{name}: no usable answer from {endpoint}: {cause}; check {setting}.endpoint and the network");
            Fault::new(Code::SourceUnavailable, text)
        }
    }
}

/// The innermost cause, which is the shortest and has no address with a signature in it.
fn cause(error: &object_store::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let text: String = innermost.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(160).collect();
    text.trim().to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use object_store::list::PaginatedListResult;
    use object_store::memory::InMemory;
    use object_store::{ListResult, Result};

    use super::super::address::Address;
    use super::*;

    /// A folder of so many files, ten to a page, and how many pages were asked for. Every other one is hidden.
    struct Many(usize, AtomicUsize);

    #[async_trait::async_trait]
    impl PaginatedListStore for Many {
        async fn list_paginated(&self, prefix: Option<&str>, options: PaginatedListOptions) -> Result<PaginatedListResult> {
            assert_eq!((prefix, options.delimiter.as_deref()), (Some("in/lists/"), Some("/")));
            self.1.fetch_add(1, Ordering::Relaxed);
            let from: usize = options.page_token.map_or(0, |token| token.parse().expect("a token"));
            let to = (from + 10).min(self.0);
            let named = |n: usize| ObjectMeta {
                location: Path::from(format!("in/lists/{}{n}.csv", if n % 2 == 1 { "." } else { "" })),
                last_modified: std::time::SystemTime::UNIX_EPOCH.into(),
                size: 1,
                e_tag: Some("a".into()),
                version: None,
            };
            let result =
                ListResult { common_prefixes: vec![], objects: (from..to).map(named).collect(), extensions: Default::default() };
            Ok(PaginatedListResult { result, page_token: (to < self.0).then(|| to.to_string()) })
        }
    }

    #[tokio::test]
    async fn a_folder_of_millions_is_not_listed_whole() {
        for (files, pages, expected) in [(95, 10, Ok(48)), (2_000_000, 201, Err(Code::InputInvalid))] {
            let many = Arc::new(Many(files, AtomicUsize::new(0)));
            let stores = ObjectStores::default().with_bucket(StoreKind::S3, "lists", Arc::new(InMemory::new()));
            let Address::Object(address) = Address::parse("s3://lists/in/lists/").expect("an address") else {
                panic!("it is an object store's");
            };
            let mut bucket = stores.bucket(&address).expect("it is configured").clone();
            bucket.pages = Some(Pages(many.clone()));
            let found = bucket.list(&address).await.map(|list| list.parts.len()).map_err(|fault| fault.code);
            assert_eq!((found, many.1.load(Ordering::Relaxed)), (expected, pages));
        }
    }
}
