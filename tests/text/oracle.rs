//! Splitting against npm `sms-segments-calculator`: the same alphabet and the same number of parts for thousands of texts.
//!
//! One class of texts is kept out, with its reason: regional indicators (flags), prefixed and Hangul clusters and others that
//! only Unicode's tables know. The counter moves a whole extended grapheme cluster to the next part, this project the
//! sequences that [`smsfleet::model::text::split`] names; both are allowed, a surrogate pair or an escape pair is what must
//! not be cut.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use smsfleet::model::account::LongMessage;
use smsfleet::model::text::{Encoding, split};

#[test]
fn the_counter_from_npm_agrees() {
    let texts = texts(20_261_123);
    let found = count(&texts);
    assert_eq!(found.len(), texts.len());
    let (mut gsm, mut long) = (0, 0);
    for (text, (encoding, parts)) in texts.iter().zip(found) {
        let ours = split(text, LongMessage::Udh8);
        let name = match ours.encoding {
            Encoding::Gsm7 => "GSM-7",
            Encoding::Ucs2 => "UCS-2",
        };
        assert_eq!((name, u64::from(ours.parts)), (encoding.as_str(), parts), "{text:?}");
        gsm += usize::from(ours.encoding == Encoding::Gsm7);
        long += usize::from(ours.parts > 1);
    }
    assert!(gsm > 1_000 && texts.len() - gsm > 1_000 && long > 1_000, "both alphabets and long texts were compared");
}

/// Sequences of characters that are kept together, by both.
const JOINED: [&str; 6] =
    ["❤\u{FE0F}", "👍\u{1F3FD}", "👨\u{200D}👩\u{200D}👧\u{200D}👦", "e\u{301}", "1\u{FE0F}\u{20E3}", "✌\u{1F3FB}"];

fn texts(seed: u64) -> Vec<String> {
    let mut random = ChaCha12Rng::seed_from_u64(seed);
    let mut texts: Vec<String> = (0..0x500).chain(0x2000..0x2028).chain(0x20A0..0x20B0).map(single).collect();
    let gsm = ["a", "Z", "0", "é", "@", "Δ", " ", "\n", "\r"];
    let extension = ["{", "}", "[", "]", "^", "~", "|", "\\", "€", "\u{0C}"];
    let beyond = ["中", "，", "ê", "’", "я", "ｱ"];
    let emoji = ["😀", "🚀", "𠀀"];
    // Borders: filler up to and around where a part ends, with something wide there.
    for filler in ["a", "é", "中", "ç"] {
        for border in [66, 67, 70, 133, 134, 152, 153, 160, 305, 306, 458, 459] {
            for off in 0..4 {
                for wide in ["", "€", "{{", "😀", "😀😀", "中", "❤\u{FE0F}"] {
                    texts.push(filler.repeat(border - off) + wide + &filler.repeat(random.random_range(0..3) * 50));
                }
            }
        }
    }
    for _ in 0..3_000 {
        let kinds: &[&[&str]] = match random.random_range(0..6) {
            0 => &[&gsm],
            1 => &[&gsm, &extension],
            2 => &[&extension],
            3 => &[&gsm, &beyond],
            4 => &[&beyond, &emoji],
            _ => &[&gsm, &extension, &beyond, &emoji, &JOINED],
        };
        let length = random.random_range(0..400);
        texts.push((0..length).map(|_| pick(&mut random, kinds)).collect());
    }
    texts
}

fn single(code: u32) -> String {
    char::from_u32(code).expect("no surrogates in these blocks").to_string()
}

fn pick<'a>(random: &mut ChaCha12Rng, kinds: &[&[&'a str]]) -> &'a str {
    let kind = kinds[random.random_range(0..kinds.len())];
    kind[random.random_range(0..kind.len())]
}

/// What the counter says of each text: the name of the encoding, and segments.
fn count(texts: &[String]) -> Vec<(String, u64)> {
    let folder = Path::new("tests/text/oracle");
    assert!(
        folder.join("node_modules/sms-segments-calculator").is_dir(),
        "the segment counter is not installed: run tests/run, which does `npm ci` in {}",
        folder.display()
    );
    let mut node = Command::new("node")
        .arg(folder.join("count.mjs"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node is installed: see tests/run");
    let mut stdin = node.stdin.take().expect("its input is piped");
    let lines: String = texts.iter().map(|text| serde_json::to_string(text).expect("a string is written") + "\n").collect();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = node.wait_with_output().expect("node ends");
    writer.join().expect("the writer ends").expect("node reads everything");
    assert!(output.status.success(), "node failed");
    let output = String::from_utf8(output.stdout).expect("node prints UTF-8");
    output.lines().map(|line| serde_json::from_str(line).expect("an encoding and a number")).collect()
}
