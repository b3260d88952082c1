use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::*;
use crate::clock;

/// A terminator for these hosts, and what a client needs to trust it.
pub(crate) fn terminator(hosts: &[&str]) -> (Terminator, rustls::RootCertStore) {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority::tests::authority(dir.path(), hosts);
    let mut roots = rustls::RootCertStore::empty();
    for certificate in authority.certificates() {
        roots.add(certificate).unwrap();
    }
    let leaves = Leaves::new(authority, clock::system()).unwrap();
    (Terminator::new(Arc::new(leaves)).unwrap(), roots)
}

/// A client that trusts these roots.
pub(crate) fn client(roots: rustls::RootCertStore, alpn: &[&[u8]]) -> TlsConnector {
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

async fn handshake(terminator: &Terminator, client: TlsConnector, name: &str) -> Result<bool, Distrust> {
    let (ours, theirs) = tokio::io::duplex(16 * 1024);
    let name = name.to_owned().try_into().unwrap();
    let (server, client) = tokio::join!(terminator.accept(ours), client.connect(name, theirs));
    drop(client);
    server.map(|stream| is_h2(&stream))
}

#[tokio::test]
async fn clients_get_the_protocol_that_they_offer() {
    let (terminator, roots) = terminator(&["api.openai.com"]);
    for (alpn, h2) in [
        (&[b"h2".as_slice(), b"http/1.1"][..], true),
        (&[b"http/1.1"], false),
        (&[], false),
    ] {
        let result = handshake(&terminator, client(roots.clone(), alpn), "api.openai.com").await;
        assert_eq!(result, Ok(h2));
    }
}

#[tokio::test]
async fn nothing_follows_the_handshake_before_the_client_has_asked() {
    let (terminator, roots) = terminator(&["api.openai.com"]);
    let (ours, theirs) = tokio::io::duplex(16 * 1024);
    let name = "api.openai.com".try_into().unwrap();
    let client = client(roots, &[]).connect(name, theirs);
    let (server, client) = tokio::join!(terminator.accept(ours), client);
    let (mut wire, session) = client.unwrap().into_inner();
    assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    let ticket = tokio::time::timeout(Duration::from_millis(50), wire.read_u8()).await;
    assert!(ticket.is_err(), "the server said something: {ticket:?}");
    drop(server);
}

#[tokio::test]
async fn failures_are_told_apart() {
    let (terminator, _) = terminator(&["api.openai.com"]);
    let untrusting = client(rustls::RootCertStore::empty(), &[]);
    let result = handshake(&terminator, untrusting, "api.openai.com").await;
    assert_eq!(result, Err(Distrust::UnknownCa));

    let (ours, mut theirs) = tokio::io::duplex(16 * 1024);
    theirs
        .write_all(&crate::peek::client_hello::tests::rustls_hello(
            "api.openai.com",
            &[],
        ))
        .await
        .unwrap();
    let (result, ()) = tokio::join!(terminator.accept(ours), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(theirs);
    });
    assert_eq!(result.map(|_| ()), Err(Distrust::Closed));
}
