//! Short codes: eight base-62 characters, a keyed permutation of the number behind them.
//!
//! The permutation is FF1 of NIST SP 800-38G with AES-128, radix 62, length 8 and an empty tweak, so the domain of
//! 62^8 = 2.2 × 10^14 is far above the least of one million that revision 1 of the standard asks for. It is written out here
//! for this one size, where a half of the numerals fits into a machine word: general implementations work on arrays of
//! numerals and are ten to fifty times slower, and this is the dearest part of preparing a recipient. A test compares it
//! with crate `fpe`, an independent implementation.

use aes::Aes128;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};

use crate::model::code::{Code, Fault};
use crate::ports::links::LinkBlock;

/// Characters of a code.
pub const CODE_LEN: usize = 8;
/// Numbers below this have a code.
pub const NUMBERS: u64 = HALF * HALF;

/// Values of half a code: 62^4.
const HALF: u64 = 62 * 62 * 62 * 62;
const ROUNDS: u8 = 10;
/// Codes made together.
const AT_ONCE: usize = 8;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The permutation between numbers and codes under one key.
pub struct Permutation {
    cipher: Aes128,
    /// AES of the constant first block of FF1's pseudo-random function (step 5 of algorithm 7).
    first: [u8; 16],
}

impl Permutation {
    /// Under a key: [`crate::ports::links::Links::key`].
    pub fn new(key: &[u8; 16]) -> Permutation {
        let cipher = Aes128::new(&Array::from(*key));
        // [1, 2, 1] || radix as 3 bytes || 10 || u mod 256 || n as 4 bytes || t as 4 bytes.
        let mut block = Array::from([1, 2, 1, 0, 0, 62, 10, CODE_LEN as u8 / 2, 0, 0, 0, CODE_LEN as u8, 0, 0, 0, 0]);
        cipher.encrypt_block(&mut block);
        Permutation { cipher, first: block.into() }
    }

    /// The code of a number, or `None` when the number is not below [`NUMBERS`].
    pub fn code_of(&self, number: u64) -> Option<String> {
        (number < NUMBERS).then(|| self.encrypt([number])[0].to_string())
    }

    /// Several at once, so that the processor works on several blocks of AES at a time.
    fn encrypt<const N: usize>(&self, numbers: [u64; N]) -> [ShortCode; N] {
        let (mut a, mut b) = (numbers.map(|number| number / HALF), numbers.map(|number| number % HALF));
        for round in 0..ROUNDS {
            let y = self.round(round, b);
            for place in 0..N {
                (a[place], b[place]) = (b[place], (a[place] + y[place]) % HALF);
            }
        }
        std::array::from_fn(|place| ShortCode::new(a[place], b[place]))
    }

    /// The number behind a code, or `None` when the text is no code. Every well-formed code has a number; whether it was
    /// ever handed out, [`crate::ports::links::Links::block_of`] knows.
    pub fn number_of(&self, code: &str) -> Option<u64> {
        if code.len() != CODE_LEN {
            return None;
        }
        let mut joined = 0;
        for byte in code.bytes() {
            let value = match byte {
                b'0'..=b'9' => byte - b'0',
                b'A'..=b'Z' => byte - b'A' + 10,
                b'a'..=b'z' => byte - b'a' + 36,
                _ => return None,
            };
            joined = joined * 62 + u64::from(value);
        }
        let (mut a, mut b) = (joined / HALF, joined % HALF);
        for round in (0..ROUNDS).rev() {
            let [y] = self.round(round, [a]);
            (a, b) = ((b + HALF - y) % HALF, a);
        }
        Some(a * HALF + b)
    }

    /// Steps 6i to 6iv of algorithm 7, reduced: Q is 12 zero bytes, the round and three bytes of the half; the second block
    /// of the chain is the last, and the first 8 bytes of it are y.
    fn round<const N: usize>(&self, round: u8, halves: [u64; N]) -> [u64; N] {
        let mut blocks = halves.map(|half| {
            let mut block = self.first;
            block[12] ^= round;
            for (byte, value) in block[13..].iter_mut().zip(&half.to_be_bytes()[5..]) {
                *byte ^= value;
            }
            Array::from(block)
        });
        self.cipher.encrypt_blocks(&mut blocks);
        blocks.map(|block| {
            let mut first = [0; 8];
            first.copy_from_slice(&block[..8]);
            u64::from_be_bytes(first) % HALF
        })
    }
}

/// A code, without an allocation of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortCode([u8; CODE_LEN]);

impl ShortCode {
    fn new(a: u64, b: u64) -> ShortCode {
        let mut code = [0; CODE_LEN];
        for (half, characters) in [a, b].into_iter().zip(code.chunks_exact_mut(CODE_LEN / 2)) {
            let mut rest = half;
            for character in characters.iter_mut().rev() {
                *character = ALPHABET[(rest % 62) as usize];
                rest /= 62;
            }
        }
        ShortCode(code)
    }
}

impl std::fmt::Display for ShortCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::str::from_utf8(&self.0).unwrap_or_default())
    }
}

/// The codes of one block of numbers: the `index`-th record of a range has the `index`-th code.
pub struct Codes {
    permutation: Permutation,
    block: LinkBlock,
}

impl Codes {
    /// Codes of a block that was reserved.
    ///
    /// # Errors
    /// [`Code::Internal`] when the block ends beyond the last number that has a code.
    pub fn new(key: &[u8; 16], block: LinkBlock) -> Result<Codes, Fault> {
        match block.first.checked_add(block.len) {
            Some(end) if end <= NUMBERS => Ok(Codes { permutation: Permutation::new(key), block }),
            _ => Err(Fault::new(Code::Internal, "the numbers of short links are used up")),
        }
    }

    /// Appends the codes of `count` places from `index` on; fewer where the block ends.
    pub fn append(&self, index: u64, count: u64, codes: &mut Vec<ShortCode>) {
        let end = index.saturating_add(count).min(self.block.len);
        let mut index = index.min(end);
        while end - index >= AT_ONCE as u64 {
            let first = self.block.first + index;
            codes.extend(self.permutation.encrypt::<AT_ONCE>(std::array::from_fn(|place| first + place as u64)));
            index += AT_ONCE as u64;
        }
        for index in index..end {
            codes.extend(self.permutation.encrypt([self.block.first + index]));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fpe::ff1::{FF1, FlexibleNumeralString};
    use proptest::prelude::*;

    use super::*;
    use crate::model::id::BatchId;

    const KEY: [u8; 16] = [0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6, 0xab, 0xf7, 0x15, 0x88, 0x09, 0xcf, 0x4f, 0x3c];

    /// The same code by the independent implementation.
    fn by_fpe(key: &[u8; 16], number: u64) -> String {
        let numerals: Vec<u16> = (0..8).rev().map(|place| (number / 62u64.pow(place) % 62) as u16).collect();
        let ff1 = FF1::<Aes128>::new(key, 62).expect("62 is a radix");
        let code = ff1.encrypt(&[], &FlexibleNumeralString::from(numerals)).expect("eight numerals");
        Vec::<u16>::from(code).into_iter().map(|numeral| char::from(ALPHABET[usize::from(numeral)])).collect()
    }

    #[test]
    fn codes_are_the_ones_that_were_sent_out() {
        let permutation = Permutation::new(&KEY);
        let golden = [(0, "Aelu47q3"), (1, "sE8eqhAt"), (NUMBERS - 1, "xIEf0fFA")];
        for (number, code) in golden {
            assert_eq!(permutation.code_of(number).as_deref(), Some(code), "{number}");
            assert_eq!(permutation.number_of(code), Some(number));
        }
        assert_eq!(permutation.code_of(NUMBERS), None);
    }

    #[test]
    fn what_is_no_code_has_no_number() {
        let permutation = Permutation::new(&KEY);
        for text in ["", "1234567", "123456789", "1234-678", "1234567é", "        "] {
            assert_eq!(permutation.number_of(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_block_has_a_code_for_each_place_and_no_more() {
        let block = LinkBlock { first: NUMBERS - 1_000, len: 1_000, batch: BatchId(1) };
        let codes = Codes::new(&KEY, block.clone()).expect("the last block");
        let mut found = vec![];
        codes.append(0, 3, &mut found);
        codes.append(3, 2_000, &mut found);
        codes.append(1_000, 1, &mut found);
        let permutation = Permutation::new(&KEY);
        let expected: Vec<Option<String>> = (0..1_000).map(|index| permutation.code_of(block.first + index)).collect();
        let found: Vec<Option<String>> = found.iter().map(|code| Some(code.to_string())).collect();
        assert_eq!(found, expected);
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>().len(), 1_000);
        assert!(Codes::new(&KEY, LinkBlock { len: 1_001, ..block.clone() }).is_err());
        assert!(Codes::new(&KEY, LinkBlock { first: u64::MAX, ..block }).is_err());
    }

    proptest! {
        #[test]
        fn it_is_ff1_and_reads_back(key: [u8; 16], number in 0..NUMBERS) {
            let permutation = Permutation::new(&key);
            let code = permutation.code_of(number).expect("below the limit");
            prop_assert_eq!(&code, &by_fpe(&key, number));
            prop_assert_eq!(permutation.number_of(&code), Some(number));
        }
    }
}
