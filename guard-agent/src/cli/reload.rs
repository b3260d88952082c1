//! `guard-agent reload`

use std::path::Path;

use super::OK;
use super::output::{complain, print};

/// Has the daemon read its configuration again.
///
/// A file with errors changes nothing: the configuration in force stays. Calls in flight keep the rules that they began
/// with.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 the new configuration is in force; 1 it is not.\n\n\
                        Example:\n  sudo guard-agent reload"
)]
pub(super) struct Reload {}

impl Reload {
    pub(super) fn run(&self, config: &Path) -> anyhow::Result<u8> {
        let reloaded = super::client(config)?.reload()?;
        for note in &reloaded.notes {
            complain(note);
        }
        print(&format!(
            "The new configuration is in force: {} agent(s).",
            reloaded.agents
        ))?;
        Ok(OK)
    }
}
