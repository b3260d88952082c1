//! `guard-agent daemon`

use std::path::Path;

use super::output::complain;
use super::{OK, USAGE};
use crate::config;
use crate::telemetry::{self, LogFormat};

/// Runs the firewall in the foreground; systemd starts it this way.
///
/// It ends on SIGTERM or SIGINT, after the calls in flight, and reads its configuration again on SIGHUP. The programs
/// stay in the kernel when it ends: governed processes are then refused, not free. `guard-agent detach` sets them free.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 ended on a signal; 1 could not start or go on; 2 the configuration has errors.\n\n\
                        Example:\n  systemctl start guard-agent\n  GUARD_LOG=debug guard-agent daemon"
)]
pub(super) struct Daemon {
    /// How the log on standard error looks.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

impl Daemon {
    pub(super) fn run(&self, path: &Path) -> anyhow::Result<u8> {
        telemetry::init(self.log_format)?;
        let checked = config::check(path);
        if checked.config.is_none() {
            for problem in &checked.problems {
                complain(&problem.to_string());
            }
            return Ok(USAGE);
        }
        for problem in &checked.problems {
            tracing::warn!("{problem}");
        }
        crate::keeper::run(path, self.log_format)?;
        Ok(OK)
    }
}
