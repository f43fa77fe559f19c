//! One sorted list out of the sorted rows of several partitions.

use std::cmp::Ordering;
use std::collections::VecDeque;

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::ports::StoreError;

/// Partitions that are read at once.
const AT_ONCE: usize = 32;
/// Rows of a partition read at first, beyond its share of what is asked for.
const BEYOND_SHARE: usize = 4;

/// What one partition has given so far.
struct Run<R> {
    rows: VecDeque<R>,
    /// The last row it gave: the next page begins behind it.
    last: Option<R>,
    page: usize,
    ended: bool,
}

/// The first `limit` rows of `partitions` partitions in `order`. `page` reads up to so many rows of a partition in the same
/// order, behind a row or from the beginning; it gives fewer only where the partition ends.
///
/// Pages begin near a partition's share of what is asked for and double, so that a list that lies in one partition alone
/// costs a few requests more, and one that is spread over all reads about twice what it gives.
pub(super) async fn merged<'a, R: Clone + Send + 'a>(
    partitions: u16,
    limit: usize,
    order: impl Fn(&R, &R) -> Ordering,
    page: impl Fn(u16, Option<R>, usize) -> BoxFuture<'a, Result<Vec<R>, StoreError>>,
) -> Result<Vec<R>, StoreError> {
    let mut found = Vec::new();
    if limit == 0 {
        return Ok(found);
    }
    let first_page = (limit / usize::from(partitions.max(1)) * 2 + BEYOND_SHARE).min(limit);
    let mut runs: Vec<Run<R>> =
        (0..partitions).map(|_| Run { rows: VecDeque::new(), last: None, page: first_page, ended: false }).collect();
    loop {
        let reads: Vec<_> = runs
            .iter()
            .enumerate()
            .filter(|(_, run)| run.rows.is_empty() && !run.ended)
            .map(|(at, run)| {
                let (read, asked) = (page(at as u16, run.last.clone(), run.page), run.page);
                async move { read.await.map(|rows| (at, asked, rows)) }
            })
            .collect();
        let pages: Vec<(usize, usize, Vec<R>)> = stream::iter(reads).buffer_unordered(AT_ONCE).try_collect().await?;
        for (at, asked, rows) in pages {
            let run = &mut runs[at];
            run.ended = rows.len() < asked;
            run.page = (asked * 2).min(limit);
            run.last = rows.last().cloned().or(run.last.take());
            run.rows = rows.into();
        }
        loop {
            let fronts = runs.iter().enumerate().filter_map(|(at, run)| run.rows.front().map(|row| (at, row)));
            let Some(at) = fronts.min_by(|(_, a), (_, b)| order(a, b)).map(|(at, _)| at) else {
                return Ok(found);
            };
            let run = &mut runs[at];
            found.extend(run.rows.pop_front());
            if found.len() == limit {
                return Ok(found);
            }
            if run.rows.is_empty() && !run.ended {
                break;
            }
        }
    }
}

/// A number without a sign in the servers' order of numbers with one.
pub(super) fn signed(number: u64) -> i64 {
    (number ^ 1 << 63) as i64
}

/// The number behind [`signed`].
pub(super) fn unsigned(number: i64) -> u64 {
    number as u64 ^ 1 << 63
}

/// The least text behind all that begin with `prefix`; `None` when there is none. Servers compare texts by their bytes in
/// UTF-8, which is the order of their characters, and take no bytes that are no text.
pub(super) fn behind_texts(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        let next = match last {
            // The only gap between characters: what lies in it is no character.
            '\u{d7ff}' => Some('\u{e000}'),
            last => char::from_u32(u32::from(last) + 1),
        };
        if let Some(next) = next {
            end.push(next);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::FutureExt;

    use super::*;

    /// Reads from partitions that are vectors, and counts the reads.
    async fn over(partitions: &[Vec<u32>], limit: usize) -> (Vec<u32>, usize) {
        let reads = Mutex::new(0);
        let page = |at: u16, behind: Option<u32>, limit: usize| {
            *reads.lock().expect("nobody panicked") += 1;
            let rows = partitions[usize::from(at)].iter().copied().filter(move |row| behind.is_none_or(|last| *row > last));
            let rows: Vec<u32> = rows.take(limit).collect();
            async move { Ok(rows) }.boxed()
        };
        let found = merged(partitions.len() as u16, limit, u32::cmp, page).await.expect("nothing fails");
        let reads = *reads.lock().expect("nobody panicked");
        (found, reads)
    }

    #[tokio::test]
    async fn rows_come_in_order_from_wherever_they_lie() {
        let spread: Vec<Vec<u32>> = (0..8).map(|at| (0..100).map(|row| row * 8 + at).collect()).collect();
        let (found, reads) = over(&spread, 300).await;
        assert_eq!(found, (0..300).collect::<Vec<_>>());
        assert_eq!(reads, 8, "each partition is read once");
        let mut lopsided = vec![vec![], (0..1_000).collect(), vec![1_000]];
        assert_eq!(over(&lopsided, 2_000).await.0, (0..=1_000).collect::<Vec<_>>());
        let (found, reads) = over(&lopsided, 900).await;
        assert_eq!(found, (0..900).collect::<Vec<_>>());
        assert!(reads <= 5, "{reads} reads");
        assert_eq!(over(&lopsided, 0).await, (vec![], 0));
        lopsided.truncate(1);
        assert!(over(&lopsided, 5).await.0.is_empty());
    }

    #[test]
    fn numbers_keep_their_order_and_texts_their_end() {
        let numbers = [0, 1, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX];
        assert!(numbers.windows(2).all(|pair| signed(pair[0]) < signed(pair[1])));
        assert!(numbers.iter().all(|number| unsigned(signed(*number)) == *number));
        assert_eq!(behind_texts("a/"), Some("a0".into()));
        assert_eq!(behind_texts("a\u{10ffff}"), Some("b".into()));
        assert_eq!(behind_texts("\u{d7ff}"), Some("\u{e000}".into()));
        assert_eq!((behind_texts(""), behind_texts("\u{10ffff}")), (None, None));
        for prefix in ["a", "ü", "字", "a\u{7f}"] {
            let end = behind_texts(prefix).expect("it has an end");
            assert!(format!("{prefix}\u{10ffff}") < end && prefix < end.as_str());
        }
    }
}
