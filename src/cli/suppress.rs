//! The list of those who get nothing, filled from files.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::args::SuppressArgs;
use super::{Global, exit, print, render};
use crate::model::code::{Code, Fault};
use crate::model::id::Msisdn;
use crate::roles::config::Config;
use crate::roles::embedded::Opened;

/// Numbers stored at once.
const BATCH: usize = 10_000;
/// Bytes of one line at most.
const LINE_MAX: u64 = 1_000;

/// Adds or removes the numbers of a file. A line that holds no number is refused with its place, before anything changes.
pub async fn suppress(global: &Global, config: &Config, args: &SuppressArgs) -> Result<u8, Fault> {
    let path = args.file.clone();
    let numbers = tokio::task::spawn_blocking(move || {
        if path == Path::new("-") {
            return read(std::io::stdin().lock());
        }
        let file = std::fs::File::open(&path)
            .map_err(|error| Fault::new(Code::SourceNotFound, format!("{} cannot be opened: {error}", path.display())))?;
        read(file)
    });
    let numbers = numbers.await.map_err(|error| Fault::new(Code::Internal, error.to_string()))??;
    let opened = Opened::open(config).await?;
    let list = &opened.stores.suppressions;
    for chunk in numbers.chunks(BATCH) {
        let stored = if args.remove { list.remove(chunk).await } else { list.add(chunk).await };
        stored.map_err(Fault::from)?;
    }
    let count = list.count().await.map_err(Fault::from)?;
    opened.store.close();
    let value = serde_json::json!({ "read": numbers.len(), "removed": args.remove, "suppressed": count });
    print::result(global, &value, || {
        let what = if args.remove { "removed" } else { "added" };
        format!("{} numbers {what}; {} get nothing\n", render::grouped(numbers.len() as u64), render::grouped(count))
    })?;
    Ok(exit::SETTLED)
}

fn read(input: impl Read) -> Result<Vec<Msisdn>, Fault> {
    let mut lines = BufReader::new(input);
    let (mut numbers, mut line, mut at) = (vec![], String::new(), 0u64);
    loop {
        line.clear();
        at += 1;
        let bytes = lines.by_ref().take(LINE_MAX).read_line(&mut line);
        let bytes = bytes.map_err(|error| Fault::new(Code::InputInvalid, format!("line {at} cannot be read: {error}")))?;
        if bytes == 0 {
            return Ok(numbers);
        }
        let text = line.trim().trim_start_matches('\u{feff}');
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let digits: String = text.chars().filter(|c| !matches!(c, '+' | ' ' | '-' | '(' | ')' | '.')).collect();
        let fits = (7..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        match digits.parse() {
            Ok(number) if fits => numbers.push(Msisdn(number)),
            _ => return Err(Fault::new(Code::InputInvalid, format!("line {at} is no number with its country code"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_anything_else_is_refused_with_its_line() {
        let numbers = read("\u{feff}+8613800138000\r\n\n# comment\n49 151-123 45678\n".as_bytes()).expect("numbers");
        assert_eq!(numbers, [Msisdn(8_613_800_138_000), Msisdn(4_915_112_345_678)]);
        for wrong in ["name\n", "+86138\n", "0138001380001\n"] {
            let fault = read(format!("+8613800138000\n{wrong}").as_bytes()).expect_err("no number");
            assert!(fault.context.starts_with("line 2 "), "{}", fault.context);
        }
    }
}
