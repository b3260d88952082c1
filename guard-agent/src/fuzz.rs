//! What must hold for every input of Guard's parsers, one function each: the targets of `cargo xtask test --fuzz`.
//!
//! In: bytes, of which the first few say how the rest is used. Out: nothing. On failure: a panic. A fuzzer (`fuzz/` in
//! the repository) looks for inputs; the ordinary tests run its seeds and everything that it has ever found. Built only
//! for these: the feature `fuzz` is on nowhere else.
//!
//! A new parser gets a function here, a row in [`TARGETS`] and in `fuzz/Cargo.toml`, seeds in `seeds.rs`, and a mistake to
//! be found in `fuzz/planted.toml`.

use std::fmt::Debug;
use std::sync::OnceLock;

use crate::llm::DialectKind;

mod billed;
mod coded;
mod connection;
mod edits;
mod framing;
mod names;
mod realtime;
pub(crate) mod replies;
mod requests;
mod rules;
#[cfg(test)]
mod seeds;
mod setup;
mod sockets;
#[cfg(test)]
mod tests;

/// One target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name: also of the program, and of the directories of its inputs.
    pub name: &'static str,
    /// Checks one input.
    pub run: fn(&[u8]),
}

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

/// All of them, in the order of the path.
pub const TARGETS: [Target; 35] = [
    target("config", setup::config),
    target("ledger", setup::ledger),
    target("client_hello", connection::client_hello),
    target("http_head", connection::http_head),
    target("dns", names::dns),
    target("seam", connection::seam),
    target("socket_frames", sockets::frames),
    target("socket_responses", sockets::responses),
    target("socket_realtime", realtime::openai),
    target("socket_live", realtime::live),
    target("gzip", |input| coded::check(coded::Codec::Gzip, input)),
    target("deflate", |input| coded::check(coded::Codec::Deflate, input)),
    target("brotli", |input| coded::check(coded::Codec::Brotli, input)),
    target("zstd", |input| coded::check(coded::Codec::Zstd, input)),
    target("sse", framing::sse),
    target("event_stream", framing::event_stream),
    target("lines", framing::lines),
    target("json_edit", edits::json_edit),
    target("pictures", billed::pictures),
    target("body_edits", requests::body_edits),
    target("tool_gate", rules::tool_gate),
    target("openai_chat", |input| dialect(DialectKind::OpenaiChat, input)),
    target("openai_completions", |input| {
        dialect(DialectKind::OpenaiCompletions, input);
    }),
    target("openai_responses", |input| {
        dialect(DialectKind::OpenaiResponses, input);
    }),
    target("embeddings", |input| dialect(DialectKind::Embeddings, input)),
    target("anthropic_messages", |input| {
        dialect(DialectKind::AnthropicMessages, input);
    }),
    target("anthropic_vertex", |input| {
        dialect(DialectKind::AnthropicVertex, input);
    }),
    target("gemini", |input| dialect(DialectKind::Gemini, input)),
    target("bedrock_converse", |input| {
        dialect(DialectKind::BedrockConverse, input);
    }),
    target("bedrock_invoke", |input| {
        dialect(DialectKind::BedrockInvoke, input);
    }),
    target("cohere", |input| dialect(DialectKind::Cohere, input)),
    target("rerank", billed::rerank),
    target("media", |input| dialect(DialectKind::Media, input)),
    target("multipart", billed::multipart),
    target("ollama", |input| dialect(DialectKind::Ollama, input)),
];

/// Checks one input of the target with this name; whether there is one.
pub fn run(name: &str, input: &[u8]) -> bool {
    let found = TARGETS.iter().find(|target| target.name == name);
    if let Some(target) = found {
        (target.run)(input);
    }
    found.is_some()
}

/// Whether this target's planted mistake is switched on. Only a copy of the source asks, into which `fuzz/planted.toml` was
/// worked.
pub fn is_planted(target: &str) -> bool {
    static PLANTED: OnceLock<Option<String>> = OnceLock::new();
    let planted = PLANTED.get_or_init(|| std::env::var("GUARD_PLANTED").ok());
    planted.as_deref() == Some(target)
}

/// A format's requests and replies; the first byte says which.
fn dialect(kind: DialectKind, input: &[u8]) {
    let Some((mode, how, rest)) = controls(input) else {
        return;
    };
    if mode & replies::REPLY == 0 {
        requests::check(kind, mode, how, rest);
    } else {
        replies::check(kind, mode, how, rest);
    }
}

/// Two bytes that say what to do with the rest.
fn controls(input: &[u8]) -> Option<(u8, u8, &[u8])> {
    let (&[mode, how], rest) = input.split_first_chunk::<2>()?;
    Some((mode, how, rest))
}

/// The text in pieces of a size that `how` says; 0 is all at once.
fn pieces(bytes: &[u8], how: u8) -> Vec<&[u8]> {
    match usize::from(how) {
        0 => vec![bytes],
        size if size < 64 => bytes.chunks(size).collect(),
        place => {
            let (head, tail) = bytes.split_at(bytes.len() * (place - 64) / 192);
            vec![head, tail]
        }
    }
}

/// Fails.
fn broken(what: &str) {
    assert!(what.is_empty(), "{what}");
}

/// Fails if two ways to read the same bytes differ.
fn alike<T: PartialEq + Debug>(one: &T, other: &T, what: &str) {
    assert!(one == other, "{what}:\n{one:?}\n{other:?}");
}
