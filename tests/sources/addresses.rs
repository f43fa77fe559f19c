//! Addresses: nothing in one reaches a place that the configuration does not name.

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::memory::InMemory;
use smsfleet::adapters::secret::Secret;
use smsfleet::adapters::source::{ListSource, ObjectStoreConfig, ObjectStores, StoreKind};
use smsfleet::model::code::Code;
use smsfleet::ports::source::{Source, SourceSpec};

use super::fault_of;

#[tokio::test]
async fn paths_from_the_network_stay_below_the_folders_that_are_allowed() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().canonicalize().expect("a folder");
    let (lists, other) = (root.join("lists"), root.join("lists-of-others"));
    for (path, text) in [("lists/a.csv", "x"), ("lists/below/b.csv", "x"), ("lists-of-others/c.csv", "x"), ("secret.csv", "x")] {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, text).expect("written");
    }
    std::os::unix::fs::symlink(root.join("secret.csv"), lists.join("out.csv")).expect("a link");
    std::os::unix::fs::symlink(&other, lists.join("out")).expect("a link");
    std::os::unix::fs::symlink("a.csv", lists.join("in.csv")).expect("a link");
    let source = ListSource::new(root.join("spool"));
    let folders = [lists.clone()];
    let check = |path: &str| source.check_address(path, true, &folders);
    let at = |path: &str| format!("{}/{path}", root.display());
    for (given, stored) in [
        ("lists/a.csv", "lists/a.csv"),
        ("lists/below", "lists/below"),
        ("lists", "lists"),
        ("lists/below/../a.csv", "lists/a.csv"),
        ("lists/in.csv", "lists/a.csv"),
    ] {
        assert_eq!(check(&at(given)), Ok(at(stored)), "the stored address has no links left");
    }
    for path in [
        "secret.csv",
        "lists/../secret.csv",
        "lists/out.csv",
        "lists/out/c.csv",
        "lists-of-others/c.csv",
        "lists/../no-such-file",
        "no-such-file",
        "",
    ] {
        fault_of(check(&at(path)), Code::SourceForbidden, "sources.folders");
    }
    fault_of(check("lists/a.csv"), Code::SourceForbidden, "no absolute path");
    fault_of(check(&at("lists/none.csv")), Code::SourceNotFound, "none.csv");
    fault_of(source.check_address(&at("lists/a.csv"), true, &[]), Code::SourceForbidden, "names no folder");
    assert_eq!(source.check_address(&at("secret.csv"), false, &folders), Ok(at("secret.csv")), "the operator may");
}

#[tokio::test]
async fn buckets_and_endpoints_that_are_not_named_are_refused() {
    let config = |kind, buckets: &[&str], account: &str| ObjectStoreConfig {
        kind,
        buckets: buckets.iter().map(|bucket| (*bucket).to_string()).collect(),
        access_key_id: "key".into(),
        secret: Secret::new("c2VjcmV0"),
        account: account.into(),
        ..ObjectStoreConfig::default()
    };
    let configs = BTreeMap::from([
        ("main".to_string(), config(StoreKind::S3, &["lists", "shared/in/", "shared/more/"], "")),
        ("blobs".to_string(), config(StoreKind::Azure, &["lists"], "acme")),
    ]);
    let stores = ObjectStores::new(&configs).expect("stores");
    let folder = tempfile::tempdir().expect("a folder");
    let source = ListSource::new(folder.path().join("spool")).with_objects(stores);
    let allowed = [
        "s3://lists/any/a.csv",
        "s3://lists",
        "s3://shared/in/a.csv",
        "s3://shared/in/",
        "s3://shared/more/below/",
        "az://lists/a.csv",
        "abfss://lists@acme.dfs.core.windows.net/a.csv",
        &format!("upload:{}", "0".repeat(64)),
    ];
    for address in allowed {
        assert_eq!(source.check_address(address, true, &[]), Ok(address.to_string()));
    }
    for address in [
        "s3://other/a.csv",
        "gs://lists/a.csv",
        "s3://shared/a.csv",
        "s3://shared/",
        "s3://shared/in",
        "s3://shared/inside/a.csv",
        "abfss://lists@evil.dfs.core.windows.net/a.csv",
    ] {
        // Reading refuses what checking refuses, whoever asks.
        fault_of(source.check_address(address, false, &[]), Code::SourceForbidden, "bucket");
        let spec = SourceSpec { table_name: address.to_string(), ..SourceSpec::default() };
        assert_eq!(source.plan(&spec, 1).await.map_err(|fault| fault.code), Err(Code::SourceForbidden), "{address}");
    }
    for address in ["s3://shared/in/../a.csv", "s3://user@lists/a.csv", "s3://lists:80/a", "http://127.0.0.1/a", "upload:../a"] {
        assert_eq!(source.check_address(address, true, &[]).map_err(|fault| fault.code), Err(Code::InputInvalid), "{address}");
    }
    let twice = BTreeMap::from([
        ("one".to_string(), config(StoreKind::S3, &["lists"], "")),
        ("two".to_string(), config(StoreKind::S3, &["lists"], "")),
    ]);
    fault_of(ObjectStores::new(&twice), Code::ConfigInvalid, "another store");
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_may_be_tried_again_and_is_named() {
    // A port that nobody listens on: it was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let config = ObjectStoreConfig {
        buckets: vec!["lists".into()],
        endpoint: format!("http://127.0.0.1:{port}"),
        allow_http: true,
        anonymous: true,
        retry_for: std::time::Duration::from_millis(300),
        ..ObjectStoreConfig::default()
    };
    let stores = ObjectStores::new(&BTreeMap::from([("main".to_string(), config)])).expect("stores");
    let folder = tempfile::tempdir().expect("a folder");
    let source = ListSource::new(folder.path().join("spool")).with_objects(stores);
    let spec = SourceSpec { table_name: "s3://lists/a.csv".into(), ..SourceSpec::default() };
    let fault = source.plan(&spec, 1).await.expect_err("nobody listens");
    assert!(fault.code == Code::SourceUnavailable && fault.code.retryable(), "{fault}");
    for says in ["s3://lists/a.csv", &format!("127.0.0.1:{port}"), "object_stores.main.endpoint", "refused"] {
        assert!(fault.context.contains(says), "{fault} does not say {says}");
    }
    let none = ListSource::new(folder.path().join("spool")).with_objects(ObjectStores::default().with_bucket(
        StoreKind::S3,
        "lists",
        Arc::new(InMemory::new()),
    ));
    fault_of(none.plan(&spec, 1).await, Code::SourceNotFound, "there is no such object");
}
