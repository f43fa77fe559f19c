//! Finding and erasing a number.
//!
//! A pack and a piece of rejects are plain data: their writer may be late, and two erasures may meet. So what is erased is
//! first marked: `gone`, a set of places in the row that only ever grows, so that no mark is lost whoever sets which in what
//! order. Readers empty marked places, and a late write of the row, which holds no marks, brings back nothing that they
//! show. Then the row is emptied in its bytes: read, written with all marked places emptied, and read again until nothing
//! marked is left in it. Of two erasures that do so at once one may overwrite the other's row; whoever writes last reads
//! after that, sees the other's marks, which were durable before, and empties those places too.
//!
//! What stays: a preparer that was frozen during its put and sends it again after an erasure writes the bytes again. Nobody
//! is shown them, the next erasure of anything in that pack empties them, and they go with the batch's texts.

use std::collections::BTreeSet;

use super::key;
use super::statement::Statement;
use super::store::CqlStore;
use crate::adapters::rows::{pack, reject};
use crate::model::id::{BatchId, LaneKey, Msisdn, RecipientKey};
use crate::model::pack::{Message, PackHead, PackKey, SmsDeliveryPack};
use crate::model::record::Reject;
use crate::ports::StoreError;
use crate::ports::erasure::{Erasure, FoundMessage, OfNumber, messages_to};
use crate::ports::receipts::Parked;

/// How often a row is emptied again because another erasure wrote it meanwhile.
const ROUNDS_MAX: u32 = 20;

const HEADS: Statement =
    Statement::read("SELECT attempt, n, head FROM sms_delivery_pack WHERE batch_id = ? AND lane = ? AND range_no = ?").by(50);
const PACK: Statement = Statement::read(
    "SELECT head, texts, gone FROM sms_delivery_pack WHERE batch_id = ? AND lane = ? AND range_no = ? AND attempt = ? AND n = ?",
);
const MARK_PACK: Statement = Statement::write(
    "UPDATE sms_delivery_pack SET gone = gone + ? \
     WHERE batch_id = ? AND lane = ? AND range_no = ? AND attempt = ? AND n = ?",
);
const EMPTY_PACK: Statement = Statement::write(
    "UPDATE sms_delivery_pack SET head = ?, texts = ? \
     WHERE batch_id = ? AND lane = ? AND range_no = ? AND attempt = ? AND n = ?",
);
const PIECES: Statement = Statement::read("SELECT attempt, n, body, gone FROM reject WHERE batch_id = ? AND range_no = ?").by(50);
const PIECE: Statement =
    Statement::read("SELECT body, gone FROM reject WHERE batch_id = ? AND range_no = ? AND attempt = ? AND n = ?");
const MARK_PIECE: Statement =
    Statement::write("UPDATE reject SET gone = gone + ? WHERE batch_id = ? AND range_no = ? AND attempt = ? AND n = ?");
const EMPTY_PIECE: Statement =
    Statement::write("UPDATE reject SET body = ? WHERE batch_id = ? AND range_no = ? AND attempt = ? AND n = ?");

/// Places of a row that were erased, as they are read.
pub(super) type Gone = Option<Vec<i32>>;

/// A pack's head without the numbers of erased places.
pub(super) fn head_without(mut head: PackHead, gone: &Gone) -> PackHead {
    for place in gone.iter().flatten() {
        if let Some(number) = head.numbers.get_mut(*place as usize) {
            *number = Msisdn::ERASED.0;
        }
    }
    head
}

/// A pack without what stood in erased places. Answers whether anything did.
pub(super) fn empty_pack(pack: &mut SmsDeliveryPack, gone: &Gone) -> bool {
    let mut changed = false;
    for place in gone.iter().flatten() {
        if let Some(message) = pack.messages.get_mut(*place as usize) {
            changed |= empty(message);
        }
    }
    changed
}

fn empty(message: &mut Message) -> bool {
    let was = !message.number.is_erased() || !message.body.is_empty() || message.link.is_some();
    (message.number, message.body, message.link) = (Msisdn::ERASED, String::new(), None);
    was
}

/// Rejects without what stood in erased places. Answers whether anything did.
pub(super) fn empty_rejects(rejects: &mut [Reject], gone: &Gone) -> bool {
    let mut changed = false;
    for place in gone.iter().flatten() {
        if let Some(reject) = rejects.get_mut(*place as usize) {
            changed |= !reject.number.is_empty() || !reject.detail.is_empty();
            (reject.number, reject.detail) = (String::new(), String::new());
        }
    }
    changed
}

#[async_trait::async_trait]
impl Erasure for CqlStore {
    async fn messages(&self, lane: LaneKey, number: Msisdn) -> Result<Vec<FoundMessage>, StoreError> {
        let mut found = Vec::new();
        for key in self.packs_with(lane, number).await? {
            let Some((mut content, gone)) = self.raw_pack(key).await? else { continue };
            empty_pack(&mut content, &gone);
            found.extend(messages_to(number, key, content));
        }
        Ok(found)
    }

    async fn erase_messages(&self, lane: LaneKey, number: Msisdn) -> Result<u64, StoreError> {
        let mut erased = 0;
        for key in self.packs_with(lane, number).await? {
            erased += self.erase_in_pack(key, number).await?;
        }
        Ok(erased)
    }

    async fn erase_rejects(&self, batch: BatchId, number: Msisdn) -> Result<u64, StoreError> {
        let mut erased = 0;
        for range in self.ranges_of(batch).await? {
            let mut pieces = Vec::new();
            let each = |(attempt, n, body, gone): (i64, i64, Option<Vec<u8>>, Gone)| {
                let Some(body) = body else { return Ok(true) };
                let mut rejects = reject::read(&body)?;
                let marked = empty_rejects(&mut rejects, &gone);
                if marked || rejects.iter().any(|reject| reject.fits(number)) {
                    pieces.push((attempt, n));
                }
                Ok(true)
            };
            self.cql.scan(&PIECES, (key::batch(batch), i64::from(range)), each).await?;
            for (attempt, n) in pieces {
                erased += self.erase_in_piece(batch, range, attempt, n, number).await?;
            }
        }
        Ok(erased)
    }

    async fn erase_reports(&self, recipient: RecipientKey) -> Result<u64, StoreError> {
        self.erase_receipts(recipient).await
    }

    async fn of_number(&self, number: Msisdn) -> Result<OfNumber, StoreError> {
        let uncertain = self.uncertain_of_number(number).await?;
        Ok(OfNumber { uncertain, parked: self.parked_of_number(number).await? })
    }

    async fn erase_of_number(&self, number: Msisdn) -> Result<(u64, u64), StoreError> {
        let parked: Vec<u64> = self.parked_of_number(number).await?.iter().map(|parked| parked.id).collect();
        let (uncertain, count) = (self.erase_uncertain(number).await?, parked.len() as u64);
        Parked::remove(self, parked).await?;
        Ok((uncertain, count))
    }
}

impl CqlStore {
    /// Packs of a lane, of all attempts, that hold a number in their bytes, erased or not. One that cannot be read is passed
    /// over: nobody reads it again.
    async fn packs_with(&self, lane: LaneKey, number: Msisdn) -> Result<Vec<PackKey>, StoreError> {
        let mut found = Vec::new();
        for range in self.ranges_of(lane.batch).await? {
            let each = |(attempt, n, head): (i64, i64, Option<Vec<u8>>)| {
                let Some(head) = head else { return Ok(true) };
                match pack::read_head(&head) {
                    Ok(head) if head.numbers.contains(&number.0) => {
                        found.push(PackKey { lane, range, attempt: key::read(attempt)?, n: key::read(n)? });
                    }
                    Ok(_) => {}
                    Err(error) => tracing::warn!(%lane, %error, "a pack cannot be read: no number can be found or erased in it"),
                }
                Ok(true)
            };
            self.cql.scan(&HEADS, (key::batch(lane.batch), key::lane(lane), i64::from(range)), each).await?;
        }
        Ok(found)
    }

    /// A pack as its bytes have it, and its erased places.
    async fn raw_pack(&self, key: PackKey) -> Result<Option<(SmsDeliveryPack, Gone)>, StoreError> {
        type Row = (Option<Vec<u8>>, Option<Vec<u8>>, Gone);
        let (batch, lane, range, attempt, n) = columns(&key);
        match self.cql.first::<Row, _>(&PACK, (&batch, lane, range, attempt, n)).await? {
            Some((Some(head), Some(texts), gone)) => Ok(Some((pack::read(&head, &texts)?, gone))),
            _ => Ok(None),
        }
    }

    async fn erase_in_pack(&self, key: PackKey, number: Msisdn) -> Result<u64, StoreError> {
        let (batch, lane, range, attempt, n) = columns(&key);
        let Some((content, gone)) = self.raw_pack(key).await? else { return Ok(0) };
        let fits = |(at, message): (usize, &Message)| (message.number == number).then_some(at as i32);
        let wanted = content.messages.iter().enumerate().filter_map(fits).collect();
        let new = unmarked(wanted, &gone);
        if !new.is_empty() {
            self.cql.write(&MARK_PACK, (&new, &batch, lane, range, attempt, n)).await?;
        }
        for _ in 0..ROUNDS_MAX {
            // A row that went meanwhile went with everything in it.
            let Some((mut content, gone)) = self.raw_pack(key).await? else { return Ok(new.len() as u64) };
            if !empty_pack(&mut content, &gone) {
                return Ok(new.len() as u64);
            }
            let (head, texts) = pack::write(&content);
            self.cql.write(&EMPTY_PACK, (head, texts, &batch, lane, range, attempt, n)).await?;
        }
        Err(restless())
    }

    async fn erase_in_piece(&self, batch: BatchId, range: u32, attempt: i64, n: i64, number: Msisdn) -> Result<u64, StoreError> {
        let (batch, range) = (key::batch(batch), i64::from(range));
        let read = async || -> Result<Option<(Vec<Reject>, Gone)>, StoreError> {
            let row: Option<(Option<Vec<u8>>, Gone)> = self.cql.first(&PIECE, (&batch, range, attempt, n)).await?;
            let Some((Some(body), gone)) = row else { return Ok(None) };
            Ok(Some((reject::read(&body)?, gone)))
        };
        let Some((rejects, gone)) = read().await? else { return Ok(0) };
        let fits = |(at, reject): (usize, &Reject)| reject.fits(number).then_some(at as i32);
        let new = unmarked(rejects.iter().enumerate().filter_map(fits).collect(), &gone);
        if !new.is_empty() {
            self.cql.write(&MARK_PIECE, (&new, &batch, range, attempt, n)).await?;
        }
        for _ in 0..ROUNDS_MAX {
            let Some((mut rejects, gone)) = read().await? else { return Ok(new.len() as u64) };
            if !empty_rejects(&mut rejects, &gone) {
                return Ok(new.len() as u64);
            }
            self.cql.write(&EMPTY_PIECE, (reject::write(&rejects), &batch, range, attempt, n)).await?;
        }
        Err(restless())
    }
}

/// The row is marked, so nobody is shown what was erased; but its bytes still have it.
fn restless() -> StoreError {
    StoreError::Unavailable("other erasures write the same row all the time: erase again".into())
}

fn unmarked(wanted: BTreeSet<i32>, gone: &Gone) -> BTreeSet<i32> {
    let known: BTreeSet<i32> = gone.iter().flatten().copied().collect();
    wanted.difference(&known).copied().collect()
}

fn columns(key: &PackKey) -> ([u8; 16], i32, i64, i64, i64) {
    (key::batch(key.lane.batch), key::lane(key.lane), key.range.into(), key.attempt.into(), key.n.into())
}
