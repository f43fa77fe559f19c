//! Azure tables: what a service on the network answers, and what a stored plan says of a table.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use smsfleet::adapters::secret::Secret;
use smsfleet::adapters::source::{AzureTableConfig, AzureTables, ListSource};
use smsfleet::adapters::system::{SeededChance, SystemClock};
use smsfleet::model::code::{Code, Fault};
use smsfleet::model::limits::COLUMNS_MAX;
use smsfleet::model::record::{Fingerprint, RangePlan, Record, SourcePlan};
use smsfleet::ports::World;
use smsfleet::ports::source::{Source, SourceSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::input::Input;
use super::is_reason;

/// No run waits longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Entities of the two pages at most, each being as many as the service gives at once.
const ENTITIES_MAX: usize = 2_000;

/// A line with the stored scope of a table, the place of a stored range, then what the service answers: a page behind its length,
/// and a second one if anything is left.
pub fn azure(input: &[u8]) -> bool {
    let mut input = Input(input);
    let scope = input.line();
    let mut far = || u64::from(input.number()) << 32 | u64::from(input.number());
    let stored = RangePlan { first_record: far(), records: far(), keys: Some(Box::default()), ..RangePlan::default() };
    let first = input.piece().to_vec();
    let pages = Pages { first, second: Some(input.0.to_vec()).filter(|page| !page.is_empty()) };
    SERVICE.with(|service| {
        *service.pages.lock().unwrap_or_else(PoisonError::into_inner) = pages;
        let run = async { tokio::time::timeout(PATIENCE, service.look(&scope, stored)).await.expect("a table is read in time") };
        service.runtime.block_on(run)
    })
}

thread_local! {
    static SERVICE: Service = Service::start();
}

/// What the service answers, whatever it is asked.
#[derive(Default)]
struct Pages {
    first: Vec<u8>,
    second: Option<Vec<u8>>,
}

/// A service on loopback, and a source that reads its tables.
struct Service {
    runtime: tokio::runtime::Runtime,
    source: ListSource,
    pages: Arc<Mutex<Pages>>,
}

impl Service {
    fn start() -> Service {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port of our own");
        let port = listener.local_addr().expect("it is bound").port();
        let pages = Arc::new(Mutex::new(Pages::default()));
        let shared = pages.clone();
        runtime.spawn(async move {
            while let Ok((peer, _)) = listener.accept().await {
                tokio::spawn(serve(peer, shared.clone()));
            }
        });
        let config = AzureTableConfig {
            account: "acme".into(),
            endpoint: format!("http://127.0.0.1:{port}"),
            sas: Secret::new("sv=1&sig=hidden"),
            allow_http: true,
            // What it says wrong it says again.
            retry_for: Duration::ZERO,
            ..AzureTableConfig::default()
        };
        let world = World { clock: Arc::new(SystemClock), chance: Arc::new(SeededChance::from_seed(1)) };
        let tables = AzureTables::new(&[("main".to_owned(), config)].into(), &world).expect("its configuration is valid");
        Service { runtime, source: ListSource::new("nowhere".into()).with_tables(tables), pages }
    }

    /// Reads the table as a preparer does: by a stored plan, and by one that is made of it now.
    async fn look(&self, scope: &str, stored: RangePlan) -> bool {
        let columns = vec!["PartitionKey".to_owned(), "phone".to_owned()];
        let plan = SourcePlan { dialect: scope.to_owned(), columns, ranges: vec![stored], ..SourcePlan::default() };
        match self.read(&plan).await {
            Ok(records) => check(&plan, &records),
            Err(fault) => refused(&fault),
        }
        if let Err(fault) = self.source.unchanged(&spec().table_name, &Fingerprint::default(), scope).await {
            refused(&fault);
        }
        match self.source.plan(&spec(), u32::MAX).await {
            Ok(plan) => {
                let records = self.read(&plan).await.expect("it answers as it did");
                check(&plan, &records);
                let now = self.source.unchanged(&spec().table_name, &plan.fingerprint, &plan.dialect).await;
                now.expect("it answers as it did");
                true
            }
            Err(fault) => {
                refused(&fault);
                false
            }
        }
    }

    async fn read(&self, plan: &SourcePlan) -> Result<Vec<Record>, Fault> {
        let (mut records, mut reader) = (vec![], self.source.open(&spec(), plan, &plan.ranges[0]).await?);
        loop {
            let some = reader.read(7).await?;
            if some.is_empty() {
                return Ok(records);
            }
            records.extend(some);
        }
    }
}

fn spec() -> SourceSpec {
    SourceSpec { table_name: "aztable://main/people".into(), ..SourceSpec::default() }
}

/// Answers requests one after the other: with the second page whoever brings a token.
async fn serve(mut peer: TcpStream, pages: Arc<Mutex<Pages>>) -> Option<()> {
    let mut request = vec![];
    loop {
        request.clear();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(peer.read_u8().await.ok()?);
        }
        let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let is_second = String::from_utf8_lossy(line).contains("NextPartitionKey=");
        let answer = {
            let pages = pages.lock().unwrap_or_else(PoisonError::into_inner);
            let (body, token) = match &pages.second {
                Some(second) if is_second => (second, ""),
                Some(_) => (&pages.first, "x-ms-continuation-NextPartitionKey: 1\r\n"),
                None => (&pages.first, ""),
            };
            [format!("HTTP/1.1 200 OK\r\n{token}content-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
        };
        peer.write_all(&answer).await.ok()?;
    }
}

fn check(plan: &SourcePlan, records: &[Record]) {
    assert!(plan.columns.len() <= COLUMNS_MAX && records.len() <= ENTITIES_MAX);
    assert_eq!(plan.ranges[0].records, records.len() as u64);
    for (record, n) in records.iter().zip(plan.ranges[0].first_record..) {
        assert_eq!((record.record, record.line), (n, n + 1));
        match &record.fields {
            Ok(fields) => assert_eq!(fields.len(), plan.columns.len()),
            Err(fault) => assert_eq!(fault.code, Code::RowMalformed),
        }
    }
}

/// A table that is refused says so with a code that is about tables, and tells no secret.
fn refused(fault: &Fault) {
    use Code::{InputInvalid, Internal, SourceBroken, SourceChanged, SourceEmpty, SourceUnavailable};
    let known = [InputInvalid, Internal, SourceBroken, SourceChanged, SourceEmpty, SourceUnavailable];
    assert!(known.contains(&fault.code) && is_reason(&fault.context), "{fault:?}");
    assert!(!fault.context.contains("hidden"), "{fault:?}");
}
