//! The binary: the command line, and nothing else.

fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(smsfleet::cli::main())
}
