//! The one benchmark binary: prints the figures of the README. `cargo bench` runs everything; `cargo bench -- delivery`
//! runs the benches whose name contains the word, and a number behind it sets the number of recipients.

mod bare;
mod cql;
mod delivery;
mod fleet;
mod links;
mod load;
mod memory;
mod prepare;
mod service;
mod sources;
mod support;

/// As the binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A bench: takes the number of recipients, or `None` for its own.
type Bench = fn(Option<u64>);

fn main() {
    let mut words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let size = words.iter().position(|word| word.parse::<u64>().is_ok()).map(|at| words.remove(at));
    let size = size.and_then(|word| word.parse().ok());
    if std::env::var_os("BENCH_LOG").is_some() {
        tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    }
    // Processes of their own for one measurement, started by the bench of memory.
    match words.first().map(String::as_str) {
        Some("one-batch") => return memory::one_batch(size),
        Some("simulator-alone") => return memory::simulator_alone(),
        _ => {}
    }
    let parts: &[(&str, Bench)] = &[
        ("prepare: its parts", |_| prepare::run()),
        ("sources: files and objects", sources::run),
        ("links: opened codes", links::run),
        ("cql: packs through the ports, against the bare driver", cql::run),
        ("service: reads, watchers, pauses and receipts while it sends", |size| service::run(size.unwrap_or(8_000_000))),
        ("load: 50 batches at once, 200 callbacks in flight, and reads", |size| load::run(size.unwrap_or(2_000_000))),
        ("fleet: processes over real servers", fleet::run),
    ];
    for (name, bench) in parts.iter().chain(delivery::BENCHES) {
        if words.is_empty() || words.iter().any(|word| name.contains(word.as_str())) {
            println!("\n{name}");
            bench(size);
        }
    }
}
