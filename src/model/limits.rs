//! Every limit of the system, in one place, with the relations between them checked when the crate is compiled.

use std::time::Duration;

use super::code::{Code, Fault};

/// Partitions of the delivery topic. Never changeable: lanes are spread over them by arithmetic.
pub const DELIVERY_PARTITIONS: u16 = 128;
/// The most lanes one batch has.
pub const LANES_MAX: u16 = 128;
/// Records in one range of the source, about.
pub const RANGE_RECORDS: u32 = 131_072;
/// Recipients in one pack at most.
pub const PACK_RECIPIENTS_MAX: usize = 1_024;
/// Bytes of the messages of one pack at which it is full with fewer of them: some hundred of the longest texts.
pub const PACK_BYTES_MAX: usize = 512 * 1024;
/// Bytes of the messages that one range's task holds before it writes packs that are not full. A whole range of texts of one part is
/// about as much; each task of a preparer may hold it, and as much again on its way to the store.
pub const SHELVES_BYTES_MAX: usize = 32 << 20;
/// Records that never became a message, written together.
pub const REJECTS_PER_WRITE: usize = 2_000;
/// Recipients one queue token stands for.
pub const SLICE_RECIPIENTS: u32 = 5_000;
/// Recipients in one send window at most.
pub const WINDOW_RECIPIENTS_MAX: u32 = 2_000;
/// Recipients of all open windows of one account on one worker at most, whatever its rate.
pub const OPEN_RECIPIENTS_MAX: u32 = 32_000;
/// Open windows of one lane at most.
pub const LANE_WINDOWS_MAX: usize = 4;
/// Legs (the manifest and its retry packs) of one lane before waiting ones are merged.
pub const LEGS_MAX: usize = 12;
/// A share of the route's rate that one window should hold.
pub const WINDOW_SPAN: Duration = Duration::from_millis(200);
/// Nothing is handed to an account later than this after its declare began.
pub const SEND_BY: Duration = Duration::from_secs(10);
/// The longest that answers of an open window stay only in memory.
pub const ANSWER_FLUSH: Duration = Duration::from_millis(200);
/// A worker declares only while its last reading of the batch is younger than this.
pub const BATCH_READING_MAX: Duration = Duration::from_millis(900);
/// How often a worker reads the batch again while it sends.
pub const BATCH_READING_EVERY: Duration = Duration::from_millis(300);
/// How old a reading may be of what says that numbers were erased.
pub const ERASURE_READING_MAX: Duration = Duration::from_millis(300);
/// Segments (parts) of one message at most; a longer text is rejected when it is prepared.
pub const PARTS_MAX: usize = 16;
/// Characters of one rendered text at most.
pub const TEXT_CHARS_MAX: usize = 2_400;
/// Bytes of one source record at most; a longer one is rejected.
pub const RECORD_BYTES_MAX: usize = 1 << 20;
/// Bytes of the records that one read of a range gives, about: enough for a thousand records of any usual list, and little enough
/// that many preparers may each hold as many of the largest. The record that passes it is still given.
pub const READ_BYTES_MAX: usize = 8 << 20;
/// Columns of one source record at most.
pub const COLUMNS_MAX: usize = 1_024;
/// Bytes of the names of all columns of a source at most: the batch's row carries them.
pub const COLUMN_NAMES_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a template at most.
pub const TEMPLATE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one of a batch's names at most: campaign, programme, task, content, column, and how its list is read. A batch's row is
/// read whole wherever many of them are looked at.
pub const NAME_BYTES_MAX: usize = 256;
/// Bytes of an address at most: a list's, a page's, a webhook's.
pub const ADDRESS_BYTES_MAX: usize = 2_048;
/// Characters of a signature at most.
pub const SIGNATURE_CHARS_MAX: usize = 64;
/// Parameters of a batch's links at most.
pub const LINK_PARAMETERS_MAX: usize = 32;
/// Bytes of the address that an opened link leads to at most: what browsers and servers take.
pub const LINK_TARGET_BYTES_MAX: usize = 8 * 1024;
/// Characters of a plan's hash at most.
pub const PLAN_HASH_CHARS_MAX: usize = 64;
/// Characters of a provider's message id at most (SMPP 3.4, 5.2.23: 65 octets with the final NUL).
pub const MESSAGE_ID_MAX: usize = 64;
/// Characters of one receipt that are kept as it came: far more than a receipt of SMPP or JSON has.
pub const RECEIPT_CHARS_MAX: usize = 4_096;
/// Characters of a person's message that are kept: more than the most parts that are put together have.
pub const INBOUND_CHARS_MAX: usize = 10_000;
/// Characters of an address, from whom or to whom, that are kept; SMPP 3.4 allows 20 (5.2.8).
pub const ADDRESS_CHARS_MAX: usize = 64;
/// The longest duration that a configuration or a command may name: ten years. Nothing is waited for as long, and a time on any
/// clock of this process still has room for some of them behind it.
pub const DURATION_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Range tasks queued per preparer: enough to keep it busy, few enough that a small batch is not kept waiting.
pub const RANGE_TASKS_PER_PREPARER: usize = 2;
/// People one seal task covers, about: bounds the memory of striking out duplicates.
pub const SEAL_RECIPIENTS_MAX: u64 = 1_000_000;
/// Changes of a batch's state kept in its row: more than happen between two rounds of whoever tells them.
pub const CHANGES_KEPT: usize = 40;
/// Samples of rendered texts kept for the plan.
pub const SAMPLES_MAX: usize = 4;
/// Recipients that one message id is looked up for at most, the newest of those whom the report's number leaves. Only the newest is
/// taken; a provider that gives all its messages one id must not make each receipt cost what all of them do.
pub const CANDIDATES_MAX: usize = 512;
/// Reports (receipts) of one intake batch at most.
pub const REPORTS_PER_INTAKE: usize = 4_096;
/// Orders that a batch remembers, so that the same one sent twice is carried out once.
pub const ORDERS_KEPT: usize = 64;
/// Numbers that one order to send again may name.
pub const ORDER_NUMBERS_MAX: usize = 1_000;
/// Codes, accounts or details that one order to send again may name: each recipient is compared with all of them.
pub const ORDER_WORDS_MAX: usize = 100;
/// Tries after a transient refusal before a recipient fails, and, where a batch sends again who was not answered, before one is held.
pub const TRANSIENT_TRIES_MAX: u8 = 3;
/// Tries after "queue full" for one handset before a recipient fails.
pub const QUEUE_FULL_TRIES_MAX: u8 = 3;

/// Bytes of one value of an audit entry that are kept at most.
pub const AUDIT_VALUE_BYTES_MAX: usize = 1_024;

/// Checks that a text from outside is no longer than it may be.
///
/// # Errors
/// [`Code::InputInvalid`] with the field's name.
pub fn within(name: &str, text: &str, most: usize) -> Result<(), Fault> {
    if text.len() <= most {
        return Ok(());
    }
    Err(Fault::new(Code::InputInvalid, format!("{name} has at most {most} bytes")))
}

const _: () = assert!(LANES_MAX <= DELIVERY_PARTITIONS);
const _: () = assert!(WINDOW_RECIPIENTS_MAX < OPEN_RECIPIENTS_MAX);
const _: () = assert!(PARTS_MAX <= 32, "parts are kept as bits of a u32");
const _: () = assert!(RECORD_BYTES_MAX < READ_BYTES_MAX);
const _: () = assert!(PACK_BYTES_MAX < SHELVES_BYTES_MAX);
const _: () = assert!(ADDRESS_BYTES_MAX < LINK_TARGET_BYTES_MAX);
const _: () = assert!(SLICE_RECIPIENTS > WINDOW_RECIPIENTS_MAX);
const _: () = assert!(BATCH_READING_EVERY.as_millis() * 2 < BATCH_READING_MAX.as_millis());
