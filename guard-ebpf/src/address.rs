//! Addresses out of and into the address hooks' context.
//!
//! Every context field is read and written volatile and one by one: the compiler would merge two
//! neighbours into one wide access, which the verifier refuses.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::generated::bpf_get_netns_cookie,
};
use guard_common::policy::NetnsEntry;

use crate::maps::NETNS;

/// The device index of loopback, the same in every network namespace.
pub(crate) const LOOPBACK_IFINDEX: u32 = 1;
const MAPPED_PREFIX: u32 = 0xffff_u32.to_be();
pub(crate) const LOOPBACK_V4: [u32; 4] = [0, 0, MAPPED_PREFIX, 0x7f00_0001_u32.to_be()];
pub(crate) const LOOPBACK_V6: [u32; 4] = [0, 0, 0, 1_u32.to_be()];

/// An address hook's subject.
pub(crate) struct Target {
    /// As IPv6 in network order; IPv4 in mapped form.
    pub(crate) address: [u32; 4],
    /// Host order.
    pub(crate) port: u16,
}

/// Reads one context field.
macro_rules! field {
    ($ctx:expr, $($field:tt)+) => {
        // SAFETY: the context pointer comes from the kernel; the verifier checks offset and size.
        unsafe { ::core::ptr::read_volatile(::core::ptr::addr_of!((*$ctx).$($field)+)) }
    };
}
/// Writes one context field.
macro_rules! set_field {
    ($ctx:expr, $value:expr, $($field:tt)+) => {
        // SAFETY: the context pointer comes from the kernel; the verifier checks offset and size.
        unsafe { ::core::ptr::write_volatile(::core::ptr::addr_of_mut!((*$ctx).$($field)+), $value) }
    };
}
pub(crate) use {field, set_field};

/// An IPv4 address (network order) in mapped form.
#[inline(always)]
pub(crate) fn mapped(ip4: u32) -> [u32; 4] {
    [0, 0, MAPPED_PREFIX, ip4]
}

/// `::ffff:a.b.c.d`?
#[inline(always)]
pub(crate) fn is_mapped(address: &[u32; 4]) -> bool {
    address[0] == 0 && address[1] == 0 && address[2] == MAPPED_PREFIX
}

/// 127/8, 0.0.0.0, ::1 or :: - the unspecified address connects to loopback.
#[inline(always)]
pub(crate) fn is_loopback(address: &[u32; 4]) -> bool {
    if is_mapped(address) {
        return address[3] == 0 || u32::from_be(address[3]) >> 24 == 127;
    }
    address[0] == 0 && address[1] == 0 && address[2] == 0 && u32::from_be(address[3]) <= 1
}

/// fe80::/10.
#[inline(always)]
pub(crate) fn is_link_local(address: &[u32; 4]) -> bool {
    u32::from_be(address[0]) >> 22 == 0xfe80 >> 6
}

impl Target {
    #[inline(always)]
    pub(crate) fn v4(ctx: *mut bpf_sock_addr) -> Self {
        Self {
            address: mapped(field!(ctx, user_ip4)),
            port: port(ctx),
        }
    }

    #[inline(always)]
    pub(crate) fn v6(ctx: *mut bpf_sock_addr) -> Self {
        let address = [
            field!(ctx, user_ip6[0]),
            field!(ctx, user_ip6[1]),
            field!(ctx, user_ip6[2]),
            field!(ctx, user_ip6[3]),
        ];
        Self {
            address,
            port: port(ctx),
        }
    }
}

#[inline(always)]
fn port(ctx: *mut bpf_sock_addr) -> u16 {
    u16::from_be(field!(ctx, user_port) as u16)
}

#[inline(always)]
pub(crate) fn write_v4(ctx: *mut bpf_sock_addr, address: &[u32; 4], port: u16) {
    set_field!(ctx, address[3], user_ip4);
    set_field!(ctx, u32::from(port.to_be()), user_port);
}

#[inline(always)]
pub(crate) fn write_v6(ctx: *mut bpf_sock_addr, address: &[u32; 4], port: u16) {
    set_field!(ctx, address[0], user_ip6[0]);
    set_field!(ctx, address[1], user_ip6[1]);
    set_field!(ctx, address[2], user_ip6[2]);
    set_field!(ctx, address[3], user_ip6[3]);
    set_field!(ctx, u32::from(port.to_be()), user_port);
}

/// The socket of an address hook.
#[inline(always)]
pub(crate) fn socket(ctx: *mut bpf_sock_addr) -> *mut bpf_sock {
    field!(ctx, __bindgen_anon_1.sk)
}

/// The socket as the storage helpers want it.
#[inline(always)]
pub(crate) fn sk(ctx: *mut bpf_sock_addr) -> *mut c_void {
    socket(ctx).cast()
}

/// Bound to a device other than loopback: routing would follow the device, not the destination.
#[inline(always)]
pub(crate) fn is_device_bound(ctx: *mut bpf_sock_addr) -> bool {
    let socket = socket(ctx);
    let device = field!(socket, bound_dev_if);
    device != 0 && device != LOOPBACK_IFINDEX
}

/// The namespace of the socket.
#[inline(always)]
pub(crate) fn netns(ctx: *mut bpf_sock_addr) -> u64 {
    // SAFETY: the context pointer comes from the kernel.
    unsafe { bpf_get_netns_cookie(ctx.cast()) }
}

/// The listener of a namespace.
#[inline(always)]
pub(crate) fn listener(netns_cookie: u64) -> Option<NetnsEntry> {
    // SAFETY: the map is not preallocated, so the value stays whole until the program ends.
    unsafe { NETNS.get(netns_cookie) }.copied()
}
