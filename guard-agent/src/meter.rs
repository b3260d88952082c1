//! In: the provider's reply body and what was reserved for it. Out: the same bytes as they come, and at the end the
//! outcome, settled exactly once: at the end, at a cut, or when the client goes away. On failure: what was learnt
//! until then is settled; usage that was not seen is unknown, never zero.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::forward::pool::Streams;

pub mod linger;
mod tab;

pub use linger::Linger;
pub use tab::Tab;
pub(crate) use tab::stopping;

/// A provider that sends nothing for this long has stalled; reasoning models are silent for minutes.
const SILENCE: Duration = Duration::from_secs(10 * 60);

/// Why a reply was cut.
#[derive(Debug, thiserror::Error)]
pub enum Cut {
    /// The provider broke off.
    #[error("the provider broke off the reply: {0}")]
    Upstream(#[from] hyper::Error),
    /// The provider has stalled.
    #[error("the provider sent nothing for ten minutes")]
    Silence,
    /// The budget is used up, and the format has no way to say so.
    #[error("the reply grew beyond its budget")]
    Outgrown,
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
    /// What the client is told instead of an end.
    broken: Option<Cut>,
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
            broken: None,
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

    /// More than is paid for: the client gets what has come and the last event, and the provider is let go.
    fn outgrown(&mut self, before: Bytes, last: Bytes) {
        self.source = None;
        self.streams = None;
        if last.is_empty() {
            self.broken = Some(Cut::Outgrown);
        }
        let pieces = [before, last].into_iter().filter(|piece| !piece.is_empty());
        self.ready.extend(pieces.map(Frame::data));
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
            if let Some(cut) = self.broken.take() {
                return Poll::Ready(Some(Err(cut)));
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
                        if let Some(last) = tab.outgrown() {
                            self.outgrown(out, last);
                            continue;
                        }
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
        self.source.is_none() && self.ready.is_empty() && self.broken.is_none()
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
