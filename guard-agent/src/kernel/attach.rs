//! Attaches each program by a pinned link, or puts it behind the link that is pinned already.
//!
//! In: loaded programs, the anchor cgroup, the daemon's cgroup. Out: links that outlive the daemon. On
//! failure: what was attached stays attached.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use super::{
    KernelError, KernelSettings, cgroup,
    load::Pins,
    sys::{self, AttachType},
};

/// Every program and its hook. Those that carry identity come before those that redirect: a connection
/// that meets half of a first start must find its record.
pub(super) const PROGRAMS: [(&str, AttachType); 14] = [
    ("fw_getsockopt", AttachType::Getsockopt),
    ("fw_sockops", AttachType::SockOps),
    ("fw_create", AttachType::SockCreate),
    ("fw_setsockopt", AttachType::Setsockopt),
    ("fw_bind4", AttachType::Bind4),
    ("fw_bind6", AttachType::Bind6),
    ("fw_peer4", AttachType::Peer4),
    ("fw_peer6", AttachType::Peer6),
    ("fw_recvmsg4", AttachType::Recvmsg4),
    ("fw_recvmsg6", AttachType::Recvmsg6),
    ("fw_sendmsg4", AttachType::Sendmsg4),
    ("fw_sendmsg6", AttachType::Sendmsg6),
    ("fw_connect4", AttachType::Connect4),
    ("fw_connect6", AttachType::Connect6),
];

/// The pin of `fw_sockops` at the daemon's own cgroup.
const LISTENER_SIDE: &str = "fw_sockops_listener";

/// One attached program.
#[derive(Debug)]
struct Attachment {
    program: &'static str,
    hook: AttachType,
    program_id: u32,
    /// The program itself, to be put back where somebody took it away.
    fd: OwnedFd,
    pin: PathBuf,
    cgroup: File,
    path: PathBuf,
}

/// All attached programs.
#[derive(Debug)]
pub(super) struct Links(Vec<Attachment>);

/// Which programs are in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Each program, and whether the kernel still runs it where it was attached.
    pub programs: Vec<(&'static str, bool)>,
}

impl Attached {
    /// Whether none is missing.
    #[must_use]
    pub fn all(&self) -> bool {
        self.programs.iter().all(|(_, attached)| *attached)
    }

    /// The names of the missing ones.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        self.programs
            .iter()
            .filter(|(_, attached)| !attached)
            .map(|(name, _)| *name)
            .collect()
    }
}

impl Links {
    pub(super) fn check(&self) -> Attached {
        Attached {
            programs: self.0.iter().map(|link| (link.program, link.holds())).collect(),
        }
    }
}

impl Links {
    /// Attaches and pins what does not hold.
    pub(super) fn repair(&self) -> Vec<(&'static str, Result<(), KernelError>)> {
        let missing = self.0.iter().filter(|link| !link.holds());
        missing.map(|link| (link.program, link.repair())).collect()
    }
}

impl Attachment {
    fn repair(&self) -> Result<(), KernelError> {
        // The same program, so that its id, and with it what is asked for later, stays.
        attach_one(&self.fd, self.hook, &self.cgroup, &self.pin)
            .map(drop)
            .map_err(|source| KernelError::Attach {
                program: self.program,
                cgroup: self.path.clone(),
                source,
            })
    }

    /// The pin still leads to our program, and the cgroup still runs it.
    fn holds(&self) -> bool {
        let pinned = sys::get(&self.pin).and_then(|link| sys::link_info(link.as_fd()));
        pinned.is_ok_and(|info| info.program_id == self.program_id && info.cgroup_id != 0)
            && sys::query(self.cgroup.as_fd(), self.hook).is_ok_and(|ids| ids.contains(&self.program_id))
    }
}

/// Attaches or adopts all programs.
pub(super) fn attach(
    programs: &[(&'static str, OwnedFd)],
    pins: &Pins,
    settings: &KernelSettings,
) -> Result<Links, KernelError> {
    let anchor = Place::open(&settings.cgroup_root)?;
    let daemon = Place::open(&settings.daemon_cgroup)?;
    let mut links = Vec::new();
    for ((name, hook), (_, program)) in PROGRAMS.iter().zip(programs) {
        let place = match hook {
            AttachType::Getsockopt => &daemon,
            _ => &anchor,
        };
        links.push(place.attach(name, *hook, program, pins.links().join(name))?);
        // A record is moved by the listener's cgroup, which an anchor below the root may not cover.
        if *hook == AttachType::SockOps && !settings.daemon_cgroup.starts_with(&settings.cgroup_root) {
            links.push(daemon.attach(name, *hook, program, pins.links().join(LISTENER_SIDE))?);
        }
    }
    Ok(Links(links))
}

/// A cgroup to attach to.
struct Place<'a> {
    path: &'a Path,
    cgroup: File,
}

impl<'a> Place<'a> {
    fn open(path: &'a Path) -> Result<Self, KernelError> {
        let cgroup = File::open(path).map_err(KernelError::path("cannot open the cgroup", path))?;
        if !cgroup::is_cgroup2(path) {
            return Err(KernelError::NotCgroup2 {
                path: path.to_owned(),
            });
        }
        Ok(Self { path, cgroup })
    }

    fn attach(
        &self,
        name: &'static str,
        hook: AttachType,
        program: &OwnedFd,
        pin: PathBuf,
    ) -> Result<Attachment, KernelError> {
        attach_one(program, hook, &self.cgroup, &pin)
            .and_then(|program_id| {
                Ok(Attachment {
                    program: name,
                    hook,
                    program_id,
                    fd: program.try_clone()?,
                    pin,
                    cgroup: self.cgroup.try_clone()?,
                    path: self.path.to_owned(),
                })
            })
            .map_err(|source| KernelError::Attach {
                program: name,
                cgroup: self.path.to_owned(),
                source,
            })
    }
}

/// Gives the id of the program that is attached now.
fn attach_one(program: &OwnedFd, hook: AttachType, cgroup: &File, pin: &Path) -> io::Result<u32> {
    let wanted = cgroup::id_of_file(cgroup)?;
    let link = match sys::get(pin) {
        Ok(link) if sys::link_info(link.as_fd())?.cgroup_id == wanted => {
            sys::update(link.as_fd(), program.as_fd())?;
            link
        }
        // Pinned, but elsewhere: the cgroup was made anew.
        Ok(_old) => {
            let link = sys::link(program.as_fd(), cgroup.as_fd(), hook)?;
            sys::replace_pin(link.as_fd(), pin)?;
            link
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let link = sys::link(program.as_fd(), cgroup.as_fd(), hook)?;
            sys::pin(link.as_fd(), pin)?;
            link
        }
        Err(error) => return Err(error),
    };
    Ok(sys::link_info(link.as_fd())?.program_id)
}
