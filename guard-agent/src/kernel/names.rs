//! New cgroups that are held back for their names, from the moment in which they are made: a unit that is an agent's by its
//! own name may start in any slice, and its first call must not come before the daemon has seen it.
//!
//! In: how the names of agents' units begin. Out: a program behind a pinned link, which outlives the daemon, and the list
//! of what it held back. On failure (a kernel without type information, or one that keeps its memory from programs): such
//! units are governed a moment after they start, and the daemon says so.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::maps::{Array, HashMap, LpmTrie, MapData, MapError, lpm_trie::Key};
use guard_common::policy::{Layout, NAME_LEN};

use super::{
    KernelError,
    pinned::{Pinned, Place},
    sys,
    types::Types,
};

/// The program.
pub(super) const PROGRAM: &str = "fw_names";
const TRACEPOINT: &str = "cgroup_mkdir";
const TYPES: &str = "/sys/kernel/btf/vmlinux";

/// What the program is told, and what it tells.
pub(super) struct NameMaps {
    pub(super) names: LpmTrie<MapData, [u8; NAME_LEN], u32>,
    pub(super) held: HashMap<MapData, u64, u32>,
    pub(super) layout: Array<MapData, Layout>,
}

/// The program, attached.
pub(super) struct Names {
    pub(super) pinned: Pinned,
    maps: Mutex<NameMaps>,
}

impl Names {
    /// Tells the program how the kernel keeps cgroups, and attaches it.
    pub(super) fn attach(program: OwnedFd, mut maps: NameMaps, links: &Path) -> Result<Self, KernelError> {
        let layout = layout().map_err(KernelError::path("cannot read the kernel's types in", TYPES))?;
        maps.layout.set(0, layout, 0).map_err(changing("LAYOUT"))?;
        let place = Place {
            program: PROGRAM,
            at: TRACEPOINT,
            link: |program| sys::link_tracepoint(program, TRACEPOINT),
        };
        Ok(Self {
            pinned: Pinned::attach(place, program, links)?,
            maps: Mutex::new(maps),
        })
    }

    fn lock(&self) -> MutexGuard<'_, NameMaps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names that begin so are held back from now on; replaces the earlier list.
    pub(super) fn replace(&self, beginnings: &[String]) -> Result<(), KernelError> {
        let wanted: Vec<Key<[u8; NAME_LEN]>> = beginnings.iter().flat_map(|name| keys(name)).collect();
        let mut maps = self.lock();
        // New ones first: none of the wanted ones is missing in between.
        for key in &wanted {
            maps.names.insert(key, 1, 0).map_err(changing("NAMES"))?;
        }
        let same = |one: &Key<[u8; NAME_LEN]>, other: &Key<[u8; NAME_LEN]>| {
            one.prefix_len() == other.prefix_len() && one.data() == other.data()
        };
        let old: Vec<_> = maps
            .names
            .keys()
            .flatten()
            .filter(|old| !wanted.iter().any(|key| same(key, old)))
            .collect();
        old.iter()
            .try_for_each(|key| maps.names.remove(key))
            .map_err(changing("NAMES"))
    }

    /// What was held back and not looked at yet.
    pub(super) fn held(&self) -> Vec<u64> {
        self.lock().held.keys().flatten().collect()
    }

    /// This one was looked at: it is governed, or nobody's.
    pub(super) fn settle(&self, cgroup_id: u64) -> Result<(), KernelError> {
        match self.lock().held.remove(&cgroup_id) {
            Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(changing("HELD")),
        }
    }
}

/// The kernel escapes a name that could be one of its own files by an underscore.
fn keys(beginning: &str) -> [Key<[u8; NAME_LEN]>; 2] {
    [beginning.to_owned(), format!("_{beginning}")].map(|name| {
        let mut data = [0; NAME_LEN];
        // The program ends what it reads with a zero, so the last byte is never a name's.
        let length = name.len().min(NAME_LEN - 1);
        data.iter_mut()
            .zip(name.bytes().take(length))
            .for_each(|(to, from)| *to = from);
        let bits = u32::try_from(length * 8).unwrap_or_default();
        Key::new(bits, data)
    })
}

fn layout() -> io::Result<Layout> {
    let types = Types::parse(fs::read(TYPES)?)?;
    Ok(Layout {
        root: types.offset("cgroup", "root")?,
        level: types.offset("cgroup", "level")?,
        node: types.offset("cgroup", "kn")?,
        hierarchy: types.offset("cgroup_root", "hierarchy_id")?,
        id: types.offset("kernfs_node", "id")?,
        name: types.offset("kernfs_node", "name")?,
    })
}

fn changing(map: &'static str) -> impl FnOnce(MapError) -> KernelError {
    move |error| KernelError::Map {
        map,
        why: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::keys;

    #[test]
    fn a_beginning_is_compared_by_its_bytes_and_no_more_than_there_is_room_for() {
        let [plain, escaped] = keys("coder@");
        assert_eq!((plain.prefix_len(), escaped.prefix_len()), (48, 56));
        assert!(plain.data().starts_with(b"coder@\0") && escaped.data().starts_with(b"_coder@\0"));
        let [long, _] = keys(&"x".repeat(100));
        assert_eq!((long.prefix_len(), long.data()[63]), (504, 0));
    }
}
