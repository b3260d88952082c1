//! OpenAI's side of a realtime socket, as <https://platform.openai.com/docs/guides/realtime-conversations> has it: sessions
//! with turn detection, responses that are asked for and responses that nobody asks for. Every response is a request,
//! written down, and answered as the script says.
//!
//! Sound that is not silent is speech, and silence after it ends the turn.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::Method;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::{Fault, Pace, Reply, Seen, Shared, Tokens};

/// The response under way.
struct Running {
    id: String,
    seen: Seen,
    reply: Reply,
    spoken: bool,
    apart: bool,
    events: VecDeque<Value>,
    sent: usize,
}

struct Talk {
    shared: Arc<Shared>,
    opened: Seen,
    model: String,
    session: Value,
    speaks: bool,
    items: usize,
    out: VecDeque<Value>,
    running: Option<Running>,
    over: bool,
}

/// Serves one socket.
pub(super) async fn serve(shared: Arc<Shared>, opened: Seen, mut socket: WebSocketStream<TokioIo<Upgraded>>) {
    let model = opened.path.split_once("model=").map_or("", |(_, model)| model);
    let model = model.split('&').next().unwrap_or_default().to_owned();
    let session = json!({
        "type": "realtime", "object": "realtime.session", "id": "sess_lab", "model": model, "tools": [],
        "output_modalities": ["audio"], "max_output_tokens": "inf",
        "audio": {"input": {"format": {"type": "audio/pcm", "rate": 24000}, "transcription": null,
            "turn_detection": {"type": "server_vad", "create_response": true}}},
    });
    let mut talk = Talk {
        shared,
        opened,
        model,
        out: VecDeque::from([json!({"type": "session.created", "event_id": "event_0", "session": session})]),
        session,
        speaks: false,
        items: 0,
        running: None,
        over: false,
    };
    while !talk.over {
        while let Some(event) = talk.out.pop_front() {
            if socket.send(Message::text(event.to_string())).await.is_err() {
                return;
            }
        }
        tokio::select! {
            message = socket.next() => {
                let Some(Ok(message)) = message else { return };
                if let Message::Text(text) = message {
                    let event = serde_json::from_str(&text).unwrap_or_default();
                    talk.hear(&event, Bytes::from(text));
                }
            }
            () = pace(talk.running.as_ref()), if talk.running.is_some() => talk.go_on(),
        }
    }
}

async fn pace(running: Option<&Running>) {
    let Some(running) = running else { return };
    if let Some(gate) = running.reply.gate.as_ref().filter(|_| running.sent == 0) {
        gate.pass().await;
    }
    match &running.reply.pace {
        Pace::AtOnce => {}
        Pace::Every(time) => tokio::time::sleep(*time).await,
        Pace::Stepped(gate) => gate.pass().await,
    }
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

impl Talk {
    fn say(&mut self, event: Value) {
        self.out.push_back(event);
    }

    fn hear(&mut self, event: &Value, text: Bytes) {
        match event["type"].as_str().unwrap_or_default() {
            "session.update" => {
                merge(&mut self.session, &event["session"]);
                let session = self.session.clone();
                self.say(json!({"type": "session.updated", "event_id": "event_u", "session": session}));
            }
            "conversation.item.create" => {
                let mut item = event["item"].clone();
                self.items += 1;
                item["id"] = json!(format!("item_lab{}", self.items));
                self.say(json!({"type": "conversation.item.added", "event_id": "event_i", "item": item}));
                self.say(json!({"type": "conversation.item.done", "event_id": "event_i", "item": item}));
            }
            "response.create" => {
                let apart = event["response"]["conversation"] == "none";
                self.respond(text, false, apart, &event["event_id"]);
            }
            "response.cancel" => self.cancel(&event["event_id"]),
            "input_audio_buffer.append" => {
                let silent = event["audio"]
                    .as_str()
                    .unwrap_or_default()
                    .bytes()
                    .all(|byte| byte == b'A');
                self.listen(silent);
            }
            _ => self.fail(&event["event_id"], "unknown_type", "no such type of message"),
        }
    }

    fn fail(&mut self, named: &Value, code: &str, message: &str) {
        self.say(
            json!({"type": "error", "event_id": "event_e", "error": {"type": "invalid_request_error",
            "code": code, "message": message, "param": null, "event_id": named}}),
        );
    }

    fn listen(&mut self, silent: bool) {
        let was = std::mem::replace(&mut self.speaks, !silent);
        if !was && !silent {
            self.say(json!({"type": "input_audio_buffer.speech_started", "event_id": "event_s", "audio_start_ms": 0, "item_id": "item_heard"}));
            return;
        }
        let detection = &self.session["audio"]["input"]["turn_detection"];
        if !was || !silent || detection.is_null() {
            return;
        }
        let answers = detection["create_response"] != false;
        self.say(json!({"type": "input_audio_buffer.speech_stopped", "event_id": "event_s", "audio_end_ms": 900, "item_id": "item_heard"}));
        self.say(json!({"type": "input_audio_buffer.committed", "event_id": "event_s", "item_id": "item_heard", "previous_item_id": null}));
        let transcription = self.session["audio"]["input"]["transcription"]["model"].clone();
        if answers {
            let body = json!({"type": "response.create", "by": "the provider", "session": self.session});
            self.respond(Bytes::from(body.to_string()), true, false, &Value::Null);
        }
        if !transcription.is_null() {
            self.say(
                json!({"type": "conversation.item.input_audio_transcription.completed", "event_id": "event_t",
                "item_id": "item_heard", "content_index": 0, "transcript": "Hi there",
                "usage": {"type": "tokens", "total_tokens": 22, "input_tokens": 13, "output_tokens": 9,
                    "input_token_details": {"text_tokens": 0, "audio_tokens": 13}}}),
            );
        }
    }

    fn respond(&mut self, body: Bytes, spoken: bool, apart: bool, named: &Value) {
        if self.running.is_some() {
            let code = "conversation_already_has_active_response";
            return self.fail(
                named,
                code,
                "Conversation already has an active response in progress",
            );
        }
        // the script's answers are for calls, and calls are POSTs
        let (seen, reply, _) = self.shared.note(Seen {
            method: Method::POST,
            body,
            ..self.opened.clone()
        });
        if let Fault::Status(_) = reply.fault {
            return self.fail(named, "lab_fault", "as the script says");
        }
        let id = format!("resp_lab{:06}", seen.number);
        let asked: Value = seen.json();
        let modalities = [
            &asked["response"]["output_modalities"],
            &self.session["output_modalities"],
        ];
        let texts = modalities.into_iter().find(|set| set.is_array());
        let texts = texts.is_some_and(|set| set == &json!(["text"]));
        let mut running = Running {
            id,
            seen,
            reply,
            spoken,
            apart,
            events: VecDeque::new(),
            sent: 0,
        };
        running.script(texts);
        self.running = Some(running);
    }

    fn go_on(&mut self) {
        let Some(running) = &mut self.running else { return };
        if running.reply.fault == Fault::CutAfter(running.sent) {
            self.over = true;
            return;
        }
        running.sent += 1;
        match running.events.pop_front() {
            Some(event) => self.out.push_back(event),
            None => self.end("completed", None),
        }
    }

    fn end(&mut self, status: &str, made: Option<u64>) {
        let Some(running) = self.running.take() else {
            return;
        };
        let mut tokens = running.reply.tokens;
        tokens.output = made.unwrap_or(tokens.output);
        self.shared.bill(&running.seen, &self.model, tokens);
        let told = running.reply.stated().map(|stated| Tokens {
            output: made.unwrap_or(stated.output),
            ..stated
        });
        let audio = self.session["output_modalities"] != json!(["text"]);
        let usage = told.map(|told| usage(told, running.spoken, audio));
        let mut response = running.response(status);
        response["usage"] = usage.unwrap_or_default();
        if status == "completed" {
            response["output"] = json!([running.item("completed", true)]);
        }
        self.say(json!({"type": "response.done", "event_id": "event_d", "response": response}));
    }

    fn cancel(&mut self, named: &Value) {
        match &self.running {
            Some(running) => {
                let made = running.sent as u64;
                self.end("cancelled", Some(made));
            }
            None => self.fail(named, "response_cancel_not_active", "no active response found"),
        }
    }
}

fn usage(tokens: Tokens, spoken: bool, audio: bool) -> Value {
    let (heard, read) = if spoken {
        (tokens.input, 0)
    } else {
        (0, tokens.input)
    };
    let (voice, words) = if audio {
        (tokens.output, 0)
    } else {
        (0, tokens.output)
    };
    let input = tokens.input + tokens.cached;
    json!({
        "input_tokens": input, "output_tokens": tokens.output, "total_tokens": input + tokens.output,
        "input_token_details": {"text_tokens": read + tokens.cached, "audio_tokens": heard, "image_tokens": 0,
            "cached_tokens": tokens.cached,
            "cached_tokens_details": {"text_tokens": tokens.cached, "audio_tokens": 0, "image_tokens": 0}},
        "output_token_details": {"text_tokens": words, "audio_tokens": voice},
    })
}

impl Running {
    fn response(&self, status: &str) -> Value {
        let conversation = if self.apart {
            Value::Null
        } else {
            json!("conv_lab")
        };
        json!({"object": "realtime.response", "id": self.id, "status": status, "status_details": null, "output": [],
            "conversation_id": conversation, "usage": null})
    }

    fn item(&self, status: &str, whole: bool) -> Value {
        let id = format!("item_of_{}", self.id);
        match &self.reply.tool {
            Some((name, arguments)) => {
                let arguments = if whole { arguments.as_str() } else { "" };
                json!({"id": id, "object": "realtime.item", "type": "function_call", "status": status, "name": name,
                    "call_id": format!("call_{}", self.id), "arguments": arguments})
            }
            None => json!({"id": id, "object": "realtime.item", "type": "message", "status": status,
                "role": "assistant", "content": []}),
        }
    }

    fn script(&mut self, texts: bool) {
        let of = |kind: &str| {
            json!({"type": kind, "event_id": "event_r", "response_id": self.id,
            "item_id": format!("item_of_{}", self.id), "output_index": 0, "content_index": 0})
        };
        let with = |kind: &str, name: &str, value: Value| {
            let mut event = of(kind);
            event[name] = value;
            event
        };
        let started = self.item("in_progress", false);
        let done = self.item("completed", true);
        let mut events = vec![
            json!({"type": "response.created", "event_id": "event_r", "response": self.response("in_progress")}),
            with("response.output_item.added", "item", started.clone()),
        ];
        if !self.apart {
            events.push(json!({"type": "conversation.item.added", "event_id": "event_r", "item": started}));
        }
        match &self.reply.tool {
            Some((_, arguments)) => {
                events.push(with(
                    "response.function_call_arguments.delta",
                    "delta",
                    json!(arguments),
                ));
                events.push(with(
                    "response.function_call_arguments.done",
                    "arguments",
                    json!(arguments),
                ));
            }
            None => {
                for word in &self.reply.words {
                    if texts {
                        events.push(with("response.output_text.delta", "delta", json!(word)));
                        continue;
                    }
                    events.push(with(
                        "response.output_audio_transcript.delta",
                        "delta",
                        json!(word),
                    ));
                    events.push(with(
                        "response.output_audio.delta",
                        "delta",
                        json!("AAAA".repeat(100)),
                    ));
                }
            }
        }
        events.push(with("response.output_item.done", "item", done.clone()));
        if !self.apart {
            events.push(json!({"type": "conversation.item.done", "event_id": "event_r", "item": done}));
        }
        self.events = events.into();
    }
}
