//! The shared governor: exact, fair, and safe when its state is lost.

use super::*;

fn at(ms: u64) -> Duration {
    Duration::from_secs(1_000_000) + Duration::from_millis(ms)
}

fn asks(holder: u64, want: u32) -> Visit {
    Visit { holder, want, ..Visit::default() }
}

/// Workers that always want more come about every 12 ms, each at moments of its own; the state is lost at `lost`. Returns
/// what each got.
fn run(rate: u32, workers: usize, until: u64, lost: &[u64]) -> Vec<u32> {
    let mut shared = SharedRate::begin(None, Some(rate), Some(rate), at(0));
    let (mut got, mut next, mut chance) = (vec![0; workers], vec![0; workers], 1u64);
    let mut below = |most: usize| {
        chance = crate::model::lane::mix(chance);
        chance as usize % most
    };
    for ms in 0..until {
        if lost.contains(&ms) {
            shared = SharedRate::begin(Some(shared.governor()), Some(rate), Some(rate), at(ms));
        }
        let first = below(workers);
        for worker in (0..workers).map(|n| (first + n) % workers) {
            if next[worker] <= ms {
                got[worker] += shared.visit(&asks(worker as u64, 10_000), at(ms)).granted;
                next[worker] = ms + 10 + below(5) as u64;
            }
        }
    }
    got
}

#[test]
fn rivals_share_the_budget_and_never_exceed_it() {
    for workers in [1, 2, 8, 40] {
        let got = run(5_000, workers, 3_000, &[]);
        let all: u32 = got.iter().sum();
        let may = 5_000.0 * (3.0 - LEASE.as_secs_f64());
        assert!(f64::from(all) <= may && f64::from(all) > 0.95 * may, "{workers} workers: {all} of {may}");
        let even = all / workers as u32;
        assert!(got.iter().all(|got| *got > even * 6 / 10 && *got < even * 15 / 10), "{workers} workers: {got:?}");
    }
}

#[test]
fn a_lost_state_never_grants_twice() {
    let whole: u32 = run(5_000, 8, 3_000, &[]).iter().sum();
    let broken: u32 = run(5_000, 8, 3_000, &[1_000, 1_100, 2_000]).iter().sum();
    // Each loss costs the lease that follows it, less what the next loss cuts short.
    let lost = 5_000.0 * (LEASE.as_secs_f64() * 2.0 + 0.1);
    assert!(f64::from(whole - broken) > lost * 0.9 && f64::from(whole - broken) < lost * 1.3, "{whole} and {broken}");
}

#[test]
fn a_new_state_grants_nothing_for_one_lease_and_knows_what_was_learned() {
    let mut learned = SharedRate::begin(None, None, None, at(0));
    for ms in 0..5_000 {
        learned.visit(&asks(1, 10_000), at(ms));
    }
    let rate = learned.governor().rate();
    assert!(rate > 1_000.0, "it grew: {rate}");
    let mut again = SharedRate::begin(Some(learned.governor()), None, None, at(6_000));
    assert_eq!(again.governor().rate(), rate);
    for ms in 0..300 {
        assert_eq!(again.visit(&asks(1, 10), at(6_000 + ms)).granted, 0, "after {ms} ms");
    }
    assert!(again.visit(&asks(1, 10), at(6_310)).granted > 0);
    assert_eq!(SharedRate::begin(Some(learned.governor()), None, Some(70), at(0)).governor().ceiling(), Some(70));
}

#[test]
fn unused_segments_go_back_to_the_life_they_came_from() {
    let mut shared = SharedRate::begin(None, Some(1_000), Some(1_000), at(0));
    let full = shared.visit(&asks(1, 10_000), at(1_000)).granted;
    let back = Visit { unused: full, life: Some(shared.life()), ..asks(1, 10_000) };
    assert_eq!(shared.clone().visit(&back, at(1_000)).granted, full, "taken, given back, taken again");
    let stray = Visit { life: Some(at(77)), ..back };
    assert_eq!(shared.visit(&stray, at(1_000)).granted, 0, "another life's segments are not added to this one's");
}

#[test]
fn a_ceiling_is_changed_live_and_a_start_does_not_undo_it() {
    let begin = |ceiling| Visit { holder: 1, begun_with: Some(ceiling), ..Visit::default() };
    let live = |ceiling| Visit { holder: 2, ceiling: Some(ceiling), ..Visit::default() };
    let mut shared = SharedRate::begin(None, Some(100), Some(100), at(0));
    shared.visit(&live(Some(40)), at(1));
    assert_eq!(shared.governor().ceiling(), Some(40));
    shared.visit(&begin(Some(100)), at(2));
    assert_eq!(shared.governor().ceiling(), Some(40), "a worker that begins with what the state began with");
    shared.visit(&begin(Some(300)), at(3));
    assert_eq!(shared.governor().ceiling(), Some(300), "the configuration was changed");
    shared.visit(&live(None), at(4));
    assert_eq!(shared.governor().ceiling(), None);
}

#[test]
fn who_is_gone_is_not_waited_for() {
    let mut shared = SharedRate::begin(None, Some(1_000), Some(1_000), at(0));
    let busy = Visit { outstanding: 500, ..asks(1, 10) };
    shared.visit(&busy, at(1_000));
    assert_eq!(shared.outstanding(), 500.0);
    shared.visit(&Visit { outstanding: 20, ..asks(2, 10) }, at(20_000));
    assert_eq!(shared.outstanding(), 520.0, "it may be slow");
    shared.visit(&Visit { outstanding: 20, ..asks(2, 10) }, at(40_000));
    assert_eq!(shared.outstanding(), 20.0, "it was silent for half a minute");
}

#[test]
fn throttle_answers_of_any_worker_cut_the_rate_for_all() {
    let mut shared = SharedRate::begin(None, Some(1_000), Some(1_000), at(0));
    shared.visit(&Visit { throttled: 5, outstanding: 100, ..asks(3, 0) }, at(1_000));
    assert!(shared.governor().rate() < 990.0, "{}", shared.governor().rate());
    assert_eq!(shared.governor().throttled(), 5);
}

#[test]
fn a_clock_that_went_back_ends_the_state() {
    let mut shared = SharedRate::begin(None, Some(1_000), Some(1_000), at(10_000));
    shared.visit(&asks(1, 1), at(20_000));
    assert!(shared.is_usable(at(19_900)), "a small step is waited out");
    assert!(!shared.is_usable(at(10_000)));
}

#[test]
fn a_bucket_that_few_visit_is_not_left_to_run_over() {
    let mut shared = SharedRate::begin(None, Some(5_000), Some(5_000), at(0));
    let mut got = 0;
    // Eight who asked a moment ago, each of whom comes every 96 ms only: together too rarely for an even share each.
    for round in 0..300u64 {
        got += shared.visit(&asks(round % 8, 10_000), at(1_000 + round * 12)).granted;
    }
    let may = 5_000.0 * 0.012 * 300.0;
    assert!(f64::from(got) > 0.97 * may, "{got} of {may}");
}

#[test]
fn what_a_fleet_comes_to_is_usable_and_what_it_never_comes_to_is_not() {
    let mut chance = 5u64;
    let mut below = |most: u64| {
        chance = crate::model::lane::mix(chance);
        chance % most
    };
    for ceiling in [None, Some(1), Some(900), Some(u32::MAX)] {
        let mut shared = SharedRate::begin(None, ceiling, ceiling, at(0));
        for visit in 0..4_000 {
            let now = at(visit * 13 - below(20).min(visit * 13));
            assert!(shared.is_usable(now), "{shared:?}");
            let throttled = if below(40) == 0 { below(50) as u32 } else { 0 };
            let change = (below(300) == 0).then(|| [None, Some(1), Some(70_000)][below(3) as usize]);
            let (outstanding, others) = (below(4_000) as u32, below(500) as u32);
            let visit = Visit { outstanding, others, throttled, ceiling: change, ..asks(below(9), below(900) as u32) };
            shared.visit(&visit, now);
        }
        if let Some(lost) = SharedRate::begin(Some(shared.governor()), ceiling, ceiling, at(9)).governor().ceiling() {
            assert_eq!(Some(lost), ceiling);
        }
    }
    let sound = SharedRate::begin(None, Some(900), Some(900), at(0));
    let holder = |seen| BTreeMap::from([(1, Holder { outstanding: 1, seen, asked: 0 })]);
    let damaged = [
        SharedRate { born: Duration::MAX, ..sound.clone() },
        SharedRate { at: Duration::MAX, ..sound.clone() },
        SharedRate { holders: holder(u64::MAX), ..sound.clone() },
        SharedRate { governor: sound.governor.again(Duration::MAX), ..sound.clone() },
    ];
    assert!(sound.is_usable(at(0)) && SharedRate { holders: holder(5), ..sound }.is_usable(at(0)));
    assert!(damaged.iter().all(|damaged| !damaged.is_usable(at(0))));
}
