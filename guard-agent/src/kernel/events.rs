//! The stream of refusals, from the ring buffer to a bounded queue.
//!
//! In: the ring. Out: one event per refused call. On failure: a full queue drops and counts; enforcement
//! never waits for its reader.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use guard_common::event::{Event, Reason};
use tokio::{io::unix::AsyncFd, sync::mpsc};

use super::{flow, sys};

/// Enough for a burst; a client in a tight loop must not cost memory.
const QUEUE: usize = 1024;

/// One call that a program refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelEvent {
    /// When.
    pub time: jiff::Timestamp,
    /// Why; [`Reason::label`] is its stable name.
    pub reason: Reason,
    /// The agent.
    pub agent: u32,
    /// The cgroup of the thread.
    pub cgroup_id: u64,
    /// The governed cgroup that made the call governed.
    pub governed_cgroup_id: u64,
    /// The namespace; 0 for `socket()`.
    pub netns_cookie: u64,
    /// The process.
    pub pid: u32,
    /// The user.
    pub uid: u32,
    /// The thread's name.
    pub comm: String,
    /// The IP protocol number (6 TCP, 17 UDP, 262 Multipath TCP).
    pub protocol: u16,
    /// Where to; none for `socket()`.
    pub destination: Option<SocketAddr>,
}

/// The ring until somebody asks for its stream.
pub(super) struct Source {
    ring: Mutex<Option<RingBuf<MapData>>>,
    dropped: Arc<AtomicU64>,
}

impl Source {
    pub(super) fn new(ring: RingBuf<MapData>, dropped: Arc<AtomicU64>) -> Self {
        Self {
            ring: Mutex::new(Some(ring)),
            dropped,
        }
    }

    pub(super) fn stream(&self) -> mpsc::Receiver<KernelEvent> {
        let (to, from) = mpsc::channel(QUEUE);
        if let Some(ring) = self.ring.lock().unwrap_or_else(PoisonError::into_inner).take() {
            tokio::spawn(pump(ring, to, Arc::clone(&self.dropped)));
        }
        from
    }
}

/// Ends when the receiver is gone.
async fn pump(ring: RingBuf<MapData>, to: mpsc::Sender<KernelEvent>, dropped: Arc<AtomicU64>) {
    let mut ring = match register(ring) {
        Ok(ring) => ring,
        Err(error) => {
            tracing::error!(%error, "kernel events cannot be read; refusals go on without being reported");
            return;
        }
    };
    loop {
        let ready = tokio::select! {
            () = to.closed() => return,
            ready = ring.readable_mut() => ready,
        };
        let mut ready = match ready {
            Ok(ready) => ready,
            Err(error) => {
                tracing::error!(%error, "kernel events end here; refusals go on without being reported");
                return;
            }
        };
        while let Some(item) = ready.get_inner_mut().next() {
            if parse(&item).is_none_or(|event| to.try_send(event).is_err()) {
                dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        ready.clear_ready();
    }
}

#[allow(unsafe_code, reason = "the runtime asks for a promise about the descriptor")]
fn register(ring: RingBuf<MapData>) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: the ring owns its descriptor, gives the same one each time and closes it only when dropped.
    unsafe { AsyncFd::register(ring) }.map_err(io::Error::from)
}

fn parse(bytes: &[u8]) -> Option<KernelEvent> {
    let event = read(bytes)?;
    let reason = Reason::from_number(event.reason)?;
    let unbound = event.port == 0 && event.address == [0; 4];
    Some(KernelEvent {
        time: wall_clock(event.ktime_ns),
        reason,
        agent: event.agent,
        cgroup_id: event.cgroup_id,
        governed_cgroup_id: event.governed_cgroup_id,
        netns_cookie: event.netns_cookie,
        pid: event.pid,
        uid: event.uid,
        comm: flow::comm(&event.comm),
        protocol: event.protocol,
        destination: (!unbound).then(|| flow::socket_address(&event.address, event.port)),
    })
}

#[allow(
    unsafe_code,
    reason = "the ring hands out bytes; the record is plain integers"
)]
fn read(bytes: &[u8]) -> Option<Event> {
    // SAFETY: long enough, read unaligned, and any bytes make a valid record.
    (bytes.len() >= size_of::<Event>()).then(|| unsafe { bytes.as_ptr().cast::<Event>().read_unaligned() })
}

/// The programs only know the monotonic clock.
fn wall_clock(ktime_ns: u64) -> jiff::Timestamp {
    let age = Duration::from_nanos(sys::monotonic_ns().saturating_sub(ktime_ns));
    let now = jiff::Timestamp::now();
    now.checked_sub(age).unwrap_or(now)
}
