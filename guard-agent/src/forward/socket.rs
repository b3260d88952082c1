//! In: the permit to open a socket, and later one permit for each call on it. Out: the provider's side of the socket, and
//! each call's message, forwarded and metered. On failure: a refusal that names the provider as the cause.
//!
//! Guard speaks WebSocket with either side by itself. It offers the provider no extension and agrees to none with the
//! client, permessage-deflate among them: each message is whole and plain, so that it can be read, held back and
//! rewritten without regard to those before it, no window is kept for a socket, and nothing can unfold.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::{Destination, clean, pool_key, record_first};
use crate::call::{Call, key_in_subprotocol, subprotocols};
use crate::forward::pool::Upstreams;
use crate::forward::request::request;
use crate::identity::Identity;
use crate::llm::BodyEdits;
use crate::llm::socket::{Request as Asked, Session};
use crate::meter::{Linger, Metered, Tab};
use crate::policy::{Credential, Permit, Redeemed};
use crate::refusal::{Reason, Refusal};
use crate::share::large::beside;

/// From the request to the provider's answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Largest message of a provider's; an inline image has a few megabytes.
const LARGEST: usize = 32 * 1024 * 1024;
/// A side that takes nothing for this long is gone.
pub(crate) const STALLED: Duration = Duration::from_secs(300);
/// To close in an orderly way.
const CLOSE: Duration = Duration::from_secs(2);
/// Read at a time; a socket at rest keeps this much.
pub(crate) const READ: usize = 8 * 1024;

/// How a provider answers a request for a socket.
pub enum Opened {
    /// The socket, and the headers that the client is to get.
    Socket(Box<Upstream>, HeaderMap),
    /// Another answer than a socket.
    Answer(Box<Response<Metered>>),
}

/// The provider's side of a socket.
pub struct Upstream(WebSocketStream<TokioIo<Upgraded>>);

/// Opens a socket. What the permit holds is settled when it is open.
///
/// # Errors
/// The refusal to answer with; the permit is settled.
pub async fn open(
    upstreams: &Upstreams,
    linger: &Linger,
    identity: &Identity,
    destination: &Destination<'_>,
    call: Call,
    permit: Permit,
) -> Result<Opened, Refusal> {
    let Redeemed {
        credential,
        settlement,
        ..
    } = permit.redeem();
    let dialect = call.dialect;
    let mut tab = Tab::open(settlement, dialect, false, None);
    let key = pool_key(identity, destination, &call);
    let nonce = generate_key();
    let protocols = protocols(&call.headers, &credential);
    let edits = BodyEdits::default();
    let plain = request(dialect, destination.sni, call, &edits, false, &credential)?;
    let wanted = upgrade(plain, destination.sni, &nonce, protocols)?;
    let failed = |tab: &mut Tab, error: String| {
        let refusal = unreachable(&error);
        tab.set_error(error);
        refusal
    };
    let stream = match upstreams.alone(&key).await {
        Ok(stream) => stream,
        Err(error) => return Err(failed(&mut tab, error.to_string())),
    };
    let response = match ask(stream, wanted).await {
        Ok(response) => response,
        Err(error) => return Err(failed(&mut tab, error)),
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (mut parts, body) = response.into_parts();
        tab.set_forwarded(true, 0);
        tab.head(parts.status, &parts.headers);
        clean(&mut parts, &tab, &credential);
        let answer = Metered::new(body, tab, None, linger.clone());
        return Ok(Opened::Answer(Box::new(Response::from_parts(parts, answer))));
    }
    if let Err(error) = agreed(response.headers(), &nonce) {
        return Err(failed(&mut tab, error.to_owned()));
    }
    let (mut parts, body) = response.into_parts();
    let protocol = parts.headers.get(SEC_WEBSOCKET_PROTOCOL).cloned();
    let response = Response::from_parts(parts.clone(), body);
    clean(&mut parts, &tab, &credential);
    own(&mut parts.headers);
    if let Some(protocol) = protocol {
        parts.headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    let upgraded = match hyper::upgrade::on(response).await {
        Ok(upgraded) => upgraded,
        Err(error) => return Err(failed(&mut tab, error.to_string())),
    };
    tab.switched(StatusCode::SWITCHING_PROTOCOLS);
    Ok(Opened::Socket(
        Box::new(Upstream::over(upgraded).await),
        parts.headers,
    ))
}

/// Bounds of one side.
pub(crate) fn config(largest: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ)
        .write_buffer_size(0)
        .max_message_size(Some(largest))
        .max_frame_size(Some(largest))
}

fn unreachable(why: &str) -> Refusal {
    Refusal::new(
        Reason::Upstream,
        format!("The provider could not be reached: {why}. Try again later."),
    )
}

/// The subprotocols that go on: without the caller's credential, unless it is to pass.
fn protocols(headers: &HeaderMap, credential: &Credential) -> Option<HeaderValue> {
    let pass = matches!(credential, Credential::Pass);
    let kept: Vec<&str> = subprotocols(headers)
        .filter(|protocol| pass || key_in_subprotocol(protocol).is_none())
        .collect();
    HeaderValue::from_str(&kept.join(", "))
        .ok()
        .filter(|value| !value.is_empty())
}

/// Takes out what the two handshakes have of their own.
fn own(headers: &mut HeaderMap) {
    for name in [
        SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_VERSION,
        SEC_WEBSOCKET_EXTENSIONS,
        SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_ACCEPT,
    ] {
        headers.remove(name);
    }
}

/// Makes the request one for a socket of Guard's own.
fn upgrade(
    mut request: Request<Full<Bytes>>,
    sni: &str,
    nonce: &str,
    protocols: Option<HeaderValue>,
) -> Result<Request<Full<Bytes>>, Refusal> {
    let fault = |_| Refusal::new(Reason::Internal, "The request for a socket could not be made.");
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .to_owned();
    *request.uri_mut() = Uri::try_from(path).map_err(|error| fault(error.to_string()))?;
    let host = HeaderValue::from_str(sni).map_err(|error| fault(error.to_string()))?;
    let nonce = HeaderValue::from_str(nonce).map_err(|error| fault(error.to_string()))?;
    let headers = request.headers_mut();
    own(headers);
    headers.insert(HOST, host);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(SEC_WEBSOCKET_KEY, nonce);
    if let Some(protocols) = protocols {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocols);
    }
    Ok(request)
}

async fn ask<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, String>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let made = hyper::client::conn::http1::Builder::new().handshake(stream).await;
    let (mut sender, connection) = made.map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection for a socket");
        }
    });
    match tokio::time::timeout(ANSWER, sender.send_request(request)).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => Err("no answer within thirty seconds".to_owned()),
    }
}

/// Whether the provider has agreed to just what was offered (RFC 6455 §4.1).
fn agreed(headers: &HeaderMap, nonce: &str) -> Result<(), &'static str> {
    let is = |name: HeaderName, wanted: &str| {
        headers
            .get(name)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(wanted.as_bytes()))
    };
    let accept = derive_accept_key(nonce.as_bytes());
    if !is(UPGRADE, "websocket")
        || headers
            .get(SEC_WEBSOCKET_ACCEPT)
            .is_none_or(|value| value != accept.as_str())
    {
        return Err("it agreed to another protocol than WebSocket");
    }
    if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
        return Err("it agreed to an extension that was not offered");
    }
    Ok(())
}

impl Upstream {
    /// The socket on a connection that has become one.
    pub(crate) async fn over(stream: Upgraded) -> Self {
        let config = Some(config(LARGEST));
        Self(WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Client, config).await)
    }

    /// The provider's next message; `None` when the socket has ended. Losing the future loses no message.
    pub async fn next(&mut self) -> Option<Result<Message, Error>> {
        self.0.next().await
    }

    /// Forwards a call's message. Gives its account, and which tools were taken out.
    ///
    /// # Errors
    /// The refusal to tell; the permit is settled.
    pub async fn ask(
        &mut self,
        session: &dyn Session,
        asked: &Asked,
        call: Call,
        permit: Permit,
    ) -> Result<(Tab, Vec<String>), Refusal> {
        let (mut tab, edits, body) = hold(call, permit, false).await?;
        let bytes = body.len() as u64;
        let text = text(body)?;
        // From here on the provider may have it.
        tab.set_forwarded(true, bytes);
        if let Err(why) = self.send(Message::Text(text)).await {
            tab.set_error(why.clone());
            return Err(unreachable(&why));
        }
        tab.begin_messages(|gate| session.reader(asked, gate));
        Ok((tab, edits.strip_tools))
    }

    /// Forwards a message that says what later responses are like. Gives the account of the next one, and what was changed
    /// in the message.
    ///
    /// # Errors
    /// The refusal to tell; the permit is given back.
    pub async fn set_up(&mut self, call: Call, permit: Permit) -> Result<(Tab, BodyEdits), Refusal> {
        let (tab, edits, body) = hold(call, permit, true).await?;
        let text = text(body)?;
        self.send(Message::Text(text))
            .await
            .map_err(|why| unreachable(&why))?;
        Ok((tab, edits))
    }

    /// Forwards a message that is no call.
    ///
    /// # Errors
    /// The provider is gone.
    pub async fn send(&mut self, message: Message) -> Result<(), String> {
        match tokio::time::timeout(STALLED, self.0.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_elapsed) => Err("it takes nothing any more".to_owned()),
        }
    }

    /// Ends the socket with this close frame.
    pub async fn close(self, frame: Option<CloseFrame>) {
        close(self.0, frame).await;
    }
}

/// Opens the account of a response that nobody has asked for. Gives how it was to be changed.
///
/// # Errors
/// The refusal to tell; the permit is given back.
pub async fn stand(call: Call, permit: Permit) -> Result<(Tab, BodyEdits), Refusal> {
    let (tab, edits, _) = account(&call, permit, true).await?;
    Ok((tab, edits))
}

/// Opens the account of a call, and waits until it is on record.
async fn account(call: &Call, permit: Permit, standing: bool) -> Result<(Tab, BodyEdits, Bytes), Refusal> {
    let Redeemed {
        edits,
        settlement,
        gate,
        ..
    } = permit.redeem();
    let on_disk = settlement.on_disk();
    let mut tab = Tab::open(settlement, call.dialect, false, gate);
    tab.set_call(call.id.to_string());
    if standing {
        tab.stand();
    }
    record_first(on_disk, &mut tab).await?;
    Ok((tab, edits, call.body.clone()))
}

/// Opens the account of a message, and changes the message.
async fn hold(call: Call, permit: Permit, standing: bool) -> Result<(Tab, BodyEdits, Bytes), Refusal> {
    let (tab, edits, body) = account(&call, permit, standing).await?;
    if edits.is_empty() {
        return Ok((tab, edits, body));
    }
    let rewritten = beside(body.len(), || call.dialect.rewrite(&body, &edits));
    let body = rewritten.map_err(|error| Refusal::new(Reason::Malformed, error.to_string()))?;
    Ok((tab, edits, body))
}

fn text(body: Bytes) -> Result<Utf8Bytes, Refusal> {
    Utf8Bytes::try_from(body).map_err(|error| Refusal::new(Reason::Malformed, error.to_string()))
}

/// Ends a socket, in bounded time.
pub(crate) async fn close<S>(mut socket: WebSocketStream<S>, frame: Option<CloseFrame>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let orderly = async {
        // One that was closed by the other side takes no frame any more, and needs none.
        drop(socket.send(Message::Close(frame)).await);
        while let Some(Ok(_)) = socket.next().await {}
        let mut stream = socket.into_inner();
        tokio::io::AsyncWriteExt::shutdown(&mut stream).await
    };
    if let Ok(Err(error)) = tokio::time::timeout(CLOSE, orderly).await {
        tracing::debug!(%error, "closing a socket");
    }
}
