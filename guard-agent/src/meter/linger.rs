//! Reads replies to their end after their client has gone: the provider bills them, so what they cost must be learnt.
//! Bounded in number, time and bytes; beyond that the outcome is settled with usage unknown.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::drain::Drain;
use crate::forward::pool::Streams;
use crate::meter::Tab;

/// Abandoned replies that are read on at the same time.
const REPLIES: usize = 256;
const TIME: Duration = Duration::from_secs(120);
const BYTES: u64 = 64 * 1024 * 1024;

/// Takes abandoned replies over. Cheap to clone.
#[derive(Clone)]
pub struct Linger {
    places: Arc<Semaphore>,
    drain: Drain,
}

impl Linger {
    /// A taker whose tasks `drain` waits for.
    pub fn new(drain: Drain) -> Self {
        Self {
            places: Arc::new(Semaphore::new(REPLIES)),
            drain,
        }
    }

    /// What ends the data path.
    pub(super) fn drain(&self) -> &Drain {
        &self.drain
    }

    /// Reads a reply whose client has gone.
    pub(super) fn read_on(&self, body: Incoming, tab: Tab, streams: Option<Streams>) {
        self.spawn(async move |place| {
            let _held = (place, streams);
            read(body, tab).await;
        });
    }

    /// Waits for the answer of a call whose client has gone, and reads it.
    pub(crate) fn await_head<E>(
        &self,
        answer: impl Future<Output = Result<Response<Incoming>, E>> + Send + 'static,
        mut tab: Tab,
        streams: Option<Streams>,
    ) where
        E: std::fmt::Display + Send,
    {
        self.spawn(async move |place| {
            let _held = (place, streams);
            match tokio::time::timeout(TIME, answer).await {
                Ok(Ok(response)) => {
                    let (parts, body) = response.into_parts();
                    tab.head(parts.status, &parts.headers);
                    read(body, tab).await;
                }
                Ok(Err(error)) => tab.set_error(error.to_string()),
                Err(_elapsed) => tab.set_error("no answer in time after the client had gone".to_owned()),
            }
        });
    }

    /// Without a place, or without a runtime, the task is dropped, and with it the tab, which settles.
    fn spawn<F>(&self, task: impl FnOnce(OwnedSemaphorePermit) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if let (Ok(place), Ok(_runtime)) = (self.places.clone().try_acquire_owned(), Handle::try_current()) {
            self.drain.spawn(task(place));
        }
    }
}

async fn read(mut body: Incoming, mut tab: Tab) {
    let rest = async {
        let mut left = BYTES;
        while let Some(frame) = body.frame().await {
            match frame.map(|frame| frame.into_data()) {
                Ok(Ok(data)) => {
                    left = left
                        .checked_sub(data.len() as u64)
                        .ok_or("the reply is too long")?;
                    drop(tab.feed(data));
                    if tab.outgrown().is_some() {
                        return Err("the reply grew beyond its budget");
                    }
                }
                Ok(Err(_trailers)) => {}
                Err(_) => return Err("the provider broke off the reply"),
            }
        }
        Ok(())
    };
    let result = tokio::time::timeout(TIME, rest)
        .await
        .unwrap_or(Err("the reply takes too long"));
    if let Err(why) = result {
        tab.set_error(format!("{why} (after the client had gone)"));
    }
}
