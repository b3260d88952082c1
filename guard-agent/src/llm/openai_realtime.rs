//! OpenAI's realtime, over WebSocket: speech and text in both directions, and responses that the provider begins by itself
//! when somebody has stopped speaking.
//!
//! In: the messages of one socket. Out: what they ask for, whose they are, and what a response turned out to hold. On
//! failure: `Unfit`, told as the provider's own `error` event; the socket stays open.
//! What hands out a way to the provider past Guard (client secrets, calls over WebRTC and SIP) is no endpoint of this
//! format, so it is refused.
//! Sources: OpenAI's API reference and guides (realtime conversations, voice activity detection, costs), its SDK's types
//! `realtime_client_event` and `realtime_server_event`; for the earlier shapes Azure's reference of the preview.

use bytes::Bytes;
use http::Method;

use crate::llm::openai_chat::OPENAI;
use crate::llm::socket::SocketFormat;
use crate::llm::{
    BodyEdits, Dialect, DialectKind, EndpointKind, Malformed, RefusalReply, ReplyHead, ReplyReader,
    RequestFacts,
};
use crate::refusal::Refusal;

mod calls;
mod item;
mod length;
mod open;
pub(crate) mod reply;
mod request;
mod rewrite;
mod session;
mod setup;
mod sound;
mod told;
mod usage;

use request::Shape;

/// This format.
#[derive(Debug, Clone, Copy)]
pub struct OpenaiRealtime(Shape);

/// The one value of it.
pub static REALTIME: OpenaiRealtime = OpenaiRealtime(Shape::Current);

/// The same with the names of the preview.
static PREVIEW: OpenaiRealtime = OpenaiRealtime(Shape::Preview);

impl Dialect for OpenaiRealtime {
    fn kind(&self) -> DialectKind {
        DialectKind::OpenaiRealtime
    }

    fn endpoint(&self, _method: &Method, _path: &str) -> EndpointKind {
        EndpointKind::Other
    }

    fn request(&self, _body: &[u8]) -> Result<RequestFacts, Malformed> {
        Err(Malformed(
            "calls of this format are made on a WebSocket".to_owned(),
        ))
    }

    fn rewrite(&self, body: &Bytes, edits: &BodyEdits) -> Result<Bytes, Malformed> {
        if edits.is_empty() {
            return Ok(body.clone());
        }
        rewrite::rewrite(self.0, body, edits)
    }

    /// What is answered to the request for a socket, where that is none.
    fn reply(&self, head: &ReplyHead<'_>) -> Box<dyn ReplyReader> {
        OPENAI.reply(head)
    }

    fn refusal(&self, refusal: &Refusal, request_id: &str) -> RefusalReply {
        OPENAI.refusal(refusal, request_id)
    }

    fn socket(&self, path: &str) -> Option<&'static dyn SocketFormat> {
        matches!(path, "/realtime" | "/v1/realtime").then_some(&open::SOCKET)
    }
}
