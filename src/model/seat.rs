//! Which lanes a worker serves: a few at once, and every batch in its turn.
//!
//! Each lane that is served takes its share of the rate, so among too many the windows become too small to pay for their
//! bookkeeping. Tenants first, then batches, have seats alike; when there are more batches than seats, a lane that has had its time
//! makes room for the batch that has waited longest. (Priority counts among those who have a seat: were it to count here, a batch
//! whose account is down would keep others out for ever.)

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::id::{BatchId, LaneKey};

/// Lanes served at once, over all batches. As many again may be on their way out, and declare nothing any more.
pub const SEATS: usize = 16;
/// Lanes of one batch served at once, when others have work too.
const SEATS_OF_BATCH: usize = 4;
/// How long a lane keeps its seat when others wait: long against what it takes to claim a lane, short for those others.
pub const SEAT_TIME: Duration = Duration::from_secs(2);

/// A lane that has a seat or could do with one.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The lane.
    pub lane: LaneKey,
    /// Whose it is; empty until it was served once.
    pub tenant: &'a str,
    /// Since when it has had a seat, on the boot clock; `None` when it waits for one.
    pub since: Option<Duration>,
    /// Whether it was told to leave its seat.
    pub is_leaving: bool,
    /// When a lane of its batch was given a seat last.
    pub last: Option<Duration>,
}

/// Who takes a seat, and who leaves one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seating {
    /// Lanes that are to be served from now on.
    pub start: Vec<LaneKey>,
    /// Lanes that are to stop.
    pub stop: Vec<LaneKey>,
}

/// Gives out the seats of a worker. `lanes` are all of its lanes that are served or could be, in order; `alone` is how many seats
/// a batch may have that is the only one.
pub fn seats(lanes: &[Candidate], alone: usize, now: Duration) -> Seating {
    let mut held: Vec<&Candidate> = lanes.iter().filter(|lane| lane.since.is_some() && !lane.is_leaving).collect();
    let mut leaving = lanes.iter().filter(|lane| lane.is_leaving).count();
    let (mut of_tenant, mut of_batch) = (BTreeMap::<&str, usize>::new(), BTreeMap::<BatchId, usize>::new());
    for lane in &held {
        *of_tenant.entry(lane.tenant).or_default() += 1;
        *of_batch.entry(lane.lane.batch).or_default() += 1;
    }
    let mut waiting: BTreeMap<BatchId, VecDeque<&Candidate>> = BTreeMap::new();
    for lane in lanes.iter().filter(|lane| lane.since.is_none()) {
        waiting.entry(lane.lane.batch).or_default().push_back(lane);
    }
    let batches = of_batch.keys().filter(|batch| !waiting.contains_key(batch)).count() + waiting.len();
    let most = (SEATS / batches.max(1)).clamp(1, if batches == 1 { alone } else { SEATS_OF_BATCH });
    let mut seating = Seating::default();
    loop {
        let seats = |batch: &BatchId| of_batch.get(batch).copied().unwrap_or(0);
        let seats_of = |tenant: &str| of_tenant.get(tenant).copied().unwrap_or(0);
        let in_need = waiting.iter().filter(|(batch, _)| seats(batch) < most);
        let in_need = in_need.filter_map(|(batch, lanes)| Some((batch, *lanes.front()?)));
        let Some((_, next)) = in_need.min_by_key(|(batch, lane)| (seats_of(lane.tenant), seats(batch), lane.last)) else {
            return seating;
        };
        if held.len() + seating.start.len() >= SEATS {
            let has_more = |lane: &Candidate| seats(&lane.lane.batch) > most;
            let had_its_time = |lane: &Candidate| {
                let in_favour = lane.tenant == next.tenant || seats_of(lane.tenant) > seats_of(next.tenant);
                in_favour && lane.since.is_some_and(|since| now.saturating_sub(since) >= SEAT_TIME)
            };
            let may_go = held.iter().enumerate().filter(|(_, lane)| has_more(lane) || had_its_time(lane));
            let goes = may_go
                .max_by_key(|(_, lane)| (has_more(lane), seats_of(lane.tenant), std::cmp::Reverse(lane.since)))
                .filter(|_| leaving < SEATS);
            let Some((at, _)) = goes else {
                // Nobody makes room for it, nor for others of its tenant, nor for a tenant without seats: that one would have
                // come first.
                waiting
                    .retain(|_, lanes| lanes.front().is_some_and(|lane| lane.tenant != next.tenant && seats_of(lane.tenant) > 0));
                continue;
            };
            let gone = held.remove(at);
            of_tenant.entry(gone.tenant).and_modify(|seats| *seats -= 1);
            of_batch.entry(gone.lane.batch).and_modify(|seats| *seats -= 1);
            leaving += 1;
            seating.stop.push(gone.lane);
        }
        *of_tenant.entry(next.tenant).or_default() += 1;
        *of_batch.entry(next.lane.batch).or_default() += 1;
        waiting.entry(next.lane.batch).and_modify(|lanes| _ = lanes.pop_front());
        seating.start.push(next.lane);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker with one lane of each batch, whose tenants it gives.
    struct Room {
        tenants: Vec<&'static str>,
        since: Vec<Option<Duration>>,
        last: Vec<Option<Duration>>,
        turns: Vec<usize>,
    }

    fn lane(batch: usize, lane: u8) -> LaneKey {
        LaneKey { batch: BatchId(batch as u128), lane }
    }

    impl Room {
        fn new(tenants: Vec<&'static str>) -> Room {
            let count = tenants.len();
            Room { tenants, since: vec![None; count], last: vec![None; count], turns: vec![0; count] }
        }

        /// One look, after which whoever is to stop has stopped.
        fn look(&mut self, now: Duration) {
            let candidate = |(batch, tenant): (usize, &&'static str)| Candidate {
                lane: lane(batch, 0),
                tenant,
                since: self.since[batch],
                is_leaving: false,
                last: self.last[batch],
            };
            let lanes: Vec<Candidate> = self.tenants.iter().enumerate().map(candidate).collect();
            let seating = seats(&lanes, 8, now);
            for gone in seating.stop {
                self.since[gone.batch.0 as usize] = None;
            }
            for came in seating.start {
                let batch = came.batch.0 as usize;
                (self.since[batch], self.last[batch]) = (Some(now), Some(now));
                self.turns[batch] += 1;
            }
            assert!(self.since.iter().flatten().count() <= SEATS);
        }
    }

    #[test]
    fn a_thousand_batches_are_served_a_few_at_once_and_each_in_its_turn() {
        let mut room = Room::new(vec!["a"; 1_000]);
        // A thousand batches on sixteen seats, two seconds each.
        for tick in 0..1_270 {
            room.look(Duration::from_millis(100 * tick));
        }
        assert!(room.turns.iter().all(|turns| (1..=2).contains(turns)), "{:?}", room.turns);
    }

    #[test]
    fn a_tenant_with_one_batch_keeps_its_seat_beside_one_with_a_thousand() {
        let mut tenants = vec!["a"; 1_000];
        tenants.push("b");
        let mut room = Room::new(tenants);
        for tick in 0..1_270 {
            room.look(Duration::from_millis(100 * tick));
        }
        assert_eq!((room.turns[1_000], room.since[1_000]), (1, Some(Duration::ZERO)));
        assert!(room.turns.iter().filter(|turns| **turns > 0).count() > 900);
    }

    #[test]
    fn a_batch_that_comes_late_gets_what_another_has_too_much_of_at_once() {
        let now = Duration::from_secs(1);
        let seated = |batch, of| Candidate {
            lane: lane(batch, of),
            tenant: "a",
            since: Some(Duration::ZERO),
            is_leaving: false,
            last: Some(Duration::ZERO),
        };
        let mut lanes: Vec<Candidate> = (0..4).flat_map(|batch| (0..4).map(move |of| seated(batch, of))).collect();
        assert_eq!(seats(&lanes, 8, now), Seating::default());
        lanes.push(Candidate { since: None, last: None, ..seated(9, 0) });
        let seating = seats(&lanes, 8, now);
        assert_eq!((seating.start, seating.stop.len()), (vec![lane(9, 0)], 1));
        // With as many batches as there are seats, each keeps the one it has.
        let full: Vec<Candidate> =
            (0..16).flat_map(|batch| [seated(batch, 0), Candidate { since: None, ..seated(batch, 1) }]).collect();
        assert_eq!(seats(&full, 8, Duration::from_secs(100)), Seating::default());
    }

    #[test]
    fn no_more_are_on_their_way_out_than_have_seats() {
        let candidate = |batch, since, is_leaving| Candidate { lane: lane(batch, 0), tenant: "a", since, is_leaving, last: None };
        let seat = Some(Duration::ZERO);
        let lanes: Vec<Candidate> = (0..16)
            .map(|batch| candidate(batch, seat, false))
            .chain((16..32).map(|batch| candidate(batch, seat, true)))
            .chain([candidate(32, None, false)])
            .collect();
        assert_eq!(seats(&lanes, 8, Duration::from_secs(60)), Seating::default());
        assert_eq!(seats(&lanes[1..], 8, Duration::from_secs(60)).start, [lane(32, 0)], "a seat is free");
    }

    #[test]
    fn a_batch_that_is_alone_has_the_seats_that_pay() {
        let waiting: Vec<Candidate> =
            (0..128).map(|of| Candidate { lane: lane(1, of), tenant: "", since: None, is_leaving: false, last: None }).collect();
        assert_eq!(seats(&waiting, 3, Duration::ZERO).start, [lane(1, 0), lane(1, 1), lane(1, 2)]);
    }
}
