//! The program in front of the kernel's own check of `socket()`, for families that no cgroup hook sees.
//!
//! In: the object, and the maps that the other programs use. Out: the program behind a pinned link, which outlives the
//! daemon. On failure (a kernel without type information or trampolines): those families are not refused; the daemon
//! says so and goes on, because everything else holds without it.
//!
//! It runs for every `socket()` of the machine, wherever Guard is attached, and looks at the caller only for families
//! other than the usual ones. The library cannot load this kind of program, so that is done here.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
};

use aya::{
    Btf, Ebpf,
    maps::{Map, MapData},
};
use aya_obj::{Object, btf::BtfKind};

use super::{KernelError, load, sys};

/// The program.
pub(super) const PROGRAM: &str = "fw_family";
const FUNCTION: &str = "security_socket_create";

/// The program, attached.
#[derive(Debug)]
pub(super) struct Family {
    program: OwnedFd,
    program_id: u32,
    pin: PathBuf,
}

/// Loads the program over the maps of an object that is loaded already.
pub(super) fn load(object: &[u8], loaded: &Ebpf) -> Result<OwnedFd, KernelError> {
    let refused = |why: String| load::refused(PROGRAM, &why);
    let kernel = Btf::from_sys_fs().map_err(|error| refused(error.to_string()))?;
    let function = kernel
        .id_by_type_name_kind(FUNCTION, BtfKind::Func)
        .map_err(|error| refused(error.to_string()))?;
    let mut object = Object::parse(object).map_err(|error| refused(error.to_string()))?;
    let descriptors: HashMap<&str, RawFd> = loaded.maps().filter_map(descriptor).collect();
    let maps = std::mem::take(&mut object.maps);
    let sections = object.functions.keys().map(|(section, _)| *section).collect();
    let known = maps
        .iter()
        .filter_map(|(name, map)| Some((name.as_str(), *descriptors.get(name.as_str())?, map)));
    object
        .relocate_maps(known, &sections)
        .and_then(|()| object.relocate_calls(&sections))
        .map_err(|error| refused(error.to_string()))?;
    let program = object
        .programs
        .get(PROGRAM)
        .ok_or(KernelError::Missing(PROGRAM))?;
    let code = object
        .functions
        .get(&program.function_key())
        .ok_or(KernelError::Missing(PROGRAM))?;
    sys::load_modify_return(&code.instructions, &object.license, function)
        .map_err(|(error, log)| refused(format!("{log}\n{error}")))
}

fn descriptor<'a>((name, map): (&'a str, &Map)) -> Option<(&'a str, RawFd)> {
    let data: &MapData = match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data)
        | Map::SkStorage(data)
        | Map::Unsupported(data) => data,
        _ => return None,
    };
    Some((name, data.fd().as_fd().as_raw_fd()))
}

/// Puts the program in front of its function and takes it away again: only that shows that this kernel can.
pub(super) fn try_out(program: &OwnedFd) -> Result<(), KernelError> {
    sys::link_function(program.as_fd())
        .map(drop)
        .map_err(|error| load::refused(PROGRAM, &error.to_string()))
}

impl Family {
    /// Attaches the program. One of an earlier daemon goes only when this one is in force.
    pub(super) fn attach(program: OwnedFd, links: &Path) -> Result<Self, KernelError> {
        let failed = |source| KernelError::Attach {
            program: PROGRAM,
            cgroup: PathBuf::from(FUNCTION),
            source,
        };
        let family = Self {
            program_id: sys::program_id(program.as_fd()).map_err(failed)?,
            program,
            pin: links.join(PROGRAM),
        };
        family.put().map_err(failed)?;
        Ok(family)
    }

    fn put(&self) -> io::Result<()> {
        let link = sys::link_function(self.program.as_fd())?;
        sys::replace_pin(link.as_fd(), &self.pin)
    }

    /// Whether the pin still leads to this program: a link of this kind holds as long as it is there.
    pub(super) fn holds(&self) -> bool {
        sys::get(&self.pin)
            .and_then(|link| sys::link_info(link.as_fd()))
            .is_ok_and(|info| info.program_id == self.program_id)
    }

    /// Puts it back.
    pub(super) fn repair(&self) -> Result<(), KernelError> {
        self.put().map_err(|source| KernelError::Attach {
            program: PROGRAM,
            cgroup: PathBuf::from(FUNCTION),
            source,
        })
    }
}
