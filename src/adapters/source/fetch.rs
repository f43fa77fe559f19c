//! The bytes of an object as a blocking reader: a task fetches pieces by ranged requests, some ahead, and the reader takes them.
//!
//! Every piece is asked for under the condition that the object is still the version that was planned.

use std::io::{self, Read};
use std::ops::Range;

use bytes::{Buf, Bytes};
use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::objects::Object;
use crate::model::code::{Code, Fault};
use crate::runtime::task;

/// Bytes of the first request: most looks at a file end within it.
const FIRST_PIECE: u64 = 256 << 10;
/// Bytes of a request at most; pieces double up to it.
const LARGEST_PIECE: u64 = 4 << 20;
/// Requests that are out at once. With the piece that waits and the one that is read, a reader holds at most 16 MiB.
const REQUESTS: usize = 2;

/// Reads a range of an object. Only for threads that may block.
pub(super) struct Fetch {
    pieces: mpsc::Receiver<Result<Bytes, Fault>>,
    piece: Bytes,
    left: u64,
    task: JoinHandle<()>,
}

impl Fetch {
    /// Begins to fetch the bytes `from..to` of the object as it was at `version`.
    pub fn begin(object: Object, version: &str, from: u64, to: u64) -> Fetch {
        let (sender, pieces) = mpsc::channel(1);
        let version = version.to_string();
        let task = task::spawn("fetch", async move {
            let fetched = fetch(&object, &version, from, to, &sender).await;
            if let Err(fault) = fetched {
                // Nobody waits for it when the reader has gone.
                let _ = sender.send(Err(fault)).await;
            }
        });
        Fetch { pieces, piece: Bytes::new(), left: to.saturating_sub(from), task }
    }
}

async fn fetch(
    object: &Object,
    version: &str,
    from: u64,
    to: u64,
    sender: &mpsc::Sender<Result<Bytes, Fault>>,
) -> Result<(), Fault> {
    let condition = object.condition(version).await?;
    let mut requests = stream::iter(pieces(from, to)).map(|range| object.get(range, condition.clone())).buffered(REQUESTS);
    while let Some(piece) = requests.next().await {
        if sender.send(Ok(piece?)).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn pieces(from: u64, to: u64) -> impl Iterator<Item = Range<u64>> {
    let mut next = (from, FIRST_PIECE);
    std::iter::from_fn(move || {
        let (at, length) = next;
        let end = (at + length).min(to);
        next = (end, (2 * length).min(LARGEST_PIECE));
        (at < end).then_some(at..end)
    })
}

impl Read for Fetch {
    fn read(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            if self.left == 0 {
                return Ok(0);
            }
            self.piece = match self.pieces.blocking_recv() {
                Some(Ok(piece)) => piece,
                Some(Err(fault)) => return Err(io::Error::other(fault)),
                None => return Err(io::Error::other(Fault::new(Code::Internal, "fetching an object broke off"))),
            };
            self.left = self.left.saturating_sub(self.piece.len() as u64);
        }
        let count = chunk.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut chunk[..count]);
        Ok(count)
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_range_once() {
        for (from, to) in [(0, 0), (5, 5), (0, 1), (3, 20 << 20), (0, FIRST_PIECE), (7, FIRST_PIECE + 8)] {
            let mut at = from;
            for piece in pieces(from, to) {
                assert!(piece.start == at && piece.end > at && piece.end - piece.start <= LARGEST_PIECE);
                at = piece.end;
            }
            assert_eq!(at, to);
        }
    }
}
