//! Sockets: every message that asks for a response is a call of its own, and whatever ends a socket settles what was on it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::StatusCode;
use http::header::{
    CONNECTION, HeaderMap, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{self, Message};

use super::fakes::*;
use crate::policy::Outcome;

type Provider = WebSocketStream<TokioIo<Upgraded>>;
type Agent = WebSocketStream<TlsStream<TcpStream>>;

/// Opens a socket for whoever asks and hands it to the test, with the headers of the request.
fn sockets(change: fn(&mut HeaderMap)) -> (mpsc::Receiver<(HeaderMap, Provider)>, Handler) {
    let (sender, opened) = mpsc::channel(4);
    let handler: Handler = Arc::new(move |mut request| {
        let sender = sender.clone();
        Box::pin(async move {
            let asked = request.headers().clone();
            let upgraded = hyper::upgrade::on(&mut request);
            let accept = derive_accept_key(asked[SEC_WEBSOCKET_KEY].as_bytes());
            tokio::spawn(async move {
                let Ok(stream) = upgraded.await else { return };
                let socket = WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Server, None).await;
                drop(sender.send((asked, socket)).await);
            });
            let mut response = http::Response::new(full(""));
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let headers = response.headers_mut();
            headers.insert(CONNECTION, "Upgrade".parse().unwrap());
            headers.insert(UPGRADE, "websocket".parse().unwrap());
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept.parse().unwrap());
            headers.insert("x-turn-state", "kept".parse().unwrap());
            change(headers);
            response
        })
    });
    (opened, handler)
}

struct Open {
    setup: Setup,
    agent: Agent,
    provider: Provider,
    asked: HeaderMap,
    answered: HeaderMap,
}

async fn connect(setup: &Setup, headers: &[(&str, &str)]) -> Result<(Agent, HeaderMap), tungstenite::Error> {
    let connector = crate::tls::tests::client(setup.roots.clone(), &[b"http/1.1"]);
    let stream = connector
        .connect(HOST.try_into().unwrap(), tcp(setup.address).await)
        .await
        .unwrap();
    let mut request = http::Request::get(format!("wss://{HOST}/v1/responses"))
        .header("host", HOST)
        .header("connection", "keep-alive, Upgrade")
        .header("upgrade", "WebSocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let opened = tokio_tungstenite::client_async(request.body(()).unwrap(), stream).await;
    opened.map(|(agent, answer)| (agent, answer.headers().clone()))
}

async fn open_with(change: impl FnOnce(&mut World)) -> Open {
    let (mut sockets, handler) = sockets(|_| {});
    let upstream = fake_provider(HOST, b"http/1.1", handler).await;
    let mut setup = setup_with(&upstream, change).await;
    let offered = [
        ("authorization", "Bearer placeholder"),
        (
            "sec-websocket-extensions",
            "permessage-deflate; client_max_window_bits",
        ),
        ("session_id", "s-1"),
    ];
    let (agent, answered) = connect(&setup, &offered).await.unwrap();
    let (asked, provider) = sockets.recv().await.unwrap();
    let opening = next_outcome(&mut setup).await;
    assert_eq!(opening.status, Some(StatusCode::SWITCHING_PROTOCOLS));
    Open {
        setup,
        agent,
        provider,
        asked,
        answered,
    }
}

async fn open() -> Open {
    open_with(|_| {}).await
}

async fn next_outcome(setup: &mut Setup) -> Outcome {
    let outcome = tokio::time::timeout(Duration::from_secs(5), setup.outcomes.recv()).await;
    outcome.expect("settled in time").unwrap()
}

fn create(model: &str) -> String {
    json!({"type": "response.create", "model": model, "input": "hi"}).to_string()
}

fn created(lane: Option<&str>) -> String {
    laned(
        json!({"type": "response.created", "response": {"id": "r", "object": "response"}}),
        lane,
    )
}

fn completed(output: u64, lane: Option<&str>) -> String {
    let usage = json!({"input_tokens": 10, "output_tokens": output, "total_tokens": 10 + output});
    let response =
        json!({"id": "r", "object": "response", "status": "completed", "output": [], "usage": usage});
    laned(json!({"type": "response.completed", "response": response}), lane)
}

fn laned(mut event: Value, lane: Option<&str>) -> String {
    if let Some(lane) = lane {
        event["stream_id"] = json!(lane);
    }
    event.to_string()
}

async fn say<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    text: &str,
) {
    socket.send(Message::text(text)).await.unwrap();
}

async fn next<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
) -> Message {
    let next = tokio::time::timeout(Duration::from_secs(5), socket.next()).await;
    next.expect("a message in time").expect("open").unwrap()
}

async fn hear<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
) -> String {
    next(socket).await.into_text().unwrap().to_string()
}

async fn closed<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
) -> CloseCode {
    match next(socket).await {
        Message::Close(Some(frame)) => frame.code,
        other => panic!("{other:?}"),
    }
}

async fn silent<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>) {
    let heard = tokio::time::timeout(Duration::from_millis(150), socket.next()).await;
    assert!(heard.is_err(), "{heard:?}");
}

fn error(text: &str) -> (u64, String) {
    let event: Value = serde_json::from_str(text).unwrap();
    assert_eq!(event["type"], "error", "{text}");
    let code = event["error"]["code"].as_str().unwrap().to_owned();
    (event["status"].as_u64().unwrap(), code)
}

#[tokio::test]
async fn the_key_goes_in_at_the_handshake_and_no_extension_is_agreed_to() {
    let open = open().await;
    assert_eq!(open.asked["authorization"], format!("Bearer {REAL_KEY}"));
    assert_eq!(open.asked["session_id"], "s-1");
    assert_ne!(open.asked[SEC_WEBSOCKET_KEY], "AAAAAAAAAAAAAAAAAAAAAA==");
    assert_eq!(open.answered["x-turn-state"], "kept");
    for headers in [&open.asked, &open.answered] {
        assert!(!headers.contains_key(SEC_WEBSOCKET_EXTENSIONS), "{headers:?}");
    }
}

#[tokio::test]
async fn a_key_among_the_subprotocols_is_judged_and_taken_out() {
    let (mut sockets, handler) = sockets(|headers| {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, "realtime".parse().unwrap());
    });
    let upstream = fake_provider(HOST, b"http/1.1", handler).await;
    let setup = setup(&upstream).await;
    let offered = "realtime, openai-insecure-api-key.placeholder";
    let (_agent, answered) = connect(&setup, &[("sec-websocket-protocol", offered)])
        .await
        .unwrap();
    let (asked, _provider) = sockets.recv().await.unwrap();
    assert_eq!(asked[SEC_WEBSOCKET_PROTOCOL], "realtime");
    assert_eq!(answered[SEC_WEBSOCKET_PROTOCOL], "realtime");
    assert_eq!(*setup.world.presented.lock().unwrap(), ["placeholder"]);
}

#[tokio::test]
async fn each_create_is_a_call_of_its_own_and_its_messages_pass_as_they_come() {
    let Open {
        mut setup,
        mut agent,
        mut provider,
        ..
    } = open().await;
    for turn in 1..=3 {
        let asked = create(&format!("m{turn}"));
        say(&mut agent, &asked).await;
        assert_eq!(hear(&mut provider).await, asked);
        for event in [created(None), completed(turn, None)] {
            // The provider says the next one only when the client has had the one before.
            say(&mut provider, &event).await;
            assert_eq!(hear(&mut agent).await, event);
        }
        let outcome = next_outcome(&mut setup).await;
        assert_eq!(outcome.facts.usage.unwrap().output, turn);
        assert!(outcome.forwarded && !outcome.client_gone && outcome.first_token.is_some());
        assert_eq!(outcome.request_bytes, asked.len() as u64);
    }
    let decided = setup.world.decided.lock().unwrap();
    let models: Vec<_> = decided.iter().map(|facts| facts.model.clone()).collect();
    assert_eq!(models, ["", "m1", "m2", "m3"], "the handshake, then each call");
}

#[tokio::test]
async fn a_lane_has_one_call_at_a_time_and_lanes_do_not_wait_for_each_other() {
    let Open {
        mut setup,
        mut agent,
        mut provider,
        ..
    } = open().await;
    let in_lane = |lane: &str, model: &str| {
        json!({"type": "response.create", "model": model, "stream_id": lane, "input": "hi"}).to_string()
    };
    let asked = [in_lane("a", "m1"), in_lane("a", "m2"), in_lane("b", "m3")];
    for message in &asked {
        say(&mut agent, message).await;
    }
    assert_eq!(hear(&mut provider).await, asked[0]);
    assert_eq!(hear(&mut provider).await, asked[2]);
    silent(&mut provider).await;
    assert_eq!(
        setup.world.decided.lock().unwrap().len(),
        3,
        "what waits is undecided"
    );
    say(&mut provider, &completed(3, Some("b"))).await;
    assert_eq!(next_outcome(&mut setup).await.facts.usage.unwrap().output, 3);
    say(&mut provider, &completed(1, Some("a"))).await;
    assert_eq!(next_outcome(&mut setup).await.facts.usage.unwrap().output, 1);
    assert_eq!(hear(&mut provider).await, asked[1]);
    // A client that asks for more than may wait is told so.
    for _ in 0..40 {
        say(&mut agent, &asked[1]).await;
    }
    let told = loop {
        let text = hear(&mut agent).await;
        if text.contains("\"error\"") {
            break text;
        }
    };
    assert_eq!(error(&told), (429, "guard_in_flight".to_owned()));
    assert!(told.contains("\"stream_id\":\"a\""), "{told}");
}

#[tokio::test]
async fn a_refused_call_is_an_error_message_and_the_socket_goes_on() {
    let Open {
        mut setup,
        mut agent,
        mut provider,
        ..
    } = open().await;
    for (message, code) in [
        (create("denied"), "guard_model_denied"),
        ("{".to_owned(), "guard_malformed"),
        (
            json!({"type": "response.steer", "input": "x"}).to_string(),
            "guard_malformed",
        ),
    ] {
        say(&mut agent, &message).await;
        assert_eq!(error(&hear(&mut agent).await), (400, code.to_owned()));
    }
    agent.send(Message::binary(vec![1, 2])).await.unwrap();
    assert_eq!(error(&hear(&mut agent).await).1, "guard_malformed");
    say(&mut agent, &create("m")).await;
    assert_eq!(hear(&mut provider).await, create("m"), "nothing else had come");
    say(&mut provider, &completed(1, None)).await;
    next_outcome(&mut setup).await;
    assert_eq!(setup.told(), ["refused /v1/responses malformed"; 3]);
}

#[tokio::test]
async fn tools_that_were_declared_once_are_known_to_what_goes_on_from_there() {
    let Open {
        setup,
        mut agent,
        mut provider,
        ..
    } = open().await;
    let first = json!({"type": "response.create", "model": "m", "input": "hi",
        "tools": [{"type": "function", "name": "Read"}]});
    let goes_on = json!({"type": "response.create", "model": "m", "previous_response_id": "r", "input": []});
    let anew = json!({"type": "response.create", "model": "m", "input": "hi"});
    for message in [first, goes_on, anew] {
        say(&mut agent, &message.to_string()).await;
        hear(&mut provider).await;
        say(&mut provider, &completed(1, None)).await;
        hear(&mut agent).await;
    }
    let decided = setup.world.decided.lock().unwrap();
    let tools: Vec<usize> = decided.iter().map(|facts| facts.tools.len()).collect();
    assert_eq!(tools, [0, 1, 1, 0]);
    assert!(decided[2].unseen_input);
}

#[tokio::test]
async fn a_client_that_leaves_is_charged_with_what_its_calls_cost() {
    for orderly in [true, false] {
        let Open {
            mut setup,
            mut agent,
            mut provider,
            ..
        } = open().await;
        say(&mut agent, &create("m")).await;
        hear(&mut provider).await;
        say(&mut provider, &created(None)).await;
        hear(&mut agent).await;
        let code = CloseFrame {
            code: CloseCode::Library(4001),
            reason: "bye".into(),
        };
        if orderly {
            agent.close(Some(code)).await.unwrap();
            assert_eq!(closed(&mut agent).await, CloseCode::Library(4001));
        } else {
            drop(agent);
        }
        silent(&mut provider).await;
        assert!(setup.outcomes.try_recv().is_err(), "read on, not settled yet");
        say(&mut provider, &completed(9, None)).await;
        let outcome = next_outcome(&mut setup).await;
        assert!(outcome.client_gone);
        assert_eq!(outcome.facts.usage.unwrap().output, 9);
        match next(&mut provider).await {
            Message::Close(frame) => assert_eq!(frame.is_some(), orderly, "the client's code goes on"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_provider_that_leaves_leaves_usage_unknown_and_its_code_reaches_the_client() {
    for orderly in [true, false] {
        let Open {
            mut setup,
            mut agent,
            mut provider,
            ..
        } = open().await;
        say(&mut agent, &create("m")).await;
        hear(&mut provider).await;
        say(&mut provider, &created(None)).await;
        hear(&mut agent).await;
        if orderly {
            let frame = CloseFrame {
                code: CloseCode::Library(4008),
                reason: "limit".into(),
            };
            provider.close(Some(frame)).await.unwrap();
        } else {
            drop(provider);
        }
        let code = closed(&mut agent).await;
        let wanted = if orderly {
            CloseCode::Library(4008)
        } else {
            CloseCode::Error
        };
        assert_eq!(code, wanted);
        let outcome = next_outcome(&mut setup).await;
        assert!(outcome.forwarded && outcome.upstream_error.is_some());
        assert_eq!(outcome.facts.usage, None);
    }
}

#[tokio::test]
async fn a_request_that_the_provider_refuses_has_the_providers_status() {
    let Open {
        mut setup,
        mut agent,
        mut provider,
        ..
    } = open().await;
    say(&mut agent, &create("m")).await;
    hear(&mut provider).await;
    let no = json!({"type": "error", "status": 404, "error": {"type": "invalid_request_error", "code": "x", "message": "y"}});
    say(&mut provider, &no.to_string()).await;
    assert_eq!(hear(&mut agent).await, no.to_string());
    let outcome = next_outcome(&mut setup).await;
    assert_eq!(outcome.status, Some(StatusCode::NOT_FOUND));
    say(&mut agent, &create("m")).await;
    assert_eq!(hear(&mut provider).await, create("m"), "the socket goes on");
}

#[tokio::test]
async fn a_response_that_nobody_asked_for_does_not_pass() {
    let Open {
        mut agent,
        mut provider,
        ..
    } = open().await;
    let aside = json!({"type": "codex.rate_limits", "limits": []}).to_string();
    say(&mut provider, &aside).await;
    assert_eq!(hear(&mut agent).await, aside);
    say(
        &mut provider,
        &json!({"type": "response.output_item.done", "item": {}}).to_string(),
    )
    .await;
    say(&mut provider, &created(None)).await;
    assert_eq!(closed(&mut agent).await, CloseCode::Error);
}

#[tokio::test]
async fn frames_that_are_compressed_or_too_large_end_the_socket_with_a_reason() {
    for (frame, code, reason) in [
        // Final, text, with the bit of permessage-deflate.
        (
            &[0xc1_u8, 0x81, 0, 0, 0, 0, b'x'][..],
            CloseCode::Protocol,
            "guard_malformed",
        ),
        // One million bytes announced.
        (
            &[0x81, 0xff, 0, 0, 0, 0, 0, 0x0f, 0x42, 0x40, 0, 0, 0, 0],
            CloseCode::Size,
            "guard_body_too_large",
        ),
        // Not masked.
        (&[0x81, 0x01, b'x'], CloseCode::Protocol, "guard_malformed"),
    ] {
        let Open {
            mut agent,
            provider: _open,
            ..
        } = open().await;
        agent.get_mut().write_all(frame).await.unwrap();
        assert_eq!(error(&hear(&mut agent).await), (400, reason.to_owned()));
        assert_eq!(closed(&mut agent).await, code);
    }
}

#[tokio::test]
async fn a_reply_ends_with_a_readable_event_when_the_run_s_time_is_over() {
    let Open {
        mut setup,
        mut agent,
        mut provider,
        ..
    } = open_with(|world| world.lasts = Some(Duration::from_millis(300))).await;
    say(&mut agent, &create("m")).await;
    hear(&mut provider).await;
    say(&mut provider, &created(None)).await;
    hear(&mut agent).await;
    let last = hear(&mut agent).await;
    assert!(
        last.contains("response.failed") && last.contains("the run is over"),
        "{last}"
    );
    assert_eq!(closed(&mut agent).await, CloseCode::Policy);
    let outcome = next_outcome(&mut setup).await;
    assert_eq!(outcome.cut, Some(crate::refusal::Reason::RunTimeout));
}

#[tokio::test]
async fn a_reply_that_outgrows_its_budget_ends_with_a_readable_event_and_the_provider_is_let_go() {
    let Open {
        mut setup,
        mut agent,
        mut provider,
        ..
    } = open_with(|world| world.room = Some(20)).await;
    say(&mut agent, &create("m")).await;
    hear(&mut provider).await;
    say(&mut provider, &created(None)).await;
    hear(&mut agent).await;
    let delta =
        json!({"type": "response.output_text.delta", "output_index": 0, "delta": "word ".repeat(200)});
    say(&mut provider, &delta.to_string()).await;
    assert_eq!(hear(&mut agent).await, delta.to_string());
    let last = hear(&mut agent).await;
    assert!(
        last.contains("response.failed") && last.contains("the money is spent"),
        "{last}"
    );
    assert_eq!(closed(&mut agent).await, CloseCode::Policy);
    assert_eq!(closed(&mut provider).await, CloseCode::Normal);
    let outcome = next_outcome(&mut setup).await;
    assert_eq!(outcome.cut, Some(crate::refusal::Reason::BudgetExceeded));
}

#[tokio::test]
async fn a_frozen_agent_s_socket_ends_with_a_readable_event_once_its_replies_have() {
    let Open {
        mut setup,
        mut agent,
        mut provider,
        ..
    } = open().await;
    say(&mut agent, &create("m")).await;
    hear(&mut provider).await;
    setup.world.frozen.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    say(&mut provider, &completed(5, None)).await;
    hear(&mut agent).await;
    assert_eq!(next_outcome(&mut setup).await.facts.usage.unwrap().output, 5);
    assert_eq!(error(&hear(&mut agent).await), (400, "guard_frozen".to_owned()));
    assert_eq!(closed(&mut agent).await, CloseCode::Policy);
}

#[tokio::test]
async fn a_drain_closes_sockets_at_rest_and_gives_the_others_their_last_words() {
    let Open {
        setup,
        mut agent,
        provider: _open,
        ..
    } = open().await;
    let finished = tokio::spawn(async move { setup.proxy.drain().finish(Duration::from_secs(5)).await });
    assert_eq!(closed(&mut agent).await, CloseCode::Restart);
    assert_eq!(finished.await.unwrap(), 0);

    let Open {
        mut setup,
        mut agent,
        mut provider,
        ..
    } = open().await;
    say(&mut agent, &create("m")).await;
    hear(&mut provider).await;
    let proxy = setup.proxy.clone();
    let finished = tokio::spawn(async move { proxy.drain().finish(Duration::from_millis(300)).await });
    let last = hear(&mut agent).await;
    assert!(
        last.contains("response.failed") && last.contains("restarted"),
        "{last}"
    );
    assert_eq!(closed(&mut agent).await, CloseCode::Restart);
    assert!(finished.await.unwrap() > 0);
    assert_eq!(
        next_outcome(&mut setup).await.cut,
        Some(crate::refusal::Reason::Stopping)
    );
}

#[tokio::test]
async fn another_answer_than_a_socket_reaches_the_client_and_is_settled() {
    let handler: Handler = Arc::new(|_| {
        Box::pin(async {
            http::Response::builder()
                .status(StatusCode::UNAUTHORIZED)
                .body(full("{\"error\":{}}"))
                .unwrap()
        })
    });
    let upstream = fake_provider(HOST, b"http/1.1", handler).await;
    let mut setup = setup(&upstream).await;
    match connect(&setup, &[]).await {
        Err(tungstenite::Error::Http(answer)) => assert_eq!(answer.status(), StatusCode::UNAUTHORIZED),
        other => panic!("{:?}", other.map(|_| ())),
    }
    assert_eq!(
        next_outcome(&mut setup).await.status,
        Some(StatusCode::UNAUTHORIZED)
    );
}

#[tokio::test]
async fn a_provider_that_agrees_to_what_was_not_offered_is_refused() {
    for change in [
        (|headers: &mut HeaderMap| {
            headers.insert(SEC_WEBSOCKET_EXTENSIONS, "permessage-deflate".parse().unwrap());
        }) as fn(&mut HeaderMap),
        |headers| {
            headers.insert(SEC_WEBSOCKET_ACCEPT, "AAAA".parse().unwrap());
        },
    ] {
        let (_sockets, handler) = sockets(change);
        let upstream = fake_provider(HOST, b"http/1.1", handler).await;
        let mut setup = setup(&upstream).await;
        match connect(&setup, &[]).await {
            Err(tungstenite::Error::Http(answer)) => assert_eq!(answer.status(), StatusCode::BAD_GATEWAY),
            other => panic!("{:?}", other.map(|_| ())),
        }
        assert!(next_outcome(&mut setup).await.upstream_error.is_some());
    }
}

#[tokio::test]
async fn a_handshake_that_is_none_is_refused() {
    let upstream = fake_provider(HOST, b"http/1.1", answering("never")).await;
    let setup = setup(&upstream).await;
    for (drop_header, wanted) in [
        ("sec-websocket-version", "400"),
        ("sec-websocket-key", "400"),
        ("connection", "400"),
        ("", "426"),
    ] {
        let connector = crate::tls::tests::client(setup.roots.clone(), &[b"http/1.1"]);
        let mut stream = connector
            .connect(HOST.try_into().unwrap(), tcp(setup.address).await)
            .await
            .unwrap();
        let path = if drop_header.is_empty() {
            "/v1/realtime"
        } else {
            "/v1/responses"
        };
        let mut text = format!("GET {path} HTTP/1.1\r\nhost: {HOST}\r\nupgrade: websocket\r\n");
        for (name, value) in [
            ("connection", "Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
        ] {
            if name != drop_header {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        stream.write_all(format!("{text}\r\n").as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, format!("HTTP/1.1 {wanted}").as_bytes(), "{drop_header}");
    }
    assert_eq!(upstream.connections.load(Ordering::Relaxed), 0);
}
