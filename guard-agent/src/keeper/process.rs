//! One life of the worker: how it is started, and how it ends.
//!
//! In: its settings and sockets. Out: a process without privileges that has said that it serves. On failure: its own
//! words, or how it ended.

use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::places::Owner;
use crate::seam::channel::{self, Channel};
use crate::seam::settings::Settings;
use crate::seam::{FromWorker, Start, ToWorker, VERSION};
use crate::telemetry::{FILTER_VARIABLE, LogFormat};

/// This very program, also after its file was replaced.
const PROGRAM: &str = "/proc/self/exe";
/// From the start to readiness: a long journal is read in that time.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// What the worker is told of the environment: nothing that could be a key.
const ENVIRONMENT: [&str; 7] = [
    FILTER_VARIABLE,
    "RUST_BACKTRACE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "LANG",
    "TZ",
    "PATH",
];

/// What every worker of this keeper gets.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) owner: Owner,
    pub(super) admin: OwnedFd,
    pub(super) metrics: OwnedFd,
    pub(super) log: LogFormat,
}

/// A worker that serves.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pub(super) channel: Arc<Channel>,
}

impl Process {
    /// Starts a worker; back when it has said that it is ready.
    ///
    /// Must be called on the thread that lives as long as the keeper: the kernel ends the worker with it.
    pub(super) async fn start(seat: &Seat, settings: &Settings, start: Start) -> anyhow::Result<Self> {
        let (ours, theirs) = channel::pair().context("no channel to the worker can be made")?;
        let mut command = Command::new(PROGRAM);
        command
            .arg0("guard-agent")
            .args(["worker", "--log-format", seat.log.label()])
            .env_clear()
            .envs(
                ENVIRONMENT
                    .iter()
                    .filter_map(|name| Some((name, std::env::var_os(name)?))),
            )
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .uid(seat.owner.uid)
            .gid(seat.owner.gid)
            .kill_on_drop(true);
        let child = command.spawn().context("the worker cannot be started")?;
        // The command still holds the worker's end, which must be the worker's alone.
        drop(command);
        let channel = Arc::new(Channel::new(ours).context("the channel cannot be watched")?);
        let descriptors = [
            settings.descriptor()?,
            seat.admin.try_clone()?,
            seat.metrics.try_clone()?,
        ];
        let mut process = Self { child, channel };
        let ready = async {
            let said = process.channel.send(&ToWorker::Start(start), &descriptors).await;
            if said.is_err() {
                return Ok(None);
            }
            process.channel.receive().await
        };
        let first = timeout(READY_WITHIN, ready)
            .await
            .map_err(|_elapsed| anyhow!("the worker was not ready within {READY_WITHIN:?}"))?
            .context("the worker said something that is not understood")?;
        let Some(first) = first else {
            let ended = process.ended().await;
            bail!("the worker ended before it was ready: {ended}");
        };
        match first.message()? {
            FromWorker::Ready { version: VERSION } => Ok(process),
            FromWorker::Ready { version } => bail!("the worker speaks version {version}, not {VERSION}"),
            FromWorker::Failed(why) => bail!("{why}"),
            _ => bail!("the worker spoke before it was ready"),
        }
    }

    /// Its process id, while it has not been waited for.
    pub(super) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// How it ended; waits until it has.
    pub(super) async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => described(status),
            Err(error) => format!("nobody knows how: {error}"),
        }
    }

    /// Ends it at once.
    pub(super) async fn kill(&mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::warn!(%error, "the worker cannot be killed");
        }
    }
}

fn described(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => match nix::sys::signal::Signal::try_from(signal) {
            Ok(signal) => format!("killed by {signal}"),
            Err(_unknown) => format!("killed by signal {signal}"),
        },
        (None, None) => "it ended".to_owned(),
    }
}
