//! The programs' counters.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use aya::maps::{MapData, PerCpuArray};
use guard_common::policy::Stat;

/// Counters since the programs were first attached; they outlive the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelStats {
    /// Connections sent to a listener.
    pub redirected: u64,
    /// Calls refused.
    pub refused: u64,
    /// Refusals whose event was lost, in the ring or in the daemon's queue.
    pub events_lost: u64,
    /// Connections whose record found no room on its way: they arrive without identity and are reset.
    pub publish_failed: u64,
    /// Calls refused because socket storage could not be had.
    pub storage_failed: u64,
    /// Records that reached their accepted socket.
    pub moved: u64,
    /// Records that did not: those connections are reset.
    pub move_failed: u64,
    /// Calls let through under `when_down = "direct"`.
    pub failed_open: u64,
    /// DNS queries over UDP that were sent to Guard, and UDP sockets connected for them.
    pub dns_redirected: u64,
}

pub(super) struct Counters {
    map: PerCpuArray<MapData, u64>,
    dropped: Arc<AtomicU64>,
}

impl Counters {
    pub(super) fn new(map: PerCpuArray<MapData, u64>, dropped: Arc<AtomicU64>) -> Self {
        Self { map, dropped }
    }

    pub(super) fn read(&self) -> KernelStats {
        KernelStats {
            redirected: self.sum(Stat::Redirected),
            refused: self.sum(Stat::Refused),
            events_lost: self.sum(Stat::EventsLost) + self.dropped.load(Ordering::Relaxed),
            publish_failed: self.sum(Stat::PublishFailed),
            storage_failed: self.sum(Stat::StorageFailed),
            moved: self.sum(Stat::Moved),
            move_failed: self.sum(Stat::MoveFailed),
            failed_open: self.sum(Stat::FailedOpen),
            dns_redirected: self.sum(Stat::DnsRedirected),
        }
    }

    fn sum(&self, stat: Stat) -> u64 {
        self.map
            .get(&(stat as u32), 0)
            .map(|values| values.iter().sum())
            .unwrap_or_default()
    }
}
