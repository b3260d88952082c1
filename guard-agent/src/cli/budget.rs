//! `guard-agent budget show`, `guard-agent budget grant`

use std::path::Path;

use anyhow::bail;
use jiff::SignedDuration;

use super::output::print;
use super::{FAILED, OK, status, words};
use crate::admin::GrantRequest;
use crate::clock::{Clock as _, SystemClock};
use crate::money::Pico;

/// Shows budgets, and allows more for a while.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Budget {
    Show(Show),
    Grant(Grant),
}

/// Shows how every budget stands, with what was granted beyond it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 shown; 1 the daemon did not answer, or knows no such agent.\n\n\
                        Example:\n  guard-agent budget show coder"
)]
pub(super) struct Show {
    /// Only this agent's.
    #[arg(value_name = "AGENT")]
    agent: Option<String>,
}

/// Allows an agent more dollars for a while.
///
/// Every limit in dollars of the agent itself, of its runs and of its sessions is raised by the amount until the time is
/// over, over restarts too. Limits that it shares with others, and those in tokens and calls, stay. Several grants add
/// up. What is spent of a grant is spent: when it ends, the budgets count it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 granted; 1 not.\n\n\
                        Example:\n  sudo guard-agent budget grant coder 5 --for 2h --why \"the release of this evening\"")]
pub(super) struct Grant {
    /// Name of the agent.
    #[arg(value_name = "AGENT")]
    agent: String,
    /// How many US dollars.
    #[arg(value_name = "USD", value_parser = dollars)]
    usd: Pico,
    /// For how long: a number and m, h, d or w; at most 31 days.
    #[arg(long = "for", value_name = "TIME", value_parser = words::time)]
    time: SignedDuration,
    /// The reason, for the audit log.
    #[arg(long, value_name = "TEXT")]
    why: String,
}

impl Budget {
    pub(super) fn run(self, config: &Path) -> anyhow::Result<u8> {
        match self {
            Self::Show(show) => show.run(config),
            Self::Grant(grant) => grant.run(config),
        }
    }
}

impl Show {
    fn run(&self, config: &Path) -> anyhow::Result<u8> {
        let mut status = super::client(config)?.status()?;
        if let Some(agent) = &self.agent {
            status.agents.retain(|known| known.name == *agent);
            if status.agents.is_empty() {
                bail!("no [[agent]] is named {agent:?}; `guard-agent status` lists those in force");
            }
        }
        print(&status::budgets(&status, SystemClock.now()))?;
        Ok(OK)
    }
}

impl Grant {
    fn run(self, config: &Path) -> anyhow::Result<u8> {
        let asked = GrantRequest {
            agent: self.agent,
            pico_usd: self.usd,
            seconds: u64::try_from(self.time.as_secs()).unwrap_or(0),
            why: self.why,
        };
        let granted = super::client(config)?.grant(&asked)?;
        print(&format!(
            "Agent {} may spend {} more until {:.0}.",
            granted.agent, granted.pico_usd, granted.until
        ))?;
        Ok(if granted.until > SystemClock.now() {
            OK
        } else {
            FAILED
        })
    }
}

fn dollars(text: &str) -> Result<Pico, String> {
    let text = text.trim_start_matches('$');
    Pico::from_usd_text(text)
        .filter(|amount| *amount > Pico::ZERO)
        .ok_or_else(|| format!("{text:?} is no amount of dollars: write for example 5 or 2.50"))
}
