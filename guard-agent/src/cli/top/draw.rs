//! One screen of `top`. In: what was seen. Out: cells of a terminal of any size.

use jiff::{SignedDuration, Timestamp};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Wrap};

use super::history::{History, SHARED};
use crate::admin::{AgentStatus, BudgetStatus, Status};
use crate::cli::status::bar;
use crate::cli::words::{amount, clip, span, thousands};

/// Sooner than this a budget that runs out is red.
const SOON: SignedDuration = SignedDuration::from_mins(15);
/// Lines for refusals.
const REFUSALS: u16 = 9;

const PLAIN: Style = Style::new();
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const GOOD: Style = Style::new().fg(Color::Green);
const WARN: Style = Style::new().fg(Color::Yellow);
const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);

/// What the person at the terminal chose.
#[derive(Debug, Default)]
pub(super) struct Screen {
    pub(super) paused: bool,
    pub(super) scroll: u16,
}

impl Screen {
    /// Draws everything.
    pub(super) fn draw(&mut self, frame: &mut Frame<'_>, history: &History, now: Timestamp) {
        let Some(status) = &history.status else { return };
        let rows = Layout::vertical([
            Constraint::Length(2),
            Constraint::Min(3),
            Constraint::Length(REFUSALS),
            Constraint::Length(1),
        ]);
        let [head, agents, refusals, foot] = rows.areas(frame.area());
        frame.render_widget(Paragraph::new(header(status, history, now)), head);
        self.agents(frame, agents, status, history, now);
        frame.render_widget(refused(history, now), refusals);
        let state = if self.paused {
            "paused: p goes on"
        } else {
            "p pauses"
        };
        let keys = format!("q leaves   {state}   arrows scroll   rates are of the last minute");
        frame.render_widget(Paragraph::new(Line::styled(keys, DIM)), foot);
    }

    fn agents(
        &mut self,
        frame: &mut Frame<'_>,
        area: Rect,
        status: &Status,
        history: &History,
        now: Timestamp,
    ) {
        let mut lines = Vec::new();
        if status.agents.is_empty() {
            lines.push(Line::from("No agent is configured: nothing is governed."));
        }
        for agent in &status.agents {
            lines.push(agent_line(agent, history));
            lines.extend(
                agent
                    .budgets
                    .iter()
                    .map(|budget| budget_line(&agent.name, budget, history, now)),
            );
        }
        if !status.shared.is_empty() {
            lines.push(Line::styled("shared by agents", BOLD));
        }
        for budget in &status.shared {
            let whose = format!("  {} {}", budget.scope, plain(&budget.name));
            lines.push(Line::styled(clip(&whose, 70), DIM));
            lines.push(budget_line(SHARED, budget, history, now));
        }
        let most = u16::try_from(lines.len())
            .unwrap_or(u16::MAX)
            .saturating_sub(area.height);
        self.scroll = self.scroll.min(most);
        frame.render_widget(Paragraph::new(lines).scroll((self.scroll, 0)), area);
    }
}

fn header(status: &Status, history: &History, now: Timestamp) -> Vec<Line<'static>> {
    let enforcing = if status.enforcing {
        Span::styled("enforcing", GOOD)
    } else {
        Span::styled("NOT ENFORCING", BAD)
    };
    let up = span(now.duration_since(status.started_at));
    let first = Line::from(vec![
        Span::styled(format!("Guard {}  ", status.version), BOLD),
        enforcing,
        Span::raw(format!("  mode {}  up {up}", status.mode)),
    ]);
    let trouble = history.trouble.as_ref().or(status.not_ready.as_ref());
    let second = trouble.map_or_else(Line::default, |why| Line::styled(plain(why), BAD));
    vec![first, second]
}

fn agent_line(agent: &AgentStatus, history: &History) -> Line<'static> {
    let rate = history
        .calls_per_minute(&agent.name)
        .map_or_else(String::new, |rate| format!("{:>5}/min", thousands(rate)));
    Line::from(vec![
        Span::styled(
            format!("{:<28}", clip(&format!("{} ({})", agent.name, agent.owner), 28)),
            BOLD,
        ),
        Span::raw(format!(" {:>9} calls {rate:>9}", thousands(agent.calls))),
        Span::styled(
            format!(" {:>6} refused", thousands(agent.refusals)),
            if agent.refusals > 0 { WARN } else { DIM },
        ),
        Span::raw(format!(" {:>4} now {:>3} runs", agent.in_flight, agent.runs)),
    ])
}

fn budget_line(agent: &str, budget: &BudgetStatus, history: &History, now: Timestamp) -> Line<'static> {
    let gone = history.gone_in(agent, budget, now);
    let style = colour(budget, gone);
    let rate = match history.per_hour(agent, budget) {
        Some(rate) if rate.count > 0 => format!("{}/h", amount(rate, 2, false)),
        Some(_) | None => String::new(),
    };
    let end = match (gone, budget.resets_at) {
        (Some(gone), _) => format!("gone in {}", span(gone)),
        (None, Some(at)) => format!("resets in {}", span(at.duration_since(now))),
        (None, None) => clip(&budget.name, 14),
    };
    let amounts = format!(
        "{} of {}",
        amount(budget.amount(budget.settled), 2, false),
        amount(budget.amount(budget.limit), 2, true)
    );
    Line::from(vec![
        Span::raw(format!("  {:<7}", clip(&budget.window, 7))),
        Span::styled(format!("[{}]", bar(budget)), style),
        Span::raw(format!(" {amounts:<24} {rate:>11}  ")),
        Span::styled(
            end,
            if gone.is_some_and(|gone| gone < SOON) {
                BAD
            } else {
                PLAIN
            },
        ),
    ])
}

fn colour(budget: &BudgetStatus, gone: Option<SignedDuration>) -> Style {
    let used = budget.settled.saturating_add(budget.reserved);
    let left = budget.limit.saturating_sub(used);
    if left <= budget.limit / 20 || gone.is_some_and(|gone| gone < SOON) {
        BAD
    } else if budget.soft.is_some_and(|soft| used >= soft) {
        WARN
    } else {
        GOOD
    }
}

fn refused(history: &History, now: Timestamp) -> Paragraph<'static> {
    let block = Block::new().borders(Borders::TOP).title(" refusals ");
    let lines: Vec<Line<'_>> = history
        .refused
        .iter()
        .map(|refused| {
            let more = match refused.unseen {
                0 => String::new(),
                unseen => format!(" (and {} more)", thousands(unseen)),
            };
            Line::from(vec![
                Span::styled(
                    format!("{:>9} ago ", span(now.duration_since(refused.last.at))),
                    DIM,
                ),
                Span::styled(
                    format!("{} {}{more} ", plain(&refused.agent), refused.last.reason),
                    WARN,
                ),
                Span::raw(plain(&refused.last.message)),
            ])
        })
        .collect();
    let lines = if lines.is_empty() {
        vec![Line::styled("none so far", DIM)]
    } else {
        lines
    };
    Paragraph::new(lines).wrap(Wrap { trim: false }).block(block)
}

/// A text that others wrote, without what a terminal would obey.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::history::tests::{at, picture};
    use super::*;

    fn shown(history: &History, second: u32, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let mut screen = Screen::default();
        terminal
            .draw(|frame| screen.draw(frame, history, at(second)))
            .unwrap();
        let buffer = terminal.backend().buffer();
        let lines = buffer.content().chunks(usize::from(width)).map(|row| {
            let line: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
            line.trim_end().to_owned()
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_fire_is_seen_at_a_glance() {
        let mut history = History::default();
        history.take(picture(100, "10", None), at(0));
        history.take(
            picture(
                160,
                "11",
                Some((1, "Agent \"coder\" may not use \u{1b}[2J gpt-4o.")),
            ),
            at(60),
        );
        let seen = shown(&history, 60, 100, 16);
        let expected = "\
Guard 0.1.0  enforcing  mode enforce  up 1 min

coder (team)                       160 calls    60/min      1 refused    0 now   1 runs
  day    [########....|...] $11.00 of $20.00            $60.00/h  gone in 9 min";
        assert!(seen.starts_with(expected), "{seen}");
        assert!(
            seen.contains("59 s ago coder model_denied Agent \"coder\" may not use  [2J gpt-4o."),
            "{seen}"
        );
        assert!(seen.ends_with("rates are of the last minute"), "{seen}");
    }

    #[test]
    fn no_size_of_terminal_is_too_small_and_no_number_of_agents_too_large() {
        let mut status = picture(1, "1", None);
        let one = status.agents[0].clone();
        status.agents = (0..300)
            .map(|number| AgentStatus {
                name: format!("agent-{number}"),
                ..one.clone()
            })
            .collect();
        let mut history = History::default();
        history.take(status, at(0));
        for (width, height) in [(1, 1), (20, 4), (80, 24), (300, 90)] {
            assert!(!shown(&history, 1, width, height).contains("panicked"));
        }
    }

    #[test]
    fn a_daemon_that_is_gone_is_said_over_the_last_picture() {
        let mut history = History::default();
        history.take(picture(1, "1", None), at(0));
        history.lost("the daemon is not running");
        assert!(shown(&history, 1, 80, 24).contains("the daemon is not running"));
    }
}
