//! What the ledger keeps of a call beside its money, so that `ledger.db` can say on what it went. None of it decides
//! anything, and all of it may be missing.

use std::sync::Arc;

use super::Cause;

/// Who makes a call, and to whom; known when it is reserved.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Caller {
    /// The agent.
    pub agent: Arc<str>,
    /// Who pays.
    pub owner: Arc<str>,
    /// The run.
    pub run: Arc<str>,
    /// The client's own label.
    pub session: Option<Arc<str>>,
    /// The provider.
    pub provider: Arc<str>,
    /// The model by its name in the price table, else as it was asked for.
    pub model: Arc<str>,
    /// The provider's key, by name.
    pub key: Option<Arc<str>>,
}

/// How a call ended; known when it is settled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ended {
    /// What its money did.
    pub cause: Cause,
    /// Status of the provider's answer.
    pub status: Option<u16>,
    /// Tokens, if the provider reported them.
    pub tokens: Option<Buckets>,
    /// Tools that the model called, each once.
    pub tools: Vec<Box<str>>,
}

/// Tokens by what they are billed as; reasoning is part of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Buckets {
    /// Read, from no cache and into none.
    pub input: u64,
    /// Read from a cache.
    pub cache_read: u64,
    /// Written into a cache.
    pub cache_write: u64,
    /// Written by the model.
    pub output: u64,
    /// Of the output, reasoning.
    pub reasoning: u64,
}

impl Buckets {
    pub(super) fn all(&self) -> [u64; 5] {
        [
            self.input,
            self.cache_read,
            self.cache_write,
            self.output,
            self.reasoning,
        ]
    }

    pub(super) fn of([input, cache_read, cache_write, output, reasoning]: [u64; 5]) -> Self {
        Self {
            input,
            cache_read,
            cache_write,
            output,
            reasoning,
        }
    }
}
