//! The other names of a model: explicit rules, tried in order after the exact name. No rule cuts a name short at a place
//! that the rule does not name, so that no model is ever priced as another one that begins alike.

use std::borrow::Cow;

/// Prefixes by which Bedrock names the regions that serve a model (inference profiles).
const BEDROCK_REGIONS: [&str; 10] = [
    "us.", "eu.", "apac.", "jp.", "au.", "ca.", "sa.", "in.", "us-gov.", "global.",
];

/// The names under which the table may have this model, the most exact first.
pub(super) fn candidates<'a>(provider: &str, model: &'a str) -> Vec<Cow<'a, str>> {
    let mut names: Vec<Cow<'a, str>> = vec![Cow::Borrowed(model)];
    let mut also = |name: &'a str| {
        if !name.is_empty() && !names.iter().any(|known| known == name) {
            names.push(Cow::Borrowed(name));
        }
    };
    // A fine-tuned model costs what its base costs as a fine-tuned one, never what the base itself costs.
    if let Some(rest) = model.strip_prefix("ft:") {
        let base = rest.split(':').next().unwrap_or_default();
        let end = "ft:".len() + base.len();
        also(model.get(..end).unwrap_or_default());
        return names;
    }
    let mut name = model.strip_prefix("models/").unwrap_or(model);
    also(name);
    if provider == "bedrock" {
        name = bedrock(name);
        also(name);
        if let Some(plain) = BEDROCK_REGIONS
            .iter()
            .find_map(|region| name.strip_prefix(region))
        {
            also(plain);
        }
        return names;
    }
    // Vertex names a version so; a publisher's path stands before it.
    if provider == "vertex"
        && let Some((_, last)) = name.rsplit_once("/models/")
    {
        name = last;
        also(name);
    }
    if let Some((plain, version)) = name.split_once('@')
        && !version.is_empty()
    {
        also(plain);
    }
    // What OpenAI calls the model in replies of the legacy endpoint: `name:20230824-v2`.
    if let Some((plain, build)) = name.split_once(':')
        && build.split('-').next().is_some_and(is_date)
    {
        name = plain;
        also(name);
    }
    if let Some(plain) = without_date(name) {
        also(plain);
    }
    names
}

/// The name in an ARN of a foundation model or of an inference profile that AWS defines.
fn bedrock(name: &str) -> &str {
    let resource = name
        .strip_prefix("arn:")
        .and_then(|arn| arn.splitn(5, ':').nth(4));
    resource
        .and_then(|resource| {
            resource
                .strip_prefix("foundation-model/")
                .or_else(|| resource.strip_prefix("inference-profile/"))
        })
        .unwrap_or(name)
}

/// `name-20250929` and `name-2025-09-29` without the date of the snapshot.
fn without_date(name: &str) -> Option<&str> {
    if let Some((plain, date)) = name.rsplit_once('-')
        && is_date(date)
    {
        return Some(plain);
    }
    let cut = name.len().checked_sub("-2025-09-29".len())?;
    let (plain, date) = name.split_at_checked(cut)?;
    let digits: String = date.split('-').collect();
    let shape = date.bytes().map(|byte| byte == b'-').eq([
        true, false, false, false, false, true, false, false, true, false, false,
    ]);
    (shape && is_date(&digits)).then_some(plain)
}

/// A day of the years in which there are models.
fn is_date(text: &str) -> bool {
    let number = |from, to| text.get(from..to).and_then(|part| part.parse::<u32>().ok());
    text.len() == 8
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && number(0, 4).is_some_and(|year| (2020..=2039).contains(&year))
        && number(4, 6).is_some_and(|month| (1..=12).contains(&month))
        && number(6, 8).is_some_and(|day| (1..=31).contains(&day))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_explicit() {
        for (provider, model, others) in [
            ("openai", "gpt-5", &[][..]),
            ("openai", "gpt-5-2025-08-07", &["gpt-5"]),
            ("openai", "gpt-5-2099-01-01", &[]),
            ("openai", "gpt-5-mini", &[]),
            (
                "openai",
                "gpt-3.5-turbo-instruct:20230824-v2",
                &["gpt-3.5-turbo-instruct"],
            ),
            (
                "openai",
                "ft:gpt-4o-mini-2024-07-18:org::id",
                &["ft:gpt-4o-mini-2024-07-18"],
            ),
            ("anthropic", "claude-sonnet-4-5-20250929", &["claude-sonnet-4-5"]),
            ("anthropic", "claude-sonnet-4-5-20251329", &[]),
            ("gemini", "models/gemini-2.5-pro", &["gemini-2.5-pro"]),
            ("vertex", "claude-sonnet-4-5@20250929", &["claude-sonnet-4-5"]),
            (
                "vertex",
                "projects/p/locations/l/publishers/google/models/gemini-2.5-pro",
                &["gemini-2.5-pro"],
            ),
            (
                "bedrock",
                "us.anthropic.claude-3-haiku-20240307-v1:0",
                &["anthropic.claude-3-haiku-20240307-v1:0"],
            ),
            (
                "bedrock",
                "arn:aws:bedrock:eu-west-1:1:inference-profile/eu.amazon.nova-pro-v1:0",
                &["eu.amazon.nova-pro-v1:0", "amazon.nova-pro-v1:0"],
            ),
            (
                "bedrock",
                "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-pro-v1:0",
                &["amazon.nova-pro-v1:0"],
            ),
            (
                "bedrock",
                "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc",
                &[],
            ),
            ("openai", "", &[]),
            ("openai", "é-2025-01-01", &["é"]),
        ] {
            let found = candidates(provider, model);
            assert_eq!(found[0], model);
            assert_eq!(&found[1..], others, "{provider} {model}");
        }
    }
}
