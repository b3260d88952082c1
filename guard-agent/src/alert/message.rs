//! What a web server is sent.

use serde::Serialize;

use super::Event;

#[derive(Serialize)]
struct Generic<'e> {
    version: u8,
    alert: &'e str,
    agent: Option<&'e str>,
    owner: Option<&'e str>,
    message: &'e str,
    time: String,
    id: &'e str,
}

#[derive(Serialize)]
struct Slack {
    text: String,
}

/// The alert as JSON.
pub(super) fn body(event: &Event, slack: bool) -> Result<Vec<u8>, serde_json::Error> {
    if !slack {
        return serde_json::to_vec(&Generic {
            version: 1,
            alert: &event.name,
            agent: event.agent.as_deref(),
            owner: event.owner.as_deref(),
            message: &event.message,
            time: event.time.to_string(),
            id: &event.id,
        });
    }
    let whose = match (&event.agent, &event.owner) {
        (Some(agent), Some(owner)) => format!(" (agent {agent}, owner {owner})"),
        (Some(agent), None) => format!(" (agent {agent})"),
        (None, _) => String::new(),
    };
    let text = format!("*Guard {}*{whose}: {}", event.name, event.message);
    serde_json::to_vec(&Slack { text: escaped(&text) })
}

/// Slack reads these three as its own marks (<https://docs.slack.dev/messaging/formatting-message-text>); a tool's name in
/// the text must not become a link or a call to everybody.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
