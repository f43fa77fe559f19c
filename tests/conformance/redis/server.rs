//! Servers of a test's own: started in a temporary folder on a free port, ended by their process id.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::servers::free_port;

/// A `redis-server`, which may be a Sentinel.
pub struct Server {
    pub port: u16,
    _folder: tempfile::TempDir,
    process: Child,
}

impl Server {
    /// A server that keeps nothing on disk, with these options more.
    pub fn start(options: &[&str]) -> Server {
        Server::start_at(free_port(), options)
    }

    pub fn start_at(port: u16, options: &[&str]) -> Server {
        let folder = tempfile::tempdir().expect("a folder");
        let mut all =
            vec!["--port".to_owned(), port.to_string(), "--save".into(), String::new(), "--appendonly".into(), "no".into()];
        all.extend(options.iter().map(|option| (*option).to_owned()));
        let server = Server { port, process: spawn(folder.path(), &all), _folder: folder };
        server.wait();
        server
    }

    /// A Sentinel that watches `primary` under the name "mymaster" and decides alone, fast.
    pub fn sentinel(primary: u16) -> Server {
        let (port, folder) = (free_port(), tempfile::tempdir().expect("a folder"));
        let file = folder.path().join("sentinel.conf");
        let text = format!(
            "sentinel monitor mymaster 127.0.0.1 {primary} 1\nsentinel down-after-milliseconds mymaster 500\n\
             sentinel failover-timeout mymaster 3000\n"
        );
        std::fs::write(&file, text).expect("it is written");
        let options = [&file.display().to_string(), "--sentinel", "--port", &port.to_string()].map(str::to_owned);
        let server = Server { port, process: spawn(folder.path(), &options), _folder: folder };
        server.wait();
        server
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn ask(&self, words: &[&str]) -> String {
        ask(&self.address(), words)
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Waits until it listens; a server with TLS or a password answers nothing more without them.
    fn wait(&self) {
        let began = Instant::now();
        while TcpStream::connect(self.address()).is_err() {
            assert!(began.elapsed() < Duration::from_secs(10), "redis-server does not come up on port {}", self.port);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(folder: &Path, options: &[String]) -> Child {
    let folder_option = folder.display().to_string();
    Command::new("redis-server")
        .args(options)
        .args(["--bind", "127.0.0.1", "--dir", &folder_option])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed: tests/run does that")
}

/// Sends a command to a server without TLS, and gives back what it answers: the text of a simple or bulk string, an error or
/// a number.
pub fn ask(address: &str, words: &[&str]) -> String {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(request.as_bytes()).expect("it is sent");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("it answers");
    let line = line.trim_end();
    match line.strip_prefix('$').map(|length| length.parse::<i64>().expect("a length")) {
        Some(length) if length >= 0 => {
            let mut body = vec![0; length as usize];
            reader.read_exact(&mut body).expect("all of it");
            String::from_utf8(body).expect("text")
        }
        Some(_) => String::new(),
        None => line.trim_start_matches([':', '+']).to_owned(),
    }
}
