//! `guard-agent top`

use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use super::OK;
use crate::admin::client::Client;
use crate::clock::{Clock as _, SystemClock};

mod draw;
mod history;

use history::History;

/// Shows live what agents spend: budgets as bars, rates, when a budget will be gone, refusals as they come.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Keys: q or Esc leaves, p pauses, Up and Down (or k and j) scroll.\n\n\
                  In a bar, # is settled, + is reserved by calls in flight, and | marks the soft limit. A budget is \
                  yellow from its soft limit on, and red when less than a twentieth is left or when it is gone within 15 \
                  minutes at the present rate.\n\n\
                  Exit codes: 0 you left; 1 the daemon did not answer at the start, or this is no terminal."
)]
pub(super) struct Top {
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    interval: u64,
}

impl Top {
    pub(super) fn run(&self, config: &Path) -> anyhow::Result<u8> {
        if !std::io::stdout().is_terminal() {
            bail!("`top` needs a terminal; `guard-agent status` prints the same once, `--json` for programs");
        }
        let client = super::client(config)?;
        let mut history = History::default();
        history.take(client.status()?, SystemClock.now());
        let mut terminal = ratatui::try_init().context("the terminal cannot be set up")?;
        let shown = self.show(&client, &mut history, &mut terminal);
        ratatui::try_restore().context("the terminal cannot be put back")?;
        shown?;
        Ok(OK)
    }

    fn show(
        &self,
        client: &Client,
        history: &mut History,
        terminal: &mut DefaultTerminal,
    ) -> anyhow::Result<()> {
        let interval = Duration::from_secs(self.interval);
        let mut next = Instant::now() + interval;
        let mut screen = draw::Screen::default();
        loop {
            terminal.draw(|frame| screen.draw(frame, history, SystemClock.now()))?;
            let left = next.saturating_duration_since(Instant::now());
            if event::poll(left)? {
                if let Event::Key(key) = event::read()?
                    && key.kind == KeyEventKind::Press
                {
                    let interrupt =
                        key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
                    match key.code {
                        KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                        _ if interrupt => return Ok(()),
                        KeyCode::Char('p') => screen.paused = !screen.paused,
                        KeyCode::Up | KeyCode::Char('k') => screen.scroll = screen.scroll.saturating_sub(1),
                        KeyCode::Down | KeyCode::Char('j') => screen.scroll = screen.scroll.saturating_add(1),
                        _ => {}
                    }
                }
                continue;
            }
            next = Instant::now() + interval;
            if !screen.paused {
                match client.status() {
                    Ok(status) => history.take(status, SystemClock.now()),
                    Err(why) => history.lost(&why.to_string()),
                }
            }
        }
    }
}
