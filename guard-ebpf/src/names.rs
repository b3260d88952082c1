//! A cgroup is made: one whose name begins as those of agents' units do is held back at once, before any process can be
//! in it, until the daemon has looked at it.
//!
//! In: the new cgroup, while its hierarchy is locked, so two of these never run at once. Out: its number in `HELD`, where
//! `caller` finds it. On failure (a map is full, the structures are not as they were said to be): it is not held back, and
//! is governed a moment later, when the daemon sees it.

use aya_ebpf::{
    btf_maps::lpm_trie::Key,
    helpers::{bpf_probe_read_kernel, bpf_probe_read_kernel_str_bytes},
    programs::RawTracePointContext,
};
use guard_common::policy::{HOLD_NAMES, Layout, MAX_LEVEL, NAME_LEN};

use crate::maps::{CFG, HELD, HELD_LEVELS, LAYOUT, NAMES};

/// The hierarchy of version 2.
const UNIFIED: i32 = 0;

#[inline(always)]
pub(crate) fn made(ctx: &RawTracePointContext) {
    let Some(config) = CFG.get(0) else { return };
    if config.flags & HOLD_NAMES == 0 {
        return;
    }
    let Some(layout) = LAYOUT.get(0) else { return };
    // Nothing to hold back, or no way to: the daemon follows.
    let _held = hold(ctx.arg(0), layout);
}

#[inline(always)]
fn hold(cgroup: u64, layout: &Layout) -> Option<()> {
    let root: u64 = read(cgroup, layout.root)?;
    if read::<i32>(root, layout.hierarchy)? != UNIFIED {
        return None;
    }
    let node: u64 = read(cgroup, layout.node)?;
    let mut key = Key::new(NAME_LEN as u32 * 8, [0; NAME_LEN]);
    let name: u64 = read(node, layout.name)?;
    // SAFETY: the helper copes with any address, and writes no more than there is room for.
    unsafe { bpf_probe_read_kernel_str_bytes(name as *const u8, &mut key.data) }.ok()?;
    NAMES.get(&key)?;
    let (id, level): (u64, u32) = (read(node, layout.id)?, read(cgroup, layout.level)?);
    if level == 0 || level >= MAX_LEVEL {
        return None;
    }
    HELD.insert(&id, &1, 0).ok()?;
    let levels = HELD_LEVELS.get_ptr_mut(0)?;
    // SAFETY: the verifier knows the pointer as the map's entry; nobody else writes it meanwhile.
    unsafe { *levels |= 1 << level };
    Some(())
}

/// Something of the kernel's own.
#[inline(always)]
fn read<T>(structure: u64, offset: u32) -> Option<T> {
    // SAFETY: the helper copes with any address.
    unsafe { bpf_probe_read_kernel((structure + u64::from(offset)) as *const T) }.ok()
}
