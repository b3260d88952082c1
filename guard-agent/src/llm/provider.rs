//! A provider is data: hosts, credential place, dialect. Built-in ones stand in one table; configuration adds and
//! overrides.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::keys::KeySource;
use crate::llm::DialectKind;

/// Where a provider expects its credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer KEY`.
    Bearer,
    /// `x-api-key: KEY`, or `Authorization: Bearer KEY` where the client chose that (Anthropic's SDKs do both).
    XApiKeyOrBearer,
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

/// The providers that Guard knows without being told.
pub fn builtin() -> Vec<Provider> {
    Vec::new()
}
