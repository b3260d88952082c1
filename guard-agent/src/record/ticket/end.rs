//! How a call ended, in the words of metrics.

use crate::policy::Outcome;
use crate::telemetry::metrics;

/// Whether the provider is the cause that it did not end well.
pub(super) fn failed(outcome: &Outcome) -> bool {
    matches!(
        label(outcome),
        metrics::Outcome::ProviderError | metrics::Outcome::UpstreamFailed
    )
}

/// The label of its counter.
pub(super) fn label(outcome: &Outcome) -> metrics::Outcome {
    match outcome.status {
        _ if outcome.cut.is_some() => metrics::Outcome::Cut,
        _ if outcome.client_gone => metrics::Outcome::ClientGone,
        Some(status) if !status.is_success() => metrics::Outcome::ProviderError,
        None => metrics::Outcome::UpstreamFailed,
        Some(_) if outcome.upstream_error.is_some() => metrics::Outcome::UpstreamFailed,
        Some(_) if outcome.facts.error => metrics::Outcome::ProviderError,
        Some(_) => metrics::Outcome::Ok,
    }
}
