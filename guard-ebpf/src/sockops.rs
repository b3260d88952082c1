//! TCP life cycle: carries the record from the client's socket to the accepted one.
//!
//! In: a redirected client socket that is about to send its SYN. Out: the record in the storage of the
//! socket that `accept` will return, there before `accept` returns. On failure the connection arrives
//! without a record, is counted here and reset by the daemon: this hook cannot veto.
//!
//! Between the two ends the record waits under the connection's own tuple; it is moved, not copied, so that
//! a reused port can never find the record of the connection before.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::bpf_sock_ops,
    helpers::generated::{bpf_get_netns_cookie, bpf_sock_ops_cb_flags_set},
};
use guard_common::{
    flow::{Flow, FlowKey},
    policy::Stat,
};

use crate::{
    address::{field, is_loopback, is_mapped, mapped},
    maps::{ACCEPTED, CLIENT, FLOWS},
    refuse::count,
    storage,
};

const TCP_CONNECT: u32 = 3;
const PASSIVE_ESTABLISHED: u32 = 5;
const STATE: u32 = 10;
const STATE_FLAG: i32 = 4;
const CLOSED: u32 = 7;
const AF_INET: u32 = 2;

#[inline(always)]
pub(crate) fn sockops(ctx: *mut bpf_sock_ops) {
    match field!(ctx, op) {
        TCP_CONNECT => publish(ctx),
        PASSIVE_ESTABLISHED => adopt(ctx),
        STATE if field!(ctx, __bindgen_anon_1.args[1]) == CLOSED => withdraw(ctx),
        _ => {}
    }
}

/// Client, source port bound, SYN not yet sent.
#[inline(always)]
fn publish(ctx: *mut bpf_sock_ops) {
    let Some(flow) = client_record(ctx) else { return };
    let key = key(ctx, Side::Client);
    // SAFETY: the verifier knows the pointer as a live storage value.
    let (flow, listener_port) = unsafe { (&*flow, (*flow).listener_port) };
    // A record of an earlier connection of this socket says nothing about this one.
    if key.server_port != u32::from(listener_port) || !is_loopback(&key.server) {
        return;
    }
    if FLOWS.insert(key, flow, 0).is_err() {
        count(Stat::PublishFailed);
        return;
    }
    let flags = field!(ctx, bpf_sock_ops_cb_flags) as i32;
    // SAFETY: the context pointer comes from the kernel.
    unsafe { bpf_sock_ops_cb_flags_set(ctx, flags | STATE_FLAG) };
}

/// Server, the child socket still locked: nobody can accept it before this is done.
#[inline(always)]
fn adopt(ctx: *mut bpf_sock_ops) {
    let key = key(ctx, Side::Server);
    // SAFETY: the map is not preallocated, so the value stays whole until the program ends.
    let Some(flow) = (unsafe { FLOWS.get(key) }) else {
        return;
    };
    let mut flow = *flow;
    let moved = match socket(ctx) {
        Some(sk) => storage::put(&ACCEPTED, sk, &mut flow),
        None => false,
    };
    count(if moved { Stat::Moved } else { Stat::MoveFailed });
    // Gone already is as good as removed.
    let _gone = FLOWS.remove(key);
}

/// Client closed: a handshake that never completed leaves its record behind.
#[inline(always)]
fn withdraw(ctx: *mut bpf_sock_ops) {
    let Some(own) = client_record(ctx) else { return };
    let key = key(ctx, Side::Client);
    // SAFETY: the map is not preallocated, so the value stays whole until the program ends.
    let Some(waiting) = (unsafe { FLOWS.get(key) }) else {
        return;
    };
    // SAFETY: the verifier knows the pointer as a live storage value.
    if waiting.cookie == unsafe { (*own).cookie } {
        // Gone already is as good as removed.
        let _gone = FLOWS.remove(key);
    }
}

#[inline(always)]
fn client_record(ctx: *mut bpf_sock_ops) -> Option<*const Flow> {
    storage::get(&CLIENT, socket(ctx)?)
}

#[inline(always)]
fn socket(ctx: *mut bpf_sock_ops) -> Option<*mut c_void> {
    let sk = field!(ctx, __bindgen_anon_2.sk);
    (!sk.is_null()).then_some(sk.cast())
}

enum Side {
    Client,
    Server,
}

/// The connection's tuple as both ends see it.
#[inline(always)]
fn key(ctx: *mut bpf_sock_ops, side: Side) -> FlowKey {
    let (local, remote) = addresses(ctx);
    let local_port = field!(ctx, local_port);
    // The kernel keeps the remote port in network order and shifted to the upper half.
    let remote_port = u32::from_be(field!(ctx, remote_port)) & 0xffff;
    // SAFETY: the context pointer comes from the kernel.
    let netns_cookie = unsafe { bpf_get_netns_cookie(ctx.cast()) };
    let (client, client_port, server, server_port) = match side {
        Side::Client => (local, local_port, remote, remote_port),
        Side::Server => (remote, remote_port, local, local_port),
    };
    FlowKey {
        netns_cookie,
        client,
        server,
        client_port,
        server_port,
    }
}

/// Local and remote address. A mapped IPv6 client meets a plain IPv4 listener, so both are mapped; its
/// IPv6 source is not yet filled in when the SYN leaves, the IPv4 one is.
#[inline(always)]
fn addresses(ctx: *mut bpf_sock_ops) -> ([u32; 4], [u32; 4]) {
    if field!(ctx, family) != AF_INET {
        let remote = [
            field!(ctx, remote_ip6[0]),
            field!(ctx, remote_ip6[1]),
            field!(ctx, remote_ip6[2]),
            field!(ctx, remote_ip6[3]),
        ];
        if !is_mapped(&remote) {
            let local = [
                field!(ctx, local_ip6[0]),
                field!(ctx, local_ip6[1]),
                field!(ctx, local_ip6[2]),
                field!(ctx, local_ip6[3]),
            ];
            return (local, remote);
        }
    }
    (mapped(field!(ctx, local_ip4)), mapped(field!(ctx, remote_ip4)))
}
