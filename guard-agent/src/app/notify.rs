//! Tells systemd how the service is doing (sd_notify(3)); without `NOTIFY_SOCKET` there is nobody to tell.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends a state such as `READY=1`.
pub(super) fn notify(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(why) = send(&socket, state) {
        tracing::warn!(%why, "systemd could not be notified");
    }
}

fn send(socket: &OsString, state: &str) -> std::io::Result<()> {
    // A leading @ stands for the NUL of an abstract socket.
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let from = UnixDatagram::unbound()?;
    from.send_to_addr(state.as_bytes(), &address)?;
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
        send(&path.into_os_string(), "READY=1").unwrap();
        let mut said = [0; 16];
        let length = listening.recv(&mut said).unwrap();
        assert_eq!(said.get(..length), Some(&b"READY=1"[..]));
    }
}
