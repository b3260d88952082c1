//! A real Docker engine on the lab's host: its containers lie below the lab's cgroup and see the lab's internet.
//!
//! It has a mount namespace of its own, in which cgroup2 is where engines look for it, and `/run` and `/etc/docker` are
//! empty; its data is in the lab's directory. The machine sees nothing of it but processes below the lab's cgroup, and
//! those go with it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;

use crate::cgroup::{Cgroup, cgroup2_mount};
use crate::clients;
use crate::lab::{Lab, Place};
use crate::mounts::Mounts;
use crate::process::{Done, Running, Spawn};

mod image;

/// Where its containers' cgroups are, below the lab's.
pub const CONTAINERS: &str = "containers";
/// Its socket, below the lab's directory.
pub const SOCKET: &str = "docker.sock";
/// The image that every container is made of.
const IMAGE: &str = "lab:latest";
/// Its own bridge's address.
const BRIDGE: &str = "172.30.0.1/24";
/// Starting containerd included.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The engine, while it runs. Fields are dropped in this order.
#[derive(Debug)]
pub struct Engine<'a> {
    running: Option<Running>,
    cgroup: Cgroup,
    mounts: Mounts,
    lab: &'a Lab,
}

/// A container to be.
#[derive(Debug, Clone)]
pub struct Container {
    name: String,
    options: Vec<String>,
}

impl Container {
    /// One of this name, without a label, on the engine's own bridge.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            options: Vec::new(),
        }
    }

    /// Gives it the label `guard.agent=NAME`.
    #[must_use]
    pub fn agent(self, name: &str) -> Self {
        self.option("--label").option(&format!("guard.agent={name}"))
    }

    /// Puts it on another network.
    #[must_use]
    pub fn network(self, name: &str) -> Self {
        self.option("--network").option(name)
    }

    /// Any other option of `docker run`.
    #[must_use]
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }
}

impl<'a> Engine<'a> {
    /// Starts it and makes the image; back when containers can be run.
    ///
    /// # Errors
    /// A program of the Debian packages `docker.io`, `containerd`, `runc`, `iptables` or `busybox-static` is missing, or
    /// the engine does not become ready; the error has what it said.
    pub fn start(lab: &'a Lab) -> Result<Self> {
        let directory = lab.directory();
        let mounts = Mounts::new(&[])?;
        mounts.run(|| own_surroundings(&directory))?;
        let cgroup = lab.cgroup_root().child("engine")?;
        let mut engine = Self {
            running: None,
            cgroup,
            mounts,
            lab,
        };
        engine.start_engine()?;
        let tree = image::archive(&directory)?;
        engine
            .docker(["import", &tree.display().to_string(), IMAGE])?
            .ok()?;
        Ok(engine)
    }

    /// Starts the engine's process (again).
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn start_engine(&mut self) -> Result<()> {
        let directory = self.lab.directory();
        let below = |name: &str| directory.join(name).display().to_string();
        let parent = format!(
            "/{}/{CONTAINERS}",
            hierarchy_path(self.lab.cgroup_root().path())?.display()
        );
        let mut running = self
            .spawn("dockerd")
            .args(["--data-root", &below("docker-data")])
            .args(["--exec-root", &below("docker-exec")])
            .args(["--pidfile", &below("docker.pid")])
            .args(["--host", &format!("unix://{}", below(SOCKET))])
            .args(["--cgroup-parent", &parent])
            .args(["--bip", BRIDGE])
            .args(["--userland-proxy=false", "--live-restore", "--log-level=warn"])
            .start()
            .context("apt-get install docker.io containerd runc iptables")?;
        let deadline = Instant::now() + READY_WITHIN;
        while !self.docker(["info"])?.success() {
            if !running.is_running()? || Instant::now() > deadline {
                let (stdout, stderr) = running.said();
                bail!("the engine is not ready: {stdout}{stderr}");
            }
            thread::sleep(Duration::from_millis(200));
        }
        self.running = Some(running);
        Ok(())
    }

    /// Stops the engine's process; containers go on.
    ///
    /// # Errors
    /// It does not run, or does not stop.
    pub fn stop_engine(&mut self) -> Result<()> {
        let running = self.running.take().context("no engine runs")?;
        running.signal(nix::sys::signal::Signal::SIGTERM)?;
        running.wait(READY_WITHIN)?;
        Ok(())
    }

    fn spawn(&self, program: impl AsRef<OsStr>) -> Spawn {
        let bare = Spawn::new(program).cgroup(&self.cgroup).mounts(&self.mounts);
        bare.netns(self.lab.host())
    }

    /// Runs the engine's own command line.
    ///
    /// # Errors
    /// It cannot be run, or takes more than two minutes.
    pub fn docker<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Done> {
        self.command(arguments).run()
    }

    /// The same, to be run.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Spawn {
        let socket = self.lab.directory().join(SOCKET);
        self.spawn("docker")
            .args(["--host", &format!("unix://{}", socket.display())])
            .args(arguments)
            .patience(Duration::from_secs(120))
    }

    /// Runs a command in a new container, with what a client at `place` is given; the container is removed at its end.
    ///
    /// # Errors
    /// As [`Place::environment`].
    pub fn run(&self, place: Place<'_>, container: &Container, command: &[&str]) -> Result<Spawn> {
        let arguments = self.arguments(place, container)?;
        Ok(self
            .command(["run", "--rm"])
            .args(arguments)
            .arg(IMAGE)
            .args(command))
    }

    /// Starts a container that stays; gives its id.
    ///
    /// # Errors
    /// The engine does not start it.
    pub fn start_container(
        &self,
        place: Place<'_>,
        container: &Container,
        command: &[&str],
    ) -> Result<String> {
        let arguments = self.arguments(place, container)?;
        let started = self
            .command(["run", "--detach"])
            .args(arguments)
            .arg(IMAGE)
            .args(command);
        Ok(started.run()?.ok()?.stdout.trim().to_owned())
    }

    fn arguments(&self, place: Place<'_>, container: &Container) -> Result<Vec<String>> {
        let mut all = vec!["--name".to_owned(), container.name.clone()];
        for (name, address) in Lab::names() {
            all.extend(["--add-host".to_owned(), format!("{name}:{address}")]);
        }
        let mut shown = vec![
            PathBuf::from("/usr"),
            clients::script("llm.py"),
            clients::repository().join(".lab"),
        ];
        shown.extend(image::python_home(self.lab.python()));
        for (name, value) in place.environment()? {
            if ["PATH", "HOME", "PWD", "OLDPWD", "SHLVL", "_"].contains(&name.as_str()) {
                continue;
            }
            if name.ends_with("_FILE") || name.ends_with("_BUNDLE") || name.ends_with("_CERTS") {
                shown.push(PathBuf::from(&value));
            }
            all.extend(["--env".to_owned(), format!("{name}={value}")]);
        }
        shown.sort();
        shown.dedup();
        for path in shown.iter().filter(|path| path.exists()) {
            all.extend(["--volume".to_owned(), format!("{0}:{0}:ro", path.display())]);
        }
        all.extend(container.options.iter().cloned());
        Ok(all)
    }

    /// The SDK's command line, as `tests/clients/llm.py` takes it.
    pub fn sdk(&self, arguments: &str) -> Vec<String> {
        let script = clients::script("llm.py").display().to_string();
        let mut all = vec![self.lab.python().display().to_string(), script];
        all.extend(arguments.split_whitespace().map(str::to_owned));
        all
    }

    /// What `docker inspect` says of a container.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn inspect(&self, name: &str) -> Result<Value> {
        let said = self.docker(["inspect", name])?.ok()?.stdout;
        let mut all: Vec<Value> = serde_json::from_str(&said)?;
        all.pop().context("nothing inspected")
    }

    /// The directory of a container's cgroup.
    pub fn cgroup_of(&self, id: &str) -> PathBuf {
        self.lab.cgroup_root().path().join(CONTAINERS).join(id)
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(running) = &self.running
        {
            eprintln!("--- the engine said ---\n{}", running.said().1);
        }
        // Containers and shims outlive the engine: they go with their cgroups.
        let containers = self.lab.cgroup_root().path().join(CONTAINERS);
        drop(self.running.take());
        for cgroup in [self.cgroup.path(), &containers] {
            if cgroup.is_dir()
                && let Err(error) = fs::write(cgroup.join("cgroup.kill"), "1")
            {
                eprintln!("killing what is in {}: {error}", cgroup.display());
            }
        }
    }
}

/// Path of a cgroup below the root of its hierarchy.
fn hierarchy_path(cgroup: &Path) -> Result<PathBuf> {
    Ok(cgroup.strip_prefix(cgroup2_mount()?)?.to_owned())
}

/// Where an engine looks for cgroup2, and empty places for what it would leave on the machine.
fn own_surroundings(directory: &Path) -> Result<()> {
    let nothing = None::<&str>;
    umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH).context("hiding the machine's cgroup mounts")?;
    if Path::new("/sys/fs/cgroup/unified").exists() {
        bail!("/sys/fs/cgroup is mounted more than once");
    }
    let cgroup2 = mount(
        Some("none"),
        "/sys/fs/cgroup",
        Some("cgroup2"),
        MsFlags::empty(),
        nothing,
    );
    cgroup2.context("mounting cgroup2")?;
    mount(Some("none"), "/run", Some("tmpfs"), MsFlags::empty(), nothing).context("an empty /run")?;
    // The engine writes a key to /etc/docker, which may not be there.
    let (upper, work) = (directory.join("etc-upper"), directory.join("etc-work"));
    fs::create_dir(&upper)?;
    fs::create_dir(&work)?;
    let layers = format!(
        "lowerdir=/etc,upperdir={},workdir={}",
        upper.display(),
        work.display()
    );
    mount(
        Some("none"),
        "/etc",
        Some("overlay"),
        MsFlags::empty(),
        Some(layers.as_str()),
    )
    .context("an /etc of its own")
}

/// Follows what goes by on the host's devices, except loopback and the uplink: packets of containers.
#[derive(Debug)]
pub struct Packets(Running);

impl Packets {
    /// Listens for packets to this address from now on.
    ///
    /// # Errors
    /// The lab's Python cannot open a packet socket.
    pub fn to(lab: &Lab, address: &str) -> Result<Self> {
        let mut running = lab
            .outside()
            .spawn(lab.python())
            .arg(clients::script("packets.py"))
            .arg(address)
            .start()?;
        ensure!(running.line()? == "ready", "packets.py is not ready");
        Ok(Self(running))
    }

    /// What was seen so far: a line for each packet.
    pub fn seen(&self) -> Vec<String> {
        // a packet is delivered to the socket before its sender goes on; its line takes a moment more
        thread::sleep(Duration::from_millis(500));
        let said = self.0.said().0;
        said.lines()
            .filter(|line| *line != "ready")
            .map(str::to_owned)
            .collect()
    }
}

/// A link in a tree that is to be an image.
fn link(tree: &Path, name: &str, to: &str) -> Result<()> {
    symlink(to, tree.join(name)).with_context(|| name.to_owned())
}
