//! Who else looks names up on this host: services that answer over a local socket, and ask for whoever connects.
//!
//! In: the file system. Out: each such socket that is there. On failure: what cannot be seen is not reported.
//!
//! A question that an agent asks them leaves in their name: Guard does not see it, cannot take ECH keys out of the
//! answer, and does not count it. The connection that follows is the agent's own, and is redirected and judged.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// The usual ones, each with the service that is behind it.
const SOCKETS: [(&str, &str); 7] = [
    ("run/nscd/socket", "nscd"),
    ("var/run/nscd/socket", "nscd"),
    ("run/systemd/resolve/io.systemd.Resolve", "systemd-resolved"),
    ("run/avahi-daemon/socket", "avahi"),
    ("var/lib/sss/pipes/nss", "sssd"),
    ("run/nslcd/socket", "nslcd"),
    ("run/dbus/system_bus_socket", "systemd-resolved over D-Bus"),
];
/// Only with this does anybody look names up over D-Bus.
const RESOLVED: &str = "run/systemd/resolve";

/// One service that looks names up for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LookUp {
    pub(super) service: &'static str,
    pub(super) socket: PathBuf,
}

/// Those of the host whose file system this is.
pub(super) fn find(root: &Path) -> Vec<LookUp> {
    let mut found: Vec<LookUp> = Vec::new();
    for (path, service) in SOCKETS {
        let at = root.join(path);
        let is_socket = at.metadata().is_ok_and(|data| data.file_type().is_socket());
        let asks = service != "systemd-resolved over D-Bus" || root.join(RESOLVED).exists();
        let known = found.iter().any(|other| same(&other.socket, &at));
        if is_socket && asks && !known {
            found.push(LookUp { service, socket: at });
        }
    }
    found
}

/// `/var/run` is a link to `/run` on most hosts.
fn same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::{fs::symlink, net::UnixListener};

    use super::*;

    #[test]
    fn each_socket_of_a_service_that_looks_names_up_is_found_once() {
        let root = tempfile::tempdir().unwrap();
        for directory in ["run/nscd", "run/dbus", "run/avahi-daemon", "var"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        symlink("../run", root.path().join("var/run")).unwrap();
        assert_eq!(find(root.path()), []);
        let _nscd = UnixListener::bind(root.path().join("run/nscd/socket")).unwrap();
        let _bus = UnixListener::bind(root.path().join("run/dbus/system_bus_socket")).unwrap();
        fs::write(root.path().join("run/avahi-daemon/socket"), "no socket").unwrap();
        let services = || -> Vec<&str> { find(root.path()).iter().map(|found| found.service).collect() };
        assert_eq!(services(), ["nscd"]);
        fs::create_dir_all(root.path().join("run/systemd/resolve")).unwrap();
        assert_eq!(services(), ["nscd", "systemd-resolved over D-Bus"]);
    }
}
