//! How fast it is. Figures: `SIMULATOR_SPEED_MESSAGES=1000000 cargo test --release --lib simulator::tests::speed -- --nocapture`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{start_with_receipts as start, until};
use crate::simulator::pdu::tests::submit_body;
use crate::simulator::pdu::{self, command, status};

const BATCH: u32 = 200;

/// Submits `count` messages with `BATCH` under way and acknowledges receipts until `waiting` is 0: they come to any session.
async fn drive(address: std::net::SocketAddr, count: u32, first: u64, waiting: Arc<AtomicU32>) {
    let registered_delivery = u8::from(waiting.load(Ordering::Relaxed) > 0);
    let stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    stream.set_nodelay(true).expect("an open socket");
    let (mut reader, mut writer) = stream.into_split();
    let mut out = Vec::new();
    pdu::write(&mut out, command::BIND_TRANSCEIVER, 0, 1, |out| out.extend_from_slice(b"smsfleet\0password\0\0\x34\0\0\0"));
    let mut template = submit_body("8613800000000", 0, 0, &[b'a'; 81], &[]);
    let place = 10;
    let registered = template.len() - 81 - 5;
    template[registered] = registered_delivery;
    let (mut sent, mut answered) = (0, 0);
    let mut input = Vec::with_capacity(1 << 20);
    let mut from = 0;
    while answered < count || waiting.load(Ordering::Relaxed) > 0 {
        while sent < count && sent - answered < BATCH {
            template.splice(place..place + 13, (8_600_000_000_000 + first + u64::from(sent)).to_string().into_bytes());
            pdu::write(&mut out, command::SUBMIT_SM, 0, sent, |out| out.extend_from_slice(&template));
            sent += 1;
        }
        writer.write_all(&out).await.expect("it reads");
        out.clear();
        input.drain(..from);
        from = 0;
        input.reserve(256 * 1024);
        // The last receipts may go to another session.
        match tokio::time::timeout(Duration::from_millis(20), reader.read_buf(&mut input)).await {
            Ok(read) => assert!(read.expect("it answers") > 0),
            Err(_) => continue,
        }
        while let Some(header) = pdu::header(&input[from..])
            && input.len() - from >= header.length
        {
            match header.command {
                command::DELIVER_SM => {
                    waiting.fetch_sub(1, Ordering::Relaxed);
                    pdu::write(&mut out, command::DELIVER_SM | command::RESPONSE, 0, header.sequence, |out| out.push(0));
                }
                id if id == command::SUBMIT_SM | command::RESPONSE => {
                    assert_eq!(header.status, status::OK);
                    answered += 1;
                }
                _ => {}
            }
            from += header.length;
        }
    }
    writer.write_all(&out).await.expect("it reads");
}

fn runtime(name: &str) -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name(name).enable_all().build().expect("a runtime")
}

/// Processor seconds that threads of this name have used, where the system tells (in hundredths on Linux).
fn processor_seconds(name: &str) -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lines = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    let ticks = lines.filter(|line| line.contains(&format!("({name})"))).map(|line| {
        let fields: Vec<i64> = line.split(") ").nth(1).unwrap_or("").split(' ').filter_map(|field| field.parse().ok()).collect();
        // Without the name and the state, user and system time are fields 10 and 11 (proc(5)).
        fields.get(10).zip(fields.get(11)).map_or(0, |(user, system)| user + system)
    });
    ticks.sum::<i64>() as f64 / 100.0
}

#[test]
fn every_message_is_counted_once_at_full_speed() {
    let (centre, clients) = (runtime("sim-centre"), runtime("sim-clients"));
    let count = std::env::var("SIMULATOR_SPEED_MESSAGES").ok().and_then(|count| count.parse().ok()).unwrap_or(20_000u32);
    for (sessions, registered_delivery, count_numbers) in [(1, 0, true), (4, 0, true), (1, 0, false), (4, 0, false), (4, 1, true)]
    {
        let simulator = centre.block_on(start(|config| config.count_numbers = count_numbers));
        let address = simulator.smpp_addr().expect("SMPP is on");
        let (started, used) = (Instant::now(), processor_seconds("sim-centre"));
        let waiting = Arc::new(AtomicU32::new(count * registered_delivery));
        let drivers: Vec<_> = (0..sessions)
            .map(|nth| clients.spawn(drive(address, count / sessions, u64::from(nth) * 100_000_000, waiting.clone())))
            .collect();
        for driver in drivers {
            clients.block_on(driver).expect("a client ends well");
        }
        let seconds = started.elapsed().as_secs_f64();
        let made = u64::from(count) * u64::from(registered_delivery);
        let used_us = (processor_seconds("sim-centre") - used) * 1e6;
        centre.block_on(until(&simulator, |report| report.receipts.acknowledged == made));
        let report = simulator.report();
        assert_eq!((report.complete_messages, report.answered_accepted), (count.into(), count.into()));
        assert_eq!((report.numbers, report.repeated_numbers), (if count_numbers { count.into() } else { 0 }, 0));
        centre.block_on(simulator.stop());
        println!(
            "{sessions} sessions, receipts {registered_delivery}, numbers counted {count_numbers}: {:.0} submits/s, {:.2} us of the simulator's processor time each",
            f64::from(count) / seconds,
            used_us / f64::from(count)
        );
    }
}
