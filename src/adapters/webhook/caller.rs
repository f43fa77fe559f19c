//! One call: resolve, check, connect, write, read the answer's head.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use url::{Host, Url};

use super::address::is_public;
use super::rules::WebhookConfig;
use crate::adapters::secure;
use crate::model::code::{Code, Fault};
use crate::ports::caller::{Call, Called, Caller};
use crate::runtime::task;

/// Octets of an answer that are read, so that its connection can be used again.
const ANSWER_MAX: usize = 64 << 10;
/// How long a connection is kept without a call. Its address was checked at most this long ago.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// Connections kept for one target.
const IDLE_CONNECTIONS: usize = 4;
/// How long connecting may take, within the time of the call.
const CONNECT_MAX: Duration = Duration::from_secs(5);

type Resolving = Pin<Box<dyn Future<Output = std::io::Result<Vec<SocketAddr>>> + Send>>;
type Resolve = Arc<dyn Fn(String, u16) -> Resolving + Send + Sync>;
type Sender = SendRequest<Full<Bytes>>;
/// Scheme, host and port.
type Target = (String, String, u16);

/// Calls over HTTP/1.1.
pub struct HttpCaller {
    rules: WebhookConfig,
    tls: TlsConnector,
    resolve: Resolve,
    idle: Mutex<BTreeMap<Target, Vec<(Instant, Sender)>>>,
}

impl HttpCaller {
    /// A caller by these rules.
    ///
    /// # Errors
    /// [`Code::ProviderTls`] when TLS cannot be set up.
    pub fn new(rules: WebhookConfig) -> Result<HttpCaller, Fault> {
        let resolve: Resolve =
            Arc::new(|host, port| Box::pin(async move { Ok(tokio::net::lookup_host((host.as_str(), port)).await?.collect()) }));
        let tls = TlsConnector::from(Arc::new(secure::client_config(None)?));
        Ok(HttpCaller { rules, tls, resolve, idle: Mutex::default() })
    }

    /// The addresses of a URL, all of them checked.
    async fn addresses(&self, url: &Url) -> Result<Vec<SocketAddr>, String> {
        let port = url.port_or_known_default().ok_or("the url has no port")?;
        let addresses = match url.host() {
            Some(Host::Ipv4(address)) => vec![SocketAddr::new(IpAddr::V4(address), port)],
            Some(Host::Ipv6(address)) => vec![SocketAddr::new(IpAddr::V6(address), port)],
            Some(Host::Domain(name)) => {
                (self.resolve)(name.to_owned(), port).await.map_err(|_| "the host's name cannot be resolved".to_owned())?
            }
            None => vec![],
        };
        if addresses.is_empty() {
            return Err("the host's name has no address".into());
        }
        // One private address among public ones is enough to refuse: which one is taken must not decide.
        if !self.rules.allow_private && !addresses.iter().all(|address| is_public(address.ip())) {
            return Err("the host has an address that is not public (`webhooks.allow_private`)".into());
        }
        Ok(addresses)
    }

    async fn connect(&self, url: &Url) -> Result<Sender, String> {
        let mut last = String::new();
        for address in self.addresses(url).await? {
            let stream = match tokio::time::timeout(CONNECT_MAX, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    last = format!("no connection: {}", error.kind());
                    continue;
                }
                Err(_) => {
                    last = "no connection in time".into();
                    continue;
                }
            };
            // Without it calls are slower, nothing else.
            let _ = stream.set_nodelay(true);
            if url.scheme() != "https" {
                return speak(stream).await;
            }
            let name = match url.host() {
                Some(Host::Domain(name)) => {
                    ServerName::try_from(name.trim_end_matches('.').to_owned()).map_err(|_| "no such name")
                }
                Some(Host::Ipv4(address)) => Ok(ServerName::from(IpAddr::V4(address))),
                Some(Host::Ipv6(address)) => Ok(ServerName::from(IpAddr::V6(address))),
                None => Err("the url has no host"),
            };
            let tls = self.tls.connect(name?, stream).await.map_err(|error| format!("no safe connection: {}", error.kind()))?;
            return speak(tls).await;
        }
        Err(last)
    }

    fn take_idle(&self, target: &Target) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|_, kept| {
            kept.retain(|(since, sender)| since.elapsed() < IDLE_MAX && !sender.is_closed());
            !kept.is_empty()
        });
        idle.get_mut(target)?.pop().map(|(_, sender)| sender)
    }

    fn keep(&self, target: Target, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.entry(target).or_default();
        if kept.len() < IDLE_CONNECTIONS {
            kept.push((Instant::now(), sender));
        }
    }

    async fn call(&self, call: Call) -> Result<Called, String> {
        let url = self.rules.url(&call.url).map_err(|fault| fault.context)?;
        let port = url.port_or_known_default().unwrap_or(0);
        let target = (url.scheme().to_owned(), url.host_str().unwrap_or_default().to_owned(), port);
        if let Some(mut kept) = self.take_idle(&target)
            && let Ok(answer) = send(&mut kept, &url, &call).await
        {
            return Ok(self.finish(target, kept, answer).await);
        }
        // A connection that was kept may have been closed over there just now: that says nothing about the target.
        let mut sender = self.connect(&url).await?;
        let answer = send(&mut sender, &url, &call).await?;
        Ok(self.finish(target, sender, answer).await)
    }

    async fn finish(&self, target: Target, sender: Sender, answer: Response<hyper::body::Incoming>) -> Called {
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?));
        let called = Called { status: answer.status().as_u16(), retry_after };
        if Limited::new(answer.into_body(), ANSWER_MAX).collect().await.is_ok() {
            self.keep(target, sender);
        }
        called
    }
}

async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Result<Sender, String> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|_| "the target does not speak HTTP")?;
    // It ends with its sender; what goes wrong on it is told to whoever sends.
    task::spawn("webhook connection", async move {
        let _ = connection.await;
    });
    Ok(sender)
}

async fn send(sender: &mut Sender, url: &Url, call: &Call) -> Result<Response<hyper::body::Incoming>, String> {
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let host = match url.port() {
        Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
        None => url.host_str().unwrap_or_default().to_owned(),
    };
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(HOST, host)
        .header(USER_AGENT, concat!("smsfleet/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json");
    for (name, value) in &call.headers {
        request = request.header(*name, value);
    }
    let body = Full::new(Bytes::from(call.body.clone()));
    let request = request.body(body).map_err(|_| "the call cannot be written".to_owned())?;
    sender.ready().await.map_err(|_| "the connection was closed".to_owned())?;
    sender.send_request(request).await.map_err(|_| "the connection broke before an answer".to_owned())
}

/// A `Retry-After`: seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text.trim()).ok()?;
    Duration::try_from(at.duration_since(jiff::Timestamp::now())).ok()
}

#[async_trait::async_trait]
impl Caller for HttpCaller {
    async fn check(&self, url: &str) -> Result<(), Fault> {
        let url = self.rules.url(url)?;
        let checked = tokio::time::timeout(self.rules.timeout, self.addresses(&url)).await;
        match checked.unwrap_or_else(|_| Err("the host's name cannot be resolved in time".into())) {
            Ok(_) => Ok(()),
            Err(what) => Err(Fault::new(Code::InputInvalid, what)),
        }
    }

    async fn post(&self, call: Call) -> Result<Called, String> {
        match tokio::time::timeout(self.rules.timeout, self.call(call)).await {
            Ok(called) => called,
            Err(_) => Err("no answer in time".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::adapters::http::hostile_tests::{FLOOD, pour};

    fn caller(allow: &str, allow_private: bool, resolved: &'static [&'static str]) -> HttpCaller {
        let timeout = Duration::from_millis(500);
        let rules = WebhookConfig { allow: vec![allow.into()], allow_http: true, allow_private, timeout };
        let mut caller = HttpCaller::new(rules).expect("a caller");
        caller.resolve = Arc::new(move |_, port| {
            Box::pin(
                async move { Ok(resolved.iter().map(|ip| SocketAddr::new(ip.parse().expect("an address"), port)).collect()) },
            )
        });
        caller
    }

    fn call(url: &str) -> Call {
        Call { url: url.into(), headers: vec![("webhook-id", "msg_1".into())], body: b"{}".to_vec() }
    }

    #[tokio::test]
    async fn names_that_resolve_to_private_addresses_are_refused() {
        for resolved in [
            &["127.0.0.1"][..],
            &["1.1.1.1", "10.0.0.1"],
            &["::ffff:127.0.0.1"],
            &["169.254.169.254"],
            &["0.0.0.0"],
            &["fd00::1"],
        ] {
            let caller = caller("hooks.example.com", false, resolved);
            let fault = caller.check("http://hooks.example.com/").await.expect_err("it is private");
            assert!(fault.context.contains("not public"), "{resolved:?}: {fault}");
            assert!(caller.post(call("http://hooks.example.com/")).await.expect_err("it is private").contains("not public"));
        }
        caller("hooks.example.com", false, &["1.1.1.1"]).check("http://hooks.example.com/").await.expect("it is public");
        for url in ["http://127.0.0.1/", "http://2130706433/", "http://0x7f.1/", "http://0177.0.0.1/"] {
            assert!(caller("127.0.0.1", false, &[]).check(url).await.expect_err("it is private").context.contains("not public"));
        }
        assert!(caller("0.0.0.0", false, &[]).check("http://0/").await.is_err());
        assert!(caller("[::ffff:7f00:1]", false, &[]).check("http://[::ffff:127.0.0.1]/").await.is_err());
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_after_it_was_added_is_not_called() {
        let inside = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = inside.local_addr().expect("an address").port();
        let mut caller = caller("hooks.example.com", false, &[]);
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        caller.resolve = Arc::new(move |_, port| {
            let first = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
            let ip = if first { IpAddr::from([1, 1, 1, 1]) } else { IpAddr::from([127, 0, 0, 1]) };
            Box::pin(async move { Ok(vec![SocketAddr::new(ip, port)]) })
        });
        let url = format!("http://hooks.example.com:{port}/");
        caller.check(&url).await.expect("it is public when it is added");
        assert!(caller.post(call(&url)).await.expect_err("it is not any more").contains("not public"));
        let connected = tokio::time::timeout(Duration::from_millis(50), inside.accept()).await;
        assert!(connected.is_err(), "nobody was connected to");
    }

    /// A target that answers each request on one connection in turn.
    async fn target(answers: &'static [&'static str]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut seen = vec![0; 4096];
            for answer in answers {
                let read = stream.read(&mut seen).await.expect("a request");
                assert!(String::from_utf8_lossy(&seen[..read]).contains("webhook-id: msg_1"));
                stream.write_all(answer.as_bytes()).await.expect("it is written");
            }
            // Silent from here on.
            let _ = stream.read(&mut seen).await;
            std::future::pending::<()>().await;
        });
        address
    }

    #[tokio::test]
    async fn answers_are_read_redirects_are_not_followed_and_silence_ends() {
        let address = target(&[
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 2\r\n\r\nno",
            "HTTP/1.1 503 Later\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n",
        ])
        .await;
        // The name goes to exactly the address that was checked, and the connection is used again.
        let caller = caller("hooks.example.com", true, &["127.0.0.1"]);
        let url = format!("http://hooks.example.com:{}/hook?a=b", address.port());
        assert_eq!(caller.post(call(&url)).await, Ok(Called { status: 204, retry_after: None }));
        assert_eq!(caller.post(call(&url)).await, Ok(Called { status: 302, retry_after: None }));
        let later = Called { status: 503, retry_after: Some(Duration::from_secs(120)) };
        assert_eq!(caller.post(call(&url)).await, Ok(later));
        assert_eq!(caller.post(call(&url)).await, Err("no answer in time".into()));
    }

    /// Calls a target that says 200 and goes on in pieces for ever: what came back, and how many octets were taken until nobody
    /// took any more.
    async fn call_without_end(timeout: Duration, piece: usize, pause: Duration) -> (Result<Called, String>, usize) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://hooks.example.com:{}/", listener.local_addr().expect("an address").port());
        let mut caller = caller("hooks.example.com", true, &["127.0.0.1"]);
        caller.rules.timeout = timeout;
        let pouring = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut seen = vec![0; 4096];
            assert_ne!(stream.read(&mut seen).await.expect("a request"), 0);
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            pour(stream, head, piece, pause).await
        };
        let both = async { tokio::join!(caller.post(call(&url)), pouring) };
        tokio::time::timeout(Duration::from_secs(40), both).await.expect("the call ends, and its connection with it")
    }

    #[tokio::test]
    async fn an_answer_without_end_is_read_to_a_size_and_its_status_counts() {
        let (called, poured) = call_without_end(Duration::from_secs(30), 256 << 10, Duration::ZERO).await;
        assert_eq!(called, Ok(Called { status: 200, retry_after: None }));
        assert!(poured < FLOOD, "nobody stopped it after {poured} octets");
    }

    #[tokio::test]
    async fn an_answer_that_dribbles_for_ever_ends_by_the_time_of_a_call() {
        let (called, _) = call_without_end(Duration::from_millis(500), 1, Duration::from_millis(20)).await;
        assert_eq!(called, Err("no answer in time".into()));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after("30"), Some(Duration::from_secs(30)));
        assert!(retry_after("Fri, 31 Dec 2199 23:59:59 GMT").is_some_and(|after| after > Duration::from_secs(86_400)));
        assert_eq!(retry_after("Fri, 31 Dec 1999 23:59:59 GMT"), None);
        assert_eq!(retry_after("soon"), None);
    }
}
