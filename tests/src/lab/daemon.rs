//! The real daemon in the lab: start, stop, kill, and what it shows of itself.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::Lab;
use crate::clients;
use crate::netns::NetNs;
use crate::process::{Done, Running, Spawn};

/// Where the daemon answers `/metrics`, `/healthz` and `/readyz`, in the host's namespace.
const HEALTH: &str = "127.0.0.1:9477";
/// Loading programs and replaying the journal included.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// The daemon, when it runs.
#[derive(Debug)]
pub(super) struct Daemon {
    running: Mutex<Option<Running>>,
    /// Whether its log stays unshown at the end.
    quiet: bool,
}

impl Daemon {
    pub(super) fn new(quiet: bool) -> Self {
        Self {
            running: Mutex::new(None),
            quiet,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shows what the daemon said; a test runner shows that of failed tests only.
impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.quiet
            && let Some(running) = self.lock().as_ref()
        {
            let (stdout, stderr) = running.said();
            eprintln!("--- the daemon said ---\n{stdout}{stderr}-----------------------");
        }
    }
}

impl Lab {
    /// The program under test: `GUARD_AGENT_BIN`, or `guard-agent` in the directory of this test's own build.
    ///
    /// # Errors
    /// There is none.
    pub fn program() -> Result<PathBuf> {
        let built = || {
            let here = std::env::current_exe().ok()?;
            // target/debug/deps/suite-0123 and target/debug/demo alike
            here.ancestors()
                .skip(1)
                .take(2)
                .map(|directory| directory.join("guard-agent"))
                .find(|path| path.is_file())
        };
        std::env::var_os("GUARD_AGENT_BIN")
            .map(PathBuf::from)
            .or_else(built)
            .context("no guard-agent to test: build it, or name it in GUARD_AGENT_BIN")
    }

    /// Starts the daemon in its cgroup on the host; back when it is ready.
    ///
    /// # Errors
    /// It ends, or is not ready in time; the error has what it said.
    pub fn start_daemon(&self) -> Result<()> {
        self.start_as(Spawn::new(Self::program()?))
    }

    /// The same under a service manager (`tests/clients/manager.py`), which keeps what the daemon gives it to keep.
    ///
    /// # Errors
    /// As [`Lab::start_daemon`].
    pub fn start_managed_daemon(&self) -> Result<()> {
        let manager = Spawn::new("python3").arg(clients::script("manager.py"));
        self.start_as(manager.arg(self.files.at("notify")).arg(Self::program()?))
    }

    /// Has the service manager restart the daemon.
    ///
    /// # Errors
    /// There is none.
    pub fn restart_managed_daemon(&self) -> Result<()> {
        let daemon = self.daemon.lock();
        daemon.as_ref().context("no daemon runs")?.signal(Signal::SIGHUP)
    }

    fn start_as(&self, spawn: Spawn) -> Result<()> {
        let mut running = spawn
            .arg("--config")
            .arg(self.config())
            .arg("daemon")
            .env("RUST_BACKTRACE", "1")
            .cgroup(&self.cgroups.daemon)
            .netns(&self.host)
            .mounts(&self.mounts)
            .start()?;
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if get(&self.host, "/readyz").is_ok() {
                *self.daemon.lock() = Some(running);
                return Ok(());
            }
            let alive = running.is_running()?;
            if !alive || Instant::now() > deadline {
                let (stdout, stderr) = running.said();
                bail!(
                    "the daemon {}: {stdout}{stderr}",
                    if alive { "is not ready" } else { "ended" }
                );
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills the daemon with SIGKILL: no goodbye, no clean-up.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_daemon(&self) -> Result<()> {
        let mut running = self.daemon.lock().take().context("no daemon runs")?;
        ensure!(
            running.is_running()?,
            "the daemon had ended by itself: {}",
            running.said().1
        );
        running.kill();
        Ok(())
    }

    /// Asks the daemon to stop, and waits until it has.
    ///
    /// # Errors
    /// It does not run, or does not stop within half a minute.
    pub fn stop_daemon(&self) -> Result<Done> {
        let running = self.daemon.lock().take().context("no daemon runs")?;
        running.signal(Signal::SIGTERM)?;
        running.wait(READY_WITHIN)
    }

    /// Whether the daemon still runs.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn daemon_runs(&self) -> Result<bool> {
        match self.daemon.lock().as_mut() {
            Some(running) => running.is_running(),
            None => Ok(false),
        }
    }

    /// What the daemon wrote so far, to both of its outputs.
    pub fn daemon_said(&self) -> String {
        let (stdout, stderr) = self.daemon.lock().as_ref().map(Running::said).unwrap_or_default();
        stdout + &stderr
    }

    /// The resident memory of both processes of the daemon, in bytes.
    ///
    /// # Errors
    /// It does not run.
    pub fn daemon_memory(&self) -> Result<u64> {
        let mut kilobytes = 0;
        for pid in [self.keeper()?, self.worker()?] {
            let resident: u64 = status(pid, "VmRSS")?.trim_end_matches(" kB").parse()?;
            kilobytes += resident;
        }
        Ok(kilobytes * 1024)
    }

    /// The most memory, in bytes, that the daemon's unprivileged part has had since it was last asked.
    ///
    /// # Errors
    /// There is none.
    pub fn worker_peak(&self) -> Result<u64> {
        let pid = self.worker()?;
        let kilobytes: u64 = status(pid, "VmHWM")?.trim_end_matches(" kB").parse()?;
        // proc(5): 5 sets the peak to what is resident now.
        fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
        Ok(kilobytes * 1024)
    }

    /// The process id of the daemon's privileged part.
    ///
    /// # Errors
    /// It does not run.
    pub fn keeper(&self) -> Result<u32> {
        Ok(self.daemon.lock().as_ref().context("no daemon runs")?.pid())
    }

    /// The process id of the daemon's unprivileged part.
    ///
    /// # Errors
    /// There is none.
    pub fn worker(&self) -> Result<u32> {
        let keeper = self.keeper()?.to_string();
        let inside = fs::read_to_string(self.cgroups.daemon.procs_file())?;
        inside
            .lines()
            .filter_map(|line| line.parse().ok())
            .find(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                status(*pid, "PPid").is_ok_and(|parent| parent == keeper)
                    && line.split(|byte| *byte == 0).any(|word| word == b"worker")
            })
            .context("the daemon has no worker")
    }

    /// Kills one of the daemon's two processes with SIGKILL, and nobody else.
    ///
    /// # Errors
    /// It is gone.
    pub fn kill_one(&self, pid: u32) -> Result<()> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
        Ok(nix::sys::signal::kill(pid, Signal::SIGKILL)?)
    }

    /// Runs a `guard-agent` command on the host, outside every agent.
    ///
    /// # Errors
    /// It exits with something else than 0.
    pub fn guard<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Done> {
        self.command(arguments)?.run()?.ok()
    }

    /// The same, to be run.
    ///
    /// # Errors
    /// There is no such program.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Spawn> {
        let program = self.outside().spawn(Self::program()?);
        Ok(program.arg("--config").arg(self.config()).args(arguments))
    }
}

/// A line of `/proc/PID/status`.
///
/// # Errors
/// The process is gone, or there is no such line.
pub fn status(pid: u32, name: &str) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let found = lines.find(|(found, _)| *found == name);
    Ok(found
        .with_context(|| format!("no {name} of {pid}"))?
        .1
        .trim()
        .to_owned())
}

/// One GET to the daemon's health port; the body of a 200.
pub(super) fn get(host: &NetNs, path: &str) -> Result<String> {
    get_from(host, HEALTH, path)
}

/// One GET to a server on the host's loopback; the body of a 200.
pub(super) fn get_from(host: &NetNs, address: &str, path: &str) -> Result<String> {
    let reply = host.run(|| {
        let address: SocketAddr = address.parse()?;
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        // HTTP/1.0: the reply ends with the connection, and is never chunked
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        Ok(reply)
    })?;
    let (head, body) = reply.split_once("\r\n\r\n").context("no HTTP reply")?;
    ensure!(head.split(' ').nth(1) == Some("200"), "{path}: {head}");
    Ok(body.to_owned())
}

pub(super) fn audit(directory: &Path) -> Result<Vec<Value>> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .with_context(|| directory.display().to_string())?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    let mut records = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file)?;
        // the last line may still be on its way
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            records.push(serde_json::from_str(line).with_context(|| format!("{}: {line}", file.display()))?);
        }
    }
    Ok(records)
}
