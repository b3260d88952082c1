//! The lab: a small internet on one machine, for the suites under `tests/` and for `cargo xtask demo`.
//!
//! From the bottom up: a cgroup, a network namespace and a mount namespace of a test's own, and a process that
//! lives in them. Everything made here belongs to a value and goes when the value does; nothing of the machine's
//! own (mounts, hosts file, resolver, trust store, root cgroup) is ever changed.

pub mod authority;
pub mod cgroup;
pub mod clients;
pub mod demo;
pub mod docker;
pub mod lab;
pub mod matrix;
pub mod measured;
pub mod mounts;
pub mod netns;
pub mod patience;
pub mod process;
pub mod provider;
pub mod systemd;
