use proptest::prelude::*;

use super::*;
use crate::config::LoopRules;
use crate::llm::conversation::{STEPS, Sign, Step};

/// A step whose arguments and result are told apart by these numbers.
fn step(turn: u32, tool: &str, arguments: u64, result: u64) -> Step {
    Step {
        turn,
        tool: tool.into(),
        arguments,
        // Nothing but equal arguments have an equal shape here.
        shape: arguments,
        sketch: None,
        result: Some(result),
        sign: Sign::Fine,
        waits: false,
    }
}

/// The highest level that the usual configuration reaches at any point of a conversation, and by which rules.
fn judged(steps: &[Step]) -> Vec<(LoopRule, Level)> {
    let rules = LoopRules::default();
    let mut found = Vec::new();
    let ends: Vec<usize> = (1..=steps.len())
        .filter(|end| {
            steps
                .get(*end)
                .is_none_or(|next| next.turn != steps[end - 1].turn)
        })
        .collect();
    for end in ends {
        for reading in readings(&steps[end.saturating_sub(STEPS)..end], false) {
            if let Some(level) = reading.level(rules.of(reading.rule))
                && !found.contains(&(reading.rule, level))
            {
                found.push((reading.rule, level));
            }
        }
    }
    found
}

fn trips(steps: &[Step]) -> Vec<LoopRule> {
    let all = judged(steps).into_iter();
    all.filter(|(_, level)| *level == Level::Trip)
        .map(|(rule, _)| rule)
        .collect()
}

fn repeated(count: u32, of: impl Fn(u32) -> Step) -> Vec<Step> {
    (1..=count).map(of).collect()
}

#[test]
fn the_tenth_same_call_with_the_same_result_trips_and_the_fifth_warns() {
    let stuck = |count| repeated(count, |turn| step(turn, "search", 7, 1));
    assert_eq!(judged(&stuck(4)), []);
    assert_eq!(judged(&stuck(9)), [(LoopRule::Repeat, Level::Warn)]);
    assert_eq!(trips(&stuck(10)), [LoopRule::Repeat]);
}

#[test]
fn calls_of_one_reply_count_once() {
    let burst: Vec<Step> = (0..50).map(|_| step(1, "mkdir", 7, 1)).collect();
    assert_eq!(judged(&burst), []);
}

#[test]
fn polling_is_told_from_looping_by_results_that_change_and_by_tools_that_wait() {
    let changing = repeated(50, |turn| step(turn, "build", 7, turn.into()));
    assert_eq!(judged(&changing), []);
    let waiting = repeated(50, |turn| Step {
        waits: true,
        ..step(turn, "wait", 7, 1)
    });
    assert_eq!(judged(&waiting), []);
    let forever = repeated(120, |turn| step(turn, "build", 7, turn.into()));
    assert_eq!(trips(&forever), [LoopRule::Poll]);
    let slow = readings(&repeated(20, |turn| step(turn, "build", 7, 1)), true);
    assert!(
        slow.iter().all(|reading| reading.rule != LoopRule::Repeat),
        "{slow:?}"
    );
}

#[test]
fn a_loop_that_has_ended_is_over() {
    let mut steps = repeated(9, |turn| step(turn, "search", 7, 1));
    steps.push(step(10, "read", 8, 2));
    assert!(
        readings(&steps, false).is_empty(),
        "{:?}",
        readings(&steps, false)
    );
}

#[test]
fn nearly_the_same_arguments_without_a_new_result_are_a_loop_too() {
    let drifting = repeated(20, |turn| Step {
        shape: 3,
        ..step(turn, "search", turn.into(), 1)
    });
    assert_eq!(trips(&drifting), [LoopRule::Similar]);
    let paging = repeated(30, |turn| Step {
        shape: 3,
        ..step(turn, "read", turn.into(), turn.into())
    });
    assert_eq!(judged(&paging), []);
}

#[test]
fn failures_trip_only_when_the_format_says_that_they_are() {
    let failing = |sign| {
        repeated(16, |turn| Step {
            sign,
            ..step(turn, "edit", turn.into(), turn.into())
        })
    };
    assert_eq!(trips(&failing(Sign::Declared)), [LoopRule::Errors]);
    assert_eq!(judged(&failing(Sign::Likely)), [(LoopRule::Errors, Level::Warn)]);
    assert_eq!(judged(&failing(Sign::Fine)), []);
}

#[test]
fn what_is_said_speaks_to_the_model_and_to_the_operator() {
    let agent = crate::policy::tests_support::agent("providers = [\"openai\"]\nloops = { repeat = 3 }");
    let found = readings(&repeated(3, |turn| step(turn, "search\n", 7, 1)), false);
    let reading = found
        .iter()
        .find(|reading| reading.rule == LoopRule::Repeat)
        .unwrap();
    assert_eq!(reading.level(agent.loops.of(LoopRule::Repeat)), Some(Level::Trip));
    assert_eq!(reading.score(agent.loops.of(LoopRule::Repeat)), 100);
    let refusal = reading.refusal(&agent);
    for part in [
        "the tool \"search \" was called 3 times",
        "Do not make this call again",
        "A new message of the user is let through",
        "loops.repeat (now 3) of [[agent]] \"coder\"",
    ] {
        assert!(refusal.message.contains(part), "{part}: {}", refusal.message);
    }
    assert_eq!(refusal.reason, Reason::Loop);
}

/// What agents that get on do: read files, edit them, run the same tests after each edit, look things up, wait for a
/// build.
fn working(choices: &[(u8, u8)]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut versions = [0_u64; 8];
    let mut turn = 0;
    for (number, (what, which)) in choices.iter().enumerate() {
        turn += 1;
        let number = u64::try_from(number).unwrap();
        let file = usize::from(which % 8);
        let name = u64::from(which % 8);
        let done = versions.iter().sum::<u64>();
        match what % 10 {
            // The same arguments each time, and what is there now.
            0..=2 => steps.push(step(
                turn,
                "read",
                1_000 + name,
                10_000 + name * 1_000 + versions[file],
            )),
            3..=5 => {
                versions[file] += 1;
                // The same result each time, and never the same arguments.
                steps.push(step(turn, "edit", 100_000 + number, 1));
                turn += 1;
                steps.push(step(turn, "test", 5, 200_000 + done));
            }
            6..=7 => steps.push(step(turn, "grep", 300_000 + number, 400_000 + number % 3)),
            8 => steps.extend((0..u32::from(which % 4) + 1).map(|_| step(turn, "list", 6, 500_000 + done))),
            _ => {
                for second in 0..u32::from(which % 12) {
                    turn += 1;
                    steps.push(Step {
                        waits: true,
                        ..step(turn, "check_build", 9, u64::from(second / 5))
                    });
                }
            }
        }
    }
    steps
}

#[test]
fn a_long_session_that_gets_on_is_not_even_warned_of() {
    let choices: Vec<(u8, u8)> = (0..400_u32)
        .map(|n| ((n * 7 % 10) as u8, (n * 31 % 251) as u8))
        .collect();
    let steps = working(&choices);
    assert!(steps.len() > 400, "{}", steps.len());
    assert_eq!(judged(&steps), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_that_gets_on_ever_trips(choices in prop::collection::vec((any::<u8>(), any::<u8>()), 1..300)) {
        let found = trips(&working(&choices));
        prop_assert!(found.is_empty(), "{found:?}");
    }

    /// Whatever came before, and whatever else a round holds.
    #[test]
    fn every_loop_trips_in_the_end(
        before in prop::collection::vec((any::<u8>(), any::<u8>()), 0..50), period in 1..5_u64, other in 1..3_u32,
    ) {
        let mut steps = working(&before);
        let from = steps.last().map_or(0, |step| step.turn) + 1;
        for round in 0..10_u32 {
            for place in 0..period {
                let turn = from + round * u32::try_from(period).unwrap() + u32::try_from(place).unwrap();
                // A reply may do more than one thing.
                for part in 0..other {
                    steps.push(step(turn, "tool", 900_000 + place * 10 + u64::from(part), 1));
                }
            }
        }
        let found = trips(&steps);
        let expected = [LoopRule::Repeat, LoopRule::Alternate];
        prop_assert!(found.iter().any(|rule| expected.contains(rule)), "{found:?}");
    }
}
