//! The way to a surface: a service on the network, the process that holds the folder, or the folder itself.

use std::sync::Arc;
use std::time::Duration;

use super::Global;
use crate::model::code::{Code, Fault};
use crate::roles::config::Config;
use crate::roles::opened::{self, Opened};
use crate::roles::reach;
use crate::roles::surface;
use crate::serve::client::{Client, Remote};

/// Tries while another process is about to open, or to close, the folder.
const TRIES: u32 = 30;

/// A way to the surface; closes the folder at its end when this process opened it.
pub struct Access {
    /// What is asked.
    pub client: Client,
    opened: Option<Opened>,
}

impl Access {
    /// The way to the data there is.
    ///
    /// # Errors
    /// [`Code::BatchNotFound`] when there is no data folder; or what keeps it from being opened.
    pub async fn to(global: &Global, config: &Config) -> Result<Access, Fault> {
        Access::find(global, config, false).await
    }

    /// The way to the data there is, or to a folder that is made now.
    ///
    /// # Errors
    /// What keeps it from being opened.
    pub async fn to_or_new(global: &Global, config: &Config) -> Result<Access, Fault> {
        Access::find(global, config, true).await
    }

    async fn find(global: &Global, config: &Config, make: bool) -> Result<Access, Fault> {
        if let Some(url) = &global.server {
            let key = global.api_key.as_deref().unwrap_or_default();
            if key.is_empty() {
                return Err(Fault::new(Code::KeyMissing, "--server needs a key: set SMSFLEET_API_KEY"));
            }
            let remote = Remote::new(url, key, Arc::new(reach::client_config(global.ca_file.as_deref())?))?;
            return Ok(Access { client: Client::Remote(Arc::new(remote)), opened: None });
        }
        let folder = &config.data_dir;
        let mut last = Fault::new(Code::FolderInUse, folder.display().to_string());
        for _ in 0..TRIES {
            if !config.is_cluster()
                && let Some(client) = Client::running(folder).await
            {
                return Ok(Access { client, opened: None });
            }
            if !make && !opened::exists(config) {
                let context = format!("there is no data in {}; name the folder with --data-dir", folder.display());
                return Err(Fault::new(Code::BatchNotFound, context));
            }
            match surface::reading(config).await {
                Ok((opened, router)) => return Ok(Access { client: Client::Here(router), opened: Some(opened) }),
                Err(fault) if fault.code == Code::FolderInUse => last = fault,
                Err(fault) => return Err(fault),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(last)
    }

    /// Reads a list page by page. `path` has a query already; `show` prints a page and gives the place of the next.
    ///
    /// # Errors
    /// What the surface or the output says.
    pub async fn pages<T, F>(&self, path: &str, mut show: F) -> Result<(), Fault>
    where
        T: serde::de::DeserializeOwned,
        F: FnMut(T) -> Result<Option<String>, Fault>,
    {
        let mut cursor: Option<String> = None;
        loop {
            let behind = cursor.as_deref().map_or(String::new(), |place| format!("&cursor={}", encoded(place)));
            cursor = show(self.client.get(&format!("{path}{behind}")).await?)?;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    /// Whether a process runs that goes on with what is commanded. Of a cluster that is taken for granted: `smsfleet fleet`
    /// tells.
    pub fn somebody_runs(&self) -> bool {
        self.opened.as_ref().is_none_or(|opened| opened.is_cluster())
    }

    /// Closes what this process opened.
    pub fn close(self) {
        if let Some(opened) = self.opened {
            opened.close();
        }
    }
}

/// Percent-encodes everything but letters, digits and `-._~` (RFC 3986, 2.3).
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_is_safe_in_a_path() {
        assert_eq!(encoded("+86 138/../x?y&é"), "%2B86%20138%2F..%2Fx%3Fy%26%C3%A9");
    }
}
