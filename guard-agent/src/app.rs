//! The worker: everything that reads what others wrote, in a process without privileges. This is its composition root:
//! it builds every stage, hands each what it needs, and says in which order they start and stop.
//!
//! In: what the keeper passes on (the configuration, the keys, listeners). Out: calls served. On failure: the keeper
//! starts another one. Start: the sandbox first, then rules, ledger and audit log; the keeper hands the listeners over
//! once all that stands. Stop: take no new connections, let calls end until a deadline, close the books.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::alert::Alerts;
use crate::audit::{Audit, AuditSettings};
use crate::clock;
use crate::config::Config;
use crate::drain::Drain;
use crate::keys::placeholder::Placeholders;
use crate::ledger::{Ledger, LedgerSettings};
use crate::llm::prices::{PriceTable, store};
use crate::policy::frozen::Frozen;
use crate::policy::grants::Grants;
use crate::policy::outcomes::Outcomes;
use crate::policy::{Policy, Snapshot};
use crate::record::Recorder;
use crate::seam::settings::Known;
use crate::seam::{Channel, FromWorker, Proof, Start, ToWorker, VERSION, channel};
use crate::telemetry::metrics::{Labels, Metrics};

mod admin_state;
mod baselines;
mod burn_rate;
mod ended_runs;
mod grants;
mod hear;
mod housekeeping;
mod keeper_link;
mod soft_limits;
mod stops;
mod worker;

pub(crate) use worker::keep_until_restart;

use keeper_link::KeeperLink;

/// How long calls in flight may take to end after a stop was asked for; systemd's own limit is longer.
pub(crate) const DRAIN: Duration = Duration::from_secs(20);
/// The keeper looks every two seconds; what it said longer ago than this proves nothing any more.
const PROOF: Duration = Duration::from_secs(30);

/// Everything that lives as long as the worker.
struct Daemon {
    config: ArcSwap<Config>,
    configured_at: ArcSwap<Timestamp>,
    started_at: Timestamp,
    keeper: Arc<KeeperLink>,
    /// What the keeper saw last, and when.
    proof: Mutex<Option<(Proof, Instant)>>,
    placeholders: Placeholders,
    prices: ArcSwap<PriceTable>,
    ledger: Arc<Ledger>,
    metrics: Arc<Metrics>,
    recorder: Arc<Recorder>,
    policy: Arc<Policy>,
    outcomes: Outcomes,
    worker: worker::Worker,
    /// Held while the rules are replaced.
    reloading: Mutex<()>,
}

/// The sockets that a worker is given when it starts.
struct Sockets {
    admin: UnixListener,
    metrics: std::net::TcpListener,
}

/// Runs the worker until the keeper tells it to stop. Its end of the channel is its standard input.
///
/// # Errors
/// What could not be set up; the keeper is told, too.
pub fn run(end: OwnedFd) -> anyhow::Result<()> {
    crate::sandbox::die_with_parent()?;
    let mut first = channel::receive_first(&end).context("the keeper says nothing")?;
    let ToWorker::Start(start) = first.message().context("the keeper is not understood")? else {
        return Err(anyhow!("the keeper does not begin with the start"));
    };
    if start.version != VERSION {
        return Err(anyhow!(
            "the keeper speaks version {}, not {VERSION}",
            start.version
        ));
    }
    let mut passed = std::mem::take(&mut first.descriptors).into_iter();
    let (Some(settings), Some(admin), Some(metrics)) = (passed.next(), passed.next(), passed.next()) else {
        return Err(anyhow!("the keeper passed no settings or sockets"));
    };
    let known = Known::read(settings).map_err(|why| anyhow!(why))?;
    crate::sandbox::enter(&known.config.host.state_dir)?;
    let sockets = Sockets {
        admin: admin.into(),
        metrics: metrics.into(),
    };
    let data = tokio::runtime::Builder::new_multi_thread()
        .thread_name("guard-data")
        .enable_all()
        .build()
        .context("the data runtime cannot be started")?;
    data.block_on(serve(end, &start, known, sockets))
}

async fn serve(end: OwnedFd, start: &Start, known: Known, sockets: Sockets) -> anyhow::Result<()> {
    let channel = Arc::new(Channel::new(end).context("the channel cannot be watched")?);
    let (keeper, _writing) = KeeperLink::new(channel.clone());
    let drain = Drain::default();
    let stopping = CancellationToken::new();
    let set_up = Daemon::start(known, start, keeper.clone(), drain.clone()).and_then(|daemon| {
        let daemon = Arc::new(daemon);
        let admin = admin_thread(&daemon, sockets, stopping.clone())?;
        Ok((daemon, admin))
    });
    let (daemon, admin) = match set_up {
        Ok(set_up) => set_up,
        Err(why) => {
            channel
                .send(&FromWorker::Failed(format!("{why:#}")), &[])
                .await
                .context("the keeper does not hear")?;
            return Err(why);
        }
    };
    daemon.start_alerts();
    daemon.note_restart(start);
    keeper.tell(FromWorker::Ready { version: VERSION });
    let served = hear::hear(&daemon, &channel, &drain).await;
    stopping.cancel();
    if tokio::task::spawn_blocking(move || admin.join()).await.is_err() {
        tracing::error!("the admin thread panicked");
    }
    served
}

/// The admin socket and the metrics port have a thread of their own: a scrape must not slow a call.
fn admin_thread(
    daemon: &Arc<Daemon>,
    sockets: Sockets,
    stopping: CancellationToken,
) -> anyhow::Result<std::thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the admin runtime cannot be started")?;
    let state: Arc<dyn crate::admin::AdminState> = daemon.clone();
    let serve = move || {
        runtime.block_on(async {
            let health = match tokio::net::TcpListener::from_std(sockets.metrics) {
                Ok(health) => health,
                Err(why) => return tracing::error!(%why, "the metrics port is not served"),
            };
            let metrics = crate::admin::serve_health(health, state.clone(), stopping.clone());
            let (admin, ()) = tokio::join!(
                crate::admin::serve(sockets.admin, state.clone(), stopping),
                metrics
            );
            if let Err(why) = admin {
                tracing::error!(%why, "the admin socket is not served any more");
            }
        });
    };
    std::thread::Builder::new()
        .name("guard-admin".into())
        .spawn(serve)
        .context("the admin thread cannot be started")
}

impl Daemon {
    fn start(known: Known, start: &Start, keeper: Arc<KeeperLink>, drain: Drain) -> anyhow::Result<Self> {
        let Known {
            config,
            vault,
            trust,
            price_overlay,
        } = known;
        let host = &config.host;
        let clock = clock::system();
        let placeholders =
            Placeholders::open(&host.state_dir).context("the placeholder secret cannot be used")?;
        let prices = prices(&config, price_overlay.as_deref())?;
        let labels = Labels::new(&config, labels(&prices));
        let metrics = Arc::new(Metrics::new(labels).context("metrics cannot be registered")?);
        let ledger = Ledger::open(LedgerSettings {
            dir: host.state_dir.clone(),
            timezone: host.timezone.clone(),
            clock: clock.clone(),
        })
        .context("the ledger cannot be opened")?;
        let recovery = ledger.recovery();
        if recovery.charged_leases > 0 {
            tracing::warn!(
                accounts = recovery.charged_leases,
                "the machine lost power: these accounts are booked up to what may have been spent in them"
            );
        }
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
        let grants = Grants::open(&host.state_dir).context("what was granted cannot be read")?;
        let outcomes = Outcomes::open(&host.state_dir).context("the outcomes of runs cannot be read")?;
        let policy = Arc::new(
            Policy::new(
                Snapshot::new(&config, vault, known, prices.clone()),
                ledger.clone(),
                recorder.clone(),
                metrics.clone(),
            )
            .with_frozen(frozen)
            .with_grants(grants),
        );
        let worker = worker::Worker::new(&config, &trust, &keeper, &policy, &recorder, drain)?;
        let now = clock.now();
        Ok(Self {
            configured_at: ArcSwap::from_pointee(now),
            started_at: start.since,
            config: ArcSwap::from_pointee(config),
            keeper,
            proof: Mutex::default(),
            placeholders,
            prices: ArcSwap::new(prices),
            ledger,
            metrics,
            recorder,
            policy,
            outcomes,
            worker,
            reloading: Mutex::new(()),
        })
    }

    /// Puts what the keeper read in force, all of it or nothing.
    fn reload(&self, known: Known) -> Result<Vec<String>, String> {
        let _alone = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let Known {
            mut config,
            vault,
            trust,
            price_overlay,
        } = known;
        let notes = keep_until_restart(&self.config.load().host, &mut config.host);
        let paths = self
            .worker
            .prepare(&config, &trust)
            .map_err(|why| format!("{why:#}"))?;
        let prices = prices(&config, price_overlay.as_deref()).map_err(|why| format!("{why:#}"))?;
        // Nothing after this can fail. A cgroup that is new here is governed only after it: until then it is refused.
        self.worker.replace(paths);
        self.ledger.believe_clock();
        self.metrics.relabel(Labels::new(&config, labels(&prices)));
        self.recorder.price_by(prices.clone());
        self.prices.store(prices.clone());
        let known = knowing(&self.placeholders, &config);
        self.policy.replace(Snapshot::new(&config, vault, known, prices));
        if let Some(alerts) = self.recorder.alerts() {
            alerts.replace(config.alerts.clone());
        }
        self.config.store(Arc::new(config));
        self.configured_at.store(Arc::new(Timestamp::now()));
        Ok(notes)
    }

    /// The keeper looked.
    fn saw(&self, proof: Proof) {
        self.metrics.enforcing(proof == Proof::Enforcing);
        *self.proof.lock().unwrap_or_else(PoisonError::into_inner) = Some((proof, Instant::now()));
    }

    /// Whether enforcement is proven.
    fn proven(&self) -> Result<(), String> {
        match &*self.proof.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((_, at)) if at.elapsed() > PROOF => {
                Err(format!("not enforcing; nobody has looked for {PROOF:?}"))
            }
            Some((Proof::Enforcing, _)) => Ok(()),
            Some((Proof::NotEnforcing(why), _)) => Err(format!("not enforcing; {why}")),
            None => Err("not enforcing; it was not tried yet".to_owned()),
        }
    }

    /// Tells people of alerts, from here on.
    fn start_alerts(&self) {
        let (alerts, waiting) = Alerts::new(self.config.load().alerts.clone(), self.metrics.clone());
        self.recorder.tell(alerts);
        tokio::spawn(crate::alert::deliver(waiting, self.recorder.clone()));
    }

    /// What became of the worker before this one.
    fn note_restart(&self, start: &Start) {
        self.metrics.worker_restarts(start.restarts);
        if let Some(how) = &start.last_end {
            self.recorder.host_alert(
                "worker.restarted",
                format!("the worker before this one ended: {how}"),
            );
        }
    }
}

fn knowing(placeholders: &Placeholders, config: &Config) -> Placeholders {
    let agents: Vec<Arc<str>> = config.agents.iter().map(|agent| agent.name.clone()).collect();
    placeholders.knowing(
        &agents,
        config.providers.iter().map(|provider| provider.name.as_str()),
    )
}

/// The price table of this configuration.
fn prices(config: &Config, overlay: Option<&str>) -> anyhow::Result<Arc<PriceTable>> {
    let (table, problem) = store::load(&config.host.state_dir, overlay)?;
    if let Some(problem) = problem {
        tracing::warn!("{problem}");
    }
    Ok(Arc::new(table))
}

fn labels(prices: &PriceTable) -> impl Iterator<Item = String> {
    prices.models().iter().map(|price| price.label.clone())
}
