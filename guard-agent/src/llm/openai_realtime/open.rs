//! How a realtime socket is opened: for one model, which its address names.

use super::request::Shape;
use super::session::Realtime;
use crate::call::parameters;
use crate::llm::Malformed;
use crate::llm::socket::{Opening, Session, SocketFormat};

/// This format over WebSocket.
pub(super) struct RealtimeSocket;

/// The one value of it.
pub(super) static SOCKET: RealtimeSocket = RealtimeSocket;

impl SocketFormat for RealtimeSocket {
    fn open(&self, opening: &Opening<'_>) -> Result<Box<dyn Session>, Malformed> {
        let (mut model, mut deployment) = (None, false);
        for (name, value) in parameters(opening.target.query().unwrap_or_default()) {
            // A provider reads `%6dodel` as `model`, and some read `Model` so.
            if name
                .bytes()
                .any(|byte| b"%+".contains(&byte) || byte.is_ascii_uppercase())
            {
                return Err(Malformed(
                    "write the names in the address as they are documented".to_owned(),
                ));
            }
            match name {
                "model" | "deployment" if model.is_none() => {
                    model = Some(value);
                    deployment = name == "deployment";
                }
                "model" | "deployment" => {
                    return Err(Malformed("the address names a model twice".to_owned()));
                }
                "intent" if value != "conversation" => {
                    return Err(Malformed(
                        "Guard meters conversations on this socket; have sound written down with the endpoint for \
                         transcriptions"
                            .to_owned(),
                    ));
                }
                "call_id" => {
                    return Err(Malformed(
                        "Guard cannot see what was said on a call that was opened elsewhere, so it joins none".to_owned(),
                    ));
                }
                _ => {}
            }
        }
        let model = model
            .and_then(crate::llm::detect::model_name)
            .ok_or_else(|| Malformed("the address names no model: add ?model=NAME".to_owned()))?;
        let beta = |value: &http::HeaderValue| value.as_bytes().starts_with(b"realtime=v1");
        // Browsers can set no header, and name it among the protocols.
        let protocol = |value: &http::HeaderValue| {
            let text = value.to_str().unwrap_or_default();
            text.split(',')
                .any(|name| name.trim() == "openai-beta.realtime-v1")
        };
        let headers = opening.headers;
        let preview = deployment
            || headers.get_all("openai-beta").iter().any(beta)
            || headers.get_all("sec-websocket-protocol").iter().any(protocol);
        Ok(Box::new(Realtime::new(
            model,
            if preview { Shape::Preview } else { Shape::Current },
        )))
    }
}
