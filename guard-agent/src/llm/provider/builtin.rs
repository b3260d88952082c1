//! The providers that Guard knows without configuration: those that take a plain key and speak a format that it reads.

use crate::llm::DialectKind;
use crate::llm::provider::{Auth, Provider};

/// One row of the table.
struct Row {
    name: &'static str,
    hosts: &'static [&'static str],
    base_path: &'static str,
}

const fn row(name: &'static str, hosts: &'static [&'static str], base_path: &'static str) -> Row {
    Row {
        name,
        hosts,
        base_path,
    }
}

/// Providers of the OpenAI chat format with `Authorization: Bearer`. Hosts and paths are those of each provider's own
/// API reference; the path is what stands before `/v1/chat/completions` or `/chat/completions`.
const OPENAI_CHAT: [Row; 24] = [
    // developers.openai.com/api/reference; the regional hosts: …/api/docs/guides/your-data (data residency)
    row(
        "openai",
        &["api.openai.com", "eu.api.openai.com", "us.api.openai.com"],
        "",
    ),
    // console.groq.com/docs/openai
    row("groq", &["api.groq.com"], "/openai"),
    // docs.together.ai/docs/openai-api-compatibility
    row("together", &["api.together.xyz", "api.together.ai"], ""),
    // docs.fireworks.ai/tools-sdks/openai-compatibility
    row("fireworks", &["api.fireworks.ai"], "/inference"),
    // api-docs.deepseek.com: bare, /v1 and /beta
    row("deepseek", &["api.deepseek.com"], ""),
    // docs.x.ai/docs/api-reference
    row("xai", &["api.x.ai"], ""),
    // openrouter.ai/docs/api-reference
    row("openrouter", &["openrouter.ai"], "/api"),
    // docs.mistral.ai/api; codestral has a host and keys of its own
    row("mistral", &["api.mistral.ai", "codestral.mistral.ai"], ""),
    // docs.perplexity.ai/api-reference: /chat/completions without a version
    row("perplexity", &["api.perplexity.ai"], ""),
    // inference-docs.cerebras.ai/resources/openai
    row("cerebras", &["api.cerebras.ai"], ""),
    // platform.moonshot.ai/docs
    row("moonshot", &["api.moonshot.ai", "api.moonshot.cn"], ""),
    // docs.api.nvidia.com/nim/reference
    row("nvidia", &["integrate.api.nvidia.com", "ai.api.nvidia.com"], ""),
    // deepinfra.com/docs/openai_api: /v1/openai/chat/completions
    row("deepinfra", &["api.deepinfra.com"], "/v1/openai"),
    // docs.sambanova.ai/cloud/api-reference
    row("sambanova", &["api.sambanova.ai"], ""),
    // docs.studio.nebius.com/inference/api
    row("nebius", &["api.studio.nebius.ai", "api.studio.nebius.com"], ""),
    // docs.hyperbolic.xyz/docs/rest-api
    row("hyperbolic", &["api.hyperbolic.xyz"], ""),
    // huggingface.co/docs/inference-providers
    row("huggingface", &["router.huggingface.co"], ""),
    // docs.z.ai/api-reference; docs.bigmodel.cn
    row("zai", &["api.z.ai", "open.bigmodel.cn"], "/api/paas/v4"),
    // alibabacloud.com/help/en/model-studio/compatibility-of-openai-with-dashscope
    row(
        "dashscope",
        &["dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com"],
        "/compatible-mode",
    ),
    // platform.minimax.io/docs/api-reference/text-openai-api
    row("minimax", &["api.minimax.io", "api.minimaxi.com"], ""),
    // volcengine.com/docs/82379
    row("volcengine", &["ark.cn-beijing.volces.com"], "/api/v3"),
    // docs.github.com/en/rest/models/inference
    row("github-models", &["models.github.ai"], "/inference"),
    // vercel.com/docs/ai-gateway/openai-compat
    row("vercel", &["ai-gateway.vercel.sh"], ""),
    // docs.helicone.ai/gateway
    row("helicone", &["ai-gateway.helicone.ai"], ""),
];

/// Providers whose references name `max_completion_tokens` as the output cap. A provider that is not here gets
/// `max_tokens`, which all of them understand except OpenAI's own reasoning models.
const MAX_COMPLETION_TOKENS: [&str; 4] = ["openai", "groq", "cerebras", "xai"];

/// Whether an output cap that Guard adds goes into `max_completion_tokens`.
pub(super) fn takes_max_completion_tokens(name: &str) -> bool {
    MAX_COMPLETION_TOKENS.contains(&name)
}

/// The table, without keys.
pub fn builtin() -> Vec<Provider> {
    let anthropic = Provider {
        // docs.claude.com/en/api; the SDKs send the key in either place.
        name: "anthropic".to_owned(),
        hosts: vec!["api.anthropic.com".to_owned()],
        dialect: DialectKind::AnthropicMessages,
        auth: Auth::XApiKeyOrBearer,
        base_path: String::new(),
        keys: Vec::new(),
        connect_to: None,
        trust: Vec::new(),
    };
    let others = OPENAI_CHAT.iter().map(|row| Provider {
        name: row.name.to_owned(),
        hosts: row.hosts.iter().map(|host| (*host).to_owned()).collect(),
        dialect: DialectKind::OpenaiChat,
        auth: Auth::Bearer,
        base_path: row.base_path.to_owned(),
        keys: Vec::new(),
        connect_to: None,
        trust: Vec::new(),
    });
    std::iter::once(anthropic).chain(others).collect()
}
