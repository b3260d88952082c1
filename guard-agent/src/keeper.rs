//! The keeper: the small privileged process of the daemon.
//!
//! In: the configuration file. Out: programs in the kernel, governed cgroups, listeners, and a worker without privileges
//! that serves what arrives there. On failure: a worker that dies is replaced while its listeners stay open, and
//! connections wait in them; when the keeper itself dies the worker goes with it, and the programs refuse.
//!
//! It reads nothing that an agent wrote. What it hears from the worker it treats as a stranger's ([`answers`]).

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::app;
use crate::config::{self, Config};
use crate::seam::settings::Settings;
use crate::seam::{Start, ToWorker, VERSION};
use crate::telemetry::LogFormat;

mod answers;
mod attend;
mod canary;
mod desk;
mod enforce;
mod heartbeat;
mod listeners;
mod notify;
mod places;
mod process;
mod proof;
mod refusals;
mod runs;
mod store;

pub(crate) use canary::fly;

use attend::Signals;
use desk::Desk;
use enforce::Enforcement;
use listeners::Listening;
use process::{Process, Seat};
use store::Stored;

/// How long a worker may take to put another configuration in force.
const RELOAD: Duration = Duration::from_secs(60);
/// How long the worker of a keeper that was killed may take to be gone: a busy machine needs some ten ms.
const LAST_BREATH: Duration = Duration::from_secs(5);
/// In the runtime directory; held while this keeper lives.
const LOCK: &str = "keeper.lock";

/// Notes for the operator, or why nothing was changed.
type Outcome = Result<Vec<String>, String>;

/// Everything that lives as long as the keeper.
struct Keeper {
    config_path: PathBuf,
    config: ArcSwap<Config>,
    settings: ArcSwap<Settings>,
    since: Timestamp,
    enforcement: Enforcement,
    listening: Arc<Listening>,
    desk: Arc<Desk>,
    canary: canary::Canary,
    proof: proof::Known,
    restarts: AtomicU64,
    last_end: Mutex<Option<String>>,
    /// Answers of reloads that are under way.
    reloads: Mutex<HashMap<u64, oneshot::Sender<Outcome>>>,
    next_reload: AtomicU64,
    /// Held while the rules are replaced: a signal and a request may ask at the same time.
    reloading: tokio::sync::Mutex<()>,
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// What could not be set up, with what to do about it.
pub fn run(config_path: &Path, log: LogFormat) -> anyhow::Result<()> {
    // Before anything is opened that could take one of their numbers.
    let stored = Stored::take();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("guard-keeper")
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    // On this thread, which lives as long as the process: the worker dies with the thread that started it.
    runtime.block_on(serve(config_path, log, stored))
}

async fn serve(config_path: &Path, log: LogFormat, stored: Stored) -> anyhow::Result<()> {
    let signals = Signals::new()?;
    let (config, text) = config::load_with_text(config_path).map_err(|found| anyhow!(lines(&found)))?;
    let host = config.host.clone();
    let owner = places::owner()?;
    places::prepare(&host, owner)?;
    let _alone = alone(&host.runtime_dir)?;
    let settings = Settings::read(config_path, &text, &config)
        .map_err(|why| anyhow!("provider keys cannot be used:\n{why}"))?;
    let (admin, admin_path) = once_free(|| crate::admin::bind(&host.runtime_dir))
        .await
        .with_context(|| {
            format!(
                "the admin socket in {} cannot be opened",
                host.runtime_dir.display()
            )
        })?;
    let metrics = once_free(|| std::net::TcpListener::bind(host.metrics))
        .await
        .with_context(|| format!("the metrics port {} cannot be opened", host.metrics))?;
    metrics
        .set_nonblocking(true)
        .context("the metrics port cannot be set up")?;
    let seat = Seat {
        owner,
        admin: admin.into(),
        metrics: metrics.into(),
        log,
    };
    let since = Timestamp::now();
    let start = Start {
        version: VERSION,
        since,
        restarts: 0,
        last_end: None,
    };
    // Whoever is redirected must find somebody who can answer, so the programs come last.
    let first = Process::start(&seat, &settings, start).await?;
    let desk = Arc::new(Desk::default());
    let listening = Arc::new(Listening::new(desk.clone()));
    let enforcement = Enforcement::start(&config, &listening, stored)?;
    let keeper = Arc::new(Keeper {
        config_path: config_path.to_owned(),
        config: ArcSwap::from_pointee(config),
        settings: ArcSwap::from_pointee(settings),
        since,
        enforcement,
        listening,
        desk,
        canary: canary::Canary::default(),
        proof: proof::Known::default(),
        restarts: AtomicU64::new(0),
        last_end: Mutex::default(),
        reloads: Mutex::default(),
        next_reload: AtomicU64::new(0),
        reloading: tokio::sync::Mutex::default(),
    });
    let served = keeper.attend(first, &seat, signals).await;
    // The next start replaces it; until then nobody should find a socket that does not answer.
    if let Err(why) = std::fs::remove_file(&admin_path) {
        tracing::debug!(%why, path = %admin_path.display(), "the admin socket's file stays");
    }
    served
}

/// One keeper at a time: two would replace each other's programs for ever.
fn alone(runtime_dir: &Path) -> anyhow::Result<std::fs::File> {
    let path = runtime_dir.join(LOCK);
    let file = std::fs::File::create(&path).with_context(|| format!("{} cannot be made", path.display()))?;
    file.try_lock()
        .with_context(|| format!("another guard-agent holds {}: stop it first", path.display()))?;
    Ok(file)
}

/// Opens what only one daemon can have. The keeper before this one is dead, or it would hold [`LOCK`]; its worker is
/// killed with it, and for a moment after that the kernel still counts what the worker had open.
async fn once_free<T>(open: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let deadline = tokio::time::Instant::now() + LAST_BREATH;
    loop {
        match open() {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            done => return done,
        }
    }
}

fn lines(problems: &[config::Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

impl Keeper {
    /// Puts the file's present content in force, all of it or nothing.
    async fn reload(&self) -> Outcome {
        let _alone = self.reloading.lock().await;
        let path = self.config_path.clone();
        // It reads files; the answers to connections must not wait for it.
        let read = tokio::task::spawn_blocking(move || {
            let (config, text) = config::load_with_text(&path).map_err(|found| lines(&found))?;
            let settings = Settings::read(&path, &text, &config)?;
            Ok::<_, String>((config, settings))
        });
        let (mut config, settings) = read.await.map_err(|why| why.to_string())??;
        app::keep_until_restart(&self.config.load().host, &mut config.host);
        let notes = self.reload_worker(&settings).await?;
        self.enforcement.replace(&config)?;
        tracing::info!(agents = config.agents.len(), "the configuration was reloaded");
        self.config.store(Arc::new(config));
        self.settings.store(Arc::new(settings));
        Ok(notes)
    }

    async fn reload_worker(&self, settings: &Settings) -> Outcome {
        let id = self.next_reload.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.reloads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, answer);
        let descriptor = settings.descriptor().map_err(|why| why.to_string())?;
        if !self.desk.tell_with(ToWorker::Reload { id }, vec![descriptor]) {
            return Err("there is no worker at the moment: try again".to_owned());
        }
        match tokio::time::timeout(RELOAD, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_gone)) => Err("the worker ended meanwhile: try again".to_owned()),
            Err(_elapsed) => Err(format!("the worker did not answer within {RELOAD:?}")),
        }
    }

    fn reloaded(&self, id: u64, outcome: Outcome) {
        let waiting = self
            .reloads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
        // Whoever asked may have given up.
        drop(waiting.map(|answer| answer.send(outcome)));
    }
}
