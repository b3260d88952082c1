//! Tells a client that its connection may not pass, in the protocol that it speaks.
//!
//! In: the client, what its first bytes were, and the sentence. Out: a readable end: a status over plain HTTP, an alert
//! over TLS, a plain end over anything else. On failure: the connection is closed all the same.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::peek::First;

/// How long the client may take to read its refusal and close.
const PATIENCE: Duration = Duration::from_secs(1);

/// A fatal alert, `access_denied` (RFC 8446, section 6.2): the client's own error message says that it was not allowed.
const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// TLS: its ClientHello has been read.
    Tls,
    /// HTTP/1 without TLS.
    Http,
    /// Something else, or nothing yet.
    Other,
}

impl Speaks {
    /// What these first bytes are.
    pub fn of(first: &First) -> Self {
        match first {
            First::Tls(_) => Self::Tls,
            First::Http(_) => Self::Http,
            First::Other | First::Silent => Self::Other,
        }
    }
}

/// Says no, and waits a moment for the client to take it: closing with unread bytes would reset the connection, and the
/// client might never read the answer.
pub async fn refuse<S>(mut client: S, speaks: Speaks, why: &str)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answer = match speaks {
        Speaks::Tls => ACCESS_DENIED.to_vec(),
        Speaks::Http => page(why).into_bytes(),
        Speaks::Other => Vec::new(),
    };
    let told = async {
        client.write_all(&answer).await?;
        client.shutdown().await?;
        let mut rest = [0; 4096];
        while client.read(&mut rest).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, told).await {
        tracing::debug!(%error, "the client did not take its refusal");
    }
}

fn page(why: &str) -> String {
    let body = format!(
        "Guard, this host's firewall for LLM agents, refused this connection: {why}. Do not retry; the host's operator \
         sees it in the audit log and can change the rule.\n"
    );
    format!(
        "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: \
         close\r\nx-should-retry: false\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    async fn heard(speaks: Speaks) -> Vec<u8> {
        let (mut client, ours) = duplex(4096);
        let hear = async {
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).await.unwrap();
            drop(client);
            heard
        };
        tokio::join!(refuse(ours, speaks, "`egress.deny` lists \"*.internal\""), hear).1
    }

    #[tokio::test]
    async fn each_protocol_gets_an_end_that_its_client_can_read() {
        let page = String::from_utf8(heard(Speaks::Http).await).unwrap();
        assert!(
            page.starts_with("HTTP/1.1 403 ") && page.contains("`egress.deny` lists \"*.internal\""),
            "{page}"
        );
        assert_eq!(heard(Speaks::Tls).await, ACCESS_DENIED);
        assert!(heard(Speaks::Other).await.is_empty());
    }
}
