//! The kernel suite: the real programs in the real kernel, in a cgroup and namespaces of their own.
//!
//! Needs root, and fails without: a suite that skips itself proves nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot go on panics, and says what it measured"
)]

#[path = "kernel/bypass.rs"]
mod bypass;
#[path = "kernel/containers.rs"]
mod containers;
#[path = "kernel/cost.rs"]
mod cost;
#[path = "kernel/dns.rs"]
mod dns;
#[path = "kernel/doctor.rs"]
mod doctor;
#[path = "kernel/doors.rs"]
mod doors;
#[path = "kernel/governed.rs"]
mod governed;
#[path = "kernel/life.rs"]
mod life;
#[path = "kernel/range.rs"]
mod range;
#[path = "kernel/redirect.rs"]
mod redirect;
#[path = "kernel/vectors.rs"]
mod vectors;
#[path = "kernel/world.rs"]
mod world;
