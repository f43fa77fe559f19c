//! The audit trail: one entry before a command is carried out and one after it, which nothing but retention removes.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::access::{AuditEntry, Caller, Came, Standing};
use crate::model::code::Fault;
use crate::model::id::BatchId;
use crate::model::lane::mix;
use crate::model::limits::AUDIT_VALUE_BYTES_MAX;
use crate::model::time::Timestamp;
use crate::ports::clock::Clock;
use crate::ports::journal::{Direction, Entry, Place, Stream};
use crate::ports::{StoreError, Stores};
use crate::runtime::document;

/// Entries that this process has written.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// A command that is being written down.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Names the request.
    pub request: String,
    /// Who asks.
    pub caller: Caller,
    /// What is asked, such as `batch.pause`.
    pub action: String,
    /// What it is about.
    pub target: String,
    /// Whose thing that is.
    pub tenant: String,
    /// How it was before.
    pub before: Standing,
}

/// A value as it is kept: the whole request may stand in one, and both entries are written before anything is known of it.
fn short(text: &str) -> String {
    if text.len() <= AUDIT_VALUE_BYTES_MAX {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(AUDIT_VALUE_BYTES_MAX)])
}

fn shortened(standing: &Standing) -> Standing {
    standing.iter().map(|(name, value)| (name.clone(), short(value))).collect()
}

impl Asked {
    fn entry(&self, at: Timestamp, came: Came, after: &Standing) -> AuditEntry {
        AuditEntry {
            at,
            request: self.request.clone(),
            key: self.caller.key.clone(),
            who: self.caller.name.clone(),
            role: self.caller.role,
            tenant: self.tenant.clone(),
            action: self.action.clone(),
            target: short(&self.target),
            came,
            before: shortened(&self.before),
            after: shortened(after),
        }
    }

    /// Carries out a command between its two entries. `wish` says what was asked in detail; the command says how things stand
    /// after it.
    ///
    /// # Errors
    /// The command's, or the store's: what cannot be written down is not carried out.
    pub async fn witness<T>(
        &self,
        stores: &Stores,
        clock: &dyn Clock,
        wish: Standing,
        command: impl Future<Output = Result<(T, Standing), Fault>>,
    ) -> Result<T, Fault> {
        self.begin(stores, clock.now(), wish).await?;
        match command.await {
            Ok((answer, after)) => {
                self.end(stores, clock.now(), Came::Done, after).await?;
                Ok(answer)
            }
            Err(fault) => {
                self.end(stores, clock.now(), Came::Refused(fault.code), Standing::new()).await?;
                Err(fault)
            }
        }
    }

    /// Writes down that the command was asked for: durable before anything is done.
    async fn begin(&self, stores: &Stores, at: Timestamp, wish: Standing) -> Result<(), StoreError> {
        append(stores, self.entry(at, Came::Asked, &wish)).await
    }

    /// Writes down what came of it.
    async fn end(&self, stores: &Stores, at: Timestamp, came: Came, after: Standing) -> Result<(), StoreError> {
        append(stores, self.entry(at, came, &after)).await
    }
}

/// Which entries are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Only about this batch.
    pub batch: Option<BatchId>,
    /// Only of this tenant.
    pub tenant: Option<String>,
    /// Only of this key.
    pub key: Option<String>,
}

/// Entries looked at for one page: then the place reached is given back, so that a filter that fits few keeps nobody waiting.
const LOOKED_AT: usize = 10_000;

/// Entries, newest first, behind a place that an earlier call gave. A page may be short, even empty, and not be the last.
///
/// # Errors
/// The store's. An entry that cannot be read is an error too: a trail that passed over it would be none.
pub async fn list(
    stores: &Stores,
    wanted: &Wanted,
    mut behind: Option<Place>,
    limit: usize,
) -> Result<(Vec<AuditEntry>, Option<Place>), StoreError> {
    let within = wanted.batch.map_or_else(|| "day/".to_owned(), |batch| format!("target/{batch}/"));
    let (mut found, mut looked_at) = (Vec::new(), 0);
    loop {
        let page = stores.journal.list(Stream::Audit, &within, behind.as_ref(), limit.max(100), Direction::Backward).await?;
        if page.is_empty() {
            return Ok((found, None));
        }
        for entry in page {
            let audit: AuditEntry = document::read(&format!("the audit entry of {}", entry.place.at), &entry.body)?;
            behind = Some(entry.place);
            let fits = wanted.tenant.as_ref().is_none_or(|tenant| *tenant == audit.tenant)
                && wanted.key.as_ref().is_none_or(|key| *key == audit.key);
            if fits {
                found.push(audit);
            }
            looked_at += 1;
            if found.len() >= limit || looked_at >= LOOKED_AT {
                return Ok((found, behind));
            }
        }
        // A long trail comes from memory to a good part: others have a turn.
        tokio::task::yield_now().await;
    }
}

/// Stored twice: by day, to read it as it happened, and by what it is about.
async fn append(stores: &Stores, entry: AuditEntry) -> Result<(), StoreError> {
    let body = serde_json::to_string(&entry).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    // Within a millisecond this process's order holds; the rest of the id keeps other processes apart.
    let order = WRITTEN.fetch_add(1, Ordering::Relaxed) << 32;
    let id = order | entry.request.bytes().fold(0, |id, byte| mix(id ^ u64::from(byte))) & 0xffff_ffff;
    let day: String = entry.at.to_string().chars().take(10).collect();
    // A target may be a text from outside: it must fit a scope.
    let target: String = entry.target.chars().filter(|c| c.is_ascii_graphic()).take(100).collect();
    let rows = [format!("day/{day}/"), format!("target/{target}/")]
        .map(|scope| Entry { place: Place { scope, at: entry.at, id }, body: body.clone() });
    stores.journal.append(Stream::Audit, rows.into()).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::adapters::memory::store::MemoryStore;
    use crate::adapters::system::SeededChance;
    use crate::model::code::Code;

    #[tokio::test]
    async fn what_was_done_is_read_newest_first_and_by_batch() {
        let stores = MemoryStore::new(Arc::new(SeededChance::from_seed(1))).stores();
        let day = 86_400_000;
        for (n, batch) in [(0, 1u128), (1, 2), (2, 1)] {
            let asked = Asked {
                request: format!("r{n}"),
                caller: Caller::local(),
                action: "batch.pause".into(),
                target: BatchId(batch).to_string(),
                tenant: format!("t{batch}"),
                before: Standing::from([("state".into(), "RUNNING".into())]),
            };
            asked.begin(&stores, Timestamp(n * day), Standing::new()).await.expect("it is written");
            let came = if n == 2 { Came::Refused(Code::NotAllowed) } else { Came::Done };
            asked.end(&stores, Timestamp(n * day + 5), came, Standing::new()).await.expect("it is written");
        }
        let requests = async |wanted: Wanted, page: usize| {
            let (mut requests, mut behind) = (vec![], None);
            loop {
                let (entries, next) = list(&stores, &wanted, behind, page).await.expect("a page");
                requests.extend(entries.into_iter().map(|entry| (entry.request, entry.came)));
                behind = next;
                if behind.is_none() {
                    return requests;
                }
            }
        };
        let named = |n: u32, came| (format!("r{n}"), came);
        let refused = Came::Refused(Code::NotAllowed);
        for page in 1..8 {
            let all = requests(Wanted::default(), page).await;
            assert_eq!(all.len(), 6);
            assert_eq!(all[..2], [named(2, refused.clone()), named(2, Came::Asked)]);
            let batch = requests(Wanted { batch: Some(BatchId(1)), ..Wanted::default() }, page).await;
            assert_eq!(batch.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["r2", "r2", "r0", "r0"]);
            let tenant = requests(Wanted { tenant: Some("t2".into()), ..Wanted::default() }, page).await;
            assert_eq!(tenant, [named(1, Came::Done), named(1, Came::Asked)]);
        }
    }

    #[tokio::test]
    async fn a_filter_that_fits_nobody_gives_the_place_it_reached() {
        let stores = MemoryStore::new(Arc::new(SeededChance::from_seed(1))).stores();
        let asked = Asked {
            request: "r".into(),
            caller: Caller::local(),
            action: "batch.pause".into(),
            target: "x".into(),
            tenant: "t".into(),
            before: Standing::new(),
        };
        let all = LOOKED_AT as i64 + 50;
        for at in 0..all {
            asked.end(&stores, Timestamp(at), Came::Done, Standing::new()).await.expect("it is written");
        }
        let wanted = Wanted { tenant: Some("nobody".into()), ..Wanted::default() };
        let (found, behind) = list(&stores, &wanted, None, 500).await.expect("a page");
        let reached = behind.as_ref().map(|place| place.at);
        assert_eq!((found.len(), reached), (0, Some(Timestamp(all - LOOKED_AT as i64))), "newest first");
        let (found, behind) = list(&stores, &wanted, behind, 500).await.expect("a page");
        assert_eq!((found.len(), behind), (0, None));
    }

    #[tokio::test]
    async fn an_entry_is_small_whatever_was_asked() {
        let stores = MemoryStore::new(Arc::new(SeededChance::from_seed(1))).stores();
        let much = || Standing::from([("wish".to_owned(), "退".repeat(1_000_000)), ("short".to_owned(), "as it is".to_owned())]);
        let asked = Asked {
            request: "r".into(),
            caller: Caller::local(),
            action: "batch.retry".into(),
            target: "x".repeat(1_000_000),
            tenant: "t".into(),
            before: much(),
        };
        asked.begin(&stores, Timestamp(0), much()).await.expect("it is written");
        asked.end(&stores, Timestamp(1), Came::Done, much()).await.expect("it is written");
        let (entries, _) = list(&stores, &Wanted::default(), None, 10).await.expect("a page");
        assert_eq!(entries.len(), 2);
        for entry in entries {
            assert_eq!((&*entry.after["short"], entry.after["wish"].ends_with('…')), ("as it is", true));
            let written = serde_json::to_string(&entry).expect("an entry is written");
            assert!(written.len() < 4 * AUDIT_VALUE_BYTES_MAX, "{} bytes", written.len());
        }
    }
}
