//! Who gets which partition: evenly, moving as few as possible.

use std::collections::BTreeMap;

use super::topic::MemberId;

/// What must change.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Partitions to take from a member that has too many.
    pub(super) revoke: BTreeMap<MemberId, Vec<u8>>,
    /// Free partitions to give to a member that has too few.
    pub(super) assign: BTreeMap<MemberId, Vec<u8>>,
}

/// Spreads partitions evenly. `owned` has every member with what it holds; `free` is held by nobody; whatever is in neither
/// is on its way from one member to another and is counted as still to be given.
pub(super) fn plan(partitions: u16, owned: &BTreeMap<MemberId, Vec<u8>>, free: &[u8]) -> Plan {
    let mut plan = Plan::default();
    if owned.is_empty() {
        return plan;
    }
    let (each, over) = (usize::from(partitions) / owned.len(), usize::from(partitions) % owned.len());
    // Those with the most keep one more, so that nothing moves only to change names.
    let mut members: Vec<(&MemberId, &Vec<u8>)> = owned.iter().collect();
    members.sort_by_key(|(member, held)| (std::cmp::Reverse(held.len()), **member));
    let mut free = free.iter().copied();
    for (at, (member, held)) in members.into_iter().enumerate() {
        let share = each + usize::from(at < over);
        if held.len() > share {
            plan.revoke.insert(*member, held[share..].to_vec());
        } else {
            let given: Vec<u8> = free.by_ref().take(share - held.len()).collect();
            if !given.is_empty() {
                plan.assign.insert(*member, given);
            }
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(held: &[&[u8]]) -> BTreeMap<MemberId, Vec<u8>> {
        held.iter().enumerate().map(|(at, held)| (MemberId(at as u64), held.to_vec())).collect()
    }

    #[test]
    fn only_what_must_move_moves() {
        let first = plan(4, &members(&[&[]]), &[0, 1, 2, 3]);
        assert_eq!(first.assign[&MemberId(0)], [0, 1, 2, 3]);
        let second = plan(4, &members(&[&[0, 1, 2, 3], &[]]), &[]);
        assert_eq!((second.revoke[&MemberId(0)].as_slice(), second.assign.len()), (&[2, 3][..], 0));
        let moving = plan(4, &members(&[&[0, 1], &[]]), &[2]);
        assert_eq!((moving.revoke.len(), moving.assign[&MemberId(1)].as_slice()), (0, &[2][..]));
        assert_eq!(plan(4, &members(&[&[0, 1], &[2, 3]]), &[]), Plan::default());
        let uneven = plan(5, &members(&[&[0, 1], &[2, 3, 4]]), &[]);
        assert_eq!(uneven, Plan::default(), "the one with more keeps it");
        assert_eq!(plan(4, &BTreeMap::new(), &[0, 1, 2, 3]), Plan::default());
    }
}
