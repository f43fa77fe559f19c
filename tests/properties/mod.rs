//! Properties: whatever comes from outside, or out of a store or a queue, is read within limits or refused with a code.
//!
//! The targets are those of `tests/fuzz`, mounted here and run by the very same functions, over the small seeds in
//! `tests/fuzz/corpus` and some thousand mutations of them. A run is a function of its seed, which a failure prints with the
//! smallest input that fails; `SMSFLEET_FUZZ_SEED` chooses another, `SMSFLEET_FUZZ_RUNS` multiplies the mutations. What ends the
//! whole process (a stack that overflows, memory that is not there) prints nothing: the input is then in the file that
//! `SMSFLEET_FUZZ_KEEP` names. A target that read nothing, or refused nothing, proved nothing, and fails.
//!
//! For hours instead of seconds, guided by coverage, with AddressSanitizer and a limit of memory (it installs cargo-fuzz and uses
//! the same stable compiler; needs a C++ compiler):
//!
//! ```text
//! tests/campaign --fuzz 60
//! ```
//!
//! What it finds new it puts into `target/fuzz/NAME`, where the next one goes on, and inputs that fail into
//! `target/fuzz/artifacts`: those are mended, and kept as a small file in `tests/fuzz/corpus/NAME`. The fuzz package is a member of
//! the workspace, so that `tests/run` builds its binaries and lints them; who builds smsfleet itself needs no libFuzzer.
//!
//! What it cannot show here: how much memory was taken. Limits of results are checked; the real fuzzer counts bytes.

mod mutate;
mod package;

#[path = "../fuzz/targets/mod.rs"]
mod targets;

use std::cell::Cell;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestError, TestRng, TestRunner};

use targets::{TARGETS, Target};

/// Where the seeds lie, a folder for each target.
const CORPUS: &str = "tests/fuzz/corpus";
/// The seed when nobody names one.
const SEED: u64 = 7;

macro_rules! hold {
    ($($name:ident)*) => {
        /// The targets that are run here: all of them, as a test makes sure.
        const RUN: &[&str] = &[$(stringify!($name)),*];
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })*
    };
}

hold! {
    csv json_lines lists plans azure templates receipts pdus session http_answers http_pushes
    rows blocks control_rows sealed queue store documents config
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

/// The seeds of a target, in the order of their names.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let mut files: Vec<_> = std::fs::read_dir(Path::new(CORPUS).join(name))
        .unwrap_or_else(|error| panic!("{name} has seeds: {error}"))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).expect("a seed is read")).collect()
}

/// Runs a target over its seeds, then over mutations of them.
fn run(name: &str) {
    let Target { run, mutations, .. } = *TARGETS.iter().find(|target| target.name == name).expect("it is a target");
    let seed = from_environment("SMSFLEET_FUZZ_SEED").unwrap_or(SEED);
    let times = from_environment("SMSFLEET_FUZZ_RUNS").unwrap_or(1);
    let corpus = seeds(name);
    let (read, refused) = (Cell::new(0u32), Cell::new(0u32));
    let kept = std::env::var_os("SMSFLEET_FUZZ_KEEP");
    let once = |input: &[u8]| {
        if let Some(file) = &kept {
            std::fs::write(file, input).expect("the input is kept");
        }
        let count = if run(input) { &read } else { &refused };
        count.set(count.get() + 1);
    };
    corpus.iter().for_each(|input| once(input));
    let config = ProptestConfig {
        cases: mutations.saturating_mul(u32::try_from(times).unwrap_or(u32::MAX)),
        // A failure is kept by hand, as a seed, where the real fuzzer finds it too.
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..ProptestConfig::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let outcome = runner.run(&mutate::mutated(corpus), |input| {
        once(&input.0);
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, input)) => panic!("{name}, seed {seed}: {reason}\nthe smallest input that fails: {input:?}"),
        Err(TestError::Abort(reason)) => panic!("{name}, seed {seed}: {reason}"),
    }
    assert!(read.get() > 0, "{name}, seed {seed}: nothing was read, which proves nothing");
    assert!(refused.get() > 0, "{name}, seed {seed}: nothing was refused, which proves nothing");
}
