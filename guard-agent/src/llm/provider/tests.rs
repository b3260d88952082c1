use http::Method;

use super::*;
use crate::llm::EndpointKind::{self, CountTokens, Inference, Models, Other};
use crate::llm::detect;

#[test]
fn names_and_hosts_are_unique_and_lower_case() {
    let all = builtin();
    let mut names: Vec<_> = all.iter().map(|p| p.name.clone()).collect();
    let mut hosts: Vec<_> = all.iter().flat_map(|p| p.hosts.clone()).collect();
    let (name_count, host_count) = (names.len(), hosts.len());
    names.sort();
    names.dedup();
    hosts.sort();
    hosts.dedup();
    assert_eq!((names.len(), hosts.len()), (name_count, host_count));
    assert!(
        hosts
            .iter()
            .all(|host| *host == host.to_ascii_lowercase() && host.contains('.'))
    );
    for provider in &all {
        let base = &provider.base_path;
        assert!(base.is_empty() || detect::is_plain(base), "{base}");
    }
}

fn kind(host: &str, method: Method, path: &str) -> EndpointKind {
    let all = builtin();
    detect::endpoint(by_host(&all, host).unwrap(), &method, path)
}

#[test]
fn hosts_are_found_however_they_are_written() {
    let all = builtin();
    for host in [
        "api.openai.com",
        "API.OpenAI.com",
        "api.openai.com.",
        "eu.api.openai.com",
    ] {
        assert_eq!(by_host(&all, host).unwrap().name, "openai", "{host}");
    }
    for host in [
        "openai.com",
        "xapi.openai.com",
        "api.openai.com..",
        "",
        "api.openai.com.evil.example",
    ] {
        assert!(by_host(&all, host).is_none(), "{host}");
    }
}

#[test]
fn endpoints_are_known_by_method_and_path() {
    for (host, path) in [
        ("api.openai.com", "/v1/chat/completions"),
        ("api.groq.com", "/openai/v1/chat/completions"),
        ("api.fireworks.ai", "/inference/v1/chat/completions"),
        ("openrouter.ai", "/api/v1/chat/completions"),
        ("api.deepseek.com", "/chat/completions"),
        ("api.deepseek.com", "/beta/chat/completions"),
        ("api.perplexity.ai", "/chat/completions"),
        ("api.deepinfra.com", "/v1/openai/chat/completions"),
        ("api.z.ai", "/api/paas/v4/chat/completions"),
        ("dashscope.aliyuncs.com", "/compatible-mode/v1/chat/completions"),
        ("models.github.ai", "/inference/chat/completions"),
        ("api.anthropic.com", "/v1/messages"),
    ] {
        assert_eq!(kind(host, Method::POST, path), Inference, "{host}{path}");
        assert_eq!(kind(host, Method::GET, path), Other, "{host}{path}");
    }
    for (host, path) in [
        ("api.openai.com", "/v1/models"),
        ("api.openai.com", "/v1/models/ft:gpt-4o:org::id"),
        ("api.groq.com", "/openai/v1/models"),
        ("api.together.xyz", "/v1/models/meta-llama/Llama-3.3-70B"),
        ("api.anthropic.com", "/v1/models/claude-sonnet-4-5"),
    ] {
        assert_eq!(kind(host, Method::GET, path), Models, "{host}{path}");
        assert_eq!(kind(host, Method::DELETE, path), Other, "{host}{path}");
    }
    assert_eq!(
        kind("api.anthropic.com", Method::POST, "/v1/messages/count_tokens"),
        CountTokens
    );
}

#[test]
fn everything_else_is_other() {
    for path in [
        "/v1/responses",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/batches",
        "/v1/files",
        "/v1/fine_tuning/jobs",
        "/v1/realtime/client_secrets",
        "/v1/messages",
        "/v1/messages/batches",
        "/v1",
        "/",
        "",
        "*",
        // Spellings that a provider could read as the right path, or as another one.
        "/v1/chat/completions/",
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/./chat/completions",
        "/v1/files/../chat/completions",
        "/v1/chat%2fcompletions",
        "/v1/chat/%63ompletions",
        "/v1/chat/completions?x",
        "/v1/chat/completions;x",
        "/v1/chat/completions#x",
        "/v1\\chat\\completions",
        "/V1/chat/completions",
        "/v1/v1/chat/completions",
        "v1/chat/completions",
        "http://api.openai.com/v1/chat/completions",
        "/v1/chat/completions\0",
        "/v1/chat/complétions",
        "/openai/v1/chat/completions",
    ] {
        assert_eq!(kind("api.openai.com", Method::POST, path), Other, "{path:?}");
    }
    for path in [
        "/v1/models/",
        "/v1/models/..",
        "/v1/models/../files",
        "/v1/models/%2e%2e/files",
        "/v1/modelsx",
    ] {
        assert_eq!(kind("api.openai.com", Method::GET, path), Other, "{path:?}");
    }
    for path in ["/v1/chat/completions", "/openaiv1/chat/completions", "/openai"] {
        assert_eq!(kind("api.groq.com", Method::POST, path), Other, "{path:?}");
    }
    for path in [
        "/messages",
        "/v1/messages/batches",
        "/v1/complete",
        "/v1/files",
        "/v1/chat/completions",
    ] {
        assert_eq!(kind("api.anthropic.com", Method::POST, path), Other, "{path:?}");
    }
}

#[test]
fn a_missing_output_cap_goes_where_the_provider_reads_it() {
    let body = bytes::Bytes::from_static(br#"{"model":"m"}"#);
    let edits = crate::llm::BodyEdits {
        output_cap: Some(5),
        ..Default::default()
    };
    let all = builtin();
    for (host, expected) in [
        ("api.openai.com", r#"{"model":"m","max_completion_tokens":5}"#),
        ("api.mistral.ai", r#"{"model":"m","max_tokens":5}"#),
        ("api.anthropic.com", r#"{"model":"m","max_tokens":5}"#),
    ] {
        let dialect = dialect_for(by_host(&all, host).unwrap());
        assert_eq!(dialect.rewrite(&body, &edits).unwrap(), expected, "{host}");
    }
}
