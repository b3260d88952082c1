//! Gemini's Live, over WebSocket, by Google AI Studio and by Vertex AI: speech, pictures and text go in as they come, and
//! the model answers when it finds that somebody has stopped speaking.
//!
//! In: the messages of one socket. Out: what they lead to, whose they are, and what a turn of the model's turned out to
//! hold. On failure: `Unfit`, told as a message with Google's own error in it, for which the format has no other place;
//! the socket stays open, unless it was never set up.
//! A socket that is opened with a token of its own (`BidiGenerateContentConstrained`) is none of this format: what such a
//! token was made for is not in sight.
//! Sources: ai.google.dev/api/live, cloud.google.com/vertex-ai (`BidiGenerateContent`), the types of google-genai.

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use crate::llm::gemini::{GEMINI, rewrite};
use crate::llm::json_edit::Editor;
use crate::llm::socket::{Opening, Session, SocketFormat};
use crate::llm::{
    BodyEdits, Dialect, DialectKind, EndpointKind, Malformed, RefusalReply, ReplyHead, ReplyReader,
    RequestFacts, json_strict,
};
use crate::refusal::Refusal;

pub(crate) mod reply;
mod request;
mod session;
mod told;

/// Where Live is spoken, below `/ws`.
const PATHS: [&str; 5] = [
    "/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent",
    "/google.ai.generativelanguage.v1alpha.GenerativeService.BidiGenerateContent",
    "/google.ai.generativelanguage.v1.GenerativeService.BidiGenerateContent",
    "/google.cloud.aiplatform.v1beta1.LlmBidiService/BidiGenerateContent",
    "/google.cloud.aiplatform.v1.LlmBidiService/BidiGenerateContent",
];

/// This format.
#[derive(Debug, Clone, Copy)]
pub struct GeminiLive;

/// The one value of it.
pub static LIVE: GeminiLive = GeminiLive;

impl Dialect for GeminiLive {
    fn kind(&self) -> DialectKind {
        DialectKind::GeminiLive
    }

    fn endpoint(&self, _method: &Method, _path: &str) -> EndpointKind {
        EndpointKind::Other
    }

    fn request(&self, _body: &[u8]) -> Result<RequestFacts, Malformed> {
        Err(Malformed(
            "calls of this format are made on a WebSocket".to_owned(),
        ))
    }

    /// What is edited is the setup, which is written as a request's head is.
    fn rewrite(&self, body: &Bytes, edits: &BodyEdits) -> Result<Bytes, Malformed> {
        if edits.is_empty() {
            return Ok(body.clone());
        }
        let (text, _) = json_strict::survey(body, &[])?;
        let mut editor = Editor::new(text);
        let root = editor.root()?;
        let setup = root.get_set("setup");
        let setup = setup.ok_or_else(|| Malformed("only a setup can be changed".to_owned()))?;
        let inner = Bytes::copy_from_slice(setup.value.as_bytes());
        let changed = rewrite::rewrite(&inner, edits)?;
        let changed = String::from_utf8(changed.into())
            .map_err(|_not_text| Malformed("the setup can't be changed".to_owned()))?;
        editor.replace(setup, changed);
        editor.apply().map(Bytes::from)
    }

    /// What is answered to the request for a socket, where that is none.
    fn reply(&self, head: &ReplyHead<'_>) -> Box<dyn ReplyReader> {
        GEMINI.reply(head)
    }

    fn refusal(&self, refusal: &Refusal, request_id: &str) -> RefusalReply {
        GEMINI.refusal(refusal, request_id)
    }

    fn socket(&self, path: &str) -> Option<&'static dyn SocketFormat> {
        PATHS.contains(&path).then_some(&LIVE)
    }
}

impl SocketFormat for GeminiLive {
    fn open(&self, _opening: &Opening<'_>) -> Result<Box<dyn Session>, Malformed> {
        Ok(Box::new(session::Live::default()))
    }
}

/// A message with this refusal. Google's clients read the status beside the error, and show both.
fn error(refusal: &Refusal, request_id: &str) -> Value {
    let reply = GEMINI.refusal(refusal, request_id);
    let mut body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    let code = body.get("error").and_then(|error| error.get("code")).cloned();
    if let (Some(code), Some(body)) = (code, body.as_object_mut()) {
        body.insert("code".to_owned(), code);
    }
    body
}
