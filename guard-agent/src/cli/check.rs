//! `guard-agent check`

use std::fmt::Write as _;
use std::path::Path;

use super::output::{complain, print};
use super::{OK, USAGE};
use crate::config::{self, Agent, Budget, Config, Login, Mode, Pattern, Per, Severity};
use crate::ledger::Window;

/// Checks the configuration and names every error at once.
///
/// It reads the file as the daemon does, looks at the key files and roots that it names, and prints the main rules of each
/// agent: who it is, what it may call, what it may spend. It changes nothing and needs no daemon.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 fine, perhaps with warnings; 2 at least one error.\n\n\
                        Example:\n  guard-agent check --config ./guard.toml && sudo systemctl reload guard-agent"
)]
pub(super) struct Check {}

impl Check {
    pub(super) fn run(&self, path: &Path) -> anyhow::Result<u8> {
        let checked = config::check(path);
        for problem in &checked.problems {
            complain(&problem.to_string());
        }
        let errors = checked
            .problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
            .count();
        let Some(config) = checked.config else {
            complain(&format!("{}: {}", path.display(), count(errors, "error")));
            return Ok(USAGE);
        };
        print(&summary(&config, path))?;
        Ok(OK)
    }
}

fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

fn summary(config: &Config, path: &Path) -> String {
    let mode = match config.host.mode {
        Mode::Enforce => "enforce",
        Mode::Observe => "observe (rules refuse nothing)",
    };
    let mut out = format!(
        "{} is fine: {}, mode {mode}.\n",
        path.display(),
        count(config.agents.len(), "agent")
    );
    for agent in &config.agents {
        out.push('\n');
        describe(&mut out, agent);
    }
    out
}

fn describe(out: &mut String, agent: &Agent) {
    let mut line = |name: &str, value: String| {
        // Writing to a String cannot fail.
        let _written = writeln!(out, "  {name:<11}{value}");
    };
    line("agent", format!("{} (paid by {})", agent.name, agent.owner));
    line(
        "processes",
        match members(agent) {
            named if named.is_empty() => {
                format!("only those that `guard-agent run --agent {}` starts", agent.name)
            }
            named => named.join(", "),
        },
    );
    line("providers", agent.providers.join(", "));
    line("models", names(&agent.models, "none"));
    if !agent.endpoints.is_empty() {
        line(
            "endpoints",
            format!("{} (not metered)", names(&agent.endpoints, "none")),
        );
    }
    if agent.login == Login::Pass {
        line("login", "its own credential is forwarded".to_owned());
    }
    line("tools", tools(agent));
    let caps = [
        agent
            .caps
            .output_tokens
            .map(|tokens| format!("{tokens} output tokens a call")),
        agent
            .caps
            .in_flight
            .map(|calls| format!("{calls} calls at a time")),
    ];
    let caps: Vec<String> = caps.into_iter().flatten().collect();
    if !caps.is_empty() {
        line("caps", caps.join(", "));
    }
    for budget in &agent.budgets {
        let soft = budget
            .soft_ppm
            .map_or_else(String::new, |ppm| format!(", warns at {}%", ppm / 10_000));
        line("budget", format!("{} {}{soft}", budget.limit, time(budget)));
    }
}

/// Its cgroups, units and containers.
fn members(agent: &Agent) -> Vec<String> {
    let labels = agent.container_labels.iter();
    let labels = labels.map(|label| format!("containers labelled {}={}", label.key, label.value));
    agent.cgroups.iter().cloned().chain(labels).collect()
}

fn tools(agent: &Agent) -> String {
    let Some(rules) = &agent.tools else {
        return "all".to_owned();
    };
    let allowed = names(&rules.allow, "none");
    match rules.deny.is_empty() {
        true => allowed,
        false => format!("{allowed}, but not {}", names(&rules.deny, "none")),
    }
}

/// `a day`, `in any 5h`, `a session`.
fn time(budget: &Budget) -> String {
    match (budget.window, budget.per) {
        (Window::Run, Per::Session) => "a session".to_owned(),
        (window @ Window::Rolling(_), per) => format!("{}{}", window.per(), each(per)),
        (window, per) => format!("a {}{}", window.label(), each(per)),
    }
}

fn each(per: Per) -> &'static str {
    match per {
        Per::Agent => "",
        Per::Session => ", each session",
    }
}

fn names(patterns: &[Pattern], none: &str) -> String {
    if patterns.is_empty() {
        return none.to_owned();
    }
    patterns
        .iter()
        .map(|pattern| pattern.text.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests_support::config;

    #[test]
    fn the_summary_says_what_will_be_enforced() {
        let config = config(
            "providers = [\"openai\"]\nmodels = [\"gpt-5*\"]\ncaps = { in_flight = 8 }\n\
             budget = [{ window = \"day\", usd = 20, soft = 0.8 }]",
        );
        assert_eq!(
            summary(&config, Path::new("guard.toml")),
            "guard.toml is fine: 1 agent, mode enforce.\n\
             \n  agent      coder (paid by team)\
             \n  processes  only those that `guard-agent run --agent coder` starts\
             \n  providers  openai\
             \n  models     gpt-5*\
             \n  tools      all\
             \n  caps       8 calls at a time\
             \n  budget     $20.00 a day, warns at 80%\n"
        );
    }

    #[test]
    fn what_an_agent_is_and_what_it_may_not_do_is_said_too() {
        let config = config(
            "providers = [\"openai\"]\ntools = { deny = [\"Bash\"] }\n\
             match = [{ container_label = \"guard.agent=coder\" }, { unit = \"coder@*.service\" }]\n\
             budget = [{ window = \"rolling:5h\", calls = 10 }, { window = \"run\", scope = \"session\", usd = 1 }]",
        );
        let said = summary(&config, Path::new("guard.toml"));
        for line in [
            "  processes  coder@*.service, containers labelled guard.agent=coder\n",
            "  tools      *, but not Bash\n",
            "  budget     10 calls in any 5h\n",
            "  budget     $1.00 a session\n",
        ] {
            assert!(said.contains(line), "{said}");
        }
    }

    #[test]
    fn errors_exit_with_two() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("guard.toml");
        std::fs::write(&path, "[hots]\n").unwrap();
        assert_eq!(Check {}.run(&path).unwrap(), USAGE);
        std::fs::write(&path, "").unwrap();
        assert_eq!(Check {}.run(&path).unwrap(), OK);
    }
}
