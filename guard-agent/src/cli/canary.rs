//! `guard-agent canary`: the process that tries to get out, as the daemon starts it.

use std::io::{self, BufRead, Write};

use super::OK;

/// Guard's own canary, which the daemon starts by itself in a governed cgroup.
///
/// It waits for a line on standard input, tries every way past Guard, and prints what each answered. Run by hand, outside
/// of that cgroup, it shows what an ungoverned process may do.
#[derive(Debug, clap::Args)]
pub(super) struct Canary {
    /// The port of `/metrics`.
    metrics: u16,
    /// The port of the redirect listener.
    listener: u16,
}

impl Canary {
    pub(super) fn run(&self) -> anyhow::Result<u8> {
        io::stdin().lock().read_line(&mut String::new())?;
        let answers = crate::keeper::fly(self.metrics, self.listener)?;
        io::stdout().lock().write_all(answers.as_bytes())?;
        Ok(OK)
    }
}
