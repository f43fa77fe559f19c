//! Object stores that this project did not write: an S3 server (npm `s3rver`) and an Azure Blob server (npm `azurite`). The
//! XML protocol of GCS is near enough to S3's that its client reads from the same server; its own server there is none of.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;

use base64::Engine;
use bytes::Bytes;
use futures::{StreamExt, stream};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::{ObjectStore, ObjectStoreExt};
use smsfleet::adapters::secret::Secret;
use smsfleet::adapters::secure;
use smsfleet::adapters::source::{BucketUploads, ListSource, ObjectStoreConfig, ObjectStores, StoreKind};
use smsfleet::model::code::Code;
use smsfleet::model::record::Record;
use smsfleet::ports::source::{Source, SourceSpec};
use smsfleet::ports::uploads::Uploads;

use super::{fault_of, files_in, shown};

/// A server in a process of its own, which ends when this is dropped.
struct Server {
    child: Child,
    input: Option<ChildStdin>,
    port: u16,
}

impl Server {
    fn start(script: &str, environment: &[(&str, &str)]) -> Server {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sources/servers");
        assert!(
            folder.join("node_modules/azurite").exists(),
            "the servers are not installed: run tests/run, which installs them"
        );
        let mut command = Command::new("node");
        command.arg(script).current_dir(folder).envs(environment.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("Node.js is installed: see tests/run");
        let input = child.stdin.take();
        let mut port = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut port).expect("it says its port");
        let port = port.trim().parse().unwrap_or_else(|_| panic!("{script} did not start"));
        Server { child, input, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It tidies up and ends when its input does; a server that is stuck is ended all the same.
        drop(self.input.take());
        let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) && std::time::Instant::now() < until {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a bucket is reached with.
fn source(folder: &Path, config: &ObjectStoreConfig) -> (ListSource, ObjectStores) {
    let stores = ObjectStores::new(&BTreeMap::from([("main".to_string(), config.clone())])).expect("stores");
    (ListSource::new(folder.join("spool")).with_objects(stores.clone()), stores)
}

fn at(table_name: &str) -> SourceSpec {
    SourceSpec { table_name: table_name.to_string(), ..SourceSpec::default() }
}

async fn read(source: &ListSource, spec: &SourceSpec, range_records: u32) -> Vec<Record> {
    let plan = source.plan(spec, range_records).await.unwrap_or_else(|fault| panic!("{}: {fault}", spec.table_name));
    let mut found = vec![];
    for range in &plan.ranges {
        let mut reader = source.open(spec, &plan, range).await.expect("the planned list");
        loop {
            let records = reader.read(1_000).await.expect("records");
            if records.is_empty() {
                break;
            }
            found.extend(records);
        }
    }
    found
}

async fn put(writer: &dyn ObjectStore, key: &str, bytes: Vec<u8>) {
    writer.put(&key.into(), bytes.into()).await.expect("it is written");
}

/// What every store must do: plain and compressed objects, folders, changes, absent objects, denied access, uploads.
async fn exercise(config: &ObjectStoreConfig, scheme: &str, writer: Arc<dyn ObjectStore>, wrong: &ObjectStoreConfig) {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, stores) = source(folder.path(), config);
    // Longer than several requests of the reader.
    let rows = 400_000;
    let text = |from: usize, rows: usize| -> String {
        std::iter::once("phone,name\n".to_string()).chain((from..from + rows).map(|n| format!("{n},name number {n}\n"))).collect()
    };
    put(&*writer, "in/big file.csv", text(0, rows).into_bytes()).await;
    let spec = at(&format!("{scheme}://lists/in/big file.csv"));
    let found = read(&source, &spec, 70_000).await;
    assert_eq!(found.len(), rows);
    assert!(found.iter().enumerate().all(|(n, record)| shown(record) == format!("{}: {n}|name number {n}", n + 2)));

    put(&*writer, "parts/1.csv", text(0, 2).into_bytes()).await;
    put(&*writer, "parts/2.csv.zst", zstd::encode_all(text(2, 3).as_bytes(), 1).expect("zstd")).await;
    put(&*writer, "parts/below/3.csv", b"other\n1\n".to_vec()).await;
    let parts = at(&format!("{scheme}://lists/parts/"));
    assert_eq!(read(&source, &parts, 1).await.len(), 5);
    assert_eq!(files_in(&folder.path().join("spool")).len(), 1, "the compressed one is copied");

    let plan = source.plan(&parts, 1).await.expect("a plan");
    put(&*writer, "parts/0.csv", text(9, 1).into_bytes()).await;
    fault_of(source.open(&parts, &plan, &plan.ranges[0]).await.map(|_| ()), Code::SourceChanged, "0.csv was added");

    // One range of more bytes than are fetched ahead: the rest comes after the change.
    let plan = source.plan(&spec, 1_000_000).await.expect("a plan");
    let mut reader = source.open(&spec, &plan, &plan.ranges[0]).await.expect("the planned list");
    assert_eq!(reader.read(10).await.expect("records").len(), 10);
    put(&*writer, "in/big file.csv", text(1, rows).into_bytes()).await;
    fault_of(source.open(&spec, &plan, &plan.ranges[0]).await.map(|_| ()), Code::SourceChanged, "planned");
    let rest = async {
        while !reader.read(10_000).await?.is_empty() {}
        Ok(())
    };
    fault_of(rest.await, Code::SourceChanged, "planned");

    fault_of(source.plan(&at(&format!("{scheme}://lists/none.csv")), 1).await, Code::SourceNotFound, "none.csv");
    fault_of(source.plan(&at(&format!("{scheme}://lists/none/")), 1).await, Code::SourceEmpty, "no file");
    let (denied, _) = self::source(folder.path(), wrong);
    let fault = denied.plan(&spec, 1).await.expect_err("the key is wrong");
    assert!(fault.code == Code::SourceNotFound && fault.context.contains("object_stores.main"), "{fault}");
    assert!(!fault.context.contains(wrong.secret.expose()), "a secret is shown");

    let uploads = BucketUploads::new(&stores, &format!("{scheme}://lists/uploads/"), 64 << 20).expect("a place");
    let source = source.with_uploads_in_bucket(&uploads);
    // One request, and several.
    for rows in [3, 900_000] {
        let bytes = Bytes::from(text(0, rows));
        let pieces: Vec<_> = bytes.chunks(1 << 20).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let uploaded = uploads.put(stream::iter(pieces.clone()).boxed(), None, None).await.expect("it is kept");
        assert_eq!(uploaded.bytes, bytes.len() as u64);
        assert_eq!(uploads.list().await.map(|list| list.len()), Ok(1), "nothing half is listed");
        fault_of(uploads.put(stream::iter(pieces).boxed(), Some("0"), None).await, Code::UploadBroken, "SHA-256");
        assert_eq!(source.plan(&at(&uploaded.table_name), 100_000).await.expect("a plan").records, rows as u64);
        assert_eq!(uploads.delete(&uploaded.upload_id).await, Ok(true));
        assert_eq!(uploads.list().await, Ok(vec![]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_s3_server() {
    let server = Server::start("s3.mjs", &[]);
    let config = ObjectStoreConfig {
        buckets: vec!["lists".into()],
        endpoint: format!("http://127.0.0.1:{}", server.port),
        access_key_id: "S3RVER".into(),
        secret: Secret::new("S3RVER"),
        allow_http: true,
        ..ObjectStoreConfig::default()
    };
    secure::install();
    let writer = AmazonS3Builder::new()
        .with_bucket_name("lists")
        .with_endpoint(&config.endpoint)
        .with_allow_http(true)
        .with_access_key_id("S3RVER")
        .with_secret_access_key("S3RVER")
        .build()
        .expect("a client");
    // This server knows access keys and does not compute signatures of version 4; Azure's below checks signatures.
    let wrong = ObjectStoreConfig { access_key_id: "NOBODY".into(), secret: Secret::new("not-this-one"), ..config.clone() };
    exercise(&config, "s3", Arc::new(writer), &wrong).await;

    // The client of GCS against the same server: unsigned, XML, ranges.
    let gcs = ObjectStoreConfig { kind: StoreKind::Gcs, anonymous: true, ..config.clone() };
    let folder = tempfile::tempdir().expect("a folder");
    let (source, _) = source(folder.path(), &gcs);
    assert_eq!(read(&source, &at("gs://lists/parts/"), 2).await.len(), 6);
    fault_of(source.plan(&at("gs://lists/none.csv"), 1).await, Code::SourceNotFound, "none.csv");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_azure_blob_server() {
    // A key of this run only.
    let key = base64::engine::general_purpose::STANDARD.encode([7u8; 64]);
    let server = Server::start("blob.mjs", &[("AZURITE_ACCOUNTS", &format!("smstest:{key}"))]);
    let config = ObjectStoreConfig {
        kind: StoreKind::Azure,
        buckets: vec!["lists".into()],
        endpoint: format!("http://127.0.0.1:{}/smstest", server.port),
        account: "smstest".into(),
        secret: Secret::new(key.clone()),
        allow_http: true,
        ..ObjectStoreConfig::default()
    };
    secure::install();
    let writer = MicrosoftAzureBuilder::new()
        .with_account("smstest")
        .with_access_key(&key)
        .with_endpoint(config.endpoint.clone())
        .with_container_name("lists")
        .with_allow_http(true)
        .build()
        .expect("a client");
    make_container(&server, &key).await;
    let wrong =
        ObjectStoreConfig { secret: Secret::new(base64::engine::general_purpose::STANDARD.encode([8u8; 64])), ..config.clone() };
    exercise(&config, "az", Arc::new(writer), &wrong).await;
}

/// Azure has no client call for it in the library: a signed request by hand.
async fn make_container(server: &Server, key: &str) {
    use hmac::{KeyInit, Mac};
    let date = "Mon, 01 Jan 2024 00:00:00 GMT";
    let signed = format!(
        "PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:2021-12-02\n/smstest/smstest/lists\nrestype:container"
    );
    let raw = base64::engine::general_purpose::STANDARD.decode(key).expect("a key");
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&raw).expect("any length");
    mac.update(signed.as_bytes());
    let signature = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
    let request = format!(
        "PUT /smstest/lists?restype=container HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nx-ms-date: {date}\r\nx-ms-version: 2021-12-02\r\n\
         Authorization: SharedKey smstest:{signature}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        server.port
    );
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", server.port)).await.expect("it listens");
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("answered");
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}
