//! What a request to a provider's host is, by method and path.
//!
//! In: provider, method, path. Out: the kind of endpoint. On failure: `Other`, which is refused unless the agent lists
//! it: a path that Guard and the provider could read differently is never inference, a model list or a count.

use http::Method;

use crate::llm::EndpointKind;
use crate::llm::provider::{Provider, dialect_for};

/// The kind of endpoint that `method` on `path` (without the query) is at this provider.
pub fn endpoint(provider: &Provider, method: &Method, path: &str) -> EndpointKind {
    if !is_plain(path) {
        return EndpointKind::Other;
    }
    match path.strip_prefix(provider.base_path.as_str()) {
        Some(tail) if tail.starts_with('/') => dialect_for(provider).endpoint(method, tail),
        _ => EndpointKind::Other,
    }
}

/// Whether every server reads the path in the same way: segments of unreserved characters (RFC 3986 §2.3) and a few
/// that stand in model names, none of them empty, `.` or `..`; no escapes, no parameters, no query, no trailing slash.
pub fn is_plain(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~:@".contains(&byte);
    path.strip_prefix('/').is_some_and(|rest| {
        rest.split('/')
            .all(|segment| !matches!(segment, "" | "." | "..") && segment.bytes().all(plain))
    })
}

/// `/models`, or one model in it. Names may have slashes in them (`vendor/name`).
pub(crate) fn is_models(tail: &str) -> bool {
    tail == "/models" || tail.strip_prefix("/models/").is_some_and(|name| !name.is_empty())
}
