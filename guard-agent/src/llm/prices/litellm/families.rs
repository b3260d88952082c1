//! Whose models LiteLLM's list holds: its tags in Guard's names for providers.

use std::borrow::Cow;

/// LiteLLM's tag, and the provider by the name that it has in Guard.
const FAMILIES: [(&str, &str); 56] = [
    ("openai", "openai"),
    ("text-completion-openai", "openai"),
    ("anthropic", "anthropic"),
    ("gemini", "gemini"),
    ("vertex_ai", "vertex"),
    ("vertex_ai-language-models", "vertex"),
    ("vertex_ai-anthropic_models", "vertex"),
    ("vertex_ai-mistral_models", "vertex"),
    ("vertex_ai-llama_models", "vertex"),
    ("vertex_ai-deepseek_models", "vertex"),
    ("vertex_ai-qwen_models", "vertex"),
    ("vertex_ai-openai_models", "vertex"),
    ("vertex_ai-zai_models", "vertex"),
    ("vertex_ai-moonshot_models", "vertex"),
    ("vertex_ai-minimax_models", "vertex"),
    ("vertex_ai-ai21_models", "vertex"),
    ("vertex_ai-embedding-models", "vertex"),
    ("bedrock", "bedrock"),
    ("bedrock_converse", "bedrock"),
    ("azure", "azure"),
    ("azure_text", "azure"),
    ("azure_ai", "azure"),
    ("fireworks_ai", "fireworks"),
    ("fireworks_ai-embedding-models", "fireworks"),
    ("together_ai", "together"),
    ("xai", "xai"),
    ("groq", "groq"),
    ("mistral", "mistral"),
    ("codestral", "mistral"),
    ("text-completion-codestral", "mistral"),
    ("deepseek", "deepseek"),
    ("cohere", "cohere"),
    ("cohere_chat", "cohere"),
    ("moonshot", "moonshot"),
    ("perplexity", "perplexity"),
    ("openrouter", "openrouter"),
    ("cerebras", "cerebras"),
    ("deepinfra", "deepinfra"),
    ("nebius", "nebius"),
    ("sambanova", "sambanova"),
    ("hyperbolic", "hyperbolic"),
    ("dashscope", "dashscope"),
    ("zai", "zai"),
    ("minimax", "minimax"),
    ("volcengine", "volcengine"),
    ("vercel_ai_gateway", "vercel"),
    ("nvidia_nim", "nvidia"),
    ("voyage", "voyage"),
    ("jina_ai", "jina"),
    ("ai21", "ai21"),
    ("novita", "novita"),
    ("lambda_ai", "lambda"),
    ("baseten", "baseten"),
    ("cloudflare", "cloudflare"),
    ("scaleway", "scaleway"),
    ("ovhcloud", "ovhcloud"),
];

/// The provider that a tag means.
pub(super) fn provider(family: &str) -> Option<&'static str> {
    FAMILIES
        .iter()
        .find(|(tag, _)| *tag == family)
        .map(|(_, provider)| *provider)
}

/// The model's name on the wire: the key without the tag that stands before it. Keys of image sizes and regions
/// (`1024-x-1024/…`, `bedrock/us-east-1/…`) are no names of models.
pub(super) fn model_name<'a>(key: &'a str, family: &str) -> Option<Cow<'a, str>> {
    let tag = family
        .strip_prefix("text-completion-")
        .unwrap_or(family)
        .split('-')
        .next()
        .unwrap_or_default();
    let tag = match tag {
        "bedrock_converse" => "bedrock",
        "cohere_chat" => "cohere",
        "azure_text" => "azure",
        other => other,
    };
    let name = key
        .strip_prefix(tag)
        .and_then(|rest| rest.strip_prefix('/'))
        .unwrap_or(key);
    let bare = matches!(tag, "bedrock" | "openai" | "anthropic" | "gemini" | "azure");
    (!(name.is_empty() || bare && name.contains('/'))).then_some(Cow::Borrowed(name))
}
