//! Delivers alerts, beside each other and apart from everything else.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, Uri};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::{Event, Waiting, message, receivers};
use crate::config::{AlertTo, Hook};
use crate::forward::dial::{Dialer, Target};
use crate::forward::roots::{client_config, public_roots};
use crate::record::Recorder;
use crate::seam::settings::TrustFiles;
use crate::telemetry::metrics::AlertEnd;

/// Deliveries at a time.
const AT_ONCE: usize = 16;
/// Pauses before each attempt.
const PAUSES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_secs(2),
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::from_secs(300),
];
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);

/// Why an attempt did not work.
#[derive(Debug)]
struct Failed {
    why: String,
    /// The next attempt may work.
    again: bool,
}

impl Failed {
    fn again(why: impl std::fmt::Display) -> Self {
        Self {
            why: why.to_string(),
            again: true,
        }
    }

    fn final_(why: impl std::fmt::Display) -> Self {
        Self {
            why: why.to_string(),
            again: false,
        }
    }
}

/// Delivers what waits, until there is nobody left to raise an alert.
pub async fn deliver(mut waiting: Waiting, recorder: Arc<Recorder>) {
    let mut running = JoinSet::new();
    while let Some(event) = waiting.queue.recv().await {
        for to in receivers(&waiting.rules.load(), &event) {
            while running.len() >= AT_ONCE {
                running.join_next().await;
            }
            let (event, recorder, metrics) = (event.clone(), recorder.clone(), waiting.metrics.clone());
            running.spawn(async move {
                let end = match to {
                    AlertTo::Log => {
                        tracing::warn!(
                            alert = event.name,
                            agent = event.agent.as_deref(),
                            "{}",
                            event.message
                        );
                        AlertEnd::Sent
                    }
                    AlertTo::Hook(hook) => hooked(&hook, &event, &recorder, &PAUSES).await,
                };
                metrics.alert(end);
            });
        }
    }
}

/// Delivers to a web server, with patience; at last, says in the record that it did not work.
pub(super) async fn hooked(hook: &Hook, event: &Event, recorder: &Recorder, pauses: &[Duration]) -> AlertEnd {
    let mut last = String::new();
    for pause in pauses {
        tokio::time::sleep(*pause).await;
        let attempt = tokio::time::timeout(ATTEMPT, post(hook, event)).await;
        match attempt.unwrap_or_else(|_slow| Err(Failed::again("no answer within ten seconds"))) {
            Ok(()) => return AlertEnd::Sent,
            Err(failed) => {
                tracing::warn!(
                    to = hook.authority,
                    why = failed.why,
                    "an alert was not delivered yet"
                );
                last = failed.why;
                if !failed.again {
                    break;
                }
            }
        }
    }
    recorder.undelivered(event, &hook.authority, &last);
    AlertEnd::Failed
}

async fn post(hook: &Hook, event: &Event) -> Result<(), Failed> {
    let body = message::body(event, hook.slack).map_err(Failed::final_)?;
    let url: Uri = hook.url.expose().parse().map_err(Failed::final_)?;
    let tls = url.scheme_str() == Some("https");
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let address = tokio::net::lookup_host((host.as_str(), port))
        .await
        .map_err(Failed::again)?
        .next();
    let address = address.ok_or_else(|| Failed::again("the name has no address"))?;
    // The operator names it: the address rules for agents do not apply.
    let stream = Dialer::default()
        .dial(Target::Configured(address))
        .await
        .map_err(Failed::again)?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header(HOST, &hook.authority)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(Failed::final_)?;
    if !tls {
        return send(stream, request).await;
    }
    let roots = public_roots(&[]).map_err(Failed::again)?;
    let config = client_config(&roots, &[], &TrustFiles::default(), &[]).map_err(Failed::again)?;
    let name = ServerName::try_from(host).map_err(Failed::final_)?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(Failed::again)?;
    send(stream, request).await
}

async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<(), Failed>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(Failed::again)?;
    let answered = async move { sender.send_request(request).await };
    let (connected, answered) = tokio::join!(connection, answered);
    let status = match (answered, connected) {
        (Ok(answer), _) => answer.status(),
        (Err(why), _) => return Err(Failed::again(why)),
    };
    match status.as_u16() {
        200..=299 => Ok(()),
        // The same answers on which clients of providers try again.
        408 | 429 | 500.. => Err(Failed::again(format!("status {status}"))),
        _ => Err(Failed::final_(format!("status {status}"))),
    }
}
