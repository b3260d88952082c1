//! In: a connection whose ClientHello names a provider. Out: the decrypted stream and the protocol agreed on.
//! On failure: a [`Distrust`], counted per agent: it is how a client that does not trust Guard's root looks.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::{AlertDescription, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub mod authority;
pub mod bundle;
mod explicit;
pub mod leaf;

pub use authority::{Authority, AuthorityError};
pub use bundle::write_bundle;
pub use leaf::Leaves;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Why a handshake brought no request: the ways in which a client shows that it does not trust Guard's root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Distrust {
    /// The alert of OpenSSL and its like.
    UnknownCa,
    /// The alert of Go, or one of its relatives about certificates.
    BadCertificate,
    /// The client closed during the handshake, as Node and Java do.
    Closed,
    /// The handshake completed, but no request came before the close, as Bun does. Also how an unused spare
    /// connection looks: only many of them mean something.
    NoRequest,
    /// The handshake took longer than ten seconds.
    Slow,
    /// Anything else: no common version, cipher or protocol.
    Other,
}

impl Distrust {
    /// Name in logs, metrics and `doctor`.
    pub fn label(self) -> &'static str {
        match self {
            Self::UnknownCa => "unknown_ca",
            Self::BadCertificate => "bad_certificate",
            Self::Closed => "closed",
            Self::NoRequest => "no_request",
            Self::Slow => "slow",
            Self::Other => "other",
        }
    }
}

/// Terminates TLS with leaves of Guard's own.
///
/// One configuration serves all names and protocols: the leaf is chosen by the server name, and a client that offers
/// only HTTP/1.1 gets it. There is no early data: a replayed request would be paid twice. There is no ticket of TLS 1.3
/// either: on the same host it would arrive just while the client writes its request, and a client that reads and writes
/// on two threads (Python's `websockets` over OpenSSL) then loses the request and waits for ever. All that a ticket saves
/// here is one signature. Those of TLS 1.2 belong to the handshake, and are sealed by one shared key.
#[derive(Clone, Debug)]
pub struct Terminator {
    config: Arc<ServerConfig>,
}

impl Terminator {
    /// A terminator that presents these leaves.
    ///
    /// # Errors
    /// When the TLS library can't be set up.
    pub fn new(leaves: Arc<Leaves>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(leaves);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(Self {
            config: Arc::new(config),
        })
    }

    /// The configuration, for an explicit-proxy listener.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// Completes the handshake within ten seconds.
    ///
    /// # Errors
    /// [`Distrust`], by what the client did.
    pub async fn accept<S>(&self, stream: S) -> Result<TlsStream<S>, Distrust>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let handshake = TlsAcceptor::from(self.config.clone()).accept(stream);
        match tokio::time::timeout(HANDSHAKE, handshake).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(classify(&error)),
            Err(_elapsed) => Err(Distrust::Slow),
        }
    }
}

/// Whether HTTP/2 was agreed on.
pub fn is_h2<S>(stream: &TlsStream<S>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(b"h2")
}

/// What a failed or broken connection says about trust. TLS 1.3 clients send their alert after the server considers
/// the handshake done, so this also reads errors of the first request.
pub fn classify(error: &io::Error) -> Distrust {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match (tls, error.kind()) {
        (Some(rustls::Error::AlertReceived(AlertDescription::UnknownCA)), _) => Distrust::UnknownCa,
        (
            Some(rustls::Error::AlertReceived(
                AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::AccessDenied,
            )),
            _,
        ) => Distrust::BadCertificate,
        (None, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
            Distrust::Closed
        }
        _ => Distrust::Other,
    }
}

/// What an error of a connection says about trust.
pub fn cause_of(error: &(dyn std::error::Error + 'static)) -> Option<Distrust> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(classify(io));
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
pub(crate) mod tests;
