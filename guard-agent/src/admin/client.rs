//! The command line's side of the admin socket: one blocking request per connection, no runtime.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{
    AdminError, AgentEnvironment, ErrorBody, ErrorCode, FreezeRequest, Frozen, Grant, GrantRequest,
    OutcomeRequest, OutcomeTold, Reloaded, RunRequest, RunStarted, Status,
};

/// A little more than the daemon's own limit for a request.
const TIMEOUT: Duration = Duration::from_secs(35);
/// Largest answer in bytes: some thousand agents.
const ANSWER_BYTES: u64 = 16 * 1024 * 1024;

/// Why the daemon's answer did not come.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "the daemon is not running (nothing answers at {0}).\n\
         Start it with `systemctl start guard-agent`; `journalctl -u guard-agent` says why it stopped."
    )]
    NotRunning(PathBuf),
    /// The socket is not for this user.
    #[error("no permission to talk to {0}: run this as root, or as a member of the group guard")]
    Permission(PathBuf),
    /// The daemon said no.
    #[error(transparent)]
    Refused(#[from] AdminError),
    /// The connection broke or took too long.
    #[error("the daemon did not answer; `journalctl -u guard-agent` may say why")]
    Broken(#[source] io::Error),
    /// What came back is not an answer.
    #[error("the answer cannot be read ({0}): are the daemon and this command of the same version?")]
    Unreadable(String),
}

/// Talks to one daemon.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client for this socket; nothing is opened yet.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// The daemon's state.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn status(&self) -> Result<Status, ClientError> {
        self.ask("GET", "/v1/status", b"")
    }

    /// Starts a run and moves this process into it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn start_run(&self, agent: &str) -> Result<RunStarted, ClientError> {
        let asked = RunRequest {
            agent: agent.to_owned(),
        };
        let body = serde_json::to_vec(&asked).map_err(|why| ClientError::Unreadable(why.to_string()))?;
        self.ask("POST", "/v1/runs", &body)
    }

    /// What processes of an agent need that Guard does not start itself.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn environment(&self, agent: &str) -> Result<AgentEnvironment, ClientError> {
        // The name becomes part of a path; no agent has one that would not fit there.
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if agent.is_empty() || !agent.bytes().all(plain) {
            let message = format!("no agent is named {agent:?}; `guard-agent status` lists those in force");
            return Err(AdminError::new(ErrorCode::NotFound, message).into());
        }
        self.ask("GET", &format!("/v1/agents/{agent}/environment"), b"")
    }

    /// Has the configuration read again.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn reload(&self) -> Result<Reloaded, ClientError> {
        self.ask("POST", "/v1/reload", b"")
    }

    /// Freezes an agent or one of its runs.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn freeze(&self, asked: &FreezeRequest) -> Result<Frozen, ClientError> {
        self.tell("/v1/freeze", asked)
    }

    /// Thaws it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn unfreeze(&self, asked: &FreezeRequest) -> Result<Frozen, ClientError> {
        self.tell("/v1/unfreeze", asked)
    }

    /// Allows an agent more for a while.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn grant(&self, asked: &GrantRequest) -> Result<Grant, ClientError> {
        self.tell("/v1/grant", asked)
    }

    /// Says what became of a run.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn outcome(&self, asked: &OutcomeRequest) -> Result<OutcomeTold, ClientError> {
        self.tell("/v1/outcome", asked)
    }

    fn tell<T: DeserializeOwned>(&self, path: &str, asked: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(asked).map_err(|why| ClientError::Unreadable(why.to_string()))?;
        self.ask("POST", path, &body)
    }

    fn ask<T: DeserializeOwned>(&self, method: &str, path: &str, body: &[u8]) -> Result<T, ClientError> {
        let mut stream = UnixStream::connect(&self.socket).map_err(|why| self.connect_error(why))?;
        let answer = exchange(&mut stream, method, path, body).map_err(ClientError::Broken)?;
        // A daemon without a free slot closes at once.
        if answer.is_empty() {
            let why = io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection was closed without an answer",
            );
            return Err(ClientError::Broken(why));
        }
        let (status, body) = split(&answer)?;
        if status == 200 {
            return serde_json::from_slice(body).map_err(|why| ClientError::Unreadable(why.to_string()));
        }
        match serde_json::from_slice::<ErrorBody>(body) {
            Ok(said) => Err(ClientError::Refused(said.error)),
            Err(_not_ours) => Err(ClientError::Unreadable(format!("status {status}"))),
        }
    }

    fn connect_error(&self, why: io::Error) -> ClientError {
        match why.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning(self.socket.clone())
            }
            io::ErrorKind::PermissionDenied => ClientError::Permission(self.socket.clone()),
            _ => ClientError::Broken(why),
        }
    }
}

fn exchange(stream: &mut UnixStream, method: &str, path: &str, body: &[u8]) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: guard\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer)?;
    Ok(answer)
}

/// Status and body. The daemon sends a content-length with every answer and closes; nothing else is understood.
fn split(answer: &[u8]) -> Result<(u16, &[u8]), ClientError> {
    let unreadable = |what: &str| ClientError::Unreadable(what.to_owned());
    let end = memchr::memmem::find(answer, b"\r\n\r\n").ok_or_else(|| unreadable("no header end"))?;
    let (head, body) = answer.split_at(end);
    let body = body.get(4..).unwrap_or_default();
    let head = std::str::from_utf8(head).map_err(|_not_text| unreadable("the header is not text"))?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|code| code.parse::<u16>().ok())
        .ok_or_else(|| unreadable("no status"))?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok());
    if length != Some(body.len()) {
        return Err(unreadable("it was cut short"));
    }
    Ok((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_split_or_refused() {
        assert!(matches!(
            split(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
            Ok((200, b"{}"))
        ));
        for bad in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\n\r\n{}",
            b"junk\r\n\r\n",
            b"HTTP/1.1 \xff\r\n\r\n",
        ] {
            assert!(split(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn without_a_daemon_the_next_step_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let said = Client::new(&dir.path().join("admin.sock"))
            .status()
            .unwrap_err()
            .to_string();
        assert!(
            said.contains("not running") && said.contains("systemctl start guard-agent"),
            "{said}"
        );
    }
}
