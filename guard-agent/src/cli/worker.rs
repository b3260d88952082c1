//! `guard-agent worker`: the process without privileges, as the daemon starts it.

use std::io::stdin;
use std::os::fd::AsFd;

use anyhow::{Context, bail};
use nix::sys::socket::{SockType, getsockopt, sockopt};

use super::OK;
use crate::telemetry::{self, LogFormat};

/// The unprivileged part of the daemon, which starts it by itself.
///
/// It serves what the daemon hands it over the socket that is its standard input, and cannot be used by hand.
#[derive(Debug, clap::Args)]
pub(super) struct Worker {
    /// How the log on standard error looks.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

impl Worker {
    pub(super) fn run(&self) -> anyhow::Result<u8> {
        telemetry::init(self.log_format)?;
        let input = stdin();
        if getsockopt(&input.as_fd(), sockopt::SockType) != Ok(SockType::SeqPacket) {
            bail!("the daemon starts this by itself: run `guard-agent daemon`");
        }
        let end = input
            .as_fd()
            .try_clone_to_owned()
            .context("the channel to the daemon cannot be taken")?;
        crate::app::run(end)?;
        Ok(OK)
    }
}
