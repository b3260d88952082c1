//! A mount namespace of a test's own: its `/etc/hosts`, its `/etc/resolv.conf`, an empty bpffs. Held by a
//! descriptor, like a network namespace; the machine's own mounts never change, and pins go with the namespace.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::panic;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

/// Where the namespace has a bpffs of its own.
pub const BPFFS: &str = "/sys/fs/bpf";

/// A mount namespace.
#[derive(Debug)]
pub struct Mounts {
    file: File,
}

impl Mounts {
    /// Makes a namespace that sees the machine's files, except that each `(shown, file)` shows `file` at the place
    /// `shown` (which must exist), and that [`BPFFS`] is an empty bpffs that lives as long as the namespace.
    ///
    /// # Errors
    /// Not root, or a place that does not exist.
    pub fn new(replaced: &[(&Path, &Path)]) -> Result<Self> {
        let replaced: Vec<(PathBuf, PathBuf)> = replaced
            .iter()
            .map(|(shown, file)| {
                // resolv.conf is often a link: what it leads to is what programs read
                let shown = fs::canonicalize(shown).with_context(|| shown.display().to_string())?;
                Ok((shown, file.to_path_buf()))
            })
            .collect::<Result<_>>()?;
        let file = on_a_thread(move || {
            unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace (are we root?)")?;
            let nothing = None::<&str>;
            mount(
                nothing,
                "/",
                nothing,
                MsFlags::MS_REC | MsFlags::MS_PRIVATE,
                nothing,
            )
            .context("making mounts private")?;
            for (shown, file) in &replaced {
                mount(Some(file), shown, nothing, MsFlags::MS_BIND, nothing)
                    .with_context(|| format!("showing {} at {}", file.display(), shown.display()))?;
            }
            mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), nothing).context("mounting bpffs")?;
            Ok(File::open("/proc/thread-self/ns/mnt")?)
        })?;
        Ok(Self { file })
    }

    /// Its descriptor, for `setns`.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Runs `work` on a thread inside it: pins are read, files are opened as its processes see them.
    ///
    /// # Errors
    /// The namespace cannot be entered, or what `work` gives.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_a_thread(|| {
            // a thread that shares its working directory with others may not change its mounts
            unshare(CloneFlags::CLONE_FS)?;
            setns(&self.file, CloneFlags::CLONE_NEWNS).context("entering the mount namespace")?;
            work()
        })
    }
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        scope
            .spawn(work)
            .join()
            .unwrap_or_else(|panicked| panic::resume_unwind(panicked))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_its_own_hosts_file_and_bpffs_and_leaves_the_machines() {
        let directory = tempfile::tempdir().unwrap();
        let hosts = directory.path().join("hosts");
        fs::write(&hosts, "203.0.113.10 api.openai.com\n").unwrap();
        let before = (
            fs::read("/etc/hosts").unwrap(),
            fs::read("/proc/self/mounts").unwrap(),
        );
        let mounts = Mounts::new(&[(Path::new("/etc/hosts"), &hosts)]).unwrap();
        let seen = mounts
            .run(|| {
                fs::create_dir(Path::new(BPFFS).join("pins"))?;
                Ok(fs::read_to_string("/etc/hosts")?)
            })
            .unwrap();
        assert_eq!(seen, "203.0.113.10 api.openai.com\n");
        assert!(
            mounts.run(|| Ok(Path::new(BPFFS).join("pins").exists())).unwrap(),
            "pins outlive a process"
        );
        let after = (
            fs::read("/etc/hosts").unwrap(),
            fs::read("/proc/self/mounts").unwrap(),
        );
        assert_eq!(before, after);
        assert!(!Path::new(BPFFS).join("pins").exists());
    }
}
