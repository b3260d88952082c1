//! `guard-agent status`

use std::path::Path;

use super::OK;
use super::output::print;
use crate::clock::{Clock as _, SystemClock};

mod view;

pub(super) use view::{bar, budgets};

/// Shows what the daemon enforces and what the agents have spent.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 the daemon answered, whatever it said; 1 it did not.\n\n\
                        In a bar, # is settled, + is reserved by calls in flight, and | marks the soft limit.\n\n\
                        Examples:\n  guard-agent status\n  \
                        guard-agent status --json | jq '.agents[] | {name, calls, refusals}'"
)]
pub(super) struct Show {
    /// Print JSON; money is in whole pico-dollars (10^12 make one dollar).
    #[arg(long)]
    json: bool,
}

impl Show {
    pub(super) fn run(&self, config: &Path) -> anyhow::Result<u8> {
        let status = super::client(config)?.status()?;
        if self.json {
            print(&serde_json::to_string_pretty(&status)?)?;
        } else {
            print(&view::text(&status, SystemClock.now()))?;
        }
        Ok(OK)
    }
}
