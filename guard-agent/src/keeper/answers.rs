//! Answers the worker's questions.
//!
//! In: a question. Out: plain data. On failure: a refusal in words. The worker is not trusted: who asks for a run is read
//! from the connection that it passes on, and nothing that it says of others counts.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use guard_common::dns::DNS_PORT;
use nix::sys::socket::{getsockopt, sockopt};
use tokio::time::timeout;

use super::Keeper;
use super::runs;
use crate::accept::{IDENTIFY, Unidentified};
use crate::identify;
use crate::identity::Identity;
use crate::kernel::{self, CANARY, Flow, cgroup};
use crate::seam::{Answer, Ask, Governed, Run, Sealed, ToWorker};

/// Questions that are being answered at a time: as many as the worker may have connections.
pub(super) const AT_ONCE: usize = 10_000;

impl Keeper {
    /// Answers one question; the answer goes to the worker of the moment.
    pub(super) async fn answer(self: Arc<Self>, id: u64, ask: Ask, descriptors: Vec<OwnedFd>) {
        let mut passed = Vec::new();
        let answer = match ask {
            Ask::Identify(flow) => Answer::Identity(Box::new(self.identify(&flow).await)),
            Ask::Governed => match self.sealed_list() {
                Ok(list) => {
                    passed.push(list);
                    Answer::Governed
                }
                Err(error) => {
                    tracing::error!(%error, "the worker is not told which cgroups are governed");
                    Answer::Busy
                }
            },
            Ask::IsGoverned { pid } => Answer::IsGoverned(self.is_governed(pid)),
            Ask::Resolver {
                netns_cookie,
                resolver,
                stream,
            } => {
                let keeper = self.clone();
                let opening =
                    tokio::task::spawn_blocking(move || keeper.resolver(netns_cookie, resolver, stream));
                Answer::Resolver(match opening.await {
                    Ok(Ok(socket)) => {
                        passed.push(socket);
                        Ok(())
                    }
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(panicked) => Err(panicked.to_string()),
                })
            }
            Ask::Run { agent } => Answer::Run(self.run(&agent, descriptors.into_iter().next())),
            Ask::Reload => Answer::Reload(self.reload().await),
        };
        self.desk.tell_with(ToWorker::Answer { id, answer }, passed);
    }

    async fn identify(&self, flow: &Flow) -> Result<Identity, Unidentified> {
        if flow.agent == CANARY {
            self.canary.arrived(flow.cookie);
            return Err(Unidentified::Canary);
        }
        let identifier = &self.enforcement.identifier;
        let found = timeout(IDENTIFY, identifier.identify(flow)).await;
        let unknown = |why: String| Unidentified::Unknown {
            why,
            who: Box::new(identifier.stranger(flow)),
        };
        match found {
            Ok(Ok(identity)) => Ok(identity),
            Ok(Err(identify::Unidentified::Bystander)) => Err(Unidentified::Bystander),
            Ok(Err(error)) => Err(unknown(error.to_string())),
            Err(_elapsed) => Err(unknown(identify::Unidentified::TooSlow.to_string())),
        }
    }

    /// Whatever the worker says, the port is that of DNS, and the namespace one that governed processes are in.
    fn resolver(&self, netns_cookie: u64, resolver: IpAddr, stream: bool) -> std::io::Result<OwnedFd> {
        let namespace = kernel::namespace_of(self.listening.any_of(netns_cookie)?)?;
        let resolver = SocketAddr::new(resolver, DNS_PORT);
        kernel::inside(namespace, move || kernel::ask_resolver(resolver, stream))
    }

    fn sealed_list(&self) -> std::io::Result<OwnedFd> {
        let mut list: Governed = self.enforcement.governed.all();
        list.retain(|(_, cgroup)| cgroup.agent != CANARY);
        Sealed::write(&list)?.descriptor()
    }

    /// A process that cannot be found must not be trusted.
    fn is_governed(&self, pid: u32) -> bool {
        let root = &self.config.load().host.cgroup_root;
        match cgroup::of_process(pid, root).and_then(|path| cgroup::id_of(&path)) {
            Ok(id) => self.enforcement.governed.lookup(id).is_some(),
            Err(_gone) => true,
        }
    }

    fn run(&self, agent: &str, connection: Option<OwnedFd>) -> Result<Run, String> {
        let connection = connection.ok_or("the request came without its connection")?;
        let peer = getsockopt(&connection, sockopt::PeerCredentials).map_err(|why| why.to_string())?;
        if peer.uid() != 0 {
            return Err("only root starts runs".to_owned());
        }
        let pid = u32::try_from(peer.pid()).unwrap_or_default();
        if pid == 0 || self.is_governed(pid) {
            return Err("the process that asks belongs to an agent, or is gone".to_owned());
        }
        let config = self.config.load();
        if !config.agents.iter().any(|known| &*known.name == agent) {
            return Err(format!("no [[agent]] is named {agent:?}"));
        }
        runs::start(&config.host.cgroup_root, &self.enforcement.governed, agent, pid)
    }
}
