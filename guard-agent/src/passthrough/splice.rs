//! In: two TCP sockets of which one has much to say to the other. Out: its bytes, moved by splice(2) through a pipe, so that
//! they never come into this process. On failure: no pipe is to be had, and the caller goes on copying.
//!
//! Pipes are few: each costs two descriptors, and the kernel lets a user without privileges have only so much room in them
//! (`fs.pipe-user-pages-soft`: 64 MiB). Whoever finds none left copies.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use tokio::io::{Interest, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, tcp};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::peek::Rewind;

/// What a pipe holds.
const CAPACITY: i32 = 1024 * 1024;
/// As many pipes as there may be at once: half of what the kernel gives a user.
const PIPES: usize = 32;
static LEFT: Semaphore = Semaphore::const_new(PIPES);

/// One end of a relay, which may be a plain socket.
pub trait End {
    /// The socket, if there is nothing in front of it.
    fn socket(&self) -> Option<&TcpStream>;
}

impl End for tcp::ReadHalf<'_> {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self.as_ref())
    }
}

impl End for tcp::WriteHalf<'_> {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self.as_ref())
    }
}

impl<S: End> End for Rewind<S> {
    fn socket(&self) -> Option<&TcpStream> {
        self.bare()?.socket()
    }
}

impl<S> End for ReadHalf<S> {
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}

impl<S> End for WriteHalf<S> {
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}

/// A pipe between two sockets.
#[derive(Debug)]
pub(super) struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    _place: SemaphorePermit<'static>,
}

impl Pipe {
    /// None if there are enough already, or the kernel gives none of this size.
    pub(super) fn open() -> Option<Self> {
        let place = LEFT.try_acquire().ok()?;
        let (out, into) = nix::unistd::pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).ok()?;
        fcntl(&into, FcntlArg::F_SETPIPE_SZ(CAPACITY)).ok()?;
        Some(Self {
            out,
            into,
            _place: place,
        })
    }

    /// Takes what the socket has, as far as there is room: 0 at its end. The pipe must be empty.
    ///
    /// # Errors
    /// The socket's.
    pub(super) async fn fill(&self, from: &TcpStream) -> io::Result<usize> {
        loop {
            // Two busy sockets would never let anybody else have their turn.
            tokio::task::consume_budget().await;
            from.readable().await?;
            if let Some(held) = once(from, Interest::READABLE, || moved(from, &self.into))? {
                return Ok(held);
            }
        }
    }

    /// Gives all that the pipe holds to the socket, and says how much at a time.
    ///
    /// # Errors
    /// The socket's.
    pub(super) async fn drain(
        &self,
        to: &TcpStream,
        mut held: usize,
        gone: impl Fn(usize),
    ) -> io::Result<()> {
        while held > 0 {
            to.writable().await?;
            match once(to, Interest::WRITABLE, || moved(&self.out, to))? {
                Some(0) => return Err(io::ErrorKind::WriteZero.into()),
                Some(now) => {
                    gone(now);
                    held = held.saturating_sub(now);
                }
                None => {}
            }
        }
        Ok(())
    }
}

/// None if the socket was not ready after all.
fn once(
    socket: &TcpStream,
    interest: Interest,
    what: impl FnOnce() -> io::Result<usize>,
) -> io::Result<Option<usize>> {
    use io::ErrorKind::{Interrupted, WouldBlock};
    match socket.try_io(interest, what) {
        Err(error) if matches!(error.kind(), WouldBlock | Interrupted) => Ok(None),
        outcome => outcome.map(Some),
    }
}

/// Not with `SPLICE_F_MORE`, which makes the kernel wait for more before it sends a small message.
fn moved(from: impl AsFd, to: impl AsFd) -> io::Result<usize> {
    let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
    let most = usize::try_from(CAPACITY).map_err(io::Error::other)?;
    Ok(splice(from, None, to, None, most, flags)?)
}

/// How many pipes are in use.
#[cfg(test)]
pub(super) fn in_use() -> usize {
    PIPES - LEFT.available_permits()
}
