//! Writes of one attempt at a range: packs and rejects in groups, a few groups in flight, the rest waits.

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt, future::BoxFuture};

use super::tools::Tools;
use crate::model::id::RangeKey;
use crate::model::limits::REJECTS_PER_WRITE;
use crate::model::pack::{PackKey, SmsDeliveryPack};
use crate::model::record::Reject;
use crate::model::trace::TraceParent;
use crate::ports::StoreError;
use crate::runtime::trace::{Piece, Span};

/// Packs written together: about a megabyte, so that one durable commit carries many.
const PACKS_PER_WRITE: usize = 8;
/// Writes in flight. Together with the packs' size this bounds the memory that a slow store takes.
const WRITES_MAX: usize = 4;

/// The writes of one attempt.
pub struct Writes<'a> {
    tools: &'a Tools,
    range: RangeKey,
    attempt: u32,
    trace: Option<TraceParent>,
    packs: Vec<(PackKey, SmsDeliveryPack)>,
    rejects: Vec<Reject>,
    pieces: u32,
    in_flight: FuturesUnordered<BoxFuture<'a, Result<(), StoreError>>>,
}

impl<'a> Writes<'a> {
    /// Nothing written yet. `trace` is the attempt's place.
    pub fn new(tools: &'a Tools, range: RangeKey, attempt: u32, trace: Option<TraceParent>) -> Writes<'a> {
        let in_flight = FuturesUnordered::new();
        Writes { tools, range, attempt, trace, packs: vec![], rejects: vec![], pieces: 0, in_flight }
    }

    /// Takes what a chunk came to, and begins the writes that are large enough; waits only when too many are in flight.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`].
    pub async fn add(
        &mut self,
        packs: &mut Vec<(PackKey, SmsDeliveryPack)>,
        rejects: &mut Vec<Reject>,
    ) -> Result<(), StoreError> {
        self.packs.append(packs);
        self.rejects.append(rejects);
        while self.packs.len() >= PACKS_PER_WRITE {
            self.write_packs(PACKS_PER_WRITE).await?;
        }
        while self.rejects.len() >= REJECTS_PER_WRITE {
            self.write_rejects(REJECTS_PER_WRITE).await?;
        }
        // Begins what was just added, and takes in what has been answered meanwhile.
        while let Some(Some(answer)) = self.in_flight.next().now_or_never() {
            answer?;
        }
        Ok(())
    }

    /// Writes what is left and waits until all of it is durable.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`].
    pub async fn finish(mut self) -> Result<(), StoreError> {
        while !self.packs.is_empty() {
            self.write_packs(self.packs.len().min(PACKS_PER_WRITE)).await?;
        }
        while !self.rejects.is_empty() {
            self.write_rejects(self.rejects.len().min(REJECTS_PER_WRITE)).await?;
        }
        while let Some(answer) = self.in_flight.next().await {
            answer?;
        }
        Ok(())
    }

    async fn write_packs(&mut self, count: usize) -> Result<(), StoreError> {
        let packs: Vec<_> = self.packs.drain(..count).collect();
        let tools = self.tools;
        let spans: Vec<Span> = packs.iter().map(|(key, pack)| self.span(*key, pack)).collect();
        let write = async move {
            let written = tools.patiently("writing packs", || tools.packs.put(packs.clone())).await;
            if let Err(error) = &written {
                spans.into_iter().for_each(|mut span| span.failed(error.code()));
            }
            written
        };
        self.begin(write.boxed()).await
    }

    fn span(&self, key: PackKey, pack: &SmsDeliveryPack) -> Span {
        let mut span = Span::begin(Piece::Pack(key), self.trace);
        span.note("lane", u32::from(key.lane.lane));
        span.note("messages", pack.messages.len());
        span
    }

    async fn write_rejects(&mut self, count: usize) -> Result<(), StoreError> {
        let rejects: Vec<_> = self.rejects.drain(..count).collect();
        let (tools, range, attempt, piece) = (self.tools, self.range, self.attempt, self.pieces);
        self.pieces += 1;
        let write =
            async move { tools.patiently("writing rejects", || tools.rejects.put(range, attempt, piece, rejects.clone())).await };
        self.begin(write.boxed()).await
    }

    async fn begin(&mut self, write: BoxFuture<'a, Result<(), StoreError>>) -> Result<(), StoreError> {
        while self.in_flight.len() >= WRITES_MAX {
            if let Some(answer) = self.in_flight.next().await {
                answer?;
            }
        }
        self.in_flight.push(write);
        Ok(())
    }
}
