//! `recvmsg` on a UDP socket: an answer comes from the resolver that was asked.
//!
//! In: the datagram's source. Out: the resolver, only if the source is Guard's socket and this socket asked one; the
//! last one, if it asked several. Without a record nothing changes, and nothing is ever refused here.

use aya_ebpf::bindings::bpf_sock_addr;

use crate::peername;

#[inline(always)]
pub(crate) fn v4(ctx: *mut bpf_sock_addr) -> i32 {
    peername::v4(ctx)
}

#[inline(always)]
pub(crate) fn v6(ctx: *mut bpf_sock_addr) -> i32 {
    peername::v6(ctx)
}
