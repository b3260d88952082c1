//! Ollama's side of chat, as <https://docs.ollama.com/api/chat> has it: one object, or one a line.

use http::Method;
use serde_json::{Value, json};

use super::outcome::Content;
use super::{Answer, Reply, Seen};

pub(super) fn answer(seen: &Seen, reply: &Reply) -> Answer {
    if seen.method != Method::POST || seen.path != "/api/chat" {
        return Answer::json(404, json!({"error": "not found"}));
    }
    let request = seen.json();
    let model = request["model"].as_str().unwrap_or_default().to_owned();
    let line = |message: Value, done: bool| {
        let mut line =
            json!({"model": model, "created_at": "2026-11-24T00:00:00Z", "message": message, "done": done});
        if let (true, Some(tokens)) = (done, reply.stated()) {
            line["done_reason"] = json!("stop");
            line["prompt_eval_count"] = json!(tokens.input);
            line["eval_count"] = json!(tokens.output);
        }
        line
    };
    let said = |text: &str| match &reply.tool {
        Some((name, arguments)) => {
            let arguments: Value = serde_json::from_str(arguments).unwrap_or_default();
            json!({"role": "assistant", "content": "", "tool_calls": [{"function": {"name": name, "arguments": arguments}}]})
        }
        None => json!({"role": "assistant", "content": text}),
    };
    let mut answer = Answer::json(200, Value::Null);
    // Ollama streams unless it is told not to.
    answer.content = if request["stream"].as_bool() == Some(false) {
        Content::Json(line(said(&reply.text()), true))
    } else {
        let words: &[String] = if reply.tool.is_some() {
            &[String::new()]
        } else {
            &reply.words
        };
        let mut lines: Vec<String> = words
            .iter()
            .map(|word| format!("{}\n", line(said(word), false)))
            .collect();
        lines.push(format!(
            "{}\n",
            line(json!({"role": "assistant", "content": ""}), true)
        ));
        Content::Lines(lines)
    };
    answer.billed_model = Some(model.clone());
    answer
}

pub(super) fn unauthorized() -> Answer {
    Answer::json(401, json!({"error": "unauthorized"}))
}
