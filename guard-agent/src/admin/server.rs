//! The Unix socket.
//!
//! In: a request of a local process, its pid and uid from SO_PEERCRED. Out: JSON. On failure: a JSON error. A process
//! that belongs to an agent gets nothing but the refusal; what changes something needs uid 0.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::{AdminError, AdminState, ErrorCode, RunRequest, SOCKET, http};

/// Largest request body in bytes; the largest valid one is a name.
const BODY_BYTES: usize = 64 * 1024;
/// Owner and group may talk to the socket.
const MODE: u32 = 0o660;
/// The group, where it exists.
const GROUP: &str = "guard";

/// Who is asking.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its process.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Its connection, from which others can read the same.
    pub connection: Option<Arc<OwnedFd>>,
}

/// Makes the socket in `runtime_dir`: mode 0660, group `guard` where that exists. It is made under another name and
/// moved, so that nobody meets it with wider permissions, and a restart replaces what a crash left behind.
///
/// # Errors
/// `AddrInUse` when another daemon answers there; otherwise whatever the file system says.
pub fn bind(runtime_dir: &Path) -> io::Result<(StdListener, PathBuf)> {
    let path = runtime_dir.join(SOCKET);
    if StdStream::connect(&path).is_ok() {
        let message = format!("another guard-agent answers at {}: stop it first", path.display());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
    }
    let draft = runtime_dir.join(format!("{SOCKET}.new"));
    match std::fs::remove_file(&draft) {
        Ok(()) => {}
        Err(why) if why.kind() == io::ErrorKind::NotFound => {}
        Err(why) => return Err(why),
    }
    let listener = StdListener::bind(&draft)?;
    if let Ok(Some(group)) = nix::unistd::Group::from_name(GROUP) {
        nix::unistd::chown(&draft, None, Some(group.gid))?;
    }
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(MODE))?;
    std::fs::rename(&draft, &path)?;
    listener.set_nonblocking(true)?;
    Ok((listener, path))
}

/// Answers requests until it is cancelled.
///
/// # Errors
/// The listener cannot be handed to the runtime.
pub async fn serve(
    listener: StdListener,
    state: Arc<dyn AdminState>,
    cancelled: CancellationToken,
) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let slots = http::slots();
    loop {
        let accepted = tokio::select! {
            () = cancelled.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(why) => {
                tracing::warn!(%why, "cannot accept an admin connection");
                tokio::time::sleep(http::ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Without a slot the connection is closed: the client says so, and nothing piles up.
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            continue;
        };
        let state = state.clone();
        tokio::spawn(async move {
            connection(stream, state).await;
            drop(slot);
        });
    }
}

async fn connection(stream: UnixStream, state: Arc<dyn AdminState>) {
    let peer = match stream.peer_cred() {
        Ok(credentials) => Peer {
            // A process of a foreign pid namespace has no pid here; 0 is never found, so it counts as governed.
            pid: credentials
                .pid()
                .and_then(|pid| u32::try_from(pid).ok())
                .unwrap_or(0),
            uid: credentials.uid(),
            connection: stream.as_fd().try_clone_to_owned().ok().map(Arc::new),
        },
        Err(why) => {
            tracing::warn!(%why, "cannot tell who is asking");
            return;
        }
    };
    http::serve_one(stream, |request| respond(request, peer.clone(), state.clone())).await;
}

async fn respond(
    request: Request<Incoming>,
    peer: Peer,
    state: Arc<dyn AdminState>,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, BODY_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_too_long_or_cut) => {
            let why = AdminError::new(
                ErrorCode::BadRequest,
                "the request body is cut short or larger than 64 KiB",
            );
            return http::error(&why);
        }
    };
    let answered =
        tokio::task::spawn_blocking(move || decide(&head.method, head.uri.path(), &body, &peer, &*state));
    match answered.await {
        Ok(Ok(response)) => response,
        Ok(Err(why)) => http::error(&why),
        Err(why) => {
            tracing::error!(%why, "an admin request failed inside");
            http::error(&AdminError::new(
                ErrorCode::Failed,
                "the request failed inside the daemon: see its log",
            ))
        }
    }
}

fn decide(
    method: &Method,
    path: &str,
    body: &[u8],
    peer: &Peer,
    state: &dyn AdminState,
) -> Result<Response<Full<Bytes>>, AdminError> {
    if peer.pid == 0 || state.peer_is_governed(peer.pid) {
        let message = "this process belongs to an agent, so it may not talk to Guard: ask from outside of it";
        return Err(AdminError::new(ErrorCode::Governed, message));
    }
    match (method, path) {
        (&Method::GET, "/v1/status") => Ok(http::json(&state.status())),
        (&Method::GET, path) if agent_of(path).is_some() => {
            let environment = state.environment(agent_of(path).unwrap_or_default())?;
            Ok(http::json(&environment))
        }
        (&Method::POST, "/v1/runs") => {
            needs_root(peer)?;
            let asked: RunRequest = read(body, "a run")?;
            let started = state.start_run(peer, &asked.agent)?;
            tracing::info!(
                agent = asked.agent,
                run = started.run,
                pid = peer.pid,
                "a run was started"
            );
            Ok(http::json(&started))
        }
        (&Method::POST, "/v1/freeze") => {
            needs_root(peer)?;
            state
                .freeze(peer, &read(body, "a freeze")?)
                .map(|done| http::json(&done))
        }
        (&Method::POST, "/v1/unfreeze") => {
            needs_root(peer)?;
            state
                .unfreeze(peer, &read(body, "a thaw")?)
                .map(|done| http::json(&done))
        }
        (&Method::POST, "/v1/grant") => {
            needs_root(peer)?;
            state
                .grant(peer, &read(body, "a grant")?)
                .map(|granted| http::json(&granted))
        }
        (&Method::POST, "/v1/outcome") => {
            needs_root(peer)?;
            state
                .outcome(peer, &read(body, "an outcome")?)
                .map(|told| http::json(&told))
        }
        (&Method::POST, "/v1/reload") => {
            needs_root(peer)?;
            state.reload().map(|reloaded| http::json(&reloaded))
        }
        _ => {
            let message = format!("{method} {path} is not served here: is the client of another version?");
            Err(AdminError::new(ErrorCode::NotFound, message))
        }
    }
}

/// A request's body.
fn read<T: serde::de::DeserializeOwned>(body: &[u8], what: &str) -> Result<T, AdminError> {
    serde_json::from_slice(body)
        .map_err(|why| AdminError::new(ErrorCode::BadRequest, format!("not a request for {what}: {why}")))
}

/// The agent in `/v1/agents/NAME/environment`.
fn agent_of(path: &str) -> Option<&str> {
    path.strip_prefix("/v1/agents/")?.strip_suffix("/environment")
}

fn needs_root(peer: &Peer) -> Result<(), AdminError> {
    if peer.uid == 0 {
        return Ok(());
    }
    let message = "this changes what Guard does, so it needs root: repeat it with sudo";
    Err(AdminError::new(ErrorCode::NeedsRoot, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::tests::Fake;

    #[test]
    fn only_root_changes_anything() {
        // Without a socket: a test cannot change its uid.
        let peer = Peer {
            pid: 1,
            uid: 1000,
            connection: None,
        };
        for (path, body) in [
            ("/v1/runs", "{\"agent\":\"coder\"}"),
            ("/v1/reload", ""),
            ("/v1/freeze", "{\"agent\":\"coder\",\"why\":\"x\"}"),
            ("/v1/unfreeze", "{\"agent\":\"coder\"}"),
            (
                "/v1/grant",
                "{\"agent\":\"coder\",\"pico_usd\":1,\"seconds\":60,\"why\":\"x\"}",
            ),
            ("/v1/outcome", "{\"run\":\"r\",\"outcome\":\"success\"}"),
        ] {
            let said = decide(&Method::POST, path, body.as_bytes(), &peer, &Fake::default());
            assert_eq!(said.unwrap_err().code, ErrorCode::NeedsRoot, "{path}");
        }
        for path in ["/v1/status", "/v1/agents/coder/environment"] {
            assert!(
                decide(&Method::GET, path, b"", &peer, &Fake::default()).is_ok(),
                "{path}"
            );
        }
    }

    #[test]
    fn a_peer_without_a_pid_here_counts_as_governed() {
        let peer = Peer {
            pid: 0,
            uid: 0,
            connection: None,
        };
        for path in ["/v1/status", "/v1/agents/coder/environment"] {
            let said = decide(&Method::GET, path, b"", &peer, &Fake::default());
            assert_eq!(said.unwrap_err().code, ErrorCode::Governed, "{path}");
        }
    }
}
