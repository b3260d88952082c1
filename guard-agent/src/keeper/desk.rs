//! The way to the worker of the moment. Nothing here waits: a worker that does not read is replaced.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use crate::seam::{Channel, ToWorker};

/// Messages that may wait: the listeners of as many namespaces as the programs know, and as many answers again.
const QUEUE: usize = 8192;

type Outgoing = (ToWorker, Vec<OwnedFd>);

/// Where messages for the worker are left.
#[derive(Debug, Default)]
pub(super) struct Desk {
    current: Mutex<Option<mpsc::Sender<Outgoing>>>,
    /// Tells that the worker does not read.
    stuck: Notify,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Option<mpsc::Sender<Outgoing>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on messages go to this worker. The task ends when it is gone.
    pub(super) fn serve(&self, channel: Arc<Channel>) -> JoinHandle<()> {
        let (to, mut from) = mpsc::channel::<Outgoing>(QUEUE);
        *self.lock() = Some(to);
        tokio::spawn(async move {
            while let Some((message, descriptors)) = from.recv().await {
                if let Err(error) = channel.send(&message, &descriptors).await {
                    tracing::debug!(%error, "the worker does not hear");
                    return;
                }
            }
        })
    }

    /// Whether there is a worker.
    pub(super) fn is_open(&self) -> bool {
        self.lock().is_some()
    }

    /// There is no worker.
    pub(super) fn close(&self) {
        *self.lock() = None;
    }

    /// Leaves a message; says whether there is a worker to get it.
    pub(super) fn tell(&self, message: ToWorker) -> bool {
        self.tell_with(message, Vec::new())
    }

    /// Leaves a message with descriptors.
    pub(super) fn tell_with(&self, message: ToWorker, descriptors: Vec<OwnedFd>) -> bool {
        let current = self.lock();
        let Some(to) = current.as_ref() else { return false };
        match to.try_send((message, descriptors)) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.stuck.notify_one();
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }

    /// Resolves when the worker has left too many messages unread.
    pub(super) async fn stuck(&self) {
        self.stuck.notified().await;
    }
}
