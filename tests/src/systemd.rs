//! A real systemd, booted in namespaces of its own, with Guard installed as an operator installs it.
//!
//! In: a Debian root that `cargo xtask test --systemd` made once. Out: a machine whose shell runs commands, with a fake
//! provider beside it. Its files are an overlay that is forgotten with it. On failure: what systemd said is in the error;
//! everything that was started goes with the value.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::authority::Authority;
use crate::cgroup::Cgroup;
use crate::lab::Lab;
use crate::netns::{End, NetNs, join};
use crate::patience::patient;
use crate::process::{Done, Running, Spawn, copy_program};
use crate::provider::{Provider, Speaks};

/// Names the root in the environment of the suite.
pub const ROOT: &str = "GUARD_SYSTEMD_ROOT";
/// Where the provider answers.
const PROVIDER: &str = "203.0.113.10";
/// The key that only Guard has.
pub const KEY: &str = "sk-real-key-of-the-machine";

/// Everything that nspawn leaves on a machine is left in the mount namespace instead: `/run` is a file system of its own.
const BOOT: &str = r#"set -e
umount -R /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs tmpfs /run
exec systemd-nspawn --register=no --keep-unit --capability=all --console=pipe --link-journal=no \
  --system-call-filter="bpf perf_event_open open_by_handle_at" --bind=/sys/fs/bpf --bind-ro="$1:/opt/guard" \
  --volatile=overlay -b -D "$2"
"#;

/// The commands of the README, and a trust store that knows the fake provider's authority.
const INSTALL: &str = r#"set -e
cd /opt/guard
install -m 0755 guard-agent /usr/bin/
install -m 0644 guard-agent.service guard.slice coder@.service agents.slice /etc/systemd/system/
install -D -m 0644 guard.sysusers /etc/sysusers.d/guard.conf
systemd-sysusers
install -D -m 0644 guard.tmpfiles /etc/tmpfiles.d/guard.conf
systemd-tmpfiles --create
install -m 0600 key /etc/guard/keys/openai
install -m 0640 guard.toml public-ca.pem /etc/guard/
echo '203.0.113.10 api.openai.com' >> /etc/hosts
systemctl daemon-reload
systemctl start guard-agent
guard-agent ca env --agent coder | sed 's/^export //' > /run/coder.env
"#;

const CONFIGURATION: &str = r#"
[[provider]]
name = "openai"
keys = [{ name = "prod-1", from = "file:/etc/guard/keys/openai" }]
trust = ["/etc/guard/public-ca.pem"]

[[agent]]
name = "coder"
owner = "platform-team"
match = [{ unit = "coder@*.service" }]
providers = ["openai"]
budget = [{ window = "day", usd = 1000.0 }]
"#;

const UNIT: &str = r"[Service]
Slice=agents.slice
EnvironmentFile=/run/coder.env
ExecStart=/bin/sh /opt/guard/calls.sh %i
";

/// One stream after another until told to stop: the head and the body of each stay for the test to judge.
const CALLS: &str = r#"
mkdir -p /run/calls
n=0
while [ ! -e /run/stop ]; do
  n=$((n+1))
  curl -sS -N --max-time 60 -D /run/calls/$1.$n.head -o /run/calls/$1.$n.body \
    -H "Authorization: Bearer $OPENAI_API_KEY" -H 'Content-Type: application/json' \
    -d '{"model":"gpt-5","stream":true,"max_tokens":100,"messages":[{"role":"user","content":"Hi"}]}' \
    https://api.openai.com/v1/chat/completions 2>/run/calls/$1.$n.error
  [ "$1" = once ] && exit
done
"#;

/// A booted machine. Fields are dropped in this order.
#[derive(Debug)]
pub struct Machine {
    leader: u32,
    boot: Running,
    provider: Provider,
    _runtime: Runtime,
    place: Cgroup,
    _cgroup: Cgroup,
    _host: NetNs,
    _net: NetNs,
    _files: TempDir,
}

impl Machine {
    /// Boots one and installs Guard in it.
    ///
    /// # Errors
    /// Something cannot be prepared, systemd does not come up, or a step of the installation fails.
    pub fn boot() -> Result<Self> {
        let root = std::env::var_os(ROOT).map(PathBuf::from);
        let root = root.with_context(|| format!("no {ROOT}: run `cargo xtask test --systemd`"))?;
        let authority = Authority::new("Machine Root")?;
        let files = stage(&authority)?;
        let (host, net) = networks()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let address: SocketAddr = format!("{PROVIDER}:443").parse()?;
        let names = ["api.openai.com"];
        let provider = Provider::start(
            Speaks::OpenAi,
            &net,
            &[address],
            &names,
            &authority,
            runtime.handle(),
        )?;
        let cgroup = Cgroup::new()?;
        let place = cgroup.child("boot")?;
        let boot = Spawn::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", BOOT, "sh"])
            .arg(files.path())
            .arg(root)
            .cgroup(&place)
            .netns(&host)
            .start()?;
        let mut machine = Self {
            leader: 0,
            boot,
            provider,
            _runtime: runtime,
            place,
            _cgroup: cgroup,
            _host: host,
            _net: net,
            _files: files,
        };
        machine.leader = machine.up()?;
        machine.shell(INSTALL)?;
        Ok(machine)
    }

    /// Waits until systemd has booted; gives the process id of its first process.
    fn up(&mut self) -> Result<u32> {
        let init = self.place.path().join("payload/init.scope");
        let deadline = Instant::now() + patient(Duration::from_secs(90));
        loop {
            if let Some(leader) = first_process(&init) {
                self.leader = leader;
                let state = self.inside("systemctl is-system-running --wait").run();
                let said = state.map(|done| done.stdout).unwrap_or_default();
                if matches!(said.trim(), "running" | "degraded") {
                    return Ok(leader);
                }
            }
            if Instant::now() > deadline || !self.boot.is_running()? {
                bail!("systemd does not come up: {:?}", self.boot.said());
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn inside(&self, script: &str) -> Spawn {
        let leader = self.leader.to_string();
        let enter = ["-t", &leader, "-m", "-p", "-n", "-u", "-C", "--", "sh", "-c"];
        Spawn::new("nsenter")
            .args(enter)
            .arg(script)
            .patience(Duration::from_secs(90))
    }

    /// Runs a script inside, as root; gives what it wrote.
    ///
    /// # Errors
    /// It fails; the error has what it said.
    pub fn shell(&self, script: &str) -> Result<String> {
        let done: Done = self
            .inside(script)
            .run()?
            .ok()
            .with_context(|| format!("{script}\nsystemd said {:?}", self.boot.said()))?;
        Ok(done.stdout)
    }

    /// Waits until a script inside succeeds.
    ///
    /// # Errors
    /// It still fails after `patience`.
    pub fn until(&self, script: &str, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patient(patience);
        while !self.inside(script).run()?.success() {
            if Instant::now() > deadline {
                let journal = self.shell("journalctl -u guard-agent --no-pager -n 40")?;
                bail!("still not so: {script}\n{journal}");
            }
            thread::sleep(Duration::from_millis(300));
        }
        Ok(())
    }

    /// The fake provider.
    pub fn provider(&self) -> &Provider {
        &self.provider
    }
}

/// The process of this cgroup that is the first of its process namespace; the others there only pass by.
fn first_process(cgroup: &Path) -> Option<u32> {
    let members = fs::read_to_string(cgroup.join("cgroup.procs")).ok()?;
    let mut pids = members.lines().filter_map(|line| line.parse::<u32>().ok());
    pids.find(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let inside = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        inside.and_then(|line| line.split_whitespace().last()) == Some("1")
    })
}

/// What the machine sees at `/opt/guard`.
fn stage(authority: &Authority) -> Result<TempDir> {
    let files = tempfile::Builder::new()
        .prefix(&format!("{}{}-", crate::cgroup::PREFIX, std::process::id()))
        .tempdir()?;
    let at = |name: &str| files.path().join(name);
    copy_program(&Lab::program()?, &at("guard-agent"))?;
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd");
    for name in [
        "guard-agent.service",
        "guard.slice",
        "guard.sysusers",
        "guard.tmpfiles",
    ] {
        fs::copy(units.join(name), at(name)).with_context(|| name.to_owned())?;
    }
    for (name, text) in [
        ("guard.toml", CONFIGURATION),
        ("coder@.service", UNIT),
        ("agents.slice", "[Slice]\n"),
        ("calls.sh", CALLS),
        ("key", KEY),
        ("public-ca.pem", authority.pem()),
    ] {
        fs::write(at(name), text)?;
    }
    Ok(files)
}

fn networks() -> Result<(NetNs, NetNs)> {
    let (host, net) = (NetNs::new()?, NetNs::new()?);
    join(
        End {
            namespace: &host,
            device: "uplink",
            addresses: &["198.51.100.2/24"],
        },
        End {
            namespace: &net,
            device: "downlink",
            addresses: &["198.51.100.1/24"],
        },
    )?;
    net.ip(&format!("address add {PROVIDER}/32 dev lo"))?;
    host.ip("route add default via 198.51.100.1")?;
    Ok((host, net))
}
