//! Speech heard and spoken, and images: OpenAI's endpoints, as Groq, xAI, Azure and others have them. Moderation is free;
//! video, text recognition and predictions are billed in ways that cannot be reserved.
//!
//! In: requests (JSON, and forms for uploads) and replies (JSON, events, audio, plain text). Out: facts, with the most that
//! the call can be billed for. On failure: `Malformed`, which becomes a 400 in OpenAI's shape. Nothing of a prompt, a
//! recording or an image is kept.
//! Sources: OpenAI's SDK types (`transcription_create_params`, `speech_create_params`, `image_generate_params`,
//! `image_edit_params`, `images_response`, `transcription_text_done_event`); console.groq.com/docs/speech-to-text;
//! docs.x.ai/developers/model-capabilities/images.

use bytes::Bytes;
use http::Method;

use crate::llm::openai_chat::COMPATIBLE;
use crate::llm::{
    BodyEdits, Dialect, DialectKind, EndpointKind, Malformed, Place, RefusalReply, ReplyHead, ReplyReader,
    RequestFacts,
};
use crate::refusal::Refusal;

mod audio;
mod form;
mod images;
mod lean;
mod reply;
mod speech;
mod transcription;
mod usage;

/// These endpoints.
#[derive(Debug, Clone, Copy)]
pub struct Media {
    /// Thousandths of a second that are billed for the shortest recording.
    least_millis: u64,
}

/// Recordings are billed by their length, however short they are.
pub static MEDIA: Media = Media { least_millis: 0 };

/// Groq bills ten seconds at least (console.groq.com/docs/speech-to-text: minimum billed length).
pub static GROQ: Media = Media { least_millis: 10_000 };

/// The endpoint's name, whatever version stands before it.
fn tail(path: &str) -> &str {
    path.strip_prefix("/v1").unwrap_or(path)
}

/// Checks that the body is said to be JSON, or nothing is said: another reader must not take it for something else.
fn is_json(content_type: Option<&str>) -> Result<(), Malformed> {
    let kind = content_type.map(|text| text.split(';').next().unwrap_or_default().trim());
    if kind.is_none_or(|kind| kind.eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    Err(Malformed("the content type is not application/json".to_owned()))
}

impl Dialect for Media {
    fn kind(&self) -> DialectKind {
        DialectKind::Media
    }

    fn endpoint(&self, method: &Method, path: &str) -> EndpointKind {
        let tail = tail(path);
        if method != Method::POST {
            return EndpointKind::Other;
        }
        let model_prediction = tail.starts_with("/models/") && tail.ends_with("/predictions");
        match tail {
            "/moderations" => EndpointKind::Free,
            "/audio/speech"
            | "/audio/transcriptions"
            | "/audio/translations"
            | "/images/generations"
            | "/images/edits" => EndpointKind::Inference,
            "/images/variations" | "/videos" | "/ocr" | "/predictions" => EndpointKind::Unpriced,
            _ if model_prediction => EndpointKind::Unpriced,
            _ => EndpointKind::Other,
        }
    }

    fn request(&self, _body: &[u8]) -> Result<RequestFacts, Malformed> {
        Err(Malformed("this endpoint is read with its path".to_owned()))
    }

    fn request_at(&self, place: &Place, body: &[u8]) -> Result<RequestFacts, Malformed> {
        let form = place.content_type.as_deref();
        let model = place.model.as_deref();
        match tail(&place.tail) {
            "/audio/speech" => speech::facts(form, body, model),
            "/audio/transcriptions" | "/audio/translations" => {
                transcription::facts(form, body, model, self.least_millis)
            }
            "/images/generations" | "/images/edits" => images::facts(form, body, model),
            _ => Err(Malformed("this endpoint is not metered".to_owned())),
        }
    }

    fn rewrite(&self, body: &Bytes, edits: &BodyEdits) -> Result<Bytes, Malformed> {
        if edits.is_empty() {
            return Ok(body.clone());
        }
        Err(Malformed("this body can't be changed".to_owned()))
    }

    fn reply(&self, head: &ReplyHead<'_>) -> Box<dyn ReplyReader> {
        Box::new(reply::Reader::new(head, self.least_millis))
    }

    fn refusal(&self, refusal: &Refusal, request_id: &str) -> RefusalReply {
        COMPATIBLE.refusal(refusal, request_id)
    }
}

#[cfg(test)]
mod tests;
