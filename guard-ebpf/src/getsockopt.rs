//! The private `getsockopt` through which the daemon reads by descriptor who sent it something: the record of an
//! accepted socket, or that of a DNS query that one of its UDP sockets received.
//!
//! In: a socket of the daemon's cgroup, or of one beside it in Guard's own slice. Out: the whole record. On failure: ENOENT if the connection has no
//! record, EINVAL if the buffer is too small; every other option is left alone. It needs no capability,
//! so that the part of the daemon that parses hostile bytes can hold none.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{
    bindings::bpf_sockopt,
    helpers::generated::{bpf_get_netns_cookie, bpf_set_retval},
};
use guard_common::{
    dns::{QueryKey, SOCKOPT_QUERY_LEVEL},
    flow::{SOCKOPT_FLOW, SOCKOPT_LEVEL},
};

use crate::{
    address::{field, set_field},
    maps::{ACCEPTED, QUERIES},
    storage,
};

const ALLOW: i32 = 1;
const ENOENT: i32 = 2;
const EINVAL: i32 = 22;
/// The kernel hands at most a page of the caller's buffer to this hook.
const PAGE: i32 = 4096;

#[inline(always)]
pub(crate) fn getsockopt(ctx: *mut bpf_sockopt) -> i32 {
    if field!(ctx, level) == SOCKOPT_QUERY_LEVEL {
        return query(ctx);
    }
    if field!(ctx, level) != SOCKOPT_LEVEL || field!(ctx, optname) != SOCKOPT_FLOW {
        if field!(ctx, optlen) > PAGE {
            // Says "not ours": without it older kernels answer EFAULT to a buffer above one page.
            set_field!(ctx, 0, optlen);
        }
        return ALLOW;
    }
    let sk = field!(ctx, __bindgen_anon_1.sk);
    let Some(flow) = storage::get(&ACCEPTED, sk.cast()) else {
        return fail(ENOENT);
    };
    answer(ctx, flow)
}

/// The sender of a query that a UDP socket of the daemon's received, by the marks in the option's name.
#[inline(always)]
fn query(ctx: *mut bpf_sockopt) -> i32 {
    let name = field!(ctx, optname) as u32;
    let key = QueryKey {
        // SAFETY: the context pointer comes from the kernel.
        netns_cookie: unsafe { bpf_get_netns_cookie(ctx.cast()) },
        client_port: (name >> 16) as u16,
        id: name as u16,
        reserved: 0,
    };
    let Some(query) = QUERIES.get_ptr(&key) else {
        return fail(ENOENT);
    };
    let sk = field!(ctx, __bindgen_anon_1.sk);
    if sk.is_null() {
        return fail(ENOENT);
    }
    // Only the socket that the query was sent to: governed runs may live in the same cgroup.
    // SAFETY: the verifier knows the pointer as a live map value.
    if field!(sk, src_port) != u32::from(unsafe { (*query).flow.listener_port }) {
        return fail(ENOENT);
    }
    answer(ctx, query)
}

#[inline(always)]
fn answer<T>(ctx: *mut bpf_sockopt, record: *const T) -> i32 {
    let start = field!(ctx, __bindgen_anon_2.optval) as usize;
    let end = field!(ctx, __bindgen_anon_3.optval_end) as usize;
    if start + size_of::<T>() > end {
        return fail(EINVAL);
    }
    copy(record, start as *mut u64);
    set_field!(ctx, size_of::<T>() as i32, optlen);
    set_field!(ctx, 0, retval);
    ALLOW
}

/// Word by word: the compiler's own copy becomes a loop that costs the verifier far more.
#[inline(always)]
fn copy<T>(record: *const T, to: *mut u64) {
    // SAFETY: a record is a whole number of aligned words; the caller checked the room.
    unsafe {
        let from: *const u64 = record.cast();
        let mut word = 0;
        while word < size_of::<T>() / 8 {
            write_volatile(to.add(word), read_volatile(from.add(word)));
            word += 1;
        }
    }
}

#[inline(always)]
fn fail(errno: i32) -> i32 {
    // SAFETY: a helper without pointers.
    unsafe { bpf_set_retval(-errno) };
    ALLOW
}
