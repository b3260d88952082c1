//! The data path: built here from its stages, and given its listeners as the keeper hands them over.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

use super::keeper_link::{Identifies, KeeperLink, Resolvers};
use crate::accept::{self, Connections, FlowInfo, FlowSource, NoFlow};
use crate::clock;
use crate::config::{Config, Host};
use crate::dns::Dns;
use crate::dns::names::Names;
use crate::drain::Drain;
use crate::forward::dial::{Dialer, HostAddresses};
use crate::forward::pool::Upstreams;
use crate::forward::roots::public_roots;
use crate::kernel;
use crate::keys::environment::BUNDLE_FILE;
use crate::llm::detect;
use crate::llm::provider::is_subtree;
use crate::policy::Policy;
use crate::proxy::{Proxy, Snapshot, Stages};
use crate::record::Recorder;
use crate::route::Router;
use crate::route::addresses::ProviderAddresses;
use crate::seam::Purpose;
use crate::seam::settings::TrustFiles;
use crate::tls::{Authority, Leaves, Terminator, write_bundle};

/// Where the CA lives, below `state_dir`.
const CA: &str = "ca";

/// The data path and what it is rebuilt from on reload.
pub(super) struct Worker {
    proxy: Arc<Proxy>,
    dialer: Dialer,
    addresses: Arc<ProviderAddresses>,
    limit: Connections,
    dns: Arc<Dns>,
    names: Arc<Names>,
    /// The namespaces that are listened in.
    open: Mutex<HashMap<u64, CancellationToken>>,
}

impl Worker {
    pub(super) fn new(
        config: &Config,
        trust: &TrustFiles,
        keeper: &Arc<KeeperLink>,
        policy: &Arc<Policy>,
        recorder: &Arc<Recorder>,
        drain: Drain,
    ) -> anyhow::Result<Self> {
        let dialer = Dialer::default();
        let names = Arc::new(Names::default());
        let dns = Arc::new(Dns::new(
            Arc::new(Identifies(keeper.clone())),
            Arc::new(Resolvers(keeper.clone())),
            recorder.clone(),
            names.clone(),
        ));
        let stages = Stages {
            dns: Some(dns.clone()),
            flows: Arc::new(KernelFlows),
            identify: Arc::new(Identifies(keeper.clone())),
            decide: policy.clone(),
            report: recorder.clone(),
            endpoints: detect::endpoint,
        };
        let addresses = Arc::new(ProviderAddresses::default());
        let proxy = Proxy::new(
            stages,
            snapshot(config, trust, &dialer, &addresses, &names)?,
            drain,
        );
        addresses
            .keep_current()
            .context("the thread that looks up providers cannot be started")?;
        Ok(Self {
            proxy: Arc::new(proxy),
            dialer,
            addresses,
            limit: Connections::default(),
            dns,
            names,
            open: Mutex::default(),
        })
    }

    /// Accepts on these sockets, too, until their namespace is closed.
    pub(super) fn listen(&self, netns_cookie: u64, sockets: Vec<(Purpose, OwnedFd)>) -> anyhow::Result<()> {
        // An address may have come or gone since the last time.
        self.dialer.set_own(own_addresses()?);
        let closed = CancellationToken::new();
        for (purpose, socket) in sockets {
            match purpose {
                Purpose::RedirectV4 | Purpose::RedirectV6 => self.accept_on(socket.into(), &closed)?,
                Purpose::DnsV4 | Purpose::DnsV6 => {
                    let socket =
                        UdpSocket::from_std(socket.into()).context("the DNS socket cannot be set up")?;
                    tokio::spawn(self.dns.clone().serve(socket, closed.clone()));
                }
            }
        }
        let earlier = self.lock().insert(netns_cookie, closed);
        if let Some(earlier) = earlier {
            earlier.cancel();
        }
        Ok(())
    }

    /// Accepts no more from this namespace.
    pub(super) fn close(&self, netns_cookie: u64) {
        if let Some(closed) = self.lock().remove(&netns_cookie) {
            closed.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, CancellationToken>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept_on(&self, listener: std::net::TcpListener, closed: &CancellationToken) -> anyhow::Result<()> {
        let listener = TcpListener::from_std(listener).context("the redirect listener cannot be set up")?;
        tokio::spawn(accept::listen(
            listener,
            self.proxy.clone(),
            self.limit.clone(),
            closed.clone(),
        ));
        Ok(())
    }

    /// Builds what another configuration needs, and changes nothing yet.
    pub(super) fn prepare(&self, config: &Config, trust: &TrustFiles) -> anyhow::Result<Snapshot> {
        snapshot(config, trust, &self.dialer, &self.addresses, &self.names)
    }

    /// Puts it in force for the connections that follow.
    pub(super) fn replace(&self, prepared: Snapshot) {
        self.proxy.reload(prepared);
    }
}

/// Takes back what only a restart can change, and says so in sentences: half of it in force would be worse than none.
pub(crate) fn keep_until_restart(old: &Host, new: &mut Host) -> Vec<String> {
    let changed = [
        ("cgroup_root", old.cgroup_root != new.cgroup_root),
        ("state_dir", old.state_dir != new.state_dir),
        ("runtime_dir", old.runtime_dir != new.runtime_dir),
        ("bpffs", old.bpffs != new.bpffs),
        ("metrics", old.metrics != new.metrics),
        ("canary", old.canary != new.canary),
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
    trust: &TrustFiles,
    dialer: &Dialer,
    addresses: &Arc<ProviderAddresses>,
    names: &Arc<Names>,
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
        router: Router::new(&config.providers)
            .with_addresses(addresses.clone())
            .with_names(names.clone())
            .with_egress(&config.agents, config.host.mode),
        upstreams: Upstreams::new(&config.providers, &public, &own, trust, dialer.clone())?,
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
