//! Which lane a number belongs to, how many lanes a batch has, and which partition serves a lane.

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::id::{BatchId, Msisdn};
use super::limits::{DELIVERY_PARTITIONS, LANES_MAX};

/// The mixing function of lanes: the finaliser of SplitMix64 (Steele, Lea and Flood 2014; constants of Stafford's
/// variant 13). It is part of the stored format and never changes; the golden vectors below hold it in place.
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The lane of a number in a batch of `lanes` lanes (a power of two up to 128).
pub fn lane_of(number: Msisdn, lanes: u16) -> u8 {
    debug_assert!(lanes.is_power_of_two() && lanes <= LANES_MAX);
    (mix(number.0) & u64::from(lanes - 1)) as u8
}

/// How many lanes a batch of about `recipients` has: the largest power of two that leaves each lane at least
/// `min_per_lane`. With `min_per_lane` 0 every batch has all 128.
pub fn lanes_for(recipients: u64, min_per_lane: u32) -> u16 {
    if min_per_lane == 0 {
        return LANES_MAX;
    }
    let mut lanes = 1u16;
    while lanes < LANES_MAX && recipients / u64::from(lanes * 2) >= u64::from(min_per_lane) {
        lanes *= 2;
    }
    lanes
}

/// Reads a stored number of lanes: 0 before the batch is planned, and then a power of two up to 128. Any other is damage, and would
/// send a number to a lane that is not there. For `#[serde(deserialize_with)]`.
pub fn stored<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let lanes = u16::deserialize(deserializer)?;
    let may_be = lanes == 0 || lanes.is_power_of_two() && lanes <= LANES_MAX;
    if may_be { Ok(lanes) } else { Err(D::Error::custom("no batch has so many lanes")) }
}

/// The delivery partition of a lane: `(base of the batch + lane) mod 128`, so that small batches spread.
pub fn partition_of(batch: BatchId, lane: u8) -> u8 {
    let base = mix((batch.0 as u64) ^ ((batch.0 >> 64) as u64)) % u64::from(DELIVERY_PARTITIONS);
    ((base + u64::from(lane)) % u64::from(DELIVERY_PARTITIONS)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_one_that_is_stored() {
        let golden = [(0, 0xe220_a839_7b1d_cdaf), (1, 0x910a_2dec_8902_5cc1), (8_613_800_138_000, 0x9f6b_5143_342b_ec56)];
        for (input, output) in golden {
            assert_eq!(mix(input), output, "mix({input})");
        }
        assert_eq!(lane_of(Msisdn(8_613_800_138_000), 128), 0x56);
        assert_eq!(lane_of(Msisdn(0), 128), 0x2f);
        assert_eq!(lane_of(Msisdn(1), 128), 0x41);
    }

    #[test]
    fn lanes_follow_the_size() {
        let cases =
            [(0, 5_000, 1), (9_999, 5_000, 1), (10_000, 5_000, 2), (640_000, 5_000, 128), (10, 0, 128), (10_000_000, 5_000, 128)];
        for (recipients, min, lanes) in cases {
            assert_eq!(lanes_for(recipients, min), lanes, "{recipients} at {min}");
        }
    }

    #[test]
    fn a_number_of_lanes_that_no_batch_has_is_damage() {
        let row = crate::model::batch::BatchRow::created(crate::model::batch::tests::batch(), String::new(), Default::default());
        let json = serde_json::to_string(&row).expect("a row is JSON");
        let read = |lanes: u32| {
            let json = json.replace(r#""lanes":0"#, &format!(r#""lanes":{lanes}"#));
            serde_json::from_str::<crate::model::batch::BatchRow>(&json).map(|row| row.lanes).ok()
        };
        for lanes in [0, 1, 2, 4, 8, 16, 32, 64, 128] {
            assert_eq!(read(lanes), Some(lanes as u16));
        }
        for lanes in [3, 127, 129, 256, 32_768, 65_535] {
            assert_eq!(read(lanes), None, "{lanes}");
        }
    }

    #[test]
    fn two_versions_of_a_fleet_send_a_lane_to_the_same_partition() {
        let golden = [(0, 0, 47), (42, 127, 20), (0x0123_4567_89ab_cdef_fedc_ba98_7654_3210, 1, 33)];
        for (batch, lane, partition) in golden {
            assert_eq!(partition_of(BatchId(batch), lane), partition, "lane {lane} of {batch:x}");
        }
    }

    #[test]
    fn lanes_of_a_batch_take_partitions_of_their_own() {
        let mut seen = std::collections::BTreeSet::new();
        for lane in 0..128 {
            assert!(seen.insert(partition_of(BatchId(42), lane)));
        }
        assert_eq!(seen.len(), 128);
    }
}
