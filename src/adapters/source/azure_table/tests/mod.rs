//! The source against a small table service of our own, which does what the real one may do and an emulator does not: short and
//! empty pages with tokens, refusals, changes between planning and reading.

mod server;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use self::server::{Fake, Reply};
use super::{AzureTableConfig, AzureTables};
use crate::adapters::secret::Secret;
use crate::adapters::source::ListSource;
use crate::adapters::system::{SeededChance, SystemClock};
use crate::model::code::{Code, Fault};
use crate::model::limits::READ_BYTES_MAX;
use crate::model::record::{RangePlan, Record, SourcePlan};
use crate::ports::World;
use crate::ports::source::{Source, SourceSpec};

const SIGNATURE: &str = "c2VjcmV0LXNpZ25hdHVyZQ%3D%3D";

fn world() -> World {
    World { clock: std::sync::Arc::new(SystemClock), chance: std::sync::Arc::new(SeededChance::from_seed(7)) }
}

fn config(port: u16) -> AzureTableConfig {
    AzureTableConfig {
        account: "acme".into(),
        endpoint: format!("http://127.0.0.1:{port}"),
        secret: Secret::new(STANDARD.encode([9; 64])),
        allow_http: true,
        ..AzureTableConfig::default()
    }
}

fn signed(port: u16) -> AzureTableConfig {
    let sas = Secret::new(format!("?sv=2019-02-02&sp=r&tn=people&sig={SIGNATURE}"));
    AzureTableConfig { secret: Secret::default(), sas, ..config(port) }
}

fn source(config: &AzureTableConfig) -> ListSource {
    let tables = AzureTables::new(&BTreeMap::from([("main".to_string(), config.clone())]), &world()).expect("a client");
    ListSource::new("nowhere".into()).with_tables(tables)
}

fn spec(needed: &[&str]) -> SourceSpec {
    let needed = needed.iter().map(ToString::to_string).collect();
    SourceSpec { table_name: "aztable://main/people".into(), needed, ..SourceSpec::default() }
}

async fn read(source: &ListSource, spec: &SourceSpec, plan: &SourcePlan, range: usize) -> Result<Vec<Record>, Fault> {
    let mut reader = source.open(spec, plan, &plan.ranges[range]).await?;
    let mut found = vec![];
    loop {
        let records = reader.read(3).await?;
        assert!(records.len() <= 3);
        if records.is_empty() {
            assert_eq!(reader.read(3).await, Ok(vec![]), "the end stays the end");
            return Ok(found);
        }
        found.extend(records);
    }
}

/// All records, the ranges read in reverse, each as its fields.
async fn read_all(source: &ListSource, spec: &SourceSpec, plan: &SourcePlan) -> Vec<Vec<String>> {
    let mut found = vec![];
    for range in (0..plan.ranges.len()).rev() {
        let records = read(source, spec, plan, range).await.expect("the planned table");
        assert_eq!(records.len() as u64, plan.ranges[range].records);
        found.extend(records);
    }
    found.sort_by_key(|record| record.record);
    assert!(found.iter().zip(0..).all(|(record, n)| record.record == n && record.line == n + 1), "each once, in order");
    found.into_iter().map(|record| record.fields.expect("fields")).collect()
}

fn fault_of<T: std::fmt::Debug>(found: Result<T, Fault>, code: Code, says: &[&str]) {
    let fault = found.expect_err("a fault");
    let text = format!("{fault} {fault:?}");
    assert!(fault.code == code && says.iter().all(|words| text.contains(words)), "wanted {code} with {says:?}, got {fault}");
    for secret in [SIGNATURE, "sig=", &STANDARD.encode([9; 64]), "SharedKey"] {
        assert!(!text.contains(secret), "a secret is shown: {text}");
    }
}

/// Keys that a careless filter would break, and partitions of one, several and many.
fn people(server: &Fake) -> Vec<Vec<String>> {
    let keys = [
        ("", ""),
        ("", "x"),
        ("O'Brien", "'"),
        ("O'Brien", "a b"),
        ("a & b=c+d 100%", "''"),
        ("a' or 'a' eq 'a", "1"),
        ("é中", "ü"),
    ];
    keys.iter().for_each(|(partition, row)| server.put(partition, row, &[("phone", "491701".into()), ("score", 9.into())]));
    for row in 0..17 {
        server.put("many", &format!("{row:03}"), &[("phone", format!("49170{row}").into()), ("name", serde_json::Value::Null)]);
    }
    server.rows()
}

#[tokio::test]
async fn every_record_is_read_once_however_the_pages_fall() {
    for (page, empties) in [(1, false), (2, true), (5, true), (1_000, false), (1_000, true)] {
        for range_records in [1, 2, 3, 7, 100] {
            let server = Fake::start(page, empties).await;
            let rows = people(&server);
            let source = source(&config(server.port));
            let plan = source.plan(&spec(&[]), range_records).await.expect("a plan");
            assert_eq!(plan.columns, ["PartitionKey", "RowKey", "Timestamp", "phone", "score", "name"]);
            assert_eq!((plan.records, plan.fingerprint.size), (24, 24));
            assert!(plan.ranges.iter().all(|range| range.records <= u64::from(range_records)));
            assert_eq!(read_all(&source, &spec(&[]), &plan).await, rows, "pages of {page}, ranges of {range_records}");
            assert_eq!(source.unchanged("aztable://main/people", &plan.fingerprint, &plan.dialect).await, Ok(()));
            let asked = server.asked();
            assert!(asked.iter().all(|asked| asked.path == "/people()" && asked.authorization.starts_with("SharedKey acme:")));
            let empty = asked.iter().filter(|asked| asked.was_empty_with_token).count();
            assert_eq!(empty > 0, empties, "pages without a record and with a token did come");
        }
    }
}

#[tokio::test]
async fn only_needed_properties_are_asked_for() {
    let server = Fake::start(1_000, false).await;
    people(&server);
    let source = source(&config(server.port));
    let plan = source.plan(&spec(&[]), 1_000).await.expect("a plan");
    let rows = read_all(&source, &spec(&["phone", "RowKey"]), &plan).await;
    assert!(rows.iter().all(|row| !row[3].is_empty() && row[4].is_empty() && row[5].is_empty()), "{rows:?}");
    let selects: Vec<String> = server.asked().into_iter().map(|asked| asked.select).collect();
    assert_eq!(selects, ["", "PartitionKey,RowKey,Timestamp", "PartitionKey,RowKey,Timestamp,phone"]);
}

#[tokio::test]
async fn one_partition_is_read_when_the_configuration_says_so() {
    let server = Fake::start(2, true).await;
    let rows = people(&server);
    let of = |partition: &str| AzureTableConfig { partition: Some(partition.into()), ..config(server.port) };
    let plan = source(&of("O'Brien")).plan(&spec(&[]), 1).await.expect("a plan");
    let expected: Vec<_> = rows.into_iter().filter(|row| row[0] == "O'Brien").collect();
    // What one partition has no property of is no column.
    let found: Vec<_> = read_all(&source(&of("O'Brien")), &spec(&[]), &plan).await;
    assert_eq!(found.iter().map(|row| &row[..2]).collect::<Vec<_>>(), expected.iter().map(|row| &row[..2]).collect::<Vec<_>>());
    let other = source(&of("many"));
    fault_of(read(&other, &spec(&[]), &plan, 0).await, Code::SourceChanged, &["azure_tables.main.partition"]);
    fault_of(source(&of("none")).plan(&spec(&[]), 1).await, Code::SourceEmpty, &["azure_tables.main.partition"]);
}

#[tokio::test]
async fn a_change_after_planning_is_noticed_wherever_it_is() {
    type Change = fn(&Fake);
    let changes: [(&str, Change); 7] = [
        ("a record was written again", |server| server.put("b", "2", &[("phone", "1".into())])),
        ("one was removed", |server| server.remove("b", "2")),
        ("one came between", |server| server.put("b", "2a", &[])),
        ("one came behind a partition's last", |server| server.put("a", "9", &[])),
        ("a partition came first", |server| server.put("A", "1", &[])),
        ("a partition came between", |server| server.put("aa", "1", &[])),
        ("a partition came last", |server| server.put("z", "1", &[])),
    ];
    for (what, change) in changes {
        let server = Fake::start(2, false).await;
        for partition in ["a", "b", "c"] {
            (0..5).for_each(|row| server.put(partition, &row.to_string(), &[("phone", "1".into())]));
        }
        let source = source(&config(server.port));
        let plan = source.plan(&spec(&[]), 3).await.expect("a plan");
        change(&server);
        let mut refused = 0;
        for range in 0..plan.ranges.len() {
            match read(&source, &spec(&[]), &plan, range).await {
                Ok(_) => {}
                found => {
                    fault_of(found, Code::SourceChanged, &["aztable://main/people"]);
                    refused += 1;
                }
            }
        }
        assert_eq!(refused, 1, "{what}: one range is another");
        let found = source.unchanged("aztable://main/people", &plan.fingerprint, &plan.dialect).await;
        fault_of(found, Code::SourceChanged, &["aztable://main/people"]);
    }
}

#[tokio::test]
async fn a_service_that_is_busy_is_left_alone_and_asked_again_at_the_same_place() {
    let server = Fake::start(10, false).await;
    let rows = people(&server);
    let source = source(&config(server.port));
    let plan = source.plan(&spec(&[]), 1_000).await.expect("a plan");
    let before = server.asked().len();
    // The first page is good; what comes behind it is refused four times.
    server.script([
        Reply::Good,
        Reply::Status(503, Some("1"), "ServerBusy"),
        Reply::Status(429, None, "TooManyRequests"),
        Reply::Status(500, None, "OperationTimedOut"),
        Reply::Cut,
    ]);
    let began = Instant::now();
    assert_eq!(read_all(&source, &spec(&[]), &plan).await, rows);
    assert!(began.elapsed() >= Duration::from_secs(1), "Retry-After is respected");
    let tokens: Vec<_> = server.asked().into_iter().skip(before).map(|asked| asked.token).collect();
    assert_eq!(tokens.len(), 3 + 4);
    assert!(tokens[0].is_none() && tokens[1].is_some() && tokens[2..=5].iter().all(|token| *token == tokens[1]), "{tokens:?}");
}

#[tokio::test]
async fn all_readers_leave_a_service_alone_that_asks_for_it() {
    let server = Fake::start(10, false).await;
    people(&server);
    let source = source(&AzureTableConfig { retry_for: Duration::from_millis(300), ..config(server.port) });
    let plan = source.plan(&spec(&[]), 1_000).await.expect("a plan");
    server.script([Reply::Status(503, Some("1000"), "ServerBusy")]);
    let began = Instant::now();
    fault_of(
        read(&source, &spec(&[]), &plan, 0).await,
        Code::SourceUnavailable,
        &["503 ServerBusy", "asks to wait 1000 s", "http://127.0.0.1"],
    );
    let asked = server.asked().len();
    fault_of(read(&source, &spec(&[]), &plan, 0).await, Code::SourceUnavailable, &["left alone"]);
    assert_eq!(server.asked().len(), asked, "nobody asks meanwhile");
    assert!(began.elapsed() < Duration::from_secs(5), "nobody waits for what is not worth waiting for");
}

#[tokio::test]
async fn what_is_refused_for_good_says_which_setting_is_about_it() {
    let server = Fake::start(10, false).await;
    people(&server);
    let source = source(&signed(server.port));
    assert_eq!(source.plan(&spec(&[]), 1_000).await.map(|plan| plan.records), Ok(24));
    assert!(server.asked().iter().all(|asked| asked.authorization.is_empty() && asked.sig == "c2VjcmV0LXNpZ25hdHVyZQ=="));
    let asked = server.asked().len();
    for (reply, code, says) in [
        (
            Reply::Status(403, None, "AuthenticationFailed"),
            Code::SourceForbidden,
            &["azure_tables.main.sas", "expired", "403 AuthenticationFailed"][..],
        ),
        (Reply::Status(404, None, "TableNotFound"), Code::SourceNotFound, &["404 TableNotFound", "azure_tables.main.endpoint"]),
        (Reply::Status(400, None, "InvalidInput"), Code::SourceBroken, &["400 InvalidInput"]),
        (Reply::Status(302, None, ""), Code::SourceBroken, &["302"]),
        (Reply::SameToken, Code::SourceBroken, &["same continuation token"]),
    ] {
        // The same token comes with the second page of a walk.
        if matches!(reply, Reply::SameToken) {
            server.script([Reply::SameToken, Reply::SameToken]);
        } else {
            server.script([reply]);
        }
        fault_of(source.plan(&spec(&[]), 1_000).await, code, says);
    }
    assert_eq!(server.asked().len(), asked + 6, "nothing of it is tried again");
    server.script([Reply::Status(403, None, "AuthenticationFailed")]);
    let by_key = self::source(&config(server.port));
    fault_of(by_key.plan(&spec(&[]), 1).await, Code::SourceForbidden, &["azure_tables.main.secret", "clock"]);
}

#[tokio::test]
async fn a_service_that_is_not_there_or_says_nothing_is_unavailable() {
    let server = Fake::start(10, false).await;
    people(&server);
    let brief = |config: AzureTableConfig| AzureTableConfig {
        request_timeout: Duration::from_millis(150),
        retry_for: Duration::from_millis(250),
        ..config
    };
    server.script([Reply::Silent, Reply::Silent, Reply::Silent]);
    let found = source(&brief(signed(server.port))).plan(&spec(&[]), 1).await;
    fault_of(found, Code::SourceUnavailable, &["took too long", "azure_tables.main.endpoint"]);
    server.script([Reply::Nonsense, Reply::Nonsense, Reply::Nonsense]);
    let found = source(&brief(signed(server.port))).plan(&spec(&[]), 1).await;
    fault_of(found, Code::SourceUnavailable, &["no entities"]);
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let found = source(&brief(signed(free))).plan(&spec(&[]), 1).await;
    fault_of(found, Code::SourceUnavailable, &["refused", "azure_tables.main.endpoint"]);
}

#[tokio::test]
async fn addresses_reach_only_what_the_configuration_names() {
    let source = source(&AzureTableConfig { tables: vec!["people".into()], ..config(1) });
    let check = |address: &str| source.check_address(address, true, &[]);
    assert_eq!(check("aztable://main/People"), Ok("aztable://main/People".to_string()));
    fault_of(check("aztable://main/others"), Code::SourceForbidden, &["azure_tables.main.tables"]);
    fault_of(check("aztable://other/people"), Code::SourceForbidden, &["azure_tables.other"]);
    let with_dialect = SourceSpec { dialect: "header=no".into(), ..spec(&[]) };
    fault_of(source.plan(&with_dialect, 1).await, Code::InputInvalid, &["dialect"]);
}

#[tokio::test]
async fn an_answer_larger_than_any_of_the_service_is_refused_and_not_asked_for_again() {
    let server = Fake::start(10, false).await;
    people(&server);
    let source = source(&config(server.port));
    for (reply, says) in [(Reply::Much(1_001, 0), "1000 entities"), (Reply::Much(20, 1 << 20), "16777216 bytes")] {
        let asked = server.asked().len();
        server.script([reply]);
        fault_of(source.plan(&spec(&[]), 1).await, Code::SourceBroken, &[says, "azure_tables.main.endpoint"]);
        assert_eq!(server.asked().len(), asked + 1);
    }
}

#[tokio::test]
async fn a_stored_range_that_no_table_has_is_refused_before_anything_is_asked() {
    let server = Fake::start(10, false).await;
    people(&server);
    let source = source(&config(server.port));
    let plan = source.plan(&spec(&[]), 1_000).await.expect("a plan");
    let asked = server.asked().len();
    let far: [fn(&mut RangePlan); 4] = [
        |range| range.first_record = u64::MAX,
        |range| range.first_line = u64::MAX,
        |range| range.from = u64::MAX,
        |range| range.to = u64::MAX,
    ];
    for change in far {
        let mut planned = plan.clone();
        change(&mut planned.ranges[0]);
        fault_of(read(&source, &spec(&[]), &planned, 0).await, Code::SourceChanged, &["aztable://main/people"]);
    }
    assert_eq!(server.asked().len(), asked);
}

#[tokio::test]
async fn records_of_many_columns_come_a_few_at_a_time() {
    let server = Fake::start(1_000, false).await;
    let names: Vec<String> = (0..1_000).map(|n| format!("c{n}")).collect();
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), 1.into())).collect();
    server.put("p", "0000", &all);
    (1..1_000).for_each(|row| server.put("p", &format!("{row:04}"), &[("c7", row.into())]));
    let source = source(&config(server.port));
    let plan = source.plan(&spec(&[]), 1_000).await.expect("a plan");
    assert_eq!((plan.columns.len(), plan.ranges.len()), (1_003, 1));
    let mut reader = source.open(&spec(&[]), &plan, &plan.ranges[0]).await.expect("it is there");
    let (mut next, mut reads) = (0, 0);
    loop {
        let records = reader.read(1_000).await.expect("the planned table");
        let bytes: usize = records.iter().map(Record::bytes).sum();
        assert!(bytes < READ_BYTES_MAX + 30_000, "{bytes} bytes at once");
        if records.is_empty() {
            break;
        }
        for record in records {
            assert_eq!((record.record, record.fields.expect("fields")[1].as_str()), (next, format!("{next:04}").as_str()));
            next += 1;
        }
        reads += 1;
    }
    assert_eq!((next, reads), (1_000, 3));
}
