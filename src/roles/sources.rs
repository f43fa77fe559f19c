//! Where lists come from, composed from the configuration: files, folders, object stores, tables, uploads.

use std::path::PathBuf;
use std::sync::Arc;

use super::config::Config;
use crate::adapters::source::{AzureTables, BucketUploads, FolderUploads, ListSource, ObjectStores};
use crate::model::code::Fault;
use crate::ports::World;
use crate::ports::uploads::Uploads;

/// The lists of a fleet.
#[derive(Clone)]
pub struct Lists {
    /// Reads them, wherever they are.
    pub source: Arc<ListSource>,
    /// Keeps those that are handed in.
    pub uploads: Arc<dyn Uploads>,
    folders: Vec<PathBuf>,
}

impl Lists {
    /// The lists of a configuration; copies are kept in `spool`. Nothing is asked of any server yet.
    ///
    /// # Errors
    /// [`crate::model::code::Code::ConfigInvalid`].
    pub fn new(config: &Config, world: &World, spool: PathBuf) -> Result<Lists, Fault> {
        let objects = ObjectStores::new(&config.object_stores)?;
        let max_bytes = u64::from(config.uploads.max_mb) << 20;
        let tables = AzureTables::new(&config.azure_tables, world)?;
        let source = ListSource::new(spool)
            .with_expanded_max(u64::from(config.sources.expanded_mb) << 20)
            .with_objects(objects.clone())
            .with_tables(tables);
        let (source, uploads): (ListSource, Arc<dyn Uploads>) = match &config.uploads.url {
            Some(url) => {
                let uploads = BucketUploads::new(&objects, url, max_bytes)?;
                (source.with_uploads_in_bucket(&uploads), Arc::new(uploads))
            }
            None => {
                let uploads = FolderUploads::new(config.data_dir.join("uploads"), max_bytes);
                (source.with_uploads_in_folder(&uploads), Arc::new(uploads))
            }
        };
        Ok(Lists { source: Arc::new(source), uploads, folders: config.sources.folders.clone() })
    }

    /// Whether a batch may name this address, and the address to store: see [`ListSource::check_address`].
    ///
    /// # Errors
    /// [`crate::model::code::Code::InputInvalid`] and [`crate::model::code::Code::SourceForbidden`].
    pub fn check_address(&self, table_name: &str, from_network: bool) -> Result<String, Fault> {
        self.source.check_address(table_name, from_network, &self.folders)
    }
}
