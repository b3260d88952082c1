//! From what a provider says to bytes on the wire, at the pace and with the faults that the script asks for.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Frame;
use serde_json::Value;
use tokio::sync::mpsc;

use super::{Fault, Pace, Raw, Reply};

pub(super) type Body = BoxBody<Bytes, io::Error>;

/// A whole answer of a provider, before pace and faults.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers beside content-type.
    pub headers: Vec<(&'static str, String)>,
    /// Body.
    pub content: Content,
    /// The model of a call that is billed; none when nothing is.
    pub billed_model: Option<String>,
}

/// A body.
#[derive(Debug, Clone)]
pub enum Content {
    /// One JSON text.
    Json(Value),
    /// Server-sent events, each complete with its blank line.
    Events(Vec<String>),
    /// Messages of Amazon's binary event stream.
    Frames(Vec<Vec<u8>>),
    /// Lines of JSON, each with its end.
    Lines(Vec<String>),
}

impl Answer {
    /// A JSON answer that bills nothing.
    pub(super) fn json(status: u16, body: Value) -> Self {
        Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            headers: Vec::new(),
            content: Content::Json(body),
            billed_model: None,
        }
    }

    pub(super) fn send(self, reply: &Reply) -> Response<Body> {
        let mut response = Response::builder().status(self.status);
        for (name, value) in &self.headers {
            response = response.header(*name, value);
        }
        if let Some(raw) = &reply.raw {
            if let Some(coding) = raw.coding {
                response = response.header("content-encoding", coding);
            }
            return response
                .header("content-type", raw.kind)
                .body(repeated(raw))
                .unwrap_or_else(|_| empty());
        }
        let kind = match &self.content {
            Content::Json(_) => "application/json",
            Content::Events(_) => "text/event-stream; charset=utf-8",
            Content::Frames(_) => "application/vnd.amazon.eventstream",
            Content::Lines(_) => "application/x-ndjson",
        };
        let body = match self.content {
            _ if reply.fault == Fault::Garbage => {
                whole(Bytes::from_static(b"\x00\xff{]<not this format>\n\n"))
            }
            Content::Json(json) => match reply.fault {
                // half of the text stands for the events that a plain reply does not have
                Fault::CutAfter(_) => {
                    let text = json.to_string();
                    let half = text.get(..text.len() / 2).unwrap_or_default().to_owned();
                    events(
                        vec![half],
                        &Reply {
                            fault: Fault::CutAfter(1),
                            ..reply.clone()
                        },
                    )
                }
                _ => whole(Bytes::from(json.to_string())),
            },
            Content::Events(list) | Content::Lines(list) => events(list, reply),
            Content::Frames(list) => events(list, reply),
        };
        response
            .header("content-type", kind)
            .body(body)
            .unwrap_or_else(|_| empty())
    }
}

pub(super) fn empty() -> Response<Body> {
    Response::new(Empty::new().map_err(|never| match never {}).boxed())
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

fn repeated(raw: &Raw) -> Body {
    let units = std::iter::repeat_n(raw.unit.clone(), raw.times);
    let all = std::iter::once(raw.head.clone())
        .chain(units)
        .chain([raw.tail.clone()]);
    let frames = all
        .filter(|piece| !piece.is_empty())
        .map(|piece| Ok(Frame::data(piece)));
    StreamBody::new(futures_util::stream::iter(frames)).boxed()
}

fn events<T: Into<Bytes> + Send + 'static>(list: Vec<T>, reply: &Reply) -> Body {
    let (sender, receiver) = mpsc::channel(1);
    let pace = reply.pace.clone();
    let cut = match reply.fault {
        Fault::CutAfter(count) => Some(count),
        _ => None,
    };
    tokio::spawn(async move {
        for (number, event) in list.into_iter().enumerate() {
            match &pace {
                Pace::AtOnce => {}
                Pace::Every(time) => tokio::time::sleep(*time).await,
                Pace::Stepped(gate) => gate.pass().await,
            }
            let item = if cut == Some(number) {
                Err(cut_off())
            } else {
                Ok(event.into())
            };
            let over = item.is_err();
            if sender.send(item).await.is_err() || over {
                return;
            }
        }
        if cut.is_some() {
            // the client is gone when this fails, which is as good as cut
            drop(sender.send(Err(cut_off())).await);
        }
    });
    Events(receiver).boxed()
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "cut off as the script says")
}

struct Events(mpsc::Receiver<io::Result<Bytes>>);

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0
            .poll_recv(context)
            .map(|item| item.map(|item| item.map(Frame::data)))
    }
}
