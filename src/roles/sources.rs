//! Where lists come from, composed from the configuration: files, folders, object stores, tables, uploads.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::config::Config;
use crate::adapters::source::{AzureTables, BucketUploads, FolderUploads, ListSource, ObjectStores};
use crate::model::code::Fault;
use crate::model::state::StepState;
use crate::model::step::CurrentStep;
use crate::ports::uploads::Uploads;
use crate::ports::{StoreError, Stores, World};

/// How often old uploads are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);

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

/// The uploads that batches may still read: those whose preparation is not over.
///
/// # Errors
/// What the store says.
pub async fn uploads_in_use(stores: &Stores) -> Result<BTreeSet<String>, StoreError> {
    let mut in_use = BTreeSet::new();
    for batch in stores.batch_index.active().await? {
        let Some(row) = stores.batches.load(batch).await? else { continue };
        let row = row.row;
        let is_read = row.current_step == CurrentStep::Preparation
            && !matches!(row.preparation.state, StepState::Canceled | StepState::CompletedFailed | StepState::CompletedSucceeded);
        if is_read && let Some(upload) = row.batch.table_name.strip_prefix("upload:") {
            in_use.insert(upload.to_owned());
        }
    }
    Ok(in_use)
}

/// Lets go of old uploads that nobody needs, for as long as the process runs.
pub async fn keep_uploads(uploads: Arc<dyn Uploads>, stores: Stores, world: World, keep_days: u32) {
    let keep = Duration::from_secs(u64::from(keep_days) * 86_400);
    loop {
        match uploads_in_use(&stores).await {
            Ok(in_use) => match uploads.expire(world.clock.now().minus(keep), &in_use).await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "old uploads were let go"),
                Err(fault) => tracing::warn!(%fault, "old uploads could not be removed"),
            },
            Err(error) => tracing::warn!(code = %error.code(), "which uploads are in use could not be read"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
