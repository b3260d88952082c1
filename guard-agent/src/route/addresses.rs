//! The addresses of providers.
//!
//! In: the original destination of a connection that is not a provider's by name, and the name that it has, if any.
//! Out: whether it may pass. On failure: an address that is known to be a provider's is refused unless the
//! connection's name resolves to it too.
//!
//! Without this a client would reach a provider past Guard by its address alone: TLS without a server name, or with
//! another one. Addresses come from the host's own resolver, once a minute, and are kept for an hour, because names with
//! many addresses show a few at a time. What this does not see: an address that the resolver never gave this host, and a
//! name of somebody else's that really resolves to a shared address (its server decides whom it answers for).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

/// From the end of one round of look-ups to the next.
const EVERY: Duration = Duration::from_secs(60);
/// How long an address counts after it was last seen.
const KEPT: Duration = Duration::from_secs(60 * 60);
/// Addresses at most; thirty providers have some hundred.
const MOST: usize = 8192;
/// Look-ups of clients' names at the same time: getaddrinfo(3) holds a thread each.
const LOOKUPS: usize = 16;
/// How long a look-up may keep a connection waiting.
const PATIENCE: Duration = Duration::from_secs(2);

/// Finds the addresses of a name. May block.
pub type Resolve = fn(&str) -> io::Result<Vec<IpAddr>>;

/// Which addresses are providers'. Cheap to share; outlives a reload.
pub struct ProviderAddresses {
    resolve: Resolve,
    hosts: ArcSwap<Vec<String>>,
    seen: ArcSwap<HashMap<IpAddr, Instant>>,
    lookups: Arc<Semaphore>,
}

impl Default for ProviderAddresses {
    fn default() -> Self {
        Self::new(system)
    }
}

impl ProviderAddresses {
    /// Knows nothing yet.
    pub fn new(resolve: Resolve) -> Self {
        Self {
            resolve,
            hosts: ArcSwap::default(),
            seen: ArcSwap::default(),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
        }
    }

    /// Sets the names whose addresses are looked up from the next round on.
    pub fn watch(&self, hosts: Vec<String>) {
        self.hosts.store(Arc::new(hosts));
    }

    /// Looks the names up now and then, on a thread of its own, as long as somebody else holds this.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn keep_current(self: &Arc<Self>) -> io::Result<()> {
        let weak = Arc::downgrade(self);
        let work = move || {
            while let Some(this) = weak.upgrade() {
                this.look_up();
                drop(this);
                std::thread::sleep(EVERY);
            }
        };
        std::thread::Builder::new()
            .name("guard-resolve".into())
            .spawn(work)
            .map(drop)
    }

    /// One round. A name that cannot be resolved keeps what is known of it.
    fn look_up(&self) {
        for host in self.hosts.load().iter() {
            match (self.resolve)(host) {
                Ok(found) => self.saw(&found, Instant::now()),
                Err(why) => tracing::debug!(host, %why, "a provider's name cannot be resolved"),
            }
        }
    }

    fn saw(&self, found: &[IpAddr], now: Instant) {
        let mut seen = HashMap::clone(&self.seen.load());
        seen.retain(|_, at| now.saturating_duration_since(*at) < KEPT);
        for address in found {
            if seen.len() < MOST {
                seen.insert(address.to_canonical(), now);
            } else {
                tracing::warn!("more addresses of providers than are kept");
            }
        }
        self.seen.store(Arc::new(seen));
    }

    /// Whether an address is known to be a provider's.
    pub fn is_provider(&self, address: IpAddr) -> bool {
        self.seen.load().contains_key(&address.to_canonical())
    }

    /// Whether a connection with this name (none: it has none) may pass to this address.
    ///
    /// # Errors
    /// Why not, for the record.
    pub async fn judge(&self, destination: SocketAddr, name: Option<&str>) -> Result<(), String> {
        let address = destination.ip().to_canonical();
        if !self.is_provider(address) {
            return Ok(());
        }
        let Some(name) = name.filter(|name| !is_address(name)) else {
            return Err("a provider's address, and no name".to_owned());
        };
        match self.find(name).await {
            Ok(found) if found.iter().any(|found| found.to_canonical() == address) => Ok(()),
            Err(Unfound::Busy) => Err("a provider's address, and too many names to look up".to_owned()),
            Ok(_) | Err(Unfound::Unknown) => {
                Err("a provider's address under a name that does not lead there".to_owned())
            }
        }
    }

    /// The addresses to which a client's name leads.
    ///
    /// # Errors
    /// [`Unfound`].
    pub async fn find(&self, name: &str) -> Result<Vec<IpAddr>, Unfound> {
        let slot = self
            .lookups
            .clone()
            .try_acquire_owned()
            .map_err(|_full| Unfound::Busy)?;
        let (resolve, name) = (self.resolve, name.to_owned());
        // The thread holds the slot until it is done, also when nobody waits for it any more.
        let looking = tokio::task::spawn_blocking(move || {
            let found = resolve(&name);
            drop(slot);
            found
        });
        match tokio::time::timeout(PATIENCE, looking).await {
            Ok(Ok(Ok(found))) => Ok(found),
            Ok(Ok(Err(_)) | Err(_)) | Err(_) => Err(Unfound::Unknown),
        }
    }
}

/// Why a name's addresses are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfound {
    /// Too many names are being looked up.
    #[error("too many names are being looked up")]
    Busy,
    /// The host's resolver does not know it, or is too slow.
    #[error("this host cannot resolve it")]
    Unknown,
}

impl std::fmt::Debug for ProviderAddresses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProviderAddresses")
            .field("seen", &self.seen.load().len())
            .finish_non_exhaustive()
    }
}

/// Whether a resolver takes a text for an address (`203.0.113.7`, `0xcb007107`, `[::1]`): that is no name.
pub(super) fn is_address(name: &str) -> bool {
    let last = name.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let hex = last
        .get(..2)
        .is_some_and(|start| start.eq_ignore_ascii_case("0x"));
    name.contains(':') || hex || last.bytes().all(|b| b.is_ascii_digit())
}

/// The host's own resolver.
fn system(name: &str) -> io::Result<Vec<IpAddr>> {
    // The port is not looked at.
    Ok((name, 443).to_socket_addrs()?.map(|found| found.ip()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(name: &str) -> io::Result<Vec<IpAddr>> {
        let text = match name {
            "api.openai.com" => ["203.0.113.1", "2001:db8::1"],
            "shared.example" => ["203.0.113.1", "203.0.113.99"],
            "other.example" => ["203.0.113.50", "203.0.113.51"],
            _ => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(text.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn known() -> ProviderAddresses {
        let addresses = ProviderAddresses::new(resolve);
        addresses.watch(vec!["gone.example".to_owned(), "api.openai.com".to_owned()]);
        addresses.look_up();
        addresses
    }

    async fn passes(address: &str, name: Option<&str>) -> bool {
        known().judge(address.parse().unwrap(), name).await.is_ok()
    }

    #[tokio::test]
    async fn a_providers_address_needs_a_name_that_leads_there() {
        for address in [
            "203.0.113.1:443",
            "[2001:db8::1]:8443",
            "[::ffff:203.0.113.1]:443",
        ] {
            assert!(!passes(address, None).await, "{address}");
            for name in ["other.example", "unheard.example", ""] {
                assert!(!passes(address, Some(name)).await, "{address} {name}");
            }
        }
        assert!(passes("203.0.113.1:443", Some("shared.example")).await);
        assert!(!passes("[2001:db8::1]:443", Some("shared.example")).await);
    }

    #[tokio::test]
    async fn an_address_is_no_name() {
        // The resolver takes each of these for the address itself.
        let addresses = ProviderAddresses::new(|_name| Ok(vec!["203.0.113.1".parse().unwrap()]));
        let destination: SocketAddr = "203.0.113.1:443".parse().unwrap();
        addresses.saw(&[destination.ip()], Instant::now());
        for name in [
            "203.0.113.1",
            "203.0.113.1.",
            "3405803777",
            "0xcb007101",
            "203.0.28929",
            "::ffff:203.0.113.1",
            "[2001:db8::1]",
            ".",
        ] {
            assert!(addresses.judge(destination, Some(name)).await.is_err(), "{name}");
        }
        assert!(addresses.judge(destination, Some("a.example")).await.is_ok());
    }

    #[tokio::test]
    async fn any_other_address_passes_with_or_without_a_name() {
        assert!(passes("203.0.113.2:443", None).await);
        assert!(passes("203.0.113.2:443", Some("unheard.example")).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_up_that_hangs_refuses() {
        fn hangs(_name: &str) -> io::Result<Vec<IpAddr>> {
            std::thread::sleep(Duration::from_millis(200));
            Err(io::ErrorKind::TimedOut.into())
        }
        let addresses = ProviderAddresses::new(hangs);
        addresses.saw(&["203.0.113.1".parse().unwrap()], Instant::now());
        let destination = "203.0.113.1:443".parse().unwrap();
        let asked = (0..LOOKUPS + 1).map(|_| addresses.judge(destination, Some("slow.example")));
        let said = futures_util::future::join_all(asked).await;
        assert!(said.iter().all(Result::is_err));
        assert!(said.last().unwrap().as_ref().unwrap_err().contains("too many"));
    }

    #[test]
    fn an_address_is_kept_for_an_hour_after_it_was_last_seen_and_there_is_an_end_to_them() {
        let addresses = ProviderAddresses::new(resolve);
        let (first, now) = ("203.0.113.1".parse().unwrap(), Instant::now());
        addresses.saw(&[first], now);
        addresses.saw(&["203.0.113.2".parse().unwrap()], now + KEPT / 2);
        assert!(addresses.is_provider(first));
        addresses.saw(&["203.0.113.3".parse().unwrap()], now + KEPT);
        assert!(!addresses.is_provider(first));
        assert!(addresses.is_provider("203.0.113.2".parse().unwrap()));
        let many: Vec<IpAddr> = (0..10_000_u32)
            .map(|n| IpAddr::V4((0x0a00_0000 + n).into()))
            .collect();
        addresses.saw(&many, now + KEPT);
        assert_eq!(addresses.seen.load().len(), MOST);
    }

    #[test]
    fn a_name_that_stops_resolving_keeps_its_addresses() {
        let addresses = known();
        addresses.watch(vec!["gone.example".to_owned()]);
        addresses.look_up();
        assert!(addresses.is_provider("203.0.113.1".parse().unwrap()));
    }
}
