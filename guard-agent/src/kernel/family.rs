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
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
};

use aya::{
    Btf, Ebpf,
    maps::{Map, MapData},
};
use aya_obj::{Object, btf::BtfKind};

use super::{KernelError, load, pinned::Place, sys};

/// The program.
pub(super) const PROGRAM: &str = "fw_family";
const FUNCTION: &str = "security_socket_create";

/// Where it goes.
pub(super) const PLACE: Place = Place {
    program: PROGRAM,
    at: FUNCTION,
    link: sys::link_function,
};

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
