//! The kernel suite: the real programs in the real kernel, in a cgroup and namespaces of their own.
//!
//! Needs root, and fails without: a suite that skips itself proves nothing.

#[path = "kernel/bypass.rs"]
mod bypass;
#[path = "kernel/governed.rs"]
mod governed;
#[path = "kernel/life.rs"]
mod life;
#[path = "kernel/redirect.rs"]
mod redirect;
#[path = "kernel/world.rs"]
mod world;
