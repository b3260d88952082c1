//! A host with agents and an internet with providers, in namespaces: what the suites and the demo run in.
//!
//! ```text
//!   host namespace                                   net namespace
//!     cgroup daemon          guard-agent daemon        203.0.113.10  api.openai.com     (fake)
//!     cgroup agents/coder    clients, governed   veth  203.0.113.20  api.anthropic.com  (fake)
//!     cgroup agents/second   clients, governed  <====> 203.0.113.30  www.example.org    (an ordinary site)
//!                                                      203.0.113.40, .50, .60  Google, Amazon, Cohere (fake)
//!     cgroup outside         clients, not governed     and 2001:db8:203::10, ::20, ::30
//! ```

use std::fs;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::authority::Authority;
use crate::cgroup::{self, Cgroup};
use crate::clients;
use crate::mounts::Mounts;
use crate::netns::{End, NetNs, join};
use crate::provider::{Provider, Speaks};

mod builder;
mod daemon;
mod metrics;
mod place;

pub use builder::Builder;
pub use daemon::status;
pub use metrics::Metrics;
pub use place::{PLACEHOLDER, Place};

/// The key that the fake OpenAI knows; only the daemon is given it.
pub const OPENAI_KEY: &str = "sk-lab-real-openai-key-7d1f0c55a2e94b3c";
/// The key that the fake Anthropic knows; only the daemon is given it.
pub const ANTHROPIC_KEY: &str = "sk-ant-lab-real-anthropic-key-91b6c0fe";
/// The key that the fake Google knows; only the daemon is given it.
pub const GEMINI_KEY: &str = "AIzaSyLabRealGoogleKey-5e0c7b21f94a4d18";
/// The pair that signs for the fake Amazon; only the daemon is given it.
pub const BEDROCK_KEY: &str = "AKIALABREALKEY000001:lab/real+secret+of+the+pair+2f9d31c7";
/// The key that the fake Cohere knows; only the daemon is given it.
pub const COHERE_KEY: &str = "lab-real-cohere-key-c41d90ab2e6f";
/// Port of every server of the lab's internet.
const HTTPS: u16 = 443;

/// The user that the daemon's worker runs as, and its number in the lab.
const WORKER: &str = "guard";
/// See [`WORKER`].
pub const WORKER_ID: u32 = 61_777;

/// What stands where on the lab's internet.
const SITES: [(Speaks, &str, &str, &str); 6] = [
    (
        Speaks::OpenAi,
        "api.openai.com",
        "203.0.113.10",
        "2001:db8:203::10",
    ),
    (
        Speaks::Anthropic,
        "api.anthropic.com",
        "203.0.113.20",
        "2001:db8:203::20",
    ),
    (
        Speaks::Gemini,
        "generativelanguage.googleapis.com",
        "203.0.113.40",
        "2001:db8:203::40",
    ),
    (
        Speaks::Bedrock,
        "bedrock-runtime.us-east-1.amazonaws.com",
        "203.0.113.50",
        "2001:db8:203::50",
    ),
    (
        Speaks::Cohere,
        "api.cohere.com",
        "203.0.113.60",
        "2001:db8:203::60",
    ),
    (
        Speaks::Site,
        "www.example.org",
        "203.0.113.30",
        "2001:db8:203::30",
    ),
];

/// The lab. Fields are dropped in this order: what lives in something goes before it.
#[derive(Debug)]
pub struct Lab {
    daemon: daemon::Daemon,
    providers: Vec<Provider>,
    _runtime: Runtime,
    cgroups: Cgroups,
    mounts: Mounts,
    host: NetNs,
    net: NetNs,
    files: Files,
    python: PathBuf,
    environments: place::Environments,
}

#[derive(Debug)]
struct Cgroups {
    daemon: Cgroup,
    coder: Cgroup,
    other: Cgroup,
    outside: Cgroup,
    root: Cgroup,
}

/// The lab's directory.
#[derive(Debug)]
struct Files {
    directory: TempDir,
}

impl Files {
    fn make() -> Result<Self> {
        sweep(&std::env::temp_dir());
        let directory = tempfile::Builder::new()
            .prefix(&format!("{}{}-", cgroup::PREFIX, std::process::id()))
            .tempdir()?;
        for name in ["keys", "run"] {
            fs::create_dir(directory.path().join(name))?;
        }
        // As on a real host, others may pass through to what is meant for them.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711))?;
        fs::set_permissions(directory.path().join("keys"), fs::Permissions::from_mode(0o700))?;
        Ok(Self { directory })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A file that only root can read, as keys must be.
    fn secret(&self, name: &str, text: &str) -> Result<()> {
        let path = self.at(name);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(text.as_bytes())
            .with_context(|| path.display().to_string())
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.at(name);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

/// Removes directories that dead test processes left.
fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name
            .to_str()
            .and_then(cgroup::maker)
            .is_some_and(|pid| !cgroup::alive(pid))
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            eprintln!("stale {} is left: {error}", entry.path().display());
        }
    }
}

impl Lab {
    /// Describes a lab.
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn build(builder: &Builder) -> Result<Self> {
        let python = clients::ensure()?;
        let files = Files::make()?;
        let authority = Authority::new("Lab Root")?;
        files.write("public-ca.pem", authority.pem())?;
        files.write("resolv.conf", "")?;
        files.write("hosts", &hosts(builder.ipv6))?;
        files.write(
            "passwd",
            &with_worker(
                "/etc/passwd",
                &format!("{WORKER}:x:{WORKER_ID}:{WORKER_ID}::/:/bin/false"),
            )?,
        )?;
        files.write(
            "group",
            &with_worker("/etc/group", &format!("{WORKER}:x:{WORKER_ID}:"))?,
        )?;

        let (host, net) = (NetNs::new()?, NetNs::new()?);
        connect(&host, &net)?;
        let shown = [
            ("/etc/hosts", files.at("hosts")),
            ("/etc/resolv.conf", files.at("resolv.conf")),
            ("/etc/passwd", files.at("passwd")),
            ("/etc/group", files.at("group")),
        ];
        let shown: Vec<_> = shown
            .iter()
            .map(|(place, file)| (Path::new(place), file.as_path()))
            .collect();
        let mounts = Mounts::new(&shown)?;

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let start = |(speaks, name, v4, v6): (Speaks, &str, &str, &str)| -> Result<Provider> {
            let addresses = [v4, v6].map(|text| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, HTTPS)));
            let addresses = addresses.into_iter().collect::<Result<Vec<_>, _>>()?;
            Provider::start(speaks, &net, &addresses, &[name], &authority, runtime.handle())
        };
        let providers = SITES.into_iter().map(start).collect::<Result<Vec<_>>>()?;

        let root = Cgroup::new()?;
        let cgroups = Cgroups {
            daemon: root.child("daemon")?,
            coder: root.child("agents/coder")?,
            other: root.child("agents/second")?,
            outside: root.child("outside")?,
            root,
        };
        files.secret("keys/openai", OPENAI_KEY)?;
        files.secret("keys/anthropic", ANTHROPIC_KEY)?;
        files.secret("keys/gemini", GEMINI_KEY)?;
        files.secret("keys/bedrock", BEDROCK_KEY)?;
        files.secret("keys/cohere", COHERE_KEY)?;
        files.write("guard.toml", &builder.configuration(&files, &cgroups.root))?;
        Ok(Self {
            daemon: daemon::Daemon::new(builder.quiet),
            providers,
            _runtime: runtime,
            cgroups,
            mounts,
            host,
            net,
            files,
            python,
            environments: place::Environments::default(),
        })
    }

    /// The network namespace of everything outside the host: its servers.
    pub fn net(&self) -> &NetNs {
        &self.net
    }

    /// The fake OpenAI.
    pub fn openai(&self) -> &Provider {
        self.provider(Speaks::OpenAi)
    }

    /// The fake Anthropic.
    pub fn anthropic(&self) -> &Provider {
        self.provider(Speaks::Anthropic)
    }

    /// The fake Google.
    pub fn gemini(&self) -> &Provider {
        self.provider(Speaks::Gemini)
    }

    /// The fake Amazon.
    pub fn bedrock(&self) -> &Provider {
        self.provider(Speaks::Bedrock)
    }

    /// The fake Cohere.
    pub fn cohere(&self) -> &Provider {
        self.provider(Speaks::Cohere)
    }

    /// The ordinary site.
    pub fn site(&self) -> &Provider {
        self.provider(Speaks::Site)
    }

    /// The server that speaks so.
    pub fn provider(&self, speaks: Speaks) -> &Provider {
        let place = SITES.iter().position(|site| site.0 == speaks).unwrap_or_default();
        #[expect(
            clippy::indexing_slicing,
            reason = "one provider was started for each of SITES"
        )]
        &self.providers[place]
    }

    /// Where agent `coder` lives.
    pub fn coder(&self) -> Place<'_> {
        Place::governed(self, "coder", &self.cgroups.coder)
    }

    /// Where agent `other` lives.
    pub fn other(&self) -> Place<'_> {
        Place::governed(self, "second", &self.cgroups.other)
    }

    /// A place of one's own that belongs to this agent.
    pub fn place<'a>(&'a self, agent: &'a str, cgroup: &'a Cgroup) -> Place<'a> {
        Place::governed(self, agent, cgroup)
    }

    /// A place on the same host that no agent's rules cover.
    pub fn outside(&self) -> Place<'_> {
        Place::outside(self, &self.cgroups.outside)
    }

    /// The Python that has the vendors' SDKs.
    pub fn python(&self) -> &Path {
        &self.python
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.files.at("guard.toml")
    }

    /// The lab's own directory.
    pub fn directory(&self) -> PathBuf {
        self.files.directory.path().to_owned()
    }

    /// The host's network namespace.
    pub fn host(&self) -> &NetNs {
        &self.host
    }

    /// The mount namespace of everything on the host.
    pub fn mounts(&self) -> &Mounts {
        &self.mounts
    }

    /// Whether `/readyz` says so.
    pub fn is_ready(&self) -> bool {
        daemon::get(&self.host, "/readyz").is_ok()
    }

    /// Every name of the lab's internet, with its IPv4 address.
    pub fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
        SITES.into_iter().map(|(_, name, v4, _)| (name, v4))
    }

    /// The daemon's state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.files.at("state")
    }

    /// The lab's cgroup: `cgroup_root` of the configuration.
    pub fn cgroup_root(&self) -> &Cgroup {
        &self.cgroups.root
    }

    /// What `/metrics` says.
    ///
    /// # Errors
    /// The daemon does not answer, or not in the exposition format.
    pub fn metrics(&self) -> Result<Metrics> {
        Metrics::parse(&self.metrics_text()?)
    }

    /// The same, as it is written.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub fn metrics_text(&self) -> Result<String> {
        daemon::get(&self.host, "/metrics")
    }

    /// What a server on the host's loopback answers to a GET.
    ///
    /// # Errors
    /// It does not answer with a 200.
    pub fn get(&self, address: &str, path: &str) -> Result<String> {
        daemon::get_from(&self.host, address, path)
    }

    /// What `guard-agent status --json` says.
    ///
    /// # Errors
    /// It fails, or is not JSON.
    pub fn status(&self) -> Result<Value> {
        let done = self.guard(["status", "--json"])?;
        serde_json::from_str(&done.stdout).with_context(|| format!("not JSON: {}", done.stdout))
    }

    /// Every audit record so far, oldest first.
    ///
    /// # Errors
    /// The audit directory cannot be read, or a whole line is not JSON.
    pub fn audit(&self) -> Result<Vec<Value>> {
        daemon::audit(&self.files.at("state/audit"))
    }

    /// Audit records of calls, as soon as there are `count` of them: a record is written after its reply.
    ///
    /// # Errors
    /// There are fewer after ten seconds.
    pub fn calls(&self, count: usize) -> Result<Vec<Value>> {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            let mut records = self.audit()?;
            records.retain(|record| record["kind"] == "call");
            if records.len() >= count {
                return Ok(records);
            }
            anyhow::ensure!(
                std::time::Instant::now() < deadline,
                "{} of {count} audit records of calls: {records:#?}",
                records.len()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The machine's own users (or groups) and the worker's, which sysusers makes on a real host.
fn with_worker(file: &str, line: &str) -> Result<String> {
    let own = fs::read_to_string(file).with_context(|| file.to_owned())?;
    let others = own
        .lines()
        .filter(|line| !line.starts_with(&format!("{WORKER}:")));
    Ok(others.chain([line]).map(|line| format!("{line}\n")).collect())
}

fn hosts(ipv6: bool) -> String {
    let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    for (_, name, v4, v6) in SITES {
        text += &format!("{} {name}\n", if ipv6 { v6 } else { v4 });
    }
    text
}

fn connect(host: &NetNs, net: &NetNs) -> Result<()> {
    join(
        End {
            namespace: host,
            device: "uplink",
            addresses: &["198.51.100.2/24", "2001:db8:1::2/64"],
        },
        End {
            namespace: net,
            device: "downlink",
            addresses: &["198.51.100.1/24", "2001:db8:1::1/64"],
        },
    )?;
    for (_, _, v4, v6) in SITES {
        net.ip(&format!("address add {v4}/32 dev lo"))?;
        net.ip(&format!("address add {v6}/128 dev lo nodad"))?;
    }
    host.ip("route add default via 198.51.100.1")?;
    host.ip("-6 route add default via 2001:db8:1::1")
}
