//! Senders and readers that take their time: they are ended, and others are served meanwhile.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::{LOOK, ask, configured, host, is_well, wire};
use crate::endtoend::fixture::{DEADLINE, Place, until};
use crate::endtoend::service::Service;

/// Connections that the service takes; seven eighths of them are one address's.
const PLACES: usize = 64;

fn service() -> Service {
    with_head_time(1.5)
}

fn with_head_time(seconds: f64) -> Service {
    let place = Place::new(1, 1);
    configured(
        &place,
        &format!(
            "[serve]\nlisten = \"127.0.0.1:0\"\nconnections = {PLACES}\nhead_timeout = {seconds:.1}\nrequest_timeout = 1.5\nstall_timeout = 1.0\n\
             [accounts.web]\nprotocol = \"http\"\n[accounts.web.capabilities]\nlong_message = \"payload\"\n[accounts.web.http]\n\
             url = \"http://127.0.0.1:1/\"\nanswer = {{ id = \"/id\" }}\nreceipts = {{ token = \"push-me\" }}\n\
             inbound = {{ token = \"push-me\" }}\n"
        ),
    );
    Service::start(place)
}

/// A connection from another address of this machine.
fn from_elsewhere(service: &Service) -> TcpStream {
    let to: SocketAddr = host(service).parse().expect("an address");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.2:0".parse().expect("an address")).expect("it is this machine's");
        socket.connect(to).await.expect("it listens").into_std().expect("a stream")
    });
    stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(DEADLINE / 5))).expect("a blocking stream");
    stream
}

/// Connections that have begun a head, more than there are places.
fn dribbling(service: &Service) -> Vec<TcpStream> {
    let begin = |_| {
        let mut stream = wire(service);
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ");
        stream
    };
    (0..2 * PLACES).map(begin).collect()
}

#[test]
fn one_machine_that_dribbles_does_not_shut_out_others() {
    // Nobody is ended for being slow within this test.
    let service = with_head_time(600.0);
    is_well(&service);
    let mut held = dribbling(&service);
    for _ in 0..5 {
        for stream in &mut held {
            let _ = stream.write_all(b"a");
        }
        let mut other = from_elsewhere(&service);
        other.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
        let mut answer = String::new();
        other.read_to_string(&mut answer).expect("somebody else is served while all of them go on");
        assert!(answer.ends_with("ok\n"), "{answer}");
        std::thread::sleep(LOOK);
    }
    // What was too much for one machine was closed at once; once it lets go, it is served again.
    drop(held);
    until("it is served", || ask(&service, "", "GET", "/healthz", "", "").status == 200);
    service.stop();
}

#[test]
fn heads_that_dribble_are_ended_however_steadily() {
    let service = service();
    let mut held = dribbling(&service);
    until("all of them were ended", || {
        std::thread::sleep(LOOK);
        held.retain_mut(|stream| stream.write_all(b"a").is_ok());
        held.is_empty()
    });
    is_well(&service);
    service.stop().ended(0);
}

#[test]
fn a_connection_that_says_nothing_is_closed() {
    let service = service();
    let mut silent = wire(&service);
    assert_eq!(silent.read(&mut [0; 16]).expect("it is closed"), 0);
    // Nor one that asked once and keeps its place.
    let mut idle = wire(&service);
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut answer = vec![];
    let _ = idle.read_to_end(&mut answer);
    assert!(answer.ends_with(b"ok\n"), "{}", String::from_utf8_lossy(&answer));
    service.stop().ended(0);
}

#[test]
fn a_body_that_dribbles_is_ended() {
    let service = service();
    let key = service.key("operator");
    for (path, token) in [("/v1/batches", key.as_str()), ("/v1/receipts/web", "push-me"), ("/v1/inbound/web", "push-me")] {
        let mut stream = wire(&service);
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nIdempotency-Key: k\r\nContent-Length: 100000\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("sent");
        let mut read = stream.try_clone().expect("a second handle");
        let reader = std::thread::spawn(move || {
            let mut answer = vec![];
            let _ = read.read_to_end(&mut answer);
            String::from_utf8_lossy(&answer).into_owned()
        });
        while !reader.is_finished() {
            let _ = stream.write_all(b" ");
            assert_eq!(ask(&service, &key, "GET", "/v1/batches", "", "").status, 200, "others are served");
            std::thread::sleep(LOOK);
        }
        let answer = reader.join().expect("it was read");
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("SF-7006"), "{path}: {answer}");
    }
    service.stop().ended(0);
}

#[test]
fn whoever_does_not_read_its_answers_is_left() {
    let service = service();
    let mut deaf: Vec<TcpStream> = (0..8).map(|_| wire(&service)).collect();
    // Far more answers than all buffers between the two hold.
    let asks = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(400);
    for stream in &mut deaf {
        stream.set_nonblocking(true).expect("a stream");
        let _ = stream.write_all(asks.as_bytes());
    }
    until("they were left", || {
        std::thread::sleep(LOOK);
        deaf.retain_mut(|stream| match stream.write(b"G") {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        });
        deaf.is_empty()
    });
    // Who reads slowly, but reads, gets all of it.
    let mut slow = wire(&service);
    slow.write_all("GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(39).as_bytes()).expect("sent");
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let mut all = vec![];
    let mut piece = vec![0; 256 << 10];
    while let Ok(count @ 1..) = slow.read(&mut piece) {
        all.extend_from_slice(&piece[..count]);
        std::thread::sleep(LOOK / 4);
    }
    assert!(all.ends_with(b"ok\n"), "{} bytes", all.len());
    is_well(&service);
    service.stop().ended(0);
}
