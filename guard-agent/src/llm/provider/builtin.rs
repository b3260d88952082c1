//! The providers that Guard knows without configuration. A new one is a row.
//!
//! `hosts` are exact, `*.name` for everything below a name, or have `{aws}` or `{gcp}` in them, which stands for each
//! region of that cloud: certificates name regions one by one, so a region that is not listed here is added with
//! `hosts` in the configuration.
//! `speaks` says which format is found below which path: the path is what stands before the format's own paths
//! (`/v1/chat/completions`, `/v1/messages`, …). The first format words what is refused before the path is known.

use crate::llm::DialectKind::{
    self, AnthropicMessages, AnthropicVertex, BedrockConverse, BedrockInvoke, Cohere, Embeddings, Gemini,
    GeminiLive, Media, Ollama, OpenaiChat, OpenaiCompletions, OpenaiRealtime, OpenaiResponses,
};
use crate::llm::provider::side::{self, Side};
use crate::llm::provider::{Auth, Mount, Provider};

/// One row of the table.
struct Row {
    name: &'static str,
    hosts: &'static [&'static str],
    auth: Auth,
    speaks: &'static [(&'static str, &'static [DialectKind])],
    /// Variables in which clients look for the key, beside `NAME_API_KEY`.
    variables: &'static [&'static str],
    /// Paths that clients call beside inference.
    side: &'static [Side],
    /// Another provider whose keys, placeholders and prices hold here too.
    like: Option<&'static str>,
}

type Hosts = &'static [&'static str];
type Speaks = &'static [(&'static str, &'static [DialectKind])];

/// A row with a bearer key and nothing special.
const fn row(name: &'static str, hosts: Hosts, speaks: Speaks) -> Row {
    Row {
        name,
        hosts,
        auth: Auth::Bearer,
        speaks,
        variables: &[],
        side: &[],
        like: None,
    }
}

impl Row {
    const fn auth(self, auth: Auth) -> Self {
        Self { auth, ..self }
    }
    const fn variables(self, variables: &'static [&'static str]) -> Self {
        Self { variables, ..self }
    }
    const fn side(self, side: &'static [Side]) -> Self {
        Self { side, ..self }
    }
    const fn like(self, name: &'static str) -> Self {
        Self {
            like: Some(name),
            ..self
        }
    }
}

/// All of OpenAI's formats.
const OPENAI: &[DialectKind] = &[OpenaiChat, OpenaiCompletions, OpenaiResponses, Embeddings, Media];
/// OpenAI's format over WebSocket alone. xAI speaks it too and bills the minute, so it is not listed there.
const REALTIME: &[DialectKind] = &[OpenaiRealtime];
/// What most providers of OpenAI's formats speak.
const CHAT: &[DialectKind] = &[OpenaiChat, OpenaiCompletions, Embeddings];
const CHAT_RESPONSES: &[DialectKind] = &[OpenaiChat, OpenaiCompletions, OpenaiResponses, Embeddings];
const MESSAGES: &[DialectKind] = &[AnthropicMessages];

#[rustfmt::skip]
const TABLE: [Row; 39] = [
    // --- makers of models ------------------------------------------------------------------------------------------
    // developers.openai.com/api/reference; the regional hosts: …/api/docs/guides/your-data (data residency)
    row("openai", &["api.openai.com", "eu.api.openai.com", "us.api.openai.com", "gov.api.openai.com"], &[("", OPENAI), ("", REALTIME)])
        .side(side::OPENAI),
    // Codex with a ChatGPT login; with an API key it asks this host for the list of models
    row("chatgpt", &["chatgpt.com", "ab.chatgpt.com", "gov.chatgpt.com"], &[("/backend-api/codex", &[OpenaiResponses])])
        .side(side::CHATGPT).like("openai"),
    // docs.claude.com/en/api; the SDKs send the key in either place
    row("anthropic", &["api.anthropic.com"], &[("", MESSAGES)])
        .auth(Auth::XApiKeyOrBearer).side(side::ANTHROPIC),
    // ai.google.dev/api; /v1beta/openai is ai.google.dev/gemini-api/docs/openai
    row("gemini", &["generativelanguage.googleapis.com"],
        &[("/v1beta", &[Gemini]), ("/v1", &[Gemini]), ("/v1alpha", &[Gemini]), ("/v1beta/openai", &[OpenaiChat, Embeddings]), ("/ws", &[GeminiLive])])
        .auth(Auth::GoogleKeyOrBearer).variables(&["GOOGLE_API_KEY", "GOOGLE_GENERATIVE_AI_API_KEY"]),
    // docs.mistral.ai/api; codestral has a host and keys of its own
    row("mistral", &["api.mistral.ai", "codestral.mistral.ai"], &[("", CHAT)]),
    // docs.cohere.com/v2/reference; /compatibility is docs.cohere.com/docs/compatibility-api
    row("cohere", &["api.cohere.com", "api.cohere.ai"], &[("", &[Cohere]), ("/compatibility", &[OpenaiChat, Embeddings])])
        .variables(&["CO_API_KEY"]),
    // docs.x.ai/docs/api-reference
    row("xai", &["api.x.ai"], &[("", &[OpenaiChat, OpenaiCompletions, OpenaiResponses, Embeddings, AnthropicMessages, Media])]).auth(Auth::BearerOrXApiKey),
    // api-docs.deepseek.com: bare, /v1 and /beta
    row("deepseek", &["api.deepseek.com"], &[("", CHAT), ("/anthropic", MESSAGES)]).auth(Auth::BearerOrXApiKey),
    // platform.moonshot.ai/docs
    row("moonshot", &["api.moonshot.ai", "api.moonshot.cn"], &[("", CHAT), ("/anthropic", MESSAGES)]).auth(Auth::BearerOrXApiKey),
    // docs.z.ai/api-reference; docs.bigmodel.cn
    row("zai", &["api.z.ai", "open.bigmodel.cn"],
        &[("/api/paas/v4", CHAT), ("/api/coding/paas/v4", CHAT), ("/api/anthropic", MESSAGES)])
        .auth(Auth::BearerOrXApiKey).variables(&["ZHIPUAI_API_KEY"]),
    // alibabacloud.com/help/en/model-studio/compatibility-of-openai-with-dashscope
    row("dashscope", &["dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com"],
        &[("/compatible-mode", CHAT_RESPONSES), ("/apps/anthropic", MESSAGES)]).auth(Auth::BearerOrXApiKey),
    // platform.minimax.io/docs/api-reference/text-openai-api
    row("minimax", &["api.minimax.io", "api.minimaxi.com"], &[("", CHAT), ("/anthropic", MESSAGES)]).auth(Auth::BearerOrXApiKey),
    // docs.perplexity.ai/api-reference: /chat/completions without a version
    row("perplexity", &["api.perplexity.ai"], &[("", CHAT_RESPONSES)]).variables(&["PPLX_API_KEY"]),
    // docs.voyageai.com/reference; jina.ai/embeddings
    row("voyage", &["api.voyageai.com"], &[("", &[Embeddings])]),
    row("jina", &["api.jina.ai"], &[("", &[Embeddings])]),
    // --- clouds ----------------------------------------------------------------------------------------------------
    // learn.microsoft.com/azure/ai-foundry/openai/reference: by deployment, and /openai/v1; Claude below /anthropic
    row("azure", &["*.openai.azure.com", "*.services.ai.azure.com", "*.cognitiveservices.azure.com", "models.inference.ai.azure.com"],
        &[("/openai", OPENAI), ("/openai", REALTIME), ("/openai/deployments/{model}", OPENAI), ("/models", CHAT), ("/anthropic", MESSAGES), ("", CHAT)])
        .auth(Auth::ApiKeyOrBearer).variables(&["AZURE_OPENAI_API_KEY", "AZURE_INFERENCE_CREDENTIAL"]),
    // cloud.google.com/vertex-ai/generative-ai/docs/reference/rest; keys are access tokens
    row("vertex", &["aiplatform.googleapis.com", "aiplatform.us.rep.googleapis.com", "aiplatform.eu.rep.googleapis.com",
                    "{gcp}-aiplatform.googleapis.com"],
        &[("/v1/projects/*/locations/*/publishers/google", &[Gemini]),
          ("/v1beta1/projects/*/locations/*/publishers/google", &[Gemini]),
          ("/v1/publishers/google", &[Gemini]), ("/v1beta1/publishers/google", &[Gemini]),
          ("/v1/projects/*/locations/{region}/publishers/anthropic", &[AnthropicVertex]),
          ("/v1beta1/projects/*/locations/{region}/publishers/anthropic", &[AnthropicVertex]),
          ("/v1/projects/*/locations/*/endpoints/openapi", &[OpenaiChat]),
          ("/v1beta1/projects/*/locations/*/endpoints/openapi", &[OpenaiChat]), ("/ws", &[GeminiLive])])
        .auth(Auth::GoogleKeyOrBearer),
    // docs.aws.amazon.com/bedrock/latest/APIReference
    row("bedrock", &["bedrock-runtime.{aws}.amazonaws.com"], &[("", &[BedrockConverse, BedrockInvoke]), ("/openai", &[OpenaiChat])])
        .auth(Auth::Aws).variables(&["AWS_BEARER_TOKEN_BEDROCK"]),
    // …/bedrock/latest/userguide/bedrock-mantle: OpenAI's formats
    row("bedrock-mantle", &["bedrock-mantle.{aws}.api.aws"], &[("", OPENAI), ("/openai", OPENAI), ("/anthropic", MESSAGES)])
        .auth(Auth::Aws).like("bedrock"),
    // docs.github.com/en/rest/models/inference
    row("github-models", &["models.github.ai"], &[("/inference", CHAT), ("/orgs/*/inference", CHAT)]),
    // Copilot's clients use short-lived tokens of their own login
    row("copilot", &["api.githubcopilot.com", "api.individual.githubcopilot.com", "api.business.githubcopilot.com",
                     "api.enterprise.githubcopilot.com"],
        &[("", &[OpenaiChat, OpenaiResponses, Embeddings, AnthropicMessages])]).auth(Auth::BearerOrXApiKey),
    // volcengine.com/docs/82379
    row("volcengine", &["ark.cn-beijing.volces.com"], &[("/api/v3", CHAT_RESPONSES)]).variables(&["ARK_API_KEY"]),
    // --- hosts of open models --------------------------------------------------------------------------------------
    // console.groq.com/docs/openai
    row("groq", &["api.groq.com"], &[("/openai", &[OpenaiChat, OpenaiResponses, Embeddings, Media])]),
    // docs.together.ai/docs/openai-api-compatibility
    row("together", &["api.together.xyz", "api.together.ai"], &[("", CHAT)]),
    // docs.fireworks.ai/tools-sdks/openai-compatibility
    row("fireworks", &["api.fireworks.ai"],
        &[("/inference", &[OpenaiChat, OpenaiCompletions, OpenaiResponses, Embeddings, AnthropicMessages])])
        .auth(Auth::BearerOrXApiKey),
    // inference-docs.cerebras.ai/resources/openai
    row("cerebras", &["api.cerebras.ai"], &[("", CHAT)]),
    // docs.api.nvidia.com/nim/reference
    row("nvidia", &["integrate.api.nvidia.com", "ai.api.nvidia.com"], &[("", CHAT)]),
    // deepinfra.com/docs/openai_api: /v1/openai/chat/completions
    row("deepinfra", &["api.deepinfra.com"], &[("/v1/openai", CHAT), ("/anthropic", MESSAGES)]).auth(Auth::BearerOrXApiKey)
        .variables(&["DEEPINFRA_TOKEN"]),
    // docs.sambanova.ai/cloud/api-reference
    row("sambanova", &["api.sambanova.ai"], &[("", CHAT_RESPONSES)]),
    // docs.studio.nebius.com/inference/api
    row("nebius", &["api.studio.nebius.ai", "api.studio.nebius.com"], &[("", CHAT)]),
    // docs.hyperbolic.xyz/docs/rest-api
    row("hyperbolic", &["api.hyperbolic.xyz"], &[("", CHAT)]),
    // huggingface.co/docs/inference-providers
    row("huggingface", &["router.huggingface.co"], &[("", CHAT_RESPONSES)]).variables(&["HF_TOKEN"]),
    // replicate.com/docs/reference/http: predictions are billed by time, so none is inference here
    row("replicate", &["api.replicate.com", "stream.replicate.com"], &[("", &[Media])]).variables(&["REPLICATE_API_TOKEN"]),
    // docs.ollama.com/cloud
    row("ollama", &["ollama.com"], &[("", &[Ollama]), ("", CHAT)]),
    // --- gateways --------------------------------------------------------------------------------------------------
    // openrouter.ai/docs/api-reference
    row("openrouter", &["openrouter.ai"],
        &[("/api", &[OpenaiChat, OpenaiCompletions, OpenaiResponses, Embeddings, AnthropicMessages])]).auth(Auth::BearerOrXApiKey),
    // vercel.com/docs/ai-gateway/openai-compat
    row("vercel", &["ai-gateway.vercel.sh"], &[("", &[OpenaiChat, OpenaiResponses, Embeddings, AnthropicMessages])])
        .auth(Auth::BearerOrXApiKey).variables(&["AI_GATEWAY_API_KEY"]),
    // docs.helicone.ai/gateway
    row("helicone", &["ai-gateway.helicone.ai"], &[("", CHAT_RESPONSES)]),
    // developers.cloudflare.com/ai-gateway/usage/chat-completion; /v1/ACCOUNT/GATEWAY/PROVIDER
    row("cloudflare", &["gateway.ai.cloudflare.com"],
        &[("/v1/*/*/compat", &[OpenaiChat]), ("/v1/*/*/openai", OPENAI), ("/v1/*/*/anthropic", MESSAGES)])
        .auth(Auth::BearerOrXApiKey),
    // opencode.ai/docs/zen
    row("opencode", &["opencode.ai"], &[("/zen", &[OpenaiChat, OpenaiResponses, AnthropicMessages])]).auth(Auth::BearerOrXApiKey),
];

/// Regions of Amazon Bedrock: docs.aws.amazon.com/general/latest/gr/bedrock.html.
const AWS: [&str; 36] = [
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
    "us-gov-east-1",
    "us-gov-west-1",
    "ca-central-1",
    "ca-west-1",
    "mx-central-1",
    "sa-east-1",
    "eu-central-1",
    "eu-central-2",
    "eu-north-1",
    "eu-south-1",
    "eu-south-2",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "il-central-1",
    "me-central-1",
    "me-south-1",
    "af-south-1",
    "ap-east-1",
    "ap-east-2",
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-south-2",
    "ap-southeast-1",
    "ap-southeast-2",
    "ap-southeast-3",
    "ap-southeast-4",
    "ap-southeast-5",
    "ap-southeast-6",
    "ap-southeast-7",
];

/// Locations of Vertex AI: cloud.google.com/vertex-ai/docs/general/locations.
const GCP: [&str; 40] = [
    "us-central1",
    "us-east1",
    "us-east4",
    "us-east5",
    "us-south1",
    "us-west1",
    "us-west2",
    "us-west3",
    "us-west4",
    "northamerica-northeast1",
    "northamerica-northeast2",
    "southamerica-east1",
    "southamerica-west1",
    "europe-central2",
    "europe-north1",
    "europe-southwest1",
    "europe-west1",
    "europe-west2",
    "europe-west3",
    "europe-west4",
    "europe-west6",
    "europe-west8",
    "europe-west9",
    "europe-west12",
    "asia-east1",
    "asia-east2",
    "asia-northeast1",
    "asia-northeast2",
    "asia-northeast3",
    "asia-south1",
    "asia-south2",
    "asia-southeast1",
    "asia-southeast2",
    "australia-southeast1",
    "australia-southeast2",
    "me-central1",
    "me-central2",
    "me-west1",
    "africa-south1",
    "global",
];

/// Providers whose references name `max_completion_tokens` as the output cap. A provider that is not here gets
/// `max_tokens`, which all of them understand except OpenAI's own reasoning models.
const MAX_COMPLETION_TOKENS: [&str; 5] = ["openai", "azure", "groq", "cerebras", "xai"];

/// Whether an output cap that Guard adds goes into `max_completion_tokens`.
pub(super) fn takes_max_completion_tokens(name: &str) -> bool {
    MAX_COMPLETION_TOKENS.contains(&name)
}

/// The hosts of a row, with each region in its place.
fn hosts(patterns: &[&str]) -> Vec<String> {
    let each = |pattern: &&str| -> Vec<String> {
        for (mark, regions) in [("{aws}", &AWS[..]), ("{gcp}", &GCP[..])] {
            if pattern.contains(mark) {
                return regions
                    .iter()
                    .map(|region| pattern.replace(mark, region))
                    .collect();
            }
        }
        vec![(*pattern).to_owned()]
    };
    patterns.iter().flat_map(each).collect()
}

/// The hosts of the table as they are written there, for the documentation.
#[cfg(test)]
pub(super) fn patterns() -> Vec<(&'static str, Hosts)> {
    TABLE.iter().map(|row| (row.name, row.hosts)).collect()
}

/// The table, without keys.
pub fn builtin() -> Vec<Provider> {
    let provider = |row: &Row| Provider {
        name: row.name.to_owned(),
        hosts: hosts(row.hosts),
        formats: row
            .speaks
            .iter()
            .flat_map(|(base, kinds)| kinds.iter().map(|dialect| (*base, *dialect)))
            .map(|(base, dialect)| Mount {
                base: base.to_owned(),
                dialect,
            })
            .collect(),
        auth: row.auth,
        like: row.like.map(str::to_owned),
        variables: row.variables,
        side: row.side,
        keys: Vec::new(),
        connect_to: None,
        trust: Vec::new(),
    };
    TABLE.iter().map(provider).collect()
}
