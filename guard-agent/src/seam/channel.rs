//! One end of the pair: whole messages with descriptors, over a Unix socket that keeps their bounds.
//!
//! In: a message. Out: the same at the other end. On failure: what came is not understood and the pair is given up.
#![allow(
    unsafe_code,
    reason = "descriptors that recvmsg(2) has just made belong to nobody yet, and the runtime asks for a promise"
)]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Largest message in bytes. What may be longer goes into a [`Sealed`](super::Sealed) file.
pub const MOST_BYTES: usize = 64 * 1024;
/// Descriptors with one message.
pub const MOST_DESCRIPTORS: usize = 8;

/// One end.
#[derive(Debug)]
pub struct Channel {
    socket: AsyncFd<OwnedFd>,
}

/// A message that came, not yet read, and its descriptors.
#[derive(Debug)]
pub struct Received {
    bytes: Vec<u8>,
    /// In the order in which they were sent.
    pub descriptors: Vec<OwnedFd>,
}

impl Received {
    /// Reads it.
    ///
    /// # Errors
    /// It is none of these messages.
    pub fn message<T: DeserializeOwned>(&self) -> io::Result<T> {
        serde_json::from_slice(&self.bytes).map_err(io::Error::other)
    }
}

/// Makes both ends.
///
/// # Errors
/// socketpair(2) failed.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?)
}

impl Channel {
    /// Takes an end. Must be called inside the async runtime.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    pub fn new(end: OwnedFd) -> io::Result<Self> {
        let both = Interest::READABLE | Interest::WRITABLE;
        // SAFETY: an OwnedFd gives the same descriptor each time, and closes it only when it is dropped.
        let socket = unsafe { AsyncFd::register_with_interest(end, both) }?;
        Ok(Self { socket })
    }

    /// Sends a message, and waits while the other end reads none.
    ///
    /// # Errors
    /// The other end is gone, or the message is too long.
    pub async fn send<T: Serialize>(&self, message: &T, descriptors: &[OwnedFd]) -> io::Result<()> {
        let bytes = written(message)?;
        self.socket
            .async_io(Interest::WRITABLE, |socket| {
                send_now(socket.as_fd(), &bytes, descriptors)
            })
            .await
    }

    /// The next message; none when the other end is gone. Nothing is lost when this is dropped.
    ///
    /// # Errors
    /// The socket fails, or what came is longer than any message.
    pub async fn receive(&self) -> io::Result<Option<Received>> {
        self.socket
            .async_io(Interest::READABLE, |socket| receive_now(socket.as_fd()))
            .await
    }
}

/// The first message, before there is a runtime: waits for it.
///
/// # Errors
/// The other end is gone, or as [`Channel::receive`].
pub fn receive_first(end: &OwnedFd) -> io::Result<Received> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    loop {
        let mut watched = [PollFd::new(end.as_fd(), PollFlags::POLLIN)];
        poll(&mut watched, PollTimeout::NONE)?;
        match receive_now(end.as_fd()) {
            Ok(Some(received)) => return Ok(received),
            Ok(None) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn written<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let bytes = serde_json::to_vec(message).map_err(io::Error::other)?;
    if bytes.len() > MOST_BYTES {
        return Err(io::Error::other(format!(
            "a message of {} bytes is too long",
            bytes.len()
        )));
    }
    Ok(bytes)
}

fn send_now(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[OwnedFd]) -> io::Result<()> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(bytes)],
        control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

fn receive_now(socket: BorrowedFd<'_>) -> io::Result<Option<Received>> {
    let mut bytes = vec![0; MOST_BYTES];
    let mut control = cmsg_space!([RawFd; MOST_DESCRIPTORS]);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let mut descriptors = Vec::new();
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = message {
            // SAFETY: the kernel has just given each of these descriptors to us alone.
            descriptors.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let (length, flags) = (received.bytes, received.flags);
    if flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::other("a message that is too long"));
    }
    if length == 0 {
        return Ok(None);
    }
    bytes.truncate(length);
    Ok(Some(Received { bytes, descriptors }))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::seam::ToWorker;

    fn both() -> (Channel, Channel) {
        let (one, other) = pair().unwrap();
        (Channel::new(one).unwrap(), Channel::new(other).unwrap())
    }

    #[tokio::test]
    async fn messages_keep_their_bounds_and_bring_their_descriptors() {
        let (keeper, worker) = both();
        let (mut near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        keeper
            .send(&ToWorker::Close { netns_cookie: 7 }, &[far.into()])
            .await
            .unwrap();
        keeper.send(&ToWorker::Stop, &[]).await.unwrap();
        let mut first = worker.receive().await.unwrap().unwrap();
        assert!(matches!(
            first.message().unwrap(),
            ToWorker::Close { netns_cookie: 7 }
        ));
        let mut far: std::os::unix::net::UnixStream = first.descriptors.remove(0).into();
        far.write_all(b"x").unwrap();
        near.read_exact(&mut [0]).unwrap();
        let second = worker.receive().await.unwrap().unwrap();
        assert!(matches!(second.message().unwrap(), ToWorker::Stop));
        assert!(second.descriptors.is_empty());
        drop(keeper);
        assert!(
            worker.receive().await.unwrap().is_none(),
            "the end of the other side"
        );
        assert!(worker.send(&ToWorker::Stop, &[]).await.is_err());
    }

    #[tokio::test]
    async fn what_is_too_long_is_not_sent_and_what_is_no_message_is_an_error() {
        let (keeper, worker) = both();
        let long = "x".repeat(MOST_BYTES);
        keeper.send(&long, &[]).await.unwrap_err();
        keeper.send(&"{\"not\":\"one\"}", &[]).await.unwrap();
        let received = worker.receive().await.unwrap().unwrap();
        received.message::<ToWorker>().unwrap_err();
    }

    #[tokio::test]
    async fn a_slow_reader_makes_the_sender_wait_and_loses_nothing() {
        let (keeper, worker) = both();
        let sending = tokio::spawn(async move {
            for netns_cookie in 0..20_000 {
                keeper.send(&ToWorker::Close { netns_cookie }, &[]).await.unwrap();
            }
        });
        for wanted in 0..20_000 {
            let received = worker.receive().await.unwrap().unwrap();
            let ToWorker::Close { netns_cookie } = received.message().unwrap() else {
                panic!("another message");
            };
            assert_eq!(netns_cookie, wanted);
        }
        sending.await.unwrap();
    }
}
