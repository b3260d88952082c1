//! `guard-agent freeze`, `guard-agent unfreeze`

use std::path::Path;

use super::OK;
use super::output::print;
use crate::admin::{FreezeRequest, Frozen};

/// Refuses every call of an agent, or of one of its runs, from this moment on.
///
/// It holds over restarts, in observe mode too, and until `guard-agent unfreeze`. Calls under way may end. The agent is
/// told the reason.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 frozen; 1 not.\n\nExamples:\n  \
                        sudo guard-agent freeze coder --why \"spends without getting on\"\n  \
                        sudo guard-agent freeze coder --run 01JDZ3… --why \"went in circles\"")]
pub(super) struct Freeze {
    /// Name of the agent.
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Only this run of it.
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    /// The reason, for the agent and for the audit log.
    #[arg(long, value_name = "TEXT")]
    why: String,
}

/// Lets an agent, or one of its runs, call again.
///
/// Without --run, runs of the agent that were frozen one by one are let go on too.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 not frozen any more; 1 it still is, or never was.\n\n\
                        Example:\n  sudo guard-agent unfreeze coder --why \"the prompt is mended\""
)]
pub(super) struct Unfreeze {
    /// Name of the agent.
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Only this run of it.
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    /// The reason, for the audit log.
    #[arg(long, value_name = "TEXT", default_value = "")]
    why: String,
}

impl Freeze {
    pub(super) fn run(self, config: &Path) -> anyhow::Result<u8> {
        let asked = FreezeRequest {
            agent: self.agent,
            run: self.run,
            why: self.why,
        };
        let done = super::client(config)?.freeze(&asked)?;
        let under_way = match done.in_flight {
            0 => String::new(),
            calls => format!(" {calls} call(s) under way may end."),
        };
        print(&format!("{} is frozen.{under_way}", what(&done)))?;
        Ok(OK)
    }
}

impl Unfreeze {
    pub(super) fn run(self, config: &Path) -> anyhow::Result<u8> {
        let asked = FreezeRequest {
            agent: self.agent,
            run: self.run,
            why: self.why,
        };
        let done = super::client(config)?.unfreeze(&asked)?;
        print(&format!("{} may call again.", what(&done)))?;
        Ok(OK)
    }
}

fn what(done: &Frozen) -> String {
    match &done.run {
        None => format!("Agent {}", done.agent),
        Some(run) => format!("Run {run} of agent {}", done.agent),
    }
}
