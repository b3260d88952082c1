//! The loopback ports that agents may reach although nobody governs who listens there: `egress.allow`, as the programs
//! need it.
//!
//! In: the ports of each agent. Out: the same in the programs' map. On failure: what could not be written is refused.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use aya::maps::{HashMap, MapData, MapError};
use guard_common::policy::{MAX_RELAYS, relay};

use super::KernelError;

const MAP: &str = "RELAYS";

pub(super) struct Relays(Mutex<HashMap<MapData, u64, u32>>);

impl Relays {
    pub(super) fn new(map: HashMap<MapData, u64, u32>) -> Self {
        Self(Mutex::new(map))
    }

    /// Replaces the list. What stays on it is never missing in between.
    pub(super) fn replace(&self, listed: &[(u32, u16)]) -> Result<(), KernelError> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted: HashSet<u64> = listed.iter().map(|(agent, port)| relay(*agent, *port)).collect();
        let there: HashSet<u64> = map.keys().filter_map(Result::ok).collect();
        for gone in there.difference(&wanted) {
            map.remove(gone).map_err(changing)?;
        }
        for new in wanted.difference(&there) {
            map.insert(new, 0, 0).map_err(changing)?;
        }
        Ok(())
    }
}

fn changing(error: MapError) -> KernelError {
    if let MapError::SyscallError(call) = &error
        && call.io_error.raw_os_error() == Some(libc::E2BIG)
    {
        return KernelError::Full {
            map: MAP,
            entries: MAX_RELAYS,
            what: "a loopback port of `egress.allow`".to_owned(),
        };
    }
    KernelError::Map {
        map: MAP,
        why: error.to_string(),
    }
}
