//! Connections that never become a call, and how fast one does.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fakes::*;
use crate::peek::client_hello::tests::rustls_hello;

/// How long a connection stays open after these bytes, and what it is answered.
async fn answer_to(setup: &Setup, bytes: &[u8]) -> (Duration, Vec<u8>) {
    let mut stream = tcp(setup.address).await;
    let began = Instant::now();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    let _reset_or_end = read.expect("closed in bounded time");
    (began.elapsed(), answer)
}

#[tokio::test]
async fn empty_slow_and_broken_clients_end_in_bounded_time() {
    let upstream = fake_provider(HOST, b"h2", answering("never")).await;
    let own = "127.0.0.1:9".parse().unwrap();
    let setup = setup_with(&upstream, |world| world.original_destination = own).await;
    let hello = rustls_hello(HOST, &[]);
    for bytes in [
        &b""[..],
        b"\x16",
        &hello[..100],
        b"\x16\x03\x01\0\0",
        b"GET / HTTP/1.1\r\n",
    ] {
        let (took, answer) = answer_to(&setup, bytes).await;
        assert!(took < Duration::from_secs(2), "{bytes:?} took {took:?}");
        assert!(answer.is_empty());
    }
    let told = setup.told();
    assert_eq!(told.len(), 5);
    // A silent client is passed on, and the address rules deny this host's own address.
    assert!(told[0].contains("this host's own"), "{told:?}");
    assert!(
        told[1].contains("in time") && told[3].contains("malformed"),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_provider_over_plain_http_gets_a_readable_refusal() {
    let upstream = fake_provider(HOST, b"h2", answering("never")).await;
    let setup = setup(&upstream).await;
    let request = format!("GET /v1/models HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let (_, answer) = answer_to(&setup, request.as_bytes()).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("guard_https_required"),
        "{answer}"
    );
}

#[tokio::test]
async fn an_unidentified_caller_is_told_so_and_reaches_nothing() {
    let upstream = fake_provider(HOST, b"h2", answering("never")).await;
    let setup = setup_with(&upstream, |world| world.anonymous = true).await;
    let (_, body) = text(setup.client(false).await.send(post(false, "m")).await).await;
    assert!(body.starts_with("guard_unidentified|"), "{body}");
    assert_eq!(upstream.connections.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn who_is_no_agents_passes_to_a_providers_address_too() {
    let upstream = fake_provider(HOST, b"h2", answering("never")).await;
    let own = "127.0.0.1:9".parse().unwrap();
    let setup = setup_with(&upstream, |world| {
        world.original_destination = own;
        world.bystander = true;
    })
    .await;
    answer_to(&setup, b"anything").await;
    // It got as far as the rules for the host's own addresses, which is where this test's provider is.
    let told = setup.told();
    assert!(told.len() == 1 && told[0].contains("this host's own"), "{told:?}");
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_root_is_reported() {
    let upstream = fake_provider(HOST, b"h2", answering("never")).await;
    let setup = setup(&upstream).await;
    let untrusting = crate::tls::tests::client(rustls::RootCertStore::empty(), &[]);
    let stream = tcp(setup.address).await;
    untrusting
        .connect(HOST.try_into().unwrap(), stream)
        .await
        .unwrap_err();
    drop(setup.client(false).await);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut told = setup.told();
    told.sort();
    assert_eq!(
        told,
        [
            format!("untrusted {HOST} no_request"),
            format!("untrusted {HOST} unknown_ca")
        ]
    );
}

#[tokio::test]
async fn a_new_connection_waits_for_no_delayed_acknowledgement() {
    let upstream = fake_provider(HOST, b"http/1.1", answering("usage=1")).await;
    let setup = setup(&upstream).await;
    let mut times = Vec::new();
    for _ in 0..21 {
        let began = Instant::now();
        let (status, _) = text(setup.client(false).await.send(post(false, "m")).await).await;
        assert!(status.is_success());
        times.push(began.elapsed());
    }
    times.sort();
    // Nagle's algorithm against delayed acknowledgements costs every connection 40 ms; this, two handshakes in a
    // debug build included, far less. The fastest one is looked at, so that a busy machine does not fail the test.
    assert!(
        times[0] < Duration::from_millis(20),
        "fastest {:?}, median {:?}",
        times[0],
        times[10]
    );
}
