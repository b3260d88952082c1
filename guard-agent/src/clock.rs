//! Wall-clock time, from one place, so that tests can set it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::kernel::timekeeping;

/// Where the current time comes from.
pub trait Clock: Send + Sync {
    /// The current instant (UTC).
    fn now(&self) -> Timestamp;

    /// Time since the machine was started, suspended time included; none when nothing tells it.
    fn since_boot(&self) -> Option<Duration> {
        None
    }

    /// Whether somebody vouches for the current instant.
    fn is_synchronised(&self) -> bool {
        true
    }
}

/// A clock shared by the stages.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn since_boot(&self) -> Option<Duration> {
        timekeeping::since_boot()
    }

    fn is_synchronised(&self) -> bool {
        timekeeping::is_synchronised()
    }
}

/// The machine's clock, ready to be shared.
pub fn system() -> SharedClock {
    Arc::new(SystemClock)
}
