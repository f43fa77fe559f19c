//! Layout: the rules of the house, checked.

mod interleavings;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Stages: they use ports, model and runtime, never another stage and never an adapter.
const STAGES: [&str; 11] =
    ["access", "batch", "coordinate", "prepare", "dispatch", "deliver", "receipts", "statistics", "links", "webhooks", "privacy"];

/// Crates that speak to the outside, and the places that may use each: one, unless what is spoken is a common tongue.
const CLIENTS: [(&str, &[&str]); 22] = [
    ("redb", &["src/adapters/embedded/engine"]),
    ("rusmpp", &["src/adapters/smpp"]),
    ("reqwest", &["src/adapters/http", "src/adapters/source/azure_table", "src/adapters/source/connector.rs"]),
    ("minijinja", &["src/prepare"]),
    ("rlibphonenumber", &["src/prepare"]),
    ("csv", &["src/adapters/source"]),
    ("encoding_rs", &["src/adapters/source"]),
    ("flate2", &["src/adapters/source"]),
    ("object_store", &["src/adapters/source"]),
    ("backoff", &["src/runtime/retry.rs"]),
    ("opentelemetry", &["src/runtime/trace"]),
    ("opentelemetry_sdk", &["src/runtime/trace"]),
    ("opentelemetry_otlp", &["src/runtime/trace"]),
    ("indicatif", &["src/cli"]),
    ("clap", &["src/cli"]),
    ("figment", &["src/roles"]),
    ("utoipa", &["src/serve"]),
    ("utoipa_axum", &["src/serve"]),
    ("rdkafka", &["src/adapters/kafka"]),
    ("scylla", &["src/adapters/scylla"]),
    ("openssl", &["src/adapters/scylla"]),
    ("deadpool_redis", &["src/adapters/redis"]),
];

/// All Rust files below `folder`, with their text.
fn files(folder: &str) -> Vec<(String, String)> {
    fn walk(path: &Path, found: &mut Vec<PathBuf>) {
        let mut entries: Vec<PathBuf> =
            std::fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
        entries.sort();
        for entry in entries {
            if entry.is_dir() {
                walk(&entry, found);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                found.push(entry);
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new(folder), &mut found);
    found.iter().map(|path| (path.display().to_string(), std::fs::read_to_string(path).expect("a text"))).collect()
}

/// A file's text without its tests, comments and strings of documentation.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or(text);
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn is_test(path: &str) -> bool {
    ["tests.rs", "_tests.rs", "fakes.rs"].iter().any(|end| path.ends_with(end)) || path.contains("/tests/")
}

/// The folders of `crate::` that a file names.
fn names(text: &str) -> BTreeSet<String> {
    code(text)
        .split("crate::")
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .collect()
}

#[test]
fn everybody_uses_only_whom_they_may() {
    let stages: BTreeSet<&str> = STAGES.into();
    let may = |part: &str, used: &str| match part {
        "model" => used == "model",
        "ports" => ["ports", "model"].contains(&used),
        "runtime" => ["runtime", "ports", "model"].contains(&used),
        "adapters" => ["adapters", "ports", "model", "runtime"].contains(&used),
        "serve" => stages.contains(used) || ["serve", "ports", "model", "runtime"].contains(&used),
        "simulator" => ["simulator", "model", "runtime"].contains(&used),
        stage if stages.contains(stage) => used == stage || ["ports", "model", "runtime"].contains(&used),
        _ => true,
    };
    let mut wrong = Vec::new();
    for (path, text) in files("src") {
        let part = path.trim_start_matches("src/").split('/').next().unwrap_or_default().to_owned();
        for used in names(&text) {
            if !is_test(&path) && !may(&part, &used) {
                wrong.push(format!("{path} uses {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn model_uses_nothing_but_std_and_serde() {
    let manifest = std::fs::read_to_string("Cargo.toml").expect("the manifest");
    let crates: Vec<String> = manifest
        .lines()
        .skip_while(|line| !line.starts_with("[dependencies]"))
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once('=').map(|(name, _)| name.trim().replace('-', "_")))
        .filter(|name| name != "serde")
        .collect();
    assert!(crates.len() > 20, "the manifest was read");
    for (path, text) in files("src/model") {
        for name in &crates {
            assert!(!code(&text).contains(&format!("{name}::")), "{path} uses {name}");
        }
    }
}

#[test]
fn each_client_library_lives_in_one_place() {
    let mut wrong = Vec::new();
    for (path, text) in files("src") {
        let code = code(&text);
        for (client, homes) in CLIENTS {
            let used = code
                .match_indices(&format!("{client}::"))
                .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'));
            if used && !homes.iter().any(|home| path.starts_with(home)) && path != "src/main.rs" && !is_test(&path) {
                wrong.push(format!("{path} uses {client}, which lives in {homes:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_file_is_long() {
    let mut lengths: BTreeMap<usize, String> = BTreeMap::new();
    for (path, text) in files("src").into_iter().filter(|(path, _)| !is_test(path)) {
        lengths.insert(text.lines().count(), path);
    }
    let (longest, path) = lengths.pop_last().expect("there are files");
    assert!(longest <= 500, "{path} has {longest} lines");
}

#[test]
fn every_folder_says_what_it_is_for() {
    for (path, text) in files("src") {
        assert!(text.starts_with("//!") || text.starts_with("#!["), "{path} does not begin with a sentence about itself");
        if path.ends_with("/mod.rs") && path.matches('/').count() == 2 && !is_test(&path) {
            assert!(text.lines().next().is_some_and(|line| line.len() > 20), "{path} says nothing");
        }
    }
}

#[test]
fn metrics_are_named_in_one_file() {
    for (path, text) in files("src") {
        if path != "src/runtime/metrics.rs" {
            for word in ["counter!(", "gauge!(", "histogram!("] {
                assert!(!code(&text).contains(word), "{path} makes a metric of its own");
            }
        }
    }
}

#[test]
fn whoever_tries_again_waits_by_the_one_schedule() {
    let homes = ["src/runtime/retry.rs", "src/model/schedule.rs"];
    for (path, text) in files("src").into_iter().filter(|(path, _)| !homes.contains(&path.as_str())) {
        assert!(!code(&text).contains("backoff_delay"), "{path} has delays of its own");
    }
}

#[test]
fn the_top_level_holds_nothing_else() {
    let allowed = ["Cargo.toml", "Cargo.lock", "src", "deploy", "helm", "benches", "tests", "README.md", "LICENSE", "target"];
    let ignored = std::fs::read_to_string(".gitignore").expect("a list of what git leaves out");
    for entry in std::fs::read_dir(".").expect("the repository") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name");
        // What running it leaves at the top level, and git is told by name to leave out, is no part of the repository.
        let left_out = ignored.lines().any(|line| line.trim_matches('/') == name && line.starts_with('/'));
        assert!(name.starts_with('.') || allowed.contains(&name.as_str()) || left_out, "{name} does not belong here");
    }
}
