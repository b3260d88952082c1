//! The thread that follows the tree: inotify for speed, a slow scan so that a lost event heals.
//!
//! In: the directories that the last scan named. Out: another scan when something changed there. On failure:
//! the slow scan still runs.

use std::{
    collections::HashSet,
    io::{self, Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};

use super::set::Shared;
use crate::kernel::cgroup;

/// How long a lost event may go unnoticed.
const RESCAN_MS: u16 = 5_000;

/// Ends its thread when dropped.
#[derive(Debug)]
pub(super) struct Watcher {
    /// A byte wakes the thread, the end of the stream ends it.
    bell: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    pub(super) fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let (bell, door) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        door.set_nonblocking(true)?;
        let thread = thread::Builder::new()
            .name("cgroup-watch".into())
            .spawn(move || {
                let mut watched = HashSet::new();
                loop {
                    // Twice if new directories came in: what appeared below them before the watch was on.
                    while watch(&inotify, &mut watched, shared.reconcile()) {}
                    if !wait(&inotify, &door) {
                        return;
                    }
                }
            })?;
        Ok(Self {
            bell: Some(bell),
            thread: Some(thread),
        })
    }

    /// Asks for a scan now.
    pub(super) fn wake(&self) {
        // Full: it is awake already.
        drop(self.bell.as_ref().map(|mut bell| bell.write(&[1])));
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        drop(self.bell.take());
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// Watches what is not watched yet; says whether there was any.
fn watch(inotify: &Inotify, watched: &mut HashSet<(PathBuf, u64)>, wanted: Vec<PathBuf>) -> bool {
    // By inode too: the kernel drops the watch of a removed directory, and a new one of that name needs its own.
    let wanted: HashSet<(PathBuf, u64)> = wanted
        .into_iter()
        .filter_map(|path| cgroup::id_of(&path).ok().map(|id| (path, id)))
        .collect();
    watched.retain(|one| wanted.contains(one));
    let mut any = false;
    for one in wanted {
        if !watched.contains(&one) && add(inotify, &one.0) {
            watched.insert(one);
            any = true;
        }
    }
    any
}

fn add(inotify: &Inotify, path: &Path) -> bool {
    let flags = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MODIFY;
    match inotify.add_watch(path, flags) {
        Ok(_) => true,
        Err(Errno::ENOENT) => false,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "cgroups below are only seen by the slow scan");
            false
        }
    }
}

/// Waits for an event, the bell or the slow scan; false at the end.
fn wait(inotify: &Inotify, mut door: &UnixStream) -> bool {
    let mut fds = [
        PollFd::new(inotify.as_fd(), PollFlags::POLLIN),
        PollFd::new(door.as_fd(), PollFlags::POLLIN),
    ];
    if let Err(error) = poll(&mut fds, PollTimeout::from(RESCAN_MS))
        && error != Errno::EINTR
    {
        tracing::error!(%error, "the cgroup tree is no longer watched");
        return false;
    }
    // What happened does not matter: the scan looks for itself. Empty is an error here, and fine.
    drop(inotify.read_events());
    !matches!(door.read(&mut [0; 64]), Ok(0))
}
