//! For tests only: a kernel side whose counter-measures can be switched off one by one, to show that each is
//! what stops its attack.
//!
//! The daemon starts with [`Kernel::start`], which switches all of them on and refuses every later wish; only a
//! [`Kernel`] that was started here can be weakened. What it is asked for never outlives the next start.

pub use guard_common::countermeasure::Countermeasure;

use std::{io, path::Path};

use aya::maps::{Array, Map, MapData};
use guard_common::{ABI_VERSION, policy::Config};

use super::{Kernel, KernelError, KernelSettings};

/// As other software with root's rights could: switches these off and all others on in the pins of a daemon that runs,
/// and knows nothing of it.
///
/// # Errors
/// There are no pins.
pub fn tamper(bpffs: &Path, off: &[Countermeasure]) -> io::Result<()> {
    let pin = bpffs.join(format!("v{ABI_VERSION}/maps/CFG"));
    let data = MapData::from_pin(pin).map_err(io::Error::other)?;
    let mut map: Array<MapData, Config> = Array::try_from(Map::Array(data)).map_err(io::Error::other)?;
    let mut config = map.get(&0, 0).map_err(io::Error::other)?;
    config.disabled = off.iter().fold(0, |mask, one| mask | one.bit());
    map.set(0, config, 0).map_err(io::Error::other)
}

/// As [`Kernel::start`], but [`switch_off`] works.
pub fn start(settings: &KernelSettings) -> Result<Kernel, KernelError> {
    let mut kernel = Kernel::start(settings)?;
    kernel.is_lab = true;
    Ok(kernel)
}

/// Switches these off and all others on.
///
/// # Errors
/// The kernel was not started by [`start`].
pub fn switch_off(kernel: &Kernel, off: &[Countermeasure]) -> Result<(), KernelError> {
    if !kernel.is_lab {
        return Err(KernelError::NotInLab);
    }
    let mask = off.iter().fold(0, |mask, one| mask | one.bit());
    kernel.policy.switch_off(mask)
}
