//! A whole fleet with its network surface inside the test's own process, and a client of a few lines.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use smsfleet::model::batch::{BatchRow, SmsBatch};
use smsfleet::model::id::BatchId;
use smsfleet::roles::config::Config;
use smsfleet::roles::surface::Holding;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::fixture::DEADLINE;

/// An address that was free a moment ago.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// A configuration from TOML, with its data in `folder`.
pub fn config(folder: &Path, text: &str) -> Config {
    let config: Config = toml::from_str(text).expect("the configuration is right");
    Config { data_dir: folder.join("data"), ..config }
}

/// Creates a batch from JSON fields over the defaults, and waits until it is sealed.
pub async fn sealed(fleet: &Holding, key: &str, change: impl FnOnce(&mut SmsBatch)) -> BatchId {
    let mut batch: SmsBatch = serde_json::from_value(serde_json::json!({
        "batch_id": "0".repeat(32), "tenant": "t", "table_name": "", "campaign_id": "", "campaign_name": "",
        "marketing_program_id": "", "task_id": "", "content_id": "", "content": "Hello {{name}}",
        "content_signature": "", "url": null, "link_base": "", "auto_trigger": false, "schedule_time": null,
        "not_after": null, "late_start": "hold", "ext_code": "", "provider_type": "main", "on_uncertain": "hold",
        "priority": 5, "number_column": null, "default_region": "CN", "min_recipients_per_lane": 5000,
    }))
    .expect("a batch");
    change(&mut batch);
    let service = &fleet.embedded.service;
    let id = service.create(key, batch).await.expect("it is created").batch;
    service.entry_process(id).await.expect("it begins");
    wait(fleet, id, |row| row.sealed.is_some() || row.step().state.is_final()).await;
    id
}

/// Waits until a batch is as it is wanted.
pub async fn wait(fleet: &Holding, id: BatchId, wanted: impl Fn(&BatchRow) -> bool) -> BatchRow {
    let begun = Instant::now();
    loop {
        let row = fleet.embedded.service.load(id).await.expect("it is there").row;
        if wanted(&row) {
            return row;
        }
        assert!(begun.elapsed() < DEADLINE, "it never came: {:?} {:?}", row.step(), row.settlement);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// One request; answers the status, the headers in lower case, and the body.
pub async fn request(at: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(at).await.expect("somebody listens");
    let length = body.len();
    let text =
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
    stream.write_all(text.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (status, head.to_lowercase(), body.to_owned())
}
