//! In: a decrypted stream. Out: requests, one at a time or many at once (HTTP/1.1, HTTP/2), each with its answer.
//! On failure: 431 for a head beyond 16 KiB; a connection that breaks or is silent ends.

use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use ulid::Ulid;

use bytes::Bytes;

use crate::drain::Drain;
use crate::llm::Dialect;
use crate::meter::Metered;
use crate::refusal::Refusal;
use crate::telemetry::metrics::ClientError;

pub mod admit;
pub mod body;
pub mod headers;

/// Largest request head, in bytes; more is answered 431.
const MAX_HEAD: u32 = 16 * 1024;
/// From the start of a connection, or the end of its last answer, to the end of the next head.
const HEAD: Duration = Duration::from_secs(75);
/// Requests at the same time on one HTTP/2 connection.
const STREAMS: u32 = 64;
/// Small per stream and large per connection, for the reason told in `forward::pool`: uploads are buffered alike.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// An answer's body: Guard's own, or the provider's on its way.
pub type Reply = Either<Full<Bytes>, Metered>;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// HTTP/2 runs each request as a task; those are waited for and cut like the others.
impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Drain {
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}

/// Serves one connection to its end. When Guard drains, requests in flight are finished and no new ones taken.
///
/// # Errors
/// The connection broke.
pub async fn serve<S, V>(stream: S, h2: bool, drain: &Drain, service: V) -> Result<(), BoxError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    V: Service<Request<Incoming>, Response = Response<Reply>, Error = std::convert::Infallible> + Send,
    V::Future: Send + 'static,
{
    let mut builder = auto::Builder::new(drain.clone());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEAD)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(Duration::from_secs(60))
        .keep_alive_timeout(Duration::from_secs(20));
    // The protocol was agreed on in the handshake; guessing it from bytes would wait for them without bound.
    let builder = if h2 {
        builder.http2_only()
    } else {
        builder.http1_only()
    };
    let mut connection =
        std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = drain.ending() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

/// What the client did wrong, when that is why a connection ended.
pub fn client_fault(error: &(dyn std::error::Error + 'static)) -> Option<ClientError> {
    let error = error.downcast_ref::<hyper::Error>()?;
    if error.is_timeout() {
        return Some(ClientError::Slow);
    }
    // Too large a head counts as malformed: it is answered 431 and the connection ends.
    (error.is_parse() || error.is_parse_too_large()).then_some(ClientError::MalformedHttp)
}

/// The refusal as the provider itself would have worded it.
pub fn refuse(dialect: &dyn Dialect, refusal: &Refusal, id: Ulid) -> Response<Reply> {
    let reply = dialect.refusal(refusal, &id.to_string());
    let mut response = Response::new(Either::Left(Full::new(reply.body)));
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Answers a provider's name over plain HTTP: a key would cross the network readable by all.
pub async fn refuse_plain<S: AsyncWrite + Unpin>(mut stream: S) {
    const BODY: &str = r#"{"error":{"message":"This provider is reached over HTTPS only. Use an https:// address.","type":"invalid_request_error","code":"guard_https_required"}}"#;
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\nx-should-retry: false\r\n\r\n{BODY}",
        BODY.len()
    );
    let answer = async {
        stream.write_all(head.as_bytes()).await?;
        stream.shutdown().await
    };
    if let Ok(Err(error)) = tokio::time::timeout(Duration::from_secs(1), answer).await {
        tracing::debug!(%error, "the client did not take its refusal");
    }
}
