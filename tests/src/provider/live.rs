//! Google's side of a Live socket, as <https://ai.google.dev/api/live> has it: the model takes a turn when it is told that
//! the user's is complete, when sound that is not silent is followed by silence, and when its tools have answered.
//! Messages are JSON in binary frames, as Google sends them.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::Method;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::{Pace, Seen, Shared, Tokens};

/// Serves one socket.
pub(super) async fn serve(shared: Arc<Shared>, opened: Seen, mut socket: WebSocketStream<TokioIo<Upgraded>>) {
    let (mut setup, mut speaks) = (Value::Null, false);
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        let event: Value = serde_json::from_str(&text).unwrap_or_default();
        let of = |names: [&str; 2]| {
            names
                .map(|name| event[name].clone())
                .into_iter()
                .find(|value| !value.is_null())
        };
        let mut heard = false;
        let mut answers = false;
        if event["setup"].is_object() {
            setup = event["setup"].clone();
            shared.note(Seen {
                method: Method::POST,
                body: Bytes::from(text.as_bytes().to_vec()),
                ..opened.clone()
            });
            if send(&mut socket, &json!({"setupComplete": {}})).await.is_none() {
                return;
            }
        } else if let Some(content) = of(["clientContent", "client_content"]) {
            answers = content["turnComplete"] == true || content["turn_complete"] == true;
        } else if of(["toolResponse", "tool_response"]).is_some() {
            answers = true;
        } else if let Some(input) = of(["realtimeInput", "realtime_input"]) {
            let sound = input["audio"]["data"].as_str().unwrap_or_default();
            let silent = sound.bytes().all(|byte| matches!(byte, b'A' | b'='));
            heard = std::mem::replace(&mut speaks, !silent) && silent;
        }
        if (heard || answers)
            && turn(&shared, &opened, &setup, heard, &text, &mut socket)
                .await
                .is_none()
        {
            return;
        }
    }
}

async fn send(socket: &mut WebSocketStream<TokioIo<Upgraded>>, message: &Value) -> Option<()> {
    let bytes = message.to_string().into_bytes();
    socket.send(Message::binary(bytes)).await.ok()
}

/// One turn of the model's, or the rest of it.
async fn turn(
    shared: &Shared,
    opened: &Seen,
    setup: &Value,
    heard: bool,
    text: &str,
    socket: &mut WebSocketStream<TokioIo<Upgraded>>,
) -> Option<()> {
    // the script's answers are for calls, and calls are POSTs
    let (seen, reply, _) = shared.note(Seen {
        method: Method::POST,
        body: Bytes::from(text.as_bytes().to_vec()),
        ..opened.clone()
    });
    let model = setup["model"]
        .as_str()
        .unwrap_or_default()
        .rsplit('/')
        .next()
        .unwrap_or_default();
    shared.bill(&seen, model, reply.tokens);
    let config = if setup["generationConfig"].is_null() {
        &setup["generation_config"]
    } else {
        &setup["generationConfig"]
    };
    let spoken = config["responseModalities"] != json!(["TEXT"]);
    let usage = reply.stated().map(|told| usage(told, heard, spoken));
    let with_usage = |mut message: Value| {
        if let Some(usage) = &usage {
            message["usageMetadata"] = usage.clone();
        }
        message
    };
    let mut messages = Vec::new();
    match &reply.tool {
        Some((name, arguments)) => {
            let args: Value = serde_json::from_str(arguments).unwrap_or_default();
            let call = json!({"id": format!("call_lab{}", seen.number), "name": name, "args": args});
            messages.push(with_usage(json!({"toolCall": {"functionCalls": [call]}})));
        }
        None => {
            for word in &reply.words {
                let part = match spoken {
                    true => {
                        json!({"inlineData": {"mimeType": "audio/pcm;rate=24000", "data": "AAAA".repeat(100)}})
                    }
                    false => json!({"text": word}),
                };
                messages.push(json!({"serverContent": {"modelTurn": {"role": "model", "parts": [part]}}}));
            }
            messages.push(json!({"serverContent": {"generationComplete": true}}));
            messages.push(with_usage(json!({"serverContent": {"turnComplete": true}})));
        }
    }
    for message in messages {
        if let Pace::Every(time) = &reply.pace {
            tokio::time::sleep(*time).await;
        }
        send(socket, &message).await?;
    }
    Some(())
}

fn usage(tokens: Tokens, heard: bool, spoken: bool) -> Value {
    let kind = |sound: bool| if sound { "AUDIO" } else { "TEXT" };
    json!({
        "promptTokenCount": tokens.input, "responseTokenCount": tokens.output,
        "totalTokenCount": tokens.input + tokens.output,
        "promptTokensDetails": [{"modality": kind(heard), "tokenCount": tokens.input}],
        "responseTokensDetails": [{"modality": kind(spoken), "tokenCount": tokens.output}],
    })
}
