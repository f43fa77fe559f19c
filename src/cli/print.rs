//! Results on standard output: for people, or as JSON.

use std::io::{self, Write};

use serde::Serialize;

use super::Global;
use crate::model::code::{Code, Fault};
use crate::serve::client::Client;

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

/// Writes an answer to standard output as it comes in. A reader that has seen enough is no error here either.
pub async fn streamed(client: &Client, path: &str) -> Result<(), Fault> {
    let mut out = io::BufWriter::with_capacity(1 << 16, io::stdout());
    let mut closed = false;
    let mut noted = |written: io::Result<()>| {
        closed |= written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        written
    };
    let came = client.stream(path, |piece| noted(out.write_all(&piece))).await;
    let flushed = noted(out.flush());
    if closed {
        return Ok(());
    }
    came?;
    flushed.map_err(|error| Fault::new(Code::OutputFailed, error.to_string()))
}

/// A list that comes in pages: as JSON one array over all of them, else the texts of the pages one after the other.
pub struct Pages {
    json: bool,
    shown: usize,
}

impl Pages {
    /// A list of which nothing was printed yet.
    pub fn new(global: &Global) -> Pages {
        Pages { json: global.json, shown: 0 }
    }

    /// Prints a page. One without rows is nothing to show: the next may have some.
    pub fn page<T: Serialize>(&mut self, rows: &[T], text: impl FnOnce() -> String) -> Result<(), Fault> {
        let text = if self.json { self.rows(rows)? } else { text() };
        if !rows.is_empty() {
            self.shown += rows.len();
            out(text.as_bytes())?;
        }
        Ok(())
    }

    fn rows<T: Serialize>(&self, rows: &[T]) -> Result<String, Fault> {
        let mut text = String::new();
        for (at, row) in rows.iter().enumerate() {
            text.push_str(if self.shown + at == 0 { "[\n" } else { ",\n" });
            text += &serde_json::to_string_pretty(row).map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
        }
        Ok(text)
    }

    /// Ends the list; `nothing` is what people read of one without rows.
    pub fn end(self, nothing: &str) -> Result<(), Fault> {
        out(self.last(nothing).as_bytes())
    }

    fn last<'a>(&self, nothing: &'a str) -> &'a str {
        match (self.json, self.shown) {
            (true, 0) => "[]\n",
            (true, _) => "\n]\n",
            (false, 0) => nothing,
            (false, _) => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_one_list() {
        let lists: [&[&[i32]]; 3] = [&[&[1, 2], &[], &[3]], &[&[]], &[&[], &[7]]];
        for pages in lists {
            let (mut list, mut text) = (Pages { json: true, shown: 0 }, String::new());
            for page in pages {
                text += &list.rows(page).expect("numbers are JSON");
                list.shown += page.len();
            }
            text += list.last("nothing");
            let read: Vec<i32> = serde_json::from_str(&text).expect("one document");
            assert_eq!(read, pages.concat());
        }
        assert_eq!(Pages { json: false, shown: 0 }.last("nothing"), "nothing");
        assert_eq!(Pages { json: false, shown: 1 }.last("nothing"), "");
    }
}
