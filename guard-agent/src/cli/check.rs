//! `guard-agent check`

use std::fmt::Write as _;
use std::path::Path;

use super::output::{complain, print};
use super::{OK, USAGE};
use crate::config::{self, Agent, Config, Login, Mode, Pattern, Severity};

/// Checks the configuration and names every error at once.
///
/// It reads the file as the daemon does, looks at the key files and roots that it names, and prints what the daemon would
/// enforce. It changes nothing and needs no daemon.
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
        Mode::Observe => "observe (nothing is refused)",
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
        if agent.cgroups.is_empty() {
            format!("only those that `guard-agent run --agent {}` starts", agent.name)
        } else {
            agent.cgroups.join(", ")
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
    let tools = agent
        .tools
        .as_ref()
        .map_or_else(|| "all".to_owned(), |rules| names(&rules.allow, "none"));
    line("tools", tools);
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
        line(
            "budget",
            format!("{} a {}{soft}", budget.limit, budget.window.label()),
        );
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
    fn errors_exit_with_two() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("guard.toml");
        std::fs::write(&path, "[hots]\n").unwrap();
        assert_eq!(Check {}.run(&path).unwrap(), USAGE);
        std::fs::write(&path, "").unwrap();
        assert_eq!(Check {}.run(&path).unwrap(), OK);
    }
}
