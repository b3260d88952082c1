//! Replies of every format: what is learnt and what passes do not depend on where the reply is cut, and under tool rules
//! nothing of a denied call passes.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::{alike, pieces};
use crate::llm::gate::Unjudged;
use crate::llm::provider::dialect_of;
use crate::llm::{
    Denial, DialectKind, Gate, InReply, Judgement, ReplyFacts, ReplyHead, ReplyReader, eventstream,
};
use crate::refusal::{Reason, Refusal};

/// The bit of the first byte that says that the rest is a reply.
pub(super) const REPLY: u8 = 1;
const MEDIA_SHIFT: u8 = 1;
const HIDE: u8 = 1 << 3;
const GATE: u8 = 1 << 4;
const FAILED: u8 = 1 << 5;
const HOW_SHIFT: u8 = 6;

/// Media types, of which two bits of the first byte pick one.
const MEDIA: [&str; 4] = [
    "application/json",
    "text/event-stream; charset=utf-8",
    "",
    "text/plain",
];
const LINES: &str = "application/x-ndjson";
pub(super) const BINARY: &str = "application/vnd.amazon.eventstream";

/// The first byte for a reply of this media type.
#[cfg(test)]
pub(super) fn mode(media: &str, gated: bool, how: u8) -> u8 {
    let place = MEDIA.iter().position(|known| *known == media).unwrap_or(2);
    let place = u8::try_from(place).unwrap_or(2);
    REPLY | place << MEDIA_SHIFT | how << HOW_SHIFT | if gated { GATE } else { 0 }
}

fn media(kind: DialectKind, mode: u8) -> &'static str {
    match (MEDIA[usize::from(mode >> MEDIA_SHIFT & 3)], kind) {
        ("", DialectKind::Ollama) => LINES,
        ("", DialectKind::BedrockConverse | DialectKind::BedrockInvoke) => BINARY,
        (media, _) => media,
    }
}

/// Lets `Read` pass, `Bash` when its arguments are without `DENIED`, and nothing else; remembers what it was asked.
pub(crate) struct Rules {
    how: InReply,
    pub(super) denied: Mutex<Vec<String>>,
}

impl Rules {
    /// Denies in this way.
    pub(crate) fn new(how: InReply) -> Self {
        Self {
            how,
            denied: Mutex::default(),
        }
    }

    fn deny(&self, what: &str) -> Judgement {
        let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        denied.push(what.to_owned());
        Judgement::Deny(Box::new(self.unjudged(Unjudged::Call)))
    }
}

impl Gate for Rules {
    fn by_name(&self, name: &str) -> Judgement {
        match name {
            "Read" => Judgement::Pass,
            "Bash" => Judgement::Wait,
            _ => self.deny(name),
        }
    }
    fn by_arguments(&self, name: &str, arguments: &str) -> Judgement {
        if arguments.contains("DENIED") {
            self.deny(&format!("{name} {arguments}"))
        } else {
            Judgement::Pass
        }
    }
    fn unjudged(&self, _what: Unjudged) -> Denial {
        Denial {
            how: self.how,
            refusal: Refusal::new(Reason::ToolDenied, "NOTE"),
        }
    }
    fn request_id(&self) -> &'static str {
        "id-1"
    }
}

struct Case {
    kind: DialectKind,
    headers: HeaderMap,
    status: StatusCode,
    hide: bool,
}

impl Case {
    fn reader(&self, gate: Option<&Arc<dyn Gate>>) -> Box<dyn ReplyReader> {
        dialect_of(self.kind).reply(&ReplyHead {
            status: self.status,
            headers: &self.headers,
            hide_usage_event: self.hide,
            gate,
        })
    }

    fn read(&self, gate: Option<&Arc<dyn Gate>>, pieces: &[&[u8]]) -> (Bytes, ReplyFacts) {
        let (out, facts) = drain(self.reader(gate), pieces);
        (Bytes::from(out), facts)
    }
}

/// Reads a reply in pieces; gives what was forwarded and what was learnt.
pub(crate) fn drain(mut reader: Box<dyn ReplyReader>, pieces: &[&[u8]]) -> (Vec<u8>, ReplyFacts) {
    let mut out = Vec::new();
    for piece in pieces {
        out.extend_from_slice(&reader.feed(Bytes::copy_from_slice(piece)));
    }
    let (rest, facts) = reader.finish();
    out.extend_from_slice(&rest);
    (out, facts)
}

/// Checks one reply.
pub(super) fn check(kind: DialectKind, mode: u8, how: u8, rest: &[u8]) {
    let media = media(kind, mode);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    let failed = mode & FAILED != 0;
    let case = Case {
        kind,
        headers,
        status: if failed {
            StatusCode::BAD_GATEWAY
        } else {
            StatusCode::OK
        },
        hide: mode & HIDE != 0,
    };
    let body = if media == BINARY {
        binary(rest)
    } else {
        rest.to_vec()
    };
    let cut = pieces(&body, how);
    let plain = case.read(None, &[&body]);
    alike(&plain, &case.read(None, &cut), "in pieces");
    if !case.hide {
        assert!(plain.0 == body, "the bytes are not those of the provider");
    }
    assert!(plain.1.tools_denied.is_empty());
    if mode & GATE != 0 && !failed {
        judged(&case, mode, &body, &cut, &plain.1);
    }
    ended(&case, &body, how);
}

fn judged(case: &Case, mode: u8, body: &[u8], cut: &[&[u8]], plain: &ReplyFacts) {
    let how =
        [InReply::Replace, InReply::Strip, InReply::Refuse, InReply::Strip][usize::from(mode >> HOW_SHIFT)];
    let rules = || {
        let rules = Arc::new(Rules::new(how));
        let gate: Arc<dyn Gate> = rules.clone();
        (rules, gate)
    };
    let whole = case.read(Some(&rules().1), &[body]);
    alike(&whole, &case.read(Some(&rules().1), cut), "judged in pieces");
    alike(&whole.1.usage, &plain.usage, "judged and not");
    alike(&whole.1.others, &plain.others, "judged and not");
    // What passed, read once more, holds nothing that is denied.
    let (rules, gate) = rules();
    let shown = Case {
        headers: case.headers.clone(),
        hide: false,
        ..*case
    };
    let again = shown.read(Some(&gate), &[&whole.0]);
    let denied = rules.denied.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(
        denied.is_empty() && again.1.tools_denied.is_empty(),
        "{denied:?} {:?} passed: {}",
        again.1.tools_denied,
        String::from_utf8_lossy(&whole.0)
    );
}

/// A reply that is ended by Guard ends there: nothing more passes, and its usage is read to the end.
fn ended(case: &Case, body: &[u8], how: u8) {
    let (head, tail) = body.split_at(body.len() * usize::from(how) / 256);
    let mut reader = case.reader(None);
    drop(reader.feed(Bytes::copy_from_slice(head)));
    drop(reader.cut(&Refusal::new(Reason::Stopping, "NOTE"), "id-1"));
    assert!(reader.stopped());
    let after = reader.feed(Bytes::copy_from_slice(tail));
    let (rest, _) = reader.finish();
    assert!(
        after.is_empty() && rest.is_empty(),
        "something passed behind the end"
    );
}

/// A binary stream: an event a line, `EVENT JSON`; `EVENT*JSON` wraps the payload in `bytes`; `!NAME JSON` is an exception.
/// Anything else is a payload without a name.
pub(super) fn binary(lines: &[u8]) -> Vec<u8> {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let mut stream = Vec::new();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let (kind, header, line) = match line.strip_prefix(b"!") {
            Some(rest) => ("exception", ":exception-type", rest),
            None => ("event", ":event-type", line),
        };
        let end = line.iter().position(|byte| matches!(byte, b' ' | b'*'));
        let (name, payload) = line.split_at(end.unwrap_or(0));
        let name = std::str::from_utf8(name).unwrap_or("x");
        let wrapped = payload.starts_with(b"*");
        let payload = payload.get(1..).unwrap_or_default();
        let payload = match wrapped {
            true => format!("{{\"bytes\":\"{}\"}}", STANDARD.encode(payload)).into_bytes(),
            false => payload.to_vec(),
        };
        let headers = [(header, name.get(..100).unwrap_or(name)), (":message-type", kind)];
        stream.extend(eventstream::encode(&headers, &payload));
    }
    stream
}
