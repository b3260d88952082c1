//! The second line's links: the egress program on each governed cgroup, and on no other.
//!
//! In: a cgroup id. Out: a pinned link that outlives the daemon. On failure: the cgroup is not governed, and the
//! caller says so.
//!
//! A link of its own for each agent costs the machine's other processes nothing per packet, where one at the
//! anchor would cost them a look-up. It comes before the entry in `AGENTS` and goes after it, so there is no
//! moment in which connects are governed and packets are not.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use super::{
    KernelError, cgroup,
    sys::{self, AttachType},
};

/// The program.
pub(super) const PROGRAM: &str = "fw_egress";
/// A pin is this and the cgroup's id. (bpffs takes no dots.)
const PREFIX: &str = "fw_egress_";

#[derive(Debug)]
pub(super) struct EgressLinks {
    program: OwnedFd,
    program_id: u32,
    /// Held open, so that pins are found from a thread in another mount namespace, too.
    pins: File,
    cgroup_root: PathBuf,
}

impl EgressLinks {
    pub(super) fn new(program: OwnedFd, pins: &Path, cgroup_root: PathBuf) -> Result<Self, KernelError> {
        let program_id =
            sys::program_id(program.as_fd()).map_err(KernelError::path("cannot ask about", PROGRAM))?;
        let pins = File::open(pins).map_err(KernelError::path("cannot open", pins))?;
        Ok(Self {
            program,
            program_id,
            pins,
            cgroup_root,
        })
    }

    /// Attaches to this cgroup, or puts this daemon's program behind the link that is pinned already.
    pub(super) fn attach(&self, cgroup_id: u64) -> Result<(), KernelError> {
        let path = cgroup::path_of(cgroup_id, &self.cgroup_root).map_err(|error| KernelError::Cgroup {
            cgroup_id,
            why: format!("it is not there ({error})"),
        })?;
        self.attach_at(cgroup_id, &path)
            .map_err(|source| KernelError::Attach {
                program: PROGRAM,
                cgroup: path,
                source,
            })
    }

    fn attach_at(&self, cgroup_id: u64, path: &Path) -> io::Result<()> {
        let pin = self.pin(cgroup_id);
        match sys::get(&pin) {
            Ok(link) if sys::link_info(link.as_fd())?.cgroup_id == cgroup_id => {
                return sys::update(link.as_fd(), self.program.as_fd());
            }
            Ok(_detached) => fs::remove_file(&pin)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let cgroup = File::open(path)?;
        if cgroup::id_of_file(&cgroup)? != cgroup_id {
            return Err(io::Error::other("another cgroup has taken its place"));
        }
        let link = sys::link(self.program.as_fd(), cgroup.as_fd(), AttachType::Egress)?;
        sys::pin(link.as_fd(), &pin)
    }

    /// Takes the program away from this cgroup. Nothing there is fine.
    pub(super) fn detach(&self, cgroup_id: u64) -> Result<(), KernelError> {
        remove(&self.pin(cgroup_id)).map_err(KernelError::path("cannot remove", self.pin(cgroup_id)))
    }

    /// Removes what a daemon that died between two steps left behind.
    pub(super) fn sweep(&self, governed: &HashSet<u64>) -> Result<(), KernelError> {
        let at = self.directory();
        for entry in fs::read_dir(&at).map_err(KernelError::path("cannot list", &at))? {
            let name = entry.map_err(KernelError::path("cannot list", &at))?.file_name();
            let id = name
                .to_str()
                .and_then(|name| name.strip_prefix(PREFIX)?.parse().ok());
            if let Some(id) = id
                && !governed.contains(&id)
            {
                self.detach(id)?;
            }
        }
        Ok(())
    }

    /// Whether each of these cgroups still runs this daemon's program. One that is gone has nothing to send.
    pub(super) fn hold(&self, governed: &[(u64, u32)]) -> bool {
        governed.iter().all(|(id, _)| self.holds_or_gone(*id))
    }

    pub(super) fn holds_or_gone(&self, cgroup_id: u64) -> bool {
        self.holds(cgroup_id) || cgroup::path_of(cgroup_id, &self.cgroup_root).is_err()
    }

    fn holds(&self, cgroup_id: u64) -> bool {
        sys::get(&self.pin(cgroup_id))
            .and_then(|link| sys::link_info(link.as_fd()))
            .is_ok_and(|info| info.program_id == self.program_id && info.cgroup_id == cgroup_id)
    }

    fn directory(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.pins.as_raw_fd()))
    }

    fn pin(&self, cgroup_id: u64) -> PathBuf {
        self.directory().join(format!("{PREFIX}{cgroup_id}"))
    }
}

fn remove(pin: &Path) -> io::Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
