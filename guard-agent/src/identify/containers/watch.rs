//! The thread that follows containers' cgroups: inotify for speed, a slow scan so that a lost event heals.
//!
//! In: directories, and a bell that rings when the engine said something. Out: the keeper's steps. On failure: the slow
//! scan still runs.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::keeper::Keeper;
use crate::kernel::cgroup;

/// A lost event heals within this time.
const RESCAN: Duration = Duration::from_secs(5);

/// Ends its thread when dropped.
#[derive(Debug)]
pub(super) struct Watch {
    /// A byte wakes the thread, the end of the stream ends it.
    bell: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(super) fn start(mut keeper: Keeper) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let (bell, door) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        door.set_nonblocking(true)?;
        let (ready, first) = mpsc::sync_channel(1);
        let run = move || {
            let mut watched = HashSet::new();
            while add(&inotify, &mut watched, keeper.scan()) {}
            let mut scanned = Instant::now();
            // What an earlier daemon governed has its listeners back before the first connection is served.
            keeper.step();
            // Nobody waits any more: the start was given up.
            let _unheard = ready.send(());
            loop {
                let again = keeper.step();
                let changed = match wait(&inotify, &door, again) {
                    Wake::End => return,
                    Wake::Changed => true,
                    Wake::Time => scanned.elapsed() >= RESCAN,
                };
                if changed {
                    // Twice if a new directory came in: what appeared in it before the watch was on.
                    while add(&inotify, &mut watched, keeper.scan()) {}
                    scanned = Instant::now();
                }
            }
        };
        let thread = thread::Builder::new().name("guard-contain".into()).spawn(run)?;
        first.recv().map_err(io::Error::other)?;
        Ok(Self {
            bell: Some(bell),
            thread: Some(thread),
        })
    }

    /// Asks for a step now.
    pub(super) fn wake(&self) {
        // Full: it is awake already.
        drop(self.bell.as_ref().map(|mut bell| bell.write(&[1])));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.bell.take());
        drop(self.thread.take().map(JoinHandle::join));
    }
}

enum Wake {
    End,
    Changed,
    Time,
}

/// Watches what is not watched yet; says whether there was any.
fn add(inotify: &Inotify, watched: &mut HashSet<(PathBuf, u64)>, wanted: Vec<PathBuf>) -> bool {
    // By inode too: the kernel drops the watch of a removed directory, and a new one of that name needs its own.
    let wanted: HashSet<(PathBuf, u64)> = wanted
        .into_iter()
        .filter_map(|path| cgroup::id_of(&path).ok().map(|id| (path, id)))
        .collect();
    watched.retain(|one| wanted.contains(one));
    let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_DELETE_SELF;
    let mut any = false;
    for one in wanted {
        if watched.contains(&one) {
            continue;
        }
        match inotify.add_watch(&one.0, flags) {
            Ok(_) => any |= watched.insert(one),
            Err(Errno::ENOENT) => {}
            Err(error) => {
                tracing::warn!(%error, path = %one.0.display(), "containers here are only seen by the slow scan");
            }
        }
    }
    any
}

fn wait(inotify: &Inotify, mut door: &UnixStream, at_most: Duration) -> Wake {
    let mut fds = [
        PollFd::new(inotify.as_fd(), PollFlags::POLLIN),
        PollFd::new(door.as_fd(), PollFlags::POLLIN),
    ];
    let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::from(1_000_u16));
    if let Err(error) = poll(&mut fds, timeout)
        && error != Errno::EINTR
    {
        tracing::error!(%error, "containers are no longer watched");
        return Wake::End;
    }
    let changed = inotify.read_events().is_ok_and(|events| !events.is_empty());
    match door.read(&mut [0; 64]) {
        Ok(0) => Wake::End,
        // The engine may have named a place that was not looked at before.
        Ok(_) => Wake::Changed,
        Err(_empty) if changed => Wake::Changed,
        Err(_empty) => Wake::Time,
    }
}
