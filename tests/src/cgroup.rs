//! A cgroup of a test's own, below the machine's cgroup2 mount; gone, with its members, when it is dropped.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::patience::patient;

/// What every name that the lab leaves on the machine begins with; the process id follows, then a number.
pub const PREFIX: &str = "guard-test-";

/// How long killed members may take to go.
const EMPTY_WITHIN: Duration = Duration::from_secs(10);

/// A cgroup and, once dropped, nothing.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes `guard-test-<pid>-<n>` below the cgroup2 mount, after clearing what dead test processes left there.
    ///
    /// # Errors
    /// No cgroup2 mount, or no right to make a cgroup in it.
    pub fn new() -> Result<Self> {
        Self::below(&cgroup2_mount()?)
    }

    fn below(directory: &Path) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        sweep(directory);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self::make(directory.join(format!("{PREFIX}{}-{number}", std::process::id())))
    }

    /// Makes a cgroup below this one; `name` may have several components (`agents/coder`).
    ///
    /// # Errors
    /// The cgroup cannot be made.
    pub fn child(&self, name: &str) -> Result<Self> {
        Self::make(self.path.join(name))
    }

    fn make(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path).with_context(|| format!("making cgroup {}", path.display()))?;
        Ok(Self { path })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its id, as BPF programs see it: the inode number of the directory.
    ///
    /// # Errors
    /// The directory is gone.
    pub fn id(&self) -> Result<u64> {
        Ok(fs::metadata(&self.path)?.ino())
    }

    /// Moves a process into it.
    ///
    /// # Errors
    /// The process is gone, or the kernel refuses the move.
    pub fn add(&self, pid: u32) -> Result<()> {
        fs::write(self.procs_file(), pid.to_string())
            .with_context(|| format!("moving {pid} into {}", self.path.display()))
    }

    /// The file through which a process joins.
    pub fn procs_file(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Process ids of its own members (not of its children's).
    ///
    /// # Errors
    /// The cgroup is gone.
    pub fn members(&self) -> Result<Vec<u32>> {
        Ok(members(&self.path)?)
    }

    /// Kills every process in it and below it, and waits until they are gone.
    ///
    /// # Errors
    /// Some member outlives SIGKILL for ten seconds.
    pub fn kill(&self) -> Result<()> {
        kill_below(&self.path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            eprintln!("cgroup {} is left behind: {error:#}", self.path.display());
        }
    }
}

/// Where cgroup2 is mounted: `/sys/fs/cgroup`, or a directory in it on machines that also have version 1.
///
/// # Errors
/// It is not mounted.
pub fn cgroup2_mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    let place = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let place = fields.next()?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(place))
    });
    place.context("cgroup2 is not mounted")
}

/// Removes the cgroups of test processes that no longer live: a killed test run cleans up nothing by itself.
fn sweep(mount: &Path) {
    let Ok(entries) = fs::read_dir(mount) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.to_str().and_then(maker).is_some_and(|pid| !alive(pid))
            && let Err(error) = remove(&entry.path())
            // another test process may have cleared it meanwhile
            && entry.path().exists()
        {
            eprintln!("stale cgroup {} is left: {error:#}", entry.path().display());
        }
    }
}

/// The process id in a name that the lab gave.
pub(crate) fn maker(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// Whether a process with this id exists.
pub(crate) fn alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

fn remove(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    kill_below(path)?;
    for directory in deepest_first(path)? {
        // a zombie's cgroup stays busy for a moment after the kill
        let deadline = Instant::now() + patient(EMPTY_WITHIN);
        loop {
            match fs::remove_dir(&directory) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) => return Err(error).context(directory.display().to_string()),
            }
        }
    }
    Ok(())
}

fn kill_below(path: &Path) -> Result<()> {
    let deadline = Instant::now() + patient(EMPTY_WITHIN);
    while populated(path)? {
        // cgroup.kill came with Linux 5.14; without it, members are killed one by one until none is left
        if fs::write(path.join("cgroup.kill"), "1").is_err() {
            for directory in deepest_first(path)? {
                for pid in members(&directory)? {
                    let pid = i32::try_from(pid).context("process id")?;
                    match kill(Pid::from_raw(pid), Signal::SIGKILL) {
                        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                        Err(error) => return Err(error).context("killing a member"),
                    }
                }
            }
        }
        if Instant::now() > deadline {
            bail!("members outlive SIGKILL: {:?}", members(path)?);
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn populated(path: &Path) -> Result<bool> {
    let events = fs::read_to_string(path.join("cgroup.events"))?;
    Ok(events.lines().any(|line| line == "populated 1"))
}

fn members(path: &Path) -> io::Result<Vec<u32>> {
    let text = fs::read_to_string(path.join("cgroup.procs"))?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

/// The directory and all below it, children before parents.
fn deepest_first(path: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            all.extend(deepest_first(&entry.path())?);
        }
    }
    all.push(path.to_owned());
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_whose_a_name_is() {
        assert_eq!(maker("guard-test-417-3"), Some(417));
        assert_eq!(maker("guard-test-417-agents"), Some(417));
        assert_eq!(maker("guard.slice"), None);
        assert_eq!(maker("guard-test-x-1"), None);
    }

    #[test]
    fn is_gone_with_its_children_and_members_after_a_panic() {
        let cgroup = Cgroup::new().unwrap();
        let path = cgroup.path().to_owned();
        let mut member = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let agents = cgroup.child("agents/coder").unwrap();
            agents.add(member.id()).unwrap();
            assert_eq!(agents.members().unwrap(), [member.id()]);
            panic!("a failing test");
        }));
        assert!(panicked.is_err());
        drop(cgroup);
        assert!(!path.exists());
        assert!(!member.wait().unwrap().success(), "the member was killed");
    }

    #[test]
    fn clears_what_a_dead_test_process_left() {
        // in a cgroup of its own: below the mount, another test's sweep could take it half made
        let mount = Cgroup::new().unwrap();
        // no process has this id: it is above the largest that Linux gives out (2^22)
        let stale = mount.path().join(format!("{PREFIX}4999999-0"));
        fs::create_dir_all(stale.join("agents/coder")).unwrap();
        let fresh = Cgroup::below(mount.path()).unwrap();
        assert!(!stale.exists());
        assert!(fresh.path().exists());
        assert!(fresh.id().unwrap() > 1);
    }
}
