//! A provider is data: hosts, credential place, dialect. Built-in ones stand in one table; configuration adds and
//! overrides.

use std::net::SocketAddr;
use std::path::PathBuf;

use http::header::{AUTHORIZATION, HeaderName};

use crate::call::Said;
use crate::keys::KeySource;
use crate::llm::anthropic::ANTHROPIC;
use crate::llm::openai_chat::{COMPATIBLE, OPENAI};
use crate::llm::{Dialect, DialectKind};

mod builtin;

pub use builtin::builtin;

/// Where a provider expects its credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer KEY`.
    Bearer,
    /// `x-api-key: KEY`, or `Authorization: Bearer KEY` where the client chose that (Anthropic's SDKs do both).
    XApiKeyOrBearer,
}

impl Auth {
    /// The header for the key: the one that the client chose where the provider takes both.
    pub fn header(self, said: &Said) -> HeaderName {
        let bearer = said
            .credentials
            .iter()
            .any(|shown| shown.header == Some(AUTHORIZATION));
        match self {
            Self::XApiKeyOrBearer if !bearer => HeaderName::from_static("x-api-key"),
            Self::XApiKeyOrBearer | Self::Bearer => AUTHORIZATION,
        }
    }
}

/// One provider, after configuration was applied to the table.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Name in configuration, metrics and audit: `openai`, `anthropic`, …
    pub name: String,
    /// Exact host names (lower case) that belong to it.
    pub hosts: Vec<String>,
    /// Wire format.
    pub dialect: DialectKind,
    /// Credential place.
    pub auth: Auth,
    /// Path prefix before the dialect's own paths, e.g. `/openai` for Groq; empty for most.
    pub base_path: String,
    /// Real keys, by name; the first one is used.
    pub keys: Vec<NamedKey>,
    /// Dial this address instead of the original destination; exempt from the address rules.
    pub connect_to: Option<SocketAddr>,
    /// PEM files with roots that are trusted for this provider beside the public ones.
    pub trust: Vec<PathBuf>,
}

/// A key of a provider and where it comes from.
#[derive(Debug, Clone)]
pub struct NamedKey {
    /// Name in audit and metrics.
    pub name: String,
    /// Where the secret is read from.
    pub source: KeySource,
}

/// The provider to which a host name belongs. Names are compared without regard to case and without a final dot.
pub fn by_host<'a>(providers: &'a [Provider], host: &str) -> Option<&'a Provider> {
    let host = host.strip_suffix('.').unwrap_or(host);
    providers
        .iter()
        .find(|provider| provider.hosts.iter().any(|own| own.eq_ignore_ascii_case(host)))
}

/// The reader and writer of a wire format.
pub fn dialect_of(kind: DialectKind) -> &'static dyn Dialect {
    match kind {
        DialectKind::OpenaiChat => &OPENAI,
        DialectKind::AnthropicMessages => &ANTHROPIC,
    }
}

/// The same, in the flavour of one provider: what differs is only the field for an output cap that the client did not
/// set. For a provider that is not built in, the older and more widely known field.
pub fn dialect_for(provider: &Provider) -> &'static dyn Dialect {
    match provider.dialect {
        DialectKind::OpenaiChat if !builtin::takes_max_completion_tokens(&provider.name) => &COMPATIBLE,
        kind => dialect_of(kind),
    }
}

#[cfg(test)]
mod tests;
