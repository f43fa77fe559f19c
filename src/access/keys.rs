//! Keys of the API: made, listed, revoked, and recognised.
//!
//! A key reads `sfk_<id>_<secret>`. Only a digest of the secret is stored, so that neither the store nor a backup opens
//! anything. A revoked key is refused by every process within [`FRESH`].

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::model::access::{ALL_TENANTS, ApiKey, Caller, Role};
use crate::model::code::{Code, Fault};
use crate::model::time::Timestamp;
use crate::ports::documents::Shelf;
use crate::ports::{Stores, World};
use crate::runtime::digest::{digest, hex};
use crate::runtime::document;

/// How long a key that was read is trusted before it is read again.
pub const FRESH: Duration = Duration::from_secs(1);
/// Keys remembered; unknown ids are not, so that guessing fills no memory.
const REMEMBERED_MAX: usize = 10_000;
/// Digits of a key's id, and of its secret.
const ID_DIGITS: usize = 10;
const SECRET_DIGITS: usize = 32;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Keys on one page of a list.
const PAGE: usize = 500;

/// The keys as one process knows them.
pub struct Keys {
    stores: Stores,
    world: World,
    known: Mutex<BTreeMap<String, (ApiKey, Duration)>>,
}

/// A key that was just made: its text is shown this once.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NewKey {
    /// The whole key.
    pub key: String,
    /// What is stored of it.
    pub stored: ApiKey,
}

impl Keys {
    /// The keys of a store.
    pub fn new(stores: Stores, world: World) -> Keys {
        Keys { stores, world, known: Mutex::default() }
    }

    /// Makes a key.
    ///
    /// # Errors
    /// [`Code::InputInvalid`], or the store's.
    pub async fn create(&self, name: &str, role: Role, tenant: &str, expires: Option<Timestamp>) -> Result<NewKey, Fault> {
        let invalid = |what: &str| Err(Fault::new(Code::InputInvalid, what.to_owned()));
        if name.trim().is_empty() || name.len() > 100 || name.chars().any(char::is_control) {
            return invalid("name has 1 to 100 characters");
        }
        let is_tenant = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if tenant != ALL_TENANTS && (tenant.is_empty() || tenant.len() > 64 || !tenant.chars().all(is_tenant)) {
            return invalid("tenant has up to 64 letters, digits, `_`, `-` and `.`, or is `*` for all");
        }
        let now = self.world.clock.now();
        if expires.is_some_and(|at| at <= now) {
            return invalid("expires lies in the past");
        }
        let (id, secret) = (self.random(ID_DIGITS), self.random(SECRET_DIGITS));
        let (name, tenant) = (name.trim().to_owned(), tenant.to_owned());
        let stored = ApiKey { id, name, role, tenant, digest: digest_of(&secret), created: now, expires, revoked: None };
        self.stores.documents.put(Shelf::ApiKey, &stored.id, &written(&stored)?).await?;
        Ok(NewKey { key: format!("sfk_{}_{secret}", stored.id), stored })
    }

    /// All keys, revoked ones included.
    ///
    /// # Errors
    /// The store's. One that cannot be read is named: a list without it would say that nobody holds it.
    pub async fn list(&self) -> Result<Vec<ApiKey>, Fault> {
        let (mut keys, mut behind): (Vec<ApiKey>, Option<String>) = (vec![], None);
        loop {
            let page = self.stores.documents.list(Shelf::ApiKey, "", behind.as_deref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            behind = Some(last.name.clone());
            for document in &page {
                keys.push(read(&document.name, &document.body)?);
            }
        }
        keys.sort_by_key(|key| key.created);
        Ok(keys)
    }

    /// One key, as it is stored now.
    ///
    /// # Errors
    /// [`Code::StoreCorrupt`] when it cannot be read; or the store's.
    pub async fn find(&self, id: &str) -> Result<Option<ApiKey>, Fault> {
        if !is_id(id) {
            return Ok(None);
        }
        let body = self.stores.documents.get(Shelf::ApiKey, id).await?;
        body.map(|body| read(id, &body)).transpose()
    }

    /// Whether a key that was recognised still opens anything. One that cannot be read does not.
    ///
    /// # Errors
    /// The store's.
    pub async fn opens(&self, id: &str) -> Result<bool, Fault> {
        match self.load(id).await {
            Ok(key) => Ok(key.is_some_and(|key| key.is_valid(self.world.clock.now()))),
            Err(fault) if fault.code == Code::StoreCorrupt => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// Revokes a key. Revoking it again is harmless. The row of one that cannot be read is removed.
    ///
    /// # Errors
    /// [`Code::KeyNotFound`], also for one that could not be read; or the store's.
    pub async fn revoke(&self, id: &str) -> Result<ApiKey, Fault> {
        let missing = || Fault::new(Code::KeyNotFound, format!("key {id}"));
        if !is_id(id) {
            return Err(missing());
        }
        let body = self.stores.documents.get(Shelf::ApiKey, id).await?.ok_or_else(missing)?;
        let Ok(mut key) = read(id, &body) else {
            // It opened nothing, and held up the list of all others: taking it away is all that can be done with it.
            self.stores.documents.delete(Shelf::ApiKey, id).await?;
            return Err(Fault::new(Code::KeyNotFound, format!("the row of key {id} was damaged and is removed")));
        };
        if key.revoked.is_none() {
            key.revoked = Some(self.world.clock.now());
            self.stores.documents.put(Shelf::ApiKey, id, &written(&key)?).await?;
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        Ok(key)
    }

    /// Who holds this key.
    ///
    /// # Errors
    /// [`Code::KeyInvalid`], which does not say what is wrong with it; or the store's.
    pub async fn recognise(&self, text: &str) -> Result<Caller, Fault> {
        let invalid = || Fault::new(Code::KeyInvalid, "the key opens nothing");
        let (id, secret) = text.strip_prefix("sfk_").and_then(|rest| rest.split_once('_')).ok_or_else(invalid)?;
        if !is_id(id) || secret.len() != SECRET_DIGITS {
            return Err(invalid());
        }
        let key = self.load(id).await?.ok_or_else(invalid)?;
        // Digests are compared, so that the time it takes says nothing about the secret.
        if key.digest != digest_of(secret) || !key.is_valid(self.world.clock.now()) {
            return Err(invalid());
        }
        Ok(key.caller())
    }

    async fn load(&self, id: &str) -> Result<Option<ApiKey>, Fault> {
        let now = self.world.clock.boot();
        if let Some((key, read)) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(id)
            && now.saturating_sub(*read) < FRESH
        {
            return Ok(Some(key.clone()));
        }
        let Some(key) = self.find(id).await? else { return Ok(None) };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        known.insert(id.to_owned(), (key.clone(), now));
        Ok(Some(key))
    }

    fn random(&self, digits: usize) -> String {
        // The largest multiple of 62 in a byte: what lies above would make some digits likelier.
        let fair = |byte: &u8| *byte < 248;
        let bytes = std::iter::repeat_with(|| self.world.chance.next().to_le_bytes()).flatten();
        bytes.filter(fair).take(digits).map(|byte| char::from(DIGITS[usize::from(byte % 62)])).collect()
    }
}

fn is_id(text: &str) -> bool {
    text.len() == ID_DIGITS && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn digest_of(secret: &str) -> String {
    hex(&digest([secret.as_bytes()]))
}

fn written(key: &ApiKey) -> Result<String, Fault> {
    serde_json::to_string(key).map_err(|error| Fault::new(Code::Internal, error.to_string()))
}

fn read(id: &str, body: &str) -> Result<ApiKey, Fault> {
    Ok(document::read_named(&format!("the stored key {id:.20}"), id, body, |key: &ApiKey| &key.id)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::adapters::memory::store::MemoryStore;
    use crate::adapters::system::{SeededChance, SystemClock};

    fn keys() -> Keys {
        let chance = Arc::new(SeededChance::from_seed(7));
        let stores = MemoryStore::new(chance.clone()).stores();
        Keys::new(stores, World { clock: Arc::new(SystemClock), chance })
    }

    #[tokio::test]
    async fn a_key_opens_until_it_is_revoked_and_no_other_text_does() {
        let keys = keys();
        let made = keys.create("desk", Role::Operator, "acme", None).await.expect("a key");
        let caller = keys.recognise(&made.key).await.expect("it opens");
        assert_eq!((caller.role, caller.tenant.as_str(), caller.name.as_str()), (Role::Operator, "acme", "desk"));
        assert!(!keys.list().await.expect("a list")[0].digest.contains(&made.key[15..]), "the secret is not stored");
        let mut wrong = made.key.clone();
        let last = if wrong.pop() == Some('a') { 'b' } else { 'a' };
        wrong.push(last);
        for text in ["", "sfk_", "sfk__", &made.key[..20], &wrong, &made.key.replace("sfk_", "sfk"), &format!("{} ", made.key)] {
            assert_eq!(keys.recognise(text).await.map_err(|fault| fault.code), Err(Code::KeyInvalid), "{text}");
        }
        keys.revoke(&made.stored.id).await.expect("it is revoked");
        keys.revoke(&made.stored.id).await.expect("again is harmless");
        assert_eq!(keys.recognise(&made.key).await.map_err(|fault| fault.code), Err(Code::KeyInvalid));
        assert_eq!(keys.revoke("nothing\0here").await.map_err(|fault| fault.code), Err(Code::KeyNotFound));
    }

    #[tokio::test]
    async fn another_process_sees_a_revocation_within_a_second() {
        let chance = Arc::new(SeededChance::from_seed(7));
        let stores = MemoryStore::new(chance.clone()).stores();
        let world = World { clock: Arc::new(SystemClock), chance };
        let (here, there) = (Keys::new(stores.clone(), world.clone()), Keys::new(stores, world));
        let made = here.create("desk", Role::Viewer, "*", None).await.expect("a key");
        there.recognise(&made.key).await.expect("it opens");
        here.revoke(&made.stored.id).await.expect("it is revoked");
        let refused = async {
            while there.recognise(&made.key).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(FRESH * 3, refused).await.expect("it is refused");
    }

    #[tokio::test]
    async fn a_damaged_key_is_named_opens_nothing_and_can_be_removed() {
        let keys = keys();
        let made = keys.create("desk", Role::Operator, "acme", None).await.expect("a key");
        let id = made.stored.id.clone();
        keys.stores.documents.put(Shelf::ApiKey, &id, r#"{"id":"x","secret":1"#).await.expect("stored");
        let refused = keys.list().await.expect_err("it cannot be listed");
        assert!(refused.code == Code::StoreCorrupt && refused.context.contains(&id), "{refused:?}");
        assert_eq!(keys.recognise(&made.key).await.map_err(|fault| fault.code), Err(Code::StoreCorrupt));
        assert_eq!(keys.revoke(&id).await.map_err(|fault| fault.code), Err(Code::KeyNotFound));
        assert_eq!(keys.list().await, Ok(vec![]));
    }

    #[tokio::test]
    async fn bad_wishes_are_refused() {
        let keys = keys();
        let past = Some(Timestamp(1));
        for (name, tenant, expires) in
            [("", "t", None), ("n", "", None), ("n", "a b", None), ("n", "t", past), ("a\nb", "t", None)]
        {
            let made = keys.create(name, Role::Viewer, tenant, expires).await;
            assert_eq!(made.map_err(|fault| fault.code), Err(Code::InputInvalid), "{name:?} {tenant:?}");
        }
        assert!(keys.list().await.expect("a list").is_empty());
    }
}
