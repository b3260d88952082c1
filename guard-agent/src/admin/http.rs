//! What both listeners share: one bounded request per connection.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

use super::{AdminError, ErrorBody, ErrorCode};

/// Connections at once; people and one Prometheus need a handful.
const CONNECTIONS: usize = 64;
/// For the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// For everything: reading, doing and answering.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// For the head of a request, in bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// Pause after accept(2) failed (out of descriptors, usually), so that it is not asked in a tight loop.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A slot for each connection.
pub(super) fn slots() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(CONNECTIONS))
}

/// Serves the one request of a connection, and closes it.
pub(super) async fn serve_one<S, H, F>(stream: S, handle: H)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>) -> F + Send,
    F: Future<Output = Response<Full<Bytes>>> + Send,
{
    let service = service_fn(|request| {
        let answer = handle(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(REQUEST_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        // Whoever asked has gone or talks something else: nobody is left to tell.
        Ok(Err(why)) => tracing::debug!(%why, "an admin connection ended early"),
        Err(_elapsed) => tracing::debug!("an admin request took too long"),
    }
}

/// An answer with a body.
pub(super) fn answer(
    status: StatusCode,
    kind: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("no-store"),
    );
    response
}

/// A value as JSON.
pub(super) fn json(value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(body) => answer(StatusCode::OK, "application/json", body),
        Err(why) => error(&AdminError::new(
            ErrorCode::Failed,
            format!("the answer cannot be written: {why}"),
        )),
    }
}

/// An error as JSON.
pub(super) fn error(why: &AdminError) -> Response<Full<Bytes>> {
    let status = match why.code {
        ErrorCode::Governed | ErrorCode::NeedsRoot => StatusCode::FORBIDDEN,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::BadRequest => StatusCode::BAD_REQUEST,
        ErrorCode::BadConfiguration => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::Busy => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Failed => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let body = serde_json::to_vec(&ErrorBody { error: why.clone() }).unwrap_or_default();
    answer(status, "application/json", body)
}
