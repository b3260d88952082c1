//! Access: is this provider, this endpoint, this model on the agent's lists?
//!
//! In: the agent and what the request line and body say. Out: how the call is to be treated. On failure: a refusal that
//! names the list to change.

use crate::config::{Agent, Telemetry};
use crate::llm::EndpointKind;
use crate::policy::quoted;
use crate::refusal::{Reason, Refusal};

/// How a call that may happen is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// Inference: parsed, priced, reserved, metered.
    Metered,
    /// Free by the provider's price list (model lists, token counts).
    Free,
    /// An endpoint that the operator listed: forwarded, counted, not priced.
    Listed,
    /// A client's request beside inference: forwarded, not counted as a call.
    Side,
}

/// Whether the agent may use this provider and this path of it. `path` is the path as sent, without the query.
///
/// # Errors
/// `ProviderDenied` or `EndpointDenied`.
pub fn endpoint(agent: &Agent, provider: &str, kind: EndpointKind, path: &str) -> Result<Passage, Refusal> {
    let name = &agent.name;
    if !agent.providers.iter().any(|allowed| allowed == provider) {
        return Err(Refusal::new(
            Reason::ProviderDenied,
            format!(
                "Agent {name:?} may not use the provider {provider:?}; it may use {}. To allow it, the operator adds \
                 {provider:?} to `providers` of [[agent]] {name:?} in guard.toml.",
                list(agent.providers.iter().map(String::as_str)),
            ),
        ));
    }
    // The provider may resolve what we compare as text: `/v1/files/../batches` is not below `/v1/files`.
    if !is_plain(path, kind) {
        return Err(Refusal::new(
            Reason::EndpointDenied,
            format!(
                "The path {} is not in its plain form (dot segments, doubled or encoded slashes), so Guard does not \
                 forward it. Send the endpoint's documented path.",
                quoted(path),
            ),
        ));
    }
    match kind {
        EndpointKind::Inference => Ok(Passage::Metered),
        EndpointKind::Models | EndpointKind::CountTokens | EndpointKind::Free => Ok(Passage::Free),
        EndpointKind::Socket if agent.websockets => Ok(Passage::Free),
        EndpointKind::Socket => Err(Refusal::new(
            Reason::UpgradeRequired,
            format!(
                "Agent {name:?} makes its calls over plain HTTPS. Use HTTPS requests instead; to allow WebSockets, the \
                 operator sets websockets = \"meter\" in [[agent]] {name:?} in guard.toml.",
            ),
        )),
        EndpointKind::Side => Ok(Passage::Side),
        EndpointKind::Telemetry if agent.telemetry == Telemetry::Pass => Ok(Passage::Side),
        EndpointKind::Telemetry => Err(Refusal::new(
            Reason::EndpointDenied,
            format!(
                "Agent {name:?} does not send reports on its use to {provider:?}. To let them pass, the operator sets \
                 telemetry = \"pass\" in [[agent]] {name:?} in guard.toml.",
            ),
        )),
        EndpointKind::Other | EndpointKind::Unpriced
            if agent.endpoints.iter().any(|pattern| pattern.covers(path)) =>
        {
            Ok(Passage::Listed)
        }
        EndpointKind::Unpriced => Err(Refusal::new(
            Reason::Unpriced,
            format!(
                "{} of {provider:?} is billed in a unit for which Guard has no price (images, seconds, pages), so it \
                 cannot hold a budget to it. To let agent {name:?} call it unmetered, the operator adds \
                 endpoints = [{}] to [[agent]] {name:?} in guard.toml.",
                quoted(path),
                quoted(path),
            ),
        )),
        EndpointKind::Other => Err(Refusal::new(
            Reason::EndpointDenied,
            format!(
                "Agent {name:?} may not call {} of {provider:?}: calls there are not metered, so they would be a way \
                 around the budget. Use the inference endpoints; to allow this one, the operator adds its path to \
                 `endpoints` of [[agent]] {name:?} in guard.toml: endpoints = [{}].",
                quoted(path),
                quoted(path),
            ),
        )),
    }
}

/// Whether the agent may use this model.
///
/// # Errors
/// `ModelDenied`.
pub fn model(agent: &Agent, model: &str) -> Result<(), Refusal> {
    if agent.models.iter().any(|pattern| pattern.covers(model)) {
        return Ok(());
    }
    let name = &agent.name;
    Err(Refusal::new(
        Reason::ModelDenied,
        format!(
            "Agent {name:?} may not use the model {}; it may use {}. Choose one of these; to allow it, the operator \
             adds it to `models` of [[agent]] {name:?} in guard.toml.",
            quoted(model),
            list(agent.models.iter().map(|pattern| pattern.text.as_str())),
        ),
    ))
}

/// Whether the path has only one reading. An encoded slash is let through where the dialect knew the path (a model id
/// may hold one), never where a list of paths decides.
fn is_plain(path: &str, kind: EndpointKind) -> bool {
    let lower = path.to_ascii_lowercase();
    let ambiguous = ["//", "\\", "%5c", "%2e", "%00", "%25"]
        .iter()
        .any(|part| lower.contains(part))
        || lower
            .split('/')
            .any(|part| part == "." || part == ".." || part.starts_with("..;"));
    let by_format = !matches!(
        kind,
        EndpointKind::Other | EndpointKind::Unpriced | EndpointKind::Side | EndpointKind::Telemetry
    );
    let hidden_slash = !by_format && lower.contains("%2f");
    lower.starts_with('/') && !ambiguous && !hidden_slash
}

fn list<'t>(names: impl Iterator<Item = &'t str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests_support::agent;

    const OTHER: EndpointKind = EndpointKind::Other;

    #[test]
    fn lists_decide() {
        let agent = agent("providers = [\"openai\"]\nendpoints = [\"/v1/files*\"]\nmodels = [\"gpt-5*\"]");
        let ask = |provider, kind, path| endpoint(&agent, provider, kind, path).map_err(|no| no.reason);
        assert_eq!(
            ask("openai", EndpointKind::Inference, "/v1/chat/completions"),
            Ok(Passage::Metered)
        );
        assert_eq!(
            ask("openai", EndpointKind::Models, "/v1/models/org%2Fname"),
            Ok(Passage::Free)
        );
        assert_eq!(
            ask("openai", EndpointKind::CountTokens, "/v1/count"),
            Ok(Passage::Free)
        );
        assert_eq!(ask("openai", OTHER, "/v1/files/abc"), Ok(Passage::Listed));
        assert_eq!(ask("openai", OTHER, "/v1/batches"), Err(Reason::EndpointDenied));
        assert_eq!(
            ask("anthropic", EndpointKind::Inference, "/v1/messages"),
            Err(Reason::ProviderDenied)
        );
        assert!(model(&agent, "gpt-5-mini").is_ok());
        assert_eq!(model(&agent, "gpt-4o").unwrap_err().reason, Reason::ModelDenied);
    }

    #[test]
    fn a_path_with_two_readings_passes_no_list() {
        let agent = agent("providers = [\"openai\"]\nendpoints = [\"/v1/files*\"]");
        for path in [
            "/v1/files/../batches",
            "/v1/files/./x",
            "/v1/files//x",
            "/v1/files/%2e%2e/batches",
            "/v1/files/%2E./batches",
            "/v1/files/..%2fbatches",
            "/v1/files\\..\\batches",
            "/v1/files/%5c..",
            "/v1/files/%252e%252e/batches",
            "/v1/files/..;/batches",
            "/v1/files/..",
        ] {
            let said = endpoint(&agent, "openai", OTHER, path).map_err(|no| no.reason);
            assert_eq!(said, Err(Reason::EndpointDenied), "{path}");
        }
    }

    #[test]
    fn a_refusal_names_the_list_to_change_and_bounds_what_the_caller_wrote() {
        let agent = agent("providers = [\"openai\"]\nmodels = [\"gpt-5*\", \"o4\"]");
        let said = model(&agent, &format!("x\n{}", "y".repeat(10_000)))
            .unwrap_err()
            .message;
        assert!(
            said.contains("gpt-5*, o4") && said.contains("`models` of [[agent]] \"coder\""),
            "{said}"
        );
        assert!(said.len() < 500 && !said.contains('\n'), "{said}");
    }
}
