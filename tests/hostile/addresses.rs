//! Addresses that callers choose, of lists and of webhooks: none leads where the configuration does not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::{batch, call, configured, create, id_of, is_well, wait};
use crate::endtoend::fixture::{Place, list};
use crate::endtoend::service::Service;

/// A server that answers every request with the same words, and counts them.
struct Listening {
    at: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Listening {
    fn saying(answer: impl Fn(&str) -> String + Send + 'static) -> Listening {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = listener.local_addr().expect("an address");
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                count.fetch_add(1, Ordering::Relaxed);
                let mut request = [0; 4_096];
                let read = stream.read(&mut request).unwrap_or(0);
                let _ = stream.write_all(answer(&String::from_utf8_lossy(&request[..read])).as_bytes());
            }
        });
        Listening { at, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn from(table: &str) -> Value {
    json!({ "source": { "table_name": table }, "content": "Hello", "prepare": true })
}

#[test]
fn no_address_of_a_list_leads_where_the_configuration_does_not() {
    let inside = Listening::saying(|_| "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nphone\n".into());
    let place = Place::new(1, 1);
    let root = place.path("").canonicalize().expect("a folder").display().to_string();
    for folder in ["lists", "lists-of-others"] {
        std::fs::create_dir(place.path(folder)).expect("a folder");
        place.write(&format!("{folder}/a.csv"), list(3));
    }
    place.write("secret.csv", list(3));
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, place.path(name)).expect("a link");
    link("../secret.csv", "lists/out.csv");
    link("/", "lists/root");
    link("../smsfleet-data", "lists/data");
    link("/proc/self/environ", "lists/environ.csv");
    link("loop.csv", "lists/loop.csv");
    configured(
        &place,
        &format!(
            "[sources]\nfolders = [\"{root}/lists\"]\n[object_stores.main]\nbuckets = [\"lists\"]\nendpoint = \"http://{}\"\n\
             allow_http = true\nanonymous = true\nretry_for = 0.1\n",
            inside.at
        ),
    );
    let service = Service::start(place);
    let key = service.key("operator");
    let port = inside.at.port();
    let refused = [
        "/etc/passwd".to_owned(),
        "/etc/no-such-file".into(),
        "/proc/self/environ".into(),
        "/dev/zero".into(),
        "/dev/stdin".into(),
        "secret.csv".into(),
        "lists/a.csv".into(),
        "./lists/a.csv".into(),
        "../lists/a.csv".into(),
        "~/lists/a.csv".into(),
        format!("{root}/secret.csv"),
        format!("{root}/lists/../secret.csv"),
        format!("{root}/lists/../lists-of-others/a.csv"),
        format!("{root}/lists-of-others/a.csv"),
        format!("{root}/lists/out.csv"),
        format!("{root}/lists/root/etc/passwd"),
        format!("{root}/lists/root"),
        format!("{root}/lists/data/control.sock"),
        format!("{root}/lists/environ.csv"),
        format!("{root}/lists/loop.csv"),
        format!("{root}/lists/%2e%2e/secret.csv"),
        format!("{root}/lists/..\\secret.csv"),
        format!("{root}/lists/a.csv\0"),
        format!("{root}/lists/{}", "a/".repeat(100_000)),
        "file:///etc/passwd".into(),
        "FILE:///etc/passwd".into(),
        format!("file://{root}/lists/a.csv"),
        format!("http://127.0.0.1:{port}/a.csv"),
        format!("https://127.0.0.1:{port}/a.csv"),
        format!("http://localhost:{port}/a.csv"),
        format!("http://2130706433:{port}/a.csv"),
        format!("http://0x7f000001:{port}/a.csv"),
        format!("http://0177.0.0.1:{port}/a.csv"),
        format!("http://[::ffff:127.0.0.1]:{port}/a.csv"),
        format!("http://[::1]:{port}/a.csv"),
        "http://169.254.169.254/latest/meta-data/".into(),
        "http://metadata.google.internal/".into(),
        "gopher://127.0.0.1/".into(),
        "ftp://127.0.0.1/a.csv".into(),
        "jar:http://127.0.0.1/!/a.csv".into(),
        "data:text/csv,phone".into(),
        "php://input".into(),
        format!("s3://127.0.0.1:{port}/a.csv"),
        "s3://169.254.169.254/latest/meta-data".into(),
        format!("s3://lists@127.0.0.1:{port}/a.csv"),
        format!("s3://127.0.0.1:{port}@lists/a.csv"),
        "s3://lists/../other/a.csv".into(),
        "s3://lists/%2e%2e/other/a.csv?x=1#y\n".into(),
        "s3://other/a.csv".into(),
        "s3://2130706433/a.csv".into(),
        "gs://lists/a.csv".into(),
        "abfss://lists@127.0.0.1/a.csv".into(),
        "aztable://main/people".into(),
        "upload:../../secret.csv".into(),
        format!("upload:{}", "0".repeat(63)),
        String::new(),
        " ".into(),
        "\\\\127.0.0.1\\share\\a.csv".into(),
        "//127.0.0.1/share/a.csv".into(),
    ];
    let mut outside = vec![];
    for (at, table) in refused.iter().enumerate() {
        let answer = create(&service, &key, &format!("k{at}"), &from(table));
        assert!((400..500).contains(&answer.status), "{table:.80}: {answer:?}");
        // Dots that are written in another way are names like any other, and there is no such file.
        let expected: &[&str] =
            if table.contains("/lists/") { &["SF-1010", "SF-6002", "SF-1001"] } else { &["SF-1010", "SF-6002"] };
        assert!(expected.contains(&answer.code().as_str()), "{table:.80}: {answer:?}");
        if table.starts_with("/etc/") {
            outside.push(answer.json()["detail"].as_str().unwrap_or_default().replace(table.as_str(), "it"));
        }
    }
    assert_eq!(outside[0], outside[1], "what is there and what is not are refused alike: nobody feels around the disk");
    assert_eq!(inside.asked(), 0, "nobody was asked");
    // What is allowed works, by this very route.
    let id = id_of(&create(&service, &key, "good", &from(&format!("{root}/lists/a.csv"))));
    wait(&service, &key, &id, |batch| batch["plan"]["recipients"] == 3);
    is_well(&service);
    service.stop().ended(0);
}

#[test]
fn nobody_is_led_elsewhere_by_a_store() {
    let inside = Listening::saying(|_| {
        let list = list(3);
        format!(
            "HTTP/1.1 200 OK\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nETag: \"1\"\r\nContent-Length: {}\r\n\r\n{list}",
            list.len()
        )
    });
    let to = inside.at;
    let leading = Listening::saying(move |request| {
        let status = ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"][request.len() % 4];
        format!("HTTP/1.1 {status}\r\nLocation: http://{to}/lists/a.csv\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    });
    let place = Place::new(1, 1);
    let store = |kind: &str, more: &str| {
        format!(
            "[object_stores.{kind}]\nkind = \"{kind}\"\nbuckets = [\"lists\"]\nendpoint = \"http://{}\"\nallow_http = true\n\
             anonymous = true\nretry_for = 0.2\n{more}\n",
            leading.at
        )
    };
    configured(&place, &[store("s3", ""), store("azure", "account = \"acme\""), store("gcs", "")].concat());
    let service = Service::start(place);
    let key = service.key("operator");
    for (at, table) in [
        "s3://lists/a.csv",
        "s3://lists/aa.csv",
        "s3://lists/aaa.csv",
        "s3://lists/aaaa.csv",
        "az://lists/a.csv",
        "gs://lists/a.csv",
    ]
    .iter()
    .enumerate()
    {
        let before = leading.asked();
        let id = id_of(&create(&service, &key, &format!("k{at}"), &from(table)));
        crate::endtoend::fixture::until("the store was asked", || leading.asked() > before);
        call(&service, &key, "POST", &format!("/v1/batches/{id}/commands/cancel"), &Value::Null);
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(inside.asked(), 0, "a redirect was followed");
    is_well(&service);
    service.stop().ended(0);
}

#[test]
fn no_webhook_leads_inside() {
    let inside = Listening::saying(|_| "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into());
    let port = inside.at.port();
    let place = Place::new(1, 1);
    // Whoever is on the list may still have an address that nobody outside may reach.
    configured(
        &place,
        "[webhooks]\nallow = [\"localhost\", \"*.localhost\", \"127.0.0.1\", \"[::1]\", \"[::ffff:7f00:1]\", \"169.254.169.254\", \"10.0.0.1\", \
         \"hooks.example.com\"]\nallow_http = true\n",
    );
    let service = Service::start(place);
    let admin = service.key("admin");
    let urls = [
        format!("http://localhost:{port}/"),
        format!("http://LOCALHOST.:{port}/"),
        format!("http://127.0.0.1:{port}/"),
        format!("http://127.1:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://0x7f000001:{port}/"),
        format!("http://0x7f.0.0.1:{port}/"),
        format!("http://0177.0.0.1:{port}/"),
        format!("http://017700000001:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://[0:0:0:0:0:0:0:1]:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://[::ffff:7f00:1]:{port}/"),
        format!("http://0:{port}/"),
        format!("http://0.0.0.0:{port}/"),
        format!("http://[::]:{port}/"),
        format!("http://①②⑦.⓪.⓪.①:{port}/"),
        format!("http://１２７.0.0.1:{port}/"),
        format!("http://127。0。0。1:{port}/"),
        "http://169.254.169.254/latest/meta-data/".into(),
        "http://0xa9fea9fe/".into(),
        "http://10.0.0.1/".into(),
        "http://012.0.0.1/".into(),
        format!("http://hooks.example.com@127.0.0.1:{port}/"),
        format!("http://hooks.example.com:80@127.0.0.1:{port}/"),
        format!("http://127.0.0.1:{port}#@hooks.example.com/"),
        format!("http://127.0.0.1:{port}\\@hooks.example.com/"),
        format!("http://hooks.example.com.evil.test:{port}/"),
        format!("http://evil.test:{port}/?hooks.example.com"),
        "file:///etc/passwd".into(),
        format!("gopher://127.0.0.1:{port}/_POST"),
        "javascript:alert(1)".into(),
        "//127.0.0.1/".into(),
        format!("http://127.0.0.1:{port}/\r\nX-Injected: 1"),
        format!("https://127.0.0.1:{port}/"),
        format!("http://hooks.example.com/{}", "a".repeat(100_000)),
        String::new(),
    ];
    for url in &urls {
        let answer =
            call(&service, &admin, "POST", "/v1/webhooks", &json!({ "url": url, "events": ["batch", "receipt", "inbound"] }));
        assert_eq!((answer.status, answer.code().as_str()), (422, "SF-6002"), "{url:.80}: {answer:?}");
    }
    let hooks = call(&service, &admin, "GET", "/v1/webhooks", &Value::Null).json();
    assert_eq!(hooks["webhooks"], json!([]));
    // Something to tell of, had anybody been added.
    let id = id_of(&create(&service, &admin, "k", &batch("Hello", &[("+8613900000001", "a")])));
    wait(&service, &admin, &id, super::is_prepared);
    assert_eq!(inside.asked(), 0, "nobody was called");
    service.stop().ended(0);
}

#[test]
fn without_a_list_of_hosts_no_webhook_is_taken() {
    let inside = Listening::saying(|_| "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into());
    let service = Service::start(Place::new(1, 1));
    let admin = service.key("admin");
    for url in [format!("http://{}/", inside.at), "https://example.com/".into(), "https://8.8.8.8/".into(), "https://*/".into()] {
        let answer = call(&service, &admin, "POST", "/v1/webhooks", &json!({ "url": url, "events": ["batch"] }));
        assert_eq!((answer.status, answer.code().as_str()), (422, "SF-6002"), "{url}: {answer:?}");
    }
    assert_eq!(inside.asked(), 0);
    service.stop().ended(0);
}
