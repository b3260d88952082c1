//! Tells systemd how the service is doing (sd_notify(3)); without `NOTIFY_SOCKET` there is nobody to tell.

use std::ffi::OsString;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

/// Sends a state such as `READY=1`.
pub(super) fn notify(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(why) = send(&socket, state, None) {
        tracing::warn!(%why, "systemd could not be notified");
    }
}

/// Sends a state together with the descriptor that it speaks of.
pub(super) fn notify_with(state: &str, descriptor: &OwnedFd) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(why) = send(&socket, state, Some(descriptor)) {
        tracing::warn!(%why, "systemd could not be given a socket to keep");
    }
}

/// Whether somebody listens who keeps descriptors.
pub(super) fn is_managed() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Half of the time within which systemd wants to hear that the service is alive, if it does.
pub(super) fn watchdog() -> Option<Duration> {
    let micros: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    Some(Duration::from_micros(micros) / 2)
}

fn send(socket: &OsString, state: &str, descriptor: Option<&OwnedFd>) -> std::io::Result<()> {
    // A leading @ stands for the NUL of an abstract socket.
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => UnixAddr::new_abstract(name)?,
        None => UnixAddr::new(socket.as_os_str())?,
    };
    let from = UnixDatagram::unbound()?;
    let raw: Vec<RawFd> = descriptor.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let parts = [IoSlice::new(state.as_bytes())];
    sendmsg(
        from.as_raw_fd(),
        &parts,
        control,
        MsgFlags::MSG_NOSIGNAL,
        Some(&address),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_arrives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listening = UnixDatagram::bind(&path).unwrap();
        send(&path.into_os_string(), "READY=1", None).unwrap();
        let mut said = [0; 16];
        let length = listening.recv(&mut said).unwrap();
        assert_eq!(said.get(..length), Some(&b"READY=1"[..]));
    }
}
