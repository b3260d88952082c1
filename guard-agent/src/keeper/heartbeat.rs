//! Tells the programs that Guard lives, for owners who want governed processes to go direct while it does not.
//!
//! In: whether there is a worker. Out: a time stamp in the programs' configuration. On failure: the stamp grows old, and
//! the programs do what the owner chose (`when_down`), which is to refuse unless told otherwise.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::Keeper;
use crate::config::{Host, WhenDown};

const EVERY: Duration = Duration::from_millis(500);
/// A stamp older than this says that Guard is down. A worker that is replaced is quicker: connections wait for it.
pub(super) const STALE: Duration = Duration::from_secs(5);

/// Keeps the programs told while there is a worker: a keeper alone serves nobody. Where nobody goes direct, nobody needs
/// to know.
pub(super) async fn keep(keeper: Arc<Keeper>) {
    if !goes_direct(&keeper.config.load().host) {
        return;
    }
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !keeper.desk.is_open() {
            continue;
        }
        if let Err(error) = keeper.enforcement.kernel.heartbeat() {
            tracing::error!(%error, "the programs cannot be told that Guard lives");
        }
    }
}

fn goes_direct(host: &Host) -> bool {
    [host.when_down, host.unknown_when_down].contains(&WhenDown::Direct)
}
