//! One function per attach point, and nothing else: the verdict is made in the hook's own file.

use core::ffi::c_void;

use aya_ebpf::{
    macros::{
        cgroup_skb, cgroup_sock, cgroup_sock_addr, cgroup_sockopt, classifier, raw_tracepoint, sock_ops,
    },
    programs::{
        FEntryContext, RawTracePointContext, SkBuffContext, SockAddrContext, SockContext, SockOpsContext,
        SockoptContext, TcContext,
    },
};

use crate::{
    bind, connect, create, edge, egress, family, getsockopt, names, peername, recvmsg, sendmsg, setsockopt,
    sockops,
};

#[cgroup_sock_addr(connect4)]
fn fw_connect4(ctx: SockAddrContext) -> i32 {
    connect::v4(ctx.sock_addr)
}

#[cgroup_sock_addr(connect6)]
fn fw_connect6(ctx: SockAddrContext) -> i32 {
    connect::v6(ctx.sock_addr)
}

#[cgroup_sock_addr(sendmsg4)]
fn fw_sendmsg4(ctx: SockAddrContext) -> i32 {
    sendmsg::v4(ctx.sock_addr)
}

#[cgroup_sock_addr(sendmsg6)]
fn fw_sendmsg6(ctx: SockAddrContext) -> i32 {
    sendmsg::v6(ctx.sock_addr)
}

#[cgroup_sock_addr(recvmsg4)]
fn fw_recvmsg4(ctx: SockAddrContext) -> i32 {
    recvmsg::v4(ctx.sock_addr)
}

#[cgroup_sock_addr(recvmsg6)]
fn fw_recvmsg6(ctx: SockAddrContext) -> i32 {
    recvmsg::v6(ctx.sock_addr)
}

#[cgroup_sock_addr(getpeername4)]
fn fw_peer4(ctx: SockAddrContext) -> i32 {
    peername::v4(ctx.sock_addr)
}

#[cgroup_sock_addr(getpeername6)]
fn fw_peer6(ctx: SockAddrContext) -> i32 {
    peername::v6(ctx.sock_addr)
}

#[cgroup_sock_addr(bind4)]
fn fw_bind4(ctx: SockAddrContext) -> i32 {
    bind::v4(ctx.sock_addr)
}

#[cgroup_sock_addr(bind6)]
fn fw_bind6(ctx: SockAddrContext) -> i32 {
    bind::v6(ctx.sock_addr)
}

#[cgroup_sock(sock_create)]
fn fw_create(ctx: SockContext) -> i32 {
    create::create(ctx.sock)
}

#[sock_ops]
fn fw_sockops(ctx: SockOpsContext) -> u32 {
    sockops::sockops(ctx.ops);
    1
}

#[cgroup_sockopt(getsockopt)]
fn fw_getsockopt(ctx: SockoptContext) -> i32 {
    getsockopt::getsockopt(ctx.sockopt)
}

#[cgroup_sockopt(setsockopt)]
fn fw_setsockopt(ctx: SockoptContext) -> i32 {
    setsockopt::setsockopt(ctx.sockopt)
}

#[cgroup_skb(egress)]
fn fw_egress(ctx: SkBuffContext) -> i32 {
    egress::egress(ctx.skb.skb)
}

#[classifier]
fn fw_edge(ctx: TcContext) -> i32 {
    edge::edge(ctx.skb.skb)
}

#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
fn fw_names(ctx: RawTracePointContext) -> i32 {
    names::made(&ctx);
    0
}

// The library's attribute for this kind of section always returns 0; this program decides what the function returns.
#[unsafe(link_section = "fentry/security_socket_create")]
#[unsafe(no_mangle)]
fn fw_family(ctx: *mut c_void) -> i32 {
    family::socket_create(&FEntryContext::new(ctx))
}

// GPL-compatible: some helpers are offered only to programs that say so.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
