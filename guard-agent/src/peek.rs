//! In: the first bytes of a connection. Out: what they are — TLS with its ClientHello, plain HTTP with its host, or
//! something else — and a stream that gives the same bytes again. On failure: the connection is closed; nothing
//! was forwarded.
//!
//! Reading is bounded (64 KiB of ClientHello, 16 KiB of HTTP head) and timed: ten seconds from the first byte on.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

pub mod client_hello;
pub mod plain;
pub mod rewind;

pub use client_hello::{BadHello, ClientHello};
pub use plain::{BadHead, PlainHead};
pub use rewind::Rewind;

use client_hello::HelloReader;

use crate::telemetry::metrics::ClientError;

/// How long Guard waits.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the first byte; a client that is silent longer is taken to wait for the server to speak.
    pub silence: Duration,
    /// From the first byte until it is clear what they are.
    pub verdict: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            silence: Duration::from_millis(300),
            verdict: Duration::from_secs(10),
        }
    }
}

/// What the first bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum First {
    /// A TLS ClientHello.
    Tls(ClientHello),
    /// The head of an HTTP/1 request without TLS.
    Http(PlainHead),
    /// Neither.
    Other,
    /// The client said nothing in time: the server may be the one to speak first.
    Silent,
}

/// Why a connection's first bytes were not accepted.
#[derive(Debug, thiserror::Error)]
pub enum PeekError {
    /// A ClientHello that is malformed or ambiguous.
    #[error(transparent)]
    Hello(#[from] BadHello),
    /// A plain HTTP head that is malformed, ambiguous or too large.
    #[error(transparent)]
    Head(#[from] BadHead),
    /// Some bytes came, but not enough to tell in ten seconds.
    #[error("the first bytes did not arrive in time")]
    Slow,
    /// The client closed before it could be told.
    #[error("the client closed after {0} bytes")]
    Closed(usize),
    /// The socket failed.
    #[error("reading the first bytes: {0}")]
    Io(#[from] io::Error),
}

impl PeekError {
    /// What the client did, for the metric.
    pub fn kind(&self) -> ClientError {
        match self {
            Self::Hello(_) => ClientError::MalformedTls,
            Self::Head(_) => ClientError::MalformedHttp,
            Self::Slow => ClientError::Slow,
            Self::Closed(_) | Self::Io(_) => ClientError::Gone,
        }
    }
}

/// Decides, byte by byte, what a stream is.
#[derive(Debug, Default)]
pub struct Classifier {
    hello: HelloReader,
}

impl Classifier {
    /// Takes everything received so far; `None` means that more is needed.
    ///
    /// # Errors
    /// [`PeekError::Hello`] and [`PeekError::Head`].
    pub fn classify(&mut self, received: &[u8]) -> Result<Option<First>, PeekError> {
        match received {
            [] | [0x16] => Ok(None),
            [0x16, 3, ..] => Ok(self.hello.feed(received)?.map(First::Tls)),
            [0x16, ..] => Ok(Some(First::Other)),
            _ => match plain::read(received)? {
                plain::Verdict::NeedMore => Ok(None),
                plain::Verdict::NotHttp => Ok(Some(First::Other)),
                plain::Verdict::Head(head) => Ok(Some(First::Http(head))),
            },
        }
    }
}

/// Reads until it is clear what the stream is. The bytes are returned beside the verdict, also after an error.
pub async fn peek<S>(stream: &mut S, patience: Patience) -> (Result<First, PeekError>, Bytes)
where
    S: AsyncRead + Unpin,
{
    let mut received = BytesMut::with_capacity(2048);
    let verdict = read_until_clear(stream, patience, &mut received).await;
    (verdict, received.freeze())
}

async fn read_until_clear<S>(
    stream: &mut S,
    patience: Patience,
    received: &mut BytesMut,
) -> Result<First, PeekError>
where
    S: AsyncRead + Unpin,
{
    let mut classifier = Classifier::default();
    let mut deadline = Instant::now() + patience.silence;
    loop {
        let Ok(read) = timeout_at(deadline, stream.read_buf(received)).await else {
            return if received.is_empty() {
                Ok(First::Silent)
            } else {
                Err(PeekError::Slow)
            };
        };
        let count = read?;
        if count == 0 {
            return Err(PeekError::Closed(received.len()));
        }
        if count == received.len() {
            deadline = Instant::now() + patience.verdict;
        }
        if let Some(first) = classifier.classify(received)? {
            return Ok(first);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use client_hello::tests::rustls_hello;

    async fn peek_while<F: Future<Output = ()>>(
        patience: Patience,
        write: impl FnOnce(tokio::io::DuplexStream) -> F,
    ) -> (Result<First, PeekError>, Bytes) {
        let (mut ours, theirs) = tokio::io::duplex(4096);
        let (result, ()) = tokio::join!(peek(&mut ours, patience), write(theirs));
        result
    }

    const QUICK: Patience = Patience {
        silence: Duration::from_millis(40),
        verdict: Duration::from_millis(200),
    };

    #[tokio::test]
    async fn a_hello_in_two_parts_is_read_and_kept() {
        let bytes = rustls_hello("api.openai.com", &[]);
        let sent = bytes.clone();
        let (first, kept) = peek_while(QUICK, async |mut client| {
            client.write_all(&sent[..700]).await.unwrap();
            tokio::time::sleep(QUICK.silence * 2).await;
            client.write_all(&sent[700..]).await.unwrap();
        })
        .await;
        assert!(matches!(first, Ok(First::Tls(hello)) if hello.sni.as_deref() == Some("api.openai.com")));
        assert_eq!(kept, bytes);
    }

    #[tokio::test]
    async fn a_silent_client_is_told_apart_from_a_slow_one() {
        let (first, _) = peek_while(QUICK, async |client| {
            tokio::time::sleep(QUICK.verdict * 2).await;
            drop(client);
        })
        .await;
        assert!(matches!(first, Ok(First::Silent)));
        // One byte every 20 ms does not move the deadline.
        let began = Instant::now();
        let (slow, kept) = peek_while(QUICK, async |mut client| {
            for byte in rustls_hello("a.example", &[]).into_iter().take(30) {
                let _closed = client.write_all(&[byte]).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        assert!(matches!(slow, Err(PeekError::Slow)));
        assert!(!kept.is_empty() && kept.len() < 25, "{}", kept.len());
        assert!(began.elapsed() >= QUICK.verdict);
    }

    #[tokio::test]
    async fn a_client_that_closes_is_told() {
        let (first, _) = peek_while(Patience::default(), async |client| drop(client)).await;
        assert!(matches!(first, Err(PeekError::Closed(0))));
    }

    #[test]
    fn tells_protocols_apart() {
        let classify = |bytes: &[u8]| Classifier::default().classify(bytes).unwrap();
        assert_eq!(classify(b"\x16"), None);
        assert_eq!(classify(b"\x16\x02"), Some(First::Other));
        assert_eq!(classify(b"SSH-2.0-x\r\n"), Some(First::Other));
        assert_eq!(classify(b"\0\0\0\x08\x04\xd2\x16\x2f"), Some(First::Other));
        assert!(matches!(
            classify(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"),
            Some(First::Http(_))
        ));
    }
}
