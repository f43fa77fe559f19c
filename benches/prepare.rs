//! Preparation: its parts on one core, then the whole way from a CSV file to sealed packs on disk.

use std::hint::black_box;
use std::time::{Duration, Instant};

use smsfleet::links::code::Codes;
use smsfleet::model::account::{Capabilities, LongMessage};
use smsfleet::model::batch::SmsBatch;
use smsfleet::model::id::BatchId;
use smsfleet::model::record::{RangePlan, Record};
use smsfleet::model::text::split;
use smsfleet::ports::links::LinkBlock;
use smsfleet::prepare::chunk::{self, Found};
use smsfleet::prepare::number;
use smsfleet::prepare::recipe::Recipe;
use smsfleet::prepare::shelves::Shelves;
use smsfleet::prepare::template::Template;

#[path = "prepare_whole.rs"]
mod whole;

const COLUMNS: [&str; 5] = ["phone", "name", "city", "points", "card"];
const PLAIN: &str = "{{name}}您好，您在{{city}}的{{points}}积分将于本月底到期，点击 {{url}} 兑换好礼，回复T退订";
const ENGINE: &str = "{{name}}您好，您在{{city}}的{{points|int + 0}}积分将于本月底到期，点击 {{url}} 兑换好礼，回复T退订";
const RECORDS: u64 = 100_000;

/// Prints the figures.
pub fn run() {
    // First, so that its peak of memory is its own.
    whole::run();
    println!("prepare: parts, one core, {RECORDS} records of 5 columns, a text of 50 Chinese characters with a link");
    let records: Vec<Record> = (0..RECORDS).map(record).collect();
    let cells: Vec<Vec<String>> = records.iter().filter_map(|record| record.fields.clone().ok()).collect();

    let region = number::region("CN").expect("a region");
    rate("numbers parsed and checked", || {
        for fields in &cells {
            black_box(number::parse(&fields[0], region).is_ok());
        }
    });
    for (name, content) in [("texts rendered, plain variables", PLAIN), ("texts rendered by the engine", ENGINE)] {
        let template = Template::compile(&batch(content), &columns()).expect("a template");
        let (mut cells, mut text) = (cells.clone(), String::new());
        rate(name, || {
            for fields in &mut cells {
                black_box(template.render(fields, &mut text).is_ok());
            }
        });
    }
    let text = "【商店】张三您好，您在北京的12345积分将于本月底到期，点击 https://s.example/aB3dE6gH 兑换好礼，回复T退订";
    rate("texts split", || {
        for _ in 0..RECORDS {
            black_box(split(black_box(text), LongMessage::Udh8));
        }
    });
    let codes = Codes::new(&[7; 16], LinkBlock { first: 1, len: RECORDS, batch: BatchId(1) }).expect("a block");
    let mut made = vec![];
    rate("short codes made", || {
        made.clear();
        codes.append(0, RECORDS, &mut made);
        black_box(made.last());
    });
    rate("records to packs, everything but reading and writing", || black_box(chunks(records.clone())));
    let started = Instant::now();
    black_box(records.clone());
    println!("    (of which copying the records for the bench: {:.0} ns each)", nanoseconds(started.elapsed()));
}

fn chunks(records: Vec<Record>) -> u64 {
    let plan = RangePlan { records: RECORDS, ..RangePlan::default() };
    let mut recipe = Recipe::new(&batch(PLAIN), &columns(), Capabilities::default(), &plan).expect("a recipe");
    let block = LinkBlock { first: 1, len: RECORDS, batch: BatchId(1) };
    recipe.codes = Some(Codes::new(&[7; 16], block).expect("a block"));
    let mut shelves = Shelves::new(BatchId(1), 0, 1, 128);
    let (mut found, mut full) = (Found::default(), vec![]);
    let mut records = records.into_iter();
    loop {
        let chunk: Vec<Record> = records.by_ref().take(1_000).collect();
        if chunk.is_empty() {
            break;
        }
        let candidates = chunk::candidates(&recipe, chunk, &mut found);
        let suppressed = vec![false; candidates.len()];
        chunk::messages(&recipe, candidates, &suppressed, &mut found);
        shelves.put(found.messages.drain(..), &mut full);
        full.clear();
    }
    shelves.empty(&mut full);
    shelves.hash()
}

fn rate<T>(name: &str, mut work: impl FnMut() -> T) {
    // The best of a few: the machine has other things to do.
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let started = Instant::now();
        black_box(work());
        best = best.min(started.elapsed());
    }
    println!("  {name:<52} {:>7.0} ns   {:>11.0} /s", nanoseconds(best), RECORDS as f64 / best.as_secs_f64());
}

fn nanoseconds(elapsed: Duration) -> f64 {
    elapsed.as_secs_f64() * 1e9 / RECORDS as f64
}

fn record(n: u64) -> Record {
    Record { record: n, line: n + 2, fields: Ok(fields(n)) }
}

fn fields(n: u64) -> Vec<String> {
    const NAMES: [&str; 8] = ["张伟", "王芳", "李娜", "欧阳修文", "刘洋", "陈静", "杨光", "赵敏"];
    const CITIES: [&str; 6] = ["北京", "上海", "广州", "深圳", "呼和浩特", "成都"];
    const PREFIXES: [u64; 6] = [138, 139, 150, 186, 177, 199];
    let number = PREFIXES[(n % 6) as usize] * 100_000_000 + n * 7_919 % 100_000_000;
    let (name, city) = (NAMES[(n % 8) as usize], CITIES[(n / 7 % 6) as usize]);
    vec![number.to_string(), name.to_owned(), city.to_owned(), (n % 90_000 + 100).to_string(), format!("C{n:09}")]
}

fn columns() -> Vec<String> {
    COLUMNS.map(str::to_owned).to_vec()
}

fn batch(content: &str) -> SmsBatch {
    SmsBatch {
        batch_id: BatchId(1),
        content_signature: "商店".into(),
        url: Some("https://shop.example/sale/2026/autumn".into()),
        link_base: "https://s.example/".into(),
        ..SmsBatch::new("", content, "smpp")
    }
}
