//! Secrets: texts that are never printed, and that may stand in files which change while the process runs.
//!
//! Kubernetes exchanges a mounted secret in place, by a link that leads elsewhere from one moment to the next. So a file is looked
//! at when its secret is needed, and read when it is another one than before; nothing watches it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use secrecy::{ExposeSecret, SecretString};
use serde::de::{Error, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Keys of a secret that came from a file, as the configuration's reader writes it.
pub const FILE_KEYS: [&str; 3] = ["file", "setting", "text"];

/// A password or token from the configuration. It is written as `***`, in debug output and in a printed configuration.
#[derive(Clone, Default)]
pub struct Secret {
    text: SecretString,
    file: Option<Arc<SecretFile>>,
}

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret { text: SecretString::from(text.into()), file: None }
    }

    /// A secret that was read from a file; `setting` is the key that names it.
    pub fn of_file(path: PathBuf, setting: String, text: String) -> Secret {
        let text = SecretString::from(text);
        let kept = Mutex::new(Kept { seen: None, text: text.clone(), is_told: false });
        Secret { text, file: Some(Arc::new(SecretFile { path, setting, kept })) }
    }

    /// The secret as it is now: what its file says, where it has one that can be read, else what it said before.
    #[must_use]
    pub fn now(&self) -> Secret {
        let text = self.file.as_ref().map_or_else(|| self.text.clone(), |file| file.now());
        Secret { text, file: None }
    }

    /// The text itself as it was when this was made, for the wire only.
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

struct SecretFile {
    path: PathBuf,
    setting: String,
    kept: Mutex<Kept>,
}

struct Kept {
    /// The file that was read last.
    seen: Option<Mark>,
    text: SecretString,
    /// That it cannot be read was said.
    is_told: bool,
}

/// What tells one file from another: device, inode, time of change, length.
type Mark = (u64, u64, i64, i64, u64);

impl SecretFile {
    fn now(&self) -> SecretString {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match read_unless(&self.path, kept.seen) {
            Ok(None) => kept.is_told = false,
            Ok(Some((mark, text))) => {
                if text != kept.text.expose_secret() {
                    tracing::info!(setting = self.setting, "a secret has changed; the new one is used from now on");
                    kept.text = SecretString::from(text);
                }
                (kept.seen, kept.is_told) = (Some(mark), false);
            }
            Err(why) => {
                if !kept.is_told {
                    tracing::warn!(setting = self.setting, why, "a secret cannot be read again; the one before it is used");
                }
                kept.is_told = true;
            }
        }
        kept.text.clone()
    }
}

/// The first line of a file and its mark, unless it is the file that was seen.
fn read_unless(path: &Path, seen: Option<Mark>) -> Result<Option<(Mark, String)>, String> {
    let told = |error: std::io::Error| error.to_string();
    let data = std::fs::metadata(path).map_err(told)?;
    // A pipe would be waited for.
    if !data.is_file() {
        return Err("it is no file".into());
    }
    // Taken before the text: a file that changes in between is read again the next time.
    let mark = (data.dev(), data.ino(), data.ctime(), data.ctime_nsec(), data.len());
    if seen == Some(mark) {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path).map_err(told)?;
    Ok(Some((mark, first_line(&text)?.to_owned())))
}

/// The secret in a file's text, its first line, or what is wrong with it. A file that says nothing was forgotten or is about to be
/// written: whoever wants no secret names no file.
pub fn first_line(text: &str) -> Result<&str, String> {
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() || line.contains('\0') { Err("it is empty, or is no text".into()) } else { Ok(line) }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.is_empty() { "" } else { "***" })
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

/// Reads a text, or what the configuration's reader made of a file.
struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Secret;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Secret, E> {
        Ok(Secret::new(text))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Secret, E> {
        Ok(Secret::new(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
        let mut found: [Option<String>; FILE_KEYS.len()] = Default::default();
        while let Some(key) = map.next_key::<String>()? {
            let place = FILE_KEYS.iter().position(|known| *known == key);
            let place = place.ok_or_else(|| A::Error::invalid_type(Unexpected::Map, &Reader))?;
            found[place] = Some(map.next_value()?);
        }
        match found {
            [Some(path), Some(setting), Some(text)] => Ok(Secret::of_file(path.into(), setting, text)),
            _ => Err(A::Error::invalid_type(Unexpected::Map, &Reader)),
        }
    }
}

#[cfg(test)]
#[path = "secret_tests.rs"]
mod tests;
