//! Masks key-shaped strings.
//!
//! Applied to the whole line of a record before it is hashed, so that no field is forgotten. No pattern matches a quote
//! or a backslash, so the line stays JSON.

use std::borrow::Cow;

use regex::{Regex, RegexSet};

/// Pattern, and what takes its place.
const RULES: [(&str, &str); 10] = [
    // Authorization headers (RFC 6750 §2.1, RFC 7617 §2)
    (r"(?i)\b(bearer\s+)[A-Za-z0-9._~+/=-]{8,}", "${1}[redacted]"),
    (r"(?i)\b(basic\s+)[A-Za-z0-9+/=]{16,}", "${1}[redacted]"),
    // OpenAI, Anthropic, OpenRouter, DeepSeek and others: sk-…, sk-ant-…, sk-proj-…
    (r"\b(sk|rk|pk)-[A-Za-z0-9_-]{12,}", "$1-[redacted]"),
    // Groq, xAI, Perplexity, Hugging Face, GitHub, GitLab, Slack, Fireworks, Replicate
    (
        r"\b(gsk_|xai-|pplx-|hf_|gh[oprsu]_|github_pat_|glpat-|xox[abeprs]-|fw_|r8_)[A-Za-z0-9_-]{12,}",
        "${1}[redacted]",
    ),
    // Google API keys and OAuth tokens
    (r"\b(AIza)[A-Za-z0-9_-]{16,}", "${1}[redacted]"),
    (r"\b(ya29\.)[A-Za-z0-9_-]{16,}", "${1}[redacted]"),
    // AWS access key ids
    (r"\b(AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,}", "${1}[redacted]"),
    // JSON web tokens (RFC 7519 §3): two base64url objects and a signature
    (
        r"\b(eyJ)[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?",
        "${1}[redacted]",
    ),
    // Query parameters, and name=value pairs in messages
    (
        r#"(?i)([A-Za-z0-9_.-]*(?:key|token|secret|auth|credential|cookie|password|passwd|signature)[A-Za-z0-9_.-]*=)[^&#\s"'\\,;]+"#,
        "${1}[redacted]",
    ),
    // User and password in a URL (RFC 3986 §3.2.1)
    (r#"(://)[^/@\s"'\\]+:[^/@\s"'\\]+@"#, "${1}[redacted]@"),
];

/// The compiled patterns.
pub struct Redactor {
    any: RegexSet,
    rules: Vec<(Regex, &'static str)>,
}

impl Redactor {
    /// Compiles the patterns.
    pub fn new() -> Result<Self, regex::Error> {
        let any = RegexSet::new(RULES.map(|(pattern, _)| pattern))?;
        let rules = RULES
            .into_iter()
            .map(|(pattern, mask)| Ok((Regex::new(pattern)?, mask)))
            .collect::<Result<_, _>>()?;
        Ok(Self { any, rules })
    }

    /// The text with every key-shaped string masked; what kind it was stays readable.
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut out = Cow::Borrowed(text);
        for rule in self.any.matches(text) {
            if let Some((pattern, mask)) = self.rules.get(rule) {
                out = Cow::Owned(pattern.replace_all(&out, *mask).into_owned());
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_what_looks_like_a_key() {
        let redactor = Redactor::new().unwrap();
        // Made-up values in each issuer's shape; built from parts so that no scanner takes this file for a leak.
        let body = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7".to_owned();
        for (prefix, shown) in [
            ("sk-", "sk-[redacted]"),
            ("sk-ant-api03-", "sk-[redacted]"),
            ("sk-proj-", "sk-[redacted]"),
            ("sk-or-v1-", "sk-[redacted]"),
            ("AIza", "AIza[redacted]"),
            ("gsk_", "gsk_[redacted]"),
            ("xai-", "xai-[redacted]"),
            ("hf_", "hf_[redacted]"),
            ("ghp_", "ghp_[redacted]"),
            ("github_pat_", "github_pat_[redacted]"),
            ("xoxb-", "xoxb-[redacted]"),
            ("ya29.", "ya29.[redacted]"),
            ("Bearer ", "Bearer [redacted]"),
            ("authorization: bearer ", "authorization: bearer [redacted]"),
            ("Basic ", "Basic [redacted]"),
        ] {
            let text = format!("before {prefix}{body} after");
            assert_eq!(
                redactor.redact(&text),
                format!("before {shown} after"),
                "{prefix}"
            );
        }
        let aws = format!("AKIA{}", "IOSFODNN7EXAMPLE".get(0..16).unwrap());
        assert_eq!(redactor.redact(&aws), "AKIA[redacted]");
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl";
        assert_eq!(redactor.redact(jwt), "eyJ[redacted]");
        assert_eq!(redactor.redact(&format!("Bearer {jwt}")), "Bearer [redacted]");
    }

    #[test]
    fn masks_query_parameters_by_name() {
        let redactor = Redactor::new().unwrap();
        for (text, shown) in [
            ("/v1/x?key=abc&alt=sse", "/v1/x?key=[redacted]&alt=sse"),
            ("/x?api_key=1&b=2", "/x?api_key=[redacted]&b=2"),
            ("/x?access_token=a.b-c", "/x?access_token=[redacted]"),
            (
                "/x?X-Amz-Security-Token=q%2F&X-Amz-Date=1",
                "/x?X-Amz-Security-Token=[redacted]&X-Amz-Date=1",
            ),
            (
                "/x?X-Amz-Credential=AK/20261123&z=1",
                "/x?X-Amz-Credential=[redacted]&z=1",
            ),
            ("client_secret=hush", "client_secret=[redacted]"),
            (
                "Cookie: session_cookie=1; theme=dark",
                "Cookie: session_cookie=[redacted]; theme=dark",
            ),
            ("https://me:hush@host/x", "https://[redacted]@host/x"),
        ] {
            assert_eq!(redactor.redact(text), shown);
        }
    }

    #[test]
    fn leaves_ordinary_text_alone() {
        let redactor = Redactor::new().unwrap();
        for text in [
            r#"{"key":"prod-1","model":"gpt-5-2026-08-01","endpoint":"/v1/chat/completions"}"#,
            "claude-opus-4-5-20251101",
            "task-management-service-worker",
            "/docker/3f2a9c0d1e4b5a6978877665544332211000ffeeddccbbaa99887766554433",
            "sha256:0000000000000000000000000000000000000000000000000000000000000000",
            "risk-assessment-and-mitigation",
            "01JDCN8QW3V5X7Z9B1D3F5H7K9",
            "203.0.113.10:443",
            "the bearer of bad news",
        ] {
            assert!(
                matches!(redactor.redact(text), Cow::Borrowed(_)),
                "{text} became {}",
                redactor.redact(text)
            );
        }
    }
}
