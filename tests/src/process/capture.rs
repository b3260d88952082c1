//! What comes out of a process's pipes, read while it runs.

use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// What comes out of one pipe, kept as it comes.
#[derive(Debug)]
pub(super) struct Capture {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
    /// Up to where [`Capture::line`] has given lines.
    given: usize,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    ended: bool,
}

impl Capture {
    pub(super) fn of(pipe: Option<impl Read + Send + 'static>) -> Self {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let reader = pipe.map(|pipe| thread::spawn(move || theirs.fill(pipe)));
        Self {
            shared,
            reader,
            given: 0,
        }
    }

    pub(super) fn line(&mut self, patience: Duration) -> Result<String> {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.lock();
        loop {
            let rest = state.bytes.get(self.given..).unwrap_or_default();
            if let Some(length) = rest.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(rest.get(..length).unwrap_or_default()).into_owned();
                self.given += length + 1;
                return Ok(line);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                bail!(
                    "{}",
                    if state.ended {
                        "its output ended"
                    } else {
                        "it was silent"
                    }
                );
            }
            state = self
                .shared
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.shared.lock().bytes).into_owned()
    }

    /// Waits until the pipe has ended, but not longer than this.
    pub(super) fn close(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while let Some(reader) = &self.reader {
            if reader.is_finished() || Instant::now() >= deadline {
                self.reader = None;
            } else {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, mut pipe: impl Read) {
        let mut buffer = [0; 8192];
        loop {
            let read = pipe.read(&mut buffer);
            let mut state = self.lock();
            match read {
                Ok(0) => state.ended = true,
                Ok(length) => state
                    .bytes
                    .extend_from_slice(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => state.ended = true,
            }
            self.changed.notify_all();
            if state.ended {
                return;
            }
        }
    }
}
