//! Who is struck when: drawn from a seed before anything starts.

use serde::Serialize;

use crate::ports::clock::Chance;

/// Strikes fall while this part of the messages, in percent, is sent: the first meets a fleet that works, the last leaves it
/// something to send.
const FIRST: u64 = 5;
const LAST: u64 = 85;

/// What a process meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Blow {
    /// SIGKILL, and another is started.
    Killed,
    /// SIGSTOP, for longer than any lease lasts, and SIGCONT.
    Frozen,
    /// SIGTERM, and another is started.
    Stopped,
}

/// All blows.
pub const BLOWS: [Blow; 3] = [Blow::Killed, Blow::Frozen, Blow::Stopped];

impl Blow {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Blow::Killed => "killed",
            Blow::Frozen => "frozen",
            Blow::Stopped => "stopped",
        }
    }
}

/// A blow at its moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strike {
    /// It falls once the simulator has counted so many messages.
    pub after: u64,
    /// What.
    pub blow: Blow,
    /// Chooses whom, among those who run then.
    pub whom: u64,
}

/// Draws `strikes` strikes over a list of `records`, in the order in which they fall. Each kind comes once before any comes
/// twice.
pub fn plan(chance: &dyn Chance, strikes: u32, records: u64) -> Vec<Strike> {
    let at = |percent: u64, of: u64| records * percent / 100 * of / u64::from(strikes.max(1));
    let mut kinds: Vec<Blow> = vec![];
    (0..u64::from(strikes))
        .map(|n| {
            if kinds.is_empty() {
                kinds = BLOWS.to_vec();
            }
            let blow = kinds.remove((chance.next() % kinds.len() as u64) as usize);
            // The first half of its slot: the fleet is back before the next one falls.
            let slot = at(LAST - FIRST, 1);
            let after = records * FIRST / 100 + at(LAST - FIRST, n) + chance.next() % (slot / 2).max(1);
            Strike { after: after.max(1), blow, whom: chance.next() }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::system::SeededChance;

    #[test]
    fn strikes_fall_while_the_batch_is_sent_in_order_and_with_every_kind() {
        for seed in 0..50 {
            for (strikes, records) in [(3, 1_000), (7, 20_000), (40, 100), (1, 1)] {
                let strikes = plan(&SeededChance::from_seed(seed), strikes, records);
                assert!(strikes.is_sorted_by_key(|strike| strike.after), "{strikes:?}");
                assert!(strikes.iter().all(|strike| strike.after >= 1 && strike.after <= (records * 9 / 10).max(1)));
                for three in strikes.chunks_exact(3) {
                    let mut kinds: Vec<Blow> = three.iter().map(|strike| strike.blow).collect();
                    kinds.sort();
                    assert_eq!(kinds, BLOWS, "seed {seed}");
                }
            }
        }
        let again = |seed| plan(&SeededChance::from_seed(seed), 6, 5_000);
        assert_eq!((again(4), again(4) == again(5)), (again(4), false), "the seed decides");
        assert_eq!(plan(&SeededChance::from_seed(1), 0, 100), vec![]);
    }
}
