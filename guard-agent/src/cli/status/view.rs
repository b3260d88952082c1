//! The status for people, at most 80 columns wide.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::super::words::{amount, clip, dollars, span, thousands};
use crate::admin::{AgentStatus, BudgetStatus, LastRefusal, Status};
use crate::ledger::Unit;
use crate::money::PICO_PER_USD;

/// Columns.
const WIDTH: usize = 80;
/// Cells of a budget bar.
const BAR: u64 = 16;

/// The whole picture.
pub(super) fn text(status: &Status, now: Timestamp) -> String {
    let mut out = format!(
        "Guard {}   enforcing: {}   mode: {}   up {}\n",
        status.version,
        if status.enforcing { "yes" } else { "NO" },
        status.mode,
        span(now.duration_since(status.started_at)),
    );
    if let Some(why) = &status.not_ready {
        wrap(&mut out, "Not ready: ", why);
    }
    if status.agents.is_empty() {
        out.push_str("\nNo agent is configured: nothing is governed.\n");
    }
    for agent in &status.agents {
        out.push('\n');
        describe(&mut out, agent, now);
    }
    shared(&mut out, status, now);
    out
}

fn describe(out: &mut String, agent: &AgentStatus, now: Timestamp) {
    let name = clip(&format!("{} ({})", agent.name, agent.owner), 32);
    // Writing to a String cannot fail.
    let _written = writeln!(
        out,
        "{name:<32} {:>8} calls {:>6} refused {:>4} now {:>3} runs",
        thousands(agent.calls),
        thousands(agent.refusals),
        agent.in_flight,
        agent.runs,
    );
    list(out, agent, now);
    if let Some(last) = &agent.last_refusal {
        refusal(out, last, now);
    }
}

/// The budgets alone.
pub(in crate::cli) fn budgets(status: &Status, now: Timestamp) -> String {
    let mut out = String::new();
    for agent in &status.agents {
        out.push_str(&clip(&format!("{} ({})", agent.name, agent.owner), WIDTH));
        out.push('\n');
        list(&mut out, agent, now);
    }
    shared(&mut out, status, now);
    out
}

fn list(out: &mut String, agent: &AgentStatus, now: Timestamp) {
    for budget in &agent.budgets {
        describe_budget(out, budget, now);
    }
    for grant in &agent.grants {
        let head = format!(
            "  {} of it granted, ends in {}: ",
            dollars(grant.pico_usd, 2),
            span(grant.until.duration_since(now))
        );
        wrap(out, &head, &grant.why);
    }
}

fn shared(out: &mut String, status: &Status, now: Timestamp) {
    if !status.shared.is_empty() {
        out.push_str("\nshared by agents\n");
    }
    for budget in &status.shared {
        // Writing to a String cannot fail.
        let _written = writeln!(out, "  {} {}", budget.scope, clip(&budget.name, 60));
        describe_budget(out, budget, now);
    }
}

fn describe_budget(out: &mut String, budget: &BudgetStatus, now: Timestamp) {
    let resets = match budget.resets_at {
        Some(at) if at > now => format!("resets in {}", span(at.duration_since(now))),
        Some(_) => "resets now".to_owned(),
        None => clip(&budget.name, 14),
    };
    // Of a budget of cents, cents would tell nothing.
    let decimals = if budget.unit == Unit::Usd && budget.limit < PICO_PER_USD {
        4
    } else {
        2
    };
    let shown = |count, unit| amount(budget.amount(count), decimals, unit);
    let reserved = match budget.reserved {
        0 => String::new(),
        some => format!(" +{}", shown(some, false)),
    };
    let amounts = format!(
        "{}{reserved} of {}",
        shown(budget.settled, false),
        shown(budget.limit, true)
    );
    let line = format!("  {:<6}[{}] {amounts:<31} {resets}", budget.window, bar(budget));
    out.push_str(line.trim_end());
    out.push('\n');
}

/// `#` settled, `+` reserved, `|` the soft limit where nothing is yet, `.` free. A cent of spending shows, and a full bar
/// is really full.
pub(in crate::cli) fn bar(budget: &BudgetStatus) -> String {
    let limit = u128::from(budget.limit.max(1));
    let cells = |amount: u64| {
        let scaled = (u128::from(amount) * u128::from(BAR))
            .checked_div(limit)
            .unwrap_or(0);
        u64::try_from(scaled).unwrap_or(BAR).min(BAR)
    };
    let shown = |amount: u64, upto: u64| if amount == 0 { 0 } else { upto.max(1) };
    let (settled, reserved) = (budget.settled, budget.reserved);
    let full = shown(settled, cells(settled));
    let used = cells(settled.saturating_add(reserved)).max(full);
    let used = if reserved > 0 {
        used.max(full + 1).min(BAR)
    } else {
        used
    };
    let soft = budget.soft.map(|soft| cells(soft).min(BAR - 1));
    (0..BAR)
        .map(|cell| match cell {
            cell if cell < full => '#',
            cell if cell < used => '+',
            cell if Some(cell) == soft => '|',
            _ => '.',
        })
        .collect()
}

fn refusal(out: &mut String, last: &LastRefusal, now: Timestamp) {
    let head = format!("  last refusal {} ago: ", span(now.duration_since(last.at)));
    wrap(out, &head, &format!("{} — {}", last.reason, last.message));
}

/// Breaks a text at spaces, indented by four, and keeps what a terminal would obey out of it.
fn wrap(out: &mut String, head: &str, text: &str) {
    let mut line = head.to_owned();
    let mut length = head.chars().count();
    for word in text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
    {
        let word = clip(word, WIDTH - 8);
        let wide = word.chars().count();
        if length + wide + 1 > WIDTH {
            out.push_str(line.trim_end());
            out.push('\n');
            "    ".clone_into(&mut line);
            length = 4;
        }
        line.push_str(&word);
        line.push(' ');
        length += wide + 1;
    }
    out.push_str(line.trim_end());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Grant;
    use crate::money::Pico;

    fn usd(text: &str) -> u64 {
        Pico::from_usd_text(text).unwrap().0
    }

    fn budget(settled: &str, reserved: &str, limit: &str) -> BudgetStatus {
        BudgetStatus {
            scope: "agent".into(),
            name: "coder".into(),
            window: "day".into(),
            unit: Unit::Usd,
            limit: usd(limit),
            soft: Some(usd(limit) / 10 * 8),
            settled: usd(settled),
            reserved: usd(reserved),
            resets_at: Some("2026-11-24T00:00:00Z".parse().unwrap()),
        }
    }

    #[test]
    fn the_whole_picture() {
        let mut run = budget("0.123", "0", "5");
        run.window = "run".into();
        run.name = "01JDABCDEFGHJKMNPQRSTVWXYZ".into();
        run.soft = None;
        run.resets_at = None;
        let tokens = BudgetStatus {
            window: "hour".into(),
            unit: Unit::Tokens,
            limit: 2_000_000,
            soft: None,
            settled: 1_250_000,
            reserved: 12_000,
            ..budget("0", "0", "0")
        };
        let status = Status {
            version: "0.1.0".into(),
            mode: "enforce".into(),
            enforcing: true,
            not_ready: None,
            started_at: "2026-11-23T06:30:00Z".parse().unwrap(),
            configured_at: "2026-11-23T06:30:00Z".parse().unwrap(),
            agents: vec![AgentStatus {
                name: "coder".into(),
                owner: "platform-team".into(),
                runs: 1,
                calls: 1204,
                refusals: 3,
                in_flight: 2,
                last_refusal: Some(LastRefusal {
                    at: "2026-11-23T19:40:00Z".parse().unwrap(),
                    reason: "model_denied".into(),
                    message: "Agent \"coder\" may not use the model \"gpt-4o\"; it may use gpt-5*. Choose one of these."
                        .into(),
                }),
                budgets: vec![budget("12.4", "0.8", "20"), run, tokens],
                grants: vec![Grant {
                    agent: "coder".into(),
                    pico_usd: Pico::from_usd_text("5").unwrap(),
                    why: "a release".into(),
                    at: "2026-11-23T19:40:00Z".parse().unwrap(),
                    until: "2026-11-23T21:40:00Z".parse().unwrap(),
                    by_uid: 0,
                }],
            }],
            shared: vec![BudgetStatus {
                scope: "owner".into(),
                name: "platform-team".into(),
                ..budget("3", "0", "100")
            }],
        };
        let shown = text(&status, "2026-11-23T19:48:00Z".parse().unwrap());
        assert_eq!(
            shown,
            "Guard 0.1.0   enforcing: yes   mode: enforce   up 13 h 18 min\n\
             \n\
             coder (platform-team)               1,204 calls      3 refused    2 now   1 runs\n\
             \x20 day   [#########+..|...] $12.40 +$0.80 of $20.00         resets in 4 h 12 min\n\
             \x20 run   [#...............] $0.13 of $5.00                  01JDABCDEFGHJ…\n\
             \x20 hour  [##########+.....] 1.25M +12k of 2M tokens         resets in 4 h 12 min\n\
             \x20 $5.00 of it granted, ends in 1 h 52 min: a release\n\
             \x20 last refusal 8 min ago: model_denied — Agent \"coder\" may not use the model\n\
             \x20   \"gpt-4o\"; it may use gpt-5*. Choose one of these.\n\
             \n\
             shared by agents\n\
             \x20 owner platform-team\n\
             \x20 day   [#...........|...] $3.00 of $100.00                resets in 4 h 12 min\n"
        );
        assert!(shown.lines().all(|line| line.chars().count() <= WIDTH), "{shown}");
    }

    #[test]
    fn a_bar_shows_a_cent_and_is_full_only_when_it_is() {
        for (settled, reserved, shown) in [
            ("0", "0", "............|..."),
            ("0.01", "0", "#...........|..."),
            ("0", "0.01", "+...........|..."),
            ("19.99", "0", "###############."),
            ("20", "0", "################"),
            ("25", "0", "################"),
            ("10", "10", "########++++++++"),
        ] {
            assert_eq!(
                bar(&budget(settled, reserved, "20")),
                shown,
                "{settled} + {reserved}"
            );
        }
    }

    #[test]
    fn nothing_steers_the_terminal_and_nothing_is_too_wide() {
        let mut out = String::new();
        wrap(
            &mut out,
            "Not ready: ",
            &format!("\u{1b}[2J bad {}", "x".repeat(500)),
        );
        assert!(!out.contains('\u{1b}'), "{out:?}");
        assert!(out.lines().all(|line| line.chars().count() <= WIDTH), "{out}");
    }
}
