//! One request to a provider, read: what `decide` judges and `forward` sends.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, SEC_WEBSOCKET_PROTOCOL};
use http::{Method, Uri};
use sha2::{Digest, Sha256};
use ulid::Ulid;

use crate::keys::{Secret, sigv4};
use crate::llm::provider::Provider;
use crate::llm::{Dialect, EndpointKind, RequestFacts};

/// One call.
pub struct Call {
    /// Names the call in refusals, audit and `explain`.
    pub id: Ulid,
    /// Who it is for.
    pub provider: Arc<Provider>,
    /// The connection that it came on.
    pub origin: Origin,
    /// What the path is.
    pub endpoint: EndpointKind,
    /// The wire format that is spoken there.
    pub dialect: &'static dyn Dialect,
    /// HTTP method.
    pub method: Method,
    /// Path and query as the client wrote them.
    pub target: Uri,
    /// Headers as the client wrote them; `forward` takes out what must not go on.
    pub headers: HeaderMap,
    /// What the headers say.
    pub said: Said,
    /// What the body asks for; for inference only.
    pub facts: Option<RequestFacts>,
    /// The body, decoded.
    pub body: Bytes,
    /// The body as it came, when it came compressed.
    pub encoded_body: Option<Bytes>,
    /// Equal for equal (decoded) bodies: tells a client's retry from a new request.
    pub body_fingerprint: Fingerprint,
}

/// Where a connection was going.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Where the client meant to connect.
    pub destination: SocketAddr,
    /// The name in the TLS handshake.
    pub sni: String,
}

impl Call {
    /// The path without the query.
    pub fn path(&self) -> &str {
        self.target.path()
    }

    /// Bytes of the body as they came from the client.
    pub fn request_bytes(&self) -> u64 {
        self.encoded_body.as_ref().unwrap_or(&self.body).len() as u64
    }
}

/// What a client's headers say about a call. All of it is the client's word: it may narrow, never widen.
#[derive(Default)]
pub struct Said {
    /// Every credential presented, in whatever place.
    pub credentials: Vec<Presented>,
    /// Session label, e.g. Claude Code's; bounded and printable.
    pub session: Option<String>,
    /// How often the client's SDK says that it has tried already.
    pub retry_count: u32,
}

/// A credential that the client presented.
pub struct Presented {
    /// In which header, or `None` for a query parameter.
    pub header: Option<HeaderName>,
    /// The credential, without a `Bearer` in front.
    pub secret: Secret,
}

/// Headers in which clients of any provider present a credential.
pub const CREDENTIAL_HEADERS: [HeaderName; 4] = [
    AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
];

/// Query parameters in which clients present a credential.
const CREDENTIAL_PARAMETERS: [&str; 11] = [
    "key",
    "api_key",
    "api-key",
    "access_token",
    // A request that was signed beforehand, and the session that it was signed in.
    "x-amz-credential",
    "x-amz-security-token",
    "x-amz-signature",
    "x-amz-algorithm",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-signedheaders",
];

/// Session headers of agents, most specific first.
const SESSION_HEADERS: [&str; 5] = [
    "x-claude-code-session-id",
    "session-id",
    "session_id",
    "x-session-id",
    "x-openclaw-session-id",
];
const MAX_SESSION: usize = 128;
/// Set by the vendors' SDKs.
const RETRY_COUNT: &str = "x-stainless-retry-count";
/// Set by the AWS SDKs: `attempt=2; max=3`.
const AMZ_REQUEST: &str = "amz-sdk-request";

impl Said {
    /// Reads the headers and the query.
    pub fn read(headers: &HeaderMap, target: &Uri) -> Self {
        let mut credentials = Vec::new();
        for name in &CREDENTIAL_HEADERS {
            for value in headers.get_all(name) {
                let text = String::from_utf8_lossy(value.as_bytes());
                // Of a signature only the id of the key shows whose it is.
                let secret = sigv4::access_key_id(&text).unwrap_or_else(|| token(&text));
                credentials.push(Presented {
                    header: Some(name.clone()),
                    secret: Secret::new(secret),
                });
            }
        }
        for secret in subprotocols(headers).filter_map(key_in_subprotocol) {
            credentials.push(Presented {
                header: Some(SEC_WEBSOCKET_PROTOCOL),
                secret: Secret::new(secret),
            });
        }
        for (name, value) in parameters(target.query().unwrap_or_default()) {
            if is_credential_parameter(name) {
                credentials.push(Presented {
                    header: None,
                    secret: Secret::new(value),
                });
            }
        }
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            credentials,
            session: SESSION_HEADERS
                .iter()
                .find_map(|name| text(name))
                .and_then(session),
            retry_count: text(RETRY_COUNT)
                .and_then(|value| value.parse().ok())
                .or_else(|| text(AMZ_REQUEST).and_then(earlier_attempts))
                .unwrap_or(0),
        }
    }
}

/// The subprotocols that a client offers for a WebSocket.
pub fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
}

/// Clients that cannot set headers (browsers) present the key as the name of a subprotocol.
pub fn key_in_subprotocol(protocol: &str) -> Option<&str> {
    const MARK: &str = "openai-insecure-api-key.";
    let (mark, key) = protocol.split_at_checked(MARK.len())?;
    mark.eq_ignore_ascii_case(MARK).then_some(key)
}

/// A credential without its `Bearer`. Other schemes (Basic, signatures) are part of what was presented.
fn token(text: &str) -> &str {
    let text = text.trim();
    let (scheme, token) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    if scheme.eq_ignore_ascii_case("bearer") {
        token.trim()
    } else {
        text
    }
}

/// How many attempts came before this one, by an AWS SDK's word.
fn earlier_attempts(text: &str) -> Option<u32> {
    let attempt = text
        .split(';')
        .find_map(|part| part.trim().strip_prefix("attempt="))?;
    attempt.trim().parse::<u32>().ok()?.checked_sub(1)
}

fn session(text: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
    (!text.is_empty() && text.len() <= MAX_SESSION && text.bytes().all(plain)).then(|| text.to_owned())
}

/// Whether a query parameter presents a credential, however its name is written: `%6bey` is `key` to a provider.
pub fn is_credential_parameter(name: &str) -> bool {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let escaped = others.get(..2).filter(|_| *first == b'%').map(hex::decode);
        match escaped {
            Some(Ok(byte)) => {
                plain.extend(byte);
                rest = others.get(2..).unwrap_or_default();
            }
            Some(Err(_)) | None => {
                plain.push(*first);
                rest = others;
            }
        }
    }
    CREDENTIAL_PARAMETERS
        .iter()
        .any(|known| plain.eq_ignore_ascii_case(known.as_bytes()))
}

/// The `name=value` pairs of a query, as they are written.
pub fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// SHA-256 of a body, cut to 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// Of this body.
    pub fn of(body: &[u8]) -> Self {
        let hash: [u8; 32] = Sha256::digest(body).into();
        let mut short = [0; 16];
        short.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        Self(short)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(headers: &[(&'static str, &'static str)], target: &'static str) -> Said {
        let headers = headers
            .iter()
            .map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap()))
            .collect();
        Said::read(&headers, &Uri::from_static(target))
    }

    #[test]
    fn finds_every_credential() {
        let said = said(
            &[
                ("authorization", "bearer one"),
                ("x-api-key", "two"),
                ("x-goog-api-key", "three"),
            ],
            "/v1/x?a=b&key=four&alt=sse",
        );
        let found: Vec<_> = said.credentials.iter().map(|c| c.secret.expose()).collect();
        assert_eq!(found, ["one", "two", "three", "four"]);
        assert_eq!(said.credentials[3].header, None);
    }

    #[test]
    fn a_credential_among_the_subprotocols_is_found() {
        let offered = "realtime, OpenAI-Insecure-API-Key.sk-1 ,openai-insecure-api-key.sk-2";
        let said = said(&[("sec-websocket-protocol", offered)], "/v1/responses");
        let found: Vec<_> = said.credentials.iter().map(|c| c.secret.expose()).collect();
        assert_eq!(found, ["sk-1", "sk-2"]);
    }

    #[test]
    fn a_credential_in_the_query_is_found_however_its_name_is_written() {
        for query in [
            "/?%6bey=x",
            "/?%6B%65%79=x",
            "/?KEY=x",
            "/?a=1&api%5Fkey=x",
            "/?access_token=x",
        ] {
            assert_eq!(said(&[], query).credentials.len(), 1, "{query}");
        }
        for query in ["/?keys=x", "/?%=x", "/?%6=x", "/?%zzkey=x", "/?a=key"] {
            assert!(said(&[], query).credentials.is_empty(), "{query}");
        }
    }

    #[test]
    fn labels_are_bounded_and_printable() {
        let session = |value| said(&[("x-claude-code-session-id", value)], "/").session;
        assert_eq!(session("6f1c-77"), Some("6f1c-77".to_owned()));
        assert_eq!(session("a b"), None);
        assert_eq!(session("a\"}"), None);
        let long: &'static str = Box::leak("a".repeat(MAX_SESSION + 1).into_boxed_str());
        assert_eq!(session(long), None);
        assert_eq!(said(&[("x-stainless-retry-count", "2")], "/").retry_count, 2);
        assert_eq!(said(&[("x-stainless-retry-count", "-2")], "/").retry_count, 0);
    }

    #[test]
    fn equal_bodies_have_equal_fingerprints() {
        assert_eq!(Fingerprint::of(b"a"), Fingerprint::of(b"a"));
        assert_ne!(Fingerprint::of(b"a"), Fingerprint::of(b"b"));
    }
}
