//! One governed machine in small: an anchor cgroup with agents, outsiders and the daemon (this very process),
//! a network namespace without any route, and a bpffs of its own. Gone when it is dropped.
//!
//! The namespace has no route, so that a connection that slips past the programs fails with "unreachable":
//! direct, refused and redirected look different to the client.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use guard_agent::kernel::{self, Attached, Flow, Kernel, KernelSettings, Listeners, NoFlow};
use guard_tests::{cgroup::Cgroup, mounts::Mounts, netns::NetNs, patience::patient, process::Spawn};

pub(crate) const AGENT: u32 = 7;
pub(crate) const PORT: u16 = 15_001;
/// Programs that a kernel may lack.
pub(crate) const FAMILY: &str = "fw_family";
pub(crate) const NAMES: &str = "fw_names";

/// Tests take turns: each moves this whole process into its own daemon cgroup.
static TURN: Mutex<()> = Mutex::new(());

pub(crate) struct World {
    pub(crate) kernel: Kernel,
    listeners: Option<Listeners>,
    pub(crate) settings: KernelSettings,
    pub(crate) mounts: Mounts,
    pub(crate) netns: NetNs,
    _home: Home,
    pub(crate) agents: Cgroup,
    pub(crate) outside: Cgroup,
    pub(crate) daemon: Cgroup,
    pub(crate) anchor: Cgroup,
    _turn: MutexGuard<'static, ()>,
}

impl World {
    /// Attached, with a listener in the namespace and one governed cgroup.
    pub(crate) fn new() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(
            nix::unistd::geteuid().is_root(),
            "this suite loads eBPF programs: run it as root"
        );
        let anchor = Cgroup::new().expect("cgroup2 must be mounted");
        let daemon = anchor.child("daemon").unwrap();
        let (agents, outside) = (anchor.child("agents").unwrap(), anchor.child("outside").unwrap());
        let home = Home::leave_for(&daemon);
        let mounts = Mounts::new(&[]).unwrap();
        let netns = NetNs::new().unwrap();
        let settings = KernelSettings {
            cgroup_root: anchor.path().to_owned(),
            bpffs: PathBuf::from("/sys/fs/bpf/guard"),
            daemon_cgroup: daemon.path().to_owned(),
        };
        let kernel = mounts.run(|| Ok(kernel::lab::start(&settings)?)).unwrap();
        let listeners = netns.run(|| Ok(kernel::open_listeners(PORT)?)).unwrap();
        assert!(listeners.v6.is_some(), "lo has ::1");
        kernel.set_listener(netns.cookie().unwrap(), PORT, true).unwrap();
        kernel.govern(agents.id().unwrap(), AGENT).unwrap();
        let listeners = Some(listeners);
        Self {
            kernel,
            listeners,
            settings,
            mounts,
            netns,
            _home: home,
            agents,
            outside,
            daemon,
            anchor,
            _turn: turn,
        }
    }

    /// Runs a Python client as an agent; gives what it printed.
    pub(crate) fn agent(&self, script: &str) -> String {
        run(self.python(script).cgroup(&self.agents))
    }

    /// Runs a Python client as anybody else.
    pub(crate) fn outsider(&self, script: &str) -> String {
        run(self.python(script).cgroup(&self.outside))
    }

    /// A Python client in the namespace, with `dial`, `join` and the socket constants at hand.
    pub(crate) fn python(&self, script: &str) -> Spawn {
        let places = [
            ("AGENTS", self.agents.procs_file()),
            ("OUTSIDE", self.outside.procs_file()),
        ];
        let mut spawn = Spawn::new("python3")
            .arg("-c")
            .arg(format!("{PRELUDE}\n{script}"))
            .netns(&self.netns);
        for (name, path) in places {
            spawn = spawn.env(name, path);
        }
        spawn
            .env("PORT", PORT.to_string())
            .env("PATIENCE", guard_tests::patience::factor().to_string())
            .patience(Duration::from_secs(60))
    }

    /// The next connection of the IPv4 listener.
    pub(crate) fn accept(&self) -> (TcpStream, Result<Flow, NoFlow>) {
        accept(&self.listeners().v4)
    }

    /// The next connection of the IPv6 listener.
    pub(crate) fn accept_v6(&self) -> (TcpStream, Result<Flow, NoFlow>) {
        accept(self.listeners().v6.as_ref().unwrap())
    }

    /// Nobody is waiting.
    pub(crate) fn nothing_arrived(&self) -> bool {
        [Some(&self.listeners().v4), self.listeners().v6.as_ref()]
            .into_iter()
            .flatten()
            .all(|listener| {
                listener.set_nonblocking(true).unwrap();
                matches!(listener.accept(), Err(error) if error.kind() == ErrorKind::WouldBlock)
            })
    }

    pub(crate) fn listeners(&self) -> &Listeners {
        self.listeners.as_ref().expect("the listeners are open")
    }

    /// As when the daemon died.
    pub(crate) fn close_listeners(&mut self) {
        self.listeners = None;
    }

    /// Which programs of this kernel are in force, seen from where its pins are.
    pub(crate) fn attached(&self, kernel: &Kernel) -> Attached {
        self.mounts.run(|| Ok(kernel.attached())).unwrap()
    }

    /// Whether this kernel takes the program that stands in front of `socket()`. Where `GUARD_TEST_TRAMPOLINES` is set
    /// it must.
    pub(crate) fn refuses_families(&self) -> bool {
        let there = self.has(FAMILY);
        assert!(
            there || std::env::var_os("GUARD_TEST_TRAMPOLINES").is_none(),
            "this kernel has what {FAMILY} needs"
        );
        if !there {
            eprintln!("this kernel does not take {FAMILY}: what it refuses is not tried");
        }
        there
    }

    /// Whether this kernel took a program that some do without.
    pub(crate) fn has(&self, program: &str) -> bool {
        let attached = self.attached(&self.kernel);
        attached.programs.iter().any(|(name, _)| *name == program)
    }

    /// Starts another daemon over the pins of this world.
    pub(crate) fn start_again(&self) -> Kernel {
        self.mounts.run(|| Ok(Kernel::start(&self.settings)?)).unwrap()
    }
}

/// Moves this process back before its cgroup is removed (which would kill its members).
struct Home(PathBuf);

impl Home {
    fn leave_for(daemon: &Cgroup) -> Self {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own
            .lines()
            .find_map(|line| line.strip_prefix("0::/"))
            .expect("a cgroup of version 2");
        let home = guard_tests::cgroup::cgroup2_mount()
            .unwrap()
            .join(own)
            .join("cgroup.procs");
        daemon.add(std::process::id()).unwrap();
        Self(home)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Err(error) = std::fs::write(&self.0, std::process::id().to_string()) {
            eprintln!("cannot go back to {}: {error}", self.0.display());
        }
    }
}

const PRELUDE: &str = r#"
import errno, os, socket, struct, sys, threading, time, resource
PORT, PATIENCE = int(os.environ["PORT"]), int(os.environ["PATIENCE"])
def code(error): return errno.errorcode.get(error.errno, str(error))
def join(place): open(os.environ[place], "w").write(str(os.getpid()))
def dial(host, port=443, s=None):
    if s is None: s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    s.settimeout(10 * PATIENCE)
    s.connect((host, port))
    return s
def attempt(do):
    try: do(); print("ok")
    except OSError as error: print(code(error))
"#;

pub(crate) fn run(spawn: Spawn) -> String {
    spawn
        .run()
        .and_then(guard_tests::process::Done::ok)
        .unwrap()
        .stdout
        .trim()
        .to_owned()
}

pub(crate) fn accept(listener: &TcpListener) -> (TcpStream, Result<Flow, NoFlow>) {
    listener.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + patient(Duration::from_secs(10));
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                let patience = patient(Duration::from_secs(10));
                stream.set_read_timeout(Some(patience)).unwrap();
                let flow = kernel::flow_of(stream.as_fd());
                return (stream, flow);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert!(Instant::now() < deadline, "no connection arrived");
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("accept: {error}"),
        }
    }
}

/// Answers every connection with one byte until told to stop; gives how many had a record, and how many none.
pub(crate) fn serve(listener: &TcpListener, stop: &std::sync::atomic::AtomicBool) -> (u64, u64) {
    listener.set_nonblocking(true).unwrap();
    let (mut known, mut unknown) = (0, 0);
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        match listener.accept() {
            Ok((mut stream, _)) => {
                match kernel::flow_of(stream.as_fd()) {
                    Ok(_) => known += 1,
                    Err(_) => unknown += 1,
                }
                stream.set_nonblocking(false).unwrap();
                drop(stream.write_all(b"k"));
            }
            Err(_) => std::thread::sleep(Duration::from_micros(200)),
        }
    }
    (known, unknown)
}

/// Everything the client sends until it closes.
pub(crate) fn read_all(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// Waits until something holds.
pub(crate) fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + patient(Duration::from_secs(10));
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn exists(world: &World, path: &Path) -> bool {
    world.mounts.run(|| Ok(path.exists())).unwrap()
}
