//! Through a message centre that this project did not write: npm `smpp` sees each number once, and the texts as asked.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::fixture::{Place, Running, count, number};

/// Rows of the list.
const ROWS: u64 = 300;

#[test]
fn a_message_centre_of_others_gets_every_text_once() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/endtoend/smsc");
    assert!(folder.join("node_modules/smpp").exists(), "npm smpp is not installed: run tests/run, which installs it");
    let node = Command::new("node").arg("server.mjs").current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut node = node.expect("Node.js is installed: see tests/run");
    let stdin = node.stdin.take();
    let mut said = BufReader::new(node.stdout.take().expect("it is piped"));
    let running = Running::of(node);
    let mut port = String::new();
    said.read_line(&mut port).expect("it says its port");

    let place = Place::new(port.trim().parse().expect("a port"), 500);
    let texts: Vec<String> = (0..ROWS).map(text).collect();
    let rows = texts.iter().zip(0..).map(|(text, row)| format!("+{},\"{text}\"\n", number(row)));
    place.write("list.csv", std::iter::once("phone,text\n".to_owned()).chain(rows).collect::<String>());
    let report = place.run(&["send", "--recipients", "list.csv", "--template", "{{text}}", "--account", "main", "--json"]);
    let report = report.ended(0).json();
    assert_eq!(count(&report, "/settlement/outcomes/accepted"), ROWS, "{report}");
    assert_eq!(count(&report, "/settlement/deliveries/delivered"), ROWS, "{report}");

    drop(stdin);
    let mut rest = String::new();
    said.read_to_string(&mut rest).expect("it says what it got");
    drop(running);
    let got: Value = serde_json::from_str(&rest).unwrap_or_else(|error| panic!("{error} in {} octets: {rest}", rest.len()));
    assert_eq!((count(&got, "/numbers"), count(&got, "/messages")), (ROWS, ROWS));
    assert_eq!((count(&got, "/repeated"), count(&got, "/unfinished")), (0, 0));
    assert_eq!(count(&got, "/parts"), count(&report, "/settlement/segments"), "it was told of as many parts as it took");
    assert!(count(&got, "/parts") > ROWS + 100, "some are long");
    for (text, row) in texts.iter().zip(0..) {
        assert_eq!(got["texts"][number(row).to_string()].as_str(), Some(text.as_str()), "row {row}");
    }
}

/// Every alphabet, short and long.
fn text(row: u64) -> String {
    match row % 6 {
        0 => format!("Hello {row}, your table is ready. €5 [now] @ home é"),
        1 => format!("您好{row}，您的包裹今天到达。"),
        2 => format!("Party {row} 🎉👨\u{200D}👩\u{200D}👧 at 8"),
        3 => format!("{row}: {}", "a long text in the default alphabet {with} extensions; ".repeat(5)),
        4 => format!("{row}：{}", "一条很长的消息，".repeat(20)),
        _ => format!("{row} {}", "😀🚀".repeat(40)),
    }
}
