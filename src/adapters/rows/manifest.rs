//! Manifests: packs, strikes as differences, totals.

use serde::{Deserialize, Serialize};

use super::column::{deltas, sums};
use super::frame::{block, corrupt, read_block};
use crate::model::limits::PACK_RECIPIENTS_MAX;
use crate::model::pack::{Manifest, ManifestPack, SealTotals};
use crate::ports::StoreError;

const WHAT: &str = "manifest";

#[derive(Serialize, Deserialize)]
struct Stored {
    packs: Vec<(u32, u32, u32, u32, u32)>,
    strikes: Vec<i64>,
    recipients: u64,
    duplicates: u64,
    segments: u64,
    gsm7: u64,
    ucs2: u64,
    hash: u64,
}

/// Writes a manifest.
pub fn write(manifest: &Manifest) -> Vec<u8> {
    let totals = &manifest.totals;
    block(&Stored {
        packs: manifest.packs.iter().map(|p| (p.range, p.attempt, p.n, p.first_seq, p.count)).collect(),
        strikes: deltas(manifest.strikes.iter().map(|seq| u64::from(*seq))),
        recipients: totals.recipients,
        duplicates: totals.duplicates,
        segments: totals.segments,
        gsm7: totals.gsm7,
        ucs2: totals.ucs2,
        hash: manifest.hash,
    })
}

/// Reads a manifest. One that no seal can have written is damaged, so that whoever reads it may count on its places: they follow one
/// another from 0 on, and no more are believed than its packs can hold.
pub fn read(bytes: &[u8]) -> Result<Manifest, StoreError> {
    let stored: Stored = read_block(WHAT, bytes)?;
    let strikes: Result<Vec<u32>, _> = sums(&stored.strikes).into_iter().map(u32::try_from).collect();
    let manifest = Manifest {
        packs: stored
            .packs
            .into_iter()
            .map(|(range, attempt, n, first_seq, count)| ManifestPack { range, attempt, n, first_seq, count })
            .collect(),
        strikes: strikes.map_err(|_| corrupt(WHAT, "a struck-out place is too large"))?,
        totals: SealTotals {
            recipients: stored.recipients,
            duplicates: stored.duplicates,
            segments: stored.segments,
            gsm7: stored.gsm7,
            ucs2: stored.ucs2,
        },
        hash: stored.hash,
    };
    check(&manifest).map_err(|how| corrupt(WHAT, how)).map(|()| manifest)
}

fn check(manifest: &Manifest) -> Result<(), &'static str> {
    let mut places = 0u32;
    for pack in &manifest.packs {
        if pack.first_seq != places {
            return Err("its packs do not follow one another");
        }
        if !(1..=PACK_RECIPIENTS_MAX).contains(&(pack.count as usize)) {
            return Err("a pack of it holds nobody, or more than any pack does");
        }
        places = places.checked_add(pack.count).ok_or("its places cannot be numbered")?;
    }
    let strikes = &manifest.strikes;
    if !strikes.is_sorted_by(|one, next| one < next) || strikes.last().is_some_and(|last| *last >= places) {
        return Err("its struck-out places are out of order, or lie behind its end");
    }
    let (most, totals) = (u64::from(places), &manifest.totals);
    let counts = [totals.recipients, totals.duplicates, totals.gsm7, totals.ucs2];
    if counts.iter().any(|count| *count > most) || totals.segments > most * u64::from(u8::MAX) {
        return Err("it counts more than it holds");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_reads_back_and_its_form_is_the_stored_one() {
        let manifest = Manifest {
            packs: vec![pack(3, 0, 300), pack(4, 300, 2)],
            strikes: vec![5, 9],
            totals: SealTotals { recipients: 300, duplicates: 2, segments: 302, gsm7: 202, ucs2: 98 },
            hash: 77,
        };
        let bytes = write(&manifest);
        assert_eq!(read(&bytes), Ok(manifest));
        let golden =
            [&[0, 25, 0, 0, 0, 2, 1, 2, 3, 0, 172, 2, 1, 2, 4, 172, 2, 2][..], &[2, 10, 8, 172, 2, 2, 174, 2, 202, 1, 98, 77]];
        assert_eq!(bytes[9..], golden.concat());
    }

    #[test]
    fn a_manifest_that_no_seal_wrote_is_damaged() {
        let most = PACK_RECIPIENTS_MAX as u32;
        let totals = |recipients, segments| SealTotals { recipients, segments, ..SealTotals::default() };
        let of = |packs, strikes, totals| Manifest { packs, strikes, totals, hash: 0 };
        let refused = |packs: Vec<ManifestPack>, strikes: &[u32], totals: SealTotals| {
            let read = read(&write(&of(packs, strikes.to_vec(), totals)));
            assert!(read.is_ok() || matches!(read, Err(StoreError::Corrupt(_))), "{read:?}");
            read.is_err()
        };
        let none = SealTotals::default;
        assert!(!refused(vec![], &[], none()) && !refused(vec![pack(0, 0, most)], &[0, most - 1], totals(most.into(), 1)));
        assert!(refused(vec![pack(0, 0, u32::MAX)], &[], none()), "nobody makes room for four billion people");
        assert!(refused(vec![pack(0, 0, most + 1)], &[], none()) && refused(vec![pack(0, 0, 0)], &[], none()));
        assert!(refused(vec![pack(0, 1, 2)], &[], none()), "it begins behind 0");
        assert!(refused(vec![pack(0, 0, 2), pack(1, 3, 2)], &[], none()), "a gap");
        assert!(refused(vec![pack(1, 2, 2), pack(0, 0, 2)], &[], none()), "out of order");
        assert!(refused(vec![pack(0, 0, 2)], &[2], none()) && refused(vec![pack(0, 0, 2)], &[1, 0], none()), "strikes");
        assert!(refused(vec![pack(0, 0, 2)], &[1, 1], none()));
        assert!(refused(vec![pack(0, 0, 2)], &[], totals(3, 3)) && refused(vec![pack(0, 0, 2)], &[], totals(2, 511)));
        let places = u32::MAX / most + 1;
        let many = (0..places).map(|n| pack(n, n * most, most)).collect();
        assert!(refused(many, &[], none()), "more places than there are numbers");
    }

    fn pack(n: u32, first_seq: u32, count: u32) -> ManifestPack {
        ManifestPack { range: 1, attempt: 2, n, first_seq, count }
    }
}
