//! Mutations of seeds: what transport, disks, people and attackers do to bytes.

use std::fmt;

use proptest::prelude::*;
use proptest::sample::Index;

/// Octets no longer than this are made.
const BYTES_MAX: usize = 64 * 1024;

/// An input, shown as a Rust text of bytes, ready to be kept as a seed.
#[derive(Clone)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// Words that mean something to one reader or another.
const WORDS: [&[u8]; 32] = [
    b"\0",
    b"\xFF\xFF\xFF\xFF",
    b"\x7F\xFF\xFF\xFF",
    b"\x80\0\0\0",
    b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01",
    b"18446744073709551615",
    b"9223372036854775808",
    b"-1",
    b"4294967295",
    b"1e999",
    b"\"",
    b"\"\"",
    b"'",
    b"\n",
    b"\r\n",
    b"\r",
    b",",
    b"\xEF\xBB\xBF",
    b"\xFF\xFE",
    b"\xC3",
    b"\xED\xA0\x80",
    "张\u{fdd0}".as_bytes(),
    b"null",
    b"\\u0000",
    b"\\ud800",
    b"{{",
    b"}}",
    b"{%",
    b"%}",
    b"id:",
    b" stat:",
    b"]]=",
];
/// What opens something that may be opened again inside.
const OPENINGS: [&[u8]; 9] = [b"[", b"{", b"(", b"{\"a\":", b"[{", b"a.", b"{% if a %}", b"\"", b"-"];

/// One mutation.
#[derive(Clone, Debug)]
enum Mutation {
    Flip {
        at: Index,
        bit: u8,
    },
    Set {
        at: Index,
        byte: u8,
    },
    Insert {
        at: Index,
        word: usize,
    },
    Replace {
        at: Index,
        word: usize,
    },
    Remove {
        at: Index,
        count: usize,
    },
    Cut {
        at: Index,
    },
    Repeat {
        at: Index,
        count: usize,
        times: usize,
    },
    Nest {
        at: Index,
        opening: usize,
        times: usize,
    },
    /// Another seed's end goes on from here.
    Splice {
        at: Index,
        seed: Index,
        from: Index,
    },
}

/// Seeds with one to six mutations; now and then octets of no seed at all.
pub fn mutated(corpus: Vec<Vec<u8>>) -> impl Strategy<Value = Bytes> {
    assert!(!corpus.is_empty(), "there are seeds");
    let of_seed = (any::<Index>(), proptest::collection::vec(mutation(), 1..=6)).prop_map(move |(seed, mutations)| {
        let mut octets = seed.get(&corpus).clone();
        for mutation in &mutations {
            apply(mutation, &mut octets, &corpus);
            octets.truncate(BYTES_MAX);
        }
        Bytes(octets)
    });
    prop_oneof![
        19 => of_seed,
        1 => proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes),
    ]
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<Index>;
    prop_oneof![
        4 => (at(), 0..8u8).prop_map(|(at, bit)| Mutation::Flip { at, bit }),
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set { at, byte }),
        4 => (at(), 0..WORDS.len()).prop_map(|(at, word)| Mutation::Insert { at, word }),
        4 => (at(), 0..WORDS.len()).prop_map(|(at, word)| Mutation::Replace { at, word }),
        2 => (at(), 1..20usize).prop_map(|(at, count)| Mutation::Remove { at, count }),
        2 => at().prop_map(|at| Mutation::Cut { at }),
        2 => (at(), 1..40usize, 1..200usize).prop_map(|(at, count, times)| Mutation::Repeat { at, count, times }),
        1 => (at(), 0..OPENINGS.len(), 1..20_000usize).prop_map(|(at, opening, times)| Mutation::Nest { at, opening, times }),
        2 => (at(), at(), at()).prop_map(|(at, seed, from)| Mutation::Splice { at, seed, from }),
    ]
}

fn apply(mutation: &Mutation, octets: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    // A place in the octets, the one behind the last among them.
    let place = |at: &Index| at.index(octets.len() + 1);
    match mutation {
        Mutation::Flip { at, bit } => {
            let at = place(at);
            octets.get_mut(at).into_iter().for_each(|octet| *octet ^= 1 << bit);
        }
        Mutation::Set { at, byte } => {
            let at = place(at);
            octets.get_mut(at).into_iter().for_each(|octet| *octet = *byte);
        }
        Mutation::Insert { at, word } => insert(octets, place(at), WORDS[*word]),
        Mutation::Replace { at, word } => {
            let at = place(at);
            let end = (at + WORDS[*word].len()).min(octets.len());
            octets.splice(at..end, WORDS[*word].iter().copied());
        }
        Mutation::Remove { at, count } => {
            let at = place(at);
            octets.drain(at..(at + count).min(octets.len()));
        }
        Mutation::Cut { at } => octets.truncate(place(at)),
        Mutation::Repeat { at, count, times } => {
            let at = place(at);
            let piece = octets[at..(at + count).min(octets.len())].repeat(*times);
            insert(octets, at, &piece);
        }
        Mutation::Nest { at, opening, times } => insert(octets, place(at), &OPENINGS[*opening].repeat(*times)),
        Mutation::Splice { at, seed, from } => {
            let other = seed.get(corpus);
            octets.truncate(place(at));
            octets.extend_from_slice(&other[from.index(other.len() + 1)..]);
        }
    }
}

fn insert(octets: &mut Vec<u8>, at: usize, piece: &[u8]) {
    octets.splice(at..at, piece.iter().copied());
}
