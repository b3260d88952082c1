//! In: a connection that is not a provider's. Out: both directions relayed to their end, counted. On failure: both
//! sides are closed.
//!
//! A client that was silent at first may be waiting for its server to speak, or may only be slow (a busy host, a client
//! that sets up TLS after it connected). Who speaks first shows which: a slow client's first bytes are routed like any
//! other's; once the server has spoken, they are relayed, but inspected before: a ClientHello for a provider is cut.

pub mod refuse;
mod splice;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use self::splice::{End, Pipe};
use crate::peek::{First, Patience, PeekError, Rewind, peek};

/// Bytes per read: few system calls for a download, and what a socket's buffer holds anyway.
const BUFFER: usize = 64 * 1024;
/// Bytes after which a direction is taken for a download rather than a conversation, and spliced: see
/// `docs/performance.md`.
const BULK: usize = 1024 * 1024;
/// How long an undecided client may stay silent: as long as its connection lives; TCP keep-alive ends a dead one.
const SILENCE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How long one direction may be idle after the other has ended. A client that is gone and one that only said all it
/// had to say look alike; the first must not hold a connection for ever.
const HALF_OPEN: Duration = Duration::from_secs(300);

/// Bytes relayed so far.
#[derive(Debug, Default)]
pub struct Counted {
    /// From the client.
    pub sent: AtomicU64,
    /// To the client.
    pub received: AtomicU64,
    /// The agent's metric, which grows as bytes pass.
    pub metric: Option<IntCounter>,
}

impl Counted {
    fn add(&self, direction: &AtomicU64, bytes: usize) {
        let bytes = bytes as u64;
        direction.fetch_add(bytes, Ordering::Relaxed);
        if let Some(metric) = &self.metric {
            metric.inc_by(bytes);
        }
    }
}

/// How a relay ended, other than by both sides closing.
#[derive(Debug, thiserror::Error)]
pub enum Cut {
    /// One side broke off.
    #[error("relaying: {0}")]
    Io(#[from] io::Error),
    /// What a silent client said at last is not allowed.
    #[error("{0}")]
    Denied(String),
}

/// Waits until one side has something to say, and tells whether it is the client alone. A server that spoke decides:
/// from then on the client's first bytes can only be relayed or cut.
pub async fn client_speaks_first(client: &TcpStream, upstream: &TcpStream) -> bool {
    tokio::select! {
        biased;
        _ = upstream.readable() => false,
        _ = client.readable() => true,
    }
}

/// Relays until both directions have ended. `judge` sees the first bytes of a client that was `undecided`.
///
/// # Errors
/// [`Cut`]; the counts hold what was relayed until then.
pub async fn relay(
    client: Rewind<TcpStream>,
    mut upstream: TcpStream,
    undecided: bool,
    judge: impl Fn(&First) -> Result<(), String>,
    counted: &Counted,
) -> Result<(), Cut> {
    let (first, mut client) = client.into_parts();
    let (from_client, to_client) = client.split();
    let from_client = Rewind::new(first, from_client);
    relay_halves(
        (from_client, to_client),
        upstream.split(),
        undecided,
        judge,
        counted,
    )
    .await
}

/// The same for any two streams, each in its reading and its writing half.
///
/// # Errors
/// As [`relay`].
pub async fn relay_halves<CR, CW, UR, UW>(
    (mut from_client, mut to_client): (CR, CW),
    (mut from_upstream, mut to_upstream): (UR, UW),
    undecided: bool,
    judge: impl Fn(&First) -> Result<(), String>,
    counted: &Counted,
) -> Result<(), Cut>
where
    CR: AsyncRead + Unpin + End,
    CW: AsyncWrite + Unpin + End,
    UR: AsyncRead + Unpin + End,
    UW: AsyncWrite + Unpin + End,
{
    let other_ended = AtomicBool::new(false);
    let up = async {
        if undecided {
            inspect(&mut from_client, &mut to_upstream, judge, counted).await?;
        }
        let way = Way {
            direction: &counted.sent,
            counted,
            other_ended: &other_ended,
        };
        way.pump(&mut from_client, &mut to_upstream)
            .await
            .map_err(Cut::Io)
    };
    let down = async {
        let way = Way {
            direction: &counted.received,
            counted,
            other_ended: &other_ended,
        };
        way.pump(&mut from_upstream, &mut to_client)
            .await
            .map_err(Cut::Io)
    };
    tokio::try_join!(up, down).map(|((), ())| ())
}

async fn inspect<R, W>(
    from: &mut R,
    to: &mut W,
    judge: impl Fn(&First) -> Result<(), String>,
    counted: &Counted,
) -> Result<(), Cut>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let patience = Patience {
        silence: SILENCE,
        ..Patience::default()
    };
    let (first, bytes) = peek(from, patience).await;
    match first {
        Ok(first) => judge(&first).map_err(Cut::Denied)?,
        Err(PeekError::Closed(_)) => {}
        Err(PeekError::Io(error)) => return Err(Cut::Io(error)),
        Err(error) => return Err(Cut::Denied(error.to_string())),
    }
    to.write_all(&bytes).await?;
    counted.add(&counted.sent, bytes.len());
    Ok(())
}

/// One direction of a relay.
struct Way<'a> {
    direction: &'a AtomicU64,
    counted: &'a Counted,
    other_ended: &'a AtomicBool,
}

impl Way<'_> {
    /// Moves all there is and passes the end on. What moves much is spliced, until it falls silent.
    async fn pump<R, W>(&self, from: &mut R, to: &mut W) -> io::Result<()>
    where
        R: AsyncRead + Unpin + End,
        W: AsyncWrite + Unpin + End,
    {
        while let Some(pipe) = self.copy(from, to).await? {
            if let (Some(from), Some(to)) = (from.socket(), to.socket())
                && self.splice(&pipe, from, to).await?
            {
                break;
            }
        }
        self.other_ended.store(true, Ordering::Relaxed);
        to.shutdown().await
    }

    /// Copies until the end, or until there is much to move and a pipe for it.
    async fn copy<R, W>(&self, from: &mut R, to: &mut W) -> io::Result<Option<Pipe>>
    where
        R: AsyncRead + Unpin + End,
        W: AsyncWrite + Unpin + End,
    {
        let mut buffer = vec![0; BUFFER];
        let mut moved = 0_usize;
        loop {
            let Some(read) = self.patiently(from.read(&mut buffer)).await? else {
                moved = 0;
                continue;
            };
            if read == 0 {
                return Ok(None);
            }
            to.write_all(buffer.get(..read).unwrap_or_default()).await?;
            self.counted.add(self.direction, read);
            moved = moved.saturating_add(read);
            if moved >= BULK && from.socket().is_some() && to.socket().is_some() {
                moved = 0;
                if let Some(pipe) = Pipe::open() {
                    return Ok(Some(pipe));
                }
            }
        }
    }

    /// Whether the end came; else it fell silent, and the pipe is of use to somebody else.
    async fn splice(&self, pipe: &Pipe, from: &TcpStream, to: &TcpStream) -> io::Result<bool> {
        loop {
            let Some(held) = self.patiently(pipe.fill(from)).await? else {
                return Ok(false);
            };
            if held == 0 {
                return Ok(true);
            }
            let gone = |bytes| self.counted.add(self.direction, bytes);
            pipe.drain(to, held, gone).await?;
        }
    }

    /// None after a long silence; an error if the other direction has ended by then. The clock is looked at only while
    /// nothing comes, so a busy relay pays nothing for it.
    async fn patiently<T>(&self, next: impl Future<Output = io::Result<T>>) -> io::Result<Option<T>> {
        match tokio::time::timeout(HALF_OPEN, next).await {
            Ok(outcome) => outcome.map(Some),
            Err(_idle) if self.other_ended.load(Ordering::Relaxed) => Err(io::ErrorKind::TimedOut.into()),
            Err(_idle) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use bytes::Bytes;
    use tokio::io::{duplex, split};
    use tokio::net::TcpListener;

    use super::*;
    use crate::peek::client_hello::tests::rustls_hello;

    fn judge(first: &First) -> Result<(), String> {
        match first {
            First::Tls(hello) if hello.sni.as_deref() == Some("api.openai.com") => Err("late".to_owned()),
            _ => Ok(()),
        }
    }

    #[tokio::test]
    async fn both_directions_and_both_ends_pass() {
        let (mut client, ours) = duplex(1000);
        let (theirs, mut server) = duplex(1000);
        let counted = Counted::default();
        let work = async {
            client.write_all(&[7; 5000]).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            answer.len()
        };
        let serve = async {
            let mut request = Vec::new();
            server.read_to_end(&mut request).await.unwrap();
            server.write_all(&[8; 3000]).await.unwrap();
            server.shutdown().await.unwrap();
            request.len()
        };
        let (result, got, asked) = tokio::join!(
            relay_halves(split(ours), split(theirs), false, judge, &counted),
            work,
            serve
        );
        result.unwrap();
        assert_eq!((asked, got), (5000, 3000));
        assert_eq!(
            (counted.sent.into_inner(), counted.received.into_inner()),
            (5000, 3000)
        );
    }

    /// Both ends of a connection.
    #[allow(clippy::disallowed_methods, reason = "both ends are this test's own")]
    async fn joined() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap());
        let (near, far) = tokio::join!(near, listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    fn much(seed: usize, length: usize) -> Vec<u8> {
        (0..length)
            .map(|at| (at * 31 + at / 4096 + seed).to_le_bytes()[0])
            .collect()
    }

    #[tokio::test]
    async fn what_is_much_is_spliced_byte_for_byte_and_both_ends_pass() {
        let ((mut client, ours), (theirs, mut server)) = (joined().await, joined().await);
        let ours = Rewind::new(Bytes::from_static(b"hello"), ours);
        let counted = Counted::default();
        let (up, down) = (much(1, 3_000_001), much(2, 5_000_003));
        let work = async {
            client.write_all(&up).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = vec![0; down.len() - 7];
            client.read_exact(&mut answer).await.unwrap();
            let pipes = splice::in_use();
            client.read_to_end(&mut answer).await.unwrap();
            (answer, pipes)
        };
        let serve = async {
            let mut request = Vec::new();
            server.read_to_end(&mut request).await.unwrap();
            server.write_all(&down[..down.len() - 7]).await.unwrap();
            // A small message at the end of a big one is not held up.
            tokio::time::sleep(Duration::from_millis(50)).await;
            server.write_all(&down[down.len() - 7..]).await.unwrap();
            server.shutdown().await.unwrap();
            request
        };
        let (result, (answer, pipes), request) =
            tokio::join!(relay(ours, theirs, false, judge, &counted), work, serve);
        result.unwrap();
        assert!(request == [b"hello", &*up].concat() && answer == down);
        assert!(pipes > 0, "it was copied");
        assert_eq!(
            (counted.sent.into_inner(), counted.received.into_inner()),
            (3_000_006, 5_000_003)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_spliced_and_is_left_half_open_ends_after_a_while_too() {
        let ((mut client, ours), (theirs, mut server)) = (joined().await, joined().await);
        let ours = Rewind::new(Bytes::new(), ours);
        let counted = Counted::default();
        let work = async {
            let mut answer = vec![0; 3_000_000];
            client.read_exact(&mut answer).await.unwrap();
            client.shutdown().await.unwrap();
        };
        let serve = async { server.write_all(&much(3, 3_000_000)).await.unwrap() };
        let (ended, (), ()) = tokio::join!(relay(ours, theirs, false, judge, &counted), work, serve);
        assert!(matches!(ended, Err(Cut::Io(why)) if why.kind() == io::ErrorKind::TimedOut));
        assert_eq!(counted.received.into_inner(), 3_000_000);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_half_open_ends_after_a_while() {
        let (client, ours) = duplex(1000);
        let (theirs, _server_that_never_closes) = duplex(1000);
        drop(client);
        let counted = Counted::default();
        let ended = relay_halves(split(ours), split(theirs), false, judge, &counted).await;
        assert!(matches!(ended, Err(Cut::Io(why)) if why.kind() == io::ErrorKind::TimedOut));
    }

    #[tokio::test]
    async fn a_server_may_speak_first_and_a_late_provider_hello_is_cut() {
        for (name, passes) in [("mail.example", true), ("api.openai.com", false)] {
            let (mut client, ours) = duplex(9000);
            let (theirs, mut server) = duplex(9000);
            let counted = Counted::default();
            let work = async {
                let mut banner = [0; 5];
                client.read_exact(&mut banner).await.unwrap();
                let hello = rustls_hello(name, &[]);
                for part in hello.chunks(100) {
                    client.write_all(part).await.unwrap();
                    tokio::task::yield_now().await;
                }
                drop(client);
                hello.len()
            };
            let serve = async move {
                server.write_all(b"hello").await.unwrap();
                let mut got = Vec::new();
                server.read_to_end(&mut got).await.unwrap();
                got.len()
            };
            let relaying = async {
                let result = relay_halves(split(ours), split(theirs), true, judge, &counted).await;
                matches!(result, Err(Cut::Denied(_)))
            };
            let (cut, sent, got) = tokio::join!(relaying, work, serve);
            assert_eq!(cut, !passes, "{name}");
            assert_eq!(got, if passes { sent } else { 0 }, "{name}");
        }
    }
}
