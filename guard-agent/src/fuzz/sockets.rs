//! WebSockets: the frames that a client sends, and the messages of either side.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};

use futures_util::FutureExt;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::edits::members;
use super::replies::{Rules, drain};
use super::{alike, broken, controls, pieces, requests};
use crate::llm::frames::{MESSAGE_END, message};
use crate::llm::provider::dialect_of;
use crate::llm::socket::{Asked, Mark, Opening, Request, Session};
use crate::llm::{DialectKind, Gate, InReply, RequestFacts};
use crate::refusal::{Reason, Refusal};
use crate::share::Share;
use crate::socket::client::{Client, fault};

/// Largest message, here.
const LARGEST: usize = 1024;
/// Bits of the first byte: frames are made around the lines of the rest; each is cut into so many and more.
const MADE: u8 = 1;
const PARTS_SHIFT: u8 = 1;
/// The rest is from the provider, and judged.
const PROVIDER: u8 = 1;
const GATE: u8 = 1 << 1;

/// Bytes that come in pieces; what is written to it is lost.
struct Wire<'a>(VecDeque<&'a [u8]>);

impl AsyncRead for Wire<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(piece) = self.0.pop_front() {
            let (now, later) = piece.split_at(piece.len().min(room.remaining()));
            room.put_slice(now);
            if !later.is_empty() {
                self.0.push_front(later);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What is read from a client that sends these bytes, up to the first fault.
fn read(stream: &[&[u8]]) -> (Vec<Message>, String) {
    // An empty piece would be the end.
    let wire = Wire(stream.iter().copied().filter(|piece| !piece.is_empty()).collect());
    let mut client = Client::over(wire, Share::default(), LARGEST).now_or_never();
    let mut all = Vec::new();
    loop {
        match Client::next(&mut client).now_or_never() {
            Some(Some(Ok(message))) => {
                assert!(message.len() <= LARGEST, "a message of {} bytes", message.len());
                let room = client.as_mut().map(|client| client.take_room(message.len()));
                assert!(room.is_some_and(|room| room.is_ok()), "no room for a message");
                all.push(message);
            }
            Some(Some(Err(error))) => {
                let (code, refusal) = fault(&error);
                assert!(
                    code.is_some() || refusal.is_none(),
                    "what is refused ends the socket"
                );
                return (all, kind(&error));
            }
            Some(None) => return (all, "end".to_owned()),
            None => {
                broken("a stream that never waits is waited for");
                return (all, String::new());
            }
        }
    }
}

/// An error without what depends on how the bytes came.
fn kind(error: &Error) -> String {
    match error {
        Error::Capacity(_) => "too long".to_owned(),
        Error::Utf8(_) => "not text".to_owned(),
        other => other.to_string(),
    }
}

/// One frame as a client sends it (RFC 6455 §5.2).
fn frame(code: u8, last: bool, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut out = vec![code | if last { 0x80 } else { 0 }];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short), _) if short < 126 => out.push(0x80 | short),
        (_, Ok(middle)) => {
            out.push(0x80 | 126);
            out.extend(middle.to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend((payload.len() as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    out
}

/// A text message in so many frames, with a ping between them.
pub(super) fn framed(text: &[u8], parts: usize) -> Vec<u8> {
    let size = text.len().div_ceil(parts.max(1)).max(1);
    let mut chunks: Vec<&[u8]> = text.chunks(size).collect();
    if chunks.is_empty() {
        chunks.push(b"");
    }
    let last = chunks.len() - 1;
    let each = chunks.into_iter().enumerate();
    each.flat_map(|(at, chunk)| {
        let ping = if at > 0 { frame(9, true, b"p") } else { Vec::new() };
        [ping, frame(u8::from(at == 0), at == last, chunk)].concat()
    })
    .collect()
}

/// Frames: arbitrary bytes, or sound frames around the lines of arbitrary text.
pub(super) fn frames(input: &[u8]) {
    let Some((mode, how, rest)) = controls(input) else {
        return;
    };
    let made = mode & MADE != 0;
    let lines: Vec<&[u8]> = rest.split(|byte| *byte == b'\n').collect();
    let parts = 1 + usize::from(mode >> PARTS_SHIFT & 3);
    let stream = match made {
        true => lines.iter().flat_map(|line| framed(line, parts)).collect(),
        false => rest.to_vec(),
    };
    let whole = read(&[&stream]);
    alike(&whole, &read(&pieces(&stream, how)), "in pieces");
    if !made {
        return;
    }
    let sound = |line: &&&[u8]| line.len() <= LARGEST && std::str::from_utf8(line).is_ok();
    let wanted: Vec<&[u8]> = lines.iter().take_while(sound).copied().collect();
    let told: Vec<&[u8]> = whole
        .0
        .iter()
        .filter(|message| message.is_text())
        .map(data)
        .collect();
    alike(&wanted, &told, "what was sent");
    let expected = match lines.get(wanted.len()) {
        None => Error::Protocol(
            tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        )
        .to_string(),
        // Text is looked at as it comes, and the length of a frame before it.
        Some(line) if std::str::from_utf8(line).is_ok() => "too long".to_owned(),
        Some(line) if line.len() <= LARGEST => "not text".to_owned(),
        Some(_) => return,
    };
    alike(&expected, &whole.1, "how it ended");
}

fn data(message: &Message) -> &[u8] {
    match message {
        Message::Text(text) => text.as_bytes(),
        Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes,
        Message::Close(_) | Message::Frame(_) => b"",
    }
}

/// Responses over a socket: a message of the client's, or the provider's, one a line.
pub(super) fn responses(input: &[u8]) {
    let Some((mode, how, rest)) = controls(input) else {
        return;
    };
    let Some(session) = &mut opened(DialectKind::OpenaiResponses, "/v1/responses") else {
        return;
    };
    if mode & PROVIDER == 0 {
        asked(session.as_mut(), mode, how, rest);
        return;
    }
    let lines = lines(rest);
    for line in &lines {
        let told = session.told(line);
        let text = |name: &str| said(line, &[name]);
        assert!(told.mark != Mark::Begin || text("type").as_deref() == Some("response.created"));
        assert!(told.lane.is_none() || text("stream_id") == told.lane);
    }
    let request = Request {
        lane: (how & 1 == 1).then(|| "a".to_owned()),
        prepares: how & 2 != 0,
        ..Request::default()
    };
    told(session.as_ref(), &request, mode, how, &lines);
}

/// A socket of this format.
pub(super) fn opened(kind: DialectKind, target: &'static str) -> Option<Box<dyn Session>> {
    let target = http::Uri::from_static(target);
    let headers = http::HeaderMap::new();
    let opening = Opening {
        target: &target,
        headers: &headers,
    };
    let format = dialect_of(kind).socket(target.path());
    let session = format.and_then(|format| format.open(&opening).ok());
    if session.is_none() {
        broken("this format is not spoken over sockets");
    }
    session
}

/// The text at this path of members. Not all of what passes can be read as a value: half a surrogate, a number without
/// bound.
pub(super) fn said(line: &[u8], path: &[&str]) -> Option<String> {
    let mut text = std::str::from_utf8(line).ok()?.to_owned();
    for name in path {
        text = members(&text)?.remove(*name)?.get().to_owned();
    }
    serde_json::from_str(&text).ok()
}

/// The lines that are text.
pub(super) fn lines(rest: &[u8]) -> Vec<&[u8]> {
    let lines = rest.split(|byte| *byte == b'\n');
    lines.filter(|line| std::str::from_utf8(line).is_ok()).collect()
}

/// What goes on is what it was taken for, and stays so when it is edited; what does not is refused in the format.
fn asked(session: &mut dyn Session, mode: u8, how: u8, text: &[u8]) {
    let value = serde_json::from_slice::<Value>(text).unwrap_or_default();
    match session.asked(text) {
        Err(unfit) => {
            let refusal = Refusal::new(Reason::Malformed, unfit.why);
            let said = session.refusal(&refusal, "id-1", unfit.named.as_deref());
            let said = serde_json::from_str::<Value>(&said).unwrap_or_default();
            assert_eq!(said["type"], "error");
            assert_eq!(said["stream_id"].as_str(), unfit.named.as_deref());
        }
        Ok(Asked::Stop) => {
            let members = value.as_object();
            let nothing = members.is_some_and(|members| {
                members
                    .values()
                    .all(|value| !value.is_array() && !value.is_object())
            });
            assert!(nothing, "it stops a response, and asks for {value}");
        }
        Ok(Asked::Response(_, request)) => {
            assert_eq!(value["type"], "response.create");
            assert_ne!(value["background"], true);
            assert!(value["response"].is_null());
            assert_eq!(value["stream_id"].as_str(), request.lane.as_deref());
            assert_eq!(value["generate"] == false, request.prepares);
            assert_eq!(!value["previous_response_id"].is_null(), request.continues);
            let again = |text: &[u8]| -> Result<RequestFacts, String> {
                let mut other = opened(DialectKind::OpenaiResponses, "/v1/responses");
                match other.as_mut().ok_or("no socket")?.asked(text) {
                    Ok(Asked::Response(facts, same)) if same == request => Ok(*facts),
                    other => Err(format!("{other:?}")),
                }
            };
            requests::edited(dialect_of(DialectKind::OpenaiResponses), &again, mode, how, text);
        }
        Ok(other) => broken(&format!("{other:?} on a socket of responses")),
    }
}

/// What is learnt and what passes does not depend on what comes at a time; nothing of a denied call passes.
pub(super) fn told(session: &dyn Session, request: &Request, mode: u8, how: u8, lines: &[&[u8]]) {
    let each: Vec<Vec<u8>> = lines.iter().map(|line| message(line)).collect();
    let each: Vec<&[u8]> = each.iter().map(Vec::as_slice).collect();
    let all = each.concat();
    let read = |gate: Option<&Arc<dyn Gate>>, pieces: &[&[u8]]| drain(session.reader(request, gate), pieces);
    let plain = read(None, &[&all]);
    alike(&plain, &read(None, &each), "one by one");
    assert!(plain.0 == all, "the messages are not those of the provider");
    if mode & GATE == 0 {
        return;
    }
    let rules = || {
        let how = [InReply::Replace, InReply::Strip, InReply::Refuse][usize::from(how >> 2) % 3];
        let rules = Arc::new(Rules::new(how));
        let gate: Arc<dyn Gate> = rules.clone();
        (rules, gate)
    };
    let judged = read(Some(&rules().1), &[&all]);
    alike(&judged, &read(Some(&rules().1), &each), "judged one by one");
    alike(&judged.1.usage, &plain.1.usage, "judged and not");
    let (said, facts) = (judged.0, judged.1);
    assert!(
        said.is_empty() || said.last() == Some(&MESSAGE_END),
        "half a message"
    );
    let (rules, gate) = rules();
    let again = read(Some(&gate), &[&said]);
    let denied = rules.denied.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(
        denied.is_empty() && again.1.tools_denied.is_empty(),
        "{denied:?} {:?} passed: {}",
        facts.tools_denied,
        String::from_utf8_lossy(&said)
    );
}
