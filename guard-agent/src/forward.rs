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

use http::header::{ALT_SVC, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::response::Parts;
use http::{Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::client::legacy::{Error as ClientError, ResponseFuture};

use crate::call::Call;
use crate::http::headers::end_to_end;
use crate::identity::Identity;
use crate::ledger::OnDisk;
use crate::llm::Dialect;
use crate::meter::{Cut, Linger, Metered, Tab};
use crate::policy::{Credential, Permit, Redeemed};
use crate::refusal::{Reason, Refusal};
use crate::share::large::beside;

pub mod dial;
pub mod pool;
mod request;
pub mod roots;
pub mod socket;

use dial::Target;
use pool::{PoolKey, Streams, Upstreams};
use request::request;

/// From the request to the head of the answer: a reasoning model that does not stream answers after minutes.
const ANSWER: Duration = Duration::from_secs(15 * 60);
/// How long a call waits for its money to be on record against a power loss. A healthy disk takes milliseconds.
const ON_DISK: Duration = Duration::from_secs(5);
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
    let on_disk = settlement.on_disk();
    let mut tab = Tab::open(settlement, dialect, edits.include_usage, gate);
    let id = call.id.to_string();
    tab.set_call(id.clone());
    let plain = tab.alters();
    let key = pool_key(identity, destination, &call);
    let edited = if edits.is_empty() { 0 } else { call.body.len() };
    let mut request = beside(edited, || {
        request(dialect, destination.sni, call, &edits, plain, &credential)
    })?;
    let slot = upstreams.slot(&key).ok_or_else(busy)?;
    record_first(on_disk, &mut tab).await?;
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
    let response = waiting
        .answered(response, &credential)
        .ok_or_else(|| Refusal::new(Reason::Internal, "The reply has no account."))?;
    judged(response, dialect, &id).await
}

/// A plain reply that was held back and replaced by a refusal has the refusal's status and headers too: clients raise it
/// as the error that it is, where they would take its words for an answer under a 200.
async fn judged(
    mut response: Response<Metered>,
    dialect: &'static dyn Dialect,
    id: &str,
) -> Result<Response<Metered>, Refusal> {
    let broken = |cut: Cut| {
        Refusal::new(
            Reason::Upstream,
            format!("No whole reply came: {cut}. Try again later."),
        )
    };
    if let Some(refusal) = response.body_mut().whole().await.map_err(broken)? {
        let reply = dialect.refusal(&refusal, id);
        *response.status_mut() = reply.status;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().extend(reply.headers);
        response.headers_mut().insert(CONTENT_TYPE, json);
    }
    Ok(response)
}

/// Which connections the call may use.
fn pool_key(identity: &Identity, destination: &Destination<'_>, call: &Call) -> PoolKey {
    PoolKey {
        agent: identity.agent.clone(),
        provider: call.provider.name.clone(),
        target: call
            .provider
            .connect_to
            .map_or(Target::Original(destination.original), Target::Configured),
        sni: destination.sni.to_owned(),
    }
}

fn busy() -> Refusal {
    let mut refusal = Refusal::new(
        Reason::InFlight,
        "Too many calls of this agent to this provider are in flight. Wait for some to end, then try again.",
    );
    refusal.retry_after = Some(BUSY);
    refusal
}

/// Nothing is sent before what it may cost is on record against a power loss.
async fn record_first(on_disk: Option<OnDisk>, tab: &mut Tab) -> Result<(), Refusal> {
    let Some(on_disk) = on_disk else {
        return Ok(());
    };
    tokio::time::timeout(ON_DISK, on_disk.wait())
        .await
        .map_err(|_elapsed| {
            tab.set_error("the reservation was not on disk in time".to_owned());
            slow_disk()
        })
}

fn slow_disk() -> Refusal {
    let mut refusal = Refusal::new(
        Reason::NotRecordable,
        "Guard's disk did not take the record of this call's budget within five seconds, so the call was not sent. The \
         operator finds the cause with `guard-agent status`.",
    );
    refusal.retry_after = Some(BUSY);
    refusal
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
        clean(&mut parts, &tab, credential);
        Some(Response::from_parts(
            parts,
            Metered::new(body, tab, Some(streams), self.linger.clone()),
        ))
    }
}

/// Takes out of an answer's head what ends here and what the client must not see.
fn clean(parts: &mut Parts, tab: &Tab, credential: &Credential) {
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
