//! In: a call and the permit for it. Out: the provider's answer, metered as it passes. On failure: a refusal that
//! names the provider as the cause; what was reserved is settled as not forwarded when nothing can have been billed.
//!
//! Guard never retries a call. A client that goes away before the answer is waited for, in bounds, so that the cost is
//! learnt.

use std::error::Error as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ALT_SVC, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, COOKIE, EXPECT, HOST,
    HeaderMap, HeaderName, HeaderValue,
};
use http::{Request, Response, Uri, Version};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::client::legacy::{Error as ClientError, ResponseFuture};

use crate::call::{CREDENTIAL_HEADERS, Call, is_credential_parameter, parameters};
use crate::http::headers::end_to_end;
use crate::identity::Identity;
use crate::keys::{Secret, sigv4};
use crate::llm::{BodyEdits, Dialect, Malformed};
use crate::meter::{Linger, Metered, Tab};
use crate::policy::{Credential, Permit, Redeemed};
use crate::refusal::{Reason, Refusal};

pub mod dial;
pub mod pool;
pub mod roots;

use dial::Target;
use pool::{PoolKey, Streams, Upstreams};

/// From the request to the head of the answer: a reasoning model that does not stream answers after minutes.
const ANSWER: Duration = Duration::from_secs(15 * 60);
/// Seconds after which a full pool may be tried again.
const BUSY: u32 = 5;

/// Where a call goes.
pub struct Destination<'a> {
    /// Where the client meant to connect.
    pub original: SocketAddr,
    /// The name asked for, which the certificate must have.
    pub sni: &'a str,
}

/// Forwards the call.
///
/// # Errors
/// The refusal to answer with; the permit is settled.
pub async fn forward(
    upstreams: &Upstreams,
    linger: &Linger,
    dialect: &'static dyn Dialect,
    identity: &Identity,
    destination: &Destination<'_>,
    call: Call,
    permit: Permit,
) -> Result<Response<Metered>, Refusal> {
    let Redeemed {
        edits,
        credential,
        settlement,
        gate,
    } = permit.redeem();
    let gated = gate.is_some();
    let tab = Tab::open(settlement, dialect, edits.include_usage, gate);
    let plain = edits.include_usage || gated || tab.has_deadline();
    let key = PoolKey {
        agent: identity.agent.clone(),
        provider: call.provider.name.clone(),
        target: call
            .provider
            .connect_to
            .map_or(Target::Original(destination.original), Target::Configured),
        sni: destination.sni.to_owned(),
    };
    let mut request = request(dialect, destination.sni, call, &edits, plain, &credential)?;
    let slot = upstreams.slot(&key).ok_or_else(busy)?;
    let sent = request.body().size_hint().lower();
    let connection = capture_connection(&mut request);
    let mut waiting = Waiting {
        answer: Some(slot.client.request(request)),
        connection,
        tab: Some(tab),
        streams: Some(slot.streams),
        linger: linger.clone(),
        sent,
    };
    let response = match tokio::time::timeout(ANSWER, &mut waiting).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Err(waiting.failed(&error)),
        Err(_elapsed) => return Err(waiting.too_late()),
    };
    waiting
        .answered(response, &credential)
        .ok_or_else(|| Refusal::new(Reason::Internal, "The reply has no account."))
}

fn busy() -> Refusal {
    let mut refusal = Refusal::new(
        Reason::InFlight,
        "Too many calls of this agent to this provider are in flight. Wait for some to end, then try again.",
    );
    refusal.retry_after = Some(BUSY);
    refusal
}

fn request(
    dialect: &dyn Dialect,
    sni: &str,
    call: Call,
    edits: &BodyEdits,
    plain: bool,
    credential: &Credential,
) -> Result<Request<Full<Bytes>>, Refusal> {
    let edited = !edits.is_empty();
    let inject = !matches!(credential, Credential::Pass);
    let mut headers = end_to_end(&call.headers, |name, _| {
        // The host comes from the URI again, the length from the body; 100-continue was answered here.
        [HOST, CONTENT_LENGTH, EXPECT].contains(name)
            || (inject && (CREDENTIAL_HEADERS.contains(name) || SIGNATURE_HEADERS.contains(name)))
            || (edited && *name == CONTENT_ENCODING)
            || (plain && *name == ACCEPT_ENCODING)
    });
    join_cookies(&mut headers);
    if plain {
        // An event can only be hidden from, and a call only be judged in, a reply that is not compressed.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    if let Credential::Inject { header, secret } = credential {
        headers.insert(header.clone(), credential_value(header, secret)?);
    }
    let body = if edited {
        dialect
            .rewrite(&call.body, edits)
            .map_err(|Malformed(why)| Refusal::new(Reason::Malformed, why))?
    } else {
        call.encoded_body.unwrap_or(call.body)
    };
    let target = call.target.path_and_query().map_or("/", |target| target.as_str());
    let target = if inject {
        without_credentials(target)
    } else {
        target.to_owned()
    };
    let uri = Uri::builder()
        .scheme("https")
        .authority(sni)
        .path_and_query(target)
        .build();
    let uri = uri.map_err(|error| internal(&error))?;
    if let Credential::Sign { secret } = credential {
        sign(&mut headers, secret, sni, &call.method, &uri, &body)?;
    }
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = call.method;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Headers in which a caller's signature stands; Guard's own takes their place.
const SIGNATURE_HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("x-amz-date"),
    HeaderName::from_static("x-amz-security-token"),
    HeaderName::from_static("x-amz-content-sha256"),
];

/// Signs the request as it will leave. The region is the second label of the host
/// (`bedrock-runtime.REGION.amazonaws.com`).
fn sign(
    headers: &mut HeaderMap,
    secret: &Secret,
    sni: &str,
    method: &http::Method,
    uri: &Uri,
    body: &[u8],
) -> Result<(), Refusal> {
    let (Some(keys), Some(region)) = (sigv4::KeyPair::read(secret.expose()), sni.split('.').nth(1)) else {
        return Err(internal(&"the key is no key pair"));
    };
    let request = sigv4::Request {
        method,
        host: sni,
        path: uri.path(),
        query: uri.query().unwrap_or_default(),
        body,
    };
    let signed = sigv4::sign(&keys, region, sigv4::BEDROCK, &request, jiff::Timestamp::now());
    let values = [
        (AUTHORIZATION, Some(signed.authorization.as_str())),
        (HeaderName::from_static("x-amz-date"), Some(signed.date.as_str())),
        (
            HeaderName::from_static("x-amz-security-token"),
            signed.session.as_ref().map(|session| session.as_str()),
        ),
    ];
    for (name, value) in values {
        if let Some(value) = value {
            let value = HeaderValue::from_str(value).ok();
            let mut value = value.ok_or_else(|| internal(&"the key is not a header value"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
    Ok(())
}

fn internal(error: &dyn std::fmt::Display) -> Refusal {
    tracing::error!(%error, "a request could not be built");
    Refusal::new(
        Reason::Internal,
        "The request could not be forwarded, because of a fault in Guard.",
    )
}

fn credential_value(header: &HeaderName, secret: &Secret) -> Result<HeaderValue, Refusal> {
    let value = if *header == http::header::AUTHORIZATION {
        HeaderValue::from_str(&zeroize::Zeroizing::new(format!("Bearer {}", secret.expose())))
    } else {
        HeaderValue::from_str(secret.expose())
    };
    // The error would quote the value.
    let mut value = value
        .ok()
        .ok_or_else(|| internal(&"the key is not a header value"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// HTTP/2 clients may split the cookie header (RFC 9113 §8.2.3); HTTP/1.1 servers want one.
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

fn without_credentials(target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else {
        return target.to_owned();
    };
    if !parameters(query).any(|(name, _)| is_credential_parameter(name)) {
        return target.to_owned();
    }
    let kept: Vec<String> = parameters(query)
        .filter(|(name, _)| !is_credential_parameter(name))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    if kept.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", kept.join("&"))
    }
}

/// A call between its request and the head of its answer. When it is dropped there, the client has gone.
struct Waiting {
    answer: Option<ResponseFuture>,
    connection: CaptureConnection,
    tab: Option<Tab>,
    streams: Option<Streams>,
    linger: Linger,
    sent: u64,
}

impl Waiting {
    /// Whether the request may have left: it does so right after a connection was found.
    fn may_have_left(&self) -> bool {
        self.connection.connection_metadata().is_some()
    }

    fn failed(mut self, error: &ClientError) -> Refusal {
        let forwarded = self.may_have_left() && !was_never_processed(error);
        let why = innermost(error);
        if let Some(mut tab) = self.tab.take() {
            tab.set_forwarded(forwarded, self.sent);
            tab.set_error(why.clone());
        }
        self.answer = None;
        Refusal::new(
            Reason::Upstream,
            format!("The provider could not be reached: {why}. Try again later."),
        )
    }

    fn too_late(mut self) -> Refusal {
        if let Some(mut tab) = self.tab.take() {
            tab.set_forwarded(self.may_have_left(), self.sent);
            tab.set_error("no answer in time".to_owned());
        }
        self.answer = None;
        Refusal::new(Reason::Upstream, "The provider did not answer within 15 minutes.")
    }

    fn answered(
        mut self,
        response: Response<Incoming>,
        credential: &Credential,
    ) -> Option<Response<Metered>> {
        let (mut parts, body) = response.into_parts();
        let (mut tab, streams) = (self.tab.take()?, self.streams.take()?);
        tab.set_forwarded(true, self.sent);
        tab.head(parts.status, &parts.headers);
        let (alters, decodes) = (tab.alters(), tab.decodes());
        parts.headers = end_to_end(&parts.headers, |name, value| {
            // Alt-Svc would send the client to QUIC, past Guard.
            *name == ALT_SVC
                || (alters && *name == CONTENT_LENGTH)
                || (decodes && *name == CONTENT_ENCODING)
                || shows(value, credential)
        });
        parts.version = Version::default();
        parts.extensions = http::Extensions::new();
        Some(Response::from_parts(
            parts,
            Metered::new(body, tab, streams, self.linger.clone()),
        ))
    }
}

/// Whether a header of the answer would show the key to the caller.
fn shows(value: &HeaderValue, credential: &Credential) -> bool {
    match credential {
        Credential::Inject { secret, .. } | Credential::Sign { secret } if !secret.expose().is_empty() => {
            memchr::memmem::find(value.as_bytes(), secret.expose().as_bytes()).is_some()
        }
        _ => false,
    }
}

impl Future for Waiting {
    type Output = Result<Response<Incoming>, ClientError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(answer) = &mut self.answer else {
            return Poll::Pending;
        };
        let result = std::task::ready!(Pin::new(answer).poll(cx));
        self.answer = None;
        Poll::Ready(result)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let (Some(answer), Some(mut tab)) = (self.answer.take(), self.tab.take()) else {
            return;
        };
        tab.set_client_gone();
        // Without a connection nothing has left, and nothing should any more.
        if self.may_have_left() {
            tab.set_forwarded(true, self.sent);
            self.linger.await_head(answer, tab, self.streams.take());
        }
    }
}

/// Whether the error itself says that the provider has not processed the request.
fn was_never_processed(error: &ClientError) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        if cause
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_canceled)
        {
            return true;
        }
        // RFC 9113 §8.7: a refused stream was not processed.
        let reason = cause.downcast_ref::<h2::Error>().and_then(h2::Error::reason);
        if reason == Some(h2::Reason::REFUSED_STREAM) {
            return true;
        }
        source = cause.source();
    }
    false
}

/// The cause at the bottom: the one that says something.
fn innermost(error: &ClientError) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
