//! The worker: everything that reads what others wrote. Built here from its stages and given its listeners.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use futures_util::future::BoxFuture;
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::accept::{self, Connections, FlowInfo, FlowSource, Identify, NoFlow, Unidentified};
use crate::clock;
use crate::config::{Config, Host};
use crate::drain::Drain;
use crate::forward::dial::{Dialer, HostAddresses};
use crate::forward::pool::Upstreams;
use crate::forward::roots::public_roots;
use crate::identify::containers::Door;
use crate::identify::{self, Identifier};
use crate::identity::Identity;
use crate::kernel::{self, Flow, Kernel, Listeners};
use crate::keys::environment::BUNDLE_FILE;
use crate::llm::detect;
use crate::llm::provider::is_subtree;
use crate::policy::Policy;
use crate::proxy::{Proxy, Snapshot, Stages};
use crate::record::Recorder;
use crate::route::Router;
use crate::route::addresses::ProviderAddresses;
use crate::tls::{Authority, Leaves, Terminator, write_bundle};

/// Where the CA lives, below `state_dir`.
const CA: &str = "ca";

/// The data path and what it is rebuilt from on reload.
pub(super) struct Worker {
    proxy: Arc<Proxy>,
    dialer: Dialer,
    addresses: Arc<ProviderAddresses>,
    limit: Connections,
}

impl Worker {
    pub(super) fn new(
        config: &Config,
        identifier: &Arc<Identifier>,
        policy: &Arc<Policy>,
        recorder: &Arc<Recorder>,
        drain: Drain,
    ) -> anyhow::Result<Self> {
        let dialer = Dialer::default();
        let stages = Stages {
            flows: Arc::new(KernelFlows),
            identify: Arc::new(Identifies(identifier.clone())),
            decide: policy.clone(),
            report: recorder.clone(),
            endpoints: detect::endpoint,
        };
        let addresses = Arc::new(ProviderAddresses::default());
        let proxy = Proxy::new(stages, snapshot(config, &dialer, &addresses)?, drain);
        addresses
            .keep_current()
            .context("the thread that looks up providers cannot be started")?;
        Ok(Self {
            proxy: Arc::new(proxy),
            dialer,
            addresses,
            limit: Connections::default(),
        })
    }

    /// Opens the listeners in the daemon's own network namespace, then points the programs at them.
    pub(super) fn listen(&self, kernel: &Kernel) -> anyhow::Result<()> {
        let listeners = kernel::open_listeners(0).context("the redirect listener cannot be opened")?;
        let cookie = kernel::netns_cookie(&listeners.v4).context("this network namespace has no cookie")?;
        let port = listeners
            .v4
            .local_addr()
            .context("the redirect listener has no address")?
            .port();
        let has_v6 = listeners.v6.is_some();
        self.dialer.set_own(own_addresses()?);
        self.accept_on(listeners, &CancellationToken::new())?;
        kernel
            .set_listener(cookie, port, has_v6)
            .context("the programs cannot be told the listener")?;
        tracing::info!(
            port,
            has_v6,
            "governed connections of this network namespace arrive here"
        );
        Ok(())
    }

    /// Accepts on listeners inside other network namespaces, as the keeper opens and closes them.
    pub(super) async fn serve_doors(&self, mut doors: mpsc::Receiver<Door>) {
        let mut open: HashMap<u64, CancellationToken> = HashMap::new();
        while let Some(door) = doors.recv().await {
            match door {
                Door::Opened {
                    netns_cookie,
                    listeners,
                } => {
                    let closed = CancellationToken::new();
                    match self.accept_on(listeners, &closed) {
                        Ok(()) => {
                            open.insert(netns_cookie, closed);
                        }
                        Err(error) => tracing::error!("{error:#}"),
                    }
                }
                Door::Closed { netns_cookie } => {
                    if let Some(closed) = open.remove(&netns_cookie) {
                        closed.cancel();
                    }
                }
            }
        }
    }

    fn accept_on(&self, listeners: Listeners, closed: &CancellationToken) -> anyhow::Result<()> {
        for listener in [Some(listeners.v4), listeners.v6].into_iter().flatten() {
            listener
                .set_nonblocking(true)
                .context("the redirect listener cannot be set up")?;
            let listener =
                TcpListener::from_std(listener).context("the redirect listener cannot be set up")?;
            tokio::spawn(accept::listen(
                listener,
                self.proxy.clone(),
                self.limit.clone(),
                closed.clone(),
            ));
        }
        Ok(())
    }

    /// Builds what another configuration needs, and changes nothing yet.
    pub(super) fn prepare(&self, config: &Config) -> anyhow::Result<Snapshot> {
        snapshot(config, &self.dialer, &self.addresses)
    }

    /// Puts it in force for the connections that follow.
    pub(super) fn replace(&self, prepared: Snapshot) {
        self.proxy.reload(prepared);
    }
}

/// Takes back what only a restart can change, and says so in sentences: half of it in force would be worse than none.
pub(super) fn keep_until_restart(old: &Host, new: &mut Host) -> Vec<String> {
    let changed = [
        ("cgroup_root", old.cgroup_root != new.cgroup_root),
        ("state_dir", old.state_dir != new.state_dir),
        ("runtime_dir", old.runtime_dir != new.runtime_dir),
        ("bpffs", old.bpffs != new.bpffs),
        ("metrics", old.metrics != new.metrics),
        ("timezone", old.timezone != new.timezone),
        ("docker", old.docker != new.docker),
        ("container_cgroups", places(old) != places(new)),
    ];
    *new = Host {
        mode: new.mode,
        ..old.clone()
    };
    changed
        .into_iter()
        .filter(|(_, changed)| *changed)
        .map(|(key, _)| format!("[host] {key} takes effect after `systemctl restart guard-agent`"))
        .collect()
}

fn places(host: &Host) -> Vec<(&Path, &str)> {
    let written = host.container_cgroups.iter();
    written
        .map(|place| (place.parent.as_path(), place.name.glob().glob()))
        .collect()
}

fn snapshot(
    config: &Config,
    dialer: &Dialer,
    addresses: &Arc<ProviderAddresses>,
) -> anyhow::Result<Snapshot> {
    let clock = clock::system();
    let state_dir = &config.host.state_dir;
    let hosts: Vec<String> = config
        .providers
        .iter()
        .flat_map(|provider| provider.hosts.clone())
        .collect();
    // All names below one can't be looked up; what is below it is known by its name only.
    addresses.watch(hosts.iter().filter(|host| !is_subtree(host)).cloned().collect());
    let authority = Authority::load_or_create(&state_dir.join(CA), &hosts, clock.now())
        .context("the certificate authority cannot be used")?;
    if let Some(created) = authority.created() {
        tracing::warn!(path = %created.display(), "a root certificate was made: clients must be told to trust it");
    }
    let own = authority.certificates();
    let public = roots(&own, &state_dir.join(BUNDLE_FILE), &authority)?;
    let leaves = Leaves::new(authority, clock).context("no leaf key can be made")?;
    Ok(Snapshot {
        router: Router::new(&config.providers).with_addresses(addresses.clone()),
        upstreams: Upstreams::new(&config.providers, &public, &own, dialer.clone())?,
        terminator: Terminator::new(Arc::new(leaves)).context("TLS cannot be set up")?,
    })
}

/// The system's roots, which also go into the bundle for clients.
fn roots(
    own: &[CertificateDer<'static>],
    bundle: &Path,
    authority: &Authority,
) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let public = public_roots(own)?;
    let count =
        write_bundle(bundle, &public, authority).context("the bundle for clients cannot be written")?;
    tracing::debug!(count, "wrote the bundle for clients");
    Ok(public)
}

/// The addresses that governed calls may not be sent to: the proxy would call itself.
fn own_addresses() -> anyhow::Result<HostAddresses> {
    HostAddresses::read().context("the host's own addresses cannot be read")
}

/// Reads the record through the socket option, which needs no capability.
struct KernelFlows;

impl FlowSource for KernelFlows {
    fn flow_of(&self, stream: &TcpStream) -> Result<FlowInfo, NoFlow> {
        use std::os::fd::AsFd;
        let flow = kernel::flow_of(stream.as_fd()).map_err(|error| NoFlow(error.to_string()))?;
        Ok(FlowInfo {
            original_destination: flow.original_destination,
            record: Arc::new(flow),
        })
    }
}

/// Asks the keeper's side who is behind a record.
struct Identifies(Arc<Identifier>);

impl Identify for Identifies {
    fn identify<'a>(&'a self, flow: &'a FlowInfo) -> BoxFuture<'a, Result<Identity, Unidentified>> {
        Box::pin(async move {
            let flow = flow
                .record
                .downcast_ref::<Flow>()
                .ok_or_else(|| Unidentified::unknown("no record"))?;
            self.0.identify(flow).await.map_err(|error| match error {
                identify::Unidentified::Bystander => Unidentified::Bystander,
                error => Unidentified::Unknown {
                    why: error.to_string(),
                    who: Box::new(self.0.stranger(flow)),
                },
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mode;
    use crate::policy::tests_support::config;

    #[test]
    fn a_reload_changes_the_mode_and_keeps_what_needs_a_restart() {
        let old = config("providers = [\"openai\"]").host;
        let mut new =
            config("providers = [\"openai\"]\n[host]\nmode = \"observe\"\nstate_dir = \"/elsewhere\"\ntimezone = \"Europe/Paris\"")
                .host;
        let notes = keep_until_restart(&old, &mut new);
        assert_eq!((new.mode, &new.state_dir), (Mode::Observe, &old.state_dir));
        assert_eq!(new.timezone, old.timezone);
        assert_eq!(notes.len(), 2, "{notes:?}");
    }
}
