//! TLS towards an SMSC with a certificate made for the test.

use std::io::Write;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

use super::server::{accepted, all_answers, chunk, rig, within};
use crate::model::code::Code;
use crate::ports::provider::Provider;

#[tokio::test]
async fn messages_travel_encrypted_and_only_to_whom_the_certificate_names() {
    let made = rcgen::generate_simple_self_signed(["smsc.test".to_owned()]).expect("a certificate is made");
    let mut authorities = tempfile::NamedTempFile::new().expect("a file");
    authorities.write_all(made.cert.pem().as_bytes()).expect("it is written");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("they fit");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    for (name, trusted) in [("smsc.test", true), ("other.test", false)] {
        let rig = rig(|config, _| {
            config.tls.on = true;
            config.tls.ca_file = Some(authorities.path().to_owned());
            config.tls.server_name = Some(name.to_owned());
        })
        .await;
        let stream = rig.connected().await.stream;
        if !trusted {
            assert!(within(acceptor.accept(stream)).await.is_err(), "the client hangs up");
            rig.connected().await;
            assert_eq!(rig.account.health().last_error.map(|(code, _)| code), Some(Code::ProviderTls));
            continue;
        }
        let mut stream = within(acceptor.accept(stream)).await.expect("they shake hands");
        let (chunk, given) = chunk(0..2);
        rig.account.submit(chunk).await.expect("it is open");
        for count in 0..3u8 {
            let length = within(stream.read_u32()).await.expect("a PDU comes");
            let mut rest = vec![0; length as usize - 4];
            within(stream.read_exact(&mut rest)).await.expect("all of it");
            let mut answer = vec![0, 0, 0, 18, 0x80, 0, 0, rest[3], 0, 0, 0, 0];
            answer.extend(&rest[8..12]);
            answer.extend([b'0' + count, 0]);
            stream.write_all(&answer).await.expect("it is read");
            stream.flush().await.expect("it is read");
        }
        let answers = all_answers(given).await;
        assert_eq!(answers.into_values().collect::<Vec<_>>(), [accepted("1"), accepted("2")]);
    }
}
