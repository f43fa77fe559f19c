//! All benches in one binary: `cargo bench`, or `cargo bench -- NAME` for one of them.

mod prepare;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if wanted.is_empty() || wanted.iter().any(|name| name == "prepare") {
        prepare::run();
    }
}
