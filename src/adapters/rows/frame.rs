//! The frame of a data row: version byte, then postcard; large rows compressed and with a checksum.

use std::cell::RefCell;

use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64;

use crate::ports::StoreError;

/// The oldest version that is read, and the newest whose fields are all known.
pub const VERSION: u8 = 1;
/// The version this program writes: the next one in a build that stands for it.
pub(super) const WRITTEN: u8 = VERSION + cfg!(feature = "next-formats") as u8;
/// The fields that the next version adds to a row.
const ADDED: &[u8] = if cfg!(feature = "next-formats") { &[7, 3, b'n', b'e', b'w'] } else { &[] };

/// No block is larger than this once unpacked.
const BLOCK_BYTES_MAX: usize = 256 << 20;
/// Any row of a pack or a window stays below this. Only lists that grow with a lane are larger, and they do not shrink much.
const ROW_BYTES_MAX: usize = 16 << 20;
/// What a block above that shrinks to at least.
const SHRINKS_TO: usize = 256;
/// Below this, compressing gains nothing.
const COMPRESS_FROM: usize = 256;
/// Version, checksum, method, length.
const BLOCK_HEAD: usize = 1 + 8 + 1 + 4;
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
const ZSTD_LEVEL: i32 = 1;

/// Writes a small row.
pub fn small<T: Serialize>(row: &T) -> Vec<u8> {
    let mut bytes = postcard::to_extend(row, vec![WRITTEN]).expect("a row's fields can all be written");
    bytes.extend_from_slice(ADDED);
    bytes
}

/// Reads a small row; `what` names it in the error.
pub fn read_small<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, StoreError> {
    let version = version_of(what, bytes)?;
    parse(what, version, &bytes[1..])
}

/// What a block whose body has so many bytes may unpack to: a few bytes that claim to be many must not fill the memory.
pub fn unpacked_max(body_bytes: usize) -> usize {
    body_bytes.saturating_mul(SHRINKS_TO).clamp(ROW_BYTES_MAX, BLOCK_BYTES_MAX)
}

/// Writes a large row: compressed where that helps, and with a checksum over everything behind it.
pub fn block<T: Serialize>(row: &T) -> Vec<u8> {
    let mut raw = postcard::to_stdvec(row).expect("a row's fields can all be written");
    raw.extend_from_slice(ADDED);
    let length = u32::try_from(raw.len()).expect("a row stays far below four gigabytes");
    let packed = if raw.len() < COMPRESS_FROM { None } else { compress(&raw).filter(|packed| pays(&raw, packed)) };
    let (method, body) = match &packed {
        Some(packed) => (ZSTD, packed),
        None => (PLAIN, &raw),
    };
    let mut bytes = Vec::with_capacity(BLOCK_HEAD + body.len());
    bytes.push(WRITTEN);
    bytes.extend_from_slice(&[0; 8]);
    bytes.push(method);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(body);
    let checksum = xxh3_64(&bytes[9..]);
    bytes[1..9].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Reads a large row. Any damaged byte is [`StoreError::Corrupt`].
pub fn read_block<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, StoreError> {
    read_within(what, bytes, BLOCK_BYTES_MAX)
}

/// Reads a large row that is no list of a whole lane: it stays small however well it shrinks, and a longer one is damaged.
pub fn read_row_block<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, StoreError> {
    read_within(what, bytes, ROW_BYTES_MAX)
}

fn read_within<T: DeserializeOwned>(what: &str, bytes: &[u8], most: usize) -> Result<T, StoreError> {
    let version = version_of(what, bytes)?;
    if bytes.len() < BLOCK_HEAD {
        return Err(corrupt(what, "it is too short"));
    }
    let mut checksum = [0; 8];
    checksum.copy_from_slice(&bytes[1..9]);
    if xxh3_64(&bytes[9..]) != u64::from_le_bytes(checksum) {
        return Err(corrupt(what, "its checksum differs"));
    }
    let mut length = [0; 4];
    length.copy_from_slice(&bytes[10..14]);
    let (length, body) = (u32::from_le_bytes(length) as usize, &bytes[BLOCK_HEAD..]);
    match bytes[9] {
        PLAIN => parse(what, version, body),
        ZSTD if length <= unpacked_max(body.len()).min(most) => {
            let raw = decompress(body, length).ok_or_else(|| corrupt(what, "it cannot be unpacked"))?;
            parse(what, version, &raw)
        }
        ZSTD => Err(corrupt(what, "it claims to be larger than it can be")),
        _ => Err(corrupt(what, "its compression is unknown")),
    }
}

/// A text that a store or a queue keeps, in JSON: in a build that stands for the next version, with a field more.
pub fn text(json: String) -> String {
    match json.strip_prefix('{') {
        Some(rest) if cfg!(feature = "next-formats") => {
            let comma = if rest == "}" { "" } else { "," };
            format!("{{\"added_by_the_next_version\":[1,2]{comma}{rest}")
        }
        _ => json,
    }
}

/// An error that says which kind of row is damaged and how, never what is in it.
pub fn corrupt(what: &str, how: &str) -> StoreError {
    StoreError::Corrupt(format!("{what}: {how}"))
}

/// Whether a row is stored compressed: it is smaller then, and a reader believes its length.
fn pays(raw: &[u8], packed: &[u8]) -> bool {
    packed.len() < raw.len() && raw.len() <= unpacked_max(packed.len())
}

fn version_of(what: &str, bytes: &[u8]) -> Result<u8, StoreError> {
    match bytes.first() {
        None => Err(corrupt(what, "it is empty")),
        Some(&version) if version < VERSION => Err(corrupt(what, "its form is older than any this program knows")),
        Some(&version) => Ok(version),
    }
}

/// Fields that a later version added stand behind the ones known here.
fn parse<T: DeserializeOwned>(what: &str, version: u8, bytes: &[u8]) -> Result<T, StoreError> {
    let (row, rest) = postcard::take_from_bytes(bytes).map_err(|error| corrupt(what, &error.to_string()))?;
    if version == VERSION && !rest.is_empty() { Err(corrupt(what, "it is too long")) } else { Ok(row) }
}

// A compressor's tables are made once for each thread: making them for each pack would cost more than compressing it.
thread_local! {
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

fn compress(raw: &[u8]) -> Option<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
        }
        slot.as_mut()?.compress(raw).ok()
    })
}

fn decompress(packed: &[u8], length: usize) -> Option<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = zstd::bulk::Decompressor::new().ok();
        }
        slot.as_mut()?.decompress(packed, length).ok().filter(|raw| raw.len() == length)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_read_back_and_version_n_reads_what_n_plus_1_adds() {
        let row = (7u32, "abc".to_owned());
        let mut bytes = small(&row);
        assert_eq!(bytes, [1, 7, 3, b'a', b'b', b'c'], "golden bytes");
        assert_eq!(read_small("row", &bytes), Ok(row.clone()));
        bytes.push(9);
        assert!(read_small::<(u32, String)>("row", &bytes).is_err(), "the same version has nothing behind its fields");
        bytes[0] = VERSION + 1;
        assert_eq!(read_small("row", &bytes), Ok(row));
        bytes[0] = 0;
        assert!(matches!(read_small::<(u32, String)>("row", &bytes), Err(StoreError::Corrupt(_))));
        assert!(read_small::<(u32, String)>("row", &[]).is_err());
    }

    #[test]
    fn a_later_block_with_more_fields_is_read() {
        let mut bytes = block(&(7u32, "abc".to_owned(), 5u8));
        bytes[0] = VERSION + 1;
        assert_eq!(read_block("row", &bytes), Ok((7u32, "abc".to_owned())));
    }

    #[test]
    fn a_few_bytes_that_claim_to_be_many_are_not_believed() {
        // A row that would shrink too much is kept as it is, so that whatever was written is read.
        let zeros = vec![0u8; ROW_BYTES_MAX + 1];
        let row = block(&zeros);
        assert_eq!((row[9], read_block("row", &row)), (PLAIN, Ok(zeros)));
        let packed = compress(&row[BLOCK_HEAD..]).expect("zeros are packed");
        assert!(packed.len() < 8_192, "{} bytes", packed.len());
        let length = u32::try_from(row.len() - BLOCK_HEAD).expect("it is short");
        let mut bomb = [&[VERSION; 9][..], &[ZSTD], &length.to_le_bytes(), &packed].concat();
        let checksum = xxh3_64(&bomb[9..]);
        bomb[1..9].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(read_block::<Vec<u8>>("row", &bomb), Err(corrupt("row", "it claims to be larger than it can be")));
        // The rows of ordinary packs shrink as they like.
        let row = block(&vec![0u8; ROW_BYTES_MAX - 8]);
        assert!(row[9] == ZSTD && row.len() < 8_192 && read_block::<Vec<u8>>("row", &row).is_ok());
        // What grows with a lane may be longer, and shrinks less.
        let list: String = (0..ROW_BYTES_MAX as u64 / 16 + 1).map(|n| format!("{:016x}", crate::model::lane::mix(n))).collect();
        let row = block(&list);
        assert!(row[9] == ZSTD && read_block::<String>("row", &row).is_ok_and(|read| read == list));
        assert_eq!(read_row_block::<String>("row", &row), Err(corrupt("row", "it claims to be larger than it can be")));
        assert_eq!((unpacked_max(0), unpacked_max(usize::MAX)), (ROW_BYTES_MAX, BLOCK_BYTES_MAX));
    }

    #[test]
    fn every_damaged_byte_of_a_block_is_noticed() {
        for text in ["short".to_owned(), "a longer text ".repeat(100)] {
            let good = block(&text);
            assert_eq!(read_block("row", &good), Ok(text));
            for at in 1..good.len() {
                let mut bad = good.clone();
                bad[at] ^= 0x10;
                assert!(matches!(read_block::<String>("row", &bad), Err(StoreError::Corrupt(_))), "byte {at}");
            }
            for length in 0..good.len() {
                assert!(read_block::<String>("row", &good[..length]).is_err(), "cut at {length}");
            }
        }
    }
}
