//! How a fake provider answers one call.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::patience::patient;

/// Tokens in the buckets in which providers bill; buckets do not overlap, except that `reasoning` is part of
/// `output`. Kept apart from the daemon's own type on purpose: a test's oracle shares no code with what it judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    /// Input that no cache held.
    pub input: u64,
    /// Input read from a cache.
    pub cached: u64,
    /// Input written to a five-minute cache (Anthropic).
    pub cache_write: u64,
    /// Output, with `reasoning`.
    pub output: u64,
    /// Reasoning.
    pub reasoning: u64,
}

impl Tokens {
    /// Plain input and output.
    pub const fn new(input: u64, output: u64) -> Self {
        Self {
            input,
            cached: 0,
            cache_write: 0,
            output,
            reasoning: 0,
        }
    }
}

/// One answer. The default is an honest, immediate `Hello from the provider.`
#[derive(Debug, Clone)]
pub struct Reply {
    /// The words of the answer; one event for each when it is streamed.
    pub words: Vec<String>,
    /// A tool call instead of the words: name and JSON arguments.
    pub tool: Option<(String, String)>,
    /// Calls the tool only while the conversation has no result of a tool, and only if the request declares it.
    pub until_answered: bool,
    /// What is billed.
    pub tokens: Tokens,
    /// What the usage fields say, when that is not what is billed; see [`Fault::NoUsage`] to say nothing.
    pub told: Option<Tokens>,
    /// Model that serves the call, when it is not the one that was asked for.
    pub model: Option<String>,
    /// Waits before the first byte of the reply.
    pub delay: Duration,
    /// Waits here, too, before the first byte of the reply.
    pub gate: Option<Gate>,
    /// When the events of a stream leave.
    pub pace: Pace,
    /// What goes wrong.
    pub fault: Fault,
    /// These bytes in place of an answer in the format; billed all the same.
    pub raw: Option<Raw>,
}

/// A body that is made while it is sent: a beginning, one piece many times over, an end.
#[derive(Debug, Clone)]
pub struct Raw {
    /// Its media type.
    pub kind: &'static str,
    /// Its content coding.
    pub coding: Option<&'static str>,
    /// How it begins.
    pub head: Bytes,
    /// What follows, each time as a frame of its own.
    pub unit: Bytes,
    /// So many times.
    pub times: usize,
    /// How it ends.
    pub tail: Bytes,
}

impl Raw {
    /// All of it at once.
    pub fn whole(kind: &'static str, coding: Option<&'static str>, body: impl Into<Bytes>) -> Self {
        Self {
            kind,
            coding,
            head: body.into(),
            unit: Bytes::new(),
            times: 0,
            tail: Bytes::new(),
        }
    }

    /// How long it is.
    pub fn len(&self) -> usize {
        self.head.len() + self.unit.len() * self.times + self.tail.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for Reply {
    fn default() -> Self {
        Self {
            words: ["Hello", " from", " the", " provider."]
                .map(str::to_owned)
                .to_vec(),
            tool: None,
            until_answered: false,
            tokens: Tokens::new(1000, 100),
            told: None,
            model: None,
            delay: Duration::ZERO,
            gate: None,
            pace: Pace::AtOnce,
            fault: Fault::None,
            raw: None,
        }
    }
}

impl Reply {
    /// These bytes, whatever was asked.
    pub fn raw(raw: Raw) -> Self {
        Self {
            raw: Some(raw),
            ..Self::default()
        }
    }

    /// The default answer, billed at these tokens.
    pub fn billed(tokens: Tokens) -> Self {
        Self {
            tokens,
            ..Self::default()
        }
    }

    /// An answer that goes wrong so.
    pub fn faulty(fault: Fault) -> Self {
        Self {
            fault,
            ..Self::default()
        }
    }

    /// The same, with the events of its stream paced so.
    #[must_use]
    pub fn paced(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// The same, held back until the gate opens.
    #[must_use]
    pub fn behind(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    /// The same, calling this tool.
    #[must_use]
    pub fn calling(mut self, tool: &str, arguments: &str) -> Self {
        self.tool = Some((tool.to_owned(), arguments.to_owned()));
        self
    }

    /// The same, with the words once the tool has answered: what a client's whole round trip needs.
    #[must_use]
    pub fn until_answered(mut self) -> Self {
        self.until_answered = true;
        self
    }

    /// The words as one text.
    pub fn text(&self) -> String {
        self.words.concat()
    }

    /// The tokens that the usage fields state; none when they are left out.
    pub(super) fn stated(&self) -> Option<Tokens> {
        (self.fault != Fault::NoUsage).then(|| self.told.unwrap_or(self.tokens))
    }
}

/// When the events of a stream leave.
#[derive(Debug, Clone)]
pub enum Pace {
    /// As fast as the client reads.
    AtOnce,
    /// One after each such time.
    Every(Duration),
    /// One for each pass that the test gives.
    Stepped(Gate),
}

/// What goes wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The provider fails with this status, in its own error shape; nothing is billed.
    Status(u16),
    /// The reply says nothing of usage.
    NoUsage,
    /// The connection (HTTP/1.1) or the stream (HTTP/2) breaks after this many events; all is billed nonetheless.
    CutAfter(usize),
    /// The reply has the right status and type, and is not the format; all is billed nonetheless.
    Garbage,
}

/// Where replies or events wait until the test lets them pass.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Waiting>);

#[derive(Debug)]
struct Waiting {
    permits: Semaphore,
    count: AtomicUsize,
}

impl Gate {
    /// A closed gate.
    pub fn closed() -> Self {
        Self(Arc::new(Waiting {
            permits: Semaphore::new(0),
            count: AtomicUsize::new(0),
        }))
    }

    /// Lets this many more pass, whoever comes first: of several streams one may pass twice before another passes once.
    pub fn let_pass(&self, count: usize) {
        self.0.permits.add_permits(count);
    }

    /// Waits until this many streams wait here, and lets each of them pass once.
    ///
    /// # Errors
    /// They do not come in time.
    pub fn let_each_pass(&self, streams: usize) -> Result<()> {
        let deadline = Instant::now() + patient(Duration::from_secs(30));
        while self.0.count.load(Ordering::SeqCst) < streams {
            let waiting = self.0.count.load(Ordering::SeqCst);
            ensure!(
                Instant::now() < deadline,
                "{waiting} of {streams} streams wait at the gate"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        // They are served in the order in which they came, so nobody passes twice.
        self.0.count.fetch_sub(streams, Ordering::SeqCst);
        self.let_pass(streams);
        Ok(())
    }

    /// Lets everyone pass from now on.
    pub fn open(&self) {
        self.0.permits.close();
    }

    pub(super) async fn pass(&self) {
        let permit = self.0.permits.acquire();
        tokio::pin!(permit);
        // polled once, it has its place in the queue
        let permit = match futures_util::poll!(&mut permit) {
            Poll::Ready(permit) => permit,
            Poll::Pending => {
                self.0.count.fetch_add(1, Ordering::SeqCst);
                permit.await
            }
        };
        // a closed semaphore is an open gate
        if let Ok(permit) = permit {
            permit.forget();
        }
    }
}
