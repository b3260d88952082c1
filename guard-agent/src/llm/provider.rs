//! A provider is data: hosts, formats by path, credential place. Built-in ones stand in one table; configuration adds
//! and overrides.

use std::net::SocketAddr;
use std::path::PathBuf;

use http::Method;
use http::header::{AUTHORIZATION, HeaderName};

use crate::call::Said;
use crate::keys::KeySource;
use crate::llm::{
    Dialect, DialectKind, anthropic, bedrock_converse, bedrock_invoke, cohere, embeddings, gemini,
    gemini_live, media, ollama, openai_chat, openai_completions, openai_realtime, openai_responses,
};

mod builtin;
mod host;
mod side;

pub use builtin::builtin;
pub use host::{covers, is_subtree, subtree_of};
pub use side::{Side, SideKind};

/// Where a provider expects its credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer KEY`.
    Bearer,
    /// `x-api-key: KEY`, or `Authorization: Bearer KEY` where the client chose that (Anthropic's SDKs do both).
    XApiKeyOrBearer,
    /// `Authorization: Bearer KEY`, or `x-api-key: KEY` where the client chose that (providers of OpenAI's and Anthropic's
    /// formats).
    BearerOrXApiKey,
    /// `api-key: KEY`, or `Authorization: Bearer KEY` where the client chose that (Azure).
    ApiKeyOrBearer,
    /// `x-goog-api-key: KEY`, also for clients that write `?key=`; or `Authorization: Bearer KEY` where the client chose
    /// that (the endpoints that speak OpenAI's formats).
    GoogleKeyOrBearer,
    /// A Bedrock API key as a bearer token, or AWS Signature Version 4: what Guard's own key is decides.
    Aws,
}

impl Auth {
    /// The header for the key: the one that the client chose where the provider takes both.
    pub fn header(self, said: &Said) -> HeaderName {
        const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
        let chose = |header: HeaderName| {
            said.credentials
                .iter()
                .any(|shown| shown.header.as_ref() == Some(&header))
        };
        let bearer = chose(AUTHORIZATION);
        match self {
            Self::XApiKeyOrBearer if !bearer => X_API_KEY,
            Self::BearerOrXApiKey if !bearer && chose(X_API_KEY) => X_API_KEY,
            Self::ApiKeyOrBearer if !bearer => HeaderName::from_static("api-key"),
            Self::GoogleKeyOrBearer if !bearer => HeaderName::from_static("x-goog-api-key"),
            Self::XApiKeyOrBearer
            | Self::BearerOrXApiKey
            | Self::ApiKeyOrBearer
            | Self::GoogleKeyOrBearer
            | Self::Bearer
            | Self::Aws => AUTHORIZATION,
        }
    }

    /// Name in documentation and in the configuration.
    pub fn label(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::XApiKeyOrBearer => "x-api-key",
            Self::BearerOrXApiKey => "bearer-or-x-api-key",
            Self::ApiKeyOrBearer => "api-key",
            Self::GoogleKeyOrBearer => "x-goog-api-key",
            Self::Aws => "aws",
        }
    }
}

/// A format and the path below which a provider speaks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What stands before the format's own paths, e.g. `/openai` for Groq; empty for most. A segment `*` stands for
    /// any one segment, `{model}` for one that names the model (Azure's deployments), `{region}` for one that names the
    /// region that serves the call (Vertex AI's locations).
    pub base: String,
    /// What is spoken there.
    pub dialect: DialectKind,
}

/// One provider, after configuration was applied to the table.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Name in configuration, metrics and audit: `openai`, `anthropic`, …
    pub name: String,
    /// Host names (lower case) that belong to it: exact, or `*.` and a name for all that is below it.
    pub hosts: Vec<String>,
    /// Formats by path. The first one words what is refused before the path is known.
    pub formats: Vec<Mount>,
    /// Credential place.
    pub auth: Auth,
    /// Another provider whose keys, placeholders and prices hold here too.
    pub like: Option<String>,
    /// Variables in which clients look for the key, beside `NAME_API_KEY`.
    pub variables: &'static [&'static str],
    /// Paths that clients call beside inference.
    pub side: &'static [Side],
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

impl Provider {
    /// A provider of one format at the root of its hosts.
    pub fn plain(name: &str, hosts: &[&str], dialect: DialectKind, auth: Auth) -> Self {
        Self {
            name: name.to_owned(),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            formats: vec![Mount {
                base: String::new(),
                dialect,
            }],
            auth,
            like: None,
            variables: &[],
            side: &[],
            keys: Vec::new(),
            connect_to: None,
            trust: Vec::new(),
        }
    }

    /// The name under which its keys and placeholders are kept.
    pub fn key_name(&self) -> &str {
        self.like.as_deref().unwrap_or(&self.name)
    }

    /// The format that words what is refused before the path is known.
    pub fn first_format(&self) -> DialectKind {
        self.formats
            .first()
            .map_or(DialectKind::OpenaiChat, |mount| mount.dialect)
    }

    /// What a method and path are beside inference, if the table knows.
    pub fn side(&self, method: &Method, path: &str) -> Option<SideKind> {
        self.side
            .iter()
            .find(|side| side.covers(method, path))
            .map(|side| side.kind)
    }
}

/// The provider to which a host name belongs: an exact name before one that is below a name. Names are compared without
/// regard to case and without a final dot.
pub fn by_host<'a>(providers: &'a [Provider], host: &str) -> Option<&'a Provider> {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let exact = providers.iter().find(|provider| provider.hosts.contains(&host));
    exact.or_else(|| {
        providers
            .iter()
            .find(|provider| provider.hosts.iter().any(|own| covers(own, &host)))
    })
}

/// The reader and writer of a wire format.
pub fn dialect_of(kind: DialectKind) -> &'static dyn Dialect {
    match kind {
        DialectKind::OpenaiChat => &openai_chat::OPENAI,
        DialectKind::OpenaiCompletions => &openai_completions::COMPLETIONS,
        DialectKind::OpenaiResponses => &openai_responses::RESPONSES,
        DialectKind::Embeddings => &embeddings::EMBEDDINGS,
        DialectKind::Media => &media::MEDIA,
        DialectKind::AnthropicMessages => &anthropic::ANTHROPIC,
        DialectKind::AnthropicVertex => &anthropic::VERTEX,
        DialectKind::Gemini => &gemini::GEMINI,
        DialectKind::BedrockConverse => &bedrock_converse::CONVERSE,
        DialectKind::BedrockInvoke => &bedrock_invoke::INVOKE,
        DialectKind::Cohere => &cohere::COHERE,
        DialectKind::Ollama => &ollama::OLLAMA,
        DialectKind::OpenaiRealtime => &openai_realtime::REALTIME,
        DialectKind::GeminiLive => &gemini_live::LIVE,
    }
}

/// The same, in the flavour of one provider: what differs is the field for an output cap that the client did not set (for a
/// provider that is not built in, the older and more widely known one), and what the shortest recording is billed as.
pub fn dialect_at(provider: &Provider, kind: DialectKind) -> &'static dyn Dialect {
    match kind {
        DialectKind::OpenaiChat if !builtin::takes_max_completion_tokens(&provider.name) => {
            &openai_chat::COMPATIBLE
        }
        DialectKind::Media if provider.name == "groq" => &media::GROQ,
        kind => dialect_of(kind),
    }
}

/// The format that words what is refused before the path is known.
pub fn dialect_for(provider: &Provider) -> &'static dyn Dialect {
    dialect_at(provider, provider.first_format())
}

#[cfg(test)]
mod tests;
