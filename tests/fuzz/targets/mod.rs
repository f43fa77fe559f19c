//! Everything that comes from outside, or out of a store or a queue, as functions of octets.
//!
//! A target is given any octets at all and panics when a promise is broken: what is read is within its limits, reads back as it
//! was written and keeps its secrets; what is not read is refused with a code and a short reason. It answers whether it read
//! something, so that whoever runs it can tell a run that proved nothing. A few functions here run the very code that a server's
//! process runs; none of them knows who calls: `tests/properties` does with thousands of mutations, `cargo fuzz` for hours.
//!
//! A target of its own needs: a function, a line in [`TARGETS`], a file of two lines in `fuzz_targets`, a `[[bin]]` in
//! `Cargo.toml`, and some small seeds in `corpus`. A test compares the lists.

pub mod config;
pub mod documents;
pub mod http;
pub mod input;
pub mod queue;
pub mod receipts;
pub mod records;
pub mod rows;
pub mod sealed;
pub mod session;
pub mod smpp;
pub mod store;
pub mod tables;
pub mod templates;

/// One of them.
#[derive(Clone, Copy)]
pub struct Target {
    /// The name of its file in `fuzz_targets`, and of its folder in `corpus`.
    pub name: &'static str,
    /// Runs it once; whether something was read.
    pub run: fn(&[u8]) -> bool,
    /// Mutations that the property test tries: fewer where a run needs files or connections.
    pub mutations: u32,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    target("csv", records::csv, 1_000),
    target("json_lines", records::json_lines, 1_000),
    target("lists", records::lists, 500),
    target("plans", records::plans, 500),
    target("azure", tables::azure, 400),
    target("templates", templates::template, 3_000),
    target("receipts", receipts::receipt, 5_000),
    target("pdus", smpp::pdus, 10_000),
    target("session", session::session, 400),
    target("http_answers", http::answers, 10_000),
    target("http_pushes", http::pushes, 10_000),
    target("rows", rows::rows, 6_000),
    target("blocks", rows::blocks, 2_000),
    target("control_rows", rows::control_rows, 10_000),
    target("sealed", sealed::sealed, 3_000),
    target("queue", queue::queue, 10_000),
    target("store", store::store, 10_000),
    target("documents", documents::documents, 3_000),
    target("config", config::config, 500),
];

const fn target(name: &'static str, run: fn(&[u8]) -> bool, mutations: u32) -> Target {
    Target { name, run, mutations }
}

/// A reason for people: there is one, and it is no copy of what was read.
fn is_reason(text: &str) -> bool {
    !text.is_empty() && text.len() <= 2_000
}
