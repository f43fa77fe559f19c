//! A bare SMPP client on octets, and a bare HTTP one.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::simulator::pdu::{self, Header, command, status};
use crate::simulator::{Simulator, SimulatorConfig};

/// A simulator on free ports that sends no receipts, so that nothing comes between the answers.
pub async fn start(change: impl FnOnce(&mut SimulatorConfig)) -> Simulator {
    start_with_receipts(|config| {
        config.receipts.never_share = 1.0;
        change(config);
    })
    .await
}

/// A simulator on free ports.
pub async fn start_with_receipts(change: impl FnOnce(&mut SimulatorConfig)) -> Simulator {
    let mut config = SimulatorConfig::local();
    change(&mut config);
    Simulator::start(config).await.expect("loopback ports can be had")
}

pub struct Client {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Client {
    pub async fn connect(simulator: &Simulator) -> Client {
        let stream = TcpStream::connect(simulator.smpp_addr().expect("SMPP is on")).await.expect("it listens");
        stream.set_nodelay(true).expect("an open socket");
        Client { stream, input: Vec::new() }
    }

    /// Connected and bound as a transceiver.
    pub async fn bound(simulator: &Simulator) -> Client {
        let mut client = Client::connect(simulator).await;
        assert_eq!(client.bind(command::BIND_TRANSCEIVER, "smsfleet", "password").await, status::OK);
        client
    }

    pub async fn bind(&mut self, command: u32, name: &str, password: &str) -> u32 {
        let body = format!("{name}\0{password}\0\0\x34\0\0\0");
        self.send(command, status::OK, 1, body.as_bytes()).await;
        let (header, _) = self.read().await.expect("a bind is answered");
        assert_eq!((header.command, header.sequence), (command | command::RESPONSE, 1));
        header.status
    }

    pub async fn send(&mut self, command: u32, status: u32, sequence: u32, body: &[u8]) {
        let mut out = Vec::new();
        pdu::write(&mut out, command, status, sequence, |out| out.extend_from_slice(body));
        self.write(&out).await;
    }

    pub async fn write(&mut self, octets: &[u8]) {
        self.stream.write_all(octets).await.expect("the simulator reads");
    }

    pub async fn submit(&mut self, sequence: u32, number: u64) {
        self.send(command::SUBMIT_SM, 0, sequence, &pdu::tests::submit_body(&number.to_string(), 0, 0, b"Hello", &[])).await;
    }

    /// The next PDU; `None` when the simulator has closed.
    pub async fn read(&mut self) -> Option<(Header, Vec<u8>)> {
        loop {
            if let Some(header) = pdu::header(&self.input)
                && self.input.len() >= header.length
            {
                let rest = self.input.split_off(header.length);
                let whole = std::mem::replace(&mut self.input, rest);
                return Some((header, whole[pdu::HEADER..].to_vec()));
            }
            let mut buffer = [0; 65_536];
            let read =
                tokio::time::timeout(Duration::from_secs(10), self.stream.read(&mut buffer)).await.expect("an answer in time");
            match read {
                Ok(0) | Err(_) => return None,
                Ok(octets) => self.input.extend_from_slice(&buffer[..octets]),
            }
        }
    }

    /// Submits and reads the answer: status and id.
    pub async fn ask(&mut self, sequence: u32, body: &[u8]) -> (u32, String) {
        self.send(command::SUBMIT_SM, 0, sequence, body).await;
        self.read_answer(sequence).await
    }

    /// Reads the answer to a submit.
    pub async fn read_answer(&mut self, sequence: u32) -> (u32, String) {
        let (header, body) = self.read().await.expect("an answer");
        assert_eq!((header.command, header.sequence), (command::SUBMIT_SM | command::RESPONSE, sequence));
        (header.status, id(&body))
    }

    /// Reads a `deliver_sm`: its sequence number, and its body as text with NULs.
    pub async fn read_deliver(&mut self) -> (u32, String) {
        let (header, body) = self.read().await.expect("a deliver_sm");
        assert_eq!(header.command, command::DELIVER_SM);
        (header.sequence, String::from_utf8_lossy(&body).into_owned())
    }

    pub async fn acknowledge(&mut self, sequence: u32, status: u32) {
        self.send(command::DELIVER_SM | command::RESPONSE, status, sequence, b"\0").await;
    }
}

/// The id in the body of an answer.
pub fn id(body: &[u8]) -> String {
    String::from_utf8_lossy(body.strip_suffix(b"\0").unwrap_or(body)).into_owned()
}

/// Waits until the report is as `holds` says.
pub async fn until(simulator: &Simulator, holds: impl Fn(&crate::simulator::SimulatorReport) -> bool) {
    let wait = async {
        while !holds(&simulator.report()) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(10), wait).await.is_err() {
        panic!("it never came: {:?}", simulator.report());
    }
}

/// Posts JSON on a connection of its own: status, headers and body as they came.
pub async fn post(simulator: &Simulator, path: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(simulator.http_addr().expect("HTTP is on")).await.expect("it listens");
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("the simulator reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
    (status, answer)
}
