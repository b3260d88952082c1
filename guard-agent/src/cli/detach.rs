//! `guard-agent detach`

use std::path::Path;

use super::OK;
use super::output::print;

/// Takes the programs out of the kernel, on purpose.
///
/// From then on nothing is governed: agents reach the network like everybody else, with whatever keys they have. Stop the
/// daemon first, or it attaches them again on its next start.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 nothing of Guard's is attached any more; 1 something may still be.\n\n\
                        Example:\n  sudo systemctl stop guard-agent && sudo guard-agent detach"
)]
pub(super) struct Detach {}

impl Detach {
    pub(super) fn run(&self, config: &Path) -> anyhow::Result<u8> {
        let bpffs = super::host(config)?.bpffs;
        let report = crate::kernel::detach(&bpffs)?;
        if report.links.is_empty() && report.maps.is_empty() {
            print(&format!(
                "Nothing of Guard's was attached (looked in {}).",
                bpffs.display()
            ))?;
        } else {
            print(&format!(
                "Detached {} program(s) and removed {} map(s). Agents are not governed any more.",
                report.links.len(),
                report.maps.len()
            ))?;
        }
        Ok(OK)
    }
}
