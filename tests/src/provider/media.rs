//! OpenAI's side of speech and images, as its SDK's types have them.

use serde_json::{Value, json};

use super::outcome::Content;
use super::{Answer, Reply, Seen};

pub(super) fn answer(path: &str, seen: &Seen, reply: &Reply) -> Option<Answer> {
    let asked = |name: &str| field(seen, name);
    let streams =
        asked("stream").as_deref() == Some("true") || asked("stream_format").as_deref() == Some("sse");
    let model = asked("model").unwrap_or_default();
    let content = match path {
        "/v1/audio/transcriptions" | "/v1/audio/translations" if streams => {
            Content::Events(transcript_events(reply))
        }
        "/v1/audio/transcriptions" | "/v1/audio/translations" => Content::Json(transcript(&model, reply)),
        "/v1/audio/speech" => Content::Events(speech_events(reply)),
        "/v1/images/generations" | "/v1/images/edits" if streams => {
            Content::Events(image_events(path, reply))
        }
        "/v1/images/generations" | "/v1/images/edits" => {
            let count = asked("n").and_then(|n| n.parse().ok()).unwrap_or(1);
            Content::Json(images(count, reply))
        }
        _ => return None,
    };
    let mut answer = Answer::json(200, Value::Null);
    answer.content = content;
    answer.billed_model = Some(model);
    Some(answer)
}

/// A member of a JSON body, or a field of a form, as text.
fn field(seen: &Seen, name: &str) -> Option<String> {
    match &seen.json()[name] {
        Value::Null => {}
        Value::String(text) => return Some(text.clone()),
        other => return Some(other.to_string()),
    }
    let text = String::from_utf8_lossy(&seen.body).into_owned();
    let (_, rest) = text.split_once(&format!("name=\"{name}\"\r\n\r\n"))?;
    Some(rest.split("\r\n").next()?.to_owned())
}

/// OpenAI's first model of speech is billed by the second; the others by tokens.
fn transcript(model: &str, reply: &Reply) -> Value {
    let usage = if model == "whisper-1" {
        json!({"type": "duration", "seconds": reply.tokens.input})
    } else {
        heard(reply)
    };
    json!({"text": reply.text(), "usage": usage})
}

fn heard(reply: &Reply) -> Value {
    let (input, output) = (reply.tokens.input, reply.tokens.output);
    json!({"type": "tokens", "input_tokens": input, "output_tokens": output, "total_tokens": input + output,
        "input_token_details": {"text_tokens": 0, "audio_tokens": input}})
}

fn event(body: &Value) -> String {
    format!(
        "event: {}\ndata: {body}\n\n",
        body["type"].as_str().unwrap_or_default()
    )
}

fn transcript_events(reply: &Reply) -> Vec<String> {
    let words = reply
        .words
        .iter()
        .map(|word| event(&json!({"type": "transcript.text.delta", "delta": word})));
    let done = json!({"type": "transcript.text.done", "text": reply.text(), "usage": heard(reply)});
    words.chain([event(&done)]).collect()
}

fn speech_events(reply: &Reply) -> Vec<String> {
    let (input, output) = (reply.tokens.input, reply.tokens.output);
    let usage = json!({"input_tokens": input, "output_tokens": output, "total_tokens": input + output});
    vec![
        event(&json!({"type": "speech.audio.delta", "audio": "AAAA"})),
        event(&json!({"type": "speech.audio.done", "usage": usage})),
    ]
}

fn shown(reply: &Reply) -> Value {
    let (input, output) = (reply.tokens.input, reply.tokens.output);
    json!({"input_tokens": input, "input_tokens_details": {"text_tokens": input, "image_tokens": 0},
        "output_tokens": output, "total_tokens": input + output})
}

fn images(count: usize, reply: &Reply) -> Value {
    let image = json!({"b64_json": "AAAA"});
    json!({"created": 1, "data": vec![image; count], "usage": shown(reply)})
}

fn image_events(path: &str, reply: &Reply) -> Vec<String> {
    let kind = if path.ends_with("edits") {
        "image_edit"
    } else {
        "image_generation"
    };
    let same = json!({"b64_json": "AAAA", "created_at": 1, "size": "1024x1024", "quality": "high", "background": "opaque",
        "output_format": "png"});
    let of = |name: &str, more: Value| {
        let mut body = json!({"type": format!("{kind}.{name}")});
        for part in [same.clone(), more] {
            if let (Some(body), Value::Object(part)) = (body.as_object_mut(), part) {
                body.extend(part);
            }
        }
        event(&body)
    };
    vec![
        of("partial_image", json!({"partial_image_index": 0})),
        of("completed", json!({"usage": shown(reply)})),
    ]
}
