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
            .all(|host| *host == host.to_ascii_lowercase() && host.contains('.') && !host.contains('{'))
    );
    for provider in &all {
        for mount in &provider.formats {
            let segments = mount.base.split('/').skip(1);
            let odd = segments.filter(|part| !matches!(*part, "*" | "{model}" | "{region}"));
            assert!(
                odd.clone().all(|part| detect::is_plain(&format!("/{part}"))),
                "{mount:?}"
            );
            assert!(mount.base.is_empty() || mount.base.starts_with('/'), "{mount:?}");
        }
    }
}

fn kind(host: &str, method: Method, path: &str) -> EndpointKind {
    let all = builtin();
    detect::endpoint(by_host(&all, host).unwrap(), &method, path).kind
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

/// The table of the documentation is this one. `GUARD_WRITE_DOCS=1 cargo test` writes it anew.
#[test]
fn the_documentation_lists_every_provider() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/providers.md");
    let mut text = std::fs::read_to_string(path).unwrap();
    for (mark, expected) in [("providers", providers_table()), ("side", side_table())] {
        let (begin, end) = (
            format!("<!-- {mark}: begin -->\n"),
            format!("<!-- {mark}: end -->"),
        );
        let (before, rest) = text.split_once(&begin).unwrap();
        let (listed, after) = rest.split_once(&end).unwrap();
        if std::env::var_os("GUARD_WRITE_DOCS").is_none() {
            assert_eq!(
                listed, expected,
                "run: GUARD_WRITE_DOCS=1 cargo test -p guard-agent --lib provider"
            );
        }
        text = format!("{before}{begin}{expected}{end}{after}");
    }
    if std::env::var_os("GUARD_WRITE_DOCS").is_some() {
        std::fs::write(path, text).unwrap();
    }
}

fn providers_table() -> String {
    use std::fmt::Write as _;
    let mut out = "| name | hosts | speaks | key | variables |\n|---|---|---|---|---|\n".to_owned();
    let patterns = builtin::patterns();
    for provider in builtin() {
        let (_, hosts) = patterns.iter().find(|(name, _)| *name == provider.name).unwrap();
        let hosts: Vec<String> = hosts.iter().map(|host| format!("`{host}`")).collect();
        let mut speaks: Vec<(String, Vec<&str>)> = Vec::new();
        for mount in &provider.formats {
            match speaks.iter_mut().find(|(base, _)| *base == mount.base) {
                Some((_, kinds)) => kinds.push(mount.dialect.label()),
                None => speaks.push((mount.base.clone(), vec![mount.dialect.label()])),
            }
        }
        let speaks: Vec<String> = speaks
            .iter()
            .map(|(base, kinds)| {
                let place = if base.is_empty() {
                    String::new()
                } else {
                    format!("`{base}`: ")
                };
                format!("{place}{}", kinds.join(", "))
            })
            .collect();
        let like = provider
            .like
            .as_ref()
            .map(|name| format!(", of {name}"))
            .unwrap_or_default();
        let own = format!("{}_API_KEY", provider.name.to_ascii_uppercase().replace('-', "_"));
        let variables: Vec<String> = std::iter::once(own)
            .chain(provider.variables.iter().map(|name| (*name).to_owned()))
            .map(|name| format!("`{name}`"))
            .collect();
        writeln!(
            out,
            "| `{}` | {} | {} | {}{like} | {} |",
            provider.name,
            hosts.join(", "),
            speaks.join("; "),
            provider.auth.label(),
            variables.join(", "),
        )
        .unwrap();
    }
    out
}

fn side_table() -> String {
    use std::fmt::Write as _;
    let mut out = "| provider | request | what happens |\n|---|---|---|\n".to_owned();
    for provider in builtin() {
        for side in provider.side {
            let what = match side.kind {
                SideKind::Needed => "passes",
                SideKind::Telemetry => "refused, or passes with `telemetry = \"pass\"`",
            };
            writeln!(
                out,
                "| `{}` | `{} {}` | {what} |",
                provider.name, side.method, side.path
            )
            .unwrap();
        }
    }
    out
}

/// The format that a path is in, and the model that the base path names.
fn spoken(host: &str, path: &str) -> (EndpointKind, &'static str, Option<String>) {
    let all = builtin();
    let found = detect::endpoint(by_host(&all, host).unwrap(), &Method::POST, path);
    (found.kind, found.dialect.kind().label(), found.place.model)
}

const SPOKEN: &[(&str, &str, &str)] = &[
    ("api.openai.com", "/v1/chat/completions", "openai-chat"),
    ("api.openai.com", "/v1/responses", "openai-responses"),
    ("api.openai.com", "/v1/completions", "openai-completions"),
    ("api.openai.com", "/v1/embeddings", "embeddings"),
    ("chatgpt.com", "/backend-api/codex/responses", "openai-responses"),
    ("api.deepseek.com", "/chat/completions", "openai-chat"),
    ("api.deepseek.com", "/anthropic/v1/messages", "anthropic-messages"),
    ("api.moonshot.ai", "/anthropic/v1/messages", "anthropic-messages"),
    ("api.z.ai", "/api/anthropic/v1/messages", "anthropic-messages"),
    ("api.z.ai", "/api/coding/paas/v4/chat/completions", "openai-chat"),
    ("openrouter.ai", "/api/v1/messages", "anthropic-messages"),
    ("openrouter.ai", "/api/v1/responses", "openai-responses"),
    ("api.githubcopilot.com", "/chat/completions", "openai-chat"),
    ("api.githubcopilot.com", "/responses", "openai-responses"),
    ("api.githubcopilot.com", "/v1/messages", "anthropic-messages"),
    (
        "generativelanguage.googleapis.com",
        "/v1beta/models/gemini-2.5-flash:generateContent",
        "gemini",
    ),
    (
        "generativelanguage.googleapis.com",
        "/v1beta/openai/chat/completions",
        "openai-chat",
    ),
    (
        "europe-west4-aiplatform.googleapis.com",
        "/v1/projects/p/locations/europe-west4/publishers/google/models/gemini-2.5-pro:streamGenerateContent",
        "gemini",
    ),
    (
        "aiplatform.googleapis.com",
        "/v1beta1/projects/p/locations/global/publishers/anthropic/models/claude-sonnet-4-5@20250929:rawPredict",
        "anthropic-vertex",
    ),
    (
        "mine.openai.azure.com",
        "/openai/v1/responses",
        "openai-responses",
    ),
    ("mine.openai.azure.com", "/openai/responses", "openai-responses"),
    (
        "mine.services.ai.azure.com",
        "/anthropic/v1/messages",
        "anthropic-messages",
    ),
    (
        "mine.services.ai.azure.com",
        "/models/chat/completions",
        "openai-chat",
    ),
    (
        "bedrock-runtime.eu-central-1.amazonaws.com",
        "/model/a.b-v1:0/converse",
        "bedrock-converse",
    ),
    (
        "bedrock-runtime.us-east-1.amazonaws.com",
        "/model/a.b-v1%3A0/invoke",
        "bedrock-invoke",
    ),
    (
        "bedrock-mantle.us-east-1.api.aws",
        "/v1/responses",
        "openai-responses",
    ),
    ("api.mistral.ai", "/v1/fim/completions", "openai-completions"),
    ("api.cohere.com", "/v2/chat", "cohere"),
    ("ollama.com", "/api/chat", "ollama"),
    ("ollama.com", "/v1/chat/completions", "openai-chat"),
    ("api.voyageai.com", "/v1/embeddings", "embeddings"),
];

#[test]
fn one_host_speaks_several_formats_by_path() {
    for (host, path, format) in SPOKEN.iter().copied() {
        assert_eq!(spoken(host, path), (Inference, format, None), "{host}{path}");
    }
    let by_deployment = spoken(
        "mine.openai.azure.com",
        "/openai/deployments/my-gpt/chat/completions",
    );
    assert_eq!(
        by_deployment,
        (Inference, "openai-chat", Some("my-gpt".to_owned()))
    );
}

#[test]
fn a_path_that_only_looks_like_a_known_one_is_other() {
    for (host, path) in [
        (
            "mine.openai.azure.com",
            "/openai/deployments/a/b/chat/completions",
        ),
        ("mine.openai.azure.com", "/openai/deployments//chat/completions"),
        (
            "mine.openai.azure.com",
            "/openai/deployments/a%2F..%2Fb/chat/completions",
        ),
        (
            "aiplatform.googleapis.com",
            "/v1/projects/p/locations/l/publishers/google/models/a%2Fb:generateContent",
        ),
        (
            "aiplatform.googleapis.com",
            "/v1/projects/p/q/locations/l/publishers/google/models/m:generateContent",
        ),
        (
            "aiplatform.googleapis.com",
            "/v1/projects/p/locations/l/publishers/meta/models/m:rawPredict",
        ),
        (
            "bedrock-runtime.us-east-1.amazonaws.com",
            "/model/a%2F..%2Fb/converse",
        ),
        ("bedrock-runtime.us-east-1.amazonaws.com", "/model/a/converse/x"),
        ("api.openai.com", "/v1/chat/%63ompletions"),
        ("api.deepseek.com", "/anthropicx/v1/messages"),
        ("chatgpt.com", "/backend-api/responses"),
    ] {
        assert_eq!(kind(host, Method::POST, path), Other, "{host}{path}");
    }
}

#[test]
fn side_paths_of_agents_are_known_by_method_and_path() {
    use EndpointKind::{Side, Telemetry};
    for (host, method, path, wanted) in [
        ("api.anthropic.com", Method::HEAD, "/api/hello", Side),
        (
            "api.anthropic.com",
            Method::GET,
            "/api/claude_code/settings",
            Side,
        ),
        ("api.anthropic.com", Method::POST, "/api/eval/sdk-abc", Side),
        (
            "api.anthropic.com",
            Method::POST,
            "/api/event_logging/v2/batch",
            Telemetry,
        ),
        (
            "api.anthropic.com",
            Method::POST,
            "/api/claude_code/settings",
            Other,
        ),
        ("api.anthropic.com", Method::POST, "/api/eval/a%2Fb", Other),
        ("chatgpt.com", Method::GET, "/backend-api/codex/models", Side),
        ("ab.chatgpt.com", Method::POST, "/otlp/v1/metrics", Telemetry),
        ("api.openai.com", Method::POST, "/v1/traces/ingest", Telemetry),
        (
            "api.openai.com",
            Method::POST,
            "/v1/moderations",
            EndpointKind::Free,
        ),
        (
            "api.openai.com",
            Method::POST,
            "/v1/images/variations",
            EndpointKind::Unpriced,
        ),
        (
            "api.openai.com",
            Method::GET,
            "/v1/responses/resp_1",
            EndpointKind::Free,
        ),
    ] {
        assert_eq!(kind(host, method, path), wanted, "{host}{path}");
    }
}

#[test]
fn regions_of_clouds_are_hosts_of_their_own() {
    let all = builtin();
    for (host, name) in [
        ("bedrock-runtime.ap-southeast-7.amazonaws.com", "bedrock"),
        ("me-west1-aiplatform.googleapis.com", "vertex"),
        ("anything.openai.azure.com", "azure"),
        ("MINE.Cognitiveservices.Azure.com.", "azure"),
    ] {
        assert_eq!(by_host(&all, host).unwrap().name, name, "{host}");
    }
    for host in [
        "bedrock-runtime.xx-nowhere-1.amazonaws.com",
        "openai.azure.com",
        "storage.googleapis.com",
    ] {
        assert!(by_host(&all, host).is_none(), "{host}");
    }
    let like = all.iter().filter_map(|provider| provider.like.as_deref());
    for name in like {
        assert!(all.iter().any(|provider| provider.name == name), "{name}");
    }
}
