//! The program at the host's end of every veth pair: frames of governed processes' packet sockets do not come further.
//!
//! In: the network namespace of the calling thread. Out: a pinned link on each of its veth devices, which outlives the
//! daemon. On failure (a kernel without such links, before 6.6): packet sockets in containers are refused only by the
//! program in front of `socket()`, and the daemon says so if that is not there either.
//!
//! It is on every such device, and not on those of governed containers alone, because a device is there before its
//! container is known to be anybody's. Frames without a socket, and those of IP sockets, cost one comparison.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::{KernelError, devices, sys};

/// The program.
pub(super) const PROGRAM: &str = "fw_edge";
/// A pin is this and the device's number. (bpffs takes no dots.)
const PREFIX: &str = "fw_edge_";

#[derive(Debug)]
pub(super) struct EdgeLinks {
    program: OwnedFd,
    program_id: u32,
    /// Held open, so that pins are found from a thread in another mount namespace, too.
    pins: File,
    /// The devices that have it; none while nobody asked for it.
    guarded: Mutex<Option<HashSet<u32>>>,
}

impl EdgeLinks {
    pub(super) fn new(program: OwnedFd, pins: &Path) -> Result<Self, KernelError> {
        let program_id =
            sys::program_id(program.as_fd()).map_err(KernelError::path("cannot ask about", PROGRAM))?;
        let pins = File::open(pins).map_err(KernelError::path("cannot open", pins))?;
        Ok(Self {
            program,
            program_id,
            pins,
            guarded: Mutex::new(None),
        })
    }

    /// Attaches to every veth device of this namespace that does not have it, and forgets those that are gone.
    pub(super) fn sync(&self) -> io::Result<usize> {
        let mut guarded = self.guarded.lock().unwrap_or_else(PoisonError::into_inner);
        let devices = devices::pairs()?;
        let (mut attached, mut failed) = (HashSet::new(), None);
        for device in devices {
            match self.attach(device) {
                Ok(()) => {
                    attached.insert(device);
                }
                // It went in the meantime.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                // One that cannot be guarded keeps none of the others from it; what its pin holds goes on.
                Err(error) => {
                    attached.insert(device);
                    failed = Some(error);
                }
            }
        }
        self.sweep(&attached)?;
        let count = attached.len();
        *guarded = Some(attached);
        failed.map_or(Ok(count), Err)
    }

    fn attach(&self, device: u32) -> io::Result<()> {
        let pin = self.pin(device);
        let pinned = match sys::get(&pin) {
            Ok(link) => Some(link),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(link) = pinned {
            let info = sys::link_info(link.as_fd())?;
            if sys::tcx::device_of(&info) == device {
                return if info.program_id == self.program_id {
                    Ok(())
                } else {
                    sys::update(link.as_fd(), self.program.as_fd())
                };
            }
            // Of an earlier device of this number.
            fs::remove_file(&pin)?;
        }
        let link = sys::tcx::link(self.program.as_fd(), device)?;
        sys::pin(link.as_fd(), &pin)
    }

    /// Removes the pins of devices that are gone.
    fn sweep(&self, there: &HashSet<u32>) -> io::Result<()> {
        for entry in fs::read_dir(self.directory())? {
            let name = entry?.file_name();
            let device = name
                .to_str()
                .and_then(|name| name.strip_prefix(PREFIX)?.parse().ok());
            if let Some(device) = device
                && !there.contains(&device)
            {
                fs::remove_file(self.pin(device))?;
            }
        }
        Ok(())
    }

    /// Whether each device that had the program has it still, or is gone; none while nobody asked for it.
    pub(super) fn hold(&self) -> Option<bool> {
        let guarded = self.guarded.lock().unwrap_or_else(PoisonError::into_inner);
        let devices = guarded.as_ref()?;
        Some(devices.iter().all(|device| self.holds(*device)))
    }

    fn holds(&self, device: u32) -> bool {
        let info = sys::get(&self.pin(device)).and_then(|link| sys::link_info(link.as_fd()));
        info.is_ok_and(|info| {
            info.program_id == self.program_id && [device, 0].contains(&sys::tcx::device_of(&info))
        })
    }

    fn directory(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.pins.as_raw_fd()))
    }

    fn pin(&self, device: u32) -> PathBuf {
        self.directory().join(format!("{PREFIX}{device}"))
    }
}
