//! Log lines: where they go, how they look, how many there are. Always to stderr, since stdout belongs to results.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

use serde::{Deserialize, Serialize};
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::trace::{KeepIds, WithIds};
use crate::model::code::Code;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors; with the ids of the trace it belongs to.
    Json,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// A level (`error`, `warn`, `info`, `debug`, `trace`) or directives such as `warn,smsfleet::deliver=debug`.
    pub level: String,
    /// How the lines look.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig { level: "warn".into(), format: LogFormat::Text }
    }
}

/// Checks directives without installing anything; the text says what is wrong.
pub fn check(level: &str) -> Result<(), String> {
    EnvFilter::try_new(level).map(|_| ()).map_err(|error| error.to_string())
}

/// Libraries whose lines are never shown: one holds the numbers it is asked about, the other says of every second what
/// `runtime::trace` says once.
const TALKATIVE: [&str; 4] = ["rlibphonenumber", "opentelemetry", "opentelemetry_sdk", "opentelemetry_otlp"];

/// Whether a line may be written at all. Ours never hold numbers or texts; nobody can promise that of the details in
/// libraries' lines, so of them only warnings and errors are shown, at every level.
fn is_safe(line: &Metadata<'_>) -> bool {
    let of = |name: &str| line.target() == name || line.target().starts_with(&format!("{name}::"));
    of("smsfleet") || (*line.level() <= Level::WARN && !TALKATIVE.into_iter().any(of))
}

/// What is said of a panic: where it was, and its words when they are the program's own. Words that were put together may hold
/// what was worked on, as those of a text that was cut in the wrong place do.
fn panicked(panic: &PanicHookInfo<'_>) {
    let words = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("its words are not shown");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let trace = Backtrace::capture();
    let trace = if trace.status() == BacktraceStatus::Captured { format!("\n{trace}") } else { String::new() };
    tracing::error!(code = %Code::Internal, place, "a thread panicked: {words}{trace}");
}

/// Begins logging. The level named in the configuration is raised by `verbose` steps (`-v` is info, `-vv` debug, `-vvv`
/// trace) and lowered to errors by `quiet`. A second call in one process changes nothing.
pub fn start(config: &LogConfig, verbose: u8, quiet: bool, color: bool) -> Result<(), String> {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) => &config.level,
        (false, 1) => "info",
        (false, 2) => "debug",
        (false, _) => "trace",
    };
    let filter = EnvFilter::try_new(level).map_err(|error| error.to_string())?;
    std::panic::set_hook(Box::new(panicked));
    let registry = tracing_subscriber::registry().with(filter).with(filter_fn(is_safe));
    // The only failure is "there is one already", which tests and a second start in one process may do.
    let _ = match config.format {
        LogFormat::Text => {
            let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(color).with_target(false);
            registry.with(lines).try_init()
        }
        LogFormat::Json => {
            let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr);
            registry.with(KeepIds).with(lines.map_event_format(WithIds)).try_init()
        }
    };
    Ok(())
}
