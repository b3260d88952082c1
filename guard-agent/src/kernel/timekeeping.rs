//! What the kernel knows of time beside the wall clock.
#![allow(
    unsafe_code,
    reason = "the boot clock and adjtimex(2) have no safe wrapper; each call passes one plain struct"
)]

use std::time::Duration;

/// Time since the machine was started, suspended time included. No step of the wall clock moves it.
pub fn since_boot() -> Option<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec, which outlives the call.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) } != 0;
    if failed {
        return None;
    }
    Some(Duration::new(
        u64::try_from(time.tv_sec).ok()?,
        u32::try_from(time.tv_nsec).ok()?,
    ))
}

/// Whether somebody keeps the wall clock right: an NTP or PTP client that vouches for it. Setting the clock by hand ends
/// that until such a client vouches again.
pub fn is_synchronised() -> bool {
    // SAFETY: the struct is integers only, for which zero is a value; with `modes` zero the call only reads.
    let (state, timex) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut timex), timex)
    };
    state >= 0 && state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0
}
