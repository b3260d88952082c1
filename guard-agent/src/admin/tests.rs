//! Both listeners, over real sockets.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use super::client::{Client, ClientError};
use super::*;

#[derive(Default)]
pub(super) struct Fake {
    governed: AtomicBool,
    ready: AtomicBool,
}

impl AdminState for Fake {
    fn status(&self) -> Status {
        Status {
            version: "1".into(),
            mode: "enforce".into(),
            enforcing: true,
            not_ready: None,
            started_at: Timestamp::UNIX_EPOCH,
            configured_at: Timestamp::UNIX_EPOCH,
            agents: Vec::new(),
            shared: Vec::new(),
        }
    }
    fn start_run(&self, peer: &Peer, agent: &str) -> Result<RunStarted, AdminError> {
        if agent != "coder" {
            return Err(AdminError::new(
                ErrorCode::NotFound,
                format!("no agent is named {agent:?}"),
            ));
        }
        Ok(RunStarted {
            run: peer.pid.to_string(),
            cgroup: "/guard.slice/coder/x".into(),
            env: BTreeMap::from([("A".to_owned(), "b".to_owned())]),
            remove: vec!["OPENAI_API_KEY".into()],
        })
    }
    fn environment(&self, agent: &str) -> Result<AgentEnvironment, AdminError> {
        if agent != "coder" {
            return Err(AdminError::new(
                ErrorCode::NotFound,
                format!("no agent is named {agent:?}"),
            ));
        }
        Ok(AgentEnvironment {
            env: BTreeMap::from([("OPENAI_API_KEY".to_owned(), "sk-guard-1".to_owned())]),
            remove: vec!["CODEX_API_KEY".into()],
        })
    }
    fn reload(&self) -> Result<Reloaded, AdminError> {
        Err(AdminError::new(
            ErrorCode::BadConfiguration,
            "guard.toml:1:1: error: …",
        ))
    }
    fn freeze(&self, by: &Peer, asked: &FreezeRequest) -> Result<Frozen, AdminError> {
        Ok(Frozen {
            agent: asked.agent.clone(),
            run: asked.run.clone(),
            frozen: true,
            in_flight: by.uid.into(),
        })
    }
    fn unfreeze(&self, _by: &Peer, asked: &FreezeRequest) -> Result<Frozen, AdminError> {
        Err(AdminError::new(ErrorCode::NotFound, asked.agent.clone()))
    }
    fn grant(&self, _by: &Peer, asked: &GrantRequest) -> Result<Grant, AdminError> {
        Err(AdminError::new(ErrorCode::NotFound, asked.agent.clone()))
    }
    fn outcome(&self, _by: &Peer, asked: &OutcomeRequest) -> Result<OutcomeTold, AdminError> {
        Err(AdminError::new(ErrorCode::NotFound, asked.run.clone()))
    }
    fn peer_is_governed(&self, _pid: u32) -> bool {
        self.governed.load(Ordering::Relaxed)
    }
    fn ready(&self) -> Result<(), String> {
        if self.ready.load(Ordering::Relaxed) {
            Ok(())
        } else {
            Err("the canary got out".into())
        }
    }
    fn metrics(&self) -> Result<Vec<u8>, String> {
        Ok(b"guard_enforcing 1\n".to_vec())
    }
}

/// A daemon that serves until it is dropped.
struct Daemon {
    state: Arc<Fake>,
    socket: PathBuf,
    health: std::net::SocketAddr,
    cancelled: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
    dir: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (listener, socket) = bind(dir.path()).unwrap();
        let state = Arc::new(Fake::default());
        let cancelled = CancellationToken::new();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        tcp.set_nonblocking(true).unwrap();
        let health = tcp.local_addr().unwrap();
        let (served, stop) = (state.clone(), cancelled.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let tcp = tokio::net::TcpListener::from_std(tcp).unwrap();
                let health = serve_health(tcp, served.clone(), stop.clone());
                let (admin, ()) = tokio::join!(serve(listener, served, stop), health);
                admin.unwrap();
            });
        });
        Self {
            state,
            socket,
            health,
            cancelled,
            thread: Some(thread),
            dir,
        }
    }

    fn client(&self) -> Client {
        Client::new(&self.socket)
    }

    fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = std::os::unix::net::UnixStream::connect(&self.socket).unwrap();
        stream.write_all(bytes).unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).unwrap();
        String::from_utf8_lossy(&said).into_owned()
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "the test is the client of its own listener"
    )]
    fn get(&self, path: &str) -> String {
        let mut stream = std::net::TcpStream::connect(self.health).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.cancelled.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn am_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn status_goes_over_the_socket_and_back() {
    let daemon = Daemon::start();
    assert_eq!(daemon.client().status().unwrap(), daemon.state.status());
    let mode = std::fs::metadata(&daemon.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
}

#[test]
fn a_run_is_started_for_the_very_process_that_asks_if_it_is_root() {
    let daemon = Daemon::start();
    let said = daemon.client().start_run("coder");
    if am_root() {
        let started = said.unwrap();
        assert_eq!(
            started.run,
            std::process::id().to_string(),
            "the pid is the kernel's word"
        );
        assert_eq!(started.remove, ["OPENAI_API_KEY"]);
        let unknown = daemon.client().start_run("nobody").unwrap_err();
        assert!(unknown.to_string().contains("no agent is named"), "{unknown}");
        let bad = daemon.client().reload().unwrap_err();
        assert!(bad.to_string().contains("guard.toml:1:1"), "{bad}");
    } else {
        assert!(said.unwrap_err().to_string().contains("needs root"));
    }
}

#[test]
fn a_governed_process_is_told_to_go_and_nothing_else() {
    let daemon = Daemon::start();
    daemon.state.governed.store(true, Ordering::Relaxed);
    for said in [
        daemon.client().status().unwrap_err(),
        daemon.client().start_run("coder").unwrap_err(),
    ] {
        let ClientError::Refused(why) = said else {
            panic!("{said}")
        };
        assert_eq!(why.code, ErrorCode::Governed);
    }
}

#[test]
fn bad_requests_are_refused_in_words() {
    let daemon = Daemon::start();
    let post = |body: &str| {
        let length = body.len();
        daemon.raw(
            format!("POST /v1/runs HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}").as_bytes(),
        )
    };
    if am_root() {
        assert!(post("{}").contains("bad_request"));
        assert!(post("{\"agent\":\"coder\",\"uid\":0}").contains("bad_request"));
    }
    assert!(post(&" ".repeat(70_000)).contains("64 KiB"));
    assert!(
        daemon
            .raw(b"GET /v2/x HTTP/1.1\r\nhost: x\r\n\r\n")
            .contains("not_found")
    );
    assert!(
        daemon
            .raw(b"\x16\x03\x01 junk\r\n\r\n")
            .starts_with("HTTP/1.1 400")
    );
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    let mut stream = std::os::unix::net::UnixStream::connect(&daemon.socket).unwrap();
    // The server answers before it has read it all; a broken pipe is as good as a 431.
    let _sent = stream.write_all(long.as_bytes());
    assert!(daemon.client().status().is_ok(), "and it goes on serving");
}

#[test]
fn silent_connections_take_slots_but_do_not_stop_the_daemon_from_ending() {
    let daemon = Daemon::start();
    let silent: Vec<_> = (0..64)
        .map(|_| std::os::unix::net::UnixStream::connect(&daemon.socket).unwrap())
        .collect();
    // Wait until they are accepted: the next one finds no slot and is closed.
    let refused = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        matches!(daemon.client().status(), Err(ClientError::Broken(_)))
    });
    assert!(refused);
    drop(silent);
    let served = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        daemon.client().status().is_ok()
    });
    assert!(served, "slots come back");
}

#[test]
fn a_second_daemon_is_refused_and_a_dead_one_replaced() {
    let daemon = Daemon::start();
    let second = bind(daemon.dir.path()).unwrap_err();
    assert_eq!(second.kind(), std::io::ErrorKind::AddrInUse);
    let dir = tempfile::tempdir().unwrap();
    drop(bind(dir.path()).unwrap());
    assert!(
        Path::new(&dir.path().join(SOCKET)).exists(),
        "a crash leaves it behind"
    );
    assert!(bind(dir.path()).is_ok());
}

#[test]
fn health_follows_the_state() {
    let daemon = Daemon::start();
    assert!(daemon.get("/healthz").starts_with("HTTP/1.1 200"));
    let said = daemon.get("/readyz");
    assert!(
        said.starts_with("HTTP/1.1 503") && said.contains("the canary got out"),
        "{said}"
    );
    daemon.state.ready.store(true, Ordering::Relaxed);
    assert!(daemon.get("/readyz").starts_with("HTTP/1.1 200"));
    let said = daemon.get("/metrics");
    assert!(
        said.contains("version=0.0.4") && said.ends_with("guard_enforcing 1\n"),
        "{said}"
    );
    assert!(daemon.get("/v1/status").starts_with("HTTP/1.1 404"));
}

#[test]
fn the_environment_of_an_agent_is_shown_by_name() {
    let daemon = Daemon::start();
    let shown = daemon.client().environment("coder").unwrap();
    assert_eq!(shown.env["OPENAI_API_KEY"], "sk-guard-1");
    for name in [
        "nobody",
        "",
        "a/b",
        "coder/environment HTTP/1.1\r\nx: y",
        "../status",
    ] {
        let said = daemon.client().environment(name).unwrap_err();
        assert!(
            matches!(&said, ClientError::Refused(why) if why.code == ErrorCode::NotFound),
            "{name:?}: {said}"
        );
    }
    daemon
        .state
        .governed
        .store(true, std::sync::atomic::Ordering::Relaxed);
    let said = daemon.client().environment("coder").unwrap_err();
    assert!(matches!(&said, ClientError::Refused(why) if why.code == ErrorCode::Governed));
}
