//! Configurations: the file, the environment and the flags, wrong in any way. What is wrong names its key and its place, and no
//! secret is ever shown.

use std::time::{Duration, Instant};

use serde_json::Value;
use smsfleet::adapters::system::SystemClock;
use smsfleet::roles::config_load::{Sources, load};

use super::is_reason;

/// A word that stands in values of secret keys.
const SECRET: &str = "Geheimwort";
/// The last words of those keys.
const SECRET_KEYS: [&str; 4] = ["password", "token", "secret", "sas"];
/// Keys of numbers with a fraction that are no durations.
const NO_DURATIONS: [&str; 4] = ["price", "not_after", "sample", "recipients"];
/// What parts the file from the rest.
const REST: &str = "\n----\n";

/// The file; behind a line of four dashes a variable or a flag a line, as `NAME=VALUE` or `--KEY=VALUE`.
pub fn config(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input);
    // Files that never end, and the other files of this machine, are the operator's to name.
    if text.contains("/dev") || text.contains("/proc") || text.contains("_file") {
        return false;
    }
    let (file, rest) = text.split_once(REST).unwrap_or((&text, ""));
    let is_hidden = |shown: &str| !is_a_secret(&text) || !shown.contains(SECRET);
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let (flags, environment) = rest.lines().partition::<Vec<&str>, _>(|line| line.starts_with("--"));
    let environment = environment.into_iter().filter_map(pair).collect();
    let flags = flags.into_iter().filter_map(|line| pair(&line[2..])).collect();
    FOLDER.with(|folder| {
        let path = folder.path().join("smsfleet.toml");
        std::fs::write(&path, file).expect("the file is written");
        match load(&Sources { file: Some(path.clone()), environment, flags }) {
            Ok(loaded) => {
                for (key, text) in loaded.config.check(&SystemClock) {
                    assert!(!key.is_empty() && !text.is_empty() && is_hidden(&text), "{key}: {text}");
                }
                assert!(is_hidden(&format!("{:?}", loaded.config)), "a configuration that is shown hides its secrets");
                let written = serde_json::to_value(&loaded.config).expect("it is written");
                assert!(wait_for_all("", &written) > 0, "durations are written as numbers with a fraction");
                true
            }
            Err(problems) => {
                assert!((1..=101).contains(&problems.len()), "{} problems", problems.len());
                let places = [path.display().to_string(), "environment".into(), "command line".into(), "configuration".into()];
                for problem in &problems {
                    assert!(places.contains(&problem.place), "{problem:?}");
                    assert!(is_reason(&problem.text), "{problem:?}");
                    assert!(!problem.key.is_empty() || problem.place == places[0] || problem.place == places[3], "{problem:?}");
                    assert!(is_hidden(&problem.to_string()), "a problem shows a secret: {problem:?}");
                }
                false
            }
        }
    })
}

/// Waits for each duration of a configuration, as whoever uses it will, and counts them: they are the numbers with a fraction that
/// mean nothing else. One that ends behind the clock panics.
fn wait_for_all(key: &str, value: &Value) -> usize {
    match value {
        Value::Object(inner) => inner.iter().map(|(key, value)| wait_for_all(key, value)).sum(),
        Value::Number(number) if number.is_f64() && !NO_DURATIONS.contains(&key) => {
            let seconds = number.as_f64().expect("it was just asked");
            let _ = Instant::now() + Duration::try_from_secs_f64(seconds).expect("a duration is one") * 4;
            1
        }
        _ => 0,
    }
}

/// Whether the word stands behind secret keys only. A mutation may have put it into another value, which may be shown.
fn is_a_secret(text: &str) -> bool {
    let behind_secret_key = |line: &str| {
        let key = line.split('=').next().unwrap_or_default().trim();
        let last = key.rsplit(['.', '_', '-']).next().unwrap_or_default().to_ascii_lowercase();
        SECRET_KEYS.contains(&last.as_str())
    };
    let texts_end_with_their_line = !text.contains("\"\"\"") && !text.contains("'''") && !text.contains("statuses");
    texts_end_with_their_line && text.lines().filter(|line| line.contains(SECRET)).all(behind_secret_key)
}

thread_local! {
    static FOLDER: tempfile::TempDir = tempfile::tempdir().expect("a folder");
}
