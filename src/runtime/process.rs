//! What the system says of this process, for its metrics. Only Linux says it under these names; elsewhere the numbers are missing.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{metrics, pulse};

/// Ticks of a second in which Linux tells processor time to programs, on every machine.
const TICKS_PER_SECOND: u64 = 100;

fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Notes when this process began to count.
pub(super) fn begin() {
    static STARTED: OnceLock<f64> = OnceLock::new();
    metrics::set(&metrics::PROCESS_STARTED, &[], *STARTED.get_or_init(unix_now));
}

/// Sets the metrics of this process as it is now.
pub(super) fn measure() {
    metrics::set(&metrics::PROCESS_CLOCK, &[], unix_now());
    metrics::set(&metrics::PROCESS_SILENCE, &[], pulse::of_process().longest_silence() as f64);
    let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    if let Some(bytes) = resident_bytes(&read("status")) {
        metrics::set(&metrics::PROCESS_MEMORY, &[], bytes as f64);
    }
    if let Some(milliseconds) = cpu_milliseconds(&read("stat")) {
        metrics::count_to(&metrics::PROCESS_CPU, &[], milliseconds);
    }
    if let Some(most) = open_files_limit(&read("limits")) {
        metrics::set(&metrics::PROCESS_FILES_MAX, &[], most as f64);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        metrics::set(&metrics::PROCESS_FILES, &[], open.count() as f64);
    }
}

/// Of `/proc/self/status`.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Of `/proc/self/stat`: the program's name, in brackets, may hold anything, so fields count from behind it.
fn cpu_milliseconds(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * 1_000 / TICKS_PER_SECOND)
}

/// Of `/proc/self/limits`; `None` where there is no limit.
fn open_files_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_read() {
        assert_eq!(resident_bytes("Name:\tsmsfleet\nVmRSS:\t   2048 kB\nThreads:\t3\n"), Some(2_097_152));
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 3 0 1 1 1";
        assert_eq!(cpu_milliseconds(stat), Some(2_000));
        assert_eq!(open_files_limit("Max open files            1024                 524288               files\n"), Some(1_024));
        assert_eq!((resident_bytes(""), cpu_milliseconds(""), open_files_limit("")), (None, None, None));
    }
}
