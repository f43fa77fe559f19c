//! The fuzz package, held to the list of targets. `tests/run` builds and lints it with the rest of the workspace.

use std::collections::BTreeSet;
use std::path::Path;

use super::targets::TARGETS;
use super::{CORPUS, RUN, seeds};

/// Bytes of all seeds of a target at most.
const CORPUS_BYTES_MAX: usize = 32 * 1024;
/// Seeds of a target at most.
const SEEDS_MAX: usize = 24;

fn names_in(folder: &Path, end: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.expect("an entry").file_name().into_string().expect("a name");
    entries.map(name).filter_map(|name| name.strip_suffix(end).map(str::to_owned)).collect()
}

fn toml(path: &str) -> toml::Table {
    std::fs::read_to_string(path).expect("it is there").parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn every_target_is_run_has_seeds_and_is_a_binary_of_the_fuzz_package() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(targets.len(), TARGETS.len(), "a name is given once");
    assert_eq!(RUN.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(), targets, "all of them are run here");
    assert_eq!(names_in(Path::new("tests/fuzz/fuzz_targets"), ".rs"), targets);
    assert_eq!(names_in(Path::new(CORPUS), ""), targets);
    let manifest = toml("tests/fuzz/Cargo.toml");
    let bins = manifest["bin"].as_array().expect("binaries");
    let named = |key: &str| bins.iter().map(|bin| bin[key].as_str().expect("a text").to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(named("name"), targets);
    assert_eq!(named("path"), targets.iter().map(|name| format!("fuzz_targets/{name}.rs")).collect());
}

#[test]
fn a_fuzz_binary_calls_one_target_and_does_nothing_else() {
    for name in names_in(Path::new("tests/fuzz/fuzz_targets"), ".rs") {
        let text = std::fs::read_to_string(format!("tests/fuzz/fuzz_targets/{name}.rs")).expect("it is there");
        let call = text.lines().nth(3).and_then(|line| line.trim().strip_suffix("(input);")).unwrap_or_default();
        let expected = format!("#![no_main]\n\nlibfuzzer_sys::fuzz_target!(|input: &[u8]| {{\n    {call}(input);\n}});\n");
        assert_eq!(text, expected);
        // The list of targets names the function that is called.
        let list = include_str!("../fuzz/targets/mod.rs");
        let function = call.strip_prefix("targets::").unwrap_or_default();
        assert!(list.contains(&format!("target(\"{name}\", {function}, ")), "{name} calls {function}");
    }
}

#[test]
fn corpora_stay_small() {
    for target in TARGETS {
        let seeds = seeds(target.name);
        let bytes: usize = seeds.iter().map(Vec::len).sum();
        assert!((1..=SEEDS_MAX).contains(&seeds.len()), "{}: {} seeds", target.name, seeds.len());
        assert!(bytes <= CORPUS_BYTES_MAX, "{}: {bytes} bytes", target.name);
    }
}
