//! `guard-agent outcome`

use std::path::Path;

use super::OK;
use super::output::print;
use crate::admin::OutcomeRequest;
use crate::policy::outcomes::Outcome;

/// Says whether a run did what it was for.
///
/// From it Guard knows what a success costs: the metric `guard_cost_per_success_usd` is the cost of all runs that were
/// told of, failed ones too, for each that succeeded. Saying it again replaces what was said before.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 taken; 1 not.\n\n\
                        Example:\n  sudo guard-agent outcome 01JDZ3… success")]
pub(super) struct Tell {
    /// Id of the run.
    #[arg(value_name = "RUN")]
    run: String,
    /// What became of it.
    #[arg(value_name = "OUTCOME")]
    outcome: Outcome,
}

impl Tell {
    pub(super) fn run(self, config: &Path) -> anyhow::Result<u8> {
        let asked = OutcomeRequest {
            run: self.run,
            outcome: self.outcome,
        };
        let told = super::client(config)?.outcome(&asked)?;
        print(&format!(
            "Run {} of agent {}: {}, {} ({} of it wasted).",
            told.run,
            told.agent,
            told.outcome.label(),
            told.cost_pico_usd,
            told.wasted_pico_usd
        ))?;
        if let Some(cost) = told.cost_per_success_pico_usd {
            print(&format!("A success of {} costs {cost}.", told.agent))?;
        }
        Ok(OK)
    }
}
