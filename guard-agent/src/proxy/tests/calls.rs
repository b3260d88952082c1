//! One call at a time: what is changed, what is refused, what is settled.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use http_body_util::BodyExt;

use super::fakes::*;
use crate::llm::BodyEdits;

/// Answers with what it got.
fn echo() -> Handler {
    Arc::new(|request| {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let text = format!(
                "{:?} {} {}",
                parts.headers,
                parts.uri,
                String::from_utf8_lossy(&body)
            );
            http::Response::builder()
                .header("alt-svc", "h3=\":443\"")
                .header("x-echo", format!("key={REAL_KEY}"))
                .header("connection", "x-hop")
                .header("x-hop", "1")
                .header("x-kept", "1")
                .body(full(&text.replace(REAL_KEY, "REAL")))
                .unwrap()
        })
    })
}

#[tokio::test]
async fn the_callers_credential_is_taken_out_and_the_real_key_put_in() {
    for h2 in [false, true] {
        let upstream = fake_provider(HOST, b"http/1.1", echo()).await;
        let mut setup = setup(&upstream).await;
        let request = request(h2, Method::POST, "/v1/chat/completions?key=mine&a=1")
            .header("authorization", "Bearer placeholder")
            .header("x-api-key", "second")
            .body(full("model"))
            .unwrap();
        let response = setup.client(h2).await.send(request).await;
        for gone in ["alt-svc", "x-echo", "x-hop"] {
            assert!(!response.headers().contains_key(gone), "{gone}");
        }
        assert!(response.headers().contains_key("x-kept"));
        let (status, text) = text(response).await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains("Bearer REAL"), "{text}");
        for gone in ["placeholder", "second", "mine"] {
            assert!(!text.contains(gone), "{gone} in {text}");
        }
        assert!(text.contains("/v1/chat/completions?a=1 model"), "{text}");
        assert!(text.contains(&format!("\"host\": \"{HOST}\"")), "{text}");
        assert_eq!(
            *setup.world.presented.lock().unwrap(),
            ["placeholder", "second", "mine"]
        );
        let outcome = setup.outcome().await;
        assert!(outcome.forwarded && !outcome.client_gone);
        assert_eq!((outcome.status, outcome.request_bytes), (Some(StatusCode::OK), 5));
    }
}

#[tokio::test]
async fn a_login_passes_as_it_came() {
    let upstream = fake_provider(HOST, b"h2", echo_h2()).await;
    let setup = setup_with(&upstream, |world| world.pass_login = true).await;
    let request = request(false, Method::POST, "/v1/chat/completions").header("authorization", "Bearer own");
    let (_, text) = text(
        setup
            .client(false)
            .await
            .send(request.body(full("m")).unwrap())
            .await,
    )
    .await;
    assert_eq!(text, "Some(\"Bearer own\")");
}

/// HTTP/2 has no hop-by-hop headers to send.
fn echo_h2() -> Handler {
    Arc::new(|request| {
        let text = format!("{:?}", request.headers().get("authorization"));
        Box::pin(async move { http::Response::new(full(&text)) })
    })
}

#[tokio::test]
async fn a_compressed_body_goes_on_as_it_came_unless_it_is_edited() {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(b"model").unwrap();
    let packed = encoder.finish().unwrap();
    for edited in [false, true] {
        let upstream = fake_provider(HOST, b"http/1.1", echo()).await;
        let setup = setup_with(&upstream, |world| {
            if edited {
                world.edits = BodyEdits {
                    output_cap: Some(7),
                    include_usage: true,
                    ..BodyEdits::default()
                };
            }
        })
        .await;
        let body = http_body_util::Full::new(bytes::Bytes::from(packed.clone())).boxed_unsync();
        let request = request(false, Method::POST, "/v1/chat/completions")
            .header("content-encoding", "gzip")
            .header("accept-encoding", "br")
            .body(body)
            .unwrap();
        let (_, text) = text(setup.client(false).await.send(request).await).await;
        assert_eq!(text.contains("content-encoding"), !edited, "{text}");
        assert_eq!(text.ends_with("model+7"), edited, "{text}");
        assert_eq!(
            text.contains("\"accept-encoding\": \"identity\""),
            edited,
            "{text}"
        );
    }
}

#[tokio::test]
async fn usage_is_settled_once() {
    for (h2, alpn) in [
        (false, &b"h2"[..]),
        (true, b"h2"),
        (false, b"http/1.1"),
        (true, b"http/1.1"),
    ] {
        let upstream = fake_provider(HOST, alpn, answering("usage=42")).await;
        let mut setup = setup(&upstream).await;
        let (status, _) = text(setup.client(h2).await.send(post(h2, "m")).await).await;
        assert_eq!(status, StatusCode::OK);
        let outcome = setup.outcome().await;
        assert_eq!(outcome.facts.usage.unwrap().output, 42);
        assert_eq!(outcome.reply_bytes, 8);
        assert!(outcome.first_token.is_some() && !outcome.client_gone);
    }
}

#[tokio::test]
async fn another_authority_is_misdirected() {
    let upstream = fake_provider(HOST, b"h2", answering("never")).await;
    let setup = setup(&upstream).await;
    for h2 in [false, true] {
        let request = if h2 {
            http::Request::post("https://evil.example/v1/chat/completions")
        } else {
            http::Request::post("/v1/chat/completions").header("host", "evil.example")
        };
        let (status, body) = text(
            setup
                .client(h2)
                .await
                .send(request.body(full("m")).unwrap())
                .await,
        )
        .await;
        assert_eq!(status, StatusCode::MISDIRECTED_REQUEST);
        assert!(body.starts_with("guard_authority_mismatch|"), "{body}");
    }
    assert_eq!(upstream.connections.load(Ordering::Relaxed), 0);
    assert_eq!(
        setup.told(),
        ["refused /v1/chat/completions authority_mismatch"; 2]
    );
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let upstream = fake_provider(HOST, b"h2", answering("never")).await;
    let setup = setup(&upstream).await;
    for h2 in [false, true] {
        let (feed, never) = fed();
        let declared =
            request(h2, Method::POST, "/v1/chat/completions").header("content-length", "1000000000");
        let began = Instant::now();
        let response = setup.client(h2).await.send(declared.body(never).unwrap()).await;
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert!(began.elapsed() < Duration::from_secs(1), "without reading");
        drop(feed);
    }
    let (feed, chunked) = fed();
    let mut client = setup.client(true).await;
    let sending = async move {
        let chunk: &'static str = Box::leak("x".repeat(60_000).into_boxed_str());
        while feed.send(chunk).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let request = request(true, Method::POST, "/v1/chat/completions")
        .body(chunked)
        .unwrap();
    let response = tokio::select! {
        response = client.send(request) => response,
        () = sending => unreachable!(),
    };
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let long = http::Request::get("/")
        .header("host", HOST)
        .header("a", "b".repeat(17_000));
    let response = setup.client(false).await.send(long.body(full("")).unwrap()).await;
    assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}

#[tokio::test]
async fn upgrades_bad_bodies_and_unknown_endpoints_are_refused_in_the_providers_shape() {
    let upstream = fake_provider(HOST, b"h2", answering("never")).await;
    let setup = setup(&upstream).await;
    let upgrade = request(false, Method::GET, "/v1/chat/completions")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .body(full(""))
        .unwrap();
    let (status, body) = text(setup.client(false).await.send(upgrade).await).await;
    assert_eq!(status, StatusCode::UPGRADE_REQUIRED);
    assert!(body.starts_with("guard_upgrade_required|"), "{body}");
    let (status, body) = text(setup.client(true).await.send(post(true, "bad")).await).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body.starts_with("guard_malformed|bad body|"), "{body}");
    let files = request(true, Method::POST, "/v1/files").body(full("")).unwrap();
    let (_, body) = text(setup.client(true).await.send(files).await).await;
    assert!(body.starts_with("guard_endpoint_denied|no|"), "{body}");
    assert_eq!(upstream.connections.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_wrong_certificate_is_a_502_and_nothing_was_forwarded() {
    let upstream = fake_provider("other.example", b"h2", answering("never")).await;
    let mut setup = setup(&upstream).await;
    let (status, body) = text(setup.client(false).await.send(post(false, "m")).await).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(
        body.starts_with("guard_upstream|") && body.contains("certificate"),
        "{body}"
    );
    let outcome = setup.outcome().await;
    assert!(!outcome.forwarded && outcome.upstream_error.is_some());
}

#[tokio::test]
async fn an_unreachable_provider_is_a_502_and_nothing_was_forwarded() {
    let mut upstream = fake_provider(HOST, b"h2", answering("never")).await;
    upstream.address = "127.0.0.1:1".parse().unwrap();
    let mut setup = setup(&upstream).await;
    let (status, _) = text(setup.client(true).await.send(post(true, "m")).await).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(!setup.outcome().await.forwarded);
}

#[tokio::test]
async fn a_provider_that_breaks_off_may_have_billed() {
    let handler: Handler = Arc::new(|_| Box::pin(async { panic!("the provider dies") }));
    let upstream = fake_provider(HOST, b"http/1.1", handler).await;
    let mut setup = setup(&upstream).await;
    let (status, _) = text(setup.client(false).await.send(post(false, "m")).await).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    let outcome = setup.outcome().await;
    assert!(outcome.forwarded, "it had the request");
    assert_eq!(outcome.facts.usage, None);
}
