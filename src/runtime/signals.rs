//! Signals as tokens: the first asks to stop in order, the second ends the process at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::task;

/// The exit code of a process that a second signal ended: shells show 130 for SIGINT.
pub const INTERRUPTED: i32 = 130;

/// Listens for SIGTERM and SIGINT. The first cancels `stop` after calling `told` with the signal's name, so that a person at
/// a terminal knows what happens now; the second ends the process without any further ceremony: everything durable is durable,
/// and what was handed over without an answer is judged at the next start. Fails when the process may not listen.
pub fn listen<F>(stop: CancellationToken, told: F) -> std::io::Result<tokio::task::JoinHandle<()>>
where
    F: Fn(&'static str) + Send + 'static,
{
    let terminate = signal(SignalKind::terminate())?;
    let interrupt = signal(SignalKind::interrupt())?;
    Ok(task::spawn("signals", watch(terminate, interrupt, stop, told)))
}

async fn watch<F: Fn(&'static str)>(mut terminate: Signal, mut interrupt: Signal, stop: CancellationToken, told: F) {
    let name = tokio::select! {
        biased;
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    told(name);
    stop.cancel();
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    std::process::exit(INTERRUPTED);
}
