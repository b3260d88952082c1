//! The agent's side of a socket: its bytes are counted as they come, so that messages that are still on their way take no
//! more room than the agent has.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::forward::socket::{READ, STALLED, close, config};
use crate::refusal::{Reason, Refusal};
use crate::share::{Room, Share};

/// The agent's side.
pub struct Client<S = TokioIo<Upgraded>>(WebSocketStream<Counted<S>>);

impl Client {
    /// The side that was opened so. Messages beyond `largest` bytes end the socket.
    pub async fn new(stream: Upgraded, share: Share, largest: usize) -> Self {
        Self::over(TokioIo::new(stream), share, largest).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// The same, over any stream.
    pub(crate) async fn over(stream: S, share: Share, largest: usize) -> Self {
        let counted = Counted {
            inner: stream,
            room: share.room(),
            share,
            since: 0,
        };
        Self(WebSocketStream::from_raw_socket(counted, Role::Server, Some(config(largest))).await)
    }

    /// The client's next message; never one when there is no client. Losing the future loses no message.
    pub(crate) async fn next(this: &mut Option<Self>) -> Option<Result<Message, Error>> {
        match this {
            Some(client) => client.0.next().await,
            None => std::future::pending().await,
        }
    }

    /// The room that the message that came last takes; what comes next is counted anew.
    pub(crate) fn take_room(&mut self, bytes: usize) -> Result<Room, Refusal> {
        let counted = self.0.get_mut();
        counted.since = 0;
        counted.room = counted.share.room();
        let mut room = counted.share.room();
        room.grow_to(bytes)?;
        Ok(room)
    }

    /// Sends a message, in bounded time.
    pub(super) async fn send(&mut self, message: Message) -> Result<(), Error> {
        match tokio::time::timeout(STALLED, self.0.send(message)).await {
            Ok(sent) => sent,
            Err(_elapsed) => Err(Error::ConnectionClosed),
        }
    }

    /// Ends the socket with this close frame.
    pub(super) async fn close(self, frame: Option<CloseFrame>) {
        close(self.0, frame).await;
    }
}

/// What a client did wrong: how the socket is closed, and what is said before. Nothing, when it is just gone.
pub(crate) fn fault(error: &Error) -> (Option<CloseCode>, Option<Refusal>) {
    let malformed = |message: &str| Some(Refusal::new(Reason::Malformed, message));
    match error {
        Error::Capacity(_) => {
            let refusal = Refusal::new(
                Reason::BodyTooLarge,
                "The message is larger than Guard reads. Send less, for example without attachments or old turns.",
            );
            (Some(CloseCode::Size), Some(refusal))
        }
        Error::Utf8(_) => (Some(CloseCode::Invalid), malformed("The message is not UTF-8.")),
        Error::Protocol(
            tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => (None, None),
        Error::Protocol(_) => (
            Some(CloseCode::Protocol),
            malformed(
                "The frame is none of a WebSocket without extensions; Guard agrees to no compression here.",
            ),
        ),
        Error::Io(error) if error.kind() == io::ErrorKind::OutOfMemory => {
            let refusal = Refusal::new(
                Reason::InFlight,
                "Messages of this agent that are still being read hold all the memory it may use. Wait for some to \
                 end, then try again.",
            );
            (Some(CloseCode::Again), Some(refusal))
        }
        _ => (None, None),
    }
}

/// A stream that takes room for what was read from it since the last whole message.
struct Counted<S> {
    inner: S,
    room: Room,
    share: Share,
    since: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        self.since = self.since.saturating_add(buf.filled().len() - before);
        let held = self.since;
        // A buffer's worth is the socket's own.
        if held > READ && self.room.grow_to(held).is_err() {
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
