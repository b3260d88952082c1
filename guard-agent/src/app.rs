//! The composition root: builds every stage, hands each what it needs, and says in which order they start and stop.
//!
//! Start: rules and secrets first, then the ledger and the audit log, then the listeners, and the kernel programs last,
//! so that nothing is redirected to a proxy that cannot answer. Stop: take no new connections, let calls end until a
//! deadline, close the books. The programs stay attached: whoever is governed is refused until the next start.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::audit::{Audit, AuditSettings};
use crate::clock;
use crate::config::Config;
use crate::drain::Drain;
use crate::identify::containers::{Containers, Door};
use crate::identify::{self, Identifier, docker};
use crate::kernel::governed::GovernedSet;
use crate::kernel::{Kernel, KernelSettings, cgroup};
use crate::keys::placeholder::Placeholders;
use crate::keys::vault::Vault;
use crate::ledger::{Ledger, LedgerSettings};
use crate::llm::prices::PriceTable;
use crate::policy::frozen::Frozen;
use crate::policy::outcomes::Outcomes;
use crate::policy::{Policy, Snapshot};
use crate::record::Recorder;
use crate::telemetry::metrics::{Labels, Metrics};

mod admin_state;
mod ended_runs;
mod housekeeping;
mod notify;
mod runs;
mod soft_limits;
mod stops;
mod worker;

/// How long calls in flight may take to end after a stop was asked for; systemd's own limit is longer.
const DRAIN: Duration = Duration::from_secs(20);

/// Listeners that may wait for the worker.
const DOORS: usize = 1024;

/// Everything that lives as long as the daemon.
struct Daemon {
    config_path: PathBuf,
    config: ArcSwap<Config>,
    configured_at: ArcSwap<Timestamp>,
    started_at: Timestamp,
    kernel: Arc<Kernel>,
    governed: Arc<GovernedSet>,
    containers: Option<Arc<Containers>>,
    /// What the keeper opens and closes, until the worker takes it over.
    doors: Mutex<Option<mpsc::Receiver<Door>>>,
    identifier: Arc<Identifier>,
    placeholders: Placeholders,
    prices: Arc<PriceTable>,
    ledger: Arc<Ledger>,
    metrics: Arc<Metrics>,
    recorder: Arc<Recorder>,
    policy: Arc<Policy>,
    outcomes: Outcomes,
    worker: worker::Worker,
    /// Held while the rules are replaced: a signal and a request may ask at the same time.
    reloading: Mutex<()>,
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// What could not be set up, with what to do about it.
pub fn run(config_path: &Path, config: Config) -> anyhow::Result<()> {
    let data = tokio::runtime::Builder::new_multi_thread()
        .thread_name("guard-data")
        .enable_all()
        .build()
        .context("the data runtime cannot be started")?;
    let drain = Drain::default();
    let daemon = data.block_on(async { Daemon::start(config_path, config, drain.clone()) })?;
    let daemon = Arc::new(daemon);
    let stopping = CancellationToken::new();
    let admin = admin_thread(&daemon, stopping.clone())?;
    let served = data.block_on(daemon.serve(&drain));
    stopping.cancel();
    if admin.join().is_err() {
        tracing::error!("the admin thread panicked");
    }
    notify::notify("STOPPING=1");
    served
}

/// The admin socket and the metrics port have a thread of their own: a scrape must not slow a call.
fn admin_thread(
    daemon: &Arc<Daemon>,
    stopping: CancellationToken,
) -> anyhow::Result<std::thread::JoinHandle<()>> {
    let host = daemon.config.load().host.clone();
    let (socket, path) = crate::admin::bind(&host.runtime_dir).with_context(|| {
        format!(
            "the admin socket in {} cannot be opened",
            host.runtime_dir.display()
        )
    })?;
    let health = std::net::TcpListener::bind(host.metrics)
        .with_context(|| format!("the metrics port {} cannot be opened", host.metrics))?;
    health
        .set_nonblocking(true)
        .context("the metrics port cannot be set up")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the admin runtime cannot be started")?;
    let state: Arc<dyn crate::admin::AdminState> = daemon.clone();
    let serve = move || {
        runtime.block_on(async {
            let health = match tokio::net::TcpListener::from_std(health) {
                Ok(health) => health,
                Err(why) => return tracing::error!(%why, "the metrics port is not served"),
            };
            let metrics = crate::admin::serve_health(health, state.clone(), stopping.clone());
            let (admin, ()) = tokio::join!(crate::admin::serve(socket, state.clone(), stopping), metrics);
            if let Err(why) = admin {
                tracing::error!(%why, "the admin socket is not served any more");
            }
        });
        // The next start replaces it; until then nobody should find a socket that does not answer.
        if let Err(why) = std::fs::remove_file(&path) {
            tracing::debug!(%why, path = %path.display(), "the admin socket's file stays");
        }
    };
    std::thread::Builder::new()
        .name("guard-admin".into())
        .spawn(serve)
        .context("the admin thread cannot be started")
}

impl Daemon {
    fn start(config_path: &Path, config: Config, drain: Drain) -> anyhow::Result<Self> {
        let host = &config.host;
        let clock = clock::system();
        let vault = Vault::read(&config.providers).map_err(|bad| {
            let lines: Vec<String> = bad.iter().map(ToString::to_string).collect();
            anyhow!("provider keys cannot be used:\n{}", lines.join("\n"))
        })?;
        let placeholders =
            Placeholders::open(&host.state_dir).context("the placeholder secret cannot be used")?;
        let prices = Arc::new(PriceTable::embedded().context("the embedded price table is broken")?);
        let labels = Labels::new(&config, labels(&prices));
        let metrics = Arc::new(Metrics::new(labels).context("metrics cannot be registered")?);
        let ledger = Ledger::open(LedgerSettings {
            dir: host.state_dir.clone(),
            timezone: host.timezone.clone(),
            clock: clock.clone(),
        })
        .context("the ledger cannot be opened")?;
        let recovery = ledger.recovery();
        if recovery.charged_in_full > 0 {
            tracing::warn!(calls = recovery.charged_in_full, amount = %recovery.charged_amount,
                "the previous process did not settle these calls: they are charged in full");
        }
        let audit = Audit::open(AuditSettings {
            dir: host.state_dir.join("audit"),
            clock: clock.clone(),
        })
        .context("the audit log cannot be opened")?;
        let recorder = Arc::new(Recorder::new(
            audit,
            metrics.clone(),
            prices.clone(),
            clock.clone(),
        ));
        let known = knowing(&placeholders, &config);
        let frozen = Frozen::open(&host.state_dir).context("what is frozen cannot be read")?;
        let outcomes = Outcomes::open(&host.state_dir).context("the outcomes of runs cannot be read")?;
        let policy = Arc::new(
            Policy::new(
                Snapshot::new(&config, vault, known, prices.clone()),
                ledger.clone(),
                recorder.clone(),
                metrics.clone(),
            )
            .with_frozen(frozen),
        );
        let (kernel, governed) = enforce(&config)?;
        let (containers, doors) = containers(&config, &kernel, &governed)?;
        let identifier = Arc::new(Identifier::new(
            governed.clone(),
            containers.clone(),
            host.cgroup_root.clone(),
            &config.agents,
        ));
        let worker = worker::Worker::new(&config, &identifier, &policy, &recorder, drain)?;
        let now = clock.now();
        Ok(Self {
            config_path: config_path.to_owned(),
            configured_at: ArcSwap::from_pointee(now),
            started_at: now,
            config: ArcSwap::from_pointee(config),
            kernel,
            governed,
            containers,
            doors: Mutex::new(Some(doors)),
            identifier,
            placeholders,
            prices,
            ledger,
            metrics,
            recorder,
            policy,
            outcomes,
            worker,
            reloading: Mutex::new(()),
        })
    }

    /// Opens the listeners, points the programs at them, and serves until a stop is asked for.
    async fn serve(self: &Arc<Self>, drain: &Drain) -> anyhow::Result<()> {
        let mut stop = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?;
        let mut hangup = signal(SignalKind::hangup()).context("SIGHUP cannot be handled")?;
        self.worker.listen(&self.kernel)?;
        let inside = self.follow_containers();
        let keeping = tokio::spawn(housekeeping::keep(self.clone()));
        let events = tokio::spawn(housekeeping::kernel_events(self.clone()));
        notify::notify("READY=1");
        tracing::info!(version = env!("CARGO_PKG_VERSION"), "guard-agent serves");
        loop {
            tokio::select! {
                _ = stop.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => {
                    let daemon = self.clone();
                    // It reads files; the tasks of calls must not wait for it.
                    let reloaded = tokio::task::spawn_blocking(move || daemon.reload()).await;
                    if let Ok(Err(why)) = reloaded {
                        tracing::error!(%why, "the configuration was not reloaded; the old one stays in force");
                    }
                }
            }
        }
        tracing::info!("stopping: calls in flight may end, new ones are refused");
        keeping.abort();
        events.abort();
        inside.iter().for_each(JoinHandle::abort);
        let cut = drain.finish(DRAIN).await;
        tracing::info!(
            cut,
            "stopped; the programs stay in the kernel and refuse governed calls"
        );
        Ok(())
    }

    /// Follows the engine, and serves the listeners inside containers.
    fn follow_containers(self: &Arc<Self>) -> Vec<JoinHandle<()>> {
        let mut tasks = Vec::new();
        if let Some(doors) = self.doors.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let daemon = self.clone();
            tasks.push(tokio::spawn(
                async move { daemon.worker.serve_doors(doors).await },
            ));
        }
        let socket = self.config.load().host.docker.clone();
        if let (Some(socket), Some(containers)) = (socket, &self.containers) {
            tasks.push(tokio::spawn(docker::follow(socket, containers.clone())));
        }
        tasks
    }

    /// Puts the file's present content in force, all of it or nothing.
    fn reload(&self) -> Result<Vec<String>, String> {
        let problems = |found: Vec<crate::config::Problem>| {
            found
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n")
        };
        let _alone = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let mut config = crate::config::load(&self.config_path).map_err(problems)?;
        let notes = worker::keep_until_restart(&self.config.load().host, &mut config.host);
        let vault = Vault::read(&config.providers)
            .map_err(|bad| bad.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
        let paths = self.worker.prepare(&config).map_err(|why| format!("{why:#}"))?;
        // Nothing after this can fail. Until the lines below have run, a cgroup that is new here is refused.
        self.governed
            .set_patterns(&patterns(&config))
            .map_err(|why| why.to_string())?;
        self.worker.replace(paths);
        self.identifier.replace(&config.agents);
        if let Some(containers) = &self.containers {
            containers.replace(&config.agents);
        }
        self.metrics.relabel(Labels::new(&config, labels(&self.prices)));
        let known = knowing(&self.placeholders, &config);
        self.policy
            .replace(Snapshot::new(&config, vault, known, self.prices.clone()));
        tracing::info!(agents = config.agents.len(), "the configuration was reloaded");
        self.config.store(Arc::new(config));
        self.configured_at.store(Arc::new(Timestamp::now()));
        Ok(notes)
    }
}

/// Loads or adopts the programs and governs what the configuration names. From here on governed processes are refused
/// until the listeners are open.
fn enforce(config: &Config) -> anyhow::Result<(Arc<Kernel>, Arc<GovernedSet>)> {
    let host = &config.host;
    let settings = KernelSettings {
        cgroup_root: host.cgroup_root.clone(),
        bpffs: host.bpffs.clone(),
        daemon_cgroup: cgroup::of_process(std::process::id(), &host.cgroup_root)
            .context("the daemon's own cgroup cannot be found")?,
    };
    let kernel = Arc::new(Kernel::start(&settings).context("the kernel programs cannot be attached")?);
    kernel
        .deny_ports(&[host.metrics.port()])
        .context("the metrics port cannot be closed to agents")?;
    let governed = GovernedSet::start(kernel.clone(), &host.cgroup_root, &patterns(config))
        .context("the agents' cgroups cannot be watched")?;
    if host.docker.is_none() {
        // Patterns and runs are all the sources there are: whatever else an earlier daemon governed is let go.
        governed.release_leftovers(&HashSet::new());
        kernel.hold_back(&[]).context("containers cannot be let pass")?;
    }
    Ok((kernel, Arc::new(governed)))
}

/// Starts to follow containers, if the configuration names an engine.
fn containers(
    config: &Config,
    kernel: &Arc<Kernel>,
    governed: &Arc<GovernedSet>,
) -> anyhow::Result<(Option<Arc<Containers>>, mpsc::Receiver<Door>)> {
    let (keeper, worker) = mpsc::channel(DOORS);
    let host = &config.host;
    if host.docker.is_none() {
        return Ok((None, worker));
    }
    let (root, places) = (&host.cgroup_root, &host.container_cgroups);
    let containers = Containers::start(
        kernel.clone(),
        governed.clone(),
        root,
        places,
        &config.agents,
        keeper,
    )
    .context("containers cannot be followed")?;
    Ok((Some(Arc::new(containers)), worker))
}

fn patterns(config: &Config) -> Vec<(u32, Vec<String>)> {
    config
        .agents
        .iter()
        .map(|agent| (identify::number(&agent.name), agent.cgroups.clone()))
        .collect()
}

fn knowing(placeholders: &Placeholders, config: &Config) -> Placeholders {
    let agents: Vec<Arc<str>> = config.agents.iter().map(|agent| agent.name.clone()).collect();
    placeholders.knowing(
        &agents,
        config.providers.iter().map(|provider| provider.name.as_str()),
    )
}

fn labels(prices: &PriceTable) -> impl Iterator<Item = String> {
    prices.models().iter().map(|price| price.label.clone())
}
