//! Ends the data path without cutting what is in flight, until a deadline.

use std::time::Duration;

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;

/// For last words, once the deadline has come.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Tells the tasks of the data path to end, in three steps. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    /// Take no new work.
    ending: CancellationToken,
    /// Say how it ends, and stop.
    last_words: CancellationToken,
    /// Stop now.
    cut: CancellationToken,
    tasks: TaskTracker,
}

impl Drain {
    /// Resolves when no new work is to be taken.
    pub async fn ending(&self) {
        self.ending.cancelled().await;
    }

    /// Resolves when what is still under way is to end by itself, with a word of why.
    pub fn last_words(&self) -> WaitForCancellationFutureOwned {
        self.last_words.clone().cancelled_owned()
    }

    /// Resolves when everything is to stop.
    pub async fn cut(&self) {
        self.cut.cancelled().await;
    }

    /// Runs a task that [`Drain::finish`] waits for and that is dropped at its deadline.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cut = self.cut.clone();
        self.tasks.spawn(async move {
            // A task that was dropped settles what it held.
            let _cut_or_done = cut.run_until_cancelled(task).await;
        });
    }

    /// Number of tasks.
    pub fn running(&self) -> usize {
        self.tasks.len()
    }

    /// Takes no new work, waits for the rest, and at the deadline has what is left end with its last words; what has none
    /// is cut a moment later. Returns how many tasks were left at the deadline.
    pub async fn finish(&self, deadline: Duration) -> usize {
        self.ending.cancel();
        self.tasks.close();
        if tokio::time::timeout(deadline, self.tasks.wait()).await.is_ok() {
            return 0;
        }
        let left = self.tasks.len();
        self.last_words.cancel();
        // Whoever had none, or does not listen, is cut.
        drop(tokio::time::timeout(LAST_WORDS.min(deadline), self.tasks.wait()).await);
        self.cut.cancel();
        self.tasks.wait().await;
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_what_ends_and_cuts_what_does_not() {
        let drain = Drain::default();
        let (ended, mut end) = tokio::sync::mpsc::channel(1);
        let heard = drain.clone();
        drain.spawn(async move {
            heard.ending().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            ended.send(()).await.unwrap();
        });
        drain.spawn(std::future::pending());
        assert_eq!(drain.running(), 2);
        assert_eq!(drain.finish(Duration::from_millis(200)).await, 1);
        assert_eq!(end.recv().await, Some(()));
        assert_eq!(drain.running(), 0);
    }
}
