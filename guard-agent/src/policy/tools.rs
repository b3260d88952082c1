//! Tools: may the request declare these?
//!
//! In: the agent's tool rules and the declared tools, server-side ones among them. Out: the names to strip, often none.
//! On failure: a refusal that names the tools.

use crate::config::{Agent, OnViolation};
use crate::llm::DeclaredTool;
use crate::policy::quoted;
use crate::refusal::{Reason, Refusal};

/// How many tools a refusal names.
const NAMED: usize = 5;

/// Checks the declared tools; gives the names to remove from the request. An `untouchable` body is refused rather than
/// edited.
///
/// # Errors
/// `ToolDenied`.
pub fn declared(agent: &Agent, tools: &[DeclaredTool], untouchable: bool) -> Result<Vec<String>, Refusal> {
    let Some(rules) = &agent.tools else {
        return Ok(Vec::new());
    };
    let mut denied: Vec<&str> = tools
        .iter()
        .filter(|tool| !rules.allows(&tool.name))
        .map(|tool| tool.name.as_str())
        .collect();
    denied.sort_unstable();
    denied.dedup();
    let nameless = denied.first().is_some_and(|name| name.is_empty());
    let strip = rules.on_violation == OnViolation::Strip && !untouchable && !nameless;
    if denied.is_empty() || strip {
        return Ok(denied.into_iter().map(str::to_owned).collect());
    }
    Err(refused(
        agent,
        &denied,
        untouchable && rules.on_violation == OnViolation::Strip,
    ))
}

fn refused(agent: &Agent, denied: &[&str], unstrippable: bool) -> Refusal {
    let name = &agent.name;
    let mut shown: Vec<String> = denied.iter().take(NAMED).map(|tool| quoted(tool)).collect();
    if denied.len() > NAMED {
        shown.push(format!("{} more", denied.len() - NAMED));
    }
    let why = if unstrippable {
        " (the body carries a checksum, so Guard may not strip them)"
    } else {
        ""
    };
    Refusal::new(
        Reason::ToolDenied,
        format!(
            "Agent {name:?} may not declare these tools: {}{why}. Send the request without them; to allow them, the \
             operator adds them to tools.allow of [[agent]] {name:?} in guard.toml.",
            shown.join(", "),
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests_support::agent;

    fn tool(name: &str, server_side: bool) -> DeclaredTool {
        DeclaredTool {
            server_side,
            ..DeclaredTool::client(name)
        }
    }

    fn ask(rules: &str, tools: &[DeclaredTool], untouchable: bool) -> Result<Vec<String>, Refusal> {
        declared(
            &agent(&format!("providers = [\"openai\"]\n{rules}")),
            tools,
            untouchable,
        )
    }

    #[test]
    fn without_rules_every_tool_may_be_declared() {
        assert!(ask("", &[tool("anything", true)], true).unwrap().is_empty());
    }

    #[test]
    fn strips_what_is_not_on_the_list_server_side_tools_among_it() {
        let rules = "tools = { allow = [\"Read\", \"mcp__git__*\"] }";
        let tools = [
            tool("Read", false),
            tool("mcp__git__log", false),
            tool("web_search_20250305", true),
            tool("Bash", false),
            tool("Bash", false),
        ];
        assert_eq!(
            ask(rules, &tools, false).unwrap(),
            ["Bash", "web_search_20250305"]
        );
        assert!(ask(rules, &tools[..2], true).unwrap().is_empty());
    }

    #[test]
    fn refuses_where_it_must() {
        let strip = "tools = { allow = [\"Read\"] }";
        let refuse = "tools = { allow = [\"Read\"], on_violation = \"refuse\" }";
        let bash = [tool("Bash", false)];
        for (rules, tools, untouchable) in [
            (refuse, &bash[..], false),
            (strip, &bash, true),
            (strip, &[tool("", false)], false),
        ] {
            let no = ask(rules, tools, untouchable).unwrap_err();
            assert_eq!(no.reason, Reason::ToolDenied);
        }
        assert!(ask("tools = { allow = [] }", &bash, false).unwrap() == ["Bash"]);
    }

    #[test]
    fn a_long_list_is_named_in_part() {
        let rules = "tools = { allow = [], on_violation = \"refuse\" }";
        let tools: Vec<DeclaredTool> = (0..100).map(|n| tool(&format!("tool\n{n:03}"), false)).collect();
        let said = ask(rules, &tools, false).unwrap_err().message;
        assert!(
            said.contains("tool 004") && said.contains("95 more") && !said.contains('\n'),
            "{said}"
        );
    }
}
