//! `getpeername`: a redirected client sees the destination that it asked for.
//!
//! In: the peer as the kernel knows it. Out: the original destination, only if the peer is the listener
//! of this socket's record. Without a record nothing changes.

use aya_ebpf::bindings::bpf_sock_addr;
use guard_common::flow::Flow;

use crate::{
    address::{Target, is_loopback, sk, write_v4, write_v6},
    maps::CLIENT,
    refuse::ALLOW,
    storage,
};

#[inline(always)]
pub(crate) fn v4(ctx: *mut bpf_sock_addr) -> i32 {
    if let Some((address, port)) = original(ctx, Target::v4) {
        write_v4(ctx, &address, port);
    }
    ALLOW
}

#[inline(always)]
pub(crate) fn v6(ctx: *mut bpf_sock_addr) -> i32 {
    if let Some((address, port)) = original(ctx, Target::v6) {
        write_v6(ctx, &address, port);
    }
    ALLOW
}

#[inline(always)]
fn original(ctx: *mut bpf_sock_addr, peer: impl Fn(*mut bpf_sock_addr) -> Target) -> Option<([u32; 4], u16)> {
    let flow: *const Flow = storage::get(&CLIENT, sk(ctx))?;
    let peer = peer(ctx);
    // SAFETY: the verifier knows the pointer as a live storage value.
    let (address, port, listener_port) = unsafe { ((*flow).address, (*flow).port, (*flow).listener_port) };
    (is_loopback(&peer.address) && peer.port == listener_port).then_some((address, port))
}
