//! Reading large bodies beside the threads that move bytes: what takes milliseconds would hold up every other connection
//! of its thread, and several at once would hold up the host.
//!
//! In: a piece of work and the bytes it is about. Out: its result. On failure: none of its own.

use std::num::NonZero;
use std::sync::LazyLock;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, SemaphorePermit};

/// What is smaller is read within a millisecond or two, where it came.
pub(crate) const LARGE: usize = 128 * 1024;

/// One core is left to those who move bytes.
static TURNS: LazyLock<Semaphore> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    Semaphore::new(cores.saturating_sub(1).max(1))
});

/// Waits for a turn to read a body of so many bytes. Small ones need none.
pub(crate) async fn turn(bytes: usize) -> Option<SemaphorePermit<'static>> {
    if bytes < LARGE {
        return None;
    }
    // It is never closed.
    TURNS.acquire().await.ok()
}

/// Does a piece of work about so many bytes; the other tasks of this thread go on meanwhile, on another one.
pub(crate) fn beside<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let movable = Handle::try_current().is_ok_and(|handle| {
        // A runtime of one thread has no other to go on with.
        handle.runtime_flavor() == RuntimeFlavor::MultiThread
    });
    if bytes < LARGE || !movable {
        return work();
    }
    tokio::task::block_in_place(work)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const LONG: Duration = Duration::from_millis(600);

    /// How late another task of a runtime of one thread is while work about so many bytes is done.
    fn lateness(bytes: usize) -> Duration {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let began = Instant::now();
            let reading = tokio::spawn(async move {
                let _turn = turn(bytes).await;
                beside(bytes, || std::thread::sleep(LONG));
            });
            let other = tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                began.elapsed()
            });
            let late = other.await.unwrap();
            reading.await.unwrap();
            late
        })
    }

    #[test]
    fn while_a_large_body_is_read_the_other_connections_of_its_thread_go_on() {
        assert!(lateness(LARGE) < LONG / 2);
        // The same work is seen to hold them up where it is not moved.
        assert!(lateness(LARGE - 1) >= LONG);
    }

    #[tokio::test]
    async fn a_runtime_of_one_thread_does_the_work_itself() {
        assert_eq!(beside(LARGE, || 7), 7);
    }

    #[tokio::test]
    async fn large_bodies_wait_for_their_turn_and_small_ones_do_not() {
        let mut turns = Vec::new();
        while let Ok(Some(turn)) = tokio::time::timeout(Duration::from_millis(50), turn(LARGE)).await {
            turns.push(turn);
        }
        assert!(turn(LARGE - 1).await.is_none());
        assert!(!turns.is_empty());
        turns.pop();
        assert!(turn(LARGE).await.is_some());
    }
}
