//! Results on standard output: for people, or as JSON.

use std::io::{self, Write};

use serde::Serialize;

use super::Global;
use crate::model::code::{Code, Fault};

/// Prints a result: as JSON when that was asked for, else as the text.
pub fn result<T: Serialize + ?Sized>(global: &Global, value: &T, text: impl FnOnce() -> String) -> Result<(), Fault> {
    let text = if global.json {
        let json = serde_json::to_string_pretty(value).map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
        format!("{json}\n")
    } else {
        text()
    };
    out(text.as_bytes())
}

/// Writes to standard output. A reader that has seen enough (`| head`) is no error.
pub fn out(bytes: &[u8]) -> Result<(), Fault> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Fault::new(Code::OutputFailed, error.to_string())),
        Ok(()) => Ok(()),
    }
}
