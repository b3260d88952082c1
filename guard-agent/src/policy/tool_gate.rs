//! Tool calls in replies: may the agent see this one?
//!
//! In: the agent's tool rules, what the request declared, a call's name and then its complete arguments. Out: whether it
//! passes. On failure (arguments that are too large, or that can be read in two ways): it does not.
//!
//! Rules on arguments see text. They keep an honest model from a mistake; a shell has more ways to say a thing than a list
//! has lines, so what must not happen at all is a matter of which tools there are.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use crate::config::{Agent, ArgumentRule, ToolRules};
use crate::llm::gate::Unjudged;
use crate::llm::{Denial, Gate, InReply, Judgement, RequestFacts, few_values, same_to_every_reader};
use crate::policy::quoted;
use crate::refusal::{Reason, Refusal};

/// Judges the calls in one reply.
pub(crate) struct ToolGate {
    agent: Arc<Agent>,
    /// Names by which the declared tools are called, and whether each may be.
    declared: Vec<(String, bool)>,
    /// Tools may have been declared where this request does not show it: in a stored conversation.
    unseen: bool,
    request_id: String,
}

impl ToolGate {
    /// The gate for the reply to this request; none for an agent without tool rules.
    pub(crate) fn of(agent: &Arc<Agent>, facts: &RequestFacts, request_id: String) -> Option<Self> {
        let rules = agent.tools.as_ref()?;
        let declared = facts
            .tools
            .iter()
            .map(|tool| (tool.called().to_owned(), rules.allows(&tool.name)));
        Some(Self {
            declared: declared.collect(),
            unseen: facts.unseen_input,
            agent: Arc::clone(agent),
            request_id,
        })
    }

    /// Why a call of this name may not happen at all.
    fn denied(&self, rules: &ToolRules, name: &str) -> Option<&'static str> {
        let mut known = self
            .declared
            .iter()
            .filter(|(called, _)| called == name)
            .peekable();
        if known.peek().is_none() {
            return match self.unseen {
                false => Some("the request declares no such tool"),
                true if rules.allows(name) => None,
                true => Some("it is not among the tools that the agent may use"),
            };
        }
        let denied = rules.deny.iter().any(|pattern| pattern.covers(name));
        (denied || !known.all(|(_, allowed)| *allowed))
            .then_some("it is not among the tools that the agent may use")
    }

    fn rules<'a>(rules: &'a ToolRules, name: &'a str) -> impl Iterator<Item = &'a ArgumentRule> {
        rules.arguments.iter().filter(move |rule| rule.tool.covers(name))
    }

    fn deny(&self, what: &str, why: &str) -> Denial {
        let how = self
            .agent
            .tools
            .as_ref()
            .map_or(InReply::Refuse, |rules| rules.in_reply);
        let name = &self.agent.name;
        let message = format!(
            "[Guard stopped {what} before it reached the agent: {why}. It has not run. Do not try it again; do it another \
             way, or tell the user. The operator's rules are `tools` of [[agent]] {name:?} in guard.toml.]"
        );
        Denial {
            how,
            refusal: Refusal::new(Reason::ToolDenied, message),
        }
    }

    fn deny_call(&self, name: &str, why: &str) -> Judgement {
        Judgement::Deny(Box::new(
            self.deny(&format!("a call of the tool {}", quoted(name)), why),
        ))
    }
}

impl Gate for ToolGate {
    fn by_name(&self, name: &str) -> Judgement {
        let Some(rules) = &self.agent.tools else {
            return Judgement::Pass;
        };
        match self.denied(rules, name) {
            Some(why) => self.deny_call(name, why),
            None if Self::rules(rules, name).next().is_some() => Judgement::Wait,
            None => Judgement::Pass,
        }
    }

    fn by_arguments(&self, name: &str, arguments: &str) -> Judgement {
        let Some(rules) = &self.agent.tools else {
            return Judgement::Pass;
        };
        if !few_values(arguments.as_bytes()) {
            return self.deny_call(name, "its arguments are too many to be checked");
        }
        let value = match serde_json::from_str::<Value>(arguments) {
            Ok(value) if same_to_every_reader(arguments) => value,
            Ok(_) => return self.deny_call(name, "its arguments name the same thing twice"),
            Err(_) if arguments.is_empty() => Value::Object(serde_json::Map::new()),
            // Other readers take what this one does not: deeper nesting, larger numbers, half a surrogate pair.
            Err(_)
                if is_structured(arguments) || Self::rules(rules, name).any(|rule| !rule.at.is_empty()) =>
            {
                return self.deny_call(name, "its arguments cannot be read");
            }
            // Free text.
            Err(_) => Value::from(arguments),
        };
        match Self::rules(rules, name).find_map(|rule| violated(rule, &value)) {
            Some(why) => self.deny_call(name, &why),
            None => Judgement::Pass,
        }
    }

    fn unjudged(&self, what: Unjudged) -> Denial {
        match what {
            Unjudged::Call => self.deny("a tool call", "it is too large to be checked, or incomplete"),
            Unjudged::Reply => self.deny(
                "a reply",
                "it cannot be read, so tool calls in it cannot be checked",
            ),
        }
    }

    fn request_id(&self) -> &str {
        &self.request_id
    }
}

/// Whether arguments are meant as JSON and not as free text.
fn is_structured(arguments: &str) -> bool {
    arguments.trim_start().starts_with(['{', '['])
}

/// How the arguments break a rule.
fn violated(rule: &ArgumentRule, arguments: &Value) -> Option<String> {
    let place = if rule.at.is_empty() {
        "its arguments"
    } else {
        rule.at.as_str()
    };
    let mut texts = Vec::new();
    if let Some(found) = arguments.pointer(&rule.at) {
        collect(found, &mut texts);
    }
    if let Some(denies) = texts.iter().find_map(|text| {
        let spaced = single_spaced(text);
        rule.deny
            .iter()
            .find(|deny| deny.matches(text) || deny.matches(&spaced))
    }) {
        return Some(format!(
            "{place} matches {}, which is denied",
            quoted(denies.text())
        ));
    }
    let all_allowed = texts
        .iter()
        .all(|text| rule.allow.iter().any(|allow| allow.matches(text)));
    (!rule.allow.is_empty() && (texts.is_empty() || !all_allowed))
        .then(|| format!("{place} is not what the rule for this tool allows"))
}

/// Every text at or below a value.
fn collect<'a>(value: &'a Value, texts: &mut Vec<Cow<'a, str>>) {
    match value {
        Value::Null => {}
        Value::Bool(_) | Value::Number(_) => texts.push(Cow::Owned(value.to_string())),
        Value::String(text) => texts.push(Cow::Borrowed(text)),
        Value::Array(list) => list.iter().for_each(|value| collect(value, texts)),
        Value::Object(members) => members.values().for_each(|value| collect(value, texts)),
    }
}

fn single_spaced(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::DeclaredTool;
    use crate::policy::tests_support::agent;

    fn gate(rules: &str, declared: &[DeclaredTool]) -> ToolGate {
        let agent = agent(&format!("providers = [\"openai\"]\ntools = {rules}"));
        let facts = RequestFacts {
            tools: declared.to_vec(),
            ..RequestFacts::default()
        };
        ToolGate::of(&agent, &facts, "id".to_owned()).unwrap()
    }

    fn passes(judgement: &Judgement) -> bool {
        matches!(judgement, Judgement::Pass)
    }

    fn says(judgement: Judgement) -> String {
        match judgement {
            Judgement::Deny(denial) => denial.refusal.message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_call_passes_by_its_name_only_when_it_was_declared_and_is_allowed() {
        let dated = DeclaredTool {
            called: Some("web_search".to_owned()),
            ..DeclaredTool::provider("web_search_20250305")
        };
        let declared = [
            DeclaredTool::client("Read"),
            DeclaredTool::client("Bash"),
            DeclaredTool::client("Wipe"),
            dated,
        ];
        let gate = gate(
            "{ allow = [\"Read\", \"W*\", \"web_search_*\"], deny = [\"Wipe\"] }",
            &declared,
        );
        assert!(passes(&gate.by_name("Read")) && passes(&gate.by_name("web_search")));
        assert!(says(gate.by_name("Bash")).contains("not among the tools"));
        assert!(says(gate.by_name("Wipe")).contains("not among the tools"));
        for never_declared in ["Write", "read", "Read ", "web_search_20250305", ""] {
            assert!(
                says(gate.by_name(never_declared)).contains("declares no such tool"),
                "{never_declared}"
            );
        }
    }

    #[test]
    fn one_denied_declaration_of_a_name_denies_its_calls() {
        let trick = DeclaredTool {
            called: Some("Read".to_owned()),
            ..DeclaredTool::client("bash_20250124")
        };
        let gate = gate("{ allow = [\"Read\"] }", &[DeclaredTool::client("Read"), trick]);
        assert!(!passes(&gate.by_name("Read")));
    }

    #[test]
    fn where_declarations_are_not_in_sight_the_list_decides() {
        let mut gate = gate("{ allow = [\"Read\"] }", &[]);
        gate.unseen = true;
        assert!(passes(&gate.by_name("Read")) && !passes(&gate.by_name("Bash")));
    }

    #[test]
    fn arguments_are_judged_at_their_place() {
        let rules = "{ allow = [\"*\"], arguments = [
            { tool = \"Bash\", at = \"/command\", deny = [\"*rm -rf *\"], deny_regex = [\"(?i)curl .*[|] *sh\"] },
            { tool = \"Re*\", at = \"/path\", allow = [\"/home/agent/*\"], deny = [\"*/../*\"] } ] }";
        let gate = gate(
            rules,
            &[
                DeclaredTool::client("Bash"),
                DeclaredTool::client("Read"),
                DeclaredTool::client("Edit"),
            ],
        );
        assert!(matches!(gate.by_name("Bash"), Judgement::Wait));
        assert!(passes(&gate.by_name("Edit")));
        for (name, arguments, pass) in [
            ("Bash", r#"{"command":"ls"}"#, true),
            ("Bash", r#"{"command":"rm -r x","note":"rm -rf x"}"#, true),
            ("Bash", r#"{"command":"cd /; rm -rf ."}"#, false),
            ("Bash", r#"{"command":"cd /\nrm  \t-rf  ."}"#, false),
            ("Bash", r#"{"command":["sh","-c","rm -rf ."]}"#, false),
            ("Bash", r#"{"\u0063ommand":"rm -rf ."}"#, false),
            ("Bash", r#"{"command":"rm \u002drf ."}"#, false),
            ("Bash", r#"{"command":"CURL x |  sh"}"#, false),
            ("Bash", r#"{"command":"ls","command":"ls"}"#, false),
            ("Bash", "", true),
            ("Read", r#"{"path":"/home/agent/a"}"#, true),
            ("Read", r#"{"path":"/home/agent/../b"}"#, false),
            ("Read", r#"{"path":"/etc/passwd"}"#, false),
            ("Read", r#"{"file":"/home/agent/a"}"#, false),
            ("Read", r#"{"path":["/home/agent/a","/etc/passwd"]}"#, false),
            ("Read", r#"{"path":7}"#, false),
            ("Read", "{\"path\":\"/home/agent/a\"", false),
        ] {
            assert_eq!(
                passes(&gate.by_arguments(name, arguments)),
                pass,
                "{name} {arguments}"
            );
        }
    }

    #[test]
    fn arguments_that_only_other_readers_can_read_do_not_pass() {
        let rules =
            "{ allow = [\"*\"], arguments = [{ tool = \"*\", at = \"/command\", deny = [\"*rm -rf *\"] }] }";
        let gate = gate(rules, &[DeclaredTool::client("Bash")]);
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for unread in [deep.as_str(), "1e999", "NaN", r#""\ud800""#] {
            let arguments = format!("{{\"command\":\"rm -rf .\",\"x\":{unread}}}");
            let no = says(gate.by_arguments("Bash", &arguments));
            assert!(no.contains("cannot be read"), "{no}");
        }
        // As a format gives arguments that came in pieces.
        let pieces = r#"[pieces [{"jsonPath":"$.command","stringValue":"ls"}]"#;
        assert!(says(gate.by_arguments("Bash", pieces)).contains("cannot be read"));
        let many = format!("{{\"x\":[{}0]}}", "{\"\":0},".repeat(200_000));
        assert!(says(gate.by_arguments("Bash", &many)).contains("too many"));
    }

    #[test]
    fn free_text_is_judged_as_one_text() {
        let rules = "{ deny = [\"nothing\"], arguments = [{ tool = \"exec\", deny = [\"*rm -rf*\"] }] }";
        let gate = gate(rules, &[DeclaredTool::client("exec")]);
        assert!(passes(&gate.by_arguments("exec", "ls()")));
        assert!(!passes(
            &gate.by_arguments("exec", r#"{"code":"rm\u0020-rf", "x":1e999}"#)
        ));
        let no = says(gate.by_arguments("exec", "shell(\"x\\nrm -rf /\")"));
        assert!(no.contains("\"*rm -rf*\"") && no.contains("exec"), "{no}");
    }
}
