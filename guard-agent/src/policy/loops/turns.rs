//! What the last part of the conversation says: repetition, alternation, polling, errors in a row.
//!
//! Counts are by replies of the model, not by calls: one reply may call a tool many times at once, and that is no loop.
//! Only what the last reply did is counted, so that a loop that has ended is over.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::Reading;
use crate::config::{LOOP_WINDOW, LoopRule};
use crate::llm::conversation::{Sign, Step};

/// Longest round that counts as alternation.
const PERIODS: std::ops::RangeInclusive<usize> = 2..=4;

/// Everything that the steps show. `slow`: so much time passes between calls that the agent seems to wait.
pub(crate) fn readings(steps: &[Step], slow: bool) -> Vec<Reading> {
    let Some(last) = steps.last() else {
        return Vec::new();
    };
    let mut found: Vec<Reading> = Vec::new();
    for step in steps.iter().rev().take_while(|step| step.turn == last.turn) {
        for (rule, count) in repetitions(steps, step, slow) {
            note(&mut found, rule, count, count, step);
        }
    }
    let rounds = rounds(steps);
    note(&mut found, LoopRule::Alternate, rounds, rounds, last);
    let (failed, declared) = failures(steps);
    note(&mut found, LoopRule::Errors, failed, declared, last);
    found
}

/// Keeps the highest count of a rule.
fn note(found: &mut Vec<Reading>, rule: LoopRule, count: u32, firm: u32, step: &Step) {
    let reading = Reading {
        rule,
        count,
        firm,
        tool: Some(step.tool.clone()),
    };
    match found.iter_mut().find(|known| known.rule == rule) {
        Some(known) if known.count < count => *known = reading,
        Some(_) => {}
        None if count > 1 => found.push(reading),
        None => {}
    }
}

/// How often a step was taken before.
fn repetitions(steps: &[Step], step: &Step, slow: bool) -> Vec<(LoopRule, u32)> {
    let window = u32::try_from(LOOP_WINDOW).unwrap_or(u32::MAX);
    let recent = |other: &&Step| other.turn.saturating_add(window) > step.turn;
    let (mut polled, mut same, mut alike) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for other in steps.iter().filter(|other| other.repeats(step)) {
        polled.insert(other.turn);
    }
    for other in steps.iter().filter(recent) {
        if other.result == step.result && other.resembles(step) {
            alike.insert(other.turn);
            if other.repeats(step) {
                same.insert(other.turn);
            }
        }
    }
    let count = |turns: &BTreeSet<u32>| u32::try_from(turns.len()).unwrap_or(u32::MAX);
    let mut counts = vec![(LoopRule::Poll, count(&polled))];
    if !step.waits && !slow {
        counts.push((LoopRule::Repeat, count(&same)));
        if alike.len() > same.len() {
            counts.push((LoopRule::Similar, count(&alike)));
        }
    }
    counts
}

/// What one reply of the model did, and what came of it.
struct Turn {
    did: u64,
    waits: bool,
    failed: bool,
    declared: bool,
}

fn turns(steps: &[Step]) -> Vec<Turn> {
    let mut all = Vec::new();
    for turn in steps.chunk_by(|a, b| a.turn == b.turn) {
        // The order of calls in one reply does not count.
        let mut parts: Vec<_> = turn
            .iter()
            .map(|step| (&step.tool, step.arguments, step.result))
            .collect();
        parts.sort_unstable();
        let mut hasher = DefaultHasher::new();
        parts.hash(&mut hasher);
        all.push(Turn {
            did: hasher.finish(),
            waits: turn.iter().any(|step| step.waits),
            failed: turn.iter().all(|step| step.sign != Sign::Fine),
            declared: turn.iter().all(|step| step.sign == Sign::Declared),
        });
    }
    all
}

/// How often the last two to four replies came in the same order.
fn rounds(steps: &[Step]) -> u32 {
    let turns = turns(steps);
    let most = PERIODS.map(|period| rounds_of(&turns, period)).max();
    u32::try_from(most.unwrap_or(0)).unwrap_or(u32::MAX)
}

fn rounds_of(turns: &[Turn], period: usize) -> usize {
    let Some(end) = turns.len().checked_sub(period) else {
        return 0;
    };
    let (before, after) = (turns.get(..end), turns.get(period..));
    let pairs = before.unwrap_or_default().iter().zip(after.unwrap_or_default());
    let round = turns.get(end..).unwrap_or_default();
    let one_call = round
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if a.did == b.did));
    if one_call || round.iter().any(|turn| turn.waits) {
        return 0;
    }
    let same = pairs.rev().take_while(|(a, b)| a.did == b.did).count();
    match same >= period {
        true => (same + period) / period,
        false => 0,
    }
}

/// Replies in a row whose tools all failed: in all, and of these the last ones of which the format says so.
fn failures(steps: &[Step]) -> (u32, u32) {
    let turns = turns(steps);
    let in_a_row = |failed: fn(&Turn) -> bool| turns.iter().rev().take_while(|turn| failed(turn)).count();
    let narrow = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    (
        narrow(in_a_row(|turn| turn.failed)),
        narrow(in_a_row(|turn| turn.declared)),
    )
}
