//! Vertex AI's side: Google's own models and Anthropic's, each in its maker's format, below a path that names project,
//! location, publisher and model, as <https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest> has it.

use serde_json::json;

use super::{Answer, Reply, Seen, anthropic, gemini};

pub(super) fn answer(seen: &Seen, reply: &Reply) -> Answer {
    let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        [
            "",
            "v1" | "v1beta1",
            "projects",
            _,
            "locations",
            _,
            "publishers",
            "google",
            "models",
            operation,
        ] => {
            let mut plain = seen.clone();
            plain.path = format!("/v1beta/models/{operation}?{query}");
            gemini::answer(&plain, reply)
        }
        [
            "",
            "v1" | "v1beta1",
            "projects",
            _,
            "locations",
            _,
            "publishers",
            "anthropic",
            "models",
            operation,
        ] => match operation.rsplit_once(':') {
            Some((model, "rawPredict" | "streamRawPredict")) => claude(seen, model, reply),
            _ => missing(path),
        },
        _ => missing(path),
    }
}

/// The body is Anthropic's without a model, which stands in the path.
fn claude(seen: &Seen, model: &str, reply: &Reply) -> Answer {
    let mut plain = seen.clone();
    plain.path = "/v1/messages".to_owned();
    let mut body = seen.json();
    body["model"] = json!(model);
    plain.body = body.to_string().into();
    anthropic::answer(&plain, reply)
}

fn missing(path: &str) -> Answer {
    Answer::json(
        404,
        json!({"error": {"code": 404, "message": format!("no such method: {path}"), "status": "NOT_FOUND"}}),
    )
}
