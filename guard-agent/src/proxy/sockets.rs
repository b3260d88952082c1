//! A request that asks for a WebSocket: admitted, decided and forwarded as a request is; then the connection becomes the
//! socket, and stays what it was in all else.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use ulid::Ulid;

use super::{Connection, Proxy};
use crate::call::{Call, Fingerprint, Said};
use crate::forward::Destination;
use crate::forward::socket::{Opened, open};
use crate::http::Reply;
use crate::http::admit::admit;
use crate::identity::Identity;
use crate::llm::Malformed;
use crate::llm::detect::{self, Endpoint};
use crate::llm::provider::Provider;
use crate::llm::socket::{Opening, SocketFormat};
use crate::refusal::{Reason, Refusal};
use crate::socket::{Caller, Client, Socket};

/// What a connection becomes once its last answer was to switch protocols.
#[derive(Default)]
pub(super) struct Next(Mutex<Option<BoxFuture<'static, ()>>>);

impl Next {
    pub(super) fn take(&self) -> Option<BoxFuture<'static, ()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, next: BoxFuture<'static, ()>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
    }
}

/// A refusal, and whether it is recorded yet.
pub(super) enum Refused {
    /// It is not.
    Early(Refusal),
    /// It is.
    Decided(Refusal),
}

/// Google's own client writes two slashes before the path of a socket, which its server takes for one. So does Guard, where
/// one makes it the path of a socket that it reads, and sends one on: what is judged is what is served.
pub(super) fn tidy<B>(provider: &Provider, request: &mut Request<B>) {
    let target = request.uri().path_and_query().map(|target| target.as_str());
    let Some(rest) = target.and_then(|target| target.strip_prefix('/')) else {
        return;
    };
    let plain = rest.split('?').next().unwrap_or_default();
    if request.method() == Method::GET
        && request.headers().contains_key(UPGRADE)
        && detect::socket(provider, plain).is_some()
    {
        let mut parts = request.uri().clone().into_parts();
        parts.path_and_query = rest.parse().ok();
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
}

/// The socket that a request asks for, where Guard reads the format that is spoken on it. HTTP/2 has another way to ask,
/// which Guard does not offer.
pub(super) fn wanted(
    provider: &Provider,
    request: &Request<Incoming>,
) -> Option<(Endpoint, &'static dyn SocketFormat)> {
    let websocket = request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && request.headers().get_all(UPGRADE).iter().count() == 1
        && has(request.headers(), UPGRADE, "websocket");
    websocket.then(|| detect::socket(provider, request.uri().path()))?
}

/// Whether a header has this token in its list.
fn has(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let values = headers.get_all(name);
    values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|found| found.trim().eq_ignore_ascii_case(token))
}

/// The key to answer, if the request is a proper one (RFC 6455 §4.2.1).
fn handshake(headers: &HeaderMap) -> Result<&HeaderValue, Refusal> {
    let malformed = |message: &str| Refusal::new(Reason::Malformed, message);
    let body = headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    let version = headers
        .get(SEC_WEBSOCKET_VERSION)
        .is_some_and(|version| version == "13");
    if body || !version || !has(headers, CONNECTION, "upgrade") {
        return Err(malformed(
            "This is no proper request for a WebSocket of version 13. Send it as RFC 6455 has it, or use plain HTTPS.",
        ));
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    match (keys.next(), keys.next()) {
        (Some(key), None) if key.len() == 24 => Ok(key),
        _ => Err(malformed(
            "A request for a WebSocket has one Sec-WebSocket-Key of 24 characters.",
        )),
    }
}

impl Proxy {
    /// One request for a socket.
    pub(super) async fn serve_upgrade(
        &self,
        connection: &Connection,
        identity: &Identity,
        id: Ulid,
        (endpoint, format): (Endpoint, &'static dyn SocketFormat),
        mut request: Request<Incoming>,
    ) -> Result<Response<Reply>, Refused> {
        let upgraded = hyper::upgrade::on(&mut request);
        let (parts, _) = request.into_parts();
        let port = connection.origin.destination.port();
        admit(&parts, &connection.origin.sni, port, endpoint.kind).map_err(Refused::Early)?;
        let key = handshake(&parts.headers).map_err(Refused::Early)?;
        let accept = derive_accept_key(key.as_bytes());
        let opening = Opening {
            target: &parts.uri,
            headers: &parts.headers,
        };
        let session = format
            .open(&opening)
            .map_err(|Malformed(why)| Refused::Early(Refusal::new(Reason::Malformed, why)))?;
        let dialect = session.dialect().unwrap_or(endpoint.dialect);
        let caller = Caller {
            identity: identity.clone(),
            provider: connection.provider.clone(),
            origin: connection.origin.clone(),
            dialect,
            target: parts.uri.clone(),
            headers: parts.headers.clone(),
            judge: self.stages.decide.clone(),
            report: self.stages.report.clone(),
        };
        let call = Call {
            id,
            provider: connection.provider.clone(),
            origin: connection.origin.clone(),
            endpoint: endpoint.kind,
            dialect: endpoint.dialect,
            said: Said::read(&parts.headers, &parts.uri),
            method: parts.method,
            target: parts.uri,
            headers: parts.headers,
            facts: None,
            body: Bytes::new(),
            encoded_body: None,
            body_fingerprint: Fingerprint::of(b""),
        };
        let permit = self
            .stages
            .decide
            .decide(identity, &connection.provider, &call)
            .map_err(Refused::Decided)?;
        let destination = Destination {
            original: connection.origin.destination,
            sni: &connection.origin.sni,
        };
        let upstreams = &connection.snapshot.upstreams;
        let opened = open(upstreams, &self.linger, identity, &destination, call, permit).await;
        let (upstream, headers) = match opened.map_err(Refused::Decided)? {
            Opened::Answer(answer) => return Ok((*answer).map(Either::Right)),
            Opened::Socket(upstream, headers) => (upstream, headers),
        };
        let (share, largest, drain) = (connection.share.clone(), self.limits.bytes, self.drain.clone());
        connection.next.set(Box::pin(async move {
            match upgraded.await {
                Ok(stream) => {
                    let client = Client::new(stream, share, largest).await;
                    Box::pin(Socket::new(caller, session, client, *upstream, drain).run()).await;
                }
                Err(error) => tracing::debug!(%error, "the client left before its socket was open"),
            }
        }));
        Ok(switching(headers, &accept))
    }
}

/// The answer that makes the connection a socket.
fn switching(headers: HeaderMap, accept: &str) -> Response<Reply> {
    let mut response = Response::new(Either::Left(Full::new(Bytes::new())));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::provider::builtin;

    #[test]
    fn two_slashes_before_the_path_of_a_known_socket_are_one_and_of_nothing_else() {
        const LIVE: &str =
            "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent?key=k";
        let google = builtin()
            .into_iter()
            .find(|provider| provider.name == "gemini")
            .unwrap();
        let tidied = |method: Method, path: &str, upgrade: bool| {
            let mut request = Request::builder().method(method).uri(path);
            if upgrade {
                request = request.header(UPGRADE, "websocket");
            }
            let mut request = request.body(()).unwrap();
            tidy(&google, &mut request);
            request.uri().to_string()
        };
        assert_eq!(tidied(Method::GET, &format!("/{LIVE}"), true), LIVE);
        for (method, path, upgrade) in [
            (Method::GET, format!("/{LIVE}"), false),
            (Method::POST, format!("/{LIVE}"), true),
            (Method::GET, format!("//{LIVE}"), true),
            (Method::GET, "//v1beta/models".to_owned(), true),
            (Method::GET, LIVE.to_owned(), true),
        ] {
            assert_eq!(tidied(method, &path, upgrade), path);
        }
    }
}
