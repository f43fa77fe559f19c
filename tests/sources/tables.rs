//! Tables of a server that this project did not write: Azurite.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use smsfleet::adapters::secret::Secret;
use smsfleet::adapters::secure;
use smsfleet::adapters::source::{AzureTableConfig, AzureTables, ListSource};
use smsfleet::adapters::system::{SeededChance, SystemClock};
use smsfleet::model::code::Code;
use smsfleet::model::record::Record;
use smsfleet::ports::World;
use smsfleet::ports::source::{Source, SourceSpec};

use super::fault_of;
use crate::servers;

/// A table of this run only. It goes when the test has ended well; another run never meets it.
struct Table {
    http: reqwest::Client,
    account: String,
    key: String,
    name: String,
}

impl Table {
    async fn make() -> Table {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos();
        let name = format!("t{since}x{}", MADE.fetch_add(1, Ordering::Relaxed));
        let (account, key) = servers::azurite_account();
        secure::install();
        let table = Table { http: reqwest::Client::new(), account, key, name };
        let body = serde_json::json!({ "TableName": table.name }).to_string();
        table.request(reqwest::Method::POST, "Tables", "application/json", body, 201).await;
        table
    }

    async fn remove(self) {
        let path = format!("Tables('{}')", self.name);
        self.request(reqwest::Method::DELETE, &path, "application/json", String::new(), 204).await;
    }

    fn sign(&self, text: &str) -> String {
        let key = STANDARD.decode(&self.key).expect("a key");
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).expect("any length");
        mac.update(text.as_bytes());
        STANDARD.encode(mac.finalize().into_bytes())
    }

    async fn request(&self, method: reqwest::Method, path: &str, kind: &str, body: String, expected: u16) -> String {
        let date = "Mon, 01 Jan 2024 00:00:00 GMT";
        let url = format!("http://{}/{}/{path}", servers::azurite(), self.account);
        let url: reqwest::Url = url.parse().expect("an address");
        let signature = self.sign(&format!("{method}\n\n{kind}\n{date}\n/{}{}", self.account, url.path()));
        let request = self
            .http
            .request(method, url)
            .header("authorization", format!("SharedKey {}:{signature}", self.account))
            .header("x-ms-date", date)
            .header("x-ms-version", "2019-02-02")
            .header("accept", "application/json;odata=nometadata")
            .header("content-type", kind)
            .header("if-match", "*")
            .body(body);
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a text");
        assert_eq!(status, expected, "{text}");
        text
    }

    /// Writes entities of one partition, a hundred a request.
    async fn put(&self, partition: &str, rows: &[(String, serde_json::Value)]) {
        for rows in rows.chunks(100) {
            let mut body = String::from("--batch_1\r\nContent-Type: multipart/mixed; boundary=changeset_1\r\n\r\n");
            for (row, properties) in rows {
                let mut entity = properties.clone();
                entity["PartitionKey"] = partition.into();
                entity["RowKey"] = row.as_str().into();
                let key = |text: &str| {
                    url::form_urlencoded::byte_serialize(text.replace('\'', "''").as_bytes())
                        .collect::<String>()
                        .replace('+', "%20")
                };
                let place = format!("{}(PartitionKey='{}',RowKey='{}')", self.name, key(partition), key(row));
                body += &format!(
                    "--changeset_1\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n\
                     PUT http://{}/{}/{place} HTTP/1.1\r\nContent-Type: application/json\r\n\
                     Accept: application/json;odata=nometadata\r\nDataServiceVersion: 3.0\r\n\r\n{entity}\r\n",
                    servers::azurite(),
                    self.account
                );
            }
            body += "--changeset_1--\r\n--batch_1--\r\n";
            let answer = self.request(reqwest::Method::POST, "$batch", "multipart/mixed; boundary=batch_1", body, 202).await;
            assert_eq!(answer.matches("HTTP/1.1 204").count(), rows.len(), "an error comes inside: {answer}");
        }
    }

    fn config(&self) -> AzureTableConfig {
        AzureTableConfig {
            account: self.account.clone(),
            endpoint: format!("http://{}/{}", servers::azurite(), self.account),
            secret: Secret::new(self.key.clone()),
            allow_http: true,
            retry_for: std::time::Duration::from_secs(5),
            ..AzureTableConfig::default()
        }
    }

    /// A signature for reading this table until `expiry`.
    fn sas(&self, expiry: &str) -> AzureTableConfig {
        let resource = format!("/table/{}/{}", self.account, self.name.to_lowercase());
        let version = "2019-02-02";
        // sp, st, se, resource, si, sip, spr, sv, spk, srk, epk, erk.
        let signature = self.sign(&["r", "", expiry, &resource, "", "", "", version, "", "", "", ""].join("\n"));
        let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let sas = format!("sv={version}&tn={}&sp=r&se={}&sig={}", self.name, encode(expiry), encode(&signature));
        AzureTableConfig { secret: Secret::default(), sas: Secret::new(sas), ..self.config() }
    }

    fn spec(&self, needed: &[&str]) -> SourceSpec {
        SourceSpec {
            table_name: format!("aztable://main/{}", self.name),
            needed: needed.iter().map(ToString::to_string).collect(),
            ..SourceSpec::default()
        }
    }
}

fn source(config: AzureTableConfig) -> ListSource {
    let world = World { clock: Arc::new(SystemClock), chance: Arc::new(SeededChance::from_seed(1)) };
    let tables = AzureTables::new(&BTreeMap::from([("main".to_string(), config)]), &world).expect("a client");
    ListSource::new("nowhere".into()).with_tables(tables)
}

async fn read(source: &ListSource, spec: &SourceSpec, range_records: u32) -> (usize, Vec<Record>) {
    let plan = source.plan(spec, range_records).await.expect("a plan");
    let mut found = vec![];
    for range in &plan.ranges {
        let mut reader = source.open(spec, &plan, range).await.expect("the planned table");
        let before = found.len();
        loop {
            let records = reader.read(700).await.expect("records");
            if records.is_empty() {
                break;
            }
            found.extend(records);
        }
        assert_eq!((found.len() - before) as u64, range.records);
    }
    assert_eq!(found.len() as u64, plan.records);
    (plan.ranges.len(), found)
}

/// 5,000 records in 7 partitions of different sizes, some of whose keys want care.
async fn fill(table: &Table) -> Vec<String> {
    let sizes = [("O'Brien & Söhne", 3), ("a", 2_400), ("b%20 +c", 1), ("c", 1_100), ("d=d", 990), ("e", 500), ("f", 6)];
    let mut phones = vec![];
    for (partition, size) in sizes {
        let rows: Vec<_> = (0..size)
            .map(|row| {
                let phone = 491_700_000_000 + phones.len() as u64;
                phones.push(phone.to_string());
                let properties = serde_json::json!({
                    "phone@odata.type": "Edm.Int64", "phone": phone.to_string(), "name": format!("name '{row}' é"),
                    "score": 1.5, "vip": true, "gone": null,
                });
                (format!("{row:05} '%"), properties)
            })
            .collect();
        table.put(partition, &rows).await;
    }
    phones
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_records_in_seven_partitions_are_read_once() {
    let table = Table::make().await;
    let phones = fill(&table).await;
    assert_eq!(phones.len(), 5_000);
    let place = |plan: &[String], name: &str| plan.iter().position(|column| column == name).expect("a column");
    for config in [table.config(), table.sas("2099-01-01T00:00:00Z")] {
        let source = source(config);
        let columns = source.plan(&table.spec(&[]), 10_000).await.expect("a plan").columns;
        for (range_records, ranges_least) in [(10_000, 1), (700, 8), (64, 79)] {
            let (ranges, found) = read(&source, &table.spec(&["phone", "name"]), range_records).await;
            assert!(ranges >= ranges_least, "{ranges} ranges of {range_records}");
            let mut seen: Vec<String> = vec![];
            for (record, n) in found.iter().zip(0..) {
                assert_eq!((record.record, record.line), (n, n + 1));
                let fields = record.fields.as_ref().expect("fields");
                assert!(fields[place(&columns, "name")].ends_with("' é"), "{fields:?}");
                assert_eq!(fields[place(&columns, "score")], "", "what is not needed is not fetched");
                seen.push(fields[place(&columns, "phone")].clone());
            }
            seen.sort();
            assert_eq!(seen, phones, "each once");
        }
    }
    // All properties, with their types.
    let (_, found) = read(&source(table.config()), &table.spec(&[]), 10_000).await;
    let columns = source(table.config()).plan(&table.spec(&[]), 10_000).await.expect("a plan").columns;
    let fields = found[0].fields.as_ref().expect("fields");
    assert_eq!((fields[place(&columns, "score")].as_str(), fields[place(&columns, "vip")].as_str()), ("1.5", "true"));
    assert!(!columns.iter().any(|column| column.contains('@')), "{columns:?}");
    table.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_table_a_wrong_key_and_an_expired_signature_are_told_apart() {
    let table = Table::make().await;
    fault_of(source(table.config()).plan(&table.spec(&[]), 10).await, Code::SourceEmpty, "no record");
    let rows: Vec<_> =
        (0..50).map(|row| (format!("{row:03}"), serde_json::json!({ "phone": format!("49170000{row:04}") }))).collect();
    table.put("p", &rows).await;
    let (reader, spec) = (source(table.config()), table.spec(&["phone"]));
    let plan = reader.plan(&spec, 20).await.expect("a plan");
    assert_eq!(plan.ranges.iter().map(|range| range.records).collect::<Vec<_>>(), [20, 20, 10]);
    assert_eq!(reader.unchanged(&spec.table_name, &plan.fingerprint, &plan.dialect).await, Ok(()));
    table.put("p", &[("025".to_string(), serde_json::json!({ "phone": "491799999999" }))]).await;
    let mut ends = vec![];
    for range in &plan.ranges {
        let mut range = reader.open(&spec, &plan, range).await.expect("a reader");
        let mut end = Ok(());
        loop {
            match range.read(100).await {
                Ok(records) if records.is_empty() => break,
                Ok(_) => {}
                Err(fault) => {
                    end = Err(fault.code);
                    break;
                }
            }
        }
        ends.push(end);
    }
    assert_eq!(ends, [Ok(()), Err(Code::SourceChanged), Ok(())], "the record that was written again is noticed");
    let found = reader.unchanged(&spec.table_name, &plan.fingerprint, &plan.dialect).await;
    fault_of(found, Code::SourceChanged, "planned");

    let wrong = STANDARD.encode([5; 64]);
    let denied = source(AzureTableConfig { secret: Secret::new(wrong.clone()), ..table.config() }).plan(&spec, 10).await;
    assert!(!format!("{denied:?}").contains(&wrong), "a secret is shown");
    fault_of(denied, Code::SourceForbidden, "azure_tables.main.secret");
    let expired = source(table.sas("2024-01-01T00:00:00Z")).plan(&spec, 10).await;
    assert!(!format!("{expired:?}").contains("sig="), "a signature is shown");
    fault_of(expired, Code::SourceForbidden, "azure_tables.main.sas");
    let none = SourceSpec { table_name: "aztable://main/nosuchtable".into(), ..spec };
    fault_of(source(table.config()).plan(&none, 10).await, Code::SourceNotFound, "nosuchtable");
    table.remove().await;
}
