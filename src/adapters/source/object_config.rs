//! How an object store is reached: its configuration, and the client that follows from it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::list::PaginatedListStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use serde::{Deserialize, Serialize};

use super::address::{StoreKind, check_key, is_bucket};
use super::connector::Straight;
use super::objects::Pages;
use crate::adapters::secret::Secret;
use crate::adapters::secure;
use crate::model::code::{Code, Fault};
use crate::model::schedule::seconds;

/// An object store that lists may be read from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectStoreConfig {
    /// Which protocol it speaks.
    pub kind: StoreKind,
    /// Buckets or containers that may be read, as `bucket`, or `bucket/folder/` for a part of one.
    pub buckets: Vec<String>,
    /// Its address, such as `https://minio.example:9000`; the vendor's own when empty.
    pub endpoint: String,
    /// S3's region.
    pub region: String,
    /// S3's access key.
    pub access_key_id: String,
    /// S3's secret access key, or the key of the Azure account.
    pub secret: Secret,
    /// S3's session token.
    pub token: Secret,
    /// Azure's storage account.
    pub account: String,
    /// Azure's shared access signature, instead of the account's key.
    pub sas: Secret,
    /// GCS: the JSON file of a service account.
    pub service_account: Option<PathBuf>,
    /// Whether requests go unsigned: public buckets.
    pub anonymous: bool,
    /// Whether the vendor's environment variables, and the machine's own identity, are used for what is not said here.
    pub from_environment: bool,
    /// Whether the bucket stands in the host name (S3).
    pub virtual_hosted: bool,
    /// Whether plain HTTP is allowed.
    pub allow_http: bool,
    /// A PEM file with authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Seconds that one request may take.
    #[serde(with = "seconds")]
    pub request_timeout: Duration,
    /// Seconds that a failing request is tried again.
    #[serde(with = "seconds")]
    pub retry_for: Duration,
}

impl Default for ObjectStoreConfig {
    fn default() -> ObjectStoreConfig {
        ObjectStoreConfig {
            kind: StoreKind::S3,
            buckets: vec![],
            endpoint: String::new(),
            region: String::new(),
            access_key_id: String::new(),
            secret: Secret::default(),
            token: Secret::default(),
            account: String::new(),
            sas: Secret::default(),
            service_account: None,
            anonymous: false,
            from_environment: false,
            virtual_hosted: false,
            allow_http: false,
            ca_file: None,
            request_timeout: Duration::from_secs(60),
            retry_for: Duration::from_secs(30),
        }
    }
}

/// Tries of one request at most.
const RETRIES_MAX: usize = 8;

impl ObjectStoreConfig {
    /// What is wrong with it, if anything: the key and why.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let no = |key, text: &str| Err((key, text.to_string()));
        if self.buckets.is_empty() {
            return no("buckets", "names the buckets that may be read");
        }
        for entry in &self.buckets {
            let (bucket, folder) = split(entry);
            if !is_bucket(bucket)
                || check_key(folder).is_err()
                || entry.contains('/') && !folder.is_empty() && !entry.ends_with('/')
            {
                return Err(("buckets", format!("{entry:?} is no bucket, nor `bucket/folder/`")));
            }
        }
        if !self.endpoint.is_empty() {
            let is_fit = url::Url::parse(&self.endpoint).is_ok_and(|url| {
                url.has_host()
                    && (url.scheme() == "https" || url.scheme() == "http" && self.allow_http)
                    && url.username().is_empty()
            });
            if !is_fit {
                return no("endpoint", "is an address that begins with https://, or http:// with allow_http");
            }
        }
        let is_open = self.anonymous || self.from_environment;
        match self.kind {
            StoreKind::S3 if !is_open && (self.access_key_id.is_empty() || self.secret.is_empty()) => {
                no("access_key_id", "and secret are needed, or from_environment = true, or anonymous = true")
            }
            StoreKind::Azure if self.account.is_empty() && !self.from_environment => no("account", "names the storage account"),
            StoreKind::Azure if !is_open && self.secret.is_empty() && self.sas.is_empty() => {
                no("secret", "or sas is needed, or from_environment = true, or anonymous = true")
            }
            StoreKind::Gcs if !is_open && self.service_account.is_none() => {
                no("service_account", "is needed, or from_environment = true, or anonymous = true")
            }
            _ => Ok(()),
        }
    }

    /// The client for one bucket, and the same one as it lists page by page.
    pub(super) fn client(&self, name: &str, bucket: &str) -> Result<(Arc<dyn ObjectStore>, Pages), Fault> {
        if let Err((key, text)) = self.check() {
            return Err(Fault::new(Code::ConfigInvalid, format!("object_stores.{name}.{key}: {text}")));
        }
        // The HTTP client of the library takes its cryptography from the process.
        secure::install();
        let clients =
            self.clients().map_err(|text| Fault::new(Code::ConfigInvalid, format!("object_stores.{name}.ca_file: {text}")))?;
        fn both<T: ObjectStore + PaginatedListStore>(client: T) -> (Arc<dyn ObjectStore>, Pages) {
            let client = Arc::new(client);
            (client.clone(), Pages(client))
        }
        let built = match self.kind {
            StoreKind::S3 => self.s3(bucket).with_http_connector(clients).build().map(both),
            StoreKind::Azure => self.azure(bucket).with_http_connector(clients).build().map(both),
            StoreKind::Gcs => self.gcs(bucket).with_http_connector(clients).build().map(both),
        };
        built.map_err(|error| Fault::new(Code::ConfigInvalid, format!("object_stores.{name}: {error}")))
    }

    fn s3(&self, bucket: &str) -> AmazonS3Builder {
        let builder = if self.from_environment { AmazonS3Builder::from_env() } else { AmazonS3Builder::new() };
        let mut builder = builder
            .with_bucket_name(bucket)
            .with_allow_http(self.allow_http)
            .with_virtual_hosted_style_request(self.virtual_hosted)
            .with_client_options(self.options())
            .with_retry(self.retry());
        if self.anonymous {
            builder = builder.with_skip_signature(true);
        }
        for (value, set) in [
            (&self.endpoint, AmazonS3Builder::with_endpoint as fn(AmazonS3Builder, String) -> AmazonS3Builder),
            (&self.region, AmazonS3Builder::with_region),
            (&self.access_key_id, AmazonS3Builder::with_access_key_id),
            (&self.secret.expose().to_string(), AmazonS3Builder::with_secret_access_key),
            (&self.token.expose().to_string(), AmazonS3Builder::with_token),
        ] {
            if !value.is_empty() {
                builder = set(builder, value.clone());
            }
        }
        builder
    }

    fn azure(&self, container: &str) -> MicrosoftAzureBuilder {
        let builder = if self.from_environment { MicrosoftAzureBuilder::from_env() } else { MicrosoftAzureBuilder::new() };
        let mut builder = builder
            .with_container_name(container)
            .with_allow_http(self.allow_http)
            .with_client_options(self.options())
            .with_retry(self.retry());
        if self.anonymous {
            builder = builder.with_skip_signature(true);
        }
        if !self.account.is_empty() {
            builder = builder.with_account(self.account.clone());
        }
        if !self.endpoint.is_empty() {
            builder = builder.with_endpoint(self.endpoint.clone());
        }
        if !self.secret.is_empty() {
            builder = builder.with_access_key(self.secret.expose());
        }
        if !self.sas.is_empty() {
            builder = builder.with_config(AzureConfigKey::SasKey, self.sas.expose());
        }
        builder
    }

    fn gcs(&self, bucket: &str) -> GoogleCloudStorageBuilder {
        let builder =
            if self.from_environment { GoogleCloudStorageBuilder::from_env() } else { GoogleCloudStorageBuilder::new() };
        let mut builder = builder.with_bucket_name(bucket).with_client_options(self.options()).with_retry(self.retry());
        if self.anonymous {
            builder = builder.with_skip_signature(true);
        }
        if let Some(path) = &self.service_account {
            builder = builder.with_service_account_path(path.display().to_string());
        }
        if !self.endpoint.is_empty() {
            builder = builder.with_base_url(&self.endpoint);
        }
        builder
    }

    /// What the library looks at itself; everything else of a client is in [`ObjectStoreConfig::clients`].
    fn options(&self) -> ClientOptions {
        ClientOptions::new().with_allow_http(self.allow_http)
    }

    fn clients(&self) -> Result<Straight, String> {
        let read = |path: &PathBuf| std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()));
        let authorities = self.ca_file.as_ref().map(read).transpose()?;
        let connect = Duration::from_secs(5).min(self.request_timeout);
        let named = |text| self.ca_file.as_ref().map_or_else(String::new, |path| format!("{}: {text}", path.display()));
        Straight::new(authorities.as_deref(), connect, self.request_timeout).map_err(named)
    }

    fn retry(&self) -> RetryConfig {
        let backoff = BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(5), base: 2.0 };
        RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout: self.retry_for }
    }
}

/// The bucket of an entry of `buckets`, and the folder in it without a slash at the end.
pub(super) fn split(entry: &str) -> (&str, &str) {
    let (bucket, folder) = entry.split_once('/').unwrap_or((entry, ""));
    (bucket, folder.strip_suffix('/').unwrap_or(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_told_with_its_key() {
        let whole = ObjectStoreConfig {
            buckets: vec!["lists".into(), "shared/marketing/2026/".into()],
            access_key_id: "a".into(),
            secret: Secret::new("b"),
            ..ObjectStoreConfig::default()
        };
        assert_eq!(whole.check(), Ok(()));
        assert!(whole.client("main", "lists").is_ok());
        let empty = tempfile::NamedTempFile::new().expect("a file");
        for path in [empty.path(), std::path::Path::new("/no/such/file.pem")] {
            let fault = ObjectStoreConfig { ca_file: Some(path.into()), ..whole.clone() }
                .client("main", "lists")
                .expect_err("no authority");
            assert!(fault.code == Code::ConfigInvalid && fault.context.contains("object_stores.main.ca_file"), "{fault}");
        }
        let with = |change: fn(&mut ObjectStoreConfig)| {
            let mut config = whole.clone();
            change(&mut config);
            config.check().err().map(|(key, _)| key)
        };
        assert_eq!(with(|c| c.buckets = vec![]), Some("buckets"));
        assert_eq!(with(|c| c.buckets = vec!["shared/x".into()]), Some("buckets"));
        assert_eq!(with(|c| c.buckets = vec!["shared/../x/".into()]), Some("buckets"));
        assert_eq!(with(|c| c.endpoint = "http://127.0.0.1:1".into()), Some("endpoint"));
        assert_eq!(with(|c| c.endpoint = "https://".into()), Some("endpoint"));
        assert_eq!(with(|c| c.secret = Secret::default()), Some("access_key_id"));
        assert_eq!(with(|c| c.kind = StoreKind::Azure), Some("account"));
        assert_eq!(with(|c| c.kind = StoreKind::Gcs), Some("service_account"));
        assert_eq!(with(|c| (c.secret, c.anonymous) = (Secret::default(), true)), None);
    }
}
