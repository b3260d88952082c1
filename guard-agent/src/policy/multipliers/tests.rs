use super::*;
use crate::llm::conversation::{STEPS, Sign, Step};
use crate::policy::tests_support::agent;

/// A run of one agent, with a clock of its own.
struct World {
    shared: Arc<Multipliers>,
    agent: Arc<Agent>,
    now: Instant,
    calls: u64,
}

/// What one call is like.
#[derive(Clone)]
struct Like {
    run: &'static str,
    provider: &'static str,
    conversation: Conversation,
    body: Option<u64>,
}

fn talk(thread: u64, user: u64) -> Like {
    Like {
        run: "run-1",
        provider: "openai",
        conversation: Conversation {
            thread: Some(thread),
            user,
            ..Conversation::default()
        },
        body: None,
    }
}

fn used(input: u64, cache_read: u64) -> Usage {
    Usage {
        input,
        cache_read,
        output: 10,
        ..Usage::default()
    }
}

impl World {
    fn new(lines: &str) -> Self {
        Self {
            shared: Arc::default(),
            agent: agent(&format!("providers = [\"openai\", \"anthropic\"]\n{lines}")),
            now: Instant::now(),
            calls: 0,
        }
    }

    fn ask(&mut self, like: &Like) -> Judged {
        self.calls += 1;
        self.now += Duration::from_secs(1);
        let facts = RequestFacts {
            conversation: like.conversation.clone(),
            ..RequestFacts::default()
        };
        let body = like.body.unwrap_or(1_000_000 + self.calls);
        self.shared.judge(&Asked {
            agent: &self.agent,
            run: &like.run.into(),
            provider: like.provider,
            facts: &facts,
            body: Fingerprint::of(&body.to_be_bytes()),
            body_bytes: 400,
            claimed: 0,
            now: self.now,
        })
    }

    /// Whether the rule refuses the call; an admitted one ends so.
    fn call(
        &mut self,
        like: &Like,
        usage: Option<Usage>,
        cost: u64,
        failed: bool,
    ) -> Result<Cause, LoopRule> {
        let judged = self.ask(like);
        let tripped = judged.reached.iter().find(|reached| reached.level == Level::Trip);
        if let Some(tripped) = tripped {
            return Err(tripped.reading.rule);
        }
        Ok(judged.watch.settle(&Outcome {
            cost: Pico(cost),
            usage,
            failed,
            client_gone: false,
            now: self.now,
        }))
    }
}

#[test]
fn a_context_that_grows_steadily_trips_and_one_large_file_does_not() {
    let mut world = World::new("loops = { growth = 2500, growth_turns = 10 }");
    let mut made = 0;
    let tripped = loop {
        match world.call(&talk(1, 1), Some(used(5_000 + made * 3_000, 0)), 1, false) {
            Ok(_) => made += 1,
            Err(rule) => break rule,
        }
    };
    assert_eq!((tripped, made), (LoopRule::Growth, 10));
    assert!(
        world.call(&talk(1, 2), Some(used(40_000, 0)), 1, false).is_ok(),
        "the user spoke"
    );
    assert_eq!(
        world
            .shared
            .gauges(world.now)
            .get("coder")
            .map(|gauges| gauges.growth),
        Some(0)
    );
    let mut world = World::new("loops = { growth = 2500, growth_turns = 10 }");
    for turn in 0..40 {
        let jump = if turn > 5 { 60_000 } else { 0 };
        let size = 5_000 + turn * 100 + jump;
        assert!(
            world.call(&talk(1, 1), Some(used(size, 0)), 1, false).is_ok(),
            "turn {turn}"
        );
    }
}

#[test]
fn sub_agents_grow_each_for_itself_and_count_together() {
    let mut world = World::new("loops = { growth = 2500, growth_turns = 10, parallel = 8 }");
    for turn in 0..40 {
        let size = if turn % 2 == 0 { 1_000 } else { 200_000 };
        assert!(
            world
                .call(&talk(turn % 2, 1), Some(used(size, 0)), 1, false)
                .is_ok()
        );
    }
    let running: Vec<Judged> = (0..8).map(|n| world.ask(&talk(100 + n, 1))).collect();
    assert_eq!(
        running[6].reached.iter().map(|r| r.level).max(),
        Some(Level::Warn)
    );
    let level = running[7].reached.iter().map(|r| (r.reading.rule, r.level)).max();
    assert_eq!(level, Some((LoopRule::Parallel, Level::Trip)));
    drop(running);
    assert!(
        world.call(&talk(200, 1), None, 1, false).is_ok(),
        "their places are free again"
    );
}

#[test]
fn a_provider_that_fails_is_left_alone_for_a_minute_and_others_are_not() {
    let mut world = World::new("loops = { failures = 4 }");
    for _ in 0..4 {
        assert_eq!(world.call(&talk(1, 1), None, 0, true), Ok(Cause::Failed));
    }
    assert_eq!(world.call(&talk(1, 1), None, 0, true), Err(LoopRule::Failures));
    let elsewhere = Like {
        provider: "anthropic",
        ..talk(1, 1)
    };
    assert!(world.call(&elsewhere, None, 1, false).is_ok());
    world.now += Duration::from_secs(60);
    assert!(
        world.call(&talk(1, 1), None, 0, true).is_ok(),
        "to see whether it is back"
    );
    assert_eq!(world.call(&talk(1, 1), None, 0, false), Err(LoopRule::Failures));
    assert!(world.call(&talk(1, 2), None, 1, false).is_ok(), "the user spoke");
    assert!(world.call(&talk(1, 2), None, 1, false).is_ok(), "and it is back");
}

#[test]
fn failures_that_cost_money_count_twice() {
    let mut world = World::new("loops = { failures = 4 }");
    for _ in 0..2 {
        assert_eq!(world.call(&talk(1, 1), None, 5, true), Ok(Cause::Failed));
    }
    assert_eq!(world.call(&talk(1, 1), None, 5, true), Err(LoopRule::Failures));
}

#[test]
fn misses_count_only_where_a_cache_was_in_use() {
    let mut world = World::new("loops = { cache_misses = 3 }");
    for _ in 0..20 {
        assert!(world.call(&talk(1, 1), Some(used(50_000, 0)), 1, false).is_ok());
    }
    for _ in 0..5 {
        assert!(world.call(&talk(1, 1), Some(used(100, 50_000)), 1, false).is_ok());
    }
    for _ in 0..3 {
        assert!(world.call(&talk(1, 1), Some(used(50_000, 0)), 1, false).is_ok());
    }
    assert_eq!(
        world.call(&talk(1, 1), Some(used(50_000, 0)), 1, false),
        Err(LoopRule::CacheMisses)
    );
}

#[test]
fn money_is_told_apart() {
    let mut world = World::new("retries = { per_body = 100 }\nloops = { failures = \"off\" }");
    let same = Like {
        body: Some(7),
        ..talk(1, 1)
    };
    assert_eq!(world.call(&same, None, 5, false), Ok(Cause::Useful));
    assert_eq!(
        world.call(&same, None, 5, false),
        Ok(Cause::Useful),
        "asked again"
    );
    assert_eq!(world.call(&same, None, 5, true), Ok(Cause::Failed));
    assert_eq!(world.call(&same, None, 5, true), Ok(Cause::Retried));
    assert_eq!(
        world.call(&same, None, 5, false),
        Ok(Cause::Retried),
        "paid before"
    );
    assert_eq!(world.call(&same, None, 5, false), Ok(Cause::Useful));
    let totals = world.shared.totals("run-1").unwrap();
    assert_eq!((totals.cost, totals.wasted), (Pico(30), Pico(15)));
    let free = Like {
        body: Some(8),
        ..talk(1, 1)
    };
    assert_eq!(world.call(&free, None, 0, true), Ok(Cause::Failed));
    assert_eq!(
        world.call(&free, None, 5, false),
        Ok(Cause::Useful),
        "nothing was paid before"
    );
    let circling = Step {
        turn: 1,
        tool: "t".into(),
        arguments: 1,
        shape: 1,
        sketch: None,
        result: Some(1),
        sign: Sign::Fine,
        waits: false,
    };
    let mut looping = talk(2, 1);
    looping.conversation.steps = (1..=6)
        .map(|turn| Step {
            turn,
            ..circling.clone()
        })
        .collect();
    assert_eq!(world.call(&looping, None, 5, false), Ok(Cause::Looping));
    assert_eq!(world.shared.gauges(world.now)["coder"].loop_score, 60);
}

#[test]
fn a_warning_is_given_once_until_the_user_speaks() {
    let mut world = World::new("loops = { growth = { warn = 1000 }, growth_turns = 3 }");
    let mut first = Vec::new();
    for turn in 0..12_u64 {
        let user = if turn < 8 { 1 } else { 2 };
        let judged = world.ask(&talk(1, user));
        first.extend(
            judged
                .reached
                .iter()
                .filter(|reached| reached.first)
                .map(|_| turn),
        );
        judged.watch.settle(&Outcome {
            cost: Pico(1),
            usage: Some(used(turn * 3_000, 0)),
            failed: false,
            client_gone: false,
            now: world.now,
        });
    }
    assert_eq!(first, [3, 11]);
}

#[test]
fn a_stored_conversation_goes_on_from_what_was_seen() {
    let mut world = World::new("loops = { repeat = 4 }");
    let mut part = talk(0, 0);
    part.conversation = Conversation {
        partial: true,
        steps: vec![Step {
            turn: 1,
            tool: "t".into(),
            arguments: 1,
            shape: 1,
            sketch: None,
            result: Some(1),
            sign: Sign::Fine,
            waits: false,
        }],
        ..Conversation::default()
    };
    for _ in 0..3 {
        assert!(world.call(&part, None, 1, false).is_ok());
    }
    assert_eq!(world.call(&part, None, 1, false), Err(LoopRule::Repeat));
    part.conversation.user = 9;
    assert!(world.call(&part, None, 1, false).is_ok(), "the user spoke");
}

#[test]
fn whatever_clients_send_memory_is_bounded() {
    let mut world = World::new("");
    let mut like = talk(0, 1);
    like.conversation.partial = true;
    like.conversation.steps = (0..STEPS as u32)
        .map(|turn| Step {
            turn,
            tool: "t".into(),
            arguments: turn.into(),
            shape: turn.into(),
            sketch: None,
            result: None,
            sign: Sign::Fine,
            waits: false,
        })
        .collect();
    for thread in 0..2_000 {
        like.conversation.thread = Some(thread % 1_000);
        assert!(world.call(&like, None, 1, false).is_ok());
    }
    let mut state = world.shared.lock();
    assert_eq!(state.runs.len(), 1);
    for number in 0..5_000_u32 {
        state.sweep(world.now);
        let name: Arc<str> = number.to_string().into();
        state.runs.insert(name, Run::new("coder".into(), world.now));
    }
    assert!(state.runs.len() <= RUNS, "{}", state.runs.len());
    world.now += IDLE + Duration::from_secs(60);
    state.sweep(world.now);
    assert!(state.runs.is_empty());
}
