//! The loopback port: `/metrics`, `/healthz`, `/readyz`. Nothing here changes anything, and nothing is secret; the kernel
//! side still keeps governed processes away from it.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Response, StatusCode};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{AdminState, http};

const TEXT: &str = "text/plain; charset=utf-8";
/// <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers requests until it is cancelled.
pub async fn serve(listener: TcpListener, state: Arc<dyn AdminState>, cancelled: CancellationToken) {
    let slots = http::slots();
    loop {
        let accepted = tokio::select! {
            () = cancelled.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(why) => {
                tracing::warn!(%why, "cannot accept a metrics connection");
                tokio::time::sleep(http::ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            continue;
        };
        let state = state.clone();
        tokio::spawn(async move {
            http::serve_one(stream, |request| {
                let (method, path) = (request.method().clone(), request.uri().path().to_owned());
                respond(method, path, state.clone())
            })
            .await;
            drop(slot);
        });
    }
}

async fn respond(method: Method, path: String, state: Arc<dyn AdminState>) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        return http::answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET is served here\n");
    }
    let answered = tokio::task::spawn_blocking(move || match path.as_str() {
        // Alive: the process answers. Whether it can serve calls is /readyz.
        "/healthz" => http::answer(StatusCode::OK, TEXT, "alive\n"),
        "/readyz" => match state.ready() {
            Ok(()) => http::answer(StatusCode::OK, TEXT, "ready\n"),
            Err(why) => http::answer(
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT,
                format!("not ready: {why}\n"),
            ),
        },
        "/metrics" => match state.metrics() {
            Ok(text) => http::answer(StatusCode::OK, EXPOSITION, text),
            Err(why) => http::answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{why}\n")),
        },
        _ => http::answer(
            StatusCode::NOT_FOUND,
            TEXT,
            "/metrics, /healthz and /readyz are served here\n",
        ),
    });
    answered.await.unwrap_or_else(|why| {
        tracing::error!(%why, "a metrics request failed inside");
        http::answer(
            StatusCode::INTERNAL_SERVER_ERROR,
            TEXT,
            "failed inside: see the log\n",
        )
    })
}
