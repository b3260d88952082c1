//! OpenAI's side of responses over WebSocket, as <https://platform.openai.com/docs/guides/websocket-mode> has it: every
//! `response.create` is a request, written down with its message as body, and answered as the script says; one at a time
//! in each lane.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::{Fault, Pace, Reply, Seen, Shared, Tokens, live, outcome, realtime, responses};

/// Whether a request asks for a socket.
pub(super) fn is_asked_for(request: &Request<Incoming>) -> bool {
    let upgrade = request.headers().get(header::UPGRADE);
    request.method() == Method::GET && upgrade.is_some_and(|upgrade| upgrade == "websocket")
}

/// Opens the socket.
pub(super) fn open(shared: &Arc<Shared>, seen: Seen, upgraded: OnUpgrade) -> Response<outcome::Body> {
    let mut response = outcome::empty();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let key = seen.header("sec-websocket-key").unwrap_or_default();
    let accept = derive_accept_key(key.as_bytes());
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        if let Ok(stream) = upgraded.await {
            let stream = TokioIo::new(stream);
            let socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
            match seen.path.split('/').nth(1) {
                Some("ws") => live::serve(shared, seen, socket).await,
                _ if seen.path.starts_with("/v1/realtime") => realtime::serve(shared, seen, socket).await,
                _ => serve(shared, seen, socket).await,
            }
        }
    });
    response
}

/// A message to send, or the end of the connection.
type Out = Option<String>;

async fn serve(shared: Arc<Shared>, opened: Seen, mut socket: WebSocketStream<TokioIo<Upgraded>>) {
    let (sender, mut out) = mpsc::channel::<Out>(1);
    let mut lanes: HashMap<String, mpsc::Sender<(Value, Bytes)>> = HashMap::new();
    loop {
        tokio::select! {
            message = socket.next() => {
                let Some(Ok(message)) = message else { return };
                let Message::Text(text) = message else { continue };
                let body: Value = serde_json::from_str(&text).unwrap_or_default();
                if body["type"] != "response.create" {
                    let no = error(400, "unknown_type", "no such type of message").to_string();
                    drop(socket.send(Message::text(no)).await);
                    continue;
                }
                let lane = body["stream_id"].as_str().unwrap_or_default().to_owned();
                let lane = lanes.entry(lane).or_insert_with(|| {
                    let (requests, asked) = mpsc::channel(64);
                    tokio::spawn(in_turn(shared.clone(), opened.clone(), asked, sender.clone()));
                    requests
                });
                drop(lane.send((body, Bytes::from(text))).await);
            }
            Some(message) = out.recv() => {
                // without a word: as a connection that breaks
                let Some(text) = message else { return };
                if socket.send(Message::Text(Utf8Bytes::from(text))).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn in_turn(
    shared: Arc<Shared>,
    opened: Seen,
    mut asked: mpsc::Receiver<(Value, Bytes)>,
    out: mpsc::Sender<Out>,
) {
    while let Some((body, text)) = asked.recv().await {
        // the script's answers are for calls, and calls are POSTs
        let (seen, reply, _) = shared.note(Seen {
            method: Method::POST,
            body: text,
            ..opened.clone()
        });
        if answer(&shared, &seen, &body, &reply, &out).await.is_none() {
            return;
        }
    }
}

/// Answers one request. `None`: the socket is gone.
async fn answer(
    shared: &Shared,
    seen: &Seen,
    body: &Value,
    reply: &Reply,
    out: &mpsc::Sender<Out>,
) -> Option<()> {
    let model = body["model"].as_str().unwrap_or_default();
    let lane = body["stream_id"].as_str();
    if let Fault::Status(status) = reply.fault {
        let no = laned(error(status, "lab_fault", "as the script says"), lane);
        return out.send(Some(no.to_string())).await.ok();
    }
    let id = format!("resp_lab{:06}", seen.number);
    let events = if body["generate"] == false {
        prepared(&id, model)
    } else {
        shared.bill(seen, model, reply.tokens);
        let stream = responses::stream(&id, model, reply, responses::called(body, reply));
        let data = stream.iter().filter_map(|event| event.split_once("data: "));
        data.filter_map(|(_, data)| serde_json::from_str(data.trim()).ok())
            .collect()
    };
    if let Some(gate) = &reply.gate {
        gate.pass().await;
    }
    tokio::time::sleep(reply.delay).await;
    for (number, event) in events.into_iter().enumerate() {
        match &reply.pace {
            Pace::AtOnce => {}
            Pace::Every(time) => tokio::time::sleep(*time).await,
            Pace::Stepped(gate) => gate.pass().await,
        }
        if reply.fault == Fault::CutAfter(number) {
            out.send(None).await.ok()?;
        }
        let text = match reply.fault {
            Fault::Garbage => "<not this format>".to_owned(),
            _ => laned(event, lane).to_string(),
        };
        out.send(Some(text)).await.ok()?;
    }
    Some(())
}

/// A request without output: nothing is made, and nothing is billed.
fn prepared(id: &str, model: &str) -> Vec<Value> {
    let nothing = Reply {
        words: Vec::new(),
        tokens: Tokens::default(),
        ..Reply::default()
    };
    let mut done = responses::whole(id, model, &nothing, None, "completed");
    done["output"] = json!([]);
    vec![
        json!({"type": "response.created", "sequence_number": 0,
            "response": responses::whole(id, model, &nothing, None, "in_progress")}),
        json!({"type": "response.completed", "sequence_number": 1, "response": done}),
    ]
}

fn error(status: u16, code: &str, message: &str) -> Value {
    json!({"type": "error", "status": status,
        "error": {"type": "invalid_request_error", "code": code, "message": message, "param": null}})
}

fn laned(mut event: Value, lane: Option<&str>) -> Value {
    if let Some(lane) = lane {
        event["stream_id"] = Value::from(lane);
    }
    event
}
