//! Manifests: packs, strikes as differences, totals.

use serde::{Deserialize, Serialize};

use super::column::{deltas, sums};
use super::frame::{block, corrupt, read_block};
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

/// Reads a manifest.
pub fn read(bytes: &[u8]) -> Result<Manifest, StoreError> {
    let stored: Stored = read_block(WHAT, bytes)?;
    let strikes: Result<Vec<u32>, _> = sums(&stored.strikes).into_iter().map(u32::try_from).collect();
    Ok(Manifest {
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
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_reads_back_and_its_form_is_the_stored_one() {
        let manifest = Manifest {
            packs: vec![ManifestPack { range: 1, attempt: 2, n: 3, first_seq: 4, count: 300 }],
            strikes: vec![5, 9],
            totals: SealTotals { recipients: 298, duplicates: 2, segments: 300, gsm7: 200, ucs2: 98 },
            hash: 77,
        };
        let bytes = write(&manifest);
        assert_eq!(read(&bytes), Ok(manifest));
        let golden = [0, 19, 0, 0, 0, 1, 1, 2, 3, 4, 172, 2, 2, 10, 8, 170, 2, 2, 172, 2, 200, 1, 98, 77];
        assert_eq!(bytes[9..], golden);
    }
}
