//! A password that changes while the account is used.

use super::server::{Peer, Rig, accepted, all_answers, chunk, rig};
use crate::adapters::secret::Secret;
use crate::ports::provider::Provider;

/// The next bind's password; it is answered with this status.
async fn bind(rig: &Rig, status: u32) -> (Peer, String) {
    let mut peer = rig.connected().await;
    let bind = peer.next().await.expect("a bind comes first");
    let texts: Vec<&[u8]> = bind.body[..].split(|octet| *octet == 0).collect();
    let password = String::from_utf8_lossy(texts[1]).into_owned();
    peer.send(bind.command | 0x8000_0000, status, bind.sequence, b"smsc\0").await;
    (peer, password)
}

#[tokio::test]
async fn a_changed_password_is_used_by_the_next_bind_and_a_session_that_is_bound_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("password");
    let change = |to: &str| {
        let new = folder.path().join("new");
        std::fs::write(&new, to).expect("a file");
        std::fs::rename(new, &path).expect("it is exchanged");
    };
    change("first");
    let setting = "accounts.test.smpp.password_file".to_owned();
    let rig = rig(|config, _| config.password = Secret::of_file(path.clone(), setting, "first".into())).await;
    let (mut peer, password) = bind(&rig, 0).await;
    assert_eq!(password, "first");
    change("second");
    let (asked, given) = chunk([1]);
    rig.account.submit(asked).await.expect("it is open");
    let (sequence, _) = peer.submit().await;
    peer.take(sequence, "id").await;
    assert_eq!(all_answers(given).await[&(1, 0)], accepted("id"), "the session goes on");
    drop(peer);
    let (refused, password) = bind(&rig, 0x0E).await;
    assert_eq!(password, "second", "a session that broke binds with the new one");
    change("third");
    drop(refused);
    // The one that was just refused may have been followed by another before the file was changed.
    let mut password = bind(&rig, 0x0E).await.1;
    if password == "second" {
        password = bind(&rig, 0).await.1;
    }
    assert_eq!(password, "third", "so does one that was refused");
}
