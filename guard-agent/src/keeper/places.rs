//! The worker's user, and the directories that are its own.
//!
//! In: the configuration. Out: a user that is nobody else's, and directories that it may write. On failure: the daemon
//! does not start, and says what to do.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use nix::unistd::User;

use crate::config::Host;

/// The worker's user and group; `systemd/guard.sysusers` makes them.
const USER: &str = "guard";
/// Others may pass through to `ca/bundle.pem`, which is for everybody, and see nothing else.
const STATE_MODE: u32 = 0o751;
/// How deep the state directory is.
const DEPTH: u32 = 4;

/// Who the worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Looks the user up.
pub(super) fn owner() -> anyhow::Result<Owner> {
    let user = User::from_name(USER)
        .with_context(|| format!("the user {USER:?} cannot be looked up"))?
        .ok_or_else(|| {
            anyhow!(
                "there is no user {USER:?}, as which the unprivileged part runs: install systemd/guard.sysusers and \
                 run systemd-sysusers, or useradd --system --user-group {USER}"
            )
        })?;
    if user.uid.is_root() {
        bail!("the user {USER:?} is root: give it a uid of its own");
    }
    Ok(Owner {
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
    })
}

/// Makes the directories where they are missing, and gives the state to the worker.
pub(super) fn prepare(host: &Host, owner: Owner) -> anyhow::Result<()> {
    make(&host.runtime_dir, 0o755)?;
    make(&host.state_dir, STATE_MODE)?;
    give(&host.state_dir, owner, DEPTH)
        .with_context(|| format!("{} cannot be given to {USER:?}", host.state_dir.display()))?;
    let mode = fs::metadata(&host.state_dir)?.permissions().mode() & 0o777;
    // Earlier versions kept everybody out, and with them the agents that need the bundle.
    if mode & 0o001 == 0 {
        fs::set_permissions(&host.state_dir, fs::Permissions::from_mode(mode | 0o001))
            .with_context(|| format!("{} cannot be opened to pass through", host.state_dir.display()))?;
    }
    Ok(())
}

fn make(directory: &Path, mode: u32) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(directory)
        .with_context(|| format!("{} cannot be made", directory.display()))
}

/// Gives away what is root's, as earlier versions left it. A worker that was taken over may have put links here: none is
/// followed, and what has two names is left alone.
fn give(path: &Path, owner: Owner, depth: u32) -> io::Result<()> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let meta = file.metadata()?;
    if meta.uid() == 0 && (meta.is_dir() || (meta.is_file() && meta.nlink() == 1)) {
        fchown(&file, Some(owner.uid), Some(owner.gid))?;
    }
    if meta.is_dir() && depth > 0 {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() || kind.is_file() {
                give(&entry.path(), owner, depth - 1)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As root: the only one who may give anything away.
    #[test]
    fn the_state_is_given_away_and_nothing_that_a_link_leads_to() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (state, outside) = (dir.path().join("state"), dir.path().join("outside"));
        fs::create_dir_all(state.join("audit")).unwrap();
        fs::write(state.join("audit/one"), "").unwrap();
        fs::write(&outside, "").unwrap();
        std::os::unix::fs::symlink(&outside, state.join("link")).unwrap();
        fs::hard_link(&outside, state.join("second name")).unwrap();
        let owner = Owner { uid: 4711, gid: 4712 };
        give(&state, owner, DEPTH).unwrap();
        for given in ["", "audit", "audit/one"] {
            let meta = fs::metadata(state.join(given)).unwrap();
            assert_eq!((meta.uid(), meta.gid()), (4711, 4712), "{given}");
        }
        assert_eq!(fs::metadata(&outside).unwrap().uid(), 0);
    }
}
