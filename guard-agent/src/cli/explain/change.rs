//! The one line that would have let a call pass.

/// What to change, by the reason of the refusal.
pub(super) fn of(reason: &str, agent: &str) -> String {
    let line = match reason {
        "budget_exceeded" | "call_too_large" => {
            return format!(
                "raise the budget that the text names (usd, tokens or calls), in [[agent]] {agent:?} or [[budget]] of \
                 guard.toml."
            );
        }
        "budget_reserved" => return "nothing: it passes when calls in flight have ended.".to_owned(),
        "provider_denied" => "add the provider to providers = [ … ]",
        "model_denied" => "add the model to models = [ … ]",
        "endpoint_denied" => "add the path to endpoints = [ … ]",
        "tool_denied" => "add the tool to tools = { allow = [ … ] }",
        "key_denied" => {
            return format!(
                "none, if the agent gets its placeholder (`guard-agent ca env --agent {agent}`) and no real key; \
                 or login = \"pass\", which forwards its own login."
            );
        }
        "key_missing" => return "give the [[provider]] a key: keys = [{ name = …, from = … }].".to_owned(),
        "output_cap" => "raise caps = { output_tokens = … }",
        "input_cap" => "raise caps = { input_bytes = … }",
        "run_timeout" => "raise caps = { run_timeout = … }",
        "rate_requests" => "raise caps = { requests_per_minute = … }",
        "rate_tokens" => "raise caps = { tokens_per_minute = … }",
        "in_flight" => "raise caps = { in_flight = … }",
        "retry_body" => "raise retries = { per_body = … }",
        "retry_rate" => "raise retries = { per_minute = … }",
        "loop" => "raise the rule that the text names: loops = { … = … }",
        "frozen" => return format!("none; `guard-agent unfreeze {agent}` lets it go on."),
        "unpriced" => {
            return "a price in the file of [prices] overlay, or defaults = { unpriced = \"ceiling\" }."
                .to_owned();
        }
        "upgrade_required" => {
            return format!(
                "none: the client goes on over HTTPS; with websockets = \"refuse\" in [[agent]] {agent:?} it always does."
            );
        }
        "unidentified" => return "match = [ … ] of the [[agent]] that the process belongs to.".to_owned(),
        "not_recordable" => {
            return "none; `guard-agent status` says why calls cannot be recorded.".to_owned();
        }
        _ => return "none: the request itself, or the provider, is the cause.".to_owned(),
    };
    format!("{line}, in [[agent]] {agent:?} of guard.toml.")
}

#[cfg(test)]
mod tests {
    use super::of;
    use crate::refusal::Reason;

    #[test]
    fn every_rule_of_the_configuration_names_its_line() {
        for reason in [
            Reason::Loop,
            Reason::RetryBody,
            Reason::RetryRate,
            Reason::RateRequests,
            Reason::RateTokens,
            Reason::InputCap,
            Reason::RunTimeout,
            Reason::OutputCap,
            Reason::InFlight,
            Reason::ModelDenied,
            Reason::ProviderDenied,
            Reason::EndpointDenied,
            Reason::ToolDenied,
            Reason::BudgetExceeded,
        ] {
            let said = of(reason.label(), "coder");
            assert!(said.contains("[[agent]] \"coder\""), "{reason:?}: {said}");
        }
    }
}
