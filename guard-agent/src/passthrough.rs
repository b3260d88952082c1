//! In: a connection that is not a provider's. Out: both directions relayed to their end, counted. On failure: both
//! sides are closed.
//!
//! A client that was silent at first may be waiting for its server to speak, or may only be slow (a busy host, a client
//! that sets up TLS after it connected). Who speaks first shows which: a slow client's first bytes are routed like any
//! other's; once the server has spoken, they are relayed, but inspected before: a ClientHello for a provider is cut.

pub mod refuse;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::peek::{First, Patience, PeekError, peek};

/// Bytes per read: few system calls for a download, and what a socket's buffer holds anyway.
const BUFFER: usize = 64 * 1024;
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
pub async fn relay<C, U>(
    client: C,
    upstream: U,
    undecided: bool,
    judge: impl Fn(&First) -> Result<(), String>,
    counted: &Counted,
) -> Result<(), Cut>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_upstream, mut to_upstream) = tokio::io::split(upstream);
    let other_ended = AtomicBool::new(false);
    let up = async {
        if undecided {
            inspect(&mut from_client, &mut to_upstream, judge, counted).await?;
        }
        pump(
            &mut from_client,
            &mut to_upstream,
            &counted.sent,
            counted,
            &other_ended,
        )
        .await
        .map_err(Cut::Io)
    };
    let down = async {
        pump(
            &mut from_upstream,
            &mut to_client,
            &counted.received,
            counted,
            &other_ended,
        )
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

/// Copies to the end and passes the end on.
async fn pump<R, W>(
    from: &mut R,
    to: &mut W,
    direction: &AtomicU64,
    counted: &Counted,
    other_ended: &AtomicBool,
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
    loop {
        // The clock is looked at only while nothing comes, so a busy relay pays nothing for it.
        let read = loop {
            match tokio::time::timeout(HALF_OPEN, from.read(&mut buffer)).await {
                Ok(read) => break read?,
                Err(_idle) if other_ended.load(Ordering::Relaxed) => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(_idle) => {}
            }
        };
        if read == 0 {
            other_ended.store(true, Ordering::Relaxed);
            return to.shutdown().await;
        }
        to.write_all(buffer.get(..read).unwrap_or_default()).await?;
        counted.add(direction, read);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

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
        let (result, got, asked) = tokio::join!(relay(ours, theirs, false, judge, &counted), work, serve);
        result.unwrap();
        assert_eq!((asked, got), (5000, 3000));
        assert_eq!(
            (counted.sent.into_inner(), counted.received.into_inner()),
            (5000, 3000)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_half_open_ends_after_a_while() {
        let (client, ours) = duplex(1000);
        let (theirs, _server_that_never_closes) = duplex(1000);
        drop(client);
        let counted = Counted::default();
        let ended = relay(ours, theirs, false, judge, &counted).await;
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
                let result = relay(ours, theirs, true, judge, &counted).await;
                matches!(result, Err(Cut::Denied(_)))
            };
            let (cut, sent, got) = tokio::join!(relaying, work, serve);
            assert_eq!(cut, !passes, "{name}");
            assert_eq!(got, if passes { sent } else { 0 }, "{name}");
        }
    }
}
