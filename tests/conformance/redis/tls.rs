//! TLS: encrypted, and only with whom the authorities vouch for.

use std::path::{Path, PathBuf};

use smsfleet::adapters::redis::client::Redis;
use smsfleet::adapters::redis::config::{RedisConfig, RedisTls};
use smsfleet::adapters::redis::lease::RedisLease;
use smsfleet::model::code::Code;
use smsfleet::ports::lease::Lease;

use super::config;
use super::server::Server;
use crate::servers::free_port;

/// A certificate for this machine that vouches for itself, and its key.
fn certificate(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate is made");
    let (cert, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
    std::fs::write(&cert, made.cert.pem()).expect("it is written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("it is written");
    (cert, key)
}

fn start(folder: &Path, (cert, key): &(PathBuf, PathBuf), clients: &str) -> (Server, String) {
    let tls_port = free_port();
    let path = |path: &Path| path.display().to_string();
    let options =
        ["--tls-port", &tls_port.to_string(), "--tls-cert-file", &path(cert), "--tls-key-file", &path(key), "--tls-auth-clients"];
    let ca = path(&folder.join("client.pem"));
    let server = Server::start(&[&options[..], &[clients, "--tls-ca-cert-file", &ca]].concat());
    (server, format!("127.0.0.1:{tls_port}"))
}

#[tokio::test]
async fn only_a_trusted_server_is_spoken_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let ours = certificate(folder.path(), "server");
    let (other, _) = certificate(folder.path(), "other");
    let client = certificate(folder.path(), "client");
    let (server, address) = start(folder.path(), &ours, "no");
    let with = |address: &str, ca: &Path| RedisConfig {
        tls: RedisTls { enabled: true, ca_file: Some(ca.to_owned()), ..RedisTls::default() },
        ..config(address)
    };
    let redis = Redis::connect(&with(&address, &ours.0), 1).await.expect("its certificate is trusted");
    assert_eq!(RedisLease::new(redis).acquire("leader", 1, std::time::Duration::from_secs(9)).await, Ok(true));

    let refused = async |config: RedisConfig| Redis::connect(&config, 1).await.err().expect("it is refused");
    let fault = refused(with(&address, &other)).await;
    assert!(fault.code == Code::ServerTls && fault.context.contains("redis.tls.ca_file"), "{fault}");
    // A server without TLS waits for the end of what it takes for a command.
    let plain = RedisConfig { connect_timeout: std::time::Duration::from_millis(500), ..with(&server.address(), &ours.0) };
    let fault = refused(plain).await;
    assert!(fault.code == Code::ServerUnavailable && fault.context.contains("redis.tls.enabled"), "{fault}");
    let fault = refused(config(&address)).await;
    assert!(fault.code == Code::ServerUnavailable && fault.context.contains("redis.tls.enabled"), "{fault}");
    let fault = refused(with(&address, &folder.path().join("none.pem"))).await;
    assert!(fault.code == Code::ServerTls && fault.context.contains("none.pem"), "{fault}");

    // A server that asks for our certificate.
    let (_strict, address) = start(folder.path(), &ours, "yes");
    let fault = refused(with(&address, &ours.0)).await;
    assert!(fault.context.contains("redis.tls."), "{fault}");
    let mut mutual = with(&address, &ours.0);
    (mutual.tls.certificate, mutual.tls.key) = (Some(client.0), Some(client.1));
    Redis::connect(&mutual, 1).await.expect("both know each other");
}
