//! A program at one place in the kernel, behind a pinned link that outlives the daemon.
//!
//! In: the program, and how it is linked. Out: the link, which can be asked for and put back. On failure: the error names
//! the program and its place.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use super::{KernelError, sys};

/// A program and where it goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// The program, and the name of its pin.
    pub(super) program: &'static str,
    /// Where it is put, by the kernel's name.
    pub(super) at: &'static str,
    /// Puts it there.
    pub(super) link: fn(BorrowedFd<'_>) -> io::Result<OwnedFd>,
}

/// The program, attached.
#[derive(Debug)]
pub(super) struct Pinned {
    place: Place,
    program: OwnedFd,
    program_id: u32,
    pin: PathBuf,
}

impl Pinned {
    /// Attaches the program. One of an earlier daemon goes only when this one is in force.
    pub(super) fn attach(place: Place, program: OwnedFd, links: &Path) -> Result<Self, KernelError> {
        let pinned = Self {
            program_id: sys::program_id(program.as_fd()).map_err(|error| place.failed(error))?,
            program,
            pin: links.join(place.program),
            place,
        };
        pinned.repair()?;
        Ok(pinned)
    }

    /// Whether the pin still leads to this program: a link of this kind holds as long as it is there.
    pub(super) fn holds(&self) -> bool {
        sys::get(&self.pin)
            .and_then(|link| sys::link_info(link.as_fd()))
            .is_ok_and(|info| info.program_id == self.program_id)
    }

    /// Puts it back.
    pub(super) fn repair(&self) -> Result<(), KernelError> {
        (self.place.link)(self.program.as_fd())
            .and_then(|link| sys::replace_pin(link.as_fd(), &self.pin))
            .map_err(|error| self.place.failed(error))
    }
}

impl Place {
    fn failed(&self, source: io::Error) -> KernelError {
        KernelError::Attach {
            program: self.program,
            cgroup: PathBuf::from(self.at),
            source,
        }
    }
}
