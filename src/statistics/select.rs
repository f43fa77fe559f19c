//! Whom an order to send again names in one lane: by what the store says became of each recipient.

use std::collections::BTreeMap;

use super::recount::pack_key;
use super::walk::{History, Lane};
use crate::model::account::Account;
use crate::model::id::{LaneKey, Msisdn};
use crate::model::order::{Named, RetryWhat};
use crate::model::window::RetryEntry;
use crate::ports::{StoreError, Stores};

/// The recipients of a lane that an order names, in order, each with the parts that are to be sent. Whoever an account took, or
/// may have taken, is never among them. Who had a part taken by an account of another provider type than `provider_type` is
/// left out: a handset cannot put the parts of two providers together. Of the others each says which account took the rest.
pub async fn select(
    stores: &Stores,
    accounts: &BTreeMap<String, Account>,
    provider_type: &str,
    key: LaneKey,
    what: &RetryWhat,
    round: u8,
) -> Result<Vec<Named>, StoreError> {
    let lane = Lane::load(stores, accounts, key, &History::None).await?;
    if let Some(what) = lane.missing() {
        return Err(StoreError::Corrupt(format!(
            "lane {key}: {what}, so nobody can tell who was sent; cancel the retry's batch"
        )));
    }
    let mut named = Vec::new();
    for (seq, person) in (0u32..).zip(&lane.people) {
        let (outcome, code) = lane.outcome(seq);
        if person.in_flight || !what.names(outcome, code, lane.account_of(person), lane.detail_of(person)) {
            continue;
        }
        let Some(parts) = person.fold.again() else { continue };
        let of_type = |name: &str| accounts.get(name).is_some_and(|account| account.provider_type == provider_type);
        let account = (parts != 0).then(|| lane.taken_by(person)).flatten().map(str::to_owned);
        if parts == 0 || account.as_deref().is_some_and(of_type) {
            named.push(Named { entry: RetryEntry { seq, tries: 0, parts, round }, account });
        }
    }
    match what.numbers() {
        Some(numbers) => with_numbers(stores, &lane, named, numbers).await,
        None => Ok(named),
    }
}

/// Those of `named` that have one of these numbers.
async fn with_numbers(stores: &Stores, lane: &Lane, named: Vec<Named>, numbers: &[Msisdn]) -> Result<Vec<Named>, StoreError> {
    let mut wanted: Vec<u64> = numbers.iter().map(|number| number.0).collect();
    wanted.sort_unstable();
    let (mut kept, mut rest) = (Vec::new(), &named[..]);
    for pack in lane.manifest.iter().flat_map(|manifest| &manifest.packs) {
        let here = rest.partition_point(|named| named.entry.seq < pack.first_seq + pack.count);
        let (mine, behind) = rest.split_at(here);
        rest = behind;
        if mine.is_empty() {
            continue;
        }
        let head = match stores.packs.head(pack_key(lane.key, pack)).await {
            Ok(head) => head.unwrap_or_default(),
            // Nobody can say whose number is whose: they are not named by it.
            Err(StoreError::Corrupt(_)) => continue,
            Err(error) => return Err(error),
        };
        let has = |named: &&Named| {
            let number = head.numbers.get((named.entry.seq - pack.first_seq) as usize);
            number.is_some_and(|number| wanted.binary_search(number).is_ok())
        };
        kept.extend(mine.iter().filter(has).cloned());
    }
    Ok(kept)
}
