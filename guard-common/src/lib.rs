//! The contract between Guard's eBPF programs and its daemon: every record that crosses the border.
//!
//! All records are `repr(C)` without implicit padding, because the verifier refuses to copy
//! uninitialised bytes into a map and because both sides must agree on every offset. A change of any
//! layout here needs a new [`ABI_VERSION`]: pinned maps outlive the daemon that made them.
#![no_std]

pub mod countermeasure;
pub mod dns;
pub mod event;
pub mod flow;
pub mod policy;

/// Names the pin directory (`<bpffs>/v2`), so that maps of another layout are never opened.
pub const ABI_VERSION: u32 = 2;

/// The length of a task's name in the kernel, the terminating zero included.
pub const COMM_LEN: usize = 16;
