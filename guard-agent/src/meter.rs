//! In: the provider's reply body and what was reserved for it. Out: the same bytes as they come, and at the end the
//! outcome, settled exactly once: at the end, at a cut, or when the client goes away. On failure: what was learnt
//! until then is settled; usage that was not seen is unknown, never zero.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::forward::pool::Streams;
use crate::llm::encoding::reader_for;
use crate::llm::{Dialect, Gate, ReplyHead, ReplyReader};
use crate::policy::{Deadline, Outcome, Settle};
use crate::refusal::Refusal;

pub mod linger;
mod messages;

pub use linger::Linger;
pub(crate) use messages::stopping;

/// A provider that sends nothing for this long has stalled; reasoning models are silent for minutes.
const SILENCE: Duration = Duration::from_secs(10 * 60);

/// The open account of one forwarded call. It is settled exactly once: by [`Tab::close`], or when it is dropped.
pub struct Tab {
    settlement: Option<Box<dyn Settle>>,
    outcome: Outcome,
    reader: Option<Box<dyn ReplyReader>>,
    dialect: &'static dyn Dialect,
    hide_usage_event: bool,
    gate: Option<Arc<dyn Gate>>,
    deadline: Option<Deadline>,
    call: String,
    began: Instant,
}

impl Tab {
    /// Opens the account.
    pub fn open(
        settlement: Box<dyn Settle>,
        dialect: &'static dyn Dialect,
        hide_usage_event: bool,
        gate: Option<Arc<dyn Gate>>,
    ) -> Self {
        Self {
            deadline: settlement.deadline(),
            call: String::new(),
            settlement: Some(settlement),
            outcome: Outcome::default(),
            reader: None,
            dialect,
            hide_usage_event,
            gate,
            began: Instant::now(),
        }
    }

    /// The id of the call, which last words name.
    pub fn set_call(&mut self, id: String) {
        self.call = id;
    }

    /// The request is about to leave (or has left) for the provider.
    pub fn set_forwarded(&mut self, forwarded: bool, request_bytes: u64) {
        self.outcome.forwarded = forwarded;
        self.outcome.request_bytes = request_bytes;
    }

    /// The client is gone.
    pub fn set_client_gone(&mut self) {
        self.outcome.client_gone = true;
    }

    /// The provider failed.
    pub fn set_error(&mut self, error: String) {
        self.outcome.upstream_error = Some(error);
    }

    /// The provider's answer has begun.
    pub fn head(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.outcome.forwarded = true;
        self.outcome.status = Some(status);
        // A plain reply is whole or nothing, and its cost is spent when it begins.
        let streams = headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(|kind| kind.to_ascii_lowercase().contains("stream"));
        if !streams {
            self.deadline = None;
        }
        let head = ReplyHead {
            status,
            headers,
            hide_usage_event: self.hide_usage_event,
            gate: self.gate.as_ref(),
        };
        self.reader = Some(reader_for(self.dialect, &head));
    }

    /// The next bytes of the answer; gives the bytes to forward.
    pub fn feed(&mut self, data: Bytes) -> Bytes {
        if self.outcome.first_token.is_none() && !data.is_empty() {
            self.outcome.first_token = Some(self.began.elapsed());
        }
        self.outcome.reply_bytes += data.len() as u64;
        match &mut self.reader {
            Some(reader) => reader.feed(data),
            None => data,
        }
    }

    /// Whether the client may get other bytes than the provider sends, so that the length is not the provider's.
    pub fn alters(&self) -> bool {
        self.hide_usage_event || self.gate.is_some() || self.deadline.is_some()
    }

    /// Whether the reply is decoded on its way, because its tool calls are judged.
    pub fn decodes(&self) -> bool {
        self.gate.is_some()
    }

    /// Whether the client has its last byte, although the provider may go on.
    fn stopped(&self) -> bool {
        self.reader.as_ref().is_some_and(|reader| reader.stopped())
    }

    /// Its time is over: gives the format's own last event, and asks for no more.
    fn expire(&mut self) -> Bytes {
        let Some(deadline) = self.deadline.take() else {
            return Bytes::new();
        };
        self.last_words(&deadline.refusal, &deadline.id)
    }

    /// Guard is being stopped: gives the format's own last event.
    fn stop(&mut self) -> Bytes {
        let call = std::mem::take(&mut self.call);
        self.last_words(&stopping(), &call)
    }

    fn last_words(&mut self, refusal: &Refusal, id: &str) -> Bytes {
        self.outcome.cut = Some(refusal.reason);
        let words = match &mut self.reader {
            Some(reader) => reader.cut(refusal, id),
            None => Bytes::new(),
        };
        if words.is_empty() {
            return words;
        }
        // An event may be under way: an empty line ends it, and means nothing otherwise.
        let mut last = BytesMut::from(&b"\n\n"[..]);
        last.extend_from_slice(&words);
        last.freeze()
    }

    /// Settles. Gives what the reader still held back.
    pub fn close(mut self) -> Bytes {
        self.settle()
    }

    fn settle(&mut self) -> Bytes {
        let Some(settlement) = self.settlement.take() else {
            return Bytes::new();
        };
        let (rest, facts) = self
            .reader
            .as_mut()
            .map(|reader| reader.finish())
            .unwrap_or_default();
        self.outcome.facts = facts;
        self.outcome.duration = self.began.elapsed();
        settlement.settle(std::mem::take(&mut self.outcome));
        rest
    }
}

impl Drop for Tab {
    fn drop(&mut self) {
        drop(self.settle());
    }
}

/// Why a reply was cut.
#[derive(Debug, thiserror::Error)]
pub enum Cut {
    /// The provider broke off.
    #[error("the provider broke off the reply: {0}")]
    Upstream(#[from] hyper::Error),
    /// The provider has stalled.
    #[error("the provider sent nothing for ten minutes")]
    Silence,
    /// Guard is being stopped, and the format has no way to say so.
    #[error("Guard was stopped before the reply had ended")]
    Stopped,
}

/// A reply on its way: forwards each frame when it comes and reads along.
pub struct Metered {
    source: Option<(Incoming, Tab)>,
    ready: VecDeque<Frame<Bytes>>,
    silence: Pin<Box<Sleep>>,
    deadline: Option<Pin<Box<Sleep>>>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    linger: Linger,
    streams: Option<Streams>,
    /// The length is the provider's; not so when an event may be hidden.
    exact: bool,
}

impl Metered {
    /// Meters `body` on this account.
    pub fn new(body: Incoming, tab: Tab, streams: Option<Streams>, linger: Linger) -> Self {
        let exact = !tab.alters();
        let mut this = Self {
            source: None,
            ready: VecDeque::new(),
            silence: Box::pin(tokio::time::sleep(SILENCE)),
            deadline: tab
                .deadline
                .as_ref()
                .map(|deadline| Box::pin(tokio::time::sleep_until(deadline.at.into()))),
            stopped: Box::pin(linger.drain().last_words()),
            linger,
            streams,
            exact,
        };
        // An empty body may never be polled.
        if body.is_end_stream() {
            drop(tab.close())
        } else {
            this.source = Some((body, tab))
        }
        this
    }

    /// The reply has ended: settles and queues what is left.
    fn end(&mut self, before: Bytes, trailers: Option<Frame<Bytes>>) {
        let rest = self.source.take().map(|(_, tab)| tab.close()).unwrap_or_default();
        self.streams = None;
        let data = if before.is_empty() || rest.is_empty() {
            if before.is_empty() { rest } else { before }
        } else {
            let mut both = BytesMut::from(before);
            both.extend_from_slice(&rest);
            both.freeze()
        };
        if !data.is_empty() {
            self.ready.push_back(Frame::data(data));
        }
        self.ready.extend(trailers);
    }

    /// The reply was cut by a rule: the client has all that it will get, and the rest is read to be charged.
    fn stop(&mut self, last: Bytes) {
        if !last.is_empty() {
            self.ready.push_back(Frame::data(last));
        }
        if let Some((body, tab)) = self.source.take() {
            self.linger.read_on(body, tab, self.streams.take());
        }
    }

    /// Its time is over: the client gets the last event, and the provider is let go, so that it makes no more.
    fn expire(&mut self) {
        self.deadline = None;
        if let Some((_, mut tab)) = self.source.take() {
            let last = tab.expire();
            if !last.is_empty() {
                self.ready.push_back(Frame::data(last));
            }
        }
        self.streams = None;
    }

    fn fail(&mut self, cut: &Cut) {
        if let Some((_, mut tab)) = self.source.take() {
            tab.set_error(cut.to_string());
        }
        self.streams = None;
    }

    fn reset_silence(&mut self) {
        self.silence.as_mut().reset(tokio::time::Instant::now() + SILENCE);
    }
}

impl Body for Metered {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(frame)));
            }
            // Asked before the provider, which may always have more.
            let over = self
                .deadline
                .as_mut()
                .is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready());
            if over {
                self.expire();
                continue;
            }
            let this = &mut *self;
            let Some((body, tab)) = &mut this.source else {
                return Poll::Ready(None);
            };
            if this.stopped.as_mut().poll(cx).is_ready() {
                let last = tab.stop();
                this.source = None;
                this.streams = None;
                if last.is_empty() {
                    return Poll::Ready(Some(Err(Cut::Stopped)));
                }
                return Poll::Ready(Some(Ok(Frame::data(last))));
            }
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => {
                    if self.silence.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    self.fail(&Cut::Silence);
                    return Poll::Ready(Some(Err(Cut::Silence)));
                }
                Poll::Ready(None) => self.end(Bytes::new(), None),
                Poll::Ready(Some(Err(error))) => {
                    let cut = Cut::Upstream(error);
                    self.fail(&cut);
                    return Poll::Ready(Some(Err(cut)));
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        let out = tab.feed(data);
                        if tab.stopped() {
                            self.stop(out);
                            continue;
                        }
                        if body.is_end_stream() {
                            // The server side may not poll again once it has the last byte.
                            self.end(out, None);
                            continue;
                        }
                        self.reset_silence();
                        if !out.is_empty() {
                            return Poll::Ready(Some(Ok(Frame::data(out))));
                        }
                    }
                    Err(trailers) => self.end(Bytes::new(), Some(trailers)),
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_none() && self.ready.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Some((body, _)) if self.exact && self.ready.is_empty() => body.size_hint(),
            Some(_) => SizeHint::default(),
            None => SizeHint::with_exact(
                self.ready
                    .iter()
                    .filter_map(Frame::data_ref)
                    .map(|d| d.len() as u64)
                    .sum(),
            ),
        }
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        if let Some((body, mut tab)) = self.source.take() {
            tab.set_client_gone();
            self.linger.read_on(body, tab, self.streams.take());
        }
    }
}
