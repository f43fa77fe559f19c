//! Finding and erasing a number: rows are read, emptied and written back where they stand.

use super::Keyed;
use crate::adapters::embedded::engine::{Batch, Expect, Op, Order, Table, Written};
use crate::adapters::rows::key::{self, KeyReader};
use crate::adapters::rows::{pack, receipt, reject};
use crate::model::id::{BatchId, LaneKey, Msisdn, RecipientKey};
use crate::model::pack::PackKey;
use crate::ports::StoreError;
use crate::ports::erasure::{Erasure, FoundMessage, OfNumber, messages_to};
use crate::ports::receipts::{ParkedReport, UncertainEntry};

/// Rows written in one commit.
const ROWS_PER_COMMIT: usize = 256;
/// Where the checksum of a row stands, and how long it is: whoever changes a row has to have seen it as it is.
const CHECKSUM: std::ops::Range<usize> = 1..9;

#[async_trait::async_trait]
impl Erasure for Keyed {
    async fn messages(&self, lane: LaneKey, number: Msisdn) -> Result<Vec<FoundMessage>, StoreError> {
        let mut found = Vec::new();
        for key in self.packs_with(lane, number)? {
            let bytes = key::pack(key);
            let (head, texts) = {
                let reader = self.engine.read()?;
                (reader.get(Table::PackHead, &bytes)?, reader.get(Table::PackText, &bytes)?)
            };
            let (Some(head), Some(texts)) = (head, texts) else { continue };
            let content = pack::read(&head, &texts)?;
            found.extend(messages_to(number, key, content));
        }
        Ok(found)
    }

    async fn erase_messages(&self, lane: LaneKey, number: Msisdn) -> Result<u64, StoreError> {
        let mut erased = 0;
        for key in self.packs_with(lane, number)? {
            erased += self.erase_in_pack(key, number).await?;
        }
        Ok(erased)
    }

    async fn erase_rejects(&self, batch: BatchId, number: Msisdn) -> Result<u64, StoreError> {
        let mut erased = 0;
        loop {
            let (mut change, mut more) = (Batch::control(), false);
            let mut here = 0;
            self.engine.read()?.scan_prefix(Table::Rejects, &key::batch(batch), &mut |key, bytes| {
                let mut rejects = reject::read(bytes)?;
                let before = here;
                for reject in rejects.iter_mut().filter(|reject| reject.fits(number)) {
                    (reject.number, reject.detail) = (String::new(), String::new());
                    here += 1;
                }
                if here > before {
                    change.checks.push((Table::Rejects, key.to_vec(), seen(bytes)));
                    change.ops.push(Op::Put(Table::Rejects, key.to_vec(), reject::write(&rejects)));
                }
                more = change.ops.len() >= ROWS_PER_COMMIT;
                Ok(!more)
            })?;
            if !change.ops.is_empty() && self.engine.write(change).await? == Written::Refused {
                continue;
            }
            erased += here;
            if !more {
                return Ok(erased);
            }
        }
    }

    async fn erase_reports(&self, recipient: RecipientKey) -> Result<u64, StoreError> {
        let mut ops = Vec::new();
        self.engine.read()?.scan_prefix(Table::Receipt, &key::recipient(recipient), &mut |key, bytes| {
            let mut matched = receipt::read(KeyReader(key).part()?, bytes)?;
            if matched.report.number.is_some() || !matched.report.raw.is_empty() {
                (matched.report.number, matched.report.raw) = (None, String::new());
                ops.push(Op::Put(Table::Receipt, key.to_vec(), receipt::write(&matched.account, &matched.report)));
            }
            Ok(true)
        })?;
        let erased = ops.len() as u64;
        if erased > 0 {
            self.engine.write(Batch { ops, ..Batch::control() }).await?;
        }
        Ok(erased)
    }

    async fn of_number(&self, number: Msisdn) -> Result<OfNumber, StoreError> {
        let mut found = OfNumber::default();
        let digits = number.digits();
        let reader = self.engine.read()?;
        reader.scan(Table::Uncertain, &[], None, Order::Up, &mut |key, bytes| {
            found.uncertain.extend(uncertain_of(key, bytes, number)?);
            Ok(true)
        })?;
        reader.scan(Table::Parked, &[], None, Order::Up, &mut |_, bytes| {
            let parked = self.read_parked(bytes)?;
            let of_number = |one: &ParkedReport| one.report.number == Some(number) || one.report.raw.contains(&digits);
            found.parked.extend(parked.filter(of_number));
            Ok(true)
        })?;
        Ok(found)
    }

    async fn erase_of_number(&self, number: Msisdn) -> Result<(u64, u64), StoreError> {
        let parked: Vec<u64> = self.of_number(number).await?.parked.iter().map(|parked| parked.id).collect();
        let mut ops = Vec::new();
        self.engine.read()?.scan(Table::Uncertain, &[], None, Order::Up, &mut |key, bytes| {
            if uncertain_of(key, bytes, number)?.is_some() {
                ops.push(Op::Delete(Table::Uncertain, key.to_vec()));
            }
            Ok(true)
        })?;
        let uncertain = ops.len() as u64;
        if uncertain > 0 {
            self.engine.write(Batch { ops, ..Batch::control() }).await?;
        }
        let mut counts = self.parked.lock().await;
        self.unpark(&mut counts, &parked).await?;
        Ok((uncertain, parked.len() as u64))
    }
}

impl Keyed {
    /// Packs of a lane, of all attempts, that hold a number. One that cannot be read is passed over: nobody reads it again.
    fn packs_with(&self, lane: LaneKey, number: Msisdn) -> Result<Vec<PackKey>, StoreError> {
        let mut found = Vec::new();
        self.engine.read()?.scan_prefix(Table::PackHead, &key::lane(lane), &mut |key, bytes| {
            match pack::read_head(bytes) {
                Ok(head) if head.numbers.contains(&number.0) => {
                    let mut fields = KeyReader(key);
                    let lane = fields.lane()?;
                    found.push(PackKey { lane, range: fields.u32()?, attempt: fields.u32()?, n: fields.u32()? });
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%lane, %error, "a pack cannot be read: no number can be found or erased in it"),
            }
            Ok(true)
        })?;
        Ok(found)
    }

    async fn erase_in_pack(&self, name: PackKey, number: Msisdn) -> Result<u64, StoreError> {
        let key = key::pack(name);
        loop {
            let (head, texts) = {
                let reader = self.engine.read()?;
                (reader.get(Table::PackHead, &key)?, reader.get(Table::PackText, &key)?)
            };
            let (Some(head), Some(texts)) = (head, texts) else { return Ok(0) };
            let mut content = pack::read(&head, &texts)?;
            let mut erased = 0;
            for message in content.messages.iter_mut().filter(|message| message.number == number) {
                (message.number, message.body, message.link) = (Msisdn::ERASED, String::new(), None);
                erased += 1;
            }
            let (new_head, new_texts) = pack::write(&content);
            let change = Batch::control()
                .check(Table::PackHead, key.clone(), seen(&head))
                .check(Table::PackText, key.clone(), seen(&texts))
                .put(Table::PackHead, key.clone(), new_head)
                .put(Table::PackText, key.clone(), new_texts);
            if self.engine.write(change).await? != Written::Refused {
                return Ok(erased);
            }
        }
    }
}

fn seen(row: &[u8]) -> Expect {
    Expect::Bytes(CHECKSUM.start, row.get(CHECKSUM).unwrap_or_default().to_vec())
}

/// The uncertain entry of a row, when it is the number's. Its key begins with the account's name behind its length.
fn uncertain_of(key: &[u8], bytes: &[u8], number: Msisdn) -> Result<Option<UncertainEntry>, StoreError> {
    let mut fields = KeyReader(key);
    let length = fields.u32()? as usize;
    let Some((account, rest)) = fields.0.split_at_checked(length) else { return Ok(None) };
    let mut fields = KeyReader(rest);
    if fields.u64()? != number.0 {
        return Ok(None);
    }
    let account = String::from_utf8_lossy(account).into_owned();
    let part = fields.part()?;
    Ok(Some(UncertainEntry { account, number, part, declared_at: receipt::read_uncertain(bytes)? }))
}
